"""Find the user at the other end of a TCP connection within this host, from the kernel's socket tables on Linux."""

from __future__ import annotations

import os
import socket
import sys
from typing import Final

#: The kernel's tables of TCP sockets, and the prefix of an IPv4 address in each.
_TABLES: Final = {
    "/proc/net/tcp": b"",
    "/proc/net/tcp6": b"0000000000000000" + (b"FFFF0000" if sys.byteorder == "little" else b"0000FFFF"),
}
_ESTABLISHED: Final = b"01"
#: Columns of the tables.
_UID, _INODE = 7, 9

End = tuple[str, int]


def is_known() -> bool:
    """Return whether this system provides the tables."""
    return any(os.access(table, os.R_OK) for table in _TABLES)


def uid_of(end: End, other: End) -> int | None:
    """Return the user who owns the socket at one end of an IPv4 connection; None: it is not on this host, or not open.

    Args:
        end: address and port of the socket.
        other: address and port of the other end.
    """
    for table, prefix in _TABLES.items():
        wanted = b" %s%s %s%s %s " % (prefix, _as_listed(*end), prefix, _as_listed(*other), _ESTABLISHED)
        try:
            with open(table, "rb") as file:
                found = next((line.split() for line in file if wanted in line), None)
        except OSError:
            continue
        if found is not None:  # a socket that its process has closed is listed as root's, without an inode
            return int(found[_UID]) if found[_INODE] != b"0" else None
    return None


def _as_listed(host: str, port: int) -> bytes:
    return b"%08X:%04X" % (int.from_bytes(socket.inet_aton(host), sys.byteorder), port)
