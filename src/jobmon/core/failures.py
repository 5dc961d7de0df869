"""Find what failures have in common: messages without task-specific parts, and concentrations. Pure functions.

Fisher's exact test (one side of the hypergeometric distribution) determines whether failures concentrate on a host or a
value. It is corrected for the number of hosts and values tried (Bonferroni): among many, one always looks bad by
chance.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, KeysView

#: Chance, after correction, below which a concentration is reported.
CHANCE_MAX: Final = 0.01
MESSAGE_CHARACTERS_MAX: Final = 300
HOSTS_NAMED_MAX: Final = 5
#: Number of messages whose normalized form is remembered: the failures of a workflow are grouped again and again.
NORMALIZED_MAX: Final = 20_000
#: Number of discarded failures, besides as many as there are in the group, after which their ends are dropped.
STALE_MAX: Final = 1_000
_PATH: Final = re.compile(r"(?<![\w/])(?:~|\.{1,2})?(?:/[\w.+@%=,-]+)+/?|\b[A-Za-z]:\\\S+")
_HEX: Final = re.compile(
    r"\b0[xX][0-9a-fA-F]+\b|\b(?=[0-9a-fA-F-]*\d)(?=[0-9a-fA-F-]*[a-fA-F])[0-9a-fA-F]{4,}(?:-?[0-9a-fA-F]{4,})+\b"
)
_NUMBER: Final = re.compile(r"\d+(?:[.,:]\d+)*(?:[eE][+-]?\d+)?")
_SPACE: Final = re.compile(r"\s+")


@lru_cache(maxsize=NORMALIZED_MAX)
def normalized(message: str) -> str:
    """Return a message without the parts that differ from task to task.

    >>> normalized("cannot read /data/17.csv: line 3 at 0x7ffe12")
    'cannot read <path>: line <n> at <hex>'
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = lines[-1][: 4 * MESSAGE_CHARACTERS_MAX] if lines else ""
    text = _HEX.sub("<hex>", _PATH.sub("<path>", text))
    return _SPACE.sub(" ", _NUMBER.sub("<n>", text))[:MESSAGE_CHARACTERS_MAX]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed attempt."""

    attempt_id: int
    task_id: int
    task_name: str
    template: str
    ended_at: datetime
    message: str
    cause: str = ""
    exit_code: int | None = None
    signal: int | None = None
    host: str = ""

    @property
    def ending(self) -> str:
        """The outcome in a few words."""
        if self.signal is not None:
            return f"signal {self.signal}"
        if self.exit_code is not None:
            return f"exit code {self.exit_code}"
        return self.cause or "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Failures that are alike. `hosts`: the hosts with most of them, and how many."""

    template: str
    ending: str
    cause: str
    message: str
    count: int
    first_at: datetime
    last_at: datetime
    hosts: tuple[tuple[str, int], ...]
    example: Failure


class Groups:
    """Groups of failures that are alike, to which failures are added, and from which they are discarded."""

    def __init__(self, failures: Iterable[Failure] = ()) -> None:
        self._groups: dict[tuple[str, str, str, str], _Members] = {}
        self._keys: dict[int, tuple[str, str, str, str]] = {}
        for failure in failures:
            self.add(failure)

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def attempt_ids(self) -> KeysView[int]:
        """The failed attempts."""
        return self._keys.keys()

    def add(self, failure: Failure) -> None:
        """Add a failure of an attempt that is not in any group yet."""
        key = (failure.template, failure.ending, failure.cause, normalized(failure.message))
        self._keys[failure.attempt_id] = key
        self._groups.setdefault(key, _Members()).add(failure)

    def discard(self, attempt_id: int) -> None:
        """Discard the failure of an attempt that is in a group."""
        key = self._keys.pop(attempt_id)
        if not self._groups[key].discard(attempt_id):
            del self._groups[key]

    def largest(self, most: int | None = None) -> list[Group]:
        """Return groups, the largest first; of groups of the same size, the one with the newest failure."""
        found = self._groups.items()
        size = len(found) if most is None else most
        chosen = heapq.nsmallest(size, found, key=lambda one: (-one[1].count, -one[1].newest.ended_at.timestamp()))
        return [members.group(key) for key, members in chosen]


class _Members:
    """The failures of a group. Adding or discarding one takes the same time however many there are."""

    __slots__ = ("_failures", "_first", "_hosts", "_newest")

    def __init__(self) -> None:
        self._failures: dict[int, Failure] = {}
        self._hosts: Counter[str] = Counter()
        #: Ends with attempt IDs, as heaps from the first and from the last; discarded failures may still be in them.
        self._first: list[tuple[float, int]] = []
        self._newest: list[tuple[float, int]] = []

    @property
    def count(self) -> int:
        return len(self._failures)

    @property
    def newest(self) -> Failure:
        """The failure that ended last."""
        return self._top(self._newest)

    def add(self, failure: Failure) -> None:
        """Add a failure."""
        ended, attempt_id = failure.ended_at.timestamp(), failure.attempt_id
        self._failures[attempt_id] = failure
        heapq.heappush(self._first, (ended, attempt_id))
        heapq.heappush(self._newest, (-ended, -attempt_id))
        if failure.host:
            self._hosts[failure.host] += 1

    def discard(self, attempt_id: int) -> int:
        """Discard a failure; return how many are left."""
        host = self._failures.pop(attempt_id).host
        if host:
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]
        if max(len(self._first), len(self._newest)) > 2 * len(self._failures) + STALE_MAX:
            ends = [(failure.ended_at.timestamp(), number) for number, failure in self._failures.items()]
            self._first, self._newest = sorted(ends), sorted((-ended, -number) for ended, number in ends)
        return len(self._failures)

    def group(self, key: tuple[str, str, str, str]) -> Group:
        newest = self.newest
        return Group(
            template=key[0],
            ending=key[1],
            cause=key[2],
            message=key[3],
            count=self.count,
            first_at=self._top(self._first).ended_at,
            last_at=newest.ended_at,
            hosts=tuple(self._hosts.most_common(HOSTS_NAMED_MAX)),
            example=newest,
        )

    def _top(self, heap: list[tuple[float, int]]) -> Failure:
        """Return the failure at the top of a heap, without those that were discarded."""
        while (found := self._failures.get(abs(heap[0][1]))) is None:  # it was discarded
            heapq.heappop(heap)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Of all attempts or tasks that ended, `count` had this value, and `failed` of these failed.

    `what`: "host", or the name of an argument.
    """

    what: str
    value: str
    failed: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Concentration:
    """A share of the failures that is too large for chance. `chance` is corrected for everything that was tried."""

    share: Share
    failures: int
    total: int
    chance: float


def concentrations(shares: Iterable[Share], failures: int, total: int, tried: int) -> list[Concentration]:
    """Return the values on which failures concentrate beyond chance, the least likely first."""
    found = [
        Concentration(share=share, failures=failures, total=total, chance=min(1.0, tail * max(1, tried)))
        for share in shares
        if share.failed * total > share.count * failures  # otherwise there are no more than expected by chance
        and (tail := chance_of(share.failed, share.count, failures, total)) is not None
    ]
    return sorted((one for one in found if one.chance < CHANCE_MAX), key=lambda one: one.chance)


def chance_of(failed: int, count: int, failures: int, total: int) -> float | None:
    """Return the probability that `count` of `total`, of which `failures` failed, hold at least `failed` of them.

    None if the figures contradict each other or carry no information. Exact up to rounding.

    >>> round(chance_of(3, 3, 3, 6), 3)
    0.05
    """
    if not 0 <= failed <= min(count, failures) or max(count, failures) > total or count == total:
        return None
    if count - failed > total - failures:
        return None
    highest = min(count, failures)
    whole = _log_choose(total, failures)
    return min(
        1.0,
        math.fsum(
            math.exp(_log_choose(count, k) + _log_choose(total - count, failures - k) - whole)
            for k in range(failed, highest + 1)
        ),
    )


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
