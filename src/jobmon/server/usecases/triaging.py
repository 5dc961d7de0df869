"""Attempts whose heartbeats stopped: LAUNCHED ones are closed, the others are sent to the distributor for triage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.wire.run import TriageResponse
from jobmon.server import transitions
from jobmon.server.usecases.runs import require_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
#: INSTANTIATED ones beat too, while they wait to be started; unless they went out in an answer that nobody heard.
_DOUBTED: Final = (TI.INSTANTIATED, TI.RUNNING)


def triage(tx: Transaction, run_id: int) -> TriageResponse:
    """Judge the overdue attempts of a run. Nobody is overdue before the server's own grace is over."""
    require_run(tx, run_id)
    grace = tx.started_at + int(tx.settings.attempt_deadline_seconds * 1e6)
    if tx.now <= grace:
        return TriageResponse(triaging=0, no_heartbeat=0)
    doubted, silent = _overdue(tx, run_id, _DOUBTED), _overdue(tx, run_id, (TI.LAUNCHED,))
    packed = _packed(tx, silent)  # these wait in, or for, a job that others share: it is not their fault
    transitions.move_all(tx, sorted(packed), TI.UNKNOWN_ERROR, Cause.WORKER_LOST)
    silent = [one for one in silent if one not in packed]
    return TriageResponse(
        triaging=transitions.move_all(tx, doubted, TI.TRIAGING, None),
        no_heartbeat=transitions.move_all(tx, silent, TI.NO_HEARTBEAT, Cause.NO_HEARTBEAT),
    )


def _overdue(tx: Transaction, run_id: int, statuses: Sequence[TI]) -> list[int]:
    return tx.column(
        "SELECT id FROM task_instance WHERE workflow_run_id = :run AND status IN (:statuses...) AND report_by < :now",
        run=run_id,
        statuses=statuses,
        now=tx.now,
    )


def _packed(tx: Transaction, ids: Sequence[int]) -> set[int]:
    if not ids:
        return set()
    return set(
        tx.column(
            """
            SELECT ti.id FROM task_instance ti JOIN packed_batch p ON p.batch_id = ti.batch_id
            WHERE ti.id IN (:ids...)
            """,
            ids=ids,
        )
    )
