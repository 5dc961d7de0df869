"""Clocks of the parts: one virtual time, but each part has its own opinion about the time of day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)


class PartClock:
    """The clock of one part; `offset` is how wrong its time of day is, seconds."""

    def __init__(self, loop: AbstractEventLoop, offset: float = 0.0) -> None:
        self._loop = loop
        self.offset = offset

    def now(self) -> datetime:
        """Time of day as this part sees it."""
        return BEGINNING + timedelta(seconds=self._loop.time() + self.offset)

    def monotonic(self) -> float:
        """Seconds since the beginning."""
        return self._loop.time()
