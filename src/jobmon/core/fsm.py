"""The four state machines and how they move each other. This file is the law; everything else asks it.

Two rules. Everything that decides whether a status may change must live here. And this file does not know who
runs it: no clock, no database, no network.

The theory. There are four machines: a *task* (the intent to run a command), a *task instance* (one attempt at
it), a *workflow run* (one start or resume) and a *workflow*. Only two of them are moved by events from outside:
attempts, by the reports of distributors and workers, and runs, by their orchestrator. The other two follow:
a task follows its newest attempt (`TASK_OF_INSTANCE`), a workflow follows its newest run (`WORKFLOW_OF_RUN`), where
only runs that came as far as LINKING count: one that is stopped or given up before it recorded anything does not move
a workflow that another run leads. (While no run came so far, the newest leads.)

Messages come late, twice, out of order or never. So a verdict on a pair of states is one of three:

* LEGAL: an edge of the table. Do it.
* LATE: a known race. A message overtaken by a later one, or repeated. Ignore it, count it.
* ILLEGAL: nobody could have sent this if every part worked. A bug; raise it.

An edge has a source, a target, the actors who may ask for it and the reason it exists. One more table,
`REDIRECTS`, is for an attempt in KILL_SELF: however it fails then, it was killed, so it ends as ERROR.

What the tables cannot say, and where it is: whether a failed task has attempts left is a count, so the step from
ERROR_RECOVERABLE onward is chosen by `core.retry`; that a report of an attempt which is no longer its task's newest
never moves the task, and which run leads a workflow, are guards in `server.transitions`.

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
    """Which of the four."""

    TASK = "task"
    TASK_INSTANCE = "task instance"
    WORKFLOW_RUN = "workflow run"
    WORKFLOW = "workflow"


class Verdict(Enum):
    """What the table says of a pair of states."""

    LEGAL = "legal"
    LATE = "late"
    ILLEGAL = "illegal"


@dataclass(frozen=True, slots=True)
class Edge:
    """One permitted change. `reopens` marks the named ways out of a terminal state (resume, reset, repair)."""

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
    *_edges("Q", "I", [_D], "the distributor took the attempt from the server to launch it", _TI),
    *_edges("Q", "E", [_S, _R, _U], "the run was stopped or resumed before anyone launched the attempt", _TI),
    *_edges("I", "O", [_D], "submitted; the cluster gave it an id", _TI),
    *_edges("I", "W", [_D], "the cluster refused the submission or gave no id", _TI),
    *_edges("IO", "R", [_D, _W], "the command was started", _TI),
    *_edges("IOR", "DEFZU", [_D, _W], "the command ended; a short one may end before anybody said that it runs", _TI),
    *_edges("O", "X", [_S, _R], "submitted, but no sign of life before the deadline", _TI),
    *_edges("IOR", "T", [_S, _R], "its heartbeat is overdue; the distributor is asked to find out", _TI),
    *_edges("T", "R", [_D, _W], "triage found it alive", _TI),
    *_edges("T", "DEFZU", [_D, _W], "triage, or a report that came meanwhile, found how it ended", _TI),
    *_edges("IORT", "K", [_S, _R, _U], "the run is stopped or resumed cold: whoever runs it shall end it", _TI),
    *_edges("K", "E", [_D, _W, _S, _R, _U], "killed as told, or proven gone", _TI),
    *_edges("K", "D", [_D, _W], "it had finished before the signal reached it; finished work counts", _TI),
    *_edges("IORT", "U", [_R], "its executor is proven gone", _TI),
)
#: However an attempt in KILL_SELF fails, it ends as ERROR with the cause "killed".
REDIRECTS: Final = MappingProxyType(
    {(_TI.KILL_SELF, target): _TI.ERROR for target in (_TI("F"), _TI("Z"), _TI("U"), _TI("W"), _TI("X"))}
)

_T = TaskStatus
_TASK_EDGES: Final = (
    *_edges("GA", "Q", [_C], "its upstreams are done and a slot is free: the orchestrator queued it", _T),
    *_edges("Q", "I", [_D], "follows its attempt", _T),
    *_edges("QI", "O", [_D], "follows its attempt", _T),
    *_edges("QIO", "R", [_D, _W], "follows its attempt", _T),
    *_edges("QIOR", "D", [_D, _W], "its attempt finished", _T),
    *_edges("QIOR", "E", [_D, _W, _S, _R, _U], "its attempt failed, was lost or was killed", _T),
    *_edges("QIOR", "F", [_D, _W, _S], "its attempt failed in a way that no retry can mend", _T),
    *_edges("E", "A", [_S], "a resource ran out and attempts are left: ask for more", _T),
    *_edges("E", "G", [_S], "attempts are left, or the failure was not the task's fault", _T),
    *_edges("E", "F", [_S], "no attempts are left", _T),
    *_edges("QIOREA", "G", [_S, _U], "a resume or reset starts it anew", _T),
    *_edges("F", "G", [_S, _U], "a resume or reset gives it new attempts", _T, reopens=True),
    *_edges("D", "G", [_U], "the user wants it run again", _T, reopens=True),
    *_edges("GEA", "D", [_U], "the user says that it is done", _T),
    *_edges("F", "D", [_U], "the user says that it is done", _T, reopens=True),
)

_WR = WorkflowRunStatus
_WORKFLOW_RUN_EDGES: Final = (
    *_edges("G", "L", [_C], "the client starts to record its tasks", _WR),
    *_edges("L", "B", [_C], "everything is recorded", _WR),
    *_edges("GL", "A", [_C, _R, _S], "the client gave up or died before everything was recorded", _WR),
    *_edges("B", "I", [_C], "the distributor is being started", _WR),
    *_edges("I", "O", [_C], "the distributor is up", _WR),
    *_edges("O", "R", [_C], "the orchestrator queues tasks", _WR),
    *_edges("R", "D", [_C], "every task is done", _WR),
    *_edges("BIOR", "E", [_C, _R, _S], "a task failed for good, the run timed out, or its client died", _WR),
    *_edges("GLBIOR", "S", [_C, _U], "the user stopped it", _WR),
    *_edges("GLBIOR", "CH", [_S], "another client asks to take over", _WR),
    *_edges("CH", "T", [_C, _R, _S], "it made room for its successor", _WR),
    *_edges("CH", "S", [_C], "the user stopped it while it made room", _WR),
)

_WF = WorkflowStatus
_WORKFLOW_EDGES: Final = (
    *_edges("G", "Q", [_C], "follows its run: bound", _WF),
    *_edges("Q", "I", [_C], "follows its run", _WF),
    *_edges("I", "O", [_C], "follows its run", _WF),
    *_edges("O", "R", [_C], "follows its run", _WF),
    *_edges("R", "D", [_C], "every task is done", _WF),
    *_edges("G", "A", [_C, _R, _S], "its run was aborted while it was being recorded", _WF),
    *_edges("GQIOR", "F", [_C, _R, _S, _U], "its run failed or was stopped", _WF),
    *_edges("GQIOR", "H", [_C, _R, _S], "its run made room for another", _WF),
    *_edges("QIOR", "G", [_C, _S], "a new run takes over", _WF),
    *_edges("AFH", "G", [_C, _S, _U], "a new run resumes it, or the user resets it", _WF, reopens=True),
    *_edges("D", "G", [_U], "the user resets it", _WF, reopens=True),
    *_edges("GQIOR", "D", [_R, _S], "all its tasks are done though its run did not say so", _WF),
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
        Machine.TASK: frozenset(map(TaskStatus, "DF")),
        Machine.TASK_INSTANCE: frozenset(map(TaskInstanceStatus, "DEFUWXZ")),
        Machine.WORKFLOW_RUN: frozenset(map(WorkflowRunStatus, "ADEST")),
        Machine.WORKFLOW: frozenset(map(WorkflowStatus, "ADHF")),
    }
)

#: What a distributor or worker may report of an attempt that was handed to it.
REPORTS: Final = frozenset(map(TaskInstanceStatus, "ORDEFZUW"))

#: Races that we know of: source -> targets whose message may still arrive. A repeat (source == target) is always
#: one, and so is every report about an attempt that has ended.
_LATE: Final[Mapping[Machine, Mapping[str, str]]] = MappingProxyType(
    {
        # "R": O, I  - the worker's "running" overtook the distributor's "launched"
        # "K": R, O, T - it was told to end while it was starting or being triaged
        # "R"/"O"/"T": W - the submission seemed to fail, but the job lives
        Machine.TASK_INSTANCE: {
            "O": "IW",
            "R": "IOWX",
            "T": "IOWX",
            "K": "IORT",
            **dict.fromkeys("DEFUWXZ", "IORTKDEFUWXZ"),
        },
        # A task only follows its newest attempt, so what is late for the attempt is late for the task.
        Machine.TASK: {
            "I": "Q",
            "O": "QI",
            "R": "QIO",
            "D": "QIOREAF",
            "F": "QIOREA",
            "G": "IORE",
            "A": "IORE",
        },
        # A resume or stop signal crosses the run's own news; the reaper and the client close the same run.
        Machine.WORKFLOW_RUN: {
            "C": "IORDEHLBA",
            "H": "IORDECLBA",
            **dict.fromkeys("ADEST", "ADESTCHIORLB"),
        },
        # "A": a new run gave up before it recorded anything, while the run before it still leads the workflow
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
    """Several reasons for one pair of states are one edge."""
    why = one.why if one.why == other.why else f"{one.why}; {other.why}"
    return Edge(one.source, one.target, one.actors | other.actors, why, one.reopens or other.reopens)


def table(machine: Machine) -> Mapping[tuple[str, str], Edge]:
    """Return all edges of a machine by their pair of letters."""
    return _table(machine)


@cache
def judge(machine: Machine, source: str, target: str) -> Verdict:
    """Say whether a change of status is LEGAL, LATE or ILLEGAL. Total over all pairs of states.

    Raises:
        ValueError: a letter that is no state of this machine.
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


def effective_target(machine: Machine, source: str, target: str) -> str:
    """Return where a report really leads: `target`, or for an attempt in KILL_SELF that failed, ERROR."""
    if machine is not Machine.TASK_INSTANCE:
        return target
    redirect = REDIRECTS.get((TaskInstanceStatus(source), TaskInstanceStatus(target)))
    return target if redirect is None else redirect.value


@cache
def sources(machine: Machine, target: str, actor: Actor | None = None) -> frozenset[str]:
    """Return the letters of all states from which `target` may be reached: the guard of a bulk update.

    Args:
        machine: which machine.
        target: the state to reach, after `effective_target`.
        actor: only edges that this actor may ask for; None: anybody's.
    """
    target = STATES[machine](target).value
    return frozenset(
        source
        for (source, reached), edge in _table(machine).items()
        if reached == target and (actor is None or actor in edge.actors)
    )


@cache
def may_ask(machine: Machine, source: str, target: str, actor: Actor) -> bool:
    """Say whether this actor may ask for this edge."""
    edge = _table(machine).get((STATES[machine](source).value, STATES[machine](target).value))
    return edge is not None and actor in edge.actors


def is_terminal(machine: Machine, status: str) -> bool:
    """Say whether nothing but a named resume, reset or repair leads on from here."""
    return STATES[machine](status) in TERMINAL[machine]


#: Coupling: what an attempt's new state makes of its task. Absent: the task stays where it is.
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

#: Coupling: what a run's new state makes of its workflow. Absent: the workflow stays where it is.
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

#: What a run becomes when its client is lost: still recording, making room, or under way.
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
