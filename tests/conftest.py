"""What holds for all tiers.

How deep hypothesis looks: deeper in CI. Machines are shared and at times very busy: no test fails for being slow.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("local", UNHURRIED, max_examples=100)
settings.register_profile("deep", UNHURRIED, max_examples=1000)
settings.load_profile("deep" if os.environ.get("CI") else "local")


def pytest_configure():
    """Hear interrupts: a shell that starts the tests in the background has them ignored, by all that we start too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def institute_server():
    """Return what runs a server as an institute does, on a port and database of its own, and yields its address."""

    @contextlib.contextmanager
    def run(folder, token, environment):
        command = [sys.executable, "-m", "jobmon.server", "--db", f"sqlite:///{folder}/institute.sqlite"]
        environment = {**environment, "JOBMON__HTTP__TOKEN": token}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
            line = ""
            while "listening on" not in line:
                line = process.stderr.readline()
                assert line, "it ended"
            yield re.search(r"http://\S+", line)[0]
            process.terminate()
            process.communicate(timeout=30)

    return run
