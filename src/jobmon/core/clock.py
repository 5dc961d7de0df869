"""Time, handed in. Everything that needs to know the time gets a `Clock`; the simulation has a virtual one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the time is, twice: of day and monotonic."""

    def now(self) -> datetime:
        """Time of day, UTC, aware, microseconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Time of day, UTC, aware, microseconds."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()
