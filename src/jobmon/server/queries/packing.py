"""Determine what a packed job's open request can be answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core.packing import Mode
from jobmon.core.wire.launching import WorkerTakeRequest, WorkerTakeResponse
from jobmon.server.constructs import and_, select
from jobmon.server.joins import PACKED_BATCHES
from jobmon.server.lookups import newest_run_of
from jobmon.server.models import batch, packed_batch, packed_job, task_array
from jobmon.server.packed import is_named, no_such_batch, open_pilots, queued, to_kill
from jobmon.server.problems import NotFound
from jobmon.server.sql import param, statement
from jobmon.server.transitions import QUEUING_RUNS

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.sql import Session


@statement
def _workflow_of_array() -> Select[Any]:
    return select(task_array.c.workflow_id).where(task_array.c.id == param("id"))


@statement
def _batch_and_job() -> Select[Any]:
    b, p, j = batch.c, packed_batch.c, packed_job.c
    jobs = and_(j.batch_id == b.id, j.distributor_id == param("job"))
    return (
        select(p.mode, p.size - p.taken, b.workflow_id, b.array_id, b.task_resources_id, j.ended_at)
        .select_from(PACKED_BATCHES.outerjoin(packed_job, jobs))
        .where(*is_named())
    )


def workflow_of_array(session: Session, array_id: int) -> int:
    """Return the workflow of an array.

    Raises:
        NotFound: the array does not exist.
    """
    workflow_id = session.value(_workflow_of_array, id=array_id)
    if workflow_id is None:
        raise NotFound.of("array", array_id)
    return int(workflow_id)


def new_work(session: Session, request: WorkerTakeRequest) -> WorkerTakeResponse:
    """Return the attempts that a job must terminate, whether there is work for it, and whether none will follow.

    Raises:
        NotFound: the batch does not exist, or it is not packed.
    """
    row = session.row(_batch_and_job, array=request.array_id, number=request.batch_number, job=request.distributor_id)
    if row is None:
        raise no_such_batch(request)
    mode, untaken, workflow_id, array_id, resources_id, ended_at = row
    if ended_at is not None:
        return WorkerTakeResponse(kill=list(request.alive), over=True)
    kill = to_kill(session, workflow_id, request.distributor_id, request.alive)
    if mode != Mode.PILOT:
        return WorkerTakeResponse(kill=kill, over=untaken <= 0, has_work=untaken > 0)
    run_id, run_status = newest_run_of(session, workflow_id)
    may_queue = run_status in QUEUING_RUNS
    has_work = bool(open_pilots(session, workflow_id, array_id, resources_id)) or (
        may_queue and bool(queued(session, run_id, array_id, resources_id, 1))
    )
    return WorkerTakeResponse(kill=kill, over=not (has_work or may_queue), has_work=has_work)
