"""Return the status of every task of a workflow, one letter each: first all by ID, then changes.

The letters of a large workflow are kept (`letters`). While they are read the first time, readers get what there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.monitoring import Matrix, TaskRun
from jobmon.server.constructs import select
from jobmon.server.counting import counts_by_array
from jobmon.server.models import task, task_array
from jobmon.server.queries.presence import require
from jobmon.server.sql import param, statement
from jobmon.server.transaction import last_stamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Select

    from jobmon.server.kept import Kept
    from jobmon.server.sql import Session

#: Maximum number of tasks in a page, and of their runs.
TASKS_MAX: Final = 2_000_000
RUNS_MAX: Final = 50_000
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
def _changes() -> Select[Any]:
    """Select the tasks that changed, including removed ones."""
    wanted = t.workflow_id == param("workflow"), t.status_at > param("since")
    return select(t.id, t.array_id, t.status).where(*wanted).order_by(t.status_at).limit(param("most"))


def matrix(session: Session, workflow_id: int, query: MatrixQuery, kept: Kept) -> Matrix:
    """Return the statuses of tasks.

    Args:
        session: the session to read with; it has read nothing yet.
        workflow_id: ID of the workflow.
        query: which tasks to return.
        kept: the statuses that are known.

    Raises:
        NotFound: the workflow does not exist.
    """
    if query.since:
        return _changed(session, workflow_id, query.since)
    with kept.letters(workflow_id) as letters:
        require(session, "workflow", workflow_id)
        has_time = kept.deadline()
        letters.catch_up(session, lambda: letters.last <= query.after or has_time())
        runs, statuses, is_cut = letters.page(query.after, TASKS_MAX, RUNS_MAX)
        snapshot, is_cut = letters.snapshot, is_cut or not letters.is_whole
    names = dict(session.rows(_templates, workflow=workflow_id))
    total = sum(sum(counts.values()) for counts in counts_by_array(session, workflow_id).values())
    return Matrix(
        snapshot=snapshot,
        runs=[TaskRun(template=names[run.array_id], first=run.first, count=run.number) for run in runs],
        statuses=statuses,
        is_cut=is_cut,
        total=total,
    )


def _changed(session: Session, workflow_id: int, since: int) -> Matrix:
    """Return the statuses of the tasks that changed after a snapshot."""
    require(session, "workflow", workflow_id)
    rows = session.rows(_changes, workflow=workflow_id, since=since, most=CHANGES_MAX)
    names = dict(session.rows(_templates, workflow=workflow_id))
    return Matrix(
        snapshot=session.value(last_stamp),
        runs=_runs(rows, names),
        statuses="".join([row[2] for row in rows]),
        is_cut=len(rows) == CHANGES_MAX,
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
