"""Folders, sockets and the identity of processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jobmon.core import places
from jobmon.core.exceptions import ConfigError


def test_a_private_folder_is_made_or_made_private(tmp_path):
    folder = places.make_private(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    places.make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="JOBMON_DATA_DIR"):
        places.make_private(tmp_path / "file" / "folder")


def test_a_socket_path_fits_or_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = places.socket_path(Path("/data"), "server")
    assert path is not None
    assert path.parent == tmp_path / "jobmon"
    assert path != places.socket_path(Path("/other"), "server")
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert places.socket_path(Path("/data"), "server") is None


def test_a_database_never_lies_on_a_network_file_system(tmp_path):
    assert places.database_directory(tmp_path) == tmp_path
    mounted = {Path("/"): "ext4", tmp_path: "nfs4", tmp_path / "local": "xfs"}
    assert places.database_directory(tmp_path / "local" / "data", mounted) == tmp_path / "local" / "data"
    local = places.database_directory(tmp_path / "home" / "data", mounted)
    assert local.parent == Path(f"/var/tmp/jobmon-{os.getuid()}")
    assert local != places.database_directory(tmp_path / "home" / "other", mounted)


def test_a_process_is_known_by_pid_and_start_time():
    start = places.process_start_time(os.getpid())
    assert start is not None
    assert places.is_process_alive(os.getpid(), start)
    assert not places.is_process_alive(os.getpid(), start - 100)
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a zombie until we collect it
    assert places.process_start_time(ended.pid) is None
    ended.wait()
    assert places.process_start_time(ended.pid) is None
