"""What an update of tasks would change, and what people and the reaper did to a workflow."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskStatus
from jobmon.core.wire.steering import HistoryEntry, HistoryResponse, TaskUpdatePlan, TaskUpdatePlanRequest
from jobmon.server.models.types import to_datetime
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries import graph
from jobmon.server.queries.presence import require
from jobmon.server.transitions import FINAL_RUNS, LIVE, settable_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.server.sql import Session

HISTORY_ROWS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """How much of it."""

    limit: int = 1_000


def plan_update(session: Session, workflow_id: int, request: TaskUpdatePlanRequest) -> TaskUpdatePlan:
    """Say which tasks an update would change.

    Raises:
        NotFound: there is no such workflow, or a task is not in it.
        InvalidValue: this status cannot be set.
    """
    target = settable_status(request.status)
    rows = _named(session, workflow_id, request.task_ids)
    if request.recursive:
        rows = _spread(session, workflow_id, [row[2] for row in rows], target)
    changing = [row for row in rows if row[1] != target]
    task_ids = [row[0] for row in changing]
    return TaskUpdatePlan(
        task_ids=task_ids,
        counts=dict(Counter(row[1] for row in changing)),
        unchanged=len(rows) - len(changing),
        live=_live_count(session, task_ids),
        is_active=_is_active(session, workflow_id),
    )


def _named(session: Session, workflow_id: int, task_ids: Sequence[int]) -> list[tuple[int, str, int]]:
    require(session, "workflow", workflow_id)
    rows = session.rows(
        "SELECT id, status, node_id FROM task WHERE id IN (:ids...) AND +workflow_id = :workflow ORDER BY id",
        ids=task_ids,
        workflow=workflow_id,
    )
    missing = sorted(set(task_ids) - {row[0] for row in rows})
    if missing:
        raise NotFound.of(f"task of workflow {workflow_id} with id", ", ".join(map(str, missing[:10])))
    return [(row[0], row[1], row[2]) for row in rows]


def _spread(
    session: Session, workflow_id: int, node_ids: Sequence[int], target: TaskStatus
) -> list[tuple[int, str, int]]:
    dag_id = session.value("SELECT dag_id FROM workflow WHERE id = :id", id=workflow_id)
    side = "upstream" if target is TaskStatus.DONE else "downstream"
    rows = session.rows(
        """
        SELECT id, status, node_id FROM task WHERE workflow_id = :workflow AND node_id IN (:nodes...) ORDER BY id
        """,
        nodes=sorted(graph.beyond(session, dag_id, node_ids, side)),
        workflow=workflow_id,
    )
    return [(row[0], row[1], row[2]) for row in rows]


def _live_count(session: Session, task_ids: Sequence[int]) -> int:
    return int(
        session.value(
            """
            SELECT COUNT(*) FROM task t JOIN task_instance ti ON ti.task_id = t.id AND ti.number = t.attempt_count
            WHERE t.id IN (:ids...) AND ti.status IN (:live...)
            """,
            ids=task_ids,
            live=list(LIVE),
        )
    )


def _is_active(session: Session, workflow_id: int) -> bool:
    found = session.value(
        "SELECT id FROM workflow_run WHERE workflow_id = :id AND status NOT IN (:final...) LIMIT 1",
        id=workflow_id,
        final=FINAL_RUNS,
    )
    return found is not None


def history(session: Session, workflow_id: int, query: HistoryQuery) -> HistoryResponse:
    """Return what was done to a workflow, newest first."""
    if not 0 < query.limit <= HISTORY_ROWS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {HISTORY_ROWS_MAX}.")
    require(session, "workflow", workflow_id)
    rows = session.rows(
        """
        SELECT at, actor, action, details FROM audit WHERE workflow_id = :id ORDER BY id DESC LIMIT :most
        """,
        id=workflow_id,
        most=query.limit,
    )
    return HistoryResponse(entries=[_entry(row) for row in rows])


def _entry(row: Sequence[Any]) -> HistoryEntry:
    details = json.loads(row[3])
    user = str(details.pop("user", "") or "")
    return HistoryEntry(at=to_datetime(row[0]), actor=row[1], action=row[2], user=user, details=details)
