"""What is recorded of a workflow already, so that a client need not send it again."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from jobmon.core.wire.binding import TASKS_PER_CHUNK_MAX, RecordedTasks
from jobmon.server.problems import InvalidValue

if TYPE_CHECKING:
    from jobmon.server.sql import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedQuery:
    """Which tasks: so many, by id, after this one."""

    after_id: int = 0
    count: int = TASKS_PER_CHUNK_MAX


def recorded_tasks(session: Session, workflow_id: int, query: RecordedQuery) -> RecordedTasks:
    """Return the next tasks of a workflow; none of one that does not exist."""
    if not 0 < query.count <= TASKS_PER_CHUNK_MAX:
        raise InvalidValue(f"count: must be from 1 to {TASKS_PER_CHUNK_MAX}.")
    rows = session.rows(
        """
        SELECT id, node_id, status, hash FROM task
        WHERE workflow_id = :workflow AND id > :after ORDER BY id LIMIT :most
        """,
        workflow=workflow_id,
        after=query.after_id,
        most=query.count,
    )
    return RecordedTasks(
        task_ids=[row[0] for row in rows],
        node_ids=[row[1] for row in rows],
        statuses=[row[2] for row in rows],
        hash=sha256("".join([row[3] for row in rows]).encode()).hexdigest(),
    )
