"""Wake long polls. A topic is touched by every committed batch that changed it.

Create a waiter, read the database, then wait: a change that is committed in between is never missed. Used only on the
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobmon.server.transaction import Topic


class ChangeFeed:
    """The topics that long polls are waiting for. Memory is bounded by the number of open polls."""

    def __init__(self) -> None:
        #: Dicts used as ordered sets: the oldest waiter is woken first.
        self._waiting: dict[Topic, dict[Waiter, None]] = {}
        self._closed = False
        self._closing = asyncio.Event()

    @property
    def open_polls(self) -> int:
        """Number of requests that are held open."""
        return sum(map(len, self._waiting.values()))

    @property
    def is_closed(self) -> bool:
        """Whether the server is shutting down; waiting then returns at once."""
        return self._closed

    def waiter(self, topic: Topic) -> Waiter:
        """Return a waiter; use it as a context manager, and enter it before reading the database."""
        return Waiter(self, topic)

    def add(self, waiter: Waiter) -> None:
        """Register a waiter."""
        self._waiting.setdefault(waiter.topic, {})[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Unregister a waiter."""
        waiters = self._waiting[waiter.topic]
        waiters.pop(waiter, None)
        if not waiters:
            del self._waiting[waiter.topic]

    def wake(self, topics: Iterable[Topic]) -> None:
        """Wake the waiters of these topics."""
        for topic in topics:
            for waiter in self._waiting.get(topic, ()):
                waiter.event.set()

    async def pause(self, seconds: float) -> None:
        """Wait for this long, or until the server shuts down."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def close(self) -> None:
        """Wake all waiters permanently, because the server is shutting down."""
        self._closed = True
        self._closing.set()
        self.wake(list(self._waiting))


class Waiter:
    """A request that is held open. No wake-up between `with` and `wait` is lost."""

    def __init__(self, feed: ChangeFeed, topic: Topic) -> None:
        self._feed = feed
        self.topic = topic
        self.event = asyncio.Event()

    def __enter__(self) -> Waiter:
        self._feed.add(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._feed.remove(self)

    async def wait(self, seconds: float) -> bool:
        """Wait until the topic is touched (True), or until time is up or the server stops (False). Then rearm."""
        if seconds <= 0 or self._feed.is_closed:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return False
        self.event.clear()
        return not self._feed.is_closed
