"""File locks."""

from __future__ import annotations

import os

import pytest

from jobmon.core.exceptions import ConfigError, UntrustedFile
from jobmon.core.locks import FileLock, is_held


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    with FileLock(path) as lock, FileLock(path) as other:
        assert lock.take()
        assert not other.take()
        assert not other.take(wait_seconds=0.03)
        assert is_held(path)
    assert not is_held(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lock_that_cannot_be_made_says_what_helps(tmp_path):
    with pytest.raises(ConfigError, match=r"Set JOBMON_DATA_DIR"):
        FileLock(tmp_path / "missing" / "lock")


def test_a_planted_lock_is_refused(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / "lock").symlink_to("target")
    for refuses in (FileLock, is_held):
        with pytest.raises(UntrustedFile, match="symbolic link"):
            refuses(tmp_path / "lock")
    if os.geteuid() == 0:
        os.chown(tmp_path / "target", 65534, 65534)
        with pytest.raises(UntrustedFile, match="another user"):
            FileLock(tmp_path / "target")
