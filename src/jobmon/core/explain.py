"""Explain why a task does not run, using the predicates that schedule it. Pure: a situation in, sentences out.

The orchestrator plans with `fsm.IN_FLIGHT`, `fsm.QUEUEABLE` and `room` (`client.swarm`), so that the explanation
matches its behavior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from jobmon.core.constants import TaskInstanceStatus, TaskStatus
from jobmon.core.fsm import IN_FLIGHT, QUEUEABLE, SATISFIED, UNSUBMITTED
from jobmon.core.texts import number_of

UPSTREAMS_NAMED_MAX: Final = 5
#: Beginning of a worker's explanation of why its command does not run yet (`worker_node/process.py`).
WORKER_WAITS: Final = "cannot be started on "
#: Beginning of the explanation of why a running job does not run its command.
JOB_RUNS: Final = "its job runs on "


def room(limit: int, in_flight: int) -> int:
    """Return how many more tasks may be queued."""
    return max(0, limit - in_flight)


class Kind(StrEnum):
    """What prevents a task from running, for programs."""

    DONE = "done"
    SKIPPED = "skipped"
    REMOVED = "removed"
    FAILED = "failed"
    RUNNING = "running"
    ENDING = "ending"
    TRIAGING = "triaging"
    CLUSTER = "waiting for the cluster"
    PACKED = "shares jobs"
    INNER = "waiting for an inner workflow"
    CLUSTER_AWAY = "cluster does not answer"
    NOT_LAUNCHED = "cannot be launched"
    SLOTS = "waiting for cores"
    NO_DISTRIBUTOR = "no distributor"
    NO_RUN = "no active run"
    RUN_LOST = "run lost"
    RECORDING = "being recorded"
    NEVER = "upstream failed"
    UPSTREAM = "waiting for upstream"
    HELD = "held"
    WORKFLOW_PAUSED = "workflow paused"
    TEMPLATE_PAUSED = "template paused"
    WORKFLOW_LIMIT = "workflow limit"
    TEMPLATE_LIMIT = "template limit"
    READY = "ready"


#: Reported even if all tasks are queued already, because queued tasks wait during a pause.
_PAUSED: Final = (Kind.WORKFLOW_PAUSED, Kind.TEMPLATE_PAUSED)


@dataclass(frozen=True, slots=True)
class Because:
    """One reason."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many tasks may be in flight, and how many are, in the workflow and in the task's template."""

    workflow: int
    in_flight: int
    template: int = 0
    template_name: str = ""
    template_in_flight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a workflow is being run. Without an active run, the other fields mean nothing."""

    workflow_id: int
    workflow_status: str
    is_active: bool = False
    may_queue: bool = False
    is_overdue: bool = False
    place: str = ""
    distributor_silent_seconds: float | None = None
    is_distributor_silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchProblem:
    """Why nothing can be launched on a cluster now, in the wording of the cluster or the system.

    `tried_text`, `next_text`: times of the last and the next try, for people. `waiting`: how many attempts wait.
    """

    cluster: str
    text: str
    tried_text: str
    next_text: str
    waiting: int = 0

    @property
    def sentences(self) -> str:
        """What was tried, what the result was, and when the next try is."""
        text = self.text.rstrip(". ")
        if not self.waiting:
            return f"{text}."
        return f"{text}. The last try was at {self.tried_text}; the next is at {self.next_text}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest attempt. `since_text`: since when it has had its status, for people.

    `pending_reason`: why it is waiting, in its cluster's wording; `cluster_problem`: why the cluster cannot be polled;
    `submission`: how it was submitted, if tasks can share jobs, and why; `is_submitted`: whether its cluster has it, as
    far as known;
    `launch_problem`: why its distributor cannot launch on the cluster now.
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
    is_submitted: bool = True
    launch_problem: LaunchProblem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Cores of a pool: how many there are, how many this workflow was granted, and how many all workflows hold."""

    total: float
    granted: float
    held: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A task and its context. `unmet`, `fatal`: some upstream tasks, as named in sentences; the counts cover all."""

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
    is_held: bool = False
    is_expansion: bool = False


def why(found: Situation) -> list[Because]:
    """Return the reasons, the most important first."""
    if found.status == TaskStatus.DONE:
        return [Because(Kind.DONE, "It is done."), *_submission(found.newest)]
    if found.status == TaskStatus.ERROR_FATAL:
        return [_failed(found), *_submission(found.newest)]
    if found.status == TaskStatus.SKIPPED:
        text = f"It was skipped: tasks downstream do not wait for it. To run it: {_how_to_rerun(found.task_id)}"
        return [Because(Kind.SKIPPED, text)]
    if found.status == TaskStatus.REMOVED:
        return [
            Because(Kind.REMOVED, "A later version of its workflow does not contain it; its record and files are kept.")
        ]
    if found.status in IN_FLIGHT:
        return _in_flight(found)
    return _waiting(found)


def _how_to_rerun(task_id: int) -> str:
    return f"jobmon task rerun {task_id}"


def how_to_resume(run: Run) -> str:
    """Return the command that resumes a workflow."""
    return f"jobmon workflow resume {run.workflow_id}"


def _failed(found: Situation) -> Because:
    if found.is_expansion:
        return Because(
            Kind.FAILED,
            "It failed permanently: its function raised an exception, or what it returned cannot be added. Traceback:"
            f" jobmon task status {found.task_id}. To call it again, run the script with resume=True, or:"
            f" {how_to_resume(found.run)}",
        )
    last = found.newest
    cause = f" Cause of the last failure: {last.cause}." if last is not None and last.cause else ""
    used = (
        f"{found.num_attempts} of {found.max_attempts} attempts are used"
        if found.num_attempts >= found.max_attempts
        else f"attempt {found.num_attempts} failed in a way that no retry can fix"
    )
    return Because(Kind.FAILED, f"It failed permanently: {used}.{cause} To rerun it: {how_to_resume(found.run)}")


def _in_flight(found: Situation) -> list[Because]:
    if found.is_expansion:
        return [Because(Kind.RUNNING, "Its function is being called by the process that leads the run.")]
    attempt = found.newest
    if attempt is None or attempt.status == TaskInstanceStatus.QUEUED:
        return [*run_problems(found.run), *_not_submitted(attempt), *_for_distributor(found)]
    where = f" on {attempt.place}" if attempt.place else ""
    if attempt.status == TaskInstanceStatus.RUNNING:
        return [_running(attempt, where), *_submission(attempt)]
    if attempt.status == TaskInstanceStatus.KILL_SELF:
        return [Because(Kind.ENDING, f"Its attempt is being stopped{where}; the task is rerun afterwards.")]
    if attempt.status == TaskInstanceStatus.TRIAGING:
        text = "The heartbeat of its attempt is overdue; the distributor is checking what happened to it."
        return [Because(Kind.TRIAGING, text), *run_problems(found.run)]
    return [*run_problems(found.run), *(_not_submitted(attempt) or _on_cluster(found, attempt))]


def _running(attempt: Newest, where: str) -> Because:
    if attempt.pending_reason.startswith(WORKER_WAITS):
        return Because(Kind.NOT_LAUNCHED, f"Its command {attempt.pending_reason}")
    return Because(Kind.RUNNING, f"It has been running{where} since {attempt.since_text}.")


def _not_submitted(attempt: Newest | None) -> list[Because]:
    """Return why an attempt is not on its cluster yet; empty if it is, as far as known."""
    if attempt is None or attempt.distributor_id or attempt.status not in UNSUBMITTED:
        return []
    if attempt.launch_problem is None:
        if attempt.is_submitted or attempt.status == TaskInstanceStatus.QUEUED:
            return []
        text = f"Its distributor claimed it at {attempt.since_text} and is submitting it to cluster {attempt.cluster}."
        return [Because(Kind.CLUSTER, text), *_away(attempt), *_submission(attempt)]
    problem = attempt.launch_problem
    text = f"It could not be launched on cluster {problem.cluster} yet, and is not charged: {problem.sentences}"
    return [Because(Kind.NOT_LAUNCHED, text), *_submission(attempt)]


def _for_distributor(found: Situation) -> list[Because]:
    text = f"It has been queued since {found.newest.since_text}" if found.newest is not None else "It is queued"
    return [
        *_cores_text(found.cores),
        Because(Kind.CLUSTER, f"{text}; the distributor launches it when a slot is free."),
    ]


def _on_cluster(found: Situation, attempt: Newest) -> list[Because]:
    identity = f" as {attempt.distributor_id}" if attempt.distributor_id else ""
    cluster = f"cluster {attempt.cluster}" if attempt.cluster else "its cluster"
    text = f"It was submitted to {cluster}{identity} at {attempt.since_text} and is waiting there."
    if attempt.pending_reason.startswith(JOB_RUNS):
        text = f"It was submitted to {cluster}{identity} at {attempt.since_text}; {attempt.pending_reason}."
    elif attempt.pending_reason:
        text += f" The cluster reports: {attempt.pending_reason}."
    return [*_cores_text(found.cores), Because(Kind.CLUSTER, text), *_away(attempt), *_submission(attempt)]


def _away(attempt: Newest) -> list[Because]:
    if not attempt.cluster_problem:
        return []
    text = f"The cluster does not respond; the query is retried. {attempt.cluster_problem}"
    return [Because(Kind.CLUSTER_AWAY, text)]


def _submission(attempt: Newest | None) -> list[Because]:
    return [Because(Kind.PACKED, attempt.submission)] if attempt is not None and attempt.submission else []


def run_problems(run: Run) -> list[Because]:
    """Return what prevents a workflow from being run at all."""
    if not run.is_active:
        text = f"Workflow {run.workflow_id} is not running. To resume it: {how_to_resume(run)}"
        return [Because(Kind.NO_RUN, text)]
    if run.is_overdue:
        text = f"The client of its run ({run.place}) no longer responds. To take over: {how_to_resume(run)}"
        return [Because(Kind.RUN_LOST, text)]
    if not run.may_queue:
        return [
            Because(
                Kind.RECORDING, f"Its run ({run.place}) does not launch tasks yet, or is being replaced by another run."
            )
        ]
    if run.is_distributor_silent:
        seconds = run.distributor_silent_seconds
        what = (
            "No distributor has started yet"
            if seconds is None
            else f"Its distributor has not responded for {seconds:.0f} s"
        )
        return [Because(Kind.NO_DISTRIBUTOR, f"{what}: no tasks are launched until one responds.")]
    return []


def _waiting(found: Situation) -> list[Because]:
    reasons = []
    if found.is_held:
        text = f"It is held: it is not launched until it is released. To release it: {_how_to_release(found.task_id)}"
        reasons.append(Because(Kind.HELD, text))
    if found.fatal_count:
        named = _listed(found.fatal, found.fatal_count)
        text = f"It cannot run, because upstream tasks failed permanently: {named}. "
        reasons.append(Because(Kind.NEVER, f"{text}Once they are fixed: {how_to_resume(found.run)}"))
    problems = run_problems(found.run)
    if found.unmet_count:
        named = _listed(found.unmet, found.unmet_count)
        waits = f"It is waiting for {number_of(found.unmet_count, 'upstream task')}: {named}."
        reasons.append(Because(Kind.UPSTREAM, waits))
    binding = [] if problems else limits_that_bind(found.limits)
    reasons = [*reasons, *problems] if found.fatal_count or found.is_held else [*problems, *reasons]
    if not found.unmet_count:
        reasons += binding
    return reasons or [Because(Kind.READY, "Nothing prevents it from running: it will be queued next.")]


def _how_to_release(task_id: int | str) -> str:
    return f"jobmon task release {task_id}"


def _tasks(count: int, whose: str) -> str:
    return f"1 task of {whose} is" if count == 1 else f"{count} tasks of {whose} are"


def limits_that_bind(limits: Limits) -> list[Because]:
    """Return the limits that are reached."""
    reasons = []
    if limits.workflow == 0:
        text = "The workflow is paused: no more tasks are launched (to continue: jobmon workflow concurrency -m N)."
        reasons.append(Because(Kind.WORKFLOW_PAUSED, text))
    elif not room(limits.workflow, limits.in_flight):
        text = f"{_tasks(limits.in_flight, 'the workflow')} queued or running; the limit is {limits.workflow}."
        reasons.append(Because(Kind.WORKFLOW_LIMIT, text))
    if not limits.template_name:
        return reasons
    if limits.template == 0:
        name = limits.template_name
        command = f"jobmon workflow concurrency --template {name} -m N"
        text = f"Template {name} is paused: no more of its tasks are launched (to continue: {command})."
        reasons.append(Because(Kind.TEMPLATE_PAUSED, text))
    elif not room(limits.template, limits.template_in_flight):
        tasks = _tasks(limits.template_in_flight, f"template {limits.template_name}")
        text = f"{tasks} queued or running; the limit is {limits.template}."
        reasons.append(Because(Kind.TEMPLATE_LIMIT, text))
    return reasons


def _listed(names: tuple[str, ...], count: int) -> str:
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return ", ".join(names) + more


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A workflow and its context. `limits`: one entry for each template. `blocked`: tasks downstream of failed ones.

    `parents`: tasks whose commands run workflows. `held`: tasks that are not launched until they are released, and
    `held_back` those of them that would be waiting otherwise. `calls`: expansions whose function is being called.
    """

    counts: Mapping[str, int]
    blocked: int
    run: Run
    limits: tuple[Limits, ...] = ()
    cores: Cores | None = None
    packed: str = ""
    parents: int = 0
    held: int = 0
    held_back: int = 0
    calls: int = 0
    launch_problems: tuple[LaunchProblem, ...] = ()


def why_workflow(found: Progress) -> list[Because]:
    """Return why a workflow is stuck, the most important reason first; or what it is doing."""
    total = sum(found.counts.values())
    done, skipped = (found.counts.get(status, 0) for status in SATISFIED)
    if done == total:
        return [Because(Kind.DONE, f"All {number_of(total, 'task')} are done." if total != 1 else "Its task is done.")]
    if done + skipped == total:
        text = f"{number_of(done, 'task')} {'is' if done == 1 else 'are'} done; {skipped:,} skipped."
        return [Because(Kind.DONE, text)]
    failed = found.counts.get(TaskStatus.ERROR_FATAL, 0)
    waiting = sum(found.counts.get(status, 0) for status in QUEUEABLE)
    problems = run_problems(found.run)
    reasons = list(problems)
    if not problems:
        reasons += [because for because in _all_that_bind(found.limits) if waiting or because.kind in _PAUSED]
    if failed:
        wait = f"; {number_of(found.blocked, 'downstream task')} can run only after a fix and a resume"
        behind = wait if found.blocked else ""
        see = f"See: jobmon workflow errors {found.run.workflow_id}"
        text = f"{number_of(failed, 'task')} failed permanently{behind}. {see}"
        reasons.append(Because(Kind.NEVER if found.blocked else Kind.FAILED, text))
    reasons += _calls_text(found.calls)
    running = found.counts.get(TaskStatus.RUNNING, 0) - found.calls
    flying = sum(found.counts.get(status, 0) for status in IN_FLIGHT) - found.calls
    if flying:
        others = f"{flying - running:,} {_are(flying - running)} queued or launched"
        text = f"{number_of(running, 'task')} {_are(running)} running, {others}."
        reasons.append(Because(Kind.RUNNING, text))
        is_paused = any(because.kind in _PAUSED for because in reasons)
        reasons += _cores_text(found.cores) if flying > running and not problems and not is_paused else []
    if flying > running:
        reasons += [_launches_held_up(one) for one in found.launch_problems]
    reasons += _held_text(found.held)
    reasons += _parents_text(found.parents)
    reasons += [Because(Kind.PACKED, found.packed)] if found.packed else []
    free = waiting - found.blocked - found.held_back
    if free > 0:
        text = f"{number_of(free, 'task')} {_are(free)} waiting for dependencies or a free slot."
        reasons.append(Because(Kind.UPSTREAM, text))
    return reasons


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _calls_text(count: int) -> list[Because]:
    if not count:
        return []
    functions = "the function of an expansion is" if count == 1 else f"the functions of {count:,} expansions are"
    return [Because(Kind.RUNNING, f"{functions[0].upper()}{functions[1:]} being called.")]


def _held_text(count: int) -> list[Because]:
    if not count:
        return []
    text = f"{number_of(count, 'task')} {_are(count)} held. To release: {_how_to_release('ID')}"
    return [Because(Kind.HELD, text)]


def _parents_text(count: int) -> list[Because]:
    if not count:
        return []
    who = "1 task waits for workflows that it" if count == 1 else f"{count:,} tasks wait for workflows that they"
    return [Because(Kind.INNER, f"{who} started.")]


def _launches_held_up(problem: LaunchProblem) -> Because:
    who = f"{number_of(problem.waiting, 'task')} wait{'s' if problem.waiting == 1 else ''}"
    what = f"{who} to be launched on cluster {problem.cluster}" if problem.waiting else f"Cluster {problem.cluster}"
    return Because(Kind.NOT_LAUNCHED, f"{what}: {problem.sentences}")


def _all_that_bind(limits: tuple[Limits, ...]) -> list[Because]:
    """Return the limits that are reached; the workflow's limit is in each entry, but is returned once."""
    found = {because.text: because for each in limits for because in limits_that_bind(each)}
    return list(found.values())


def _cores_text(cores: Cores | None) -> list[Because]:
    if cores is None:
        return []
    text = (
        f"{cores.held:g} of {cores.total:g} cores here are assigned to workflows; this one may use {cores.granted:g} of"
        " them."
    )
    return [Because(Kind.SLOTS, text)]
