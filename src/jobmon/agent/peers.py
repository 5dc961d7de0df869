"""Identify the user at the other end of a Unix socket. Workers load this module (`python -I -S`)."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Options(Protocol):
        """A socket, or an event loop's view of one."""

        def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


#: Linux: level SOL_SOCKET, option SO_PEERCRED, struct ucred (pid, uid, gid).
_LINUX = (1, 17, 12)
#: macOS: level SOL_LOCAL, option LOCAL_PEERCRED, struct xucred (version, uid, groups).
_DARWIN = (0, 1, 76)
_UID = slice(4, 8)
#: The user ID that the kernel reports for a user that is not mapped in our user namespace.
OVERFLOW_UID = 65_534


def uid_of(line: Options) -> int | None:
    """Return the user ID of the process at the other end of a Unix socket, or None if it is unknown."""
    try:
        found = line.getsockopt(*(_DARWIN if sys.platform == "darwin" else _LINUX))
    except OSError:
        return None
    uid = int.from_bytes(found[_UID], sys.byteorder)
    return None if uid == OVERFLOW_UID or len(found) < _UID.stop else uid


def is_ours(line: Options) -> bool:
    """Return whether our own user is at the other end of a Unix socket."""
    return uid_of(line) == os.geteuid()
