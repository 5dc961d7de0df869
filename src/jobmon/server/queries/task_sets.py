"""Preview an action on a set of tasks: which tasks it would change."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import SetAction, TaskKind, TaskStatus
from jobmon.core.wire.steering import (
    TASKS_PLANNED_MAX,
    TASKS_UPDATED_MAX,
    TaskSetPlan,
    TaskSetRequest,
    TaskUpdatePlanRequest,
)
from jobmon.server.constructs import and_, or_, select
from jobmon.server.joins import changes_hold, has_live_attempt
from jobmon.server.models import task
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.queries.monitoring import TasksQuery, matching_ids
from jobmon.server.queries.presence import require
from jobmon.server.queries.steering import count_live, is_active, plan_update
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.transaction import last_stamp
from jobmon.server.transitions import LIVE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Select

    from jobmon.server.sql import Session

#: Maximum number of tasks to which an action other than holding and releasing applies: these are changed in one
#: transaction. A task that is done must not stay so while the tasks upstream of it are rerun.
TASKS_MAX: Final = {SetAction.HOLD: TASKS_PLANNED_MAX, SetAction.RELEASE: TASKS_PLANNED_MAX}
_COMMANDS: Final = {
    SetAction.HOLD: "jobmon workflow hold -t TEMPLATE",
    SetAction.RELEASE: "jobmon workflow release -t TEMPLATE",
    SetAction.RERUN: "jobmon task rerun",
    SetAction.SKIP: "jobmon task skip",
    SetAction.MARK_DONE: "jobmon task update",
    SetAction.PRIORITY: "jobmon workflow priority -t TEMPLATE",
    SetAction.EDIT: "jobmon task edit",
}

t = task.c


@statement
def _statuses() -> Select[Any]:
    return select(t.id, t.status).where(any_of(t.id, "ids"), unindexed(t.workflow_id) == param("workflow"))


_IN_PROGRESS: Final = or_(t.status.in_(fsm.IN_FLIGHT), has_live_attempt("live"))
#: What an action other than a rerun requires of the tasks that it changes.
_CHANGES: Final[Mapping[SetAction, ColumnElement[bool]]] = {
    SetAction.HOLD: changes_hold(held=True),
    SetAction.RELEASE: changes_hold(held=False),
    SetAction.SKIP: and_(t.status.not_in(fsm.SETTLED), ~_IN_PROGRESS),
    SetAction.MARK_DONE: and_(t.status != TaskStatus.DONE.value, ~_IN_PROGRESS),
    SetAction.PRIORITY: and_(t.status.not_in(fsm.SETTLED), t.priority != param("priority")),
    SetAction.EDIT: and_(t.status != TaskStatus.DONE.value, t.kind == TaskKind.COMMAND.value),
}


@statements
def _changing(action: SetAction) -> Select[Any]:
    """Select those of some tasks that an action changes."""
    return select(t.id, t.status, t.priority).where(any_of(t.id, "ids"), _CHANGES[action]).order_by(t.id)


def plan_set(session: Session, workflow_id: int, request: TaskSetRequest) -> TaskSetPlan:
    """Return which tasks an action would change.

    Raises:
        NotFound: the workflow does not exist, or a task is not in it.
        InvalidValue: the action is unknown, or there are too many tasks.
    """
    if request.action not in list(SetAction):
        raise InvalidValue(f"action: must be one of {', '.join(SetAction)}, not {request.action!r}.")
    require(session, "workflow", workflow_id)
    snapshot = session.value(last_stamp)
    ids = _selected(session, workflow_id, request)
    action, priorities = SetAction(request.action), set[int]()
    if action is SetAction.RERUN:
        changing, counts = _to_rerun(session, workflow_id, ids)
    else:
        values: dict[str, Any] = {"live": LIVE} if action in (SetAction.SKIP, SetAction.MARK_DONE) else {}
        values |= {"priority": request.priority} if action is SetAction.PRIORITY else {}
        rows = session.rows(_changing(action), ids=ids, **values)
        changing, counts = [row[0] for row in rows], Counter(row[1] for row in rows)
        priorities = {row[2] for row in rows}
    of_set = len(set(ids).intersection(changing))
    return TaskSetPlan(
        snapshot=snapshot,
        task_ids=changing,
        counts=dict(counts),
        selected=len(ids),
        unchanged=len(ids) - of_set,
        added=len(changing) - of_set,
        live=count_live(session, changing),
        is_active=is_active(session, workflow_id),
        priority=priorities.pop() if len(priorities) == 1 else None,
    )


def _selected(session: Session, workflow_id: int, request: TaskSetRequest) -> Sequence[int]:
    """Return the IDs of the tasks in the set; removed ones are not part of the workflow."""
    most = TASKS_MAX.get(SetAction(request.action), TASKS_UPDATED_MAX)
    if not request.task_ids:
        query = TasksQuery(status=request.status, array=request.array, name=request.name, host=request.host)
        ids = matching_ids(session, workflow_id, query, most + 1)
        if len(ids) > most:
            raise InvalidValue(
                f"The filter selects more than {most:,} tasks, the most to which {request.action} on the page applies."
                f" Narrow it, or use the command line: {_COMMANDS[SetAction(request.action)]}."
            )
        if TaskStatus.REMOVED.value not in request.status:
            return ids
    elif len(request.task_ids) > most:
        raise InvalidValue(f"task_ids: at most {most:,} to {request.action}.")
    else:
        ids = sorted(set(request.task_ids))
    statuses = dict(session.rows(_statuses, ids=ids, workflow=workflow_id))
    missing = [task_id for task_id in ids if task_id not in statuses]
    if missing:
        raise NotFound.of(f"task of workflow {workflow_id} with id", missing[0])
    return [task_id for task_id in ids if statuses[task_id] != TaskStatus.REMOVED]


def _to_rerun(session: Session, workflow_id: int, ids: Sequence[int]) -> tuple[list[int], Counter[str]]:
    """Return the tasks that a rerun changes: also all tasks downstream.

    Raises:
        InvalidValue: there are too many.
    """
    if not ids:
        return [], Counter()
    question = TaskUpdatePlanRequest(task_ids=list(ids), status=TaskStatus.REGISTERING.value, recursive=True)
    plan = plan_update(session, workflow_id, question)
    if len(plan.task_ids) > TASKS_UPDATED_MAX:
        raise InvalidValue(
            f"With all tasks downstream, {len(plan.task_ids):,} tasks would be rerun; an action on the page applies to"
            f" at most {TASKS_UPDATED_MAX:,}. Use the command line: jobmon task rerun."
        )
    return plan.task_ids, Counter(plan.counts)
