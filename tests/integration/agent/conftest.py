"""Commands in a process of their own."""

from __future__ import annotations

import pytest
from tests.integration.agent.driver import run_apart


@pytest.fixture
def apart(tmp_path):
    """Return what calls a function with a driver, in a process of its own, and returns its value."""

    def call(function, *arguments):
        return run_apart(function, tmp_path, *arguments)

    return call
