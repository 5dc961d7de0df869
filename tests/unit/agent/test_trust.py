"""Files that another user may have planted are rejected; nothing is changed, followed or deleted."""

from __future__ import annotations

import os
import socket
import stat
import struct
import tempfile
from pathlib import Path

import pytest

from jobmon.agent import trust

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")


def _mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o700)
    (folder / "file").write_text("content")
    (folder / "file").chmod(0o600)
    return folder


def test_what_is_ours_is_read(mine):
    assert trust.read_file(str(mine / "file"), is_secret=True) == b"content"
    assert trust.resolved(str(mine / "file")) == str(mine / "file")
    assert trust.private_folder(str(mine)) == str(mine)


def test_a_relative_path_with_dots_is_followed(mine, monkeypatch):
    monkeypatch.chdir(mine)
    assert trust.read_file("file") == b"content"
    assert trust.resolved("../mine/./file") == str(mine / "file")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_folders_that_are_made_are_ours_alone_whatever_the_umask_is(tmp_path, umask):
    before = os.umask(umask)
    try:
        trust.private_folder(str(tmp_path / "a" / "b" / "c"))
    finally:
        os.umask(before)
    assert [_mode(tmp_path / part) for part in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_others_lose_the_right_to_read_a_folder(mine):
    mine.chmod(0o755)
    trust.private_folder(str(mine))
    assert _mode(mine) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_folder_to_which_others_may_write_is_refused_and_left_as_it_is(mine, mode):
    mine.chmod(mode)
    with pytest.raises(trust.Untrusted, match=rf"{mine} may be written by others \(mode {mode:04o}\)\..*chmod go-w"):
        trust.private_folder(str(mine))
    assert _mode(mine) == mode


def test_a_folder_is_refused_for_its_parent(mine):
    (mine / "data").mkdir(mode=0o700)
    mine.chmod(0o777)
    for refuses in (trust.private_folder, trust.resolved, trust.require_folder):
        with pytest.raises(trust.Untrusted, match=f"{mine} may be written"):
            refuses(str(mine / "data"))
    mine.chmod(0o1777)  # as /tmp: other users cannot replace our files
    assert trust.private_folder(str(mine / "data")) == str(mine / "data")


def test_a_sticky_folder_is_no_place_for_files(mine):
    mine.chmod(0o1777)
    with pytest.raises(trust.Untrusted):
        trust.require_folder(str(mine))


def test_a_group_of_ours_alone_does_not_count(mine, monkeypatch):
    mine.chmod(0o770)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "_is_group_private", lambda group: False)
        with pytest.raises(trust.Untrusted, match="written by others"):
            trust.private_folder(str(mine))
    monkeypatch.setattr(trust, "_is_group_private", lambda group: True)
    assert trust.private_folder(str(mine)) == str(mine)


@as_root
@pytest.mark.parametrize("depth", ["mine/data", "mine"])
def test_a_folder_of_another_user_is_refused(mine, depth):
    (mine / "data").mkdir()
    theirs = mine.parent / depth
    os.chown(theirs, STRANGER, STRANGER)
    for refuses in (trust.private_folder, trust.resolved):
        with pytest.raises(trust.Untrusted, match=rf"{theirs} belongs to another user"):
            refuses(str(mine / "data"))


@as_root
def test_a_folder_in_one_of_another_user_is_not_made(mine):
    os.chown(mine, STRANGER, STRANGER)
    with pytest.raises(trust.Untrusted):
        trust.private_folder(str(mine / "data"))
    assert not (mine / "data").exists()


@pytest.mark.parametrize(
    ("kind", "rights", "is_trusted"),
    [(2, 6, False), (2, 4, True), (8, 2, False), (8, 5, True), (0, 0, True)],
    ids=["user writes", "user reads", "group writes", "group reads", "none"],
)
def test_an_access_control_list_may_share_what_the_mode_gives_to_a_private_group(
    mine, monkeypatch, kind, rights, is_trusted
):
    monkeypatch.setattr(trust, "_is_group_private", lambda group: True)
    monkeypatch.setattr(os, "getxattr", lambda where, name: struct.pack("<IHHi", 2, kind, rights, STRANGER))
    (mine / "file").chmod(0o660)
    if is_trusted:
        assert trust.read_file(str(mine / "file")) == b"content"
    else:
        with pytest.raises(trust.Untrusted, match="may be written by others"):
            trust.read_file(str(mine / "file"))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_to_which_others_may_write_is_refused(mine, mode, monkeypatch):
    monkeypatch.setattr(trust, "_is_group_private", lambda group: False)
    (mine / "file").chmod(mode)
    with pytest.raises(trust.Untrusted, match="file may be written by others"):
        trust.read_file(str(mine / "file"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_that_others_may_read_is_refused(mine, mode):
    (mine / "file").chmod(mode)
    assert trust.read_file(str(mine / "file")) == b"content"
    with pytest.raises(trust.Untrusted, match=r"may be read by others.*Type: chmod 600 .*file"):
        trust.read_file(str(mine / "file"), is_secret=True)


@as_root
def test_a_file_of_another_user_is_refused(mine):
    os.chown(mine / "file", STRANGER, STRANGER)
    with pytest.raises(trust.Untrusted, match="belongs to another user"):
        trust.read_file(str(mine / "file"))


@as_root
def test_a_parent_that_others_create_first_is_refused(mine, monkeypatch):
    sticky = mine / "tmp"
    sticky.mkdir()
    sticky.chmod(0o1777)
    made = os.mkdir

    def slowly(path, mode):
        made(path, mode)
        if path == str(sticky / "theirs"):
            os.chown(path, STRANGER, STRANGER)
            raise FileExistsError

    monkeypatch.setattr(trust.os, "mkdir", slowly)
    with pytest.raises(trust.Untrusted, match="theirs belongs to another user"):
        trust.private_folder(str(sticky / "theirs" / "data"))


def test_a_pipe_is_written_only_while_it_is_read(mine):
    pipe = mine / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="a pipe from which no program reads"):
        trust.append_file(str(pipe))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = trust.append_file(str(pipe))
    assert os.get_blocking(writer)
    os.write(writer, b"output")
    assert os.read(reader, 100) == b"output"
    for one in (reader, writer):
        os.close(one)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "socket"])
def test_what_is_no_file_is_neither_read_nor_waited_for(mine, kind, monkeypatch):
    path = mine / "other"
    if kind == "link":
        path.symlink_to(mine / "file")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(mine)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind("other")
    with pytest.raises(OSError):
        trust.read_file(str(path))


def test_a_file_that_is_too_large_is_refused(mine):
    with pytest.raises(OSError, match="more than 3 bytes"):
        trust.read_file(str(mine / "file"), bytes_max=3)


def test_a_link_of_ours_in_a_folder_of_ours_is_followed(mine, tmp_path):
    (tmp_path / "link").symlink_to("mine/../mine")
    assert trust.private_folder(str(tmp_path / "link")) == str(mine)
    assert trust.read_file(str(tmp_path / "link" / "file")) == b"content"


def test_a_link_where_others_may_put_one_is_not_followed(mine):
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "link")
        link.symlink_to(mine)
        os.chmod(folder, 0o1777)
        for refuses in (trust.private_folder, trust.resolved):
            with pytest.raises(trust.Untrusted, match="is a symbolic link in a folder to which others may write"):
                refuses(str(link))


@as_root
def test_a_link_of_another_user_is_not_followed(mine, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(mine)
    os.lchown(link, STRANGER, STRANGER)
    with pytest.raises(trust.Untrusted, match="belongs to another user"):
        trust.resolved(str(link / "file"))


def test_links_in_a_circle_are_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        trust.resolved(str(tmp_path / "a"))


def test_a_socket_has_to_be_ours(mine, monkeypatch):
    monkeypatch.chdir(mine)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
    trust.require_socket("socket")
    with pytest.raises(trust.Untrusted, match="is not a socket"):
        trust.require_socket("file")
    Path("link").symlink_to("socket")
    with pytest.raises(trust.Untrusted, match="is not a socket"):
        trust.require_socket("link")
    if os.geteuid() == 0:
        os.chown("socket", STRANGER, STRANGER)
        with pytest.raises(trust.Untrusted, match="belongs to another user"):
            trust.require_socket("socket")


def test_a_new_file_is_ours_alone_and_never_another_than_named(mine):
    before = os.umask(0)
    try:
        os.close(trust.open_file(str(mine / "new"), os.O_WRONLY | os.O_CREAT))
    finally:
        os.umask(before)
    assert _mode(mine / "new") == 0o600
    (mine / "link").symlink_to("file")
    with pytest.raises(trust.Untrusted, match="is a symbolic link"):
        trust.open_file(str(mine / "link"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert (mine / "file").read_text() == "content"


def _put(path, kind, target):
    if kind == "link":
        path.symlink_to(target)
    elif kind == "hard link":
        os.link(target, path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.chown(path, STRANGER, STRANGER)


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", pytest.param("file", marks=as_root)])
def test_output_goes_into_nothing_that_was_there_before(mine, kind):
    path = mine / "output"
    _put(path, kind, mine / "file")
    before = path.lstat()
    with pytest.raises(trust.Untrusted, match=r"output is .*Move it away"):
        trust.new_file(str(path))
    assert (mine / "file").read_text() == "content"
    assert path.lstat() == before


def test_output_replaces_an_older_file_of_ours(mine):
    for _ in range(2):
        file = trust.new_file(str(mine / "output"))
        os.write(file, b"x")
        os.close(file)
    assert (mine / "output").read_text() == "x"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", pytest.param("file", marks=as_root)])
def test_the_end_of_output_is_read_from_a_file_of_ours_only(mine, kind):
    path = mine / "output"
    _put(path, kind, mine / "file")
    with pytest.raises(OSError):
        trust.open_own(str(path))
    os.close(trust.open_own(str(mine / "file")))
