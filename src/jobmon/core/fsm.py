"""Define the four state machines and how they drive each other. All transition rules are in this module.

Two rules apply to it. Everything that decides whether a status may change lives here. This module does not depend
on its caller: it uses no clock, no database and no network.

There are four machines: a *task* (the intent to run a command), a *task instance* (one attempt to run it), a *workflow
run* (one start or resume) and a *workflow*. External events move only two of them: attempts, through the reports of
distributors and workers, and runs, through their orchestrator. The other two follow: a task follows its newest attempt
(`TASK_OF_INSTANCE`) and a workflow follows its newest run (`WORKFLOW_OF_RUN`). Only runs that reached LINKING count
here, so a run that is stopped or abandoned before it recorded anything does not move a workflow that another run
leads. (While no run has reached LINKING, the newest run leads.)

Messages may arrive late, twice, out of order or never. The verdict on a pair of states is therefore one of three:

* LEGAL: an edge of the table. Apply it.
* LATE: a known race, in which a message was repeated or overtaken by a later one. Ignore and count it.
* ILLEGAL: no correct component could have sent the message. This is a bug; raise it.

An edge has a source, a target, the actors that may request it, and the reason it exists. A second table, `REDIRECTS`,
covers attempts in KILL_SELF: whichever way such an attempt fails, it was killed, so it is recorded as ERROR.

Two kinds of rules cannot be expressed in the tables. Whether a failed task has attempts left is a count, so
`core.retry` chooses the transition out of ERROR_RECOVERABLE. Guards in `server.transitions` determine which run leads
a workflow, and ensure that a report about a superseded attempt never moves its task.

The documentation page with its diagrams is generated from these tables (`make docs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Actor, TaskInstanceStatus, TaskStatus, WorkflowRunStatus, WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Status = TaskStatus | TaskInstanceStatus | WorkflowRunStatus | WorkflowStatus


class Machine(StrEnum):
    """One of the four state machines."""

    TASK = "task"
    TASK_INSTANCE = "task instance"
    WORKFLOW_RUN = "workflow run"
    WORKFLOW = "workflow"


class Verdict(Enum):
    """The verdict on a pair of states."""

    LEGAL = "legal"
    LATE = "late"
    ILLEGAL = "illegal"


@dataclass(frozen=True, slots=True)
class Edge:
    """A permitted transition. `reopens` marks a named way out of a terminal state (resume, reset, repair)."""

    source: Status
    target: Status
    actors: frozenset[Actor]
    why: str
    reopens: bool = False


def _edges(
    sources: str, targets: str, actors: Iterable[Actor], why: str, states: type[StrEnum], *, reopens: bool = False
) -> list[Edge]:
    return [
        Edge(states(source), states(target), frozenset(actors), why, reopens)  # type: ignore[arg-type]
        for source in sources
        for target in targets
    ]


_C, _D, _W, _S, _R, _U = Actor.CLIENT, Actor.DISTRIBUTOR, Actor.WORKER, Actor.SERVER, Actor.REAPER, Actor.USER

_TI = TaskInstanceStatus
_TASK_INSTANCE_EDGES: Final = (
    *_edges("Q", "I", [_D], "an agent or distributor claimed the attempt to launch it", _TI),
    *_edges("Q", "E", [_S, _R, _U], "the run was stopped or resumed before anyone launched the attempt", _TI),
    *_edges("I", "O", [_D], "submitted; the cluster assigned an ID", _TI),
    *_edges("I", "W", [_D], "the cluster rejected the submission or assigned no ID", _TI),
    *_edges("IO", "R", [_D, _W], "the command started", _TI),
    *_edges("IOR", "DEFZU", [_D, _W], "the command exited, possibly before it was reported as running", _TI),
    *_edges("O", "X", [_S, _R], "submitted, but nothing was received before the deadline", _TI),
    *_edges("IOR", "T", [_S, _R], "its heartbeat is overdue; the distributor must triage it", _TI),
    *_edges("T", "R", [_D, _W], "triage found it running", _TI),
    *_edges("T", "DEFZU", [_D, _W], "triage, or a report received meanwhile, established the outcome", _TI),
    *_edges("IORT", "K", [_S, _R, _U], "the run was stopped or resumed cold: the attempt must be terminated", _TI),
    *_edges("K", "E", [_D, _W, _S, _R, _U], "terminated as requested, or proven gone", _TI),
    *_edges("K", "D", [_D, _W], "it finished before the signal reached it, so its result is kept", _TI),
    *_edges("IORT", "U", [_R], "its executor is proven gone", _TI),
)
#: An attempt in KILL_SELF that fails in any way is recorded as ERROR with the cause "killed".
REDIRECTS: Final = MappingProxyType(
    {(_TI.KILL_SELF, target): _TI.ERROR for target in (_TI("F"), _TI("Z"), _TI("U"), _TI("W"), _TI("X"))}
)

_T = TaskStatus
_TASK_EDGES: Final = (
    *_edges("GA", "Q", [_C], "its upstream tasks are done and the limits allow it: queued to run", _T),
    *_edges("Q", "I", [_D], "same as its attempt", _T),
    *_edges("QI", "O", [_D], "same as its attempt", _T),
    *_edges("QIO", "R", [_D, _W], "same as its attempt", _T),
    *_edges("QIOR", "D", [_D, _W], "its attempt finished", _T),
    *_edges("QIOR", "E", [_D, _W, _S, _R, _U], "its attempt failed, was lost, or was terminated", _T),
    *_edges("QIOR", "F", [_D, _W, _S], "its attempt failed in a way that a retry cannot fix", _T),
    *_edges("E", "A", [_S], "a resource ran out and attempts remain: retry with a larger request", _T),
    *_edges("E", "G", [_S], "attempts remain, or the failure was not charged", _T),
    *_edges("E", "F", [_S], "no attempts remain", _T),
    *_edges("QIOREA", "G", [_S, _U], "a resume or reset will rerun it", _T),
    *_edges("F", "G", [_S, _U], "a resume or reset restored its attempts", _T, reopens=True),
    *_edges("D", "G", [_U], "the user requested a rerun", _T, reopens=True),
    *_edges("GEA", "D", [_U], "the user marked it as done", _T),
    *_edges("F", "D", [_U], "the user marked it as done", _T, reopens=True),
    *_edges("D", "G", [_C], "a new version changes it or reruns an upstream task", _T, reopens=True),
    *_edges("GEA", "D", [_C], "a change was reverted: its result is up to date again", _T),
    *_edges("F", "D", [_C], "a change was reverted: its result is up to date again", _T, reopens=True),
    *_edges("GEA", "S", [_U, _C], "the user skipped it: tasks downstream no longer wait for it", _T),
    *_edges("F", "S", [_U, _C], "the user skipped it: tasks downstream no longer wait for it", _T, reopens=True),
    *_edges("S", "G", [_U], "the user requested that it runs after all", _T, reopens=True),
    *_edges("GEA", "X", [_C], "the new version of its workflow does not contain it", _T),
    *_edges("DFS", "X", [_C], "the new version of its workflow does not contain it", _T, reopens=True),
    *_edges("X", "GD", [_C], "a new version contains it, possibly again", _T, reopens=True),
    *_edges("G", "R", [_C], "expansions only: its function is being called", _T),
    *_edges("R", "D", [_C], "expansions only: what its function returned is recorded", _T),
    *_edges("R", "F", [_C], "expansions only: its function failed", _T),
    *_edges("R", "G", [_C], "expansions only: its function failed and is to be called again", _T),
)

_WR = WorkflowRunStatus
_WORKFLOW_RUN_EDGES: Final = (
    *_edges("G", "L", [_C], "the client started recording its tasks", _WR),
    *_edges("L", "B", [_C], "everything is recorded", _WR),
    *_edges("GL", "A", [_C, _R, _S], "the client exited or crashed before everything was recorded", _WR),
    *_edges("B", "I", [_C], "the distributor is being started", _WR),
    *_edges("I", "O", [_C], "the distributor is running", _WR),
    *_edges("O", "R", [_C], "the orchestrator queues tasks", _WR),
    *_edges("R", "D", [_C], "every task is done", _WR),
    *_edges("BIOR", "E", [_C, _R, _S], "a task failed permanently, the run timed out, or its client crashed", _WR),
    *_edges("GLBIOR", "S", [_C, _U], "the user stopped it", _WR),
    *_edges("GLBIOR", "CH", [_S], "another client asks to take over", _WR),
    *_edges("CH", "T", [_C, _R, _S], "it made way for its successor", _WR),
    *_edges("CH", "S", [_C], "the user stopped it while it was making way", _WR),
)

_WF = WorkflowStatus
_WORKFLOW_EDGES: Final = (
    *_edges("G", "Q", [_C], "same as its run: bound", _WF),
    *_edges("Q", "I", [_C], "same as its run", _WF),
    *_edges("I", "O", [_C], "same as its run", _WF),
    *_edges("O", "R", [_C], "same as its run", _WF),
    *_edges("R", "D", [_C], "every task is done", _WF),
    *_edges("G", "A", [_C, _R, _S], "its run was aborted while it was being recorded", _WF),
    *_edges("GQIOR", "F", [_C, _R, _S, _U], "its run failed or was stopped", _WF),
    *_edges("GQIOR", "H", [_C, _R, _S], "its run made way for another", _WF),
    *_edges("QIOR", "G", [_C, _S], "a new run took over", _WF),
    *_edges("AFH", "G", [_C, _S, _U], "a new run resumed it, or the user reset it", _WF, reopens=True),
    *_edges("D", "G", [_U], "the user reset it", _WF, reopens=True),
    *_edges("D", "G", [_C], "a new version has tasks to run", _WF, reopens=True),
    *_edges("GQIOR", "D", [_R, _S], "all its tasks are done, but its run did not report it", _WF),
    *_edges("AFH", "D", [_R, _S], "repair: all its tasks are done", _WF, reopens=True),
)

EDGES: Final[Mapping[Machine, tuple[Edge, ...]]] = MappingProxyType(
    {
        Machine.TASK: _TASK_EDGES,
        Machine.TASK_INSTANCE: _TASK_INSTANCE_EDGES,
        Machine.WORKFLOW_RUN: _WORKFLOW_RUN_EDGES,
        Machine.WORKFLOW: _WORKFLOW_EDGES,
    }
)
STATES: Final[Mapping[Machine, type[StrEnum]]] = MappingProxyType(
    {
        Machine.TASK: TaskStatus,
        Machine.TASK_INSTANCE: TaskInstanceStatus,
        Machine.WORKFLOW_RUN: WorkflowRunStatus,
        Machine.WORKFLOW: WorkflowStatus,
    }
)
INITIAL: Final[Mapping[Machine, Status]] = MappingProxyType(
    {
        Machine.TASK: TaskStatus.REGISTERING,
        Machine.TASK_INSTANCE: TaskInstanceStatus.QUEUED,
        Machine.WORKFLOW_RUN: WorkflowRunStatus.REGISTERED,
        Machine.WORKFLOW: WorkflowStatus.REGISTERING,
    }
)
TERMINAL: Final[Mapping[Machine, frozenset[Status]]] = MappingProxyType(
    {
        Machine.TASK: frozenset(map(TaskStatus, "DFSX")),
        Machine.TASK_INSTANCE: frozenset(map(TaskInstanceStatus, "DEFUWXZ")),
        Machine.WORKFLOW_RUN: frozenset(map(WorkflowRunStatus, "ADEST")),
        Machine.WORKFLOW: frozenset(map(WorkflowStatus, "ADHF")),
    }
)

# -- named sets -------------------------------------------------------------------------------------------------------
# Sets of statuses that several components use. They are tuples because queries bind them too. A test finds sets that
# are written elsewhere.

#: Attempts that may be running: they were handed out and have not ended.
TAKEN: Final = (_TI.INSTANTIATED, _TI.LAUNCHED, _TI.RUNNING, _TI.TRIAGING, _TI.KILL_SELF)
LIVE: Final = (_TI.QUEUED, *TAKEN)
ENDED: Final = tuple(sorted(TERMINAL[Machine.TASK_INSTANCE]))
#: Endings for which a task may be blamed, or given more of a resource.
BLAMED: Final = (_TI.ERROR, _TI.RESOURCE_ERROR)
FAILED: Final = tuple(status for status in ENDED if status != _TI.DONE)
#: Attempts that were handed out and whose command is not known to have started.
UNSTARTED: Final = (_TI.INSTANTIATED, _TI.LAUNCHED)
#: Attempts whose command is not known to have started, handed out or not.
NOT_STARTED: Final = (_TI.QUEUED, *UNSTARTED)
#: Attempts that may not have reached their cluster.
UNSUBMITTED: Final = (_TI.QUEUED, _TI.INSTANTIATED)
#: Statuses of an attempt without a recorded cluster id that may have been submitted nevertheless.
MAYBE_SUBMITTED: Final = (_TI.INSTANTIATED, _TI.TRIAGING)
#: Attempts whose status requires an action of the component that runs them.
ORDERS: Final = (_TI.KILL_SELF, _TI.TRIAGING)
#: Attempts that are triaged when their heartbeat is overdue. LAUNCHED attempts become NO_HEARTBEAT instead.
TRIAGED_WHEN_OVERDUE: Final = (_TI.INSTANTIATED, _TI.RUNNING)
#: Attempts that prove that their host can start commands.
STARTED: Final = (_TI.DONE, _TI.RUNNING)

#: Tasks with an attempt that counts towards the limits.
IN_FLIGHT: Final = (_T.QUEUED, _T.INSTANTIATING, _T.LAUNCHED, _T.RUNNING)
#: Tasks whose attempt is waiting to be started. A change to one of these does not wake the orchestrator.
WAITING_TO_START: Final = (_T.QUEUED, _T.INSTANTIATING, _T.LAUNCHED)
#: Tasks whose attempt was handed to its cluster.
LAUNCHED_TASKS: Final = (_T.LAUNCHED, _T.RUNNING)
#: Tasks that may be queued once their dependencies are met.
QUEUEABLE: Final = (_T.REGISTERING, _T.ADJUSTING_RESOURCES)
#: Statuses that a task leaves without an external event.
PASSING: Final = (_T.ADJUSTING_RESOURCES, _T.ERROR_RECOVERABLE)
#: Tasks that have a result, good or bad.
CONCLUDED: Final = (_T.DONE, _T.ERROR_FATAL)
FINAL_TASKS: Final = tuple(sorted(TERMINAL[Machine.TASK]))
#: Tasks for which the tasks downstream no longer wait.
SATISFIED: Final = (_T.DONE, _T.SKIPPED)
#: Tasks that require no more work.
SETTLED: Final = (*SATISFIED, _T.REMOVED)
#: Statuses with which a user may mark a task.
MARKABLE: Final = (_T.DONE, _T.REGISTERING)
#: Statuses to which a user may set a task.
SETTABLE: Final = (*MARKABLE, _T.SKIPPED)

#: Runs whose orchestrator may queue, and whose agents and distributor may launch.
QUEUING_RUNS: Final = (_WR.BOUND, _WR.INSTANTIATED, _WR.LAUNCHED, _WR.RUNNING)
#: Runs that are starting and not under way yet.
STARTING_RUNS: Final = (_WR.BOUND, _WR.INSTANTIATED, _WR.LAUNCHED)
#: Runs whose tasks are still being recorded.
UNBOUND_RUNS: Final = (_WR.REGISTERED, _WR.LINKING)
#: The statuses that a run passes through, in this order.
RUN_ORDER: Final = (*UNBOUND_RUNS, *QUEUING_RUNS)
#: Runs that make way for another one.
MAKING_ROOM: Final = (_WR.COLD_RESUME, _WR.HOT_RESUME)
#: Runs that lead their workflow even if not everything was recorded.
LEADING_RUNS: Final = (_WR.LINKING, *MAKING_ROOM)
#: Statuses of a run that was closed because it was silent.
CLOSED_RUNS: Final = (_WR.ERROR, _WR.ABORTED)
#: Runs whose commands are killed because the run has ended; those of other runs are killed for a resume.
STOPPED_RUNS: Final = (_WR.STOPPED, _WR.ERROR)
FINAL_RUNS: Final = tuple(sorted(TERMINAL[Machine.WORKFLOW_RUN]))

#: Workflows with an active run that has recorded everything.
ACTIVE_WORKFLOWS: Final = (_WF.QUEUED, _WF.INSTANTIATING, _WF.LAUNCHED, _WF.RUNNING)
#: Workflows without an active run that did not complete.
INCOMPLETE_WORKFLOWS: Final = (_WF.FAILED, _WF.HALTED, _WF.ABORTED)

#: The statuses that a distributor or worker may report for an attempt that was handed to it.
REPORTS: Final = frozenset(map(TaskInstanceStatus, "ORDEFZUW"))

#: Known races: source -> targets whose messages may still arrive. A repeat (source == target) is always LATE, and so is
#: every report about an attempt that has ended.
_LATE: Final[Mapping[Machine, Mapping[str, str]]] = MappingProxyType(
    {
        # "R": O, I  - the worker's "running" overtook the distributor's "launched"
        # "K": R, O, T - the attempt was told to terminate while it was starting or being triaged
        # "R"/"O"/"T": W - the submission seemed to fail, but the job is alive
        Machine.TASK_INSTANCE: {
            "O": "IW",
            "R": "IOWX",
            "T": "IOWX",
            "K": "IORT",
            **dict.fromkeys("DEFUWXZ", "IORTKDEFUWXZ"),
        },
        # A task follows only its newest attempt, so a change that is late for the attempt is late for the task.
        Machine.TASK: {
            "I": "Q",
            "O": "QI",
            "R": "QIO",
            "D": "QIOREAF",
            "F": "QIOREA",
            "S": "QIORDEAF",
            "X": "QIOREAF",
            "G": "IOE",
            "A": "IORE",
        },
        # A resume or stop signal crosses the run's own status updates; the reaper and the client close the same run.
        Machine.WORKFLOW_RUN: {
            "C": "IORDEHLBA",
            "H": "IORDECLBA",
            **dict.fromkeys("ADEST", "ADESTCHIORLB"),
        },
        # "A": a new run was abandoned before it recorded anything, while the previous run still leads the workflow
        Machine.WORKFLOW: {
            "Q": "A",
            "I": "QA",
            "O": "QIA",
            "R": "QIOA",
            "D": "AHFQIOR",
            **dict.fromkeys("AHF", "AHFQIOR"),
        },
    }
)


@cache
def _table(machine: Machine) -> Mapping[tuple[str, str], Edge]:
    table: dict[tuple[str, str], Edge] = {}
    for edge in EDGES[machine]:
        key = (edge.source.value, edge.target.value)
        known = table.get(key)
        table[key] = edge if known is None else _joined(known, edge)
    return MappingProxyType(table)


def _joined(one: Edge, other: Edge) -> Edge:
    """Merge two edges for the same pair of states, with both reasons, into one."""
    why = one.why if one.why == other.why else f"{one.why}; {other.why}"
    return Edge(one.source, one.target, one.actors | other.actors, why, one.reopens or other.reopens)


def table(machine: Machine) -> Mapping[tuple[str, str], Edge]:
    """Return all edges of a machine, keyed by their pair of status letters."""
    return _table(machine)


@cache
def judge(machine: Machine, source: str, target: str) -> Verdict:
    """Return whether a status change is LEGAL, LATE or ILLEGAL. Defined for every pair of states.

    Raises:
        ValueError: a letter is not a state of this machine.
    """
    states = STATES[machine]
    source, target = states(source).value, states(target).value
    if source == target:
        return Verdict.LATE
    if (source, effective_target(machine, source, target)) in _table(machine):
        return Verdict.LEGAL
    if target in _LATE[machine].get(source, ""):
        return Verdict.LATE
    return Verdict.ILLEGAL


def judge_following(source: str, target: str) -> Verdict:
    """Return the verdict on a change of a task that follows its attempt. What only clients may request is LATE here."""
    verdict = judge(Machine.TASK, source, target)
    if verdict is Verdict.LEGAL and _table(Machine.TASK)[source, target].actors == {Actor.CLIENT}:
        return Verdict.LATE
    return verdict


def effective_target(machine: Machine, source: str, target: str) -> str:
    """Return the state a report actually leads to: `target`, or ERROR for an attempt in KILL_SELF that failed."""
    if machine is not Machine.TASK_INSTANCE:
        return target
    redirect = REDIRECTS.get((TaskInstanceStatus(source), TaskInstanceStatus(target)))
    return target if redirect is None else redirect.value


@cache
def sources(machine: Machine, target: str, actor: Actor | None = None) -> frozenset[str]:
    """Return the letters of all states from which `target` may be reached. Guards bulk updates.

    Args:
        machine: the state machine.
        target: the state to reach, after `effective_target`.
        actor: consider only edges that this actor may request; None: the edges of all actors.
    """
    target = STATES[machine](target).value
    return frozenset(
        source
        for (source, reached), edge in _table(machine).items()
        if reached == target and (actor is None or actor in edge.actors)
    )


@cache
def may_ask(machine: Machine, source: str, target: str, actor: Actor) -> bool:
    """Return whether the actor may request this transition."""
    edge = _table(machine).get((STATES[machine](source).value, STATES[machine](target).value))
    return edge is not None and actor in edge.actors


def is_terminal(machine: Machine, status: str) -> bool:
    """Return whether the status can be left only by a named resume, reset or repair."""
    return STATES[machine](status) in TERMINAL[machine]


#: Coupling: the task status that follows from an attempt's new status. Absent: the task keeps its status.
TASK_OF_INSTANCE: Final[Mapping[TaskInstanceStatus, TaskStatus]] = MappingProxyType(
    {
        TaskInstanceStatus.QUEUED: TaskStatus.QUEUED,
        TaskInstanceStatus.INSTANTIATED: TaskStatus.INSTANTIATING,
        TaskInstanceStatus.LAUNCHED: TaskStatus.LAUNCHED,
        TaskInstanceStatus.RUNNING: TaskStatus.RUNNING,
        TaskInstanceStatus.DONE: TaskStatus.DONE,
        TaskInstanceStatus.ERROR: TaskStatus.ERROR_RECOVERABLE,
        TaskInstanceStatus.UNKNOWN_ERROR: TaskStatus.ERROR_RECOVERABLE,
        TaskInstanceStatus.NO_DISTRIBUTOR_ID: TaskStatus.ERROR_RECOVERABLE,
        TaskInstanceStatus.NO_HEARTBEAT: TaskStatus.ERROR_RECOVERABLE,
        TaskInstanceStatus.RESOURCE_ERROR: TaskStatus.ERROR_RECOVERABLE,
        TaskInstanceStatus.ERROR_FATAL: TaskStatus.ERROR_FATAL,
    }
)

#: Coupling: the workflow status that follows from a run's new status. Absent: the workflow keeps its status.
WORKFLOW_OF_RUN: Final[Mapping[WorkflowRunStatus, WorkflowStatus]] = MappingProxyType(
    {
        WorkflowRunStatus.LINKING: WorkflowStatus.REGISTERING,
        WorkflowRunStatus.BOUND: WorkflowStatus.QUEUED,
        WorkflowRunStatus.INSTANTIATED: WorkflowStatus.INSTANTIATING,
        WorkflowRunStatus.LAUNCHED: WorkflowStatus.LAUNCHED,
        WorkflowRunStatus.RUNNING: WorkflowStatus.RUNNING,
        WorkflowRunStatus.DONE: WorkflowStatus.DONE,
        WorkflowRunStatus.ABORTED: WorkflowStatus.ABORTED,
        WorkflowRunStatus.TERMINATED: WorkflowStatus.HALTED,
        WorkflowRunStatus.STOPPED: WorkflowStatus.FAILED,
        WorkflowRunStatus.ERROR: WorkflowStatus.FAILED,
    }
)

#: The status of a run whose client is lost, depending on whether it was still recording, making way, or under way.
RUN_WHEN_LOST: Final[Mapping[WorkflowRunStatus, WorkflowRunStatus]] = MappingProxyType(
    {
        WorkflowRunStatus.REGISTERED: WorkflowRunStatus.ABORTED,
        WorkflowRunStatus.LINKING: WorkflowRunStatus.ABORTED,
        WorkflowRunStatus.BOUND: WorkflowRunStatus.ERROR,
        WorkflowRunStatus.INSTANTIATED: WorkflowRunStatus.ERROR,
        WorkflowRunStatus.LAUNCHED: WorkflowRunStatus.ERROR,
        WorkflowRunStatus.RUNNING: WorkflowRunStatus.ERROR,
        WorkflowRunStatus.COLD_RESUME: WorkflowRunStatus.TERMINATED,
        WorkflowRunStatus.HOT_RESUME: WorkflowRunStatus.TERMINATED,
    }
)
