"""Judge attempts whose heartbeats stopped: close LAUNCHED ones, and send the others to the distributor for triage.

An attempt is an *orphan* if every distributor responsible for it has been silent for `Settings.silence_seconds`:
its executor counts as gone, and it ends uncharged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, Cause, TaskInstanceStatus
from jobmon.core.wire.run import TriageResponse
from jobmon.server import transitions
from jobmon.server.constructs import func, or_, select
from jobmon.server.models import batch, distributor, packed_batch, task_instance, workflow_run
from jobmon.server.sql import any_of, param, statement, statements
from jobmon.server.usecases.runs import require_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select

    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions import RunRow

#: Maximum number of orphans that are ended at once; the others follow in the next pass.
ORPHANS_MAX: Final = 2_000
TI = TaskInstanceStatus

ti = task_instance.c


@statement
def _host_of_run() -> Select[Any]:
    return select(workflow_run.c.host).where(workflow_run.c.id == param("run"))


@statements
def _orphans(anywhere: bool) -> Select[Any]:
    """Select the overdue attempts of a run on some hosts; `anywhere`: also those of clusters visible to any host."""
    b = batch.c
    on_hosts = any_of(b.host, "hosts")
    return (
        select(ti.id, ti.status)
        .join_from(task_instance, batch, b.id == ti.batch_id)
        .where(
            ti.workflow_run_id == param("run"),
            ti.status.in_(transitions.TAKEN),
            ti.report_by < param("now"),
            or_(on_hosts, b.host.is_(None)) if anywhere else on_hosts,
        )
        .order_by(ti.id)
        .limit(param("most"))
    )


@statement
def _last_seen() -> Select[Any]:
    """Select when a distributor of a workflow was last seen, by host."""
    d = distributor.c
    return select(d.host, func.max(d.seen_at)).where(d.workflow_id == param("workflow")).group_by(d.host)


@statement
def _overdue_attempts() -> Select[Any]:
    return select(ti.id).where(
        ti.workflow_run_id == param("run"), any_of(ti.status, "statuses"), ti.report_by < param("now")
    )


@statement
def _packed_attempts() -> Select[Any]:
    p = packed_batch.c
    return select(ti.id).join_from(task_instance, packed_batch, p.batch_id == ti.batch_id).where(any_of(ti.id, "ids"))


def triage(tx: Transaction, run_id: int) -> TriageResponse:
    """Judge the overdue attempts of a run. No attempt is overdue during the server's grace period after a start.

    Orphans on other hosts are ended, but not on the host of an active run: after a network failure its client may
    report before its distributor does.
    """
    run = require_run(tx, run_id)
    grace = tx.started_at + int(tx.settings.attempt_deadline_seconds * 1e6)
    if tx.now <= grace:
        return TriageResponse(triaging=0, no_heartbeat=0)
    is_over = run.status in transitions.FINAL_RUNS
    own = None if is_over else tx.value(_host_of_run, run=run_id)
    end_orphans(tx, run, [host for host in _silent_hosts(tx, run.workflow_id) if host not in (None, own)])
    # INSTANTIATED attempts also have heartbeats while they wait to start, unless the response with them was lost
    doubted, silent = _overdue(tx, run_id, fsm.TRIAGED_WHEN_OVERDUE), _overdue(tx, run_id, (TI.LAUNCHED,))
    packed = _packed(tx, silent)  # these wait in, or for, a job that they share with others, so they are not charged
    transitions.move_all(tx, sorted(packed), TI.UNKNOWN_ERROR, Cause.WORKER_LOST)
    silent = [one for one in silent if one not in packed]
    return TriageResponse(
        triaging=transitions.move_all(tx, doubted, TI.TRIAGING, None),
        no_heartbeat=transitions.move_all(tx, silent, TI.NO_HEARTBEAT, Cause.NO_HEARTBEAT),
    )


def end_all_orphans(tx: Transaction, run: RunRow) -> int:
    """End the orphans of a run on all hosts; return how many."""
    return end_orphans(tx, run, _silent_hosts(tx, run.workflow_id))


def end_orphans(tx: Transaction, run: RunRow, hosts: Sequence[str | None]) -> int:
    """End the overdue attempts of a run on these hosts (None: of clusters visible to any host); return how many."""
    if not hosts:
        return 0
    named = [host for host in hosts if host is not None]
    rows = tx.rows(_orphans(None in hosts), run=run.id, now=tx.now, hosts=named, most=ORPHANS_MAX)
    moves = transitions.AttemptMoves(tx, [attempt_id for attempt_id, _ in rows])
    for attempt_id, status in rows:
        moves.move(attempt_id, TI.ERROR if status == TI.KILL_SELF else TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST)
    ended = moves.write()
    if ended:
        tx.audit(Actor.REAPER, "close orphaned attempts", run.workflow_id, run=run.id, ended=ended)
        tx.wake_all(run.workflow_id)
    return ended


def _silent_hosts(tx: Transaction, workflow_id: int) -> list[str | None]:
    """Return the hosts whose distributors are all silent, including None if the distributors of all hosts are.

    A distributor counts as seen when the server started: it could not reach the server before.
    """
    heard = dict(tx.rows(_last_seen, workflow=workflow_id))
    heard[None] = max(heard.values(), default=0)
    limit = tx.now - int(tx.settings.silence_seconds * 1e6)
    return [host for host, seen_at in heard.items() if max(seen_at, tx.started_at) < limit]


def _overdue(tx: Transaction, run_id: int, statuses: Sequence[TI]) -> list[int]:
    return tx.column(_overdue_attempts, run=run_id, statuses=statuses, now=tx.now)


def _packed(tx: Transaction, ids: Sequence[int]) -> set[int]:
    return set(tx.column(_packed_attempts, ids=ids)) if ids else set()
