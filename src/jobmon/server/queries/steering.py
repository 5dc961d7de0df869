"""Preview an update of tasks; list what users and the reaper did to a workflow."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskStatus
from jobmon.core.wire.steering import (
    TASKS_UPDATED_MAX,
    EditPlan,
    EditPlanRequest,
    HistoryEntry,
    HistoryResponse,
    TaskUpdatePlan,
    TaskUpdatePlanRequest,
)
from jobmon.server.constructs import func, or_, select
from jobmon.server.joins import IS_ACTIVE_RUN, IS_IN_WORKFLOW, has_live_attempt
from jobmon.server.lookups import require_not_removed, require_skippable
from jobmon.server.models import audit, task, task_edit, workflow, workflow_run
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries import graph
from jobmon.server.queries.presence import require
from jobmon.server.queries.swarm import resources_of
from jobmon.server.revisions import EDITABLE
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.times import to_datetime
from jobmon.server.transitions import LIVE, settable_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select

    from jobmon.server.sql import Session

HISTORY_ROWS_MAX: Final = 10_000

t = task.c


@statement
def _named_tasks() -> Select[Any]:
    """Select tasks of the workflow by ID."""
    return (
        select(t.id, t.status, t.node_id)
        .where(any_of(t.id, "ids"), unindexed(t.workflow_id) == param("workflow"))
        .order_by(t.id)
    )


@statement
def _tasks_of_nodes() -> Select[Any]:
    return (
        select(t.id, t.status, t.node_id)
        .where(t.workflow_id == param("workflow"), any_of(t.node_id, "nodes"), IS_IN_WORKFLOW)
        .order_by(t.id)
    )


@statement
def _dag_of_workflow() -> Select[Any]:
    return select(workflow.c.dag_id).where(workflow.c.id == param("workflow"))


@statement
def _count_live() -> Select[Any]:
    """Select the number of tasks whose newest attempt is live."""
    return select(func.count()).select_from(task).where(any_of(t.id, "ids"), has_live_attempt("live"))


@statement
def _active_run() -> Select[Any]:
    return select(workflow_run.c.id).where(workflow_run.c.workflow_id == param("workflow"), IS_ACTIVE_RUN).limit(1)


#: What clients do on their own while a workflow is recorded and run, beside what their users do.
ROUTINE: Final = (
    *("define arrays", "define tasks", "define tasks again", "define dependencies", "finish definition"),
    *("set attributes", "register agent", "register distributor", "hand over run"),
)


@statements
def _entries(with_routine: bool) -> Select[Any]:
    """Select the audit entries of a workflow, newest first."""
    shown = () if with_routine else (audit.c.action.not_in(ROUTINE),)
    return (
        select(audit.c.at, audit.c.actor, audit.c.action, audit.c.details, audit.c.principal)
        .where(audit.c.workflow_id == param("workflow"), *shown)
        .order_by(audit.c.id.desc())
        .limit(param("most"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Maximum number of entries to return; `routine`: also those of clients, which no user has caused directly."""

    limit: int = 1_000
    routine: bool = True


def plan_update(session: Session, workflow_id: int, request: TaskUpdatePlanRequest) -> TaskUpdatePlan:
    """Return which tasks an update would change.

    Raises:
        NotFound: the workflow does not exist, or a task is not in it.
        InvalidValue: this status cannot be set.
        InvalidRequest: one of the tasks cannot be skipped.
    """
    target = settable_status(request.status)
    rows = named = _named(session, workflow_id, request.task_ids)
    if target == TaskStatus.SKIPPED:
        require_skippable((task_id, status, None) for task_id, status, _ in named)
    if request.recursive:
        rows = _spread(session, workflow_id, [row[2] for row in rows], target)
    asked = {row[0] for row in named}
    kept = (target, TaskStatus.SKIPPED)  # a skipped task is changed only if it is named
    changing = [
        row
        for row in rows
        if row[1] != TaskStatus.REMOVED and (row[1] not in kept or (row[1] != target and row[0] in asked))
    ]
    task_ids = [row[0] for row in changing]
    return TaskUpdatePlan(
        task_ids=task_ids,
        counts=dict(Counter(row[1] for row in changing)),
        unchanged=len(rows) - len(changing),
        live=count_live(session, task_ids),
        is_active=is_active(session, workflow_id),
    )


def count_live(session: Session, task_ids: Sequence[int]) -> int:
    """Return how many of some tasks have an attempt that may be running."""
    return int(session.value(_count_live, ids=task_ids, live=LIVE))


def is_active(session: Session, workflow_id: int) -> bool:
    """Return whether a workflow has an active run."""
    return session.value(_active_run, workflow=workflow_id) is not None


def _named(session: Session, workflow_id: int, task_ids: Sequence[int]) -> list[tuple[int, str, int]]:
    require(session, "workflow", workflow_id)
    rows = session.rows(_named_tasks, ids=task_ids, workflow=workflow_id)
    missing = sorted(set(task_ids) - {row[0] for row in rows})
    if missing:
        raise NotFound.of(f"task of workflow {workflow_id} with id", ", ".join(map(str, missing[:10])))
    require_not_removed(workflow_id, rows)
    return [(row[0], row[1], row[2]) for row in rows]


def _spread(
    session: Session, workflow_id: int, node_ids: Sequence[int], target: TaskStatus
) -> list[tuple[int, str, int]]:
    dag_id = session.value(_dag_of_workflow, workflow=workflow_id)
    side = "upstream" if target is TaskStatus.DONE else "downstream"
    nodes = sorted(graph.beyond(session, dag_id, node_ids, side))
    rows = session.rows(_tasks_of_nodes, nodes=nodes, workflow=workflow_id)
    return [(row[0], row[1], row[2]) for row in rows]


@statement
def _tasks_to_edit() -> Select[Any]:
    e = task_edit.c
    is_edited = or_(*(e[name].is_not(None) for name in EDITABLE))
    return (
        select(t.id, t.name, t.status, t.revision, t.task_resources_id, is_edited)
        .join_from(task, task_edit, e.task_id == t.id, isouter=True)
        .where(any_of(t.id, "ids"))
    )


def plan_edit(session: Session, workflow_id: int, request: EditPlanRequest) -> EditPlan:
    """Return the definitions of tasks to be edited.

    Raises:
        NotFound: the workflow does not exist, or a task is not in it.
        InvalidRequest: a task was removed from it.
        InvalidValue: there are too many tasks.
    """
    if len(request.task_ids) > TASKS_UPDATED_MAX:
        raise InvalidValue(f"task_ids: at most {TASKS_UPDATED_MAX} in one request.")
    _named(session, workflow_id, request.task_ids)
    found = {row[0]: row[1:] for row in session.rows(_tasks_to_edit, ids=request.task_ids)}
    rows = [found[task_id] for task_id in request.task_ids]
    return EditPlan(
        names=[row[0] for row in rows],
        statuses=[row[1] for row in rows],
        revisions=[row[2] for row in rows],
        task_resources_ids=[row[3] for row in rows],
        edited=[bool(row[4]) for row in rows],
        resources=resources_of(session, {row[3] for row in rows if row[3] is not None}),
        live=count_live(session, request.task_ids),
        is_active=is_active(session, workflow_id),
    )


def history(session: Session, workflow_id: int, query: HistoryQuery) -> HistoryResponse:
    """Return the audit entries of a workflow, newest first.

    Raises:
        NotFound: the workflow does not exist.
        InvalidValue: the limit is out of range.
    """
    if not 0 < query.limit <= HISTORY_ROWS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {HISTORY_ROWS_MAX}.")
    require(session, "workflow", workflow_id)
    rows = session.rows(_entries(query.routine), workflow=workflow_id, most=query.limit)
    return HistoryResponse(entries=[_entry(row) for row in rows])


def _entry(row: Sequence[Any]) -> HistoryEntry:
    details = json.loads(row[3])
    user = str(details.pop("user", "") or "")
    return HistoryEntry(
        at=to_datetime(row[0]), actor=row[1], action=row[2], user=user, details=details, principal=row[4] or ""
    )
