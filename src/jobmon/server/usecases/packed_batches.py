"""The rows of packed batches and their jobs, the next steps of a batch, and what happens when a job ends.

A packed batch hands out its attempts in the order of their steps; the attempts before `taken` belong, or belonged, to
the job whose ID they carry. When a job has ended, the attempts that it was running end with the cause of the job's end,
and its prefetched ones are declared lost, which is not charged. When no job is left that could take the remaining
attempts, these are declared lost as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm, retry
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.packing import Mode
from jobmon.core.wire import replace
from jobmon.core.wire.launching import EndedJob, Report
from jobmon.server import transitions
from jobmon.server.constructs import func, select, update
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, ATTEMPTS_WITH_TASKS, PACKED_BATCHES
from jobmon.server.models import batch, packed_batch, packed_job, task, task_instance, workflow_run
from jobmon.server.packed import open_pilots
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import Audience
from jobmon.server.transitions import AttemptMoves

if TYPE_CHECKING:
    from sqlalchemy import Select, Update

    from jobmon.server.declared_files import AnswerRoom
    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
#: An attempt that ran for this share of its job is considered to have had the job's whole time.
WHOLE_TIME_SHARE: Final = 0.9
JOB_GONE: Final = "Its job ended without reporting its outcome."
NO_JOB_LEFT: Final = "No job remains to run it."
NOT_BEGUN: Final = "Its job ended before it started."

b, p, j, ti = batch.c, packed_batch.c, packed_job.c, task_instance.c


@dataclass(slots=True)
class BatchRow:
    """A packed batch; changed in memory before it is written."""

    id: int
    workflow_id: int
    array_id: int
    task_resources_id: int
    mode: str
    width: int
    runtime_seconds: float | None
    size: int
    taken: int
    submitted: bool
    number: int


@dataclass(slots=True)
class JobRow:
    """A job of a packed batch."""

    id: int
    distributor_id: str
    started_at: int | None
    ended_at: int | None
    request_key: str | None
    handed_out: str | None


def batch_rows() -> Select[Any]:
    """Return a selection of packed batches; see `BatchRow`."""
    return select(
        *(b.id, b.workflow_id, b.array_id, b.task_resources_id, p.mode, p.width, p.runtime_seconds, p.size, p.taken),
        *(p.submitted, b.number),
    ).select_from(PACKED_BATCHES)


#: The columns of `JobRow`.
JOB_COLUMNS: Final = (j.id, j.distributor_id, j.started_at, j.ended_at, j.request_key, j.handed_out)


@statement
def _count_live_pilots() -> Select[Any]:
    return (
        select(func.count())
        .select_from(PACKED_BATCHES.join(packed_job, j.batch_id == b.id))
        .where(
            p.workflow_id == param("workflow"),
            p.mode == param("mode"),
            b.array_id == param("array"),
            b.task_resources_id == param("resources"),
            j.ended_at.is_(None),
            p.submitted,
        )
    )


@statement
def _batch_with_id() -> Select[Any]:
    return batch_rows().where(p.batch_id == param("id"))


@statement
def _untaken_steps() -> Select[Any]:
    return (
        select(ti.id, ti.task_id, task.c.array_id, func.length(task.c.command), ti.array_step_id)
        .select_from(ATTEMPTS_WITH_TASKS)
        .where(ti.batch_id == param("batch"), ti.array_step_id >= param("taken"), any_of(ti.status, "untaken"))
        .order_by(ti.array_step_id)
        .limit(param("count"))
    )


@statement
def _record_taken() -> Update:
    return update(packed_batch).values(size=param("size"), taken=param("taken")).where(p.batch_id == param("id"))


@statement
def _close_job() -> Update:
    return update(packed_job).values(ended_at=param("now")).where(j.id == param("id"))


@statement
def _attempts_of_job() -> Select[Any]:
    return (
        select(ti.id, ti.status, ti.started_at)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(
            workflow_run.c.workflow_id == param("workflow"),
            any_of(ti.status, "taken"),
            ti.distributor_id == param("job"),
        )
        .order_by(ti.id)
    )


@statement
def _live_job_of_batch() -> Select[Any]:
    return select(j.id).where(j.batch_id == param("id"), j.ended_at.is_(None)).limit(1)


def count_live_pilots(tx: Transaction, workflow_id: int, array_id: int, resources_id: int) -> int:
    """Count the jobs that take work of an array and resource request, regardless of their batch.

    Jobs of a rejected submission are excluded: no distributor tracks them, so they would never be marked ended.
    """
    return int(
        tx.value(
            _count_live_pilots, workflow=workflow_id, mode=Mode.PILOT.value, array=array_id, resources=resources_id
        )
    )


def require_batch(tx: Transaction, batch_id: int) -> BatchRow:
    """Return an existing packed batch."""
    row = tx.row(_batch_with_id, id=batch_id)
    assert row is not None
    return BatchRow(*row)


def record_taken(tx: Transaction, batch: BatchRow) -> None:
    """Record how many steps a batch has, and how many of them were handed out."""
    tx.run(_record_taken, size=batch.size, taken=batch.taken, id=batch.id)


def next_steps(tx: Transaction, batch: BatchRow, wanted: int, room: AnswerRoom | None = None) -> list[int]:
    """Take the next steps of a batch.

    Args:
        tx: the transaction.
        batch: changed in place, and recorded.
        wanted: the maximum number of attempts to take.
        room: the space left for commands and files in the response; None: they are not sent.

    Returns:
        The IDs of their attempts, in the order of the steps.
    """
    if batch.taken >= batch.size:
        return []
    found = tx.rows(_untaken_steps, batch=batch.id, taken=batch.taken, untaken=fsm.UNSTARTED, count=wanted)
    rows = found if room is None else room.admit(found)
    if found and not rows:
        return []
    batch.taken = rows[-1][4] + 1 if len(rows) == wanted or len(rows) < len(found) else batch.size
    record_taken(tx, batch)
    if batch.taken >= batch.size:
        tx.wake(Audience.DISTRIBUTOR, batch.workflow_id)  # there is space for more
    return [row[0] for row in rows]


def end_job(tx: Transaction, batch: BatchRow, job: JobRow, ended: EndedJob) -> None:
    """Close a finished job: end its attempts, and any no remaining job can take."""
    if job.ended_at is None:
        tx.run(_close_job, now=tx.now, id=job.id)
    rows = tx.rows(_attempts_of_job, workflow=batch.workflow_id, taken=transitions.TAKEN, job=job.distributor_id)
    moves = AttemptMoves(tx, [row[0] for row in rows])
    for attempt_id, status, started_at in rows:
        if status in fsm.UNSTARTED:
            target, cause, error = _left(ended, NOT_BEGUN)
        else:
            target, cause, error = _blame(ended, _share_of_job(tx.now, started_at, job.started_at))
        moves.move(
            attempt_id,
            target,
            Report(task_instance_id=attempt_id, status=target.value, cause=cause.value, error=error),
        )
    moves.write()
    settle_untaken(tx, batch, replace(ended, cause=_cause_of_idle(ended)) if job.started_at is None else ended)


def _cause_of_idle(ended: EndedJob) -> str | None:
    """Return why a job ended whose worker never reached the server."""
    is_failure = ended.status in fsm.BLAMED
    return retry.cause_without_worker(ended.cause, ended.exit_code) if is_failure else ended.cause


def _share_of_job(now: int, started_at: int | None, job_started_at: int | None) -> float:
    if started_at is None or job_started_at is None or now <= job_started_at:
        return 0.0
    return (now - started_at) / (now - job_started_at)


def _blame(ended: EndedJob, share: float) -> tuple[TI, Cause, str]:
    """Return the outcome of an attempt whose job has ended; only what the task itself caused is charged.

    Memory: charge every running attempt. Time: charge only those that had (nearly) all of it. If the job failed for
    another reason, or succeeded with commands still running, its worker is at fault.
    """
    error = ended.error or JOB_GONE
    if ended.status == TI.ERROR_FATAL:
        return TI.ERROR_FATAL, Cause.KILLED, error
    if ended.cause == Cause.OUT_OF_MEMORY:
        return TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, error
    if ended.cause == Cause.OUT_OF_TIME and share >= WHOLE_TIME_SHARE:
        return TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, error
    if ended.cause in (Cause.NODE_FAILURE, Cause.PREEMPTED, Cause.REQUEUED):
        return TI.UNKNOWN_ERROR, Cause(ended.cause), error
    if ended.cause == Cause.KILLED:
        return TI.ERROR, Cause.KILLED, error
    return TI.UNKNOWN_ERROR, Cause.WORKER_LOST, error


def _left(ended: EndedJob | None, what: str) -> tuple[TI, Cause, str]:
    """Return the outcome of an attempt that no job has started or will start.

    Args:
        ended: the job that should have run it, or the last job that could have; None: unknown.
        what: what happened to it, a sentence.
    """
    if ended is not None and ended.status == TI.ERROR_FATAL:
        return TI.ERROR_FATAL, Cause.KILLED, f"{what} {ended.error or JOB_GONE}"
    if ended is not None and ended.cause in (Cause.NEVER_CONNECTED, Cause.NO_PYTHON):
        return TI.ERROR, Cause(ended.cause), f"{ended.cause}: {ended.error or JOB_GONE}"
    return TI.UNKNOWN_ERROR, Cause.WORKER_LOST, what


def settle_untaken(tx: Transaction, batch: BatchRow, ended: EndedJob | None = None) -> None:
    """End the untaken attempts of a submitted batch if no job is left to take them.

    Args:
        tx: the transaction.
        batch: the batch.
        ended: the job that has just ended; None: none.
    """
    if batch.mode != Mode.PILOT:
        live = tx.value(_live_job_of_batch, id=batch.id)
        batches = [batch.id]
    else:
        live = count_live_pilots(tx, batch.workflow_id, batch.array_id, batch.task_resources_id)
        batches = open_pilots(tx, batch.workflow_id, batch.array_id, batch.task_resources_id)
    if live:
        return
    for batch_id in batches:
        _give_up(tx, require_batch(tx, batch_id), ended)


def _give_up(tx: Transaction, batch: BatchRow, ended: EndedJob | None) -> None:
    if not batch.submitted or batch.taken >= batch.size:
        return  # its jobs have not been submitted yet
    ids = next_steps(tx, batch, batch.size - batch.taken + 1)
    moves = AttemptMoves(tx, ids)
    status, cause, error = _left(ended, NO_JOB_LEFT)
    host = ended.host if ended is not None and status == TI.ERROR else None
    for attempt_id in ids:
        report = Report(task_instance_id=attempt_id, status=status.value, cause=cause.value, error=error, host=host)
        moves.move(attempt_id, status.value, report)
    moves.write()
