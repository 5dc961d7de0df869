"""Whether the tasks of a batch get a job each or share jobs: one plain rule. Pure: a request and a few numbers in.

Three modes. *Array*: one step of an array per task. *Pack*: jobs that run the batch's tasks one after another, or
`pack_width` side by side, until none is left. *Pilot*: such jobs that also go on with what becomes ready later, and
end when there was nothing to do for a while.

Asked for: `{"pack": N}` makes jobs of about N tasks, `{"pilot": True}` makes pilots; `{"pack": 1}` and
`{"pilot": False}` give every task a job of its own. Not asked for: tasks are packed when those of their array that are
done took `SHORT_SECONDS` at most on average, at least `PACKED_TASKS_MIN` are ready, and the request asks for nothing
that a job has to have for itself (`SHAREABLE_KEYS`). Then a job gets about `JOB_SECONDS` of work, but there are at
least `JOBS_MIN` jobs, so that they run at the same time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import JobmonError
from jobmon.core.resources import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

PACK: Final = "pack"
PILOT: Final = "pilot"
WIDTH: Final = "pack_width"
#: Keys of `compute_resources` by which users choose.
KEYS: Final = frozenset({PACK, PILOT, WIDTH})
#: A request with other keys than these is packed only if that was asked for.
SHAREABLE_KEYS: Final = KEYS | {"cores", "memory", "runtime", "queue", "project", "stdout", "stderr", "shell", "env"}
SHORT_SECONDS: Final = 5.0
PACKED_TASKS_MIN: Final = 8
JOB_SECONDS: Final = 30.0
JOBS_MIN: Final = 4
#: Tasks for each pilot while nobody knows how long they take, and how many pilots an array has at most.
PILOT_TASKS: Final = 25
PILOT_JOBS_MAX: Final = 64
PILOT_SECONDS_MIN: Final = 3600.0
TASKS_PER_JOB_MAX: Final = 100_000
WIDTH_MAX: Final = 1_024
#: A packed job asks for this much more time than its tasks may take: for starting, and for the time between them.
MARGIN_SECONDS: Final = 60.0


class Mode(StrEnum):
    """How a batch is submitted."""

    ARRAY = "array"
    PACK = "pack"
    PILOT = "pilot"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be submitted: so many jobs, each with room for `width` tasks at once, for so long (None: not said)."""

    mode: Mode
    jobs: int
    width: int = 1
    runtime_seconds: float | None = None


def problems_with(requested: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the keys by which users choose; empty if nothing."""
    found = []
    for key, most in ((PACK, TASKS_PER_JOB_MAX), (WIDTH, WIDTH_MAX)):
        value = requested.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
            found.append(f"{key} {value!r} must be a whole number from 1 to {most}")
    pilot, pack = requested.get(PILOT), requested.get(PACK)
    if pilot is not None and not isinstance(pilot, bool):
        found.append(f"{PILOT} {pilot!r} must be True or False")
    if pilot is True and pack is not None:
        found.append(f"{PACK} and {PILOT} exclude each other; ask for one of them")
    return found


def mode_of(requested: Mapping[str, Any], ready: int, mean_seconds: float | None) -> Mode:
    """Choose the mode of a batch.

    Args:
        requested: the request in normal form.
        ready: how many tasks the batch has.
        mean_seconds: how long tasks of the array took; None: none is done.
    """
    pack, pilot = requested.get(PACK), requested.get(PILOT)
    if pilot:
        return Mode.PILOT
    if ready < 2 or pack == 1 or (pilot is False and pack is None):
        return Mode.ARRAY
    if pack is not None:
        return Mode.PACK
    is_short = mean_seconds is not None and mean_seconds <= SHORT_SECONDS and ready >= PACKED_TASKS_MIN
    return Mode.PACK if is_short and requested.keys() <= SHAREABLE_KEYS else Mode.ARRAY


def plan(
    requested: Mapping[str, Any],
    ready: int,
    mean_seconds: float | None,
    parameters: Mapping[str, Any],
    pilots: int = 0,
) -> Plan:
    """Choose mode, number and size of the jobs of a batch.

    Args:
        requested: the request in normal form.
        ready: how many tasks the batch has.
        mean_seconds: how long tasks of the array took; None: none is done.
        parameters: of the queue; its limits bound the jobs.
        pilots: how many pilots of the array are there already.
    """
    mode = mode_of(requested, ready, mean_seconds)
    if mode is Mode.ARRAY:
        return Plan(mode, ready)
    width = _width(requested, ready, parameters)
    jobs = _jobs(requested, mode, ready, mean_seconds, width)
    runtime = _runtime(requested, mode, math.ceil(ready / jobs / width), parameters)
    return Plan(mode, max(0, jobs - pilots), width, runtime)


def _width(requested: Mapping[str, Any], ready: int, parameters: Mapping[str, Any]) -> int:
    """Side by side as asked for, as far as the queue has the cores and the memory for it."""
    width = min(int(requested.get(WIDTH) or 1), ready)
    for key in ("cores", "memory"):
        each, most = requested.get(key), _maximum(key, parameters)
        if isinstance(each, int | float) and each > 0 and most is not None:
            width = min(width, int(most / each + 1e-9))
    return max(1, width)


def _maximum(key: str, parameters: Mapping[str, Any]) -> float | None:
    try:
        return Limits.read(key, parameters).maximum
    except JobmonError:
        return None


def _jobs(requested: Mapping[str, Any], mode: Mode, ready: int, mean_seconds: float | None, width: int) -> int:
    if mode is Mode.PACK and requested.get(PACK):
        return math.ceil(ready / int(requested[PACK]))
    if mean_seconds is None:
        tasks = float(PILOT_TASKS * width)
    else:
        tasks = max(1.0, JOB_SECONDS * width / max(mean_seconds, JOB_SECONDS / TASKS_PER_JOB_MAX))
    jobs = max(math.ceil(ready / tasks), 1 if mode is Mode.PILOT else min(JOBS_MIN, ready // 2))
    return min(jobs, PILOT_JOBS_MAX) if mode is Mode.PILOT else jobs


def _runtime(requested: Mapping[str, Any], mode: Mode, rounds: int, parameters: Mapping[str, Any]) -> float | None:
    each, most = requested.get("runtime"), _maximum("runtime", parameters)
    if not isinstance(each, int | float):
        return None
    seconds = max(PILOT_SECONDS_MIN, 2.0 * each) if mode is Mode.PILOT else float(rounds * each)
    seconds += MARGIN_SECONDS
    return seconds if most is None else min(seconds, most)


def told(mode: str, jobs: int, width: int, tasks: int, *, was_asked: bool) -> str:
    """Say in a sentence how a batch was submitted."""
    why = "as was asked for" if was_asked else "since tasks of its template are short"
    side = f", {width} at a time in each" if width > 1 else ""
    count = f"{jobs} job{'s' if jobs != 1 else ''}"
    if mode == Mode.PILOT:
        return (
            f"Pilots take it ({why}): {count} submitted for a batch of {tasks} tasks{side}, and those that were there."
        )
    return f"It shares jobs with others ({why}): {count} for a batch of {tasks} tasks{side}."


def job_request(requested: Mapping[str, Any], width: int, runtime_seconds: float | None) -> dict[str, Any]:
    """Return what a job asks for that runs `width` tasks of this request at once."""
    result = {key: value for key, value in requested.items() if key not in KEYS}
    for key in ("cores", "memory"):
        if isinstance(result.get(key), int | float):
            result[key] *= width
    if width > 1:
        result.setdefault("cores", width)
    if runtime_seconds is not None:
        result["runtime"] = runtime_seconds
    return result
