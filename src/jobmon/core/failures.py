"""Find what failures have in common: messages without task-specific parts, and concentrations. Pure functions.

Fisher's exact test (one side of the hypergeometric distribution) determines whether failures concentrate on a host or a
value. It is corrected for the number of hosts and values tried (Bonferroni): among many, one always looks bad by
chance.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Chance, after correction, below which a concentration is reported.
CHANCE_MAX: Final = 0.01
MESSAGE_CHARACTERS_MAX: Final = 300
HOSTS_NAMED_MAX: Final = 5
#: Number of messages whose normalized form is remembered: the failures of a workflow are grouped again and again.
NORMALIZED_MAX: Final = 20_000
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


def grouped(failures: Iterable[Failure]) -> list[Group]:
    """Group failures that are alike, the largest group first. The newest failure of each group is the example."""
    alike: dict[tuple[str, str, str, str], list[Failure]] = {}
    for failure in failures:
        key = (failure.template, failure.ending, failure.cause, normalized(failure.message))
        alike.setdefault(key, []).append(failure)
    groups = [_group(key, members) for key, members in alike.items()]
    return sorted(groups, key=lambda group: (-group.count, -group.last_at.timestamp()))


def _group(key: tuple[str, str, str, str], members: list[Failure]) -> Group:
    newest = max(members, key=lambda failure: (failure.ended_at, failure.attempt_id))
    hosts = Counter(failure.host for failure in members if failure.host)
    return Group(
        template=key[0],
        ending=key[1],
        cause=key[2],
        message=key[3],
        count=len(members),
        first_at=min(failure.ended_at for failure in members),
        last_at=newest.ended_at,
        hosts=tuple(hosts.most_common(HOSTS_NAMED_MAX)),
        example=newest,
    )


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
