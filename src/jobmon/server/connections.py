"""Per-connection state, and limits on what a connection costs before its client is authenticated.

An unauthenticated client may hold a connection for `HEAD_SECONDS_MAX`, and all of them together `STRANGERS_MAX`
connections; beyond that, the oldest is closed. TCP connections never use the last file descriptors, so that the owner's
Unix socket always answers.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent import loopback, peers
from jobmon.agent.settlement import Said

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.agent import handshake
    from jobmon.core.credentials import Principal

#: Maximum size of a request's head (request line and headers), bytes.
HEAD_BYTES_MAX: Final = 64 * 1024
#: Maximum seconds until a head is complete, and until an unauthenticated connection without a request is closed.
HEAD_SECONDS_MAX: Final = 10.0
#: Maximum number of unauthenticated connections.
STRANGERS_MAX: Final = 256
#: File descriptors that TCP connections leave for the owner's Unix socket, the database and the log.
DESCRIPTORS_RESERVED: Final = 128
#: Upper bound of the limit on open files that is requested.
DESCRIPTORS_MAX: Final = 1_048_576
#: The key of a connection in a request's `scope["state"]`.
STATE_KEY: Final = "connection"


class Connection:
    """A connection.

    Args:
        is_ours: whether it came through the Unix socket from our own user.
        close: closes it.
        strangers: the unauthenticated connections; this one is removed from them once it is authenticated.
        ends: addresses of both ends over TCP, the client's first.
    """

    __slots__ = ("_ends", "_is_our_users", "_strangers", "close", "handshake", "is_local", "is_ours", "let_in")

    def __init__(
        self,
        is_ours: bool,
        close: Callable[[], None],
        strangers: dict[Connection, None],
        ends: tuple[loopback.End, loopback.End] | None,
    ) -> None:
        self.is_ours = is_ours
        #: Whether it came through a Unix socket.
        self.is_local = is_ours
        self.close = close
        self._strangers = strangers
        self._ends = ends
        self._is_our_users: bool | None = None
        #: The newest handshake on this connection.
        self.handshake: handshake.Server | None = None
        #: Appearance (`Gate._look`) and principal of the newest request that was admitted by its headers alone, and the
        #: time until which its credential is valid, seconds since 1970.
        self.let_in: tuple[object, Principal, float] | None = None

    @property
    def is_known(self) -> bool:
        """Whether a request on this connection was authenticated."""
        return self not in self._strangers

    @property
    def is_our_users(self) -> bool:
        """Whether our own user is at the other end; determined once."""
        if self._is_our_users is None:
            self._is_our_users = self.is_ours or (
                self._ends is not None and loopback.uid_of(*self._ends) == os.geteuid()
            )
        return self._is_our_users

    def recognise(self) -> None:
        """Note that a request on this connection was authenticated."""
        self._strangers.pop(self, None)


class Connections:
    """All connections of a server process.

    Args:
        descriptors: maximum number of open files of the process.
        knows_own_user: whether our own user needs no credential on a Unix socket: not if a proxy may be there.
    """

    def __init__(self, descriptors: int, *, knows_own_user: bool = True) -> None:
        self._knows_own_user = knows_own_user
        self._tcp_max = max(1, descriptors - DESCRIPTORS_RESERVED)
        self._strangers: dict[Connection, None] = {}  # oldest first
        self._tcp: set[Connection] = set()

    def opened(self, transport: Any, close: Callable[[], None]) -> Connection:
        """Add a new connection; close an older one, or this one, if there are too many."""
        line = transport.get_extra_info("socket")
        name, peer = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        is_local = isinstance(name, (str, bytes))
        ends = None if is_local or not name or not peer else (peer[:2], name[:2])
        is_ours = self._knows_own_user and is_local and line is not None and peers.is_ours(line)
        connection = Connection(is_ours, close, self._strangers, ends)
        connection.is_local = is_local
        if not connection.is_ours:
            self._strangers[connection] = None
        if not is_local:
            self._tcp.add(connection)
        if len(self._strangers) > STRANGERS_MAX or len(self._tcp) > self._tcp_max:
            oldest = next(iter(self._strangers), connection)
            self.closed(oldest)
            oldest.close()
        return connection

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        self._strangers.pop(connection, None)
        self._tcp.discard(connection)


def raise_descriptor_limit() -> int:
    """Raise the limit on open files as far as the system allows; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return DESCRIPTORS_MAX if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted


class OncePerMinute(logging.Filter):
    """Passes one message of each kind per minute: unauthenticated clients must not fill the owner's disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._said = Said()
        self._clock = clock

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the record."""
        return record.levelno >= logging.ERROR or self._said.is_due(record.msg, self._clock())


def process_limits(*, knows_own_user: bool = True) -> Connections:
    """Prepare this process for unauthenticated clients, and return its connections; see `Connections`."""
    logging.getLogger("uvicorn.error").addFilter(OncePerMinute())
    return Connections(raise_descriptor_limit(), knows_own_user=knows_own_user)
