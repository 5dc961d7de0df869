"""What notifications say about a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import TaskStatus
from jobmon.server.constructs import func, select
from jobmon.server.counting import counts_by_array
from jobmon.server.joins import IS_ACTIVE_RUN
from jobmon.server.models import status_count, task, tool, tool_version, workflow, workflow_run
from jobmon.server.notifications import RunSummary
from jobmon.server.sql import param, statement

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.sql import Session

#: Maximum number of stalled runs that are found at once.
STALLED_MAX: Final = 100
r, w, c = workflow_run.c, workflow.c, status_count.c


@statement
def _run() -> Select[Any]:
    found = workflow_run.join(workflow, w.id == r.workflow_id)
    found = found.join(tool_version, tool_version.c.id == w.tool_version_id)
    found = found.join(tool, tool.c.id == tool_version.c.tool_id)
    return (
        select(
            *(w.id, w.name, tool.c.name, w.user_name),
            *(r.status, r.end_reason, r.parent_task_instance_id, r.created_at, r.status_at),
        )
        .select_from(found)
        .where(r.id == param("run"))
    )


@statement
def _active_run() -> Select[Any]:
    return select(func.max(r.id)).where(r.workflow_id == param("workflow"), IS_ACTIVE_RUN)


@statement
def _stalled_runs() -> Select[Any]:
    """Select active runs of which nothing changed lately, no task is running, and not all tasks are finished."""
    last = select(func.max(task.c.status_at)).where(task.c.workflow_id == r.workflow_id).scalar_subquery()
    of_workflow = c.workflow_id == r.workflow_id, c.number > 0
    running = select(c.number).where(*of_workflow, c.status == TaskStatus.RUNNING.value)
    unfinished = select(c.number).where(*of_workflow, c.status.not_in((*fsm.SETTLED, TaskStatus.ERROR_FATAL.value)))
    return (
        select(r.id, last)
        .where(
            *(IS_ACTIVE_RUN, r.report_by > param("now"), r.parent_task_instance_id.is_(None)),
            *(last < param("unchanged_since"), r.bound_at < param("unchanged_since")),
            *(unfinished.exists(), ~running.exists()),
        )
        .order_by(r.id)
        .limit(param("most"))
    )


def run_summary(session: Session, run_id: int, now: int) -> RunSummary | None:
    """Return what a message says about a run; None: it was deleted meanwhile."""
    row = session.row(_run, run=run_id)
    if row is None:
        return None
    workflow_id, name, tool_name, user, status, reason, parent, created_at, status_at = row
    counts: dict[str, int] = {}
    for of_array in counts_by_array(session, workflow_id).values():
        for letter, number in of_array.items():
            counts[letter] = counts.get(letter, 0) + number
    ended_at = status_at if status in fsm.FINAL_RUNS else now
    return RunSummary(
        workflow_id=workflow_id,
        run_id=run_id,
        name=name,
        tool=tool_name,
        user=user,
        run_status=status,
        end_reason=reason,
        is_inner=parent is not None,
        seconds=max(0, ended_at - created_at) / 1e6,
        counts=counts,
    )


def active_run(session: Session, workflow_id: int) -> int | None:
    """Return the newest active run of a workflow, if there is one."""
    run_id: int | None = session.value(_active_run, workflow=workflow_id)
    return run_id


def stalled_runs(session: Session, now: int, unchanged_since: int) -> list[tuple[int, int]]:
    """Return runs that are stalled, and the logical time of their last change.

    Args:
        session: the session.
        now: the time, microseconds.
        unchanged_since: a run is stalled if nothing changed since then.
    """
    rows = session.rows(_stalled_runs, now=now, unchanged_since=unchanged_since, most=STALLED_MAX)
    return [(run_id, int(stamp)) for run_id, stamp in rows]
