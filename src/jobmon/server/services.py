"""The services that routes use, assembled once by `app.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.clock import Clock
from jobmon.core.exceptions import ServerUnavailable
from jobmon.core.wire.server import Health
from jobmon.server.answers import Answers
from jobmon.server.authority import Authority
from jobmon.server.background import Resumer
from jobmon.server.database import Database
from jobmon.server.feed import ChangeFeed
from jobmon.server.kept import Kept, Warmer
from jobmon.server.longpolls import OpenPolls
from jobmon.server.notifier import Notifier
from jobmon.server.oidc import Provider
from jobmon.server.output_files import OutputFiles
from jobmon.server.readers import Readers
from jobmon.server.recent import Recent
from jobmon.server.settings import Settings
from jobmon.server.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Maximum number of open streams; more readers are told to poll.
STREAMS_MAX: Final = 256


@dataclass(slots=True)
class Requests:
    """Number of requests so far; health checks do not count."""

    count: int = 0


@dataclass(slots=True)
class Streams:
    """The open streams of this process. `looks`: what readers who may see the same share; see `routes.streaming`."""

    count: int = 0
    looks: dict[Hashable, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Count a stream while it is open.

        Raises:
            ServerUnavailable: there are too many.
        """
        if self.count >= STREAMS_MAX:
            raise ServerUnavailable(f"{STREAMS_MAX} streams are open already; poll instead.")
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


@dataclass(frozen=True, slots=True)
class Name:
    """How a server identifies itself in its responses.

    Args:
        identity: unique to its database.
        incarnation: of this process; another process may have found the database in another state.
    """

    identity: str = ""
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class Services:
    """The services of a running server."""

    settings: Settings
    database: Database
    clock: Clock
    feed: ChangeFeed
    held: OpenPolls
    writer: Writer
    readers: Readers
    health: Health
    requests: Requests
    name: Name
    authority: Authority
    answers: Answers
    recent: Recent
    kept: Kept
    warmer: Warmer
    streams: Streams
    output_files: OutputFiles | None
    resumer: Resumer | None
    notifier: Notifier | None
    provider: Provider | None
