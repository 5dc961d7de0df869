"""How times are stored: microseconds since 1970 in UTC.

A time is an integer in every database, because integers compare, index and add the same everywhere (the logical clock
adds one microsecond), and cost a tenth as much to read as text.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_microseconds(time: datetime) -> int:
    """Return the stored form of an aware time."""
    return (time - EPOCH) // _MICROSECOND


def to_datetime(microseconds: int) -> datetime:
    """Return the aware time of a stored time."""
    return EPOCH + timedelta(microseconds=microseconds)
