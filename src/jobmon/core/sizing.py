"""Right-sizing: propose requests based on what was used. Pure statistics, without clock or disk access.

A proposal is a statistic of what finished attempts used (`Strategy`), plus a margin, rounded up, because two runs of
the same command never use quite the same. Units are those of requests: cores, GiB, seconds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import InvalidResources

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MEMORY_MARGIN: Final = 0.2
RUNTIME_MARGIN: Final = 0.5
#: Less than this is never proposed: it gains nothing, and it would make tasks fail on a busy machine.
MEMORY_GIB_MIN: Final = 1 / 32
RUNTIME_SECONDS_MIN: Final = 10.0
#: A fraction of a core above an integer that is measurement noise.
CORES_NOISE: Final = 0.25
#: Below this duration the shell's startup outweighs the command: 2 ms of `cat` would look like five cores.
CORES_MEASURED_SECONDS_MIN: Final = 0.1
#: An argument matters if usage differs by this factor between its values.
SPREAD_MIN: Final = 1.5
_MIB_PER_GIB: Final = 1024
_QUANTILE: Final = re.compile(r"^q(\d{1,2}(?:\.\d{1,3})?|100)$")
STRATEGIES: Final = "avg, min, max, or a quantile such as q95"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least as large as this share of them (no interpolation: a real usage)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


@dataclass(frozen=True, slots=True)
class Strategy:
    """The requested statistic of usage. `share`: the share of attempts that would have fit; None: the mean."""

    name: str
    share: float | None

    @classmethod
    def read(cls, text: str) -> Strategy:
        """Read "avg", "min", "max" or a quantile ("q95").

        Raises:
            InvalidResources: the text is none of these.
        """
        known = {"avg": None, "min": 0.0, "max": 1.0}
        if text in known:
            return cls(text, known[text])
        match = _QUANTILE.match(text)
        if match is None:
            raise InvalidResources(f"There is no strategy {text!r}; use {STRATEGIES}.")
        return cls(text, float(match[1]) / 100)

    def of(self, values: Sequence[float]) -> float:
        """Return the statistic."""
        if self.share is not None:
            return quantile(values, self.share)
        import statistics  # a slow import

        return statistics.fmean(values)


@dataclass(frozen=True, slots=True)
class Used:
    """What one finished attempt used; None where nothing was measured."""

    seconds: float
    cpu_seconds: float | None
    memory_gib: float | None

    @property
    def cores(self) -> float | None:
        """How many cores were busy on average; None if the attempt was too short to tell."""
        if self.cpu_seconds is None or self.seconds < CORES_MEASURED_SECONDS_MIN:
            return None
        return self.cpu_seconds / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A proposed request; None where nothing was measured."""

    cores: int | None
    memory_gib: float | None
    runtime_seconds: float | None

    def is_enough_for(self, used: Used) -> bool:
        """Return whether an attempt with this usage would not have been killed."""
        if self.memory_gib is not None and used.memory_gib is not None and used.memory_gib > self.memory_gib:
            return False
        return self.runtime_seconds is None or used.seconds <= self.runtime_seconds

    def within(self, maxima: Mapping[str, float | None]) -> Proposal:
        """Return the proposal limited to these maxima; None: no bound."""
        cores, memory = _least(self.cores, maxima.get("cores")), _least(self.memory_gib, maxima.get("memory"))
        return Proposal(
            cores=None if cores is None else max(1, math.floor(cores)),
            memory_gib=None if memory is None else math.floor(memory * _MIB_PER_GIB) / _MIB_PER_GIB,
            runtime_seconds=_least(self.runtime_seconds, maxima.get("runtime")),
        )

    def as_request(self) -> dict[str, Any]:
        """Return the proposal as compute resources."""
        request = {
            "cores": self.cores,
            "memory": None if self.memory_gib is None else f"{round(self.memory_gib * _MIB_PER_GIB)}M",
            "runtime": None if self.runtime_seconds is None else f"{round(self.runtime_seconds)}s",
        }
        return {key: value for key, value in request.items() if value is not None}


def _least(one: float | None, bound: float | None) -> float | None:
    return one if one is None or bound is None else min(one, bound)


def proposed_memory(measured: float) -> float:
    """Return a memory request in GiB, rounded up to whole MiB."""
    return math.ceil(max(measured * (1 + MEMORY_MARGIN), MEMORY_GIB_MIN) * _MIB_PER_GIB) / _MIB_PER_GIB


def proposed_runtime(measured: float) -> float:
    """Return a runtime request in whole seconds."""
    return float(math.ceil(max(measured * (1 + RUNTIME_MARGIN), RUNTIME_SECONDS_MIN)))


def proposed_cores(measured: float) -> int:
    """Return a request for whole cores."""
    return max(1, math.ceil(measured - CORES_NOISE))


def propose(history: Sequence[Used], memory: Strategy, cores: Strategy, runtime: Strategy) -> Proposal:
    """Propose a request from what successful attempts used."""
    peaks = [used.memory_gib for used in history if used.memory_gib is not None]
    busy = [used.cores for used in history if used.cores is not None]
    return Proposal(
        cores=proposed_cores(cores.of(busy)) if busy else None,
        memory_gib=proposed_memory(memory.of(peaks)) if peaks else None,
        runtime_seconds=proposed_runtime(runtime.of([used.seconds for used in history])) if history else None,
    )


def groups_by(values: Sequence[str], history: Sequence[Used], count_min: int) -> dict[str, list[Used]]:
    """Return the attempts for each value of an argument that has at least `count_min` of them."""
    groups: dict[str, list[Used]] = {}
    for value, used in zip(values, history, strict=True):
        groups.setdefault(value, []).append(used)
    return {value: group for value, group in groups.items() if len(group) >= count_min}


def spread(groups: Iterable[Sequence[Used]], share: float) -> float:
    """Return how much groups differ: the largest ratio of two quantiles of memory or time; 1 if they do not differ."""
    by_group = list(groups)
    ratios = [1.0]
    memories = [[used.memory_gib for used in group if used.memory_gib is not None] for group in by_group]
    times = [[used.seconds for used in group] for group in by_group]
    for measured in (memories, times):
        quantiles = [quantile(values, share) for values in measured if values]
        if quantiles and min(quantiles) > 0:
            ratios.append(max(quantiles) / min(quantiles))
    return max(ratios)


def deciding_argument(
    history: Sequence[Used], columns: Mapping[str, Sequence[str]], share: float, count_min: int
) -> str | None:
    """Return the argument whose values best predict what a task uses; None if none makes a difference."""
    spreads = {name: spread(groups_by(values, history, count_min).values(), share) for name, values in columns.items()}
    best = max(spreads, key=spreads.__getitem__, default=None)
    return best if best is not None and spreads[best] >= SPREAD_MIN else None


def killed_by(proposal: Proposal, history: Iterable[Used]) -> int:
    """Return how many of these attempts the request would have killed."""
    return sum(not proposal.is_enough_for(used) for used in history)


@dataclass(frozen=True, slots=True)
class Account:
    """What attempts with the same outcome held and used of one resource, in resource-hours."""

    held: float = 0.0
    over_request: float = 0.0
    failed: float = 0.0
    killed: float = 0.0

    def __add__(self, other: Account) -> Account:
        return Account(
            self.held + other.held,
            self.over_request + other.over_request,
            self.failed + other.failed,
            self.killed + other.killed,
        )


def account(held: float, used: float, *, is_done: bool, is_killed: bool) -> Account:
    """Return how much of what attempts held was wasted; attempts that did not finish wasted all of it."""
    if is_done:
        return Account(held, over_request=max(0.0, held - used))
    return Account(held, killed=held) if is_killed else Account(held, failed=held)
