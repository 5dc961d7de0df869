"""The critical path of a workflow: the chain of tasks that determined when it was over."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.wire.graph import CriticalPath, CriticalTask
from jobmon.server.constructs import func, select
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, IS_NEWEST_ATTEMPT
from jobmon.server.models import expansion, task, task_array, task_instance, workflow_run
from jobmon.server.queries.graph import tasks_upstream
from jobmon.server.queries.presence import require
from jobmon.server.sql import param, statement
from jobmon.server.times import to_datetime

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

    from jobmon.server.recent import Recent
    from jobmon.server.sql import Session

#: Maximum number of tasks on the path: one query each.
TASKS_MAX: Final = 500
_MICROSECONDS: Final = 1_000_000

t, ti, a, r = task.c, task_instance.c, task_array.c, workflow_run.c
_TASK: Final = (t.id, t.name, a.name, t.status, t.node_id)


def _newest_attempts(*conditions: ColumnElement[bool]) -> Select[Any]:
    joined = ATTEMPTS_OF_WORKFLOW.join(task, IS_NEWEST_ATTEMPT).join(task_array, a.id == t.array_id)
    of_workflow = r.workflow_id == param("workflow"), ti.started_at.is_not(None)
    return select(*_TASK, ti.started_at, ti.ended_at).select_from(joined).where(*of_workflow, *conditions).limit(1)


@statement
def _longest_running() -> Select[Any]:
    """Select the task whose attempt runs the longest."""
    is_running = ti.status == TaskInstanceStatus.RUNNING.value, ti.ended_at.is_(None)
    return _newest_attempts(*is_running).order_by(ti.started_at, t.id)


@statement
def _ended_last() -> Select[Any]:
    """Select the task whose attempt ended last. Reads all attempts."""
    return _newest_attempts(ti.ended_at.is_not(None)).order_by(ti.ended_at.desc(), ti.started_at, t.id)


@statement
def _newest_change() -> Select[Any]:
    return select(func.max(t.status_at)).where(t.workflow_id == param("workflow"))


@statement
def _last_upstream() -> Select[Any]:
    """Select the task directly upstream of a node that ended last. An expansion has no attempts: its call counts."""
    called = expansion.c
    started = func.coalesce(ti.started_at, called.called_at)
    ended = func.coalesce(ti.ended_at, called.done_at)
    joined = task.join(task_array, a.id == t.array_id).outerjoin(task_instance, IS_NEWEST_ATTEMPT)
    return (
        select(*_TASK, started, ended)
        .select_from(joined.outerjoin(expansion, called.task_id == t.id))
        .where(*tasks_upstream(), started.is_not(None), ended.is_not(None))
        .order_by(ended.desc(), t.id)
        .limit(1)
    )


def critical_path(session: Session, workflow_id: int, recent: Recent) -> CriticalPath:
    """Return the critical path of a workflow, in the order of time; empty if no attempt has started.

    Raises:
        NotFound: the workflow does not exist.
    """
    require(session, "workflow", workflow_id)
    row = session.row(_longest_running, workflow=workflow_id)
    if row is None:
        row = recent.while_same(
            ("ended last", workflow_id),
            session.value(_newest_change, workflow=workflow_id),
            lambda: session.row(_ended_last, workflow=workflow_id),
            math.inf,
        )
    rows: list[tuple[Any, ...]] = []
    while row is not None and len(rows) < TASKS_MAX:
        rows.append(row)
        row = session.row(_last_upstream, workflow=workflow_id, node=row[4])
    rows.reverse()
    first = [] if not rows else [rows[0][5] if row is None else row[6]]
    ends = first + [before[6] for before in rows[:-1]]
    tasks = [
        CriticalTask(
            task_id=task_id,
            name=name,
            template=template,
            status=status,
            started_at=to_datetime(started),
            ended_at=None if ended is None else to_datetime(ended),
            waited_seconds=max(0, started - before) / _MICROSECONDS,
        )
        for (task_id, name, template, status, _, started, ended), before in zip(rows, ends, strict=True)
    ]
    return CriticalPath(tasks=tasks, is_cut=row is not None)
