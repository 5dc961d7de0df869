"""How often a cluster is asked: soon where something is about to happen, seldom where nothing does, never too much.

Between two looks lie at most `most` seconds; at least so many that looking takes no more than a small share of the
time and that the ceiling on calls is kept, even if that is more than `most`. Where nothing hurries, the time doubles
from look to look. After a failure it is the pauses that double. Pure: the time is handed in.
"""

from __future__ import annotations

from typing import Final

LEAST_SECONDS: Final = 1.0
#: What was submitted just now may fail at once; otherwise its worker tells.
SUBMITTED_SECONDS: Final = 3.0
SHARE_OF_TIME_MAX: Final = 0.05
#: While something is waited for.
SHARE_OF_TIME_HURRIED_MAX: Final = 0.2
#: However slow a cluster is, it is looked at this often.
FLOOR_SECONDS_MAX: Final = 900.0
PAUSE_SECONDS_FIRST: Final = 1.0
PAUSE_SECONDS_MAX: Final = 60.0
_MINUTE_SECONDS: Final = 60.0


class Backoff:
    """Pauses after failures."""

    def __init__(self) -> None:
        self.until = 0.0
        self._failures = 0

    @property
    def is_failing(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def failed(self, now: float) -> float:
        """Note a failure; return how long to pause, seconds."""
        pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_FIRST * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self.until = now + pause
        return pause

    def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0
        self.until = 0.0


class Pace:
    """When to look next.

    Args:
        most: longest time between two looks, seconds.
        calls_per_minute: how many calls looking may take.
        now: the time.
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
        """Look this soon after the last look, if that can be."""
        self._wish = min(self._wish, max(seconds, min(LEAST_SECONDS, self.most)))

    def urge(self) -> None:
        """Look as soon as the ceiling lets us."""
        self._is_urgent = True

    def looked(self, now: float, took: float = 0.0, calls: int = 0) -> None:
        """Note a look that ended now."""
        self.backoff.succeeded()
        self._looked_at = now
        self._is_urgent = False
        self._wish = min(self.most, self._wish * 2)
        self._took = took
        self._calls_take = calls * _MINUTE_SECONDS / self._calls_per_minute

    def saw(self, at: float) -> None:
        """Note that a view as of then was there already: the next is due as long after it."""
        self._looked_at = at
        self._is_urgent = False

    def failed(self, now: float) -> float:
        """Note a look that brought nothing; return the pause, seconds."""
        return self.backoff.failed(now)

    @property
    def interval(self) -> float:
        """How old a view may be, seconds."""
        wish = 0.0 if self._is_urgent else min(self._wish, self.most)
        share = SHARE_OF_TIME_HURRIED_MAX if wish < self.most else SHARE_OF_TIME_MAX
        return max(wish, min(max(self._took / share, self._calls_take), FLOOR_SECONDS_MAX))

    @property
    def due(self) -> float:
        """When to look next."""
        return max(self._looked_at + self.interval, self.backoff.until)
