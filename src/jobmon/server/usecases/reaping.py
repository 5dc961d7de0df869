"""Close abandoned runs, attempts and workflows. Only one server process at a time does this: the lease holder.

* An overdue run is closed as defined by `fsm.RUN_WHEN_LOST`. A run that was told to make way is closed only when none
of its attempts is in KILL_SELF any more.
* An overdue agent is declared lost together with its attempts.
* Overdue attempts are triaged while a distributor can investigate them; orphans are ended (`triaging`).
* A workflow without an active run whose tasks are all done becomes DONE, even if no client reported that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, EndReason, TaskInstanceStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.server import transitions
from jobmon.server.constructs import func, select, update
from jobmon.server.joins import IS_ACTIVE_RUN
from jobmon.server.models import lease, task, task_instance, workflow, workflow_run
from jobmon.server.sql import param, statement
from jobmon.server.usecases import agents
from jobmon.server.usecases.resuming import is_overdue
from jobmon.server.usecases.runs import require_run, require_workflow
from jobmon.server.usecases.triaging import end_all_orphans, triage

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, Select, Update

    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

LEASE: Final = "reaper"
#: Maximum number of each kind in one pass; the others follow in the next pass.
RUNS_PER_PASS_MAX: Final = 100
WORKFLOWS_PER_PASS_MAX: Final = 100
TI = TaskInstanceStatus

r, t, ti, w = workflow_run.c, task.c, task_instance.c, workflow.c


@statement
def _runs_with_overdue_attempts() -> Select[Any]:
    overdue = select(ti.id).where(
        ti.workflow_run_id == r.id, ti.status.in_(transitions.TAKEN), ti.report_by < param("now")
    )
    return select(r.id).where(overdue.exists()).order_by(r.id.desc()).limit(param("most"))


def _has_unfinished_task() -> ColumnElement[bool]:
    """Return whether a workflow has a task that is not done."""
    return select(t.id).where(t.workflow_id == w.id, t.status.not_in(fsm.SETTLED)).exists()


@statement
def _perhaps_done() -> Select[Any]:
    """Select workflows that are not DONE although all their tasks are."""
    changed = select(t.id).where(t.workflow_id == w.id, t.status_at > param("since"))
    return (
        select(w.id)
        .where(w.status.in_(fsm.INCOMPLETE_WORKFLOWS), w.bound, changed.exists(), ~_has_unfinished_task())
        .order_by(w.id.desc())
        .limit(param("most"))
    )


@statement
def _holder_of_lease() -> Select[Any]:
    return select(lease.c.holder, lease.c.expires_at).where(lease.c.name == param("name"))


@statement
def _renew_lease() -> Update:
    values = {"holder": param("holder"), "expires_at": param("expires")}
    return update(lease).values(values).where(lease.c.name == param("name"))


@statement
def _overdue_runs() -> Select[Any]:
    """Select active runs that missed their deadline, oldest first."""
    return (
        select(r.id, r.status, r.workflow_id, r.report_by)
        .where(IS_ACTIVE_RUN, r.report_by < param("now"))
        .order_by(r.id)
        .limit(param("most"))
    )


@statement
def _completion() -> Select[Any]:
    """Select whether a workflow is recorded completely, its first active run, and whether a task is not done."""
    active = select(func.min(r.id)).where(r.workflow_id == w.id, IS_ACTIVE_RUN).scalar_subquery()
    return select(w.bound, active, _has_unfinished_task()).where(w.id == param("workflow"))


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates that a reader found: runs with overdue attempts, and workflows that may be done."""

    run_ids: list[int] = field(default_factory=list)
    workflow_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reaped:
    """The result of a pass."""

    runs: list[int] = field(default_factory=list)
    attempts: int = 0
    repaired: list[int] = field(default_factory=list)


def look(session: Session, now: int, since: int) -> Candidates:
    """Search for candidates of a pass. The search takes long and does not need the writer.

    Args:
        session: the session to search with.
        now: the time, microseconds.
        since: a workflow is omitted if none of its tasks changed after this stamp.
    """
    return Candidates(
        run_ids=session.column(_runs_with_overdue_attempts, now=now, most=RUNS_PER_PASS_MAX),
        workflow_ids=session.column(_perhaps_done, since=since, most=WORKFLOWS_PER_PASS_MAX),
    )


def reap(tx: Transaction, holder: str, candidates: Candidates, is_gone: Callable[[str], bool]) -> Reaped:
    """Run one pass, if the lease is free or already held by the caller.

    Args:
        tx: the transaction.
        holder: the name of the process that requests the lease.
        candidates: the runs and workflows to examine.
        is_gone: returns whether another holder has provably exited.
    """
    if not _take_lease(tx, holder, is_gone):
        return Reaped()
    attempts = sum(_settle_attempts(tx, run_id) for run_id in candidates.run_ids) + agents.declare_lost(tx)
    runs = _close_lost_runs(tx)
    repaired = [workflow_id for workflow_id in candidates.workflow_ids if _repair(tx, workflow_id)]
    return Reaped(runs, attempts, repaired)


def _take_lease(tx: Transaction, holder: str, is_gone: Callable[[str], bool]) -> bool:
    """Take or renew the lease for two passes."""
    tx.insert_many(lease, ("name", "holder", "expires_at"), [(LEASE, holder, 0)], ignore=True)
    row = tx.row(_holder_of_lease, name=LEASE)
    assert row is not None
    longest = 2 * int(tx.settings.reaper_interval_seconds * 1e6)
    is_held = tx.now <= row[1] <= tx.now + longest  # beyond that, a clock has jumped
    if row[0] != holder and is_held and not is_gone(row[0]):
        return False
    tx.run(_renew_lease, holder=holder, expires=tx.now + longest, name=LEASE)
    return True


def _close_lost_runs(tx: Transaction) -> list[int]:
    rows = tx.rows(_overdue_runs, now=tx.now, most=RUNS_PER_PASS_MAX)
    closed = []
    for run_id, status, workflow_id, due in rows:
        if not is_overdue(tx, due) or _must_wait(tx, status, workflow_id):
            continue
        target = fsm.RUN_WHEN_LOST[WorkflowRunStatus(status)]
        transitions.move_run(tx, require_run(tx, run_id), target, Actor.REAPER, EndReason.INTERRUPTED)
        tx.audit(Actor.REAPER, "close lost run", workflow_id, run=run_id, was=status)
        _repair(tx, workflow_id)
        closed.append(run_id)
    return closed


def _must_wait(tx: Transaction, status: str, workflow_id: int) -> bool:
    """Return whether a run that makes way has attempts that have not been terminated yet."""
    return status in fsm.MAKING_ROOM and bool(transitions.live_attempts(tx, workflow_id, [TI.KILL_SELF]))


def _settle_attempts(tx: Transaction, run_id: int) -> int:
    """End orphaned attempts, and send other overdue ones to triage; return how many ended."""
    ended = end_all_orphans(tx, require_run(tx, run_id))
    if not ended:  # otherwise more orphans may be left, and triage would charge them for their silence
        triage(tx, run_id)
    return ended


def _repair(tx: Transaction, workflow_id: int) -> bool:
    """Mark a workflow as done if all its tasks are, even if its client exited before reporting it."""
    row = tx.row(_completion, workflow=workflow_id)
    if row is None or not row[0] or row[1] is not None or row[2]:
        return False
    status = require_workflow(tx, workflow_id)
    if status == WorkflowStatus.DONE:
        return False
    transitions.move_workflow(tx, workflow_id, status, WorkflowStatus.DONE)
    tx.audit(Actor.REAPER, "repair", workflow_id, was=status)
    tx.wake_all(workflow_id)
    return True
