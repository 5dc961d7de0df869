"""Folders, sockets and the identity of processes."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from jobmon.core import paths
from jobmon.core.exceptions import ConfigError, UntrustedFile


def test_a_private_folder_is_made_or_made_private(tmp_path):
    folder = paths.make_private(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    paths.make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="JOBMON_DATA_DIR"):
        paths.make_private(tmp_path / "file" / "folder")


def test_a_socket_path_fits_or_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = paths.socket_path(Path("/data"), "server")
    assert path is not None
    assert path.parent == tmp_path / "jobmon"
    assert path != paths.socket_path(Path("/other"), "server")
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert paths.socket_path(Path("/data"), "server") is None


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders of a login, for temporary files and for data."""
    for name in ("login", "tmp", "data"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "login"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))
    own = (tmp_path / "login" / "jobmon", tmp_path / "tmp" / f"jobmon-{os.getuid()}", tmp_path / "data" / "run")
    return dict(zip(("login", "tmp", "data"), own, strict=True))


def _in_the_way(folder, way):
    if way == "file":
        folder.write_text("", encoding="utf-8")
    elif way == "link":
        folder.symlink_to(folder.parent)
    else:
        folder.mkdir()
        os.chown(folder, 65534, 65534)


@pytest.mark.parametrize(
    "way",
    [
        "file",
        "link",
        pytest.param("stranger", marks=pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a folder away")),
    ],
)
def test_a_runtime_folder_that_is_not_ours_is_passed_over_and_told_of(folders, way):
    assert paths.chosen_runtime_directory() == (folders["login"], [])
    folders["login"].rmdir()
    _in_the_way(folders["login"], way)
    chosen, problems = paths.chosen_runtime_directory()
    assert chosen == folders["tmp"]
    assert [str(folders["login"]) in problem for problem in problems] == [True]
    folders["tmp"].rmdir()
    _in_the_way(folders["tmp"], way)
    assert paths.runtime_directory() == folders["data"]
    assert folders["data"].stat().st_mode & 0o777 == 0o700
    folders["data"].rmdir()
    _in_the_way(folders["data"], way)
    with pytest.raises(
        ConfigError, match=r"No private folder for sockets is usable: .*login.*tmp.*data.* Set XDG_RUNTIME_DIR"
    ):
        paths.runtime_directory()


def test_a_database_never_lies_on_a_network_file_system(tmp_path):
    assert paths.database_directory(tmp_path) == tmp_path
    mounted = {Path("/"): "ext4", tmp_path: "nfs4", tmp_path / "local": "xfs"}
    assert paths.database_directory(tmp_path / "local" / "data", mounted) == tmp_path / "local" / "data"
    local = paths.database_directory(tmp_path / "home" / "data", mounted)
    assert local.parent == Path(f"/var/tmp/jobmon-{os.getuid()}")
    assert local != paths.database_directory(tmp_path / "home" / "other", mounted)


@pytest.mark.parametrize(
    "way",
    [
        "file",
        pytest.param("stranger", marks=pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a folder away")),
    ],
)
def test_a_taken_local_folder_is_replaced_by_one_that_nobody_can_guess(tmp_path, monkeypatch, way):
    data, local = tmp_path / "data", tmp_path / "var"
    data.mkdir(mode=0o700)
    local.mkdir()
    monkeypatch.setattr(paths, "LOCAL_FOLDER", local)
    mounted = {Path("/"): "ext4", data: "nfs4"}
    usual = local / f"jobmon-{os.getuid()}"
    assert (paths.database_directory(data, mounted).parent, paths.taken_local_folder()) == (usual, None)
    _in_the_way(usual, way)
    assert paths.taken_local_folder() == usual
    chosen = paths.database_directory(data, mounted)
    assert chosen.parent.parent == local
    assert chosen.parent.name.startswith(f"{usual.name}-")
    assert paths.database_directory(data, mounted) == chosen
    paths.make_private(chosen)
    usual.rmdir() if usual.is_dir() else usual.unlink()
    assert paths.database_directory(data, mounted) == chosen, "the database does not move"


def test_a_local_folder_whose_name_was_written_by_others_is_not_used(tmp_path, monkeypatch):
    data, local = tmp_path / "data", tmp_path / "var"
    data.mkdir(mode=0o700)
    local.mkdir()
    monkeypatch.setattr(paths, "LOCAL_FOLDER", local)
    note = data / paths.LOCAL_FOLDER_NOTE
    mounted = {Path("/"): "ext4", data: "nfs4"}
    for content in ("../../etc", "x" * 500, ""):
        note.write_text(content)
        note.chmod(0o600)
        assert paths.database_directory(data, mounted).parent == local / f"jobmon-{os.getuid()}"
    note.chmod(0o666)
    with pytest.raises(UntrustedFile, match=f"{paths.LOCAL_FOLDER_NOTE} may be written by others"):
        paths.database_directory(data, mounted)


def test_a_process_is_known_by_pid_and_start_time():
    start = paths.process_start_time(os.getpid())
    assert start is not None
    assert paths.is_process_alive(os.getpid(), start)
    assert not paths.is_process_alive(os.getpid(), start - 100)
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a zombie until we collect it
    assert paths.process_start_time(ended.pid) is None
    ended.wait()
    assert paths.process_start_time(ended.pid) is None
