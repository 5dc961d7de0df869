"""What the routes work with, put together once by `app.py`."""

from __future__ import annotations

from dataclasses import dataclass

from jobmon.core.clock import Clock
from jobmon.core.wire.server import Health
from jobmon.server.changes import ChangeFeed
from jobmon.server.held import HeldSyncs
from jobmon.server.readers import Readers
from jobmon.server.settings import Settings
from jobmon.server.writer import Writer


@dataclass(slots=True)
class Requests:
    """How many requests there were; the health check is none."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class Services:
    """The doors of a running server."""

    settings: Settings
    clock: Clock
    feed: ChangeFeed
    held: HeldSyncs
    writer: Writer
    readers: Readers
    health: Health
    requests: Requests
