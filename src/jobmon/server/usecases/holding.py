"""Hold tasks, and release them. A held task is not queued; its attempt is recalled if it has not started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core import fsm
from jobmon.core.constants import Actor
from jobmon.core.wire.steering import TASKS_UPDATED_MAX, HoldRequest, HoldResponse
from jobmon.server.constructs import select, update
from jobmon.server.joins import IS_NEWEST_ATTEMPT, changes_hold
from jobmon.server.lookups import require_not_removed
from jobmon.server.models import task, task_array, task_instance
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.revisions import TASKS_NAMED_MAX
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.transaction import Audience
from jobmon.server.usecases.precedence import recall
from jobmon.server.usecases.resuming import require_owner
from jobmon.server.usecases.runs import require_workflow
from jobmon.server.usecases.steering import note_steering, require_unsteered, settled_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select, Update

    from jobmon.server.transaction import Transaction

t, a, ti = task.c, task_array.c, task_instance.c


@statements
def _named(held: bool) -> Select[Any]:
    """Select tasks by ID, if they are in the workflow, and whether a request changes them."""
    changes = changes_hold(held=held)
    return select(t.id, t.status, changes).where(any_of(t.id, "ids"), unindexed(t.workflow_id) == param("workflow"))


@statements
def _of_template(held: bool) -> Select[Any]:
    """Select the first tasks of a template that a request changes."""
    arrays = select(a.id).where(a.workflow_id == param("workflow"), a.name == param("template"))
    return (
        select(t.id)
        .where(t.workflow_id == param("workflow"), t.array_id.in_(arrays), changes_hold(held=held))
        .order_by(t.id)
        .limit(param("most"))
    )


@statement
def _array_of_template() -> Select[Any]:
    return select(a.id).where(a.workflow_id == param("workflow"), a.name == param("template")).limit(1)


@statement
def _set_held() -> Update:
    return update(task).values(held=param("held")).where(any_of(t.id, "ids"))


@statement
def _unstarted() -> Select[Any]:
    """Select the newest attempts of tasks that have not started, with their status."""
    return (
        select(ti.id, ti.status)
        .join_from(task, task_instance, IS_NEWEST_ATTEMPT)
        .where(any_of(t.id, "ids"), any_of(unindexed(ti.status), "unstarted"))
    )


def hold(tx: Transaction, workflow_id: int, request: HoldRequest) -> HoldResponse:
    """Hold tasks, or release them. Idempotent.

    Raises:
        NotFound: the workflow or the template does not exist, or a task is not in the workflow.
        InvalidValue: there are too many tasks, or neither tasks nor a template.
        InvalidRequest: the workflow belongs to another user.
        WorkflowVersionConflict: it was steered after the preview.
    """
    if len(request.task_ids) > TASKS_UPDATED_MAX:
        raise InvalidValue(f"task_ids: at most {TASKS_UPDATED_MAX} in one request.")
    if bool(request.task_ids) == bool(request.template):
        raise InvalidValue("task_ids, template: specify either tasks or a template.")
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    require_unsteered(tx, workflow_id, request.unchanged_since)
    ids, unchanged, finished = _chosen(tx, workflow_id, request)
    if not ids or request.preview:
        return HoldResponse(changed=len(ids), unchanged=unchanged, finished=finished, snapshot=request.unchanged_since)
    tx.run(_set_held, ids=ids, held=request.held)
    note_steering(tx, workflow_id)
    recalled = recall_tasks(tx, workflow_id, ids) if request.held else 0
    tx.armed.release(workflow_id, tx.stamp)
    tx.wake(Audience.ORCHESTRATOR, workflow_id)
    tx.audit(
        Actor.USER,
        "hold" if request.held else "release",
        workflow_id,
        user=request.user,
        tasks=ids[:TASKS_NAMED_MAX],
        changed=len(ids),
        **({"template": request.template} if request.template else {}),
        **({"recalled": recalled} if recalled else {}),
    )
    return HoldResponse(changed=len(ids), recalled=recalled, unchanged=unchanged, finished=finished, snapshot=tx.stamp)


def _chosen(tx: Transaction, workflow_id: int, request: HoldRequest) -> tuple[list[int], int, list[int]]:
    """Return the tasks that change, how many of the named tasks do not, and those of them that are finished."""
    if request.template:
        found = {"workflow": workflow_id, "template": request.template}
        if tx.value(_array_of_template, **found) is None:
            raise NotFound.of(f"template of workflow {workflow_id} called", repr(request.template))
        return tx.column(_of_template(request.held), **found, most=TASKS_UPDATED_MAX), 0, []
    rows = tx.rows(_named(request.held), ids=request.task_ids, workflow=workflow_id)
    missing = sorted(set(request.task_ids) - {row[0] for row in rows})
    if missing:
        raise NotFound.of(f"task of workflow {workflow_id} with id", missing[0])
    require_not_removed(workflow_id, rows)
    ids = sorted(task_id for task_id, _, changes in rows if changes)
    return ids, len(rows) - len(ids), settled_ids(rows)


def recall_tasks(tx: Transaction, workflow_id: int, task_ids: Sequence[int]) -> int:
    """Recall the attempts of tasks that have not started, uncharged; return their number."""
    return recall(tx, workflow_id, tx.rows(_unstarted, ids=task_ids, unstarted=fsm.NOT_STARTED))
