"""Process reports of distributors and workers, and launch more in the same transaction: the hot path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import AttemptOver, AttemptUnknown, InvalidRequest
from jobmon.core.wire import replace
from jobmon.core.wire.launching import (
    REPORTS_PER_REQUEST_MAX,
    Report,
    SlotsGranted,
    SlotsWanted,
    SyncRequest,
    SyncResponse,
    WorkerReportRequest,
    WorkerReportResponse,
    WorkerStartRequest,
    WorkerStartResponse,
)
from jobmon.server import transitions
from jobmon.server.constructs import and_, or_, select, update
from jobmon.server.declared_files import FileHandout, missing_input
from jobmon.server.joins import ATTEMPTS_WITH_TASKS
from jobmon.server.leadership import Role, orders, role_of
from jobmon.server.lookups import ended_of
from jobmon.server.models import batch, distributor, task, task_array, task_instance, task_resources, workflow
from jobmon.server.problems import require_at_most
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import Audience
from jobmon.server.transitions import AttemptMoves, attempt_deadline
from jobmon.server.usecases import launch_problems, packing, queueing
from jobmon.server.usecases.launching import launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Select, Update

    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
PENDING_CHARACTERS_MAX: Final = 1_000

t, ti = task.c, task_instance.c


@statement
def _renew_deadlines() -> Update:
    return (
        update(task_instance)
        .values(report_by=param("deadline"))
        .where(any_of(ti.id, "ids"), ti.status.in_(transitions.TAKEN))
    )


@statement
def _ended_after() -> Select[Any]:
    """Select the ended attempts of tasks of a workflow that changed after a stamp."""
    return (
        select(ti.id)
        .join_from(task, task_instance, ti.task_id == t.id)
        .where(t.workflow_id == param("workflow"), t.status_at > param("since"), ti.status.not_in(transitions.LIVE))
    )


@statement
def _set_pending_reason() -> Update:
    return update(task_instance).values(pending_reason=param("reason")).where(ti.id == param("id"))


@statement
def _heard() -> Select[Any]:
    """Select which of some attempts have ended, or have a worker that has reached the server."""
    return select(ti.id).where(any_of(ti.id, "ids"), or_(ti.pid.is_not(None), ti.status.not_in(transitions.LIVE)))


@statement
def _set_seen_at() -> Update:
    d = distributor.c
    return (
        update(distributor)
        .values(seen_at=param("now"))
        .where(d.workflow_id == param("workflow"), d.epoch == param("epoch"), d.seen_at < param("before"))
    )


@statement
def _to_kill() -> Select[Any]:
    """Select those of the attempts that workers are running which were told to stop, or have ended nevertheless."""
    stops = or_(ti.status == TI.KILL_SELF.value, ti.status.not_in(transitions.LIVE))
    return select(ti.id).where(any_of(ti.id, "alive"), stops)


def _to_start() -> Select[Any]:
    """Return attempts with the columns that a worker needs to start them; see `_start_response`."""
    w, r = workflow.c, task_resources.c
    return select(
        *(ti.id, ti.status, t.id, t.name, t.command, t.workflow_id, ti.workflow_run_id, ti.number, r.requested),
        *(w.working_directory, w.umask, ti.host, ti.pid, t.array_id),
    ).select_from(
        ATTEMPTS_WITH_TASKS.join(workflow, w.id == t.workflow_id).join(task_resources, r.id == ti.task_resources_id)
    )


@statement
def _start_by_id() -> Select[Any]:
    return _to_start().where(ti.id == param("id"))


@statement
def _start_by_step() -> Select[Any]:
    """Select the attempt of a step of an array's batch, whose number is unique in the workflow."""
    b, a = batch.c, task_array.c
    workflow_id = select(a.workflow_id).where(a.id == param("array")).scalar_subquery()
    return (
        _to_start()
        .join(batch, and_(b.id == ti.batch_id, b.workflow_id == t.workflow_id))
        .where(
            b.workflow_id == workflow_id,
            b.array_id == param("array"),
            b.number == param("number"),
            ti.array_step_id == param("step"),
        )
    )


def sync(tx: Transaction, run_id: int, request: SyncRequest) -> SyncResponse:
    """Process reports and heartbeats; return attempts to kill, to triage and to launch. See the wire module."""
    now = role_of(tx, run_id, request.epoch)
    until = None if request.ended_since is None else tx.known_until
    moves = take_reports(tx, request.reports, request.alive)
    accepts_work = now.leads and any(count > 0 for count in request.capacity.values())
    fired = queueing.fire(tx, run_id, moves.due) if moves.due and accepts_work else []
    if now.is_fenced:
        status, unknown = now.run_status, moves.unknown
        return SyncResponse(
            workflow_run_status=status, fenced=True, late=moves.late, refused=moves.refused, unknown=unknown
        )
    _note_seen(tx, now.workflow_id, request.epoch)
    wanted = orders(tx, now)
    response = SyncResponse(
        workflow_run_status=now.run_status,
        retired=now.is_retired,
        kill=[attempt_id for attempt_id, status in wanted if status == TI.KILL_SELF] + ended_of(tx, request.alive),
        triage=[attempt_id for attempt_id, status in wanted if status == TI.TRIAGING],
        late=moves.late,
        refused=moves.refused,
        unknown=moves.unknown,
        slots={name: _all_slots(wanted) for name, wanted in request.slots.items()},
    )
    if now.is_retired:
        return response
    response = _with_work(tx, run_id, request, now, response, until)
    if not {task_id for batch in response.launches for task_id in batch.task_ids}.issuperset(fired):
        tx.wake(Audience.DISTRIBUTOR, now.workflow_id)
    return response


def _all_slots(wanted: SlotsWanted) -> SlotsGranted:
    """Grant a distributor of an earlier version, which leased cores, all of them: only agents share cores."""
    return SlotsGranted(cores=wanted.total, version=wanted.version + 1)


def _with_work(
    tx: Transaction, run_id: int, request: SyncRequest, now: Role, response: SyncResponse, until: int | None
) -> SyncResponse:
    """Add what only the leading distributor gets: attempts to launch, and the status of those on batch clusters."""
    packing.hear(tx, now.workflow_id, request)
    note_pending(tx, request.pending)
    launch_problems.note(tx, now.workflow_id, request.launch_problems)
    packed = packing.batch_status(tx, now.workflow_id, now.run_status, request.packed)
    unheard = request.unheard or request.unheard_jobs
    may_launch = request.capacity and now.run_status in transitions.QUEUING_RUNS
    return replace(
        response,
        launches=launch(tx, now.workflow_id, run_id, request, now.host) if may_launch else [],
        untaken=packed.untaken,
        over=packed.over,
        unstarted=packed.unstarted,
        ended=_ended_since(tx, now.workflow_id, request.ended_since),
        ended_until=until,
        heard=_heard_of(tx, request.unheard) if unheard else None,
        heard_jobs=packing.started_jobs(tx, now.workflow_id, request.unheard_jobs) if unheard else [],
    )


def _heard_of(tx: Transaction, ids: Sequence[int]) -> list[int]:
    require_at_most(REPORTS_PER_REQUEST_MAX, len(ids), "unheard")
    return tx.column(_heard, ids=ids) if ids else []


def take_reports(tx: Transaction, reports: Sequence[Report], alive: Sequence[int] = ()) -> AttemptMoves:
    """Apply reports, and extend the deadlines of live attempts.

    Raises:
        InvalidValue: there are more reports than allowed.
    """
    require_at_most(REPORTS_PER_REQUEST_MAX, len(reports), "reports")
    moves = AttemptMoves(tx, [report.task_instance_id for report in reports])
    if reports:
        apply_reports(tx, moves, reports)
        moves.write()
    if alive:
        _renew(tx, alive)
    return moves


def apply_reports(tx: Transaction, moves: AttemptMoves, reports: Sequence[Report], reporter: int | None = None) -> None:
    """Add reports to the changes of attempts. `reporter`: see `AttemptMoves.report`."""
    moves.report([_with_writer(tx, moves, one) if one.missing_file else one for one in reports], reporter)


def _with_writer(tx: Transaction, moves: AttemptMoves, report: Report) -> Report:
    """Return a report on a missing input that says which task writes the file, and what to do."""
    attempt = moves.attempts.get(report.task_instance_id)
    if report.cause != Cause.INPUT_MISSING or attempt is None:
        return report
    return replace(report, error=missing_input(tx, attempt.task_id, report.missing_file or ""))


def _ended_since(tx: Transaction, workflow_id: int, since: int | None) -> list[int]:
    """Return the ended attempts of tasks that changed after a stamp, regardless of the reporter."""
    return [] if since is None else tx.column(_ended_after, workflow=workflow_id, since=since)


def note_pending(tx: Transaction, reasons: Mapping[int, str]) -> None:
    """Record why attempts are pending on their clusters."""
    if not reasons:
        return
    require_at_most(REPORTS_PER_REQUEST_MAX, len(reasons), "pending")
    rows = [(reason[:PENDING_CHARACTERS_MAX], attempt_id) for attempt_id, reason in reasons.items()]
    tx.run_many(_set_pending_reason, ("reason", "id"), rows)


def _note_seen(tx: Transaction, workflow_id: int, epoch: int) -> None:
    tx.run(
        _set_seen_at,
        now=tx.now,
        workflow=workflow_id,
        epoch=epoch,
        before=tx.now - int(transitions.SEEN_SECONDS * 1e6),
    )


def worker_reports(tx: Transaction, requests: Sequence[WorkerReportRequest]) -> list[WorkerReportResponse]:
    """Process what stand-alone workers report; return to each which of its attempts must stop.

    These include attempts that were already declared lost, whose task may have been retried.
    """
    ids = [_ids_of(request) for request in requests]
    answers: list[WorkerReportResponse] = []
    first, size = 0, 0
    for after, some in enumerate(ids, start=1):
        size += len(some)
        if size >= REPORTS_PER_REQUEST_MAX or after == len(ids):
            answers += _worker_reports(tx, requests[first:after])
            first, size = after, 0
    return answers


def _ids_of(request: WorkerReportRequest) -> set[int]:
    ids = {report.task_instance_id for report in request.reports}.union(request.alive)
    require_at_most(REPORTS_PER_REQUEST_MAX, len(ids), "reports")
    return ids


def _worker_reports(tx: Transaction, requests: Sequence[WorkerReportRequest]) -> list[WorkerReportResponse]:
    moves = AttemptMoves(tx, [report.task_instance_id for request in requests for report in request.reports])
    answers = []
    for request in requests:
        moves.refused, moves.unknown = {}, []
        apply_reports(tx, moves, request.reports)
        told = (moves.attempts.get(report.task_instance_id) for report in request.reports)
        kill = {attempt.id for attempt in told if attempt is not None and attempt.status == TI.KILL_SELF}
        answers.append(WorkerReportResponse(kill=sorted(kill), refused=moves.refused, unknown=moves.unknown))
    moves.write()
    for request in requests:
        note_pending(tx, request.pending)
    if alive := [attempt_id for request in requests for attempt_id in request.alive]:
        _renew(tx, alive)
        kill = set(tx.column(_to_kill, alive=alive))
        for request, answer in zip(requests, answers, strict=True):
            answer.kill.extend(one for one in request.alive if one in kill and one not in answer.kill)
    return answers


def _renew(tx: Transaction, alive: Sequence[int]) -> None:
    """Extend the deadlines of live attempts."""
    tx.run(_renew_deadlines, deadline=attempt_deadline(tx), ids=alive)


def worker_start(tx: Transaction, request: WorkerStartRequest) -> WorkerStartResponse:
    """Give a stand-alone worker its command, and record the attempt as running.

    Raises:
        InvalidRequest: another worker has started the attempt, or it was never launched.
        AttemptOver: the attempt is to be killed or has ended.
        AttemptUnknown: the attempt does not exist.
    """
    row = _find_start(tx, request)
    attempt_id, status, host, pid = row[0], row[1], row[11], row[12]
    if pid is not None and (host, pid) != (request.host, request.pid):
        raise InvalidRequest(f"Attempt {attempt_id} was already started by process {pid} on {host}.")
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
            over = status == TI.KILL_SELF or fsm.is_terminal(fsm.Machine.TASK_INSTANCE, status)
            raise (AttemptOver if over else InvalidRequest)(
                f"Attempt {attempt_id} has status {status}; it must not be started."
            )
        moves.write()
    return _start_response(tx, row)


def _find_start(tx: Transaction, request: WorkerStartRequest) -> tuple[Any, ...]:
    if request.task_instance_id is not None:
        what = f"attempt {request.task_instance_id}"
        row = tx.row(_start_by_id, id=request.task_instance_id)
    else:
        what = f"step {request.array_step_id} of batch {request.batch_number} of array {request.array_id}"
        row = tx.row(
            _start_by_step,
            array=request.array_id,
            number=request.batch_number,
            step=request.array_step_id,
        )
    if row is None:
        raise AttemptUnknown(f"There is no {what}.")
    return row


def _start_response(tx: Transaction, row: Sequence[Any]) -> WorkerStartResponse:
    files = FileHandout(tx)
    files.learn([(row[0], row[2], row[13])])
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
        files=files.of.get(row[0]),
    )
