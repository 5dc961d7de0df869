"""Move expansions: tasks whose function the client calls; no attempt belongs to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core.constants import TaskKind, TaskStatus
from jobmon.server.constructs import false, update
from jobmon.server.models import IS_EXPANSION, task
from jobmon.server.sql import param, statement
from jobmon.server.transaction import Audience

if TYPE_CHECKING:
    from sqlalchemy.sql.dml import ReturningUpdate

    from jobmon.server.transaction import Transaction

t = task.c


@statement
def _call_expansion() -> ReturningUpdate[Any]:
    return (
        update(task)
        .values(status=TaskStatus.RUNNING.value, status_at=param("stamp"))
        .where(
            *(t.id == param("id"), t.kind == TaskKind.EXPANSION.value, t.status == TaskStatus.REGISTERING.value),
            *(t.status_at <= param("seen"), t.held == false()),
        )
        .returning(t.array_id)
    )


def call_expansion(tx: Transaction, workflow_id: int, task_id: int, seen: int) -> bool:
    """Move an expansion that waits to RUNNING; return False if it does not wait, is held, or changed after `seen`."""
    arrays = tx.column(_call_expansion, id=task_id, stamp=tx.stamp, seen=seen)
    tx.counts.move_each(workflow_id, arrays, TaskStatus.REGISTERING.value, TaskStatus.RUNNING.value)
    return bool(arrays)


@statement
def _move_expansion() -> ReturningUpdate[Any]:
    is_running = t.kind == TaskKind.EXPANSION.value, t.status == TaskStatus.RUNNING.value
    values = {"status": param("target"), "status_at": param("stamp")}
    return update(task).values(values).where(t.id == param("id"), *is_running).returning(t.array_id)


def move_expansion(tx: Transaction, workflow_id: int, task_id: int, target: TaskStatus) -> None:
    """Move an expansion whose function was called; do nothing if it is no longer RUNNING."""
    arrays = tx.column(_move_expansion, id=task_id, stamp=tx.stamp, target=target.value)
    tx.counts.move_each(workflow_id, arrays, TaskStatus.RUNNING.value, target.value)
    tx.wake(Audience.ORCHESTRATOR, workflow_id)


@statement
def _abandon_expansions() -> ReturningUpdate[Any]:
    is_running = t.workflow_id == param("workflow"), IS_EXPANSION, t.status == TaskStatus.RUNNING.value
    values = {"status": TaskStatus.REGISTERING.value, "status_at": param("stamp")}
    return update(task).values(values).where(*is_running).returning(t.array_id)


def abandon_expansions(tx: Transaction, workflow_id: int) -> None:
    """Let the expansions wait whose function was called by a run that has ended: the next run calls them again."""
    arrays = tx.column(_abandon_expansions, workflow=workflow_id, stamp=tx.stamp)
    tx.counts.move_each(workflow_id, arrays, TaskStatus.RUNNING.value, TaskStatus.REGISTERING.value)
