"""Fixtures for the tests of local clusters."""

from __future__ import annotations

import shutil
import tempfile

import pytest


@pytest.fixture(autouse=True)
def runtime_folder(monkeypatch):
    """Put sockets and journals in a folder of the test, with a short path because of sockets."""
    folder = tempfile.mkdtemp(prefix="jt-")
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
