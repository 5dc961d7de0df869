"""Injected time. Every component that needs the time gets a `Clock`; the simulation uses a virtual one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Provides the time of day and a monotonic time."""

    def now(self) -> datetime:
        """Return the time of day: UTC, aware, with microseconds."""

    def monotonic(self) -> float:
        """Return the seconds since some fixed moment; never decreases."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the time of day: UTC, aware, with microseconds."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the seconds since some fixed moment; never decreases."""
        return time.monotonic()
