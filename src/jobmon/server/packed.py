"""What both the requests that packed jobs make and the answers to those that are held look up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.packing import Mode
from jobmon.server.limits import room
from jobmon.server.transitions import LIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.server.sql import Session

TI = TaskInstanceStatus


def to_kill(session: Session, workflow_id: int, distributor_id: str, alive: Sequence[int]) -> list[int]:
    """Return the attempts of a job that are to end, and those that live there though they were given up."""
    told = session.column(
        """
        SELECT ti.id FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        WHERE r.workflow_id = :workflow AND ti.status = :kill AND ti.distributor_id = :job ORDER BY ti.id
        """,
        workflow=workflow_id,
        kill=TI.KILL_SELF.value,
        job=distributor_id,
    )
    if not alive:
        return told
    return told + session.column(
        "SELECT id FROM task_instance WHERE id IN (:ids...) AND status NOT IN (:live...) ORDER BY id",
        ids=alive,
        live=list(LIVE),
    )


def open_pilots(session: Session, workflow_id: int, array_id: int, resources_id: int) -> list[int]:
    """Return the pilot batches of an array and request with attempts that nobody has taken, the oldest first."""
    return session.column(
        """
        SELECT b.id FROM packed_batch p JOIN batch b ON b.id = p.batch_id
        WHERE p.workflow_id = :workflow AND p.taken < p.size AND p.mode = :mode AND b.array_id = :array
        AND b.task_resources_id = :resources ORDER BY b.id
        """,
        workflow=workflow_id,
        mode=Mode.PILOT.value,
        array=array_id,
        resources=resources_id,
    )


def queued(session: Session, run_id: int, array_id: int, resources_id: int, count: int) -> list[tuple[int, int]]:
    """Return the oldest attempts, with their tasks, of an array and request that are not launched and may be."""
    left = room(session, run_id)
    if left is not None:
        count = min(count, left.of(array_id))
    return session.rows(
        """
        SELECT ti.id, ti.task_id FROM task_resources r JOIN queue q ON q.id = r.queue_id
        JOIN task_instance ti ON ti.cluster_id = q.cluster_id JOIN task t ON t.id = ti.task_id
        WHERE r.id = :resources AND ti.workflow_run_id = :run AND ti.status = :queued
        AND ti.task_resources_id = r.id AND t.array_id = :array ORDER BY ti.id LIMIT :count
        """,
        run=run_id,
        array=array_id,
        resources=resources_id,
        queued=TI.QUEUED.value,
        count=count,
    )
