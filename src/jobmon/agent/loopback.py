"""Find the user at the other end of a TCP connection within this host, from the kernel's socket tables on Linux.

Workers load this module (`python -I -S`), if they have no credential.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_INET, AF_INET6, inet_pton

from jobmon.agent.addresses import is_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    End = tuple[str, int]

    class Line(Protocol):
        """A connected socket, or an event loop's view of one."""

        def getsockname(self) -> Any: ...

        def getpeername(self) -> Any: ...


#: The kernel's tables of TCP sockets.
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
#: The prefix of an IPv4 address in an IPv6 table.
_MAPPED = b"\0" * 10 + b"\xff\xff"
_ESTABLISHED, _LISTENING = b"01", b"0A"
#: Columns of the tables.
_LOCAL, _REMOTE, _STATE, _UID, _INODE = 1, 2, 3, 7, 9
#: The user who may do everything on this host anyway.
_ROOT = 0


class NotOurs(ConnectionError):
    """A listener of another user, or one of whom the user cannot be determined."""


def is_known() -> bool:
    """Return whether this system provides the tables."""
    return any(os.access(table, os.R_OK) for table in _TABLES)


def uid_of(end: End, other: End) -> int | None:
    """Return the user who owns the socket at one end of a connection; None: it is not on this host, or not open.

    Args:
        end: address and port of the socket.
        other: address and port of the other end.
    """
    ends, others = _listed(*end), _listed(*other)
    for row in _rows(_ESTABLISHED, ends):
        # a socket that its process has closed, or not accepted yet, is listed as root's, without an inode
        if row[_REMOTE] in others:
            return int(row[_UID]) if row[_INODE] != b"0" else None
    return None


def require_ours(line: Line) -> None:
    """Check that a connection within this host leads to a process of our own user or root; others are not checked.

    A connection without a credential has no other way to recognize its server: after the server has exited, anybody may
    listen at its port.

    Raises:
        NotOurs: another user accepted it or is going to, or this system does not tell.
    """
    end, other = line.getpeername()[:2], line.getsockname()[:2]
    if end[0] != other[0] and not is_loopback(end[0]):
        return
    found = uid_of(end, other)
    if found is None:  # not accepted yet: only the owner of the listening socket can do so
        places = _listed(*end) | _listed("0.0.0.0", end[1]) | _listed("::", end[1])
        uids = {int(row[_UID]) for row in _rows(_LISTENING, places)}
        found = uids.pop() if len(uids) == 1 else None
    if found not in (_ROOT, os.geteuid()):
        who = "a user whom this system does not name" if found is None else f"another user (uid {found})"
        raise NotOurs(
            f"port {end[1]} of this host belongs to {who}, and without a token a server must be a process of the same"
            " user; set http.token"
        )


def _rows(state: bytes, places: set[bytes]) -> Iterator[list[bytes]]:
    """Yield the sockets in a state whose local end is one of these places, column by column."""
    for table in _TABLES:
        try:
            with open(table, "rb") as file:
                for line in file:
                    row = line.split()
                    if row[_STATE] == state and row[_LOCAL] in places:
                        yield row
        except OSError:
            continue


def _listed(host: str, port: int) -> set[bytes]:
    """Return the forms in which the tables may contain an address and a port."""
    if ":" in host:
        packed = inet_pton(AF_INET6, host.partition("%")[0])
        forms = {packed, packed.removeprefix(_MAPPED)}
    else:
        packed = inet_pton(AF_INET, host)
        forms = {packed, _MAPPED + packed}
    return {b"%s:%04X" % (_words(form), port) for form in forms}


def _words(packed: bytes) -> bytes:
    """Return an address as the tables contain it: words of 32 bits in the byte order of this machine."""
    words = [packed[start : start + 4] for start in range(0, len(packed), 4)]
    return b"".join([b"%08X" % int.from_bytes(word, sys.byteorder) for word in words])
