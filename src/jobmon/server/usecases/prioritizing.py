"""Set priorities: of tasks and templates within a workflow, and of workflows that share a pool of cores.

Queued attempts get the new priority in place. Attempts that an agent has claimed in advance are recalled if others are
more urgent now, and so are queued ones that keep more urgent tasks from being queued because a limit is reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, TaskInstanceStatus
from jobmon.core.exceptions import WorkflowVersionConflict
from jobmon.core.wire.steering import TASKS_UPDATED_MAX, PriorityRequest, PriorityResponse
from jobmon.server.constructs import select, update
from jobmon.server.counting import counts_by_array
from jobmon.server.models import task, task_array, task_instance, workflow
from jobmon.server.problems import InvalidValue, NotFound, require_at_most
from jobmon.server.revisions import TASKS_NAMED_MAX
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.transaction import Audience
from jobmon.server.usecases import fair_share, precedence
from jobmon.server.usecases.resuming import require_owner
from jobmon.server.usecases.runs import require_workflow
from jobmon.server.usecases.steering import note_steering, require_unsteered, settled_ids, task_rows

if TYPE_CHECKING:
    from sqlalchemy import Select, Update

    from jobmon.server.transaction import Transaction

#: Maximum number of attempts that one request moves to another priority.
ATTEMPTS_PER_REQUEST_MAX: Final = 10_000

t, a, w, ti = task.c, task_array.c, workflow.c, task_instance.c


def set_priority(tx: Transaction, workflow_id: int, request: PriorityRequest) -> PriorityResponse:
    """Set the priority of tasks, of a template or of a workflow. Idempotent.

    Raises:
        NotFound: the workflow or the template does not exist, or a task is not in the workflow.
        InvalidValue: there are too many tasks, or both tasks and a template.
        InvalidRequest: the workflow belongs to another user, or a task was removed from it.
        WorkflowVersionConflict: somebody else steered the workflow after the preview, or the template or workflow has
            another priority than expected.
    """
    require_at_most(TASKS_UPDATED_MAX, len(request.task_ids), "task_ids")
    if request.task_ids and request.template:
        raise InvalidValue("task_ids, template: specify tasks or a template, not both.")
    require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    require_unsteered(tx, workflow_id, request.unchanged_since)
    if not request.task_ids and not request.template:
        return _of_workflow(tx, workflow_id, request)
    found = _arrays(tx, workflow_id, request.template) if request.template else {}
    former = set(found.values()).pop() if len(set(found.values())) == 1 else None
    _require_expected(request, former)
    arrays = [array_id for array_id, priority in found.items() if priority != request.priority]
    finished = settled_ids(task_rows(tx, workflow_id, request.task_ids)) if request.task_ids else []
    ids = tx.column(_other_priority, ids=request.task_ids, priority=request.priority) if request.task_ids else []
    changed = _unfinished(tx, workflow_id, arrays) if found else len(ids)
    if request.preview:
        return PriorityResponse(changed=changed, finished=finished, former=former)
    if arrays or ids:
        change, chosen = (_set_of_arrays, arrays) if found else (_set_of_tasks, ids)
        tx.run(change, priority=request.priority, ids=chosen)
        _note(tx, workflow_id, request, changed, tasks=ids[:TASKS_NAMED_MAX])
        note_steering(tx, workflow_id)
        tx.armed.release(workflow_id, tx.stamp)
        tx.wake(Audience.ORCHESTRATOR, workflow_id)
    is_complete = _move_queued(tx, workflow_id, list(found), request.task_ids) < ATTEMPTS_PER_REQUEST_MAX
    recalled = 0
    if is_complete:
        hindered = precedence.blocked(tx, workflow_id, list(found), request.task_ids)
        recalled = precedence.make_way(tx, workflow_id, hindered)
    return PriorityResponse(
        changed=changed, recalled=recalled, is_complete=is_complete, finished=finished, former=former
    )


def _require_expected(request: PriorityRequest, present: int | None) -> None:
    """Reject a request that is based on another priority than the present one.

    Raises:
        WorkflowVersionConflict: the priority was changed in the meantime.
    """
    if request.expected is not None and request.expected != present:
        now = "several priorities" if present is None else str(present)
        raise WorkflowVersionConflict(
            f"The priority was changed from {request.expected} to {now} in the meantime. Nothing was changed now."
        )


def _note(tx: Transaction, workflow_id: int, request: PriorityRequest, changed: int, **what: Any) -> None:
    named = {"template": request.template} if request.template else {}
    tx.audit(
        *(Actor.USER, "priority", workflow_id),
        user=request.user,
        priority=request.priority,
        changed=changed,
        **{name: value for name, value in (named | what).items() if value},
    )


# -- of a workflow -----------------------------------------------------------------------------------------------------


@statement
def _set_of_workflow() -> Update:
    priority = param("priority")
    return update(workflow).values(priority=priority).where(w.id == param("id"), w.priority != priority)


@statement
def _priority_of_workflow() -> Select[Any]:
    return select(w.priority).where(w.id == param("id"))


def _of_workflow(tx: Transaction, workflow_id: int, request: PriorityRequest) -> PriorityResponse:
    changed = _unfinished(tx, workflow_id)
    former = tx.value(_priority_of_workflow, id=workflow_id)
    _require_expected(request, former)
    if request.preview:
        return PriorityResponse(changed=0 if former == request.priority else changed, former=former)
    if not tx.changed(_set_of_workflow, priority=request.priority, id=workflow_id):
        return PriorityResponse(changed=0, former=former)
    _note(tx, workflow_id, request, changed)
    fair_share.divide_again(tx, workflow_id)
    return PriorityResponse(changed=changed, former=former)


def _unfinished(tx: Transaction, workflow_id: int, arrays: list[int] | None = None) -> int:
    """Count the unfinished tasks of a workflow, or of some of its arrays."""
    return sum(
        number
        for array_id, counts in counts_by_array(tx, workflow_id).items()
        for status, number in counts.items()
        if status not in fsm.SETTLED and (arrays is None or array_id in arrays)
    )


# -- of tasks and templates --------------------------------------------------------------------------------------------


@statement
def _arrays_of_template() -> Select[Any]:
    return select(a.id, a.priority).where(a.workflow_id == param("workflow"), a.name == param("template"))


def _arrays(tx: Transaction, workflow_id: int, template: str) -> dict[int, int]:
    """Return the arrays of a template, with their priorities.

    Raises:
        NotFound: the workflow has no tasks of this template.
    """
    found = dict(tx.rows(_arrays_of_template, workflow=workflow_id, template=template))
    if not found:
        raise NotFound.of(f"template of workflow {workflow_id} called", repr(template))
    return found


@statement
def _other_priority() -> Select[Any]:
    is_open = unindexed(t.status).not_in(fsm.SETTLED)
    return select(t.id).where(any_of(t.id, "ids"), t.priority != param("priority"), is_open).order_by(t.id)


@statement
def _set_of_tasks() -> Update:
    return update(task).values(priority=param("priority")).where(any_of(t.id, "ids"))


@statement
def _set_of_arrays() -> Update:
    return update(task_array).values(priority=param("priority")).where(any_of(a.id, "ids"))


@statements
def _queued_otherwise(of_array: bool) -> Select[Any]:
    """Select queued attempts that have another priority than their tasks, with the priority that they should have."""
    return (
        select(precedence.EFFECTIVE, ti.id)
        .select_from(precedence.ATTEMPTS)
        .where(
            *precedence.of_active_run(),
            ti.status == param("queued"),
            ti.priority != precedence.EFFECTIVE,
            precedence.chosen(of_array),
        )
        .limit(param("most"))
    )


@statement
def _set_of_attempt() -> Update:
    return update(task_instance).values(priority=param("priority")).where(ti.id == param("id"))


def _move_queued(tx: Transaction, workflow_id: int, arrays: list[int], task_ids: list[int]) -> int:
    """Give queued attempts the priorities of their tasks; return their number."""
    chosen = {"arrays": arrays} if arrays else {"ids": task_ids}
    rows = tx.rows(
        _queued_otherwise(bool(arrays)),
        workflow=workflow_id,
        queued=TaskInstanceStatus.QUEUED.value,
        most=ATTEMPTS_PER_REQUEST_MAX,
        **chosen,
    )
    tx.run_many(_set_of_attempt, ("priority", "id"), rows)
    return len(rows)
