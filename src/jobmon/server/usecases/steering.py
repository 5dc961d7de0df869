"""What people say of tasks: these are done, run those again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Actor, Cause, TaskInstanceStatus, TaskStatus, WorkflowStatus
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire.steering import TASKS_UPDATED_MAX, TaskUpdateRequest, TaskUpdateResponse
from jobmon.server import transitions
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.usecases.resuming import active_runs, require_owner
from jobmon.server.usecases.runs import require_workflow

if TYPE_CHECKING:
    from jobmon.server.transaction import Transaction

#: So many are named in the audit trail.
_TASKS_NAMED_MAX: Final = 20


def update_tasks(tx: Transaction, workflow_id: int, request: TaskUpdateRequest) -> TaskUpdateResponse:
    """Move tasks to where a user says that they are. Again: changes nothing.

    Raises:
        NotFound: a task is not in the workflow.
        InvalidRequest: it belongs to somebody else, a run is active, or attempts are.
    """
    if len(request.task_ids) > TASKS_UPDATED_MAX:
        raise InvalidValue(f"task_ids: at most {TASKS_UPDATED_MAX} in one request.")
    target = transitions.settable_status(request.status)
    status = require_workflow(tx, workflow_id)
    require_owner(tx, workflow_id, request.user, any_owner=request.any_owner)
    rows = _rows(tx, workflow_id, request.task_ids)
    _require_peace(tx, workflow_id, request, {row[1] for row in rows}, target)
    live = [row[2] for row in rows if row[2] is not None]
    to_kill = _end_attempts(tx, workflow_id, live, target, force=request.force)
    changed = transitions.set_tasks(tx, workflow_id, request.task_ids, target)
    if changed or to_kill:
        tx.audit(
            Actor.USER,
            "task update",
            workflow_id,
            user=request.user,
            status=target.value,
            force=request.force,
            tasks=[row[0] for row in rows if row[1] != target][:_TASKS_NAMED_MAX],
            changed=changed,
            to_kill=to_kill,
        )
        _follow(tx, workflow_id, status)
    return TaskUpdateResponse(changed=changed, to_kill=to_kill, workflow_status=require_workflow(tx, workflow_id))


def _rows(tx: Transaction, workflow_id: int, task_ids: list[int]) -> list[tuple[int, str, int | None]]:
    """Return id and status of the tasks, with the newest attempt where it is live."""
    rows = tx.rows(
        """
        SELECT t.id, t.status, ti.id FROM task t
        LEFT JOIN task_instance ti ON ti.task_id = t.id AND ti.number = t.attempt_count AND ti.status IN (:live...)
        WHERE t.id IN (:ids...) AND +t.workflow_id = :workflow ORDER BY t.id
        """,
        ids=task_ids,
        workflow=workflow_id,
        live=list(transitions.LIVE),
    )
    missing = sorted(set(task_ids) - {row[0] for row in rows})
    if missing:
        raise NotFound.of(f"task of workflow {workflow_id} with id", missing[0])
    return [(row[0], row[1], row[2]) for row in rows]


def _require_peace(
    tx: Transaction, workflow_id: int, request: TaskUpdateRequest, sources: set[str], target: TaskStatus
) -> None:
    runs = active_runs(tx, workflow_id)
    if not runs:
        return
    if not request.force:
        raise InvalidRequest(
            f"Workflow {workflow_id} is being run by process {runs[0].pid} on {runs[0].host}. Stop it first"
            f" (jobmon workflow stop -w {workflow_id}), or use --force."
        )
    if TaskStatus.DONE.value in sources and target is TaskStatus.REGISTERING:
        raise InvalidRequest(
            f"Tasks that are done cannot be reset while workflow {workflow_id} is being run, since the run counts on"
            f" them. Stop it first: jobmon workflow stop -w {workflow_id}."
        )


def _end_attempts(tx: Transaction, workflow_id: int, attempt_ids: list[int], target: TaskStatus, *, force: bool) -> int:
    if not attempt_ids:
        return 0
    if not force or target is TaskStatus.DONE:
        advice = "end it first" if target is TaskStatus.DONE else "use --force to end it"
        raise InvalidRequest(f"Attempt {attempt_ids[0]}, and {len(attempt_ids)} in all, may be running: {advice}.")
    moves = transitions.AttemptMoves(tx, attempt_ids)
    for attempt in list(moves.attempts.values()):
        is_queued = attempt.status == TaskInstanceStatus.QUEUED
        wanted = TaskInstanceStatus.ERROR if is_queued else TaskInstanceStatus.KILL_SELF
        moves.move(attempt.id, wanted, cause=Cause.KILLED)
    ended = moves.write()
    transitions.end_untaken(tx, workflow_id, Cause.KILLED)
    return ended


def _follow(tx: Transaction, workflow_id: int, status: str) -> None:
    """A workflow without an active run is done when all its tasks are, and not done otherwise."""
    if active_runs(tx, workflow_id):
        return
    unfinished = tx.value(
        "SELECT id FROM task WHERE workflow_id = :id AND status != :done LIMIT 1",
        id=workflow_id,
        done=TaskStatus.DONE.value,
    )
    if unfinished is None:
        transitions.move_workflow(tx, workflow_id, status, WorkflowStatus.DONE)
    elif status == WorkflowStatus.DONE:
        transitions.move_workflow(tx, workflow_id, status, WorkflowStatus.REGISTERING)
