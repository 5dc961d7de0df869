"""Return the recorded tasks of a workflow, so that a client need not send them again."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from jobmon.core.wire.binding import TASKS_PER_CHUNK_MAX, RecordedTasks
from jobmon.server.constructs import select
from jobmon.server.models import task
from jobmon.server.problems import InvalidValue
from jobmon.server.sql import param, statement

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.sql import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedQuery:
    """Which tasks to return.

    Args:
        after_id: only tasks with IDs above it.
        count: maximum number of tasks to return.
    """

    after_id: int = 0
    count: int = TASKS_PER_CHUNK_MAX


@statement
def _next_tasks() -> Select[Any]:
    t = task.c
    return (
        select(t.id, t.node_id, t.status, t.hash)
        .where(t.workflow_id == param("workflow"), t.id > param("after"))
        .order_by(t.id)
        .limit(param("most"))
    )


def recorded_tasks(session: Session, workflow_id: int, query: RecordedQuery) -> RecordedTasks:
    """Return the next tasks of a workflow by ID; none if the workflow does not exist."""
    if not 0 < query.count <= TASKS_PER_CHUNK_MAX:
        raise InvalidValue(f"count: must be from 1 to {TASKS_PER_CHUNK_MAX}.")
    rows = session.rows(_next_tasks, workflow=workflow_id, after=query.after_id, most=query.count)
    return RecordedTasks(
        task_ids=[row[0] for row in rows],
        node_ids=[row[1] for row in rows],
        statuses=[row[2] for row in rows],
        hash=sha256("".join([row[3] for row in rows]).encode()).hexdigest(),
    )
