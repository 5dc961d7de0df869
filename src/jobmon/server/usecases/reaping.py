"""Runs whose clients are lost are closed. One server process at a time does it: the one that holds the lease."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, TaskStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.server import transitions
from jobmon.server.usecases.resuming import is_overdue
from jobmon.server.usecases.runs import require_run, require_workflow

if TYPE_CHECKING:
    from jobmon.server.transaction import Transaction

LEASE: Final = "reaper"
#: Runs that are closed in one pass; the rest is for the next.
RUNS_PER_PASS_MAX: Final = 100


def reap(tx: Transaction, holder: str) -> list[int]:
    """Close the runs that are overdue, if the lease can be had; return their ids."""
    if not _take_lease(tx, holder):
        return []
    rows = tx.rows(
        """
        SELECT id, status, workflow_id, report_by FROM workflow_run
        WHERE status NOT IN (:final...) AND report_by < :now ORDER BY id LIMIT :most
        """,
        final=transitions.FINAL_RUNS,
        now=tx.now,
        most=RUNS_PER_PASS_MAX,
    )
    lost = [(run_id, status, workflow_id) for run_id, status, workflow_id, due in rows if is_overdue(tx, due)]
    for run_id, status, workflow_id in lost:
        transitions.move_run(tx, require_run(tx, run_id), fsm.RUN_WHEN_LOST[WorkflowRunStatus(status)], Actor.REAPER)
        _repair(tx, workflow_id)
        tx.audit(Actor.REAPER, "close lost run", workflow_id, run=run_id, was=status)
    return [run_id for run_id, _, _ in lost]


def _take_lease(tx: Transaction, holder: str) -> bool:
    """Take or renew the lease for two passes."""
    expires_at = tx.now + int(2 * tx.settings.reaper_interval_seconds * 1e6)
    tx.run(
        "INSERT INTO lease (name, holder, expires_at) VALUES (:name, :holder, 0) ON CONFLICT DO NOTHING",
        name=LEASE,
        holder=holder,
    )
    taken = tx.run(
        """
        UPDATE lease SET holder = :holder, expires_at = :expires
        WHERE name = :name AND (holder = :holder OR expires_at < :now)
        """,
        holder=holder,
        expires=expires_at,
        name=LEASE,
        now=tx.now,
    )
    return taken > 0


def _repair(tx: Transaction, workflow_id: int) -> None:
    """A workflow whose tasks are all done is done, even if its client died before it could say so."""
    open_task = tx.value(
        "SELECT id FROM task WHERE workflow_id = :id AND status != :done LIMIT 1",
        id=workflow_id,
        done=TaskStatus.DONE.value,
    )
    is_bound = tx.value("SELECT bound FROM workflow WHERE id = :id", id=workflow_id)
    if open_task is None and is_bound:
        transitions.move_workflow(tx, workflow_id, require_workflow(tx, workflow_id), WorkflowStatus.DONE)
