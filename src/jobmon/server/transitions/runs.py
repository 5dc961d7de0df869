"""Move runs, and their workflows with them.

A run moves by `move_run`. Its workflow follows if the run leads it (`core.fsm`), and so do the run's attempts: a run
that becomes BOUND adopts those that an earlier run left running; a run that ends closes those it has queued.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, Cause, EndReason, TaskInstanceStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import InvalidStateTransition
from jobmon.core.fsm import Machine, Verdict
from jobmon.server.constructs import func, or_, select, update
from jobmon.server.joins import newest_run
from jobmon.server.models import task_instance, workflow, workflow_run
from jobmon.server.sql import any_of, param, statement, statements
from jobmon.server.transitions.attempts import live_attempts, move_all
from jobmon.server.transitions.expansions import abandon_expansions
from jobmon.server.transitions.statuses import assert_legal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Select, Table, Update

    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus

ti = task_instance.c


@dataclass(frozen=True, slots=True)
class RunRow:
    """The current state of a run, with its workflow.

    `is_newest`: no later run of the workflow exists. `leads`: the workflow follows this run; it is the newest run that
    reached LINKING, or the newest of all if none did. `limits_changed_at`: the stamp of the last change of a limit of
    the workflow or one of its arrays.
    """

    id: int
    status: str
    workflow_id: int
    workflow_status: str
    is_newest: bool
    leads: bool
    limits_changed_at: int

    @property
    def may_queue(self) -> bool:
        """Whether tasks may be queued for this run, by its orchestrator or because they are armed."""
        return self.is_newest and self.status in fsm.QUEUING_RUNS


@statement
def _run_with_workflow() -> Select[Any]:
    r, leader = workflow_run.c, workflow_run.alias("leader")
    leading = (
        select(func.max(leader.c.id))
        .where(
            leader.c.workflow_id == r.workflow_id,
            or_(leader.c.bound_at.is_not(None), leader.c.status.in_(fsm.LEADING_RUNS)),
        )
        .scalar_subquery()
    )
    return (
        select(
            *(r.id, r.status, r.workflow_id, workflow.c.status, newest_run(r.workflow_id), leading),
            workflow.c.limit_at,
        )
        .join_from(workflow_run, workflow, workflow.c.id == r.workflow_id)
        .where(r.id == param("id"))
    )


def run_row(tx: Transaction, run_id: int) -> RunRow | None:
    """Return a run, or None."""
    row = tx.row(_run_with_workflow, id=run_id)
    if row is None:
        return None
    identity, status, workflow_id, workflow_status, newest, leader, limits_changed_at = row
    return RunRow(
        id=identity,
        status=status,
        workflow_id=workflow_id,
        workflow_status=workflow_status,
        is_newest=newest == run_id,
        leads=run_id == (newest if leader is None else leader),
        limits_changed_at=limits_changed_at,
    )


@statements
def _move(table: Table) -> Update:
    """Change the status of a run or a workflow."""
    changes = {"status": param("target"), "status_at": param("stamp")}
    return update(table).values(changes).where(table.c.id == param("id"), table.c.status == param("source"))


@statement
def _set_end_reason() -> Update:
    return update(workflow_run).values(end_reason=param("reason")).where(workflow_run.c.id == param("id"))


def move_run(tx: Transaction, run: RunRow, target: str, actor: Actor, reason: EndReason | None = None) -> str:
    """Move a run, and its workflow with it; return the resulting status of the run.

    Args:
        tx: the transaction.
        run: the run.
        target: the requested status.
        actor: the actor that requests it.
        reason: why it ends, if the status does not tell.

    Raises:
        InvalidStateTransition: the table forbids it, or this actor may not request it.
    """
    verdict = fsm.judge(Machine.WORKFLOW_RUN, run.status, target)
    if verdict is Verdict.LATE:
        tx.effects.ignored[(Machine.WORKFLOW_RUN, run.status, target)] += 1
        return run.status
    if verdict is Verdict.ILLEGAL or not fsm.may_ask(Machine.WORKFLOW_RUN, run.status, target, actor):
        raise InvalidStateTransition.of("Workflow run", run.id, run.status, target)
    tx.run(
        _move(workflow_run),
        target=target,
        stamp=tx.stamp,
        id=run.id,
        source=run.status,
    )
    if reason is not None:
        tx.run(_set_end_reason, reason=reason.value, id=run.id)
    if target in fsm.FINAL_RUNS:
        tx.effects.ended_runs[run.id] = target
    if target not in fsm.QUEUING_RUNS:
        tx.armed.forget(run.workflow_id, run.id)
    for consequence in _CONSEQUENCES.get(WorkflowRunStatus(target), ()):
        consequence(tx, run)
    if run.leads or (run.is_newest and target == WorkflowRunStatus.LINKING):
        _follow_run(tx, run, target)
    tx.wake_all(run.workflow_id)
    return target


def _follow_run(tx: Transaction, run: RunRow, target: str) -> None:
    wanted = fsm.WORKFLOW_OF_RUN.get(WorkflowRunStatus(target))
    if wanted is not None:
        move_workflow(tx, run.workflow_id, run.workflow_status, wanted)


def move_workflow(tx: Transaction, workflow_id: int, source: str, target: WorkflowStatus) -> None:
    """Move a workflow, unless the change is late.

    Raises:
        InvalidStateTransition: the table forbids it.
    """
    if source == target:
        return
    if fsm.judge(Machine.WORKFLOW, source, target) is Verdict.LATE:
        tx.effects.ignored[(Machine.WORKFLOW, source, target)] += 1
        return
    assert_legal(Machine.WORKFLOW, workflow_id, source, target)
    tx.run(
        _move(workflow),
        target=target.value,
        stamp=tx.stamp,
        id=workflow_id,
        source=source,
    )


@statement
def _set_bound_at() -> Update:
    return update(workflow_run).values(bound_at=param("now")).where(workflow_run.c.id == param("id"))


def _note_bound(tx: Transaction, run: RunRow) -> None:
    tx.run(_set_bound_at, now=tx.now, id=run.id)


@statement
def _hand_over() -> Update:
    return update(task_instance).values(workflow_run_id=param("run")).where(any_of(ti.id, "ids"))


def _take_over(tx: Transaction, run: RunRow) -> None:
    """Assign the attempts that an earlier run left running to the new run."""
    tx.run(_hand_over, run=run.id, ids=live_attempts(tx, run.workflow_id, fsm.TAKEN))


@statement
def _queued_of_run() -> Select[Any]:
    return select(ti.id).where(ti.workflow_run_id == param("run"), ti.status == param("status"))


def _end_queued(tx: Transaction, run: RunRow) -> None:
    """End the queued attempts of a run that is over: no distributor launches them."""
    move_all(tx, tx.column(_queued_of_run, run=run.id, status=TI.QUEUED.value), TI.ERROR, Cause.KILLED)


def _abandon_expansions(tx: Transaction, run: RunRow) -> None:
    """Let the expansions wait that the client of an ended run was calling, unless a later run calls them."""
    if run.is_newest:
        abandon_expansions(tx, run.workflow_id)


_CONSEQUENCES: Final[Mapping[WorkflowRunStatus, Sequence[Callable[[Transaction, RunRow], None]]]] = {
    WorkflowRunStatus.BOUND: (_note_bound, _take_over),
    **{WorkflowRunStatus(status): (_end_queued, _abandon_expansions) for status in fsm.FINAL_RUNS},
}
