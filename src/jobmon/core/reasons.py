"""Why a task does not run: one plain answer, by the predicates that schedule. Pure: a situation in, sentences out.

`IN_FLIGHT`, `QUEUEABLE` and `room` are what the orchestrator plans by (`client.swarm`); so what is said here is what
it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from jobmon.core.constants import TaskInstanceStatus, TaskStatus

#: Tasks with an attempt that counts towards the limits.
IN_FLIGHT: Final = frozenset({TaskStatus.QUEUED, TaskStatus.INSTANTIATING, TaskStatus.LAUNCHED, TaskStatus.RUNNING})
#: Tasks that may be queued once nothing stands before them.
QUEUEABLE: Final = frozenset({TaskStatus.REGISTERING, TaskStatus.ADJUSTING_RESOURCES})
UPSTREAMS_NAMED_MAX: Final = 5


def room(limit: int, in_flight: int) -> int:
    """Return how many more tasks may be queued."""
    return max(0, limit - in_flight)


class Kind(StrEnum):
    """What stands between a task and its run, for programs."""

    DONE = "done"
    FAILED = "failed"
    RUNNING = "running"
    ENDING = "ending"
    TRIAGING = "triaging"
    CLUSTER = "waiting for the cluster"
    PACKED = "shares jobs"
    CLUSTER_AWAY = "cluster does not answer"
    SLOTS = "waiting for cores"
    NO_DISTRIBUTOR = "no distributor"
    NO_RUN = "no active run"
    RUN_LOST = "run lost"
    RECORDING = "being recorded"
    NEVER = "upstream failed"
    UPSTREAM = "waiting for upstream"
    WORKFLOW_PAUSED = "workflow paused"
    TEMPLATE_PAUSED = "template paused"
    WORKFLOW_LIMIT = "workflow limit"
    TEMPLATE_LIMIT = "template limit"
    READY = "ready"


#: Said also while everything is queued already, which waits then.
_PAUSED: Final = (Kind.WORKFLOW_PAUSED, Kind.TEMPLATE_PAUSED)


@dataclass(frozen=True, slots=True)
class Because:
    """One reason."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many tasks may be in flight and are, in the workflow and in the task's template."""

    workflow: int
    in_flight: int
    template: int = 0
    template_name: str = ""
    template_in_flight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a workflow is being run. Without an active run the rest says nothing.

    `cluster`: where its tasks ran; "": nowhere yet, or on several.
    """

    workflow_id: int
    workflow_status: str
    cluster: str = ""
    is_active: bool = False
    may_queue: bool = False
    is_overdue: bool = False
    place: str = ""
    distributor_silent_seconds: float | None = None
    is_distributor_silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest attempt. `since_text`: since when it stands so, for people.

    `pending_reason`: why it waits, in its cluster's words; `cluster_problem`: why the cluster cannot be asked now;
    `submission`: how it was submitted, where it shares a job.
    """

    status: str
    cluster: str = ""
    place: str = ""
    since_text: str = ""
    distributor_id: str = ""
    cause: str = ""
    error: str = ""
    pending_reason: str = ""
    cluster_problem: str = ""
    submission: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Cores of a pool: how many there are, what this workflow was granted, and what all hold."""

    total: float
    granted: float
    held: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A task and what surrounds it. `unmet`, `fatal`: some upstream tasks as sentences name them, and how many."""

    task_id: int
    status: str
    num_attempts: int
    max_attempts: int
    run: Run
    limits: Limits
    unmet: tuple[str, ...] = ()
    unmet_count: int = 0
    fatal: tuple[str, ...] = ()
    fatal_count: int = 0
    newest: Newest | None = None
    cores: Cores | None = None


def why(found: Situation) -> list[Because]:
    """Return the reasons, the one that counts first."""
    if found.status == TaskStatus.DONE:
        return [Because(Kind.DONE, "It is done.")]
    if found.status == TaskStatus.ERROR_FATAL:
        return [_failed(found)]
    if found.status in IN_FLIGHT:
        return _in_flight(found)
    return _waiting(found)


def how_to_resume(run: Run) -> str:
    """Return the command that goes on with a workflow."""
    return f"jobmon workflow resume -w {run.workflow_id} -c {run.cluster or 'CLUSTER'}"


def _failed(found: Situation) -> Because:
    last = found.newest
    cause = f" The last one ended by {last.cause}." if last is not None and last.cause else ""
    used = (
        f"{found.num_attempts} of {found.max_attempts} attempts are used"
        if found.num_attempts >= found.max_attempts
        else f"attempt {found.num_attempts} ended in a way that no retry can mend"
    )
    return Because(Kind.FAILED, f"It failed for good: {used}.{cause} New attempts: {how_to_resume(found.run)}")


def _in_flight(found: Situation) -> list[Because]:
    attempt = found.newest
    if attempt is None or attempt.status == TaskInstanceStatus.QUEUED:
        return [*run_problems(found.run), *_for_distributor(found)]
    where = f" on {attempt.place}" if attempt.place else ""
    if attempt.status == TaskInstanceStatus.RUNNING:
        return [Because(Kind.RUNNING, f"It is running{where} since {attempt.since_text}."), *_submission(attempt)]
    if attempt.status == TaskInstanceStatus.KILL_SELF:
        return [Because(Kind.ENDING, f"Its attempt was told to end{where}; it is run again once that has happened.")]
    if attempt.status == TaskInstanceStatus.TRIAGING:
        text = "No sign of life came from its attempt; the distributor is finding out what became of it."
        return [Because(Kind.TRIAGING, text), *run_problems(found.run)]
    return [*run_problems(found.run), *_on_cluster(found, attempt)]


def _for_distributor(found: Situation) -> list[Because]:
    text = f"It is queued since {found.newest.since_text}" if found.newest is not None else "It is queued"
    return [*_cores_text(found.cores), Because(Kind.CLUSTER, f"{text}; the distributor takes it when there is room.")]


def _on_cluster(found: Situation, attempt: Newest) -> list[Because]:
    identity = f" as {attempt.distributor_id}" if attempt.distributor_id else ""
    cluster = f"cluster {attempt.cluster}" if attempt.cluster else "its cluster"
    text = f"It was given to {cluster}{identity}, {attempt.since_text}; it waits there for its turn."
    if attempt.pending_reason:
        text += f" The cluster says: {attempt.pending_reason}."
    reasons = [*_cores_text(found.cores), Because(Kind.CLUSTER, text)]
    if attempt.cluster_problem:
        problem = f"The cluster cannot be asked at present; that is tried again and again. {attempt.cluster_problem}"
        reasons.append(Because(Kind.CLUSTER_AWAY, problem))
    return [*reasons, *_submission(attempt)]


def _submission(attempt: Newest) -> list[Because]:
    return [Because(Kind.PACKED, attempt.submission)] if attempt.submission else []


def run_problems(run: Run) -> list[Because]:
    """Return what keeps a workflow from being run at all."""
    if not run.is_active:
        text = f"Nobody runs workflow {run.workflow_id} now. To go on: {how_to_resume(run)}"
        return [Because(Kind.NO_RUN, text)]
    if run.is_overdue:
        text = f"The client of its run ({run.place}) gave no sign of life. To take over: {how_to_resume(run)}"
        return [Because(Kind.RUN_LOST, text)]
    if not run.may_queue:
        return [Because(Kind.RECORDING, f"Its run ({run.place}) does not launch anything yet, or makes room.")]
    if run.is_distributor_silent:
        seconds = run.distributor_silent_seconds
        what = (
            "No distributor has begun its work" if seconds is None else f"Its distributor is silent for {seconds:.0f} s"
        )
        return [Because(Kind.NO_DISTRIBUTOR, f"{what}: nothing is launched until one is there.")]
    return []


def _waiting(found: Situation) -> list[Because]:
    reasons = []
    if found.fatal_count:
        named = _listed(found.fatal, found.fatal_count)
        text = f"It will never run, since before it failed for good: {named}. "
        reasons.append(Because(Kind.NEVER, f"{text}Once mended: {how_to_resume(found.run)}"))
    problems = run_problems(found.run)
    if found.unmet_count:
        named = _listed(found.unmet, found.unmet_count)
        reasons.append(Because(Kind.UPSTREAM, f"It waits for {found.unmet_count} upstream of it: {named}."))
    binding = [] if problems else limits_that_bind(found.limits)
    reasons = [*problems, *reasons] if not found.fatal_count else [*reasons, *problems]
    if not found.unmet_count:
        reasons += binding
    return reasons or [Because(Kind.READY, "Nothing stands before it: it is queued next.")]


def _tasks(count: int, whose: str) -> str:
    return f"1 task of {whose} is" if count == 1 else f"{count} tasks of {whose} are"


def limits_that_bind(limits: Limits) -> list[Because]:
    """Return the limits that leave no room."""
    reasons = []
    if limits.workflow == 0:
        text = "The workflow is paused: nothing more of it is handed out (jobmon workflow concurrency -m N)."
        reasons.append(Because(Kind.WORKFLOW_PAUSED, text))
    elif not room(limits.workflow, limits.in_flight):
        text = f"{_tasks(limits.in_flight, 'the workflow')} queued or running, and {limits.workflow} may be."
        reasons.append(Because(Kind.WORKFLOW_LIMIT, text))
    if not limits.template_name:
        return reasons
    if limits.template == 0:
        name = limits.template_name
        command = f"jobmon workflow concurrency --template {name} -m N"
        text = f"Template {name} is paused: nothing more of it is handed out ({command})."
        reasons.append(Because(Kind.TEMPLATE_PAUSED, text))
    elif not room(limits.template, limits.template_in_flight):
        tasks = _tasks(limits.template_in_flight, f"template {limits.template_name}")
        text = f"{tasks} queued or running, and {limits.template} may be."
        reasons.append(Because(Kind.TEMPLATE_LIMIT, text))
    return reasons


def _listed(names: tuple[str, ...], count: int) -> str:
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return ", ".join(names) + more


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A workflow and what surrounds it. `limits`: one entry for each template. `blocked`: tasks behind a failed one."""

    counts: Mapping[str, int]
    blocked: int
    run: Run
    limits: tuple[Limits, ...] = ()
    cores: Cores | None = None
    packed: str = ""


def why_workflow(found: Progress) -> list[Because]:
    """Return why a workflow does not go on, what counts most first; where it goes on, what it is at."""
    total = sum(found.counts.values())
    done = found.counts.get(TaskStatus.DONE, 0)
    if done == total:
        return [Because(Kind.DONE, f"All {total} tasks are done.")]
    failed = found.counts.get(TaskStatus.ERROR_FATAL, 0)
    waiting = sum(found.counts.get(status, 0) for status in QUEUEABLE)
    problems = run_problems(found.run)
    reasons = list(problems)
    if not problems:
        reasons += [because for because in _all_that_bind(found.limits) if waiting or because.kind in _PAUSED]
    if failed:
        behind = f"; {found.blocked} behind them will never run" if found.blocked else ""
        text = f"{failed} tasks failed for good{behind}. See: jobmon workflow errors -w {found.run.workflow_id}"
        reasons.append(Because(Kind.NEVER if found.blocked else Kind.FAILED, text))
    flying = sum(found.counts.get(status, 0) for status in IN_FLIGHT)
    if flying:
        running = found.counts.get(TaskStatus.RUNNING, 0)
        reasons.append(
            Because(Kind.RUNNING, f"{running} tasks are running, {flying - running} are queued or launched.")
        )
        reasons += _cores_text(found.cores) if flying > running else []
    if found.packed:
        reasons.append(Because(Kind.PACKED, found.packed))
    free = waiting - found.blocked
    if free > 0:
        reasons.append(Because(Kind.UPSTREAM, f"{free} tasks wait for those before them, or for their turn."))
    return reasons


def _all_that_bind(limits: tuple[Limits, ...]) -> list[Because]:
    """The workflow's limit is in each entry; it is named once."""
    found = {because.text: because for each in limits for because in limits_that_bind(each)}
    return list(found.values())


def _cores_text(cores: Cores | None) -> list[Because]:
    if cores is None:
        return []
    text = f"{cores.held:g} of {cores.total:g} cores here are in use; this workflow may use {cores.granted:g} of them."
    return [Because(Kind.SLOTS, text)]
