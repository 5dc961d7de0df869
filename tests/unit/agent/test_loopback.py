"""Who is at the other end of connections within this host, by the kernel's own tables."""

import os
import socket

import pytest

from jobmon.agent import loopback

pytestmark = pytest.mark.skipif(not loopback.is_known(), reason="needs Linux")

#: Where a server listens, and where a client connects to it.
PLACES = [
    *[("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")],
    *[("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1")],
]


def listener(host):
    """Return a listening socket; "::" is for IPv4, too."""
    if host == "::":
        return socket.create_server((host, 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


@pytest.mark.parametrize(("host", "address"), PLACES)
@pytest.mark.parametrize("is_accepted", [False, True])
def test_both_ends_of_a_connection_within_this_host_are_recognized(host, address, is_accepted):
    with listener(host) as door, socket.create_connection((address, door.getsockname()[1])) as line:
        loopback.require_ours(line)
        if is_accepted:
            accepted, _ = door.accept()
            with accepted:
                loopback.require_ours(line)
                mine, theirs = line.getsockname()[:2], line.getpeername()[:2]
                assert loopback.uid_of(mine, theirs) == loopback.uid_of(theirs, mine) == os.geteuid()
                # as the other end sees it
                seen, peer = accepted.getsockname()[:2], accepted.getpeername()[:2]
                assert loopback.uid_of(peer, seen) == os.geteuid()


@pytest.mark.parametrize(("host", "address"), PLACES)
@pytest.mark.parametrize("is_accepted", [False, True])
def test_a_listener_of_another_user_is_not_ours(host, address, is_accepted, monkeypatch):
    with listener(host) as door, socket.create_connection((address, door.getsockname()[1])) as line:
        accepted = door.accept()[0] if is_accepted else None
        another = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: another)
        monkeypatch.setattr(loopback, "_ROOT", another)  # the tests may be run by root
        with pytest.raises(loopback.NotOurs, match=rf"port {door.getsockname()[1]} of this host .* http.token"):
            loopback.require_ours(line)
        if accepted is not None:
            accepted.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen as root")
def test_a_listener_of_root_is_trusted(monkeypatch):
    with listener("127.0.0.1") as door, socket.create_connection(door.getsockname()) as line:
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        loopback.require_ours(line)


def test_a_listener_that_closed_before_it_accepted_is_not_ours():
    with listener("127.0.0.1") as door:
        line = socket.create_connection(door.getsockname())
    with line, pytest.raises(OSError):  # it is reset, or its listener unknown
        loopback.require_ours(line)


def test_without_the_tables_nobody_is_recognized(monkeypatch):
    monkeypatch.setattr(loopback, "_TABLES", ("/proc/net/none",))
    with listener("127.0.0.1") as door, socket.create_connection(door.getsockname()) as line:
        with pytest.raises(loopback.NotOurs, match="does not name"):
            loopback.require_ours(line)
        assert not loopback.is_known()
