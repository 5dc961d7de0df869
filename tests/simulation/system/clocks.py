"""Clocks of the parts: one virtual time, but a separate time of day for each part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)


class PartClock:
    """The clock of one part; `offset` is the error of its time of day, seconds."""

    def __init__(self, loop: AbstractEventLoop, offset: float = 0.0) -> None:
        self._loop = loop
        self.offset = offset

    def now(self) -> datetime:
        """Return the time of day of this part."""
        return BEGINNING + timedelta(seconds=self._loop.time() + self.offset)

    def monotonic(self) -> float:
        """Return the virtual time since the beginning, seconds."""
        return self._loop.time()
