"""Decide whether the tasks of a batch get a job each or share jobs. Pure functions of a request and a few numbers.

There are three modes. *Array*: one step of an array per task. *Pack*: jobs that run the batch's tasks one after
another, or `pack_width` in parallel, until none is left. *Pilot*: such jobs that also continue with tasks that become
ready later, and exit after they have been idle for a while.

On request: `{"pack": N}` makes jobs of about N tasks, `{"pilot": True}` makes pilots; `{"pack": 1}` and
`{"pilot": False}` give every task its own job. Otherwise tasks are packed if the done tasks of their template took
at most `SHORT_SECONDS` on average, at least `PACKED_TASKS_MIN` are ready, and the request asks for nothing that a job
cannot share (`SHAREABLE_KEYS`). A job then gets about `JOB_SECONDS` of work, but there are at least `JOBS_MIN` jobs, so
that they run in parallel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import JobmonError
from jobmon.core.resources import Limits
from jobmon.core.texts import number_of

if TYPE_CHECKING:
    from collections.abc import Mapping

PACK: Final = "pack"
PILOT: Final = "pilot"
WIDTH: Final = "pack_width"
#: Keys of `compute_resources` with which users choose the mode.
KEYS: Final = frozenset({PACK, PILOT, WIDTH})
#: A request with other keys than these is packed only on request.
SHAREABLE_KEYS: Final = KEYS | {"cores", "memory", "runtime", "queue", "project", "stdout", "stderr", "shell", "env"}
SHORT_SECONDS: Final = 5.0
PACKED_TASKS_MIN: Final = 8
JOB_SECONDS: Final = 30.0
JOBS_MIN: Final = 4
#: Tasks per pilot while their duration is unknown, and the maximum number of pilots of an array.
PILOT_TASKS: Final = 25
PILOT_JOBS_MAX: Final = 64
PILOT_SECONDS_MIN: Final = 3600.0
TASKS_PER_JOB_MAX: Final = 100_000
WIDTH_MAX: Final = 1_024
#: Runtime that a packed job requests in addition to that of its tasks: for its start, and for the time between tasks.
MARGIN_SECONDS: Final = 60.0


class Mode(StrEnum):
    """How a batch is submitted."""

    ARRAY = "array"
    PACK = "pack"
    PILOT = "pilot"


class Basis(StrEnum):
    """Which tasks were measured, the most significant first; the values are shown to users."""

    THIS_RUN = "in this run"
    SAME_ARGUMENTS = "with the same node arguments in earlier workflows"
    TEMPLATE = "of its template in earlier workflows"


@dataclass(frozen=True, slots=True)
class Measured:
    """How long tasks took on average, seconds, and which tasks."""

    seconds: float
    basis: Basis

    def __str__(self) -> str:
        return f"tasks took {self.seconds:.2g} s on average {self.basis}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to submit: `jobs` jobs that each run `width` tasks in parallel, and their runtime (None: not requested)."""

    mode: Mode
    jobs: int
    width: int = 1
    runtime_seconds: float | None = None


def problems_with(requested: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the keys with which users choose the mode; empty if nothing."""
    found = []
    for key, most in ((PACK, TASKS_PER_JOB_MAX), (WIDTH, WIDTH_MAX)):
        value = requested.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
            found.append(f"{key} {value!r} must be an integer from 1 to {most}")
    pilot, pack = requested.get(PILOT), requested.get(PACK)
    if pilot is not None and not isinstance(pilot, bool):
        found.append(f"{PILOT} {pilot!r} must be True or False")
    if pilot is True and pack is not None:
        found.append(f"{PACK} and {PILOT} are mutually exclusive; request only one of them")
    return found


def mode_of(requested: Mapping[str, Any], ready: int, mean_seconds: float | None) -> Mode:
    """Choose the mode of a batch.

    Args:
        requested: the request in normal form.
        ready: number of tasks in the batch.
        mean_seconds: mean duration of the array's done tasks, seconds; None: none is done.
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
        ready: number of tasks in the batch.
        mean_seconds: mean duration of the array's done tasks, seconds; None: none is done.
        parameters: parameters of the queue; its limits bound the jobs.
        pilots: how many pilots of the array exist already.
    """
    mode = mode_of(requested, ready, mean_seconds)
    if mode is Mode.ARRAY:
        return Plan(mode, ready)
    width = _width(requested, ready, parameters)
    jobs = _jobs(requested, mode, ready, mean_seconds, width)
    runtime = _runtime(requested, mode, math.ceil(ready / jobs / width), parameters)
    return Plan(mode, max(0, jobs - pilots), width, runtime)


def _width(requested: Mapping[str, Any], ready: int, parameters: Mapping[str, Any]) -> int:
    """Return how many tasks run in parallel: as requested, as far as the queue has the cores and the memory."""
    width = min(int(requested.get(WIDTH) or 1), ready)
    for key in ("cores", "memory"):
        each, most = requested.get(key), _maximum(key, parameters)
        if isinstance(each, int | float) and each > 0 and most is not None:
            room = most / each + 1e-9  # may be infinite
            width = int(room) if room < width else width
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


def reason(requested: Mapping[str, Any], ready: int, measured: Measured | None) -> str:
    """Return a clause that says why `mode_of` chose the mode of a batch.

    Args:
        requested: the request in normal form.
        ready: how many tasks the batch has.
        measured: how long such tasks took; None: none is done yet.
    """
    mode = mode_of(requested, ready, measured.seconds if measured is not None else None)
    was_asked = not KEYS.isdisjoint(requested)
    if mode is not Mode.ARRAY:
        return "as requested" if was_asked else f"because tasks of its template are short: {measured}"
    if was_asked and (requested.get(PACK) == 1 or requested.get(PILOT) is False):
        return "as requested"
    if ready < PACKED_TASKS_MIN:
        return f"because {ready} of its array {'was' if ready == 1 else 'were'} ready, fewer than {PACKED_TASKS_MIN}"
    if measured is None:
        return "because no task of its template is done yet"
    if measured.seconds > SHORT_SECONDS:
        return f"because {measured}, more than {SHORT_SECONDS:g} s"
    own = ", ".join(sorted(requested.keys() - SHAREABLE_KEYS))
    return f"because it requests {own}, which is shared by several tasks only if 'pack' or 'pilot' is requested"


def told(mode: str, jobs: int, width: int, tasks: int, why: str) -> str:
    """Return a sentence that describes how a batch was submitted, and why (`reason`)."""
    if mode == Mode.ARRAY:
        return f"It has its own job ({why})."
    side = f", {width} at a time per job" if width > 1 else ""
    count, batch = number_of(jobs, "job"), number_of(tasks, "task")
    if mode == Mode.PILOT:
        return f"Pilot jobs run it ({why}): {count} submitted for a batch of {batch}{side}, plus existing pilots."
    return f"It shares jobs with others ({why}): {count} for a batch of {batch}{side}."


def job_request(requested: Mapping[str, Any], width: int, runtime_seconds: float | None) -> dict[str, Any]:
    """Return the request of a job that runs `width` tasks of this request at once."""
    result = {key: value for key, value in requested.items() if key not in KEYS}
    for key in ("cores", "memory"):
        if isinstance(result.get(key), int | float):
            result[key] *= width
    if width > 1:
        result.setdefault("cores", width)
        if "gpus" in result:
            result["gpus"] = _times(result["gpus"], width)
    if runtime_seconds is not None:
        result["runtime"] = runtime_seconds
    return result


def _times(gpus: object, width: int) -> object:
    """Return what a job asks for whose tasks ask for 2, "2", "a100:2" or "a100" each."""
    if isinstance(gpus, int):
        return gpus * width
    kind, separator, number = str(gpus).rpartition(":")
    if number.isascii() and number.isdecimal():
        return f"{kind}{separator}{int(number) * width}"
    return f"{gpus}:{width}"
