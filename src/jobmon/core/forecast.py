"""How long a workflow still takes, as a range: from how long tasks of the same templates took, and what is left.

With `work` seconds left altogether, `path` seconds on the longest chain of tasks, and `width` tasks at once, no
schedule ends before `max(path, work / width)`, and none that lets nothing wait without need takes longer than
`work / width + path` (Graham's bound). Durations are not known but guessed from those seen: each end takes what the
durations allow on its side. Pure: figures in, figures out.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.sizing import quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: So many standard deviations to either side.
DEVIATIONS: Final = 2.0
LOW_SHARE: Final = 0.1
HIGH_SHARE: Final = 0.9
#: A task that runs is taken to be half way.
RUNNING_SHARE_LEFT: Final = 0.5
#: With so few samples, what a duration may be is stretched to both sides by `FEW_FACTOR`.
FEW_SAMPLES: Final = 5
FEW_FACTOR: Final = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long tasks of a template took, seconds: `low` and `high` are what a single one may take."""

    count: int
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Durations | None:
        """Sum up what was measured; None: nothing was."""
        if not samples:
            return None
        ordered = sorted(samples)
        factor = FEW_FACTOR if len(ordered) < FEW_SAMPLES else 1.0
        return cls(
            count=len(ordered),
            mean=statistics.fmean(ordered),
            deviation=statistics.pstdev(ordered),
            low=quantile(ordered, LOW_SHARE) / factor,
            high=quantile(ordered, HIGH_SHARE) * factor,
        )

    def sum_of(self, tasks: float) -> tuple[float, float]:
        """Return what so many tasks take together, from and to: their own spread, and that of the mean."""
        if tasks <= 0:
            return 0.0, 0.0
        spread = DEVIATIONS * self.deviation * math.sqrt(tasks + tasks**2 / self.count)
        factor = FEW_FACTOR if self.count < FEW_SAMPLES else 1.0
        middle = tasks * self.mean
        return max(0.0, middle / factor - spread), middle * factor + spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What is left of a template: tasks that still have to end, those of them that run; None: none was seen to end."""

    left: int
    running: int
    durations: Durations | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLeft:
    """Seconds, from and to. `unknown`: tasks of templates of which none ended, for which nothing is counted."""

    low: float
    high: float
    unknown: int


def time_left(rests: Iterable[Rest], path: tuple[float, float], width: float, width_most: float) -> TimeLeft | None:
    """Return how long it still takes; None where nothing is known.

    Args:
        rests: what is left, by template.
        path: the longest chain of tasks that are left, from and to, seconds.
        width: how many tasks run at once on average; below 1 where there are pauses between them.
        width_most: how many might, where more were ready.
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
    """Return how many ran at once on average, from (start, seconds) of those that ended last; 0: nothing is known."""
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
        weights: task -> weight; only these count.
        members: set -> tasks for which its users wait.
        users: set -> tasks that wait for it.
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
