"""Attempts whose heartbeats stopped: LAUNCHED ones are closed, the others are sent to the distributor for triage.

Where no distributor was heard of for `Settings.silence_seconds` that could see to them, they are *orphans*: their
executor counts as gone, and they end, not charged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Actor, Cause, TaskInstanceStatus
from jobmon.core.wire.run import TriageResponse
from jobmon.server import transitions
from jobmon.server.usecases.runs import require_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions import RunRow

#: So many orphans are ended at once; the rest is for the next time.
ORPHANS_MAX: Final = 2_000
TI = TaskInstanceStatus
#: INSTANTIATED ones beat too, while they wait to be started; unless they went out in an answer that nobody heard.
_DOUBTED: Final = (TI.INSTANTIATED, TI.RUNNING)


def triage(tx: Transaction, run_id: int) -> TriageResponse:
    """Judge the overdue attempts of a run. Nobody is overdue before the server's own grace is over.

    Orphans on other machines are ended. Not those on the machine of a run that goes on: after a failure of its network
    its client may be heard of before its distributor.
    """
    run = require_run(tx, run_id)
    grace = tx.started_at + int(tx.settings.attempt_deadline_seconds * 1e6)
    if tx.now <= grace:
        return TriageResponse(triaging=0, no_heartbeat=0)
    is_over = run.status in transitions.FINAL_RUNS
    own = None if is_over else tx.value("SELECT host FROM workflow_run WHERE id = :id", id=run_id)
    end_orphans(tx, run, [host for host in _silent_hosts(tx, run.workflow_id) if host not in (None, own)])
    doubted, silent = _overdue(tx, run_id, _DOUBTED), _overdue(tx, run_id, (TI.LAUNCHED,))
    packed = _packed(tx, silent)  # these wait in, or for, a job that others share: it is not their fault
    transitions.move_all(tx, sorted(packed), TI.UNKNOWN_ERROR, Cause.WORKER_LOST)
    silent = [one for one in silent if one not in packed]
    return TriageResponse(
        triaging=transitions.move_all(tx, doubted, TI.TRIAGING, None),
        no_heartbeat=transitions.move_all(tx, silent, TI.NO_HEARTBEAT, Cause.NO_HEARTBEAT),
    )


def end_all_orphans(tx: Transaction, run: RunRow) -> int:
    """End the orphans of a run wherever they are; return how many."""
    return end_orphans(tx, run, _silent_hosts(tx, run.workflow_id))


def end_orphans(tx: Transaction, run: RunRow, hosts: Sequence[str | None]) -> int:
    """End the overdue attempts of a run on these hosts (None: of a cluster that any host can see); return how many."""
    if not hosts:
        return 0
    rows = tx.rows(
        """
        SELECT ti.id, ti.status FROM task_instance ti JOIN batch b ON b.id = ti.batch_id
        WHERE ti.workflow_run_id = :run AND ti.status IN (:taken...) AND ti.report_by < :now
        AND (b.host IN (:hosts...) OR b.host IS NULL AND :anywhere = 1) ORDER BY ti.id LIMIT :most
        """,
        run=run.id,
        taken=transitions.TAKEN,
        now=tx.now,
        hosts=[host for host in hosts if host is not None],
        anywhere=int(None in hosts),
        most=ORPHANS_MAX,
    )
    moves = transitions.AttemptMoves(tx, [attempt_id for attempt_id, _ in rows])
    for attempt_id, status in rows:
        moves.move(attempt_id, TI.ERROR if status == TI.KILL_SELF else TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST)
    ended = moves.write()
    if ended:
        tx.audit(Actor.REAPER, "close orphaned attempts", run.workflow_id, run=run.id, ended=ended)
        tx.wake_all(run.workflow_id)
    return ended


def _silent_hosts(tx: Transaction, workflow_id: int) -> list[str | None]:
    """Return the hosts of which no distributor was heard of for long; None among them: of no host at all.

    Nobody could be heard of while the server was away.
    """
    heard = dict(
        tx.rows("SELECT host, MAX(seen_at) FROM distributor WHERE workflow_id = :id GROUP BY host", id=workflow_id)
    )
    heard[None] = max(heard.values(), default=0)
    limit = tx.now - int(tx.settings.silence_seconds * 1e6)
    return [host for host, seen_at in heard.items() if max(seen_at, tx.started_at) < limit]


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
