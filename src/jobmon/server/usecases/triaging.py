"""Attempts whose heartbeats stopped: LAUNCHED ones are closed, RUNNING ones are sent to the distributor for triage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.wire.run import TriageResponse
from jobmon.server import transitions
from jobmon.server.usecases.runs import require_run

if TYPE_CHECKING:
    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus


def triage(tx: Transaction, run_id: int) -> TriageResponse:
    """Judge the overdue attempts of a run. Nobody is overdue before the server's own grace is over."""
    require_run(tx, run_id)
    grace = tx.started_at + int(tx.settings.attempt_deadline_seconds * 1e6)
    if tx.now <= grace:
        return TriageResponse(triaging=0, no_heartbeat=0)
    return TriageResponse(
        triaging=transitions.move_all(tx, _overdue(tx, run_id, TI.RUNNING), TI.TRIAGING, None),
        no_heartbeat=transitions.move_all(tx, _overdue(tx, run_id, TI.LAUNCHED), TI.NO_HEARTBEAT, Cause.NO_HEARTBEAT),
    )


def _overdue(tx: Transaction, run_id: int, status: TI) -> list[int]:
    return tx.column(
        "SELECT id FROM task_instance WHERE workflow_run_id = :run AND status = :status AND report_by < :now",
        run=run_id,
        status=status.value,
        now=tx.now,
    )
