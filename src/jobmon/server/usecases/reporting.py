"""The hot conversation: distributors and workers report how attempts fare; in the same transaction they get more."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire.launching import (
    REPORTS_PER_REQUEST_MAX,
    Report,
    SyncRequest,
    SyncResponse,
    WorkerReportRequest,
    WorkerReportResponse,
    WorkerStartRequest,
    WorkerStartResponse,
)
from jobmon.server import transitions
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.standing import Standing, orders, standing
from jobmon.server.transitions import AttemptMoves, attempt_deadline
from jobmon.server.usecases import leasing, packing
from jobmon.server.usecases.launching import launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
#: When a distributor was last seen is recorded this exactly, not at every request.
SEEN_SECONDS: Final = 5.0
PENDING_CHARACTERS_MAX: Final = 1_000


def sync(tx: Transaction, run_id: int, request: SyncRequest) -> SyncResponse:
    """Take reports and heartbeats; tell what to kill and to triage; hand out attempts. See the wire module."""
    if len(request.reports) > REPORTS_PER_REQUEST_MAX:
        raise InvalidValue(f"reports: at most {REPORTS_PER_REQUEST_MAX} in one request.")
    now = standing(tx, run_id, request.epoch)
    until = None if request.ended_since is None else tx.known_until
    moves = _take(tx, request.reports, request.alive)
    if now.is_fenced:
        return SyncResponse(workflow_run_status=now.run_status, fenced=True, late=moves.late, refused=moves.refused)
    _note_seen(tx, now.workflow_id, request.epoch)
    wanted = orders(tx, now)
    response = SyncResponse(
        workflow_run_status=now.run_status,
        retired=now.is_retired,
        kill=[attempt_id for attempt_id, status in wanted if status == TI.KILL_SELF] + _ended(tx, request.alive),
        triage=[attempt_id for attempt_id, status in wanted if status == TI.TRIAGING],
        late=moves.late,
        refused=moves.refused,
        slots=leasing.renew(tx, now.workflow_id, request.slots, is_over=_is_over(now)),
    )
    return response if now.is_retired else _with_work(tx, run_id, request, now, response, until)


def _is_over(now: Standing) -> bool:
    """Whether nothing more of the workflow will be started; what a retired distributor has says nothing of that."""
    return now.leads and now.run_status in transitions.FINAL_RUNS


def _with_work(
    tx: Transaction, run_id: int, request: SyncRequest, now: Standing, response: SyncResponse, until: int | None
) -> SyncResponse:
    """Add what only the one distributor of a workflow gets: attempts, and news of those on clusters with queues."""
    packing.hear(tx, now.workflow_id, request)
    _note_pending(tx, request.pending)
    packed = packing.standing(tx, now.workflow_id, now.run_status, request.packed)
    may_launch = request.capacity and now.run_status in transitions.QUEUING_RUNS
    return replace(
        response,
        launches=launch(tx, now.workflow_id, run_id, request, now.host) if may_launch else [],
        untaken=packed.untaken,
        over=packed.over,
        unstarted=packed.unstarted,
        ended=_ended_since(tx, now.workflow_id, request.ended_since),
        ended_until=until,
    )


def _take(tx: Transaction, reports: Sequence[Report], alive: Sequence[int]) -> AttemptMoves:
    """Apply reports, and move the deadlines of those who live."""
    moves = AttemptMoves(tx, [report.task_instance_id for report in reports])
    if reports:
        moves.report(reports)
        moves.write()
    if alive:
        tx.run(
            "UPDATE task_instance SET report_by = :deadline WHERE id IN (:ids...) AND status IN (:taken...)",
            deadline=attempt_deadline(tx),
            ids=alive,
            taken=transitions.TAKEN,
        )
    return moves


def _ended(tx: Transaction, alive: Sequence[int]) -> list[int]:
    """Return those that live though they count as ended: their tasks may run again, so these have to stop."""
    if not alive:
        return []
    return tx.column(
        "SELECT id FROM task_instance WHERE id IN (:ids...) AND status NOT IN (:live...)",
        ids=alive,
        live=transitions.LIVE,
    )


def _ended_since(tx: Transaction, workflow_id: int, since: int | None) -> list[int]:
    """Return the attempts that ended, whoever told it, of tasks that changed after a stamp."""
    if since is None:
        return []
    return tx.column(
        """
        SELECT ti.id FROM task t JOIN task_instance ti ON ti.task_id = t.id
        WHERE t.workflow_id = :workflow AND t.status_at > :since AND ti.status NOT IN (:live...)
        """,
        workflow=workflow_id,
        since=since,
        live=transitions.LIVE,
    )


def _note_pending(tx: Transaction, reasons: Mapping[int, str]) -> None:
    """Keep why attempts wait on their clusters."""
    if len(reasons) > REPORTS_PER_REQUEST_MAX:
        raise InvalidValue(f"pending: at most {REPORTS_PER_REQUEST_MAX} in one request.")
    if reasons:
        tx.run_many(
            "UPDATE task_instance SET pending_reason = ? WHERE id = ?",
            [(reason[:PENDING_CHARACTERS_MAX], attempt_id) for attempt_id, reason in reasons.items()],
        )


def _note_seen(tx: Transaction, workflow_id: int, epoch: int) -> None:
    tx.run(
        "UPDATE distributor SET seen_at = :now WHERE workflow_id = :workflow AND epoch = :epoch AND seen_at < :before",
        now=tx.now,
        workflow=workflow_id,
        epoch=epoch,
        before=tx.now - int(SEEN_SECONDS * 1e6),
    )


def worker_report(tx: Transaction, request: WorkerReportRequest) -> WorkerReportResponse:
    """Take what a stand-alone worker says; tell it which of its attempts shall end.

    That is also what was given up while the worker was silent: its task may be at its next attempt.
    """
    ids = sorted({report.task_instance_id for report in request.reports} | set(request.alive))
    if len(ids) > REPORTS_PER_REQUEST_MAX:
        raise InvalidValue(f"reports: at most {REPORTS_PER_REQUEST_MAX} in one request.")
    _take(tx, request.reports, request.alive)
    return WorkerReportResponse(
        kill=tx.column(
            """
            SELECT id FROM task_instance
            WHERE id IN (:ids...) AND status = :kill OR id IN (:alive...) AND status NOT IN (:live...)
            """,
            ids=ids,
            kill=TI.KILL_SELF.value,
            alive=request.alive,
            live=transitions.LIVE,
        )
    )


_START: Final = """
SELECT ti.id, ti.status, t.id, t.name, t.command, t.workflow_id, ti.workflow_run_id, ti.number, r.requested,
       w.working_directory, w.umask, ti.host, ti.pid
FROM task_instance ti JOIN task t ON t.id = ti.task_id JOIN workflow w ON w.id = t.workflow_id
JOIN task_resources r ON r.id = ti.task_resources_id
"""


def worker_start(tx: Transaction, request: WorkerStartRequest) -> WorkerStartResponse:
    """Give a stand-alone worker its command, and note that it runs.

    Raises:
        InvalidRequest: the attempt is to be killed, has ended, was never launched, or another worker has started it.
        NotFound: there is no such attempt.
    """
    row = _find_start(tx, request)
    attempt_id, status, host, pid = row[0], row[1], row[11], row[12]
    if pid is not None and (host, pid) != (request.host, request.pid):
        raise InvalidRequest(f"Attempt {attempt_id} was started by process {pid} on {host} already.")
    moves = AttemptMoves(tx, [attempt_id])
    if status != TI.RUNNING:
        report = Report(
            task_instance_id=attempt_id,
            status=TI.RUNNING.value,
            distributor_id=request.distributor_id,
            host=request.host,
            pid=request.pid,
            started_at=request.started_at,
        )
        moves.report([report])
        if moves.late or moves.refused:
            raise InvalidRequest(f"Attempt {attempt_id} is in state {status}: it shall not be started.")
        moves.write()
    return _start_response(tx, row)


def _find_start(tx: Transaction, request: WorkerStartRequest) -> tuple[Any, ...]:
    if request.task_instance_id is not None:
        what = f"attempt {request.task_instance_id}"
        row = tx.row(_START + "WHERE ti.id = :id", id=request.task_instance_id)
    else:
        what = f"step {request.array_step_id} of batch {request.batch_number} of array {request.array_id}"
        row = tx.row(
            _START
            + """JOIN batch b ON b.id = ti.batch_id AND b.workflow_id = t.workflow_id
            WHERE b.workflow_id = (SELECT workflow_id FROM task_array WHERE id = :array)
            AND b.array_id = :array AND b.number = :number AND ti.array_step_id = :step""",
            array=request.array_id,
            number=request.batch_number,
            step=request.array_step_id,
        )
    if row is None:
        raise NotFound(f"There is no {what}.")
    return row


def _start_response(tx: Transaction, row: Sequence[Any]) -> WorkerStartResponse:
    return WorkerStartResponse(
        task_instance_id=row[0],
        task_id=row[2],
        task_name=row[3],
        command=row[4],
        workflow_id=row[5],
        workflow_run_id=row[6],
        attempt=row[7],
        requested_resources=json.loads(row[8]),
        working_directory=row[9],
        umask=row[10],
        heartbeat_interval=tx.settings.task_instance_interval_seconds,
        report_by_buffer=tx.settings.report_by_buffer,
    )
