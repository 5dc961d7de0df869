"""Tests do not use the home of the user who runs them."""

import os
import pwd
from pathlib import Path

from jobmon.core.configuration import data_directory


def test_tests_have_a_home_of_their_own():
    of_user = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert not Path.home().is_relative_to(of_user)
    assert not data_directory().is_relative_to(of_user)


def test_every_test_is_checked_for_a_server_at_home(request):
    assert "_no_server_at_home" in request.fixturenames
