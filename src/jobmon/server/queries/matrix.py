"""Return the status of every task of a workflow, one letter each: first pages by ID, then changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from jobmon.core.wire.monitoring import Matrix, TaskRun
from jobmon.server.joins import IS_IN_WORKFLOW
from jobmon.server.models import task, task_array
from jobmon.server.queries.presence import require
from jobmon.server.sql import param, statement
from jobmon.server.transaction import last_stamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Select

    from jobmon.server.sql import Session

#: Maximum number of tasks in a page.
TASKS_MAX: Final = 100_000
#: With more changes than this, a reader requests everything again.
CHANGES_MAX: Final = 20_000

t, a = task.c, task_array.c


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixQuery:
    """Which tasks to return.

    Args:
        after: only those with IDs above it, in the order of their IDs.
        since: only those that changed after this `snapshot`, if it is not 0.
    """

    after: int = 0
    since: int = 0


@statement
def _templates() -> Select[Any]:
    return select(a.id, a.name).where(a.workflow_id == param("workflow"))


@statement
def _page() -> Select[Any]:
    wanted = t.workflow_id == param("workflow"), t.id > param("after"), IS_IN_WORKFLOW
    return select(t.id, t.array_id, t.status).where(*wanted).order_by(t.id).limit(param("most"))


@statement
def _changes() -> Select[Any]:
    """Select the tasks that changed, including removed ones."""
    wanted = t.workflow_id == param("workflow"), t.status_at > param("since")
    return select(t.id, t.array_id, t.status).where(*wanted).order_by(t.status_at).limit(param("most"))


def matrix(session: Session, workflow_id: int, query: MatrixQuery) -> Matrix:
    """Return the statuses of tasks.

    Raises:
        NotFound: there is no such workflow.
    """
    require(session, "workflow", workflow_id)
    if query.since:
        rows = session.rows(_changes, workflow=workflow_id, since=query.since, most=CHANGES_MAX)
        is_cut = len(rows) == CHANGES_MAX
    else:
        rows = session.rows(_page, workflow=workflow_id, after=query.after, most=TASKS_MAX)
        is_cut = len(rows) == TASKS_MAX
    names = dict(session.rows(_templates, workflow=workflow_id))
    return Matrix(
        snapshot=session.value(last_stamp),
        runs=_runs(rows, names),
        statuses="".join([row[2] for row in rows]),
        is_cut=is_cut,
    )


def _runs(rows: Iterable[tuple[int, int, str]], names: dict[int, str]) -> list[TaskRun]:
    """Combine tasks with consecutive IDs and the same template."""
    found: list[TaskRun] = []
    first = count = array = 0
    for task_id, array_id, _ in rows:
        if array_id == array and task_id == first + count:
            count += 1
            continue
        if count:
            found.append(TaskRun(template=names[array], first=first, count=count))
        first, count, array = task_id, 1, array_id
    if count:
        found.append(TaskRun(template=names[array], first=first, count=count))
    return found
