"""What the tests of local clusters share."""

from __future__ import annotations

import shutil
import tempfile

import pytest


@pytest.fixture(autouse=True)
def runtime_folder(monkeypatch):
    """Sockets and journals in a folder of the test (short: a socket's path may not be long)."""
    folder = tempfile.mkdtemp(prefix="jt-")
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
