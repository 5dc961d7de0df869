"""The polling interval of a cluster: short if a change is expected, long otherwise, and never excessive.

The interval between two polls is at most `most` seconds, but at least long enough that polling takes only a small share
of the time and the limit on calls is kept, even if that exceeds `most`. If nothing is expected soon, the interval
doubles after each poll. After a failure, the pauses double. Pure: the time is passed in.
"""

from __future__ import annotations

from typing import Final

LEAST_SECONDS: Final = 1.0
#: A job may fail right after its submission; later, its worker reports.
SUBMITTED_SECONDS: Final = 3.0
SHARE_OF_TIME_MAX: Final = 0.05
#: The same while a change is expected.
SHARE_OF_TIME_HURRIED_MAX: Final = 0.2
#: A cluster is polled at least this often, however slow it is.
FLOOR_SECONDS_MAX: Final = 900.0
PAUSE_SECONDS_FIRST: Final = 1.0
PAUSE_SECONDS_MAX: Final = 60.0
_MINUTE_SECONDS: Final = 60.0


class Backoff:
    """Exponential back-off after failures."""

    def __init__(self) -> None:
        self.until = 0.0
        self._failures = 0

    @property
    def is_failing(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def failed(self, now: float) -> float:
        """Record a failure; return the length of the pause, seconds."""
        pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_FIRST * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self.until = now + pause
        return pause

    def succeeded(self) -> None:
        """Reset the back-off."""
        self._failures = 0
        self.until = 0.0


class PollingInterval:
    """Determine when to poll next.

    Args:
        most: longest time between two polls, seconds.
        calls_per_minute: maximum number of calls for polling.
        now: the current time, monotonic seconds.
    """

    def __init__(self, most: float, calls_per_minute: float, now: float) -> None:
        self.most = most
        self.backoff = Backoff()
        self._calls_per_minute = calls_per_minute
        self._looked_at = now
        self._wish = most
        self._took = 0.0
        self._calls_take = 0.0
        self._is_urgent = False

    def hurry(self, seconds: float = LEAST_SECONDS) -> None:
        """Poll this soon after the last poll, if the limits permit."""
        self._wish = min(self._wish, max(seconds, min(LEAST_SECONDS, self.most)))

    def urge(self) -> None:
        """Poll as soon as the limits permit."""
        self._is_urgent = True

    def looked(self, now: float, took: float = 0.0, calls: int = 0) -> None:
        """Record a poll that completed now."""
        self.backoff.succeeded()
        self._looked_at = now
        self._is_urgent = False
        self._wish = min(self.most, self._wish * 2)
        self._took = took
        self._calls_take = calls * _MINUTE_SECONDS / self._calls_per_minute

    def saw(self, at: float) -> None:
        """Record that a view from this time was available; the next poll is due an interval later."""
        self._looked_at = at
        self._is_urgent = False

    def failed(self, now: float) -> float:
        """Record a failed poll; return the pause, seconds."""
        return self.backoff.failed(now)

    @property
    def interval(self) -> float:
        """The maximum age of a view, seconds."""
        wish = 0.0 if self._is_urgent else min(self._wish, self.most)
        share = SHARE_OF_TIME_HURRIED_MAX if wish < self.most else SHARE_OF_TIME_MAX
        return max(wish, min(max(self._took / share, self._calls_take), FLOOR_SECONDS_MAX))

    @property
    def due(self) -> float:
        """When to poll next (monotonic seconds)."""
        return max(self._looked_at + self.interval, self.backoff.until)
