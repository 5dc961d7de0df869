"""What people look at: workflows, tasks, attempts, errors, output."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.fsm import Machine
from jobmon.core.wire.monitoring import (
    Attempt,
    LogTail,
    TaskDetail,
    TaskSummariesResponse,
    TaskSummary,
    WorkflowsResponse,
    WorkflowSummary,
)
from jobmon.core.wire.swarm import ErrorsResponse, TaskError
from jobmon.server.models.types import to_datetime, to_microseconds
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries.matching import Conditions
from jobmon.server.queries.presence import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.server.sql import Session

ROWS_MAX: Final = 10_000
_FAILED: Final = tuple(sorted(fsm.TERMINAL[Machine.TASK_INSTANCE] - {TaskInstanceStatus.DONE}))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowsQuery:
    """Which workflows; no ids, users, statuses, name or time: all. `before`: only older ones than this id."""

    workflow_id: list[int] = field(default_factory=list)
    user: list[str] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    name: str = ""
    before: int | None = None
    unchanged_since: datetime | None = None
    counts: bool = True
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksQuery:
    """Which tasks; no status, no names: all. `after`: only those with ids above it."""

    status: list[str] = field(default_factory=list)
    array: str = ""
    name: str = ""
    after: int = 0
    limit: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorsQuery:
    """How many errors."""

    limit: int = 1_000


def _checked(limit: int) -> int:
    if not 0 < limit <= ROWS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {ROWS_MAX}.")
    return limit


def _time(stored: int | None) -> datetime | None:
    return None if stored is None else to_datetime(stored)


def workflows(session: Session, query: WorkflowsQuery) -> WorkflowsResponse:
    """Return the newest workflows with their counts."""
    conditions = Conditions("w.id > 0")
    for column, wanted in (("id", query.workflow_id), ("user_name", query.user), ("status", query.status)):
        if wanted:
            conditions.add(f"w.{column} IN (:{column}...)", **{column: wanted})
    conditions.add_name("w.name", query.name)
    if query.before is not None:
        conditions.add("w.id < :before", before=query.before)
    if query.unchanged_since:
        conditions.add("w.status_at <= :since", since=to_microseconds(query.unchanged_since))
    rows = session.rows(
        f"""
        SELECT w.id, w.name, w.workflow_args, t.name, w.user_name, w.status, w.created_at, w.status_at, w.task_count,
               (SELECT MAX(r.id) FROM workflow_run r WHERE r.workflow_id = w.id)
        FROM workflow w JOIN tool_version v ON v.id = w.tool_version_id JOIN tool t ON t.id = v.tool_id
        WHERE {conditions} ORDER BY w.id DESC LIMIT :most
        """,
        most=_checked(query.limit),
        **conditions.values,
    )
    counts, attempts = _counts(session, [row[0] for row in rows] if query.counts else [])
    return WorkflowsResponse(workflows=[_workflow(row, counts[row[0]], attempts[row[0]]) for row in rows])


def _counts(session: Session, workflow_ids: Sequence[int]) -> tuple[dict[int, dict[str, int]], dict[int, int]]:
    """Count tasks and attempts; of both only indexes are read."""
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for workflow_id, status, count in session.rows(
        "SELECT workflow_id, status, COUNT(*) FROM task WHERE workflow_id IN (:ids...) GROUP BY workflow_id, status",
        ids=workflow_ids,
    ):
        counts[workflow_id][status] = count
    attempts = session.rows(
        """
        SELECT r.workflow_id, COUNT(*) FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        WHERE r.workflow_id IN (:ids...) GROUP BY r.workflow_id
        """,
        ids=workflow_ids,
    )
    return counts, defaultdict(int, attempts)


def _workflow(row: Sequence[Any], counts: dict[str, int], attempt_count: int) -> WorkflowSummary:
    return WorkflowSummary(
        workflow_id=row[0],
        name=row[1],
        workflow_args=row[2],
        tool_name=row[3],
        user=row[4],
        status=row[5],
        created_at=to_datetime(row[6]),
        status_at=to_datetime(row[7]),
        counts=counts,
        task_count=row[8],
        attempt_count=attempt_count,
        last_workflow_run_id=row[9],
    )


_TASK: Final = """
SELECT t.id, t.name, t.status, t.num_attempts, t.max_attempts, t.command, a.name, t.status_at, t.workflow_id
FROM task t JOIN task_array a ON a.id = t.array_id
"""


_ATTEMPTS: Final = """
SELECT ti.id, ti.task_id, ti.workflow_run_id, ti.number, ti.status, c.name, q.name, ti.distributor_id, ti.host,
       ti.pid, ti.queued_at, ti.launched_at, ti.started_at, ti.ended_at, ti.exit_code, ti.exit_signal, ti.cause,
       ti.error, ti.charged, ti.stdout, ti.stderr, ti.wallclock_seconds, ti.cpu_seconds, ti.max_rss_bytes,
       r.requested, r.kind, r.original, ti.read_bytes, ti.written_bytes
FROM task_instance ti JOIN task_resources r ON r.id = ti.task_resources_id JOIN queue q ON q.id = r.queue_id
JOIN cluster c ON c.id = ti.cluster_id WHERE ti.task_id IN (:tasks...) ORDER BY ti.task_id, ti.number
"""


def _task(row: Sequence[Any]) -> TaskSummary:
    return TaskSummary(
        task_id=row[0],
        name=row[1],
        status=row[2],
        num_attempts=row[3],
        max_attempts=row[4],
        command=row[5],
        array_name=row[6],
        status_at=to_datetime(row[7]),
    )


def task_summaries(session: Session, workflow_id: int, query: TasksQuery) -> TaskSummariesResponse:
    """Return tasks of a workflow by id."""
    require(session, "workflow", workflow_id)
    conditions = Conditions("t.workflow_id = :id AND t.id > :after")
    if query.status:
        conditions.add("t.status IN (:statuses...)", statuses=query.status)
    conditions.add_name("a.name", query.array)
    conditions.add_name("t.name", query.name)
    rows = session.rows(
        f"{_TASK} WHERE {conditions} ORDER BY t.id LIMIT :most",
        id=workflow_id,
        after=query.after,
        most=_checked(query.limit),
        **conditions.values,
    )
    return TaskSummariesResponse(tasks=[_task(row) for row in rows])


def task_detail(session: Session, task_id: int) -> TaskDetail:
    """Return a task with all its attempts."""
    row = session.row(f"{_TASK} WHERE t.id = :id", id=task_id)
    if row is None:
        raise NotFound.of("task", task_id)
    return TaskDetail(task=_task(row), workflow_id=row[8], attempts=attempts_of(session, [task_id])[task_id])


def attempts_of(session: Session, task_ids: Sequence[int]) -> dict[int, list[Attempt]]:
    """Return all attempts of some tasks, oldest first."""
    found: dict[int, list[Attempt]] = defaultdict(list)
    for row in session.rows(_ATTEMPTS, tasks=task_ids):
        found[row[1]].append(_attempt(row))
    return found


def _attempt(row: Sequence[Any]) -> Attempt:
    return Attempt(
        task_instance_id=row[0],
        task_id=row[1],
        workflow_run_id=row[2],
        number=row[3],
        status=row[4],
        cluster_name=row[5],
        queue_name=row[6],
        distributor_id=row[7],
        host=row[8],
        pid=row[9],
        queued_at=to_datetime(row[10]),
        launched_at=_time(row[11]),
        started_at=_time(row[12]),
        ended_at=_time(row[13]),
        exit_code=row[14],
        signal=row[15],
        cause=row[16],
        error=row[17],
        charged=bool(row[18]),
        stdout=row[19],
        stderr=row[20],
        wallclock_seconds=row[21],
        cpu_seconds=row[22],
        max_rss_bytes=row[23],
        requested_resources=json.loads(row[24]),
        request_kind=row[25],
        original_resources=json.loads(row[26]) if row[26] else None,
        read_bytes=row[27],
        written_bytes=row[28],
    )


def log_tail(session: Session, task_instance_id: int) -> LogTail:
    """Return the end of an attempt's output; empty where there was none."""
    row = session.row(
        """
        SELECT l.text, ti.stdout, ti.stderr FROM task_instance ti
        LEFT JOIN log_tail l ON l.task_instance_id = ti.id WHERE ti.id = :id
        """,
        id=task_instance_id,
    )
    if row is None:
        raise NotFound.of("attempt", task_instance_id)
    return LogTail(task_instance_id=task_instance_id, text=row[0] or "", stdout=row[1], stderr=row[2])


_ERRORS: Final = """
SELECT ti.task_id, t.name, ti.id, ti.status, ti.ended_at, ti.cause, ti.error, ti.exit_code, ti.host
FROM task_instance ti JOIN task t ON t.id = ti.task_id
"""


def workflow_errors(session: Session, workflow_id: int, query: ErrorsQuery) -> ErrorsResponse:
    """Return the newest failed attempts of a workflow."""
    require(session, "workflow", workflow_id)
    rows = session.rows(
        f"""{_ERRORS} JOIN workflow_run r ON r.id = ti.workflow_run_id
        WHERE r.workflow_id = :id AND ti.status IN (:failed...) ORDER BY ti.ended_at DESC, ti.id DESC LIMIT :most""",
        id=workflow_id,
        failed=_FAILED,
        most=_checked(query.limit),
    )
    return _errors(rows)


def task_errors(session: Session, task_id: int, query: ErrorsQuery) -> ErrorsResponse:
    """Return the failed attempts of a task, newest first."""
    require(session, "task", task_id)
    rows = session.rows(
        f"{_ERRORS} WHERE ti.task_id = :id AND ti.status IN (:failed...) ORDER BY ti.number DESC LIMIT :most",
        id=task_id,
        failed=_FAILED,
        most=_checked(query.limit),
    )
    return _errors(rows)


def _errors(rows: Sequence[Sequence[Any]]) -> ErrorsResponse:
    return ErrorsResponse(
        errors=[
            TaskError(
                task_id=row[0],
                task_name=row[1],
                task_instance_id=row[2],
                status=row[3],
                time=to_datetime(row[4] or 0),
                cause=row[5],
                error=row[6] or "",
                exit_code=row[7],
                host=row[8],
            )
            for row in rows
        ]
    )
