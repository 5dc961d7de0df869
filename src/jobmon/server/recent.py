"""Keep results of expensive queries for the next reader: as long as they are known to hold, or for a share of the time.

Readers ask for the same figures of a large workflow every second. A result that is kept costs nothing until something
it depends on has changed, and then it is computed at most for `SHARE_MAX` of the time, so that readers never keep the
server busy. What is cheap is not reused at all: small workflows are always up to date.

Used by all reader threads. Two threads may compute the same result; the later one is kept.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

#: Number of results that are kept.
RESULTS_MAX: Final = 128
#: A result that took less CPU time is not reused.
CHEAP_SECONDS: Final = 0.003
#: At most this share of the time of a thread is spent on one result.
SHARE_MAX: Final = 0.001
#: A result is never older than this, whatever it cost, unless its reader accepts an older one.
AGE_SECONDS_MAX: Final = 10.0
#: A result for which something has changed since is never older than this.
CHANGED_SECONDS_MAX: Final = 2.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Kept:
    result: Any
    depends_on: object
    at: float
    cost_seconds: float

    def outdated_seconds_max(self, limit: float) -> float:
        """Return how long the result may be used although something has changed."""
        return min(self.cost_seconds / SHARE_MAX, limit) if self.cost_seconds >= CHEAP_SECONDS else 0.0


class Recent:
    """The results (see the module docstring).

    Args:
        monotonic: returns the time in monotonic seconds.
        cpu: returns the CPU time of the calling thread, seconds.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.thread_time
    ) -> None:
        self._monotonic = monotonic
        self._cpu = cpu
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def last(self, key: Hashable, age_seconds: float = AGE_SECONDS_MAX) -> Any:
        """Return the result that is kept, even if it no longer holds; None: there is none, or it is older than that."""
        kept = self._found(key)
        return None if kept is None or self._monotonic() - kept.at >= age_seconds else kept.result

    def paced(self, key: Hashable, compute: Callable[[], _Result], age_seconds_max: float = AGE_SECONDS_MAX) -> _Result:
        """Return a result that may be outdated: recomputed only if that takes a small share of the time."""
        kept = self._found(key)
        if kept is not None and self._monotonic() - kept.at < kept.outdated_seconds_max(age_seconds_max):
            result: _Result = kept.result
            return result
        return self._computed(key, None, compute)

    def while_same(
        self,
        key: Hashable,
        depends_on: object,
        compute: Callable[[], _Result],
        age_seconds_max: float = AGE_SECONDS_MAX,
    ) -> _Result:
        """Return a result for what it depends on, or an outdated one of the last `CHANGED_SECONDS_MAX`.

        Args:
            key: identifies the result.
            depends_on: what it depends on.
            compute: computes it.
            age_seconds_max: for so long it is used while what it depends on is the same.
        """
        kept = self._found(key)
        if kept is not None:
            age = self._monotonic() - kept.at
            is_same = kept.depends_on == depends_on and kept.cost_seconds >= CHEAP_SECONDS
            if age < (age_seconds_max if is_same else kept.outdated_seconds_max(CHANGED_SECONDS_MAX)):
                result: _Result = kept.result
                return result
        return self._computed(key, depends_on, compute)

    def keep(self, key: Hashable, result: object) -> None:
        """Keep a result for `last`."""
        self._put(key, _Kept(result, None, self._monotonic(), 0.0))

    def _found(self, key: Hashable) -> _Kept | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
        return kept

    def _computed(self, key: Hashable, depends_on: object, compute: Callable[[], _Result]) -> _Result:
        at, cpu = self._monotonic(), self._cpu()
        result = compute()
        self._put(key, _Kept(result, depends_on, at, self._cpu() - cpu))
        return result

    def _put(self, key: Hashable, kept: _Kept) -> None:
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > RESULTS_MAX:
                self._kept.popitem(last=False)
