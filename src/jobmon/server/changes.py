"""Waking those who wait. A topic has a version that rises with every committed batch that touched it.

Read the version, look at the database, wait for a version other than the one read: what is committed in between is
never missed. Used on the event loop only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobmon.server.transaction import Topic


class ChangeFeed:
    """The topics that somebody waits for. Memory is bounded by the open polls."""

    def __init__(self) -> None:
        #: Dicts as sets: who came first is woken first.
        self._waiting: dict[Topic, dict[Waiter, None]] = {}
        self._closed = False

    @property
    def open_polls(self) -> int:
        """How many requests are held open."""
        return sum(map(len, self._waiting.values()))

    @property
    def is_closed(self) -> bool:
        """Whether the server stops: nobody waits any more."""
        return self._closed

    def waiter(self, topic: Topic) -> Waiter:
        """Start to listen, before looking at the database. Use as context manager."""
        return Waiter(self, topic)

    def add(self, waiter: Waiter) -> None:
        """Listen."""
        self._waiting.setdefault(waiter.topic, {})[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Listen no longer."""
        waiters = self._waiting[waiter.topic]
        waiters.pop(waiter, None)
        if not waiters:
            del self._waiting[waiter.topic]

    def wake(self, topics: Iterable[Topic]) -> None:
        """Tell those who wait for one of the topics."""
        for topic in topics:
            for waiter in self._waiting.get(topic, ()):
                waiter.event.set()

    def close(self) -> None:
        """Tell everybody, for good: the server stops."""
        self._closed = True
        self.wake(list(self._waiting))


class Waiter:
    """One request that is held open. Between `with` and `wait` no wake-up is lost."""

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
        """Wait until the topic is touched (True), the time is over or the server stops (False). Then listen anew."""
        if seconds <= 0 or self._feed.is_closed:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return False
        self.event.clear()
        return not self._feed.is_closed
