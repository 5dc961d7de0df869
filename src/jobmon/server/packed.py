"""Look-ups shared by the requests of packed jobs and by the long polls of these requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.packing import Mode
from jobmon.server.constructs import func, literal_column, select
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, PACKED_BATCHES
from jobmon.server.limits import room
from jobmon.server.lookups import ended_of
from jobmon.server.models import (
    batch,
    packed_batch,
    queue,
    task,
    task_array,
    task_instance,
    task_resources,
    workflow_run,
)
from jobmon.server.problems import NotFound
from jobmon.server.sql import param, statement, statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select

    from jobmon.core.wire.launching import WorkerTakeRequest
    from jobmon.server.sql import Session

TI = TaskInstanceStatus


def is_named() -> list[ColumnElement[bool]]:
    """Return the conditions that select the batch named by a packed job's `array` and `number`."""
    b, a = batch.c, task_array.c
    workflow = select(a.workflow_id).where(a.id == param("array")).scalar_subquery()
    return [b.workflow_id == workflow, b.number == param("number"), b.array_id == param("array")]


def no_such_batch(request: WorkerTakeRequest) -> NotFound:
    """Return the error for a request that names a batch which does not exist or is not packed."""
    return NotFound(f"There is no packed batch {request.batch_number} of array {request.array_id}.")


@statement
def _attempts_told_to_end() -> Select[Any]:
    ti = task_instance.c
    return (
        select(ti.id)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(
            workflow_run.c.workflow_id == param("workflow"),
            ti.status == param("kill"),
            ti.distributor_id == param("job"),
        )
        .order_by(ti.id)
    )


def to_kill(session: Session, workflow_id: int, distributor_id: str, alive: Sequence[int]) -> list[int]:
    """Return the attempts that a job must terminate: those told to stop, and running ones that were declared lost."""
    told = session.column(_attempts_told_to_end, workflow=workflow_id, kill=TI.KILL_SELF.value, job=distributor_id)
    return told + ended_of(session, alive)


@statement
def _open_pilots() -> Select[Any]:
    b, p = batch.c, packed_batch.c
    return (
        select(b.id)
        .select_from(PACKED_BATCHES)
        .where(
            p.workflow_id == param("workflow"),
            p.taken < p.size,
            p.mode == param("mode"),
            b.array_id == param("array"),
            b.task_resources_id == param("resources"),
        )
        .order_by(b.id)
    )


def open_pilots(session: Session, workflow_id: int, array_id: int, resources_id: int) -> list[int]:
    """Return the pilot batches of an array and resource request that have untaken attempts, oldest first."""
    return session.column(
        _open_pilots, workflow=workflow_id, mode=Mode.PILOT.value, array=array_id, resources=resources_id
    )


@statements
def _queued(prioritized: bool) -> Select[Any]:
    """Select attempts by the cluster of the resource request, because the indexes require it."""
    ti, r, q = task_instance.c, task_resources.c, queue.c
    zero: ColumnElement[int] = literal_column("0")
    return (
        select(ti.id, ti.task_id, task.c.array_id, func.length(task.c.command))
        .select_from(
            task_resources.join(queue, q.id == r.queue_id)
            .join(task_instance, ti.cluster_id == q.cluster_id)
            .join(task, task.c.id == ti.task_id)
        )
        .where(
            r.id == param("resources"),
            ti.workflow_run_id == param("run"),
            ti.status == param("queued"),
            ti.task_resources_id == r.id,
            task.c.array_id == param("array"),
            *((ti.priority != zero, ti.priority > zero) if prioritized else (ti.priority <= zero,)),
        )
        .order_by(*(ti.priority.desc(), ti.id) if prioritized else (ti.id,))
        .limit(param("count"))
    )


def queued(
    session: Session, run_id: int, array_id: int, resources_id: int, count: int
) -> list[tuple[int, int, int, int]]:
    """Return the next queued attempts of an array and resource request that limits allow to launch, at most `count`.

    Returns:
        The IDs of attempt, task and array, and the number of characters of the command.
    """
    left = room(session, run_id)
    if left is not None:
        count = min(count, left.of(array_id))
    values = {"run": run_id, "array": array_id, "resources": resources_id, "queued": TI.QUEUED.value}
    first = session.rows(_queued(True), **values, count=count)
    return first + session.rows(_queued(False), **values, count=count - len(first))
