"""Answer a packed job: record its reports, give it attempts, and list the ones to terminate.

An attempt that a job starts at once is RUNNING; a prefetched one is LAUNCHED until the job reports it RUNNING. One
guarded UPDATE assigns attempts to a job and returns those it changed, so that two jobs never get the same attempt.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.packing import Mode
from jobmon.core.wire.launching import (
    EndedJob,
    PackedJob,
    WorkerTakeRequest,
    WorkerTakeResponse,
    WorkerTasks,
)
from jobmon.server import transitions
from jobmon.server.constructs import select, update
from jobmon.server.declared_files import AnswerRoom, FileHandout
from jobmon.server.lookups import newest_run_of
from jobmon.server.models import packed_job, task_instance, task_resources, workflow
from jobmon.server.packed import is_named, no_such_batch, open_pilots, queued, to_kill
from jobmon.server.problems import InvalidValue
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import to_json
from jobmon.server.transitions import AttemptMoves, attempt_deadline
from jobmon.server.usecases.launching import attempts_to_hand_out, columns_of
from jobmon.server.usecases.packed_batches import (
    JOB_COLUMNS,
    BatchRow,
    JobRow,
    batch_rows,
    end_job,
    next_steps,
    record_taken,
    require_batch,
)
from jobmon.server.usecases.reporting import note_pending, take_reports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select, Update
    from sqlalchemy.sql.dml import ReturningUpdate

    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
#: Maximum number of attempts that a job gets at once.
TASKS_PER_TAKE_MAX: Final = 1_000

j, ti = packed_job.c, task_instance.c


@statement
def _batch_named() -> Select[Any]:
    return batch_rows().where(*is_named())


@statement
def _job_of_batch() -> Select[Any]:
    return select(*JOB_COLUMNS).where(j.batch_id == param("batch"), j.distributor_id == param("job"))


@statement
def _start_job() -> Update:
    return update(packed_job).values(started_at=param("now"), host=param("host")).where(j.id == param("id"))


@statement
def _still_taken() -> Select[Any]:
    return select(ti.id).where(any_of(ti.id, "ids"), any_of(ti.status, "taken"))


@statement
def _record_answer() -> Update:
    return update(packed_job).values(request_key=param("key"), handed_out=param("answer")).where(j.id == param("id"))


@statement
def _claim() -> ReturningUpdate[Any]:
    """Assign attempts to a job, unless they are assigned already; return the assigned ones."""
    return (
        update(task_instance)
        .values(distributor_id=param("job"), host=param("host"), report_by=param("deadline"))
        .where(any_of(ti.id, "ids"), ti.distributor_id.is_(None), any_of(ti.status, "untaken"))
        .returning(ti.id)
    )


@statement
def _request_and_folder() -> Select[Any]:
    r, w = task_resources.c, workflow.c
    return (
        select(r.requested, w.working_directory, w.umask)
        .join_from(task_resources, workflow, w.id == param("workflow"))
        .where(r.id == param("resources"))
    )


def take(tx: Transaction, request: WorkerTakeRequest) -> WorkerTakeResponse:
    """Record a job's reports, tell it which attempts to terminate, and give it work. See the wire module.

    Raises:
        NotFound: the batch does not exist, or it is not packed.
        InvalidValue: there are more reports than allowed, or the ID of the job is missing.
    """
    if not request.distributor_id:
        raise InvalidValue("distributor_id: a packed job must send the ID that its cluster assigned to it.")
    batch = _batch_of(tx, request)
    job = _job(tx, batch.id, request.distributor_id, request.host)
    moves = take_reports(tx, request.reports, request.alive)
    note_pending(tx, request.pending)
    if job.ended_at is not None:  # it was found gone, and its attempts were given to others
        return _answer(tx, batch, [], moves, FileHandout(tx), kill=list(request.alive), over=True)
    if request.leaving:
        end_job(tx, batch, job, EndedJob(distributor_id=job.distributor_id, status=TI.UNKNOWN_ERROR.value))
        return _answer(tx, batch, [], moves, FileHandout(tx), over=True)
    ids, files = _replayed(tx, job, request.key), FileHandout(tx)
    if ids is None:
        ids = _hand_out(tx, batch, job, request, AnswerRoom(files))
    kill = to_kill(tx, batch.workflow_id, job.distributor_id, request.alive)
    return _answer(tx, batch, ids, moves, files, kill=kill, over=_is_over(tx, batch))


def _batch_of(tx: Transaction, request: WorkerTakeRequest) -> BatchRow:
    row = tx.row(_batch_named, array=request.array_id, number=request.batch_number)
    if row is None:
        raise no_such_batch(request)
    return BatchRow(*row)


def _job(tx: Transaction, batch_id: int, distributor_id: str, host: str) -> JobRow:
    """Return a job, recording that it has started, possibly before its distributor reported it."""
    row = tx.row(_job_of_batch, batch=batch_id, job=distributor_id)
    if row is None:
        tx.add(packed_job, batch_id=batch_id, distributor_id=distributor_id, host=host, started_at=tx.now)
    elif row[2] is None:
        tx.run(_start_job, now=tx.now, host=host, id=row[0])
    else:
        return JobRow(*row)
    row = tx.row(_job_of_batch, batch=batch_id, job=distributor_id)
    assert row is not None
    return JobRow(*row)


def _replayed(tx: Transaction, job: JobRow, key: str) -> list[int] | None:
    """Return the live attempts that an earlier copy of the request received; None if the request is new.

    A delayed duplicate gets nothing; the job has already sent a newer request.
    """
    if key and _number_of(key) < _number_of(job.request_key):
        return []
    if not key or job.request_key != key:
        return None
    ids = json.loads(job.handed_out or "[]")
    live = set(tx.column(_still_taken, ids=ids, taken=transitions.TAKEN))
    return [one for one in ids if one in live]


def _number_of(key: str | None) -> float:
    """Return the number before the colon of a key; a key without one counts as newer than all others."""
    number, colon, _ = (key or "").partition(":")
    return int(number) if colon and number.isdecimal() else math.inf if key else -math.inf


def _hand_out(tx: Transaction, batch: BatchRow, job: JobRow, request: WorkerTakeRequest, room: AnswerRoom) -> list[int]:
    now, ahead = max(0, request.capacity), max(0, request.ahead)
    wanted = min(now + ahead, TASKS_PER_TAKE_MAX)
    chosen = _choose(tx, batch, wanted, room) if wanted else []
    ids = _give(tx, chosen, now, job.distributor_id, request.host) if chosen else []
    if ids or request.key:
        tx.run(_record_answer, key=request.key, answer=to_json(ids), id=job.id)
    return ids


def _choose(tx: Transaction, batch: BatchRow, wanted: int, room: AnswerRoom) -> list[int]:
    """Choose attempts of the batch for a job; a pilot continues with other batches of its kind, then with the queue."""
    ids = next_steps(tx, batch, wanted, room)
    if batch.mode != Mode.PILOT or len(ids) == wanted:
        return ids
    for other in open_pilots(tx, batch.workflow_id, batch.array_id, batch.task_resources_id):
        if len(ids) < wanted:
            ids += next_steps(tx, require_batch(tx, other), wanted - len(ids), room)
    if len(ids) < wanted:
        ids += _from_queue(tx, batch, wanted - len(ids), room)
    return ids


def _from_queue(tx: Transaction, batch: BatchRow, wanted: int, room: AnswerRoom) -> list[int]:
    """Launch queued attempts that no distributor has launched yet, as additional steps of the batch."""
    run_id, run_status = newest_run_of(tx, batch.workflow_id)
    if run_status not in transitions.QUEUING_RUNS:
        return []
    found = queued(tx, run_id, batch.array_id, batch.task_resources_id, wanted)
    ids = [row[0] for row in room.admit(found)]
    if not ids:
        return []
    transitions.launch(tx, batch.id, ids, first_step=batch.size)
    batch.size += len(ids)
    batch.taken = batch.size
    record_taken(tx, batch)
    return ids


def _give(tx: Transaction, chosen: Sequence[int], now: int, distributor_id: str, host: str) -> list[int]:
    """Assign attempts to a job, which starts the first `now` of them at once; return the assigned ones in order."""
    claimed = set(
        tx.column(
            _claim,
            ids=chosen,
            job=distributor_id,
            host=host,
            deadline=attempt_deadline(tx),
            untaken=fsm.UNSTARTED,
        )
    )
    ids = [one for one in chosen if one in claimed]
    moves = AttemptMoves(tx, ids)
    for place, attempt_id in enumerate(ids):
        if place < now:
            moves.move(attempt_id, TI.RUNNING)
        elif moves.attempts[attempt_id].status == TI.INSTANTIATED:
            moves.move(attempt_id, TI.LAUNCHED)
    moves.write()
    return ids


def _is_over(tx: Transaction, batch: BatchRow) -> bool:
    if batch.taken < batch.size:
        return False
    if batch.mode != Mode.PILOT:
        return True
    if newest_run_of(tx, batch.workflow_id)[1] in transitions.QUEUING_RUNS:
        return False
    return not open_pilots(tx, batch.workflow_id, batch.array_id, batch.task_resources_id)


def _answer(
    tx: Transaction,
    batch: BatchRow,
    ids: Sequence[int],
    moves: AttemptMoves,
    files: FileHandout,
    *,
    kill: list[int] | None = None,
    over: bool = False,
) -> WorkerTakeResponse:
    row = tx.row(_request_and_folder, resources=batch.task_resources_id, workflow=batch.workflow_id)
    assert row is not None
    job = PackedJob(
        mode=batch.mode,
        width=batch.width,
        runtime_seconds=batch.runtime_seconds,
        workflow_id=batch.workflow_id,
        workflow_run_id=newest_run_of(tx, batch.workflow_id)[0],
        requested_resources=json.loads(row[0]),
        working_directory=row[1],
        umask=row[2],
        heartbeat_interval=tx.settings.task_instance_interval_seconds,
        report_by_buffer=tx.settings.report_by_buffer,
    )
    tasks, refused, unknown = _tasks(tx, ids, files), moves.refused, moves.unknown
    return WorkerTakeResponse(job=job, tasks=tasks, kill=kill or [], refused=refused, unknown=unknown, over=over)


def _tasks(tx: Transaction, ids: Sequence[int], files: FileHandout) -> WorkerTasks:
    rows = {row[0]: row for row in attempts_to_hand_out(tx, ids)}
    ordered = [rows[one] for one in ids]
    return WorkerTasks(**columns_of(ordered), files=files.handed_out(ordered))
