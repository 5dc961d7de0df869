"""Set the status of tasks at a user's request: done, skipped, or to be rerun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core import fsm
from jobmon.core.constants import Actor, Cause, TaskInstanceStatus, TaskStatus, WorkflowStatus
from jobmon.core.exceptions import InvalidRequest, WorkflowVersionConflict
from jobmon.core.texts import number_of
from jobmon.core.wire.steering import TASKS_UPDATED_MAX, TaskUpdateRequest, TaskUpdateResponse
from jobmon.server import transitions
from jobmon.server.constructs import and_, func, select, update
from jobmon.server.joins import IS_NEWEST_ATTEMPT
from jobmon.server.lookups import require_not_removed, require_skippable
from jobmon.server.models import dag_node, task, task_instance, upstream_set, upstream_set_member, workflow
from jobmon.server.problems import InvalidValue, NotFound, require_at_most
from jobmon.server.revisions import TASKS_NAMED_MAX
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.usecases.resuming import active_runs, require_owner
from jobmon.server.usecases.runs import require_workflow
from jobmon.server.usecases.versions import accept

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Select, Update

    from jobmon.server.transaction import Transaction

t, ti = task.c, task_instance.c


@statement
def _tasks_with_live_attempts() -> Select[Any]:
    """Select tasks of the workflow by ID, with the newest attempt if it is live."""
    return (
        select(t.id, t.status, ti.id)
        .outerjoin_from(task, task_instance, and_(IS_NEWEST_ATTEMPT, ti.status.in_(transitions.LIVE)))
        .where(any_of(t.id, "ids"), unindexed(t.workflow_id) == param("workflow"))
        .order_by(t.id)
    )


@statement
def _unfinished_task() -> Select[Any]:
    return select(t.id).where(t.workflow_id == param("workflow"), t.status.not_in(fsm.SETTLED)).limit(1)


@statement
def _request_reruns() -> Update:
    """Note that reruns were requested: an attempt that is told to terminate may still finish; see `is_outdated`."""
    return update(task).values(requested_at=param("stamp")).where(any_of(t.id, "ids"))


def update_tasks(tx: Transaction, workflow_id: int, request: TaskUpdateRequest) -> TaskUpdateResponse:
    """Set the status of tasks at a user's request. Idempotent.

    Raises:
        NotFound: the workflow does not exist, or a task is not in it.
        InvalidValue: there are too many tasks, or the status cannot be set.
        InvalidRequest: the workflow belongs to another user, or a run or attempts are active.
        WorkflowVersionConflict: the tasks, or what steers the workflow, changed after the preview.
    """
    most = max(len(request.task_ids), len(request.accepted_ids))
    require_at_most(TASKS_UPDATED_MAX, most, "task_ids, accepted_ids")
    if len(request.accepted_ids) != len(request.accepted):
        raise InvalidValue("accepted: must have as many entries as accepted_ids.")
    target = transitions.settable_status(request.status)
    status = require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    rows = task_rows(tx, workflow_id, request.task_ids)
    task_rows(tx, workflow_id, request.accepted_ids)
    _require_unchanged(tx, workflow_id, request)
    _require_peace(tx, workflow_id, request)
    if target is TaskStatus.SKIPPED:
        require_skippable(rows)
    live = [row[2] for row in rows if row[2] is not None]
    to_kill = _end_attempts(tx, workflow_id, live, target, force=request.force)
    if to_kill:
        tx.run(_request_reruns, ids=[row[0] for row in rows if row[2] is not None], stamp=tx.stamp)
    changed = transitions.set_tasks(tx, workflow_id, request.task_ids, target)
    accept(tx, request.accepted_ids, request.accepted)
    if changed or to_kill:
        if target is TaskStatus.REGISTERING:
            note_steering(tx, workflow_id)
            _postpone_dependents(tx, workflow_id, [row[0] for row in rows if row[1] == TaskStatus.DONE])
        tx.audit(
            Actor.USER,
            "skip" if target is TaskStatus.SKIPPED else "task update",
            workflow_id,
            user=request.user,
            status=target.value,
            force=request.force,
            tasks=[row[0] for row in rows if row[1] != target][:TASKS_NAMED_MAX],
            changed=changed,
            to_kill=to_kill,
        )
        _follow(tx, workflow_id, status)
    return TaskUpdateResponse(changed=changed, to_kill=to_kill, workflow_status=require_workflow(tx, workflow_id))


@statement
def _touch_dependents() -> Update:
    """Give the tasks directly downstream of reopened ones a new stamp, if they may be queued."""
    n, m, tasks = dag_node.c, upstream_set_member.c, task.alias("reopened")
    nodes = select(tasks.c.node_id).where(any_of(tasks.c.id, "ids"))
    dag_id = select(workflow.c.dag_id).where(workflow.c.id == param("workflow")).scalar_subquery()
    sets = (
        select(m.upstream_set_id)
        .join_from(upstream_set_member, upstream_set, upstream_set.c.id == m.upstream_set_id)
        .where(m.node_id.in_(nodes), upstream_set.c.dag_id == dag_id)
    )
    dependents = select(n.node_id).where(n.upstream_set_id.in_(sets))
    return (
        update(task)
        .values(status_at=param("stamp"))
        .where(t.workflow_id == param("workflow"), t.node_id.in_(dependents), any_of(t.status, "queueable"))
    )


@statement
def _note_steering() -> Update:
    return update(workflow).values(steered_at=param("stamp")).where(workflow.c.id == param("workflow"))


def note_steering(tx: Transaction, workflow_id: int) -> None:
    """Note that tasks of a workflow were held, released, or are to be rerun."""
    tx.run(_note_steering, workflow=workflow_id, stamp=tx.stamp)


@statement
def _steered_at() -> Select[Any]:
    return select(workflow.c.steered_at).where(workflow.c.id == param("workflow"))


@statement
def _count_changed() -> Select[Any]:
    """Select the number of tasks whose status changed after a logical time."""
    return select(func.count()).where(any_of(t.id, "ids"), unindexed(t.status_at) > param("since"))


def require_unsteered(tx: Transaction, workflow_id: int, since: int) -> None:
    """Reject a request that is based on a preview older than the last steering of the workflow.

    Args:
        tx: the transaction.
        workflow_id: ID of the workflow.
        since: logical time of the preview; 0: there was none.

    Raises:
        WorkflowVersionConflict: tasks were steered in the meantime.
    """
    if since and tx.value(_steered_at, workflow=workflow_id) > since:
        raise WorkflowVersionConflict(
            f"Tasks of workflow {workflow_id} were held, released, edited, reopened or given another priority since the"
            " preview. Nothing was changed now: check the new preview."
        )


def _require_unchanged(tx: Transaction, workflow_id: int, request: TaskUpdateRequest) -> None:
    if not request.unchanged_since:
        return
    require_unsteered(tx, workflow_id, request.unchanged_since)
    changed = tx.value(_count_changed, ids=request.task_ids, since=request.unchanged_since)
    if changed:
        raise WorkflowVersionConflict(
            f"The status of {number_of(changed, 'task')} changed since the preview. Nothing was changed now: check the"
            " new preview."
        )


def _postpone_dependents(tx: Transaction, workflow_id: int, reopened: list[int]) -> None:
    """Invalidate requests to queue that were sent before their orchestrator knew of the reopened upstream tasks."""
    if reopened and active_runs(tx, workflow_id):
        values = {"workflow": workflow_id, "stamp": tx.stamp, "queueable": sorted(fsm.QUEUEABLE)}
        tx.run(_touch_dependents, ids=reopened, **values)


def task_rows(tx: Transaction, workflow_id: int, task_ids: list[int]) -> list[tuple[int, str, int | None]]:
    """Return ID and status of the tasks, with the newest attempt if it is live.

    Raises:
        NotFound: a task is not in the workflow.
        InvalidRequest: a task was removed from it.
    """
    rows = tx.rows(_tasks_with_live_attempts, ids=task_ids, workflow=workflow_id)
    missing = sorted(set(task_ids) - {row[0] for row in rows})
    if missing:
        raise NotFound.of(f"task of workflow {workflow_id} with id", missing[0])
    require_not_removed(workflow_id, rows)
    return [(row[0], row[1], row[2]) for row in rows]


def settled_ids(rows: Iterable[Sequence[Any]]) -> list[int]:
    """Return the IDs of tasks that are done or skipped, of rows that begin with ID and status."""
    return sorted(row[0] for row in rows if row[1] in fsm.SETTLED)


def _require_peace(tx: Transaction, workflow_id: int, request: TaskUpdateRequest) -> None:
    runs = active_runs(tx, workflow_id)
    if not runs:
        return
    if not request.force:
        raise InvalidRequest(
            f"Workflow {workflow_id} is being run by process {runs[0].pid} on {runs[0].host}. Stop it first"
            f" (jobmon workflow stop -w {workflow_id}), or use --force."
        )


def _end_attempts(tx: Transaction, workflow_id: int, attempt_ids: list[int], target: TaskStatus, *, force: bool) -> int:
    if not attempt_ids:
        return 0
    if not force or target is TaskStatus.DONE:
        advice = "stop it first" if target is TaskStatus.DONE else "use --force to stop it"
        raise InvalidRequest(f"Attempt {attempt_ids[0]} (of {len(attempt_ids)} in all) may be running: {advice}.")
    moves = transitions.AttemptMoves(tx, attempt_ids)
    for attempt in list(moves.attempts.values()):
        is_queued = attempt.status == TaskInstanceStatus.QUEUED
        wanted = TaskInstanceStatus.ERROR if is_queued else TaskInstanceStatus.KILL_SELF
        moves.move(attempt.id, wanted, cause=Cause.KILLED)
    ended = moves.write()
    transitions.end_untaken(tx, workflow_id, Cause.KILLED)
    return ended


def _follow(tx: Transaction, workflow_id: int, status: str) -> None:
    """Update the status of a workflow without an active run: done if all its tasks are, open otherwise."""
    if active_runs(tx, workflow_id):
        return
    if tx.value(_unfinished_task, workflow=workflow_id) is None:
        transitions.move_workflow(tx, workflow_id, status, WorkflowStatus.DONE)
    elif status == WorkflowStatus.DONE:
        transitions.move_workflow(tx, workflow_id, status, WorkflowStatus.REGISTERING)
