"""Whether the server of an access file is dead, here, or unreachable; its socket is verified."""

from __future__ import annotations

import os
import socket

import pytest

from jobmon.core import access, paths
from jobmon.core.exceptions import ServerUnavailable, UntrustedFile
from jobmon.core.locks import FileLock
from jobmon.core.wire import replace
from jobmon.core.wire.server import AccessFile

DEAD = 2**22 + 1  # no process has this id


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(paths, "machine_id", lambda: "machine")
    return folder


@pytest.fixture
def dead(data):
    """A server of this machine that was killed."""
    (data / "jobmon.sqlite").touch()
    return AccessFile(
        host=socket.gethostname(),
        pid=DEAD,
        pid_start_time=1.0,
        boot_id=paths.boot_id(),
        machine_id="machine",
        socket="",
        address="http://127.0.0.1:9",
        token="secret",
        version="1",
        message_version=1,
        running=True,
        started_at="",
        database=f"sqlite:///{data}/jobmon.sqlite",
    )


@pytest.fixture
def find(data):
    def find_(found):
        access.write_access_file(found, data)
        return access.find_server(data)

    return find_


def test_a_dead_server_is_dead_whatever_its_host_is_called_now(dead, find):
    assert find(dead) is None
    assert find(replace(dead, host="another")) is None
    assert find(replace(dead, host="another", boot_id="before the boot")) is None


def test_a_lock_that_is_held_says_that_it_lives_in_another_container(dead, find, data):
    with FileLock(data / access.SERVER_LOCK_NAME) as lock:
        lock.take()
        for boot_id in (dead.boot_id, "before the boot"):
            with pytest.raises(ServerUnavailable, match=f"runs on host {dead.host}"):
                find(replace(dead, boot_id=boot_id))


def test_the_lock_of_a_dead_process_is_waited_for(dead, find, data, monkeypatch):
    """It exits with its last thread; until then its port accepts connections."""
    lock = FileLock(data / access.SERVER_LOCK_NAME)
    assert lock.take()
    with socket.create_server(("127.0.0.1", 0)) as port:
        address = f"http://127.0.0.1:{port.getsockname()[1]}"
        here = replace(dead, pid_start_time=paths.process_start_time(os.getpid()), address=address)
        monkeypatch.setattr(access, "DEATH_SECONDS_MAX", 0.0)
        with pytest.raises(ServerUnavailable, match=r"has exited, but a process still holds .*server\.lock"):
            find(here)
        monkeypatch.setattr(access, "DEATH_SECONDS_MAX", 60.0)
        monkeypatch.setattr(access.time, "sleep", lambda _: lock.close())
        assert find(here) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": "b", "machine_id": "another"},
        {"boot_id": "b", "machine_id": "", "database": "sqlite:////nowhere"},
        {"boot_id": "b", "database": "sqlite:////var/tmp/jobmon-0/of-a-clone/jobmon.sqlite"},
    ],
)
def test_a_server_of_another_machine_is_not_looked_for_at_our_own_ports(dead, find, changes):
    """Another program listens there."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        address = f"http://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ServerUnavailable, match=r"If login2 is gone for good: jobmon server start --take-over"):
            find(replace(dead, host="login2", address=address, **changes))
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_server_that_answers_elsewhere_is_not_taken_over(dead, find, data, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(paths, "is_loopback", lambda host: False)
        address = f"http://127.0.0.1:{other.getsockname()[1]}"
        assert find(replace(dead, boot_id="b", machine_id="another", address=address)) is not None
        with pytest.raises(ServerUnavailable, match="The Jobmon server is running on host"):
            access.take_over(data)


def test_a_socket_is_used_only_here_and_if_it_is_ours(dead, data):
    path = data / "server.sock"
    assert access.usable_socket(replace(dead, socket=str(path))) == ""
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        found = replace(dead, socket=str(path))
        assert access.usable_socket(found) == str(path)
        assert access.usable_socket(replace(found, boot_id="another")) == ""
        data.chmod(0o777)
        assert access.usable_socket(found) == ""
        data.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
            assert access.usable_socket(found) == ""


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_an_access_file_that_others_can_read_is_refused(dead, find, data, mode):
    access.write_access_file(dead, data)
    access.access_file_path(data).chmod(mode)
    with pytest.raises(UntrustedFile, match=rf"server\.json may be .* by others \(mode 0{mode:o}\)"):
        access.find_server(data)
    assert access.access_file_path(data).stat().st_mode & 0o777 == mode


def test_a_process_of_another_boot_or_container_is_not_judged_here():
    start = paths.process_start_time(os.getpid())
    assert paths.has_seen_start(start)
    assert paths.has_seen_start(start - 5)
    assert not paths.has_seen_start(start + paths.BOOT_AXIS_SECONDS)
    assert not paths.has_seen_start(0.0)
