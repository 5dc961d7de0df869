"""Estimate the time left of a workflow as a range, from observed durations of its templates and the remaining tasks.

With `work` seconds left in total, `path` seconds on the longest chain of tasks, and `width` concurrent tasks, no
schedule finishes before `max(path, work / width)`, and no schedule that never idles while a task is ready takes longer
than `work / width + path` (Graham's bound). Durations are not known but estimated from those observed: each end of the
range uses what the durations allow on its side. Pure functions.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.sizing import quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Number of standard deviations to either side.
DEVIATIONS: Final = 2.0
LOW_SHARE: Final = 0.1
HIGH_SHARE: Final = 0.9
#: A running task is assumed to be half done.
RUNNING_SHARE_LEFT: Final = 0.5
#: With fewer samples than this, the range of a duration is widened by `FEW_FACTOR` on both sides.
FEW_SAMPLES: Final = 5
FEW_FACTOR: Final = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Durations of a template's tasks, seconds. `low` and `high`: the range for a single task."""

    count: int
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Durations | None:
        """Summarize measured durations; None: there are none."""
        if not samples:
            return None
        ordered = sorted(samples)
        mean = math.fsum(ordered) / len(ordered)
        factor = FEW_FACTOR if len(ordered) < FEW_SAMPLES else 1.0
        return cls(
            count=len(ordered),
            mean=mean,
            deviation=math.sqrt(math.fsum((one - mean) ** 2 for one in ordered) / len(ordered)),
            low=quantile(ordered, LOW_SHARE) / factor,
            high=quantile(ordered, HIGH_SHARE) * factor,
        )

    def sum_of(self, tasks: float) -> tuple[float, float]:
        """Return the range of the total duration of `tasks` tasks, from their own spread and that of the mean."""
        if tasks <= 0:
            return 0.0, 0.0
        spread = DEVIATIONS * self.deviation * math.sqrt(tasks + tasks**2 / self.count)
        factor = FEW_FACTOR if self.count < FEW_SAMPLES else 1.0
        middle = tasks * self.mean
        return max(0.0, middle / factor - spread), middle * factor + spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """The remaining tasks of a template: unfinished ones, and how many of them are running; None: no duration known."""

    left: int
    running: int
    durations: Durations | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLeft:
    """A range in seconds. `unknown`: tasks of templates without a finished task, which the range excludes."""

    low: float
    high: float
    unknown: int


def time_left(rests: Iterable[Rest], path: tuple[float, float], width: float, width_most: float) -> TimeLeft | None:
    """Return the time left; None if nothing is known.

    Args:
        rests: the remaining tasks, by template.
        path: range of the longest chain of remaining tasks, seconds.
        width: average number of concurrent tasks; below 1 if there are pauses between them.
        width_most: how many could run concurrently if more were ready.
    """
    low = high = 0.0
    unknown = known = 0
    for rest in rests:
        if rest.durations is None:
            unknown += rest.left
            continue
        known += rest.left
        least, most = rest.durations.sum_of(rest.left - rest.running * (1 - RUNNING_SHARE_LEFT))
        low, high = low + least, high + most
    if width <= 0 or (unknown and not known):
        return None
    beside = path[1] * max(0.0, 1 - 1 / width)
    return TimeLeft(
        low=max(path[0], low / max(width, width_most)), high=max(high / width + beside, path[1]), unknown=unknown
    )


def width_of(spans: Iterable[tuple[float, float]]) -> float:
    """Return the average concurrency, from (start, seconds) of the tasks that ended last; 0: nothing is known."""
    given = [(start, seconds) for start, seconds in spans if seconds > 0]
    if not given:
        return 0.0
    begun = min(start for start, _ in given)
    ended = max(start + seconds for start, seconds in given)
    return sum(seconds for _, seconds in given) / (ended - begun) if ended > begun else 1.0


def longest_path(
    weights: Mapping[int, float], members: Mapping[int, Iterable[int]], users: Mapping[int, Iterable[int]]
) -> float:
    """Return the weight of the heaviest chain of tasks.

    Args:
        weights: task -> weight; only these tasks count.
        members: set -> the tasks in it, on which its users depend.
        users: set -> the tasks that depend on it.
    """
    open_members = {number: sum(1 for task in tasks if task in weights) for number, tasks in members.items()}
    sets_of, sets_before = _by_task(weights, members), _by_task(weights, users)
    waits = {task: sum(1 for number in sets_before[task] if open_members.get(number)) for task in weights}
    ready = deque(task for task, count in waits.items() if not count)
    before: dict[int, float] = defaultdict(float)
    reached: dict[int, float] = defaultdict(float)
    while ready:
        task = ready.popleft()
        end = before[task] + weights[task]
        for number in sets_of[task]:
            reached[number] = max(reached[number], end)
            open_members[number] -= 1
            if open_members[number]:
                continue
            for user in users.get(number, ()):
                before[user] = max(before[user], reached[number])
                if user in waits:
                    waits[user] -= 1
                    if not waits[user]:
                        ready.append(user)
    return max((before[task] + weight for task, weight in weights.items()), default=0.0)


def _by_task(weights: Mapping[int, float], sets: Mapping[int, Iterable[int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {task: [] for task in weights}
    for number, tasks in sets.items():
        for task in tasks:
            if task in found:
                found[task].append(number)
    return found
