"""Queue tasks: G or A -> Q, each with a new attempt. The orchestrator requests this, or arms tasks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core import fsm
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import StaleRun, WorkflowRunStateError
from jobmon.core.wire.swarm import (
    ARMED_TASKS_MAX,
    MISSING_UPSTREAMS_MAX,
    QUEUE_BATCH_MAX,
    QueueRequest,
    QueueResponse,
    TaskToArm,
)
from jobmon.server import transitions
from jobmon.server.armed import ArmedTask
from jobmon.server.constructs import select
from jobmon.server.models import queue as queue_table
from jobmon.server.models import task, task_resources
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.times import to_microseconds
from jobmon.server.transaction import Audience
from jobmon.server.usecases import precedence
from jobmon.server.usecases.runs import require_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Select

    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions import RunRow

#: Later than any stamp, microseconds.
FAR_FUTURE = 1 << 62


@statement
def _cluster_of_resources() -> Select[Any]:
    q, r = queue_table.c, task_resources.c
    return (
        select(q.cluster_id)
        .join_from(task_resources, queue_table, q.id == r.queue_id)
        .where(r.id == param("resources"))
    )


@statement
def _statuses_of_tasks() -> Select[Any]:
    """Select the status of tasks of the workflow, in the order of their IDs, and whether they are held."""
    t = task.c
    asked = any_of(t.id, "ids"), unindexed(t.workflow_id) == param("workflow")
    return select(t.id, t.status, t.held).where(*asked).order_by(t.id)


@statement
def _failed_since() -> Select[Any]:
    """Select a task of a workflow that failed permanently after a stamp."""
    t = task.c
    failed = t.status == param("failed")
    return select(t.id).where(t.workflow_id == param("workflow"), t.status_at > param("seen"), failed).limit(1)


def queue(tx: Transaction, run_id: int, request: QueueRequest) -> QueueResponse:
    """Queue the tasks that may be queued, disarm and arm others; return the resulting status of every task.

    Raises:
        StaleRun: a newer run exists, or this run is over or was told to make way.
        WorkflowRunStateError: the run is not bound yet.
        NotFound: the run, task or resource request does not exist.
        InvalidValue: there are too many tasks, a request for another cluster, or tasks to arm without `seen`.
    """
    queued = [task_id for batch in request.batches for task_id in batch.task_ids]
    if len(queued) > QUEUE_BATCH_MAX:
        raise InvalidValue(f"batches: at most {QUEUE_BATCH_MAX} tasks in one request.")
    _check_armed(request)
    run = require_run(tx, run_id)
    _require_queuing(run)
    seen = FAR_FUTURE if request.seen is None else to_microseconds(request.seen)
    asked = {(batch.task_resources_id, batch.cluster_id) for batch in request.batches}
    _require_resources(tx, asked | {(one.task_resources_id, one.cluster_id) for one in request.armed})
    moved: set[int] = set()
    for batch in request.batches:
        moved.update(transitions.queue_tasks(tx, run, batch.task_ids, batch.task_resources_id, batch.cluster_id, seen))
    if moved:
        tx.wake(Audience.DISTRIBUTOR, run.workflow_id)
    if request.may_overtake and precedence.make_way(tx, run.workflow_id):
        moved.clear()  # some may not be queued any more
    if request.disarm:
        tx.armed.disarm(run.workflow_id, run.id, request.disarm, tx.known_until)
    armed = _arm(tx, run, request, seen) if request.armed else []
    wanted = dict.fromkeys([*queued, *request.disarm, *(one.task_id for one in request.armed)])
    held: list[int] = []
    others = [task_id for task_id in wanted if task_id not in moved]
    by_status = _statuses(tx, run.workflow_id, others, held) if others else {}
    if moved:
        by_status[TaskStatus.QUEUED.value] = sorted([*moved, *by_status.get(TaskStatus.QUEUED.value, ())])
    return QueueResponse(tasks_by_status=by_status, armed=armed, held=held)


def _check_armed(request: QueueRequest) -> None:
    if len(request.armed) > ARMED_TASKS_MAX:
        raise InvalidValue(f"armed: at most {ARMED_TASKS_MAX} tasks in one request.")
    if len(request.disarm) > ARMED_TASKS_MAX:
        raise InvalidValue(f"disarm: at most {ARMED_TASKS_MAX} tasks in one request.")
    if any(not 1 <= len(one.missing) <= MISSING_UPSTREAMS_MAX for one in request.armed):
        raise InvalidValue(f"missing: must name 1 to {MISSING_UPSTREAMS_MAX} upstream tasks of a task to arm.")
    if request.armed and request.seen is None:
        raise InvalidValue("seen: must be given in a request that arms tasks.")


def _arm(tx: Transaction, run: RunRow, request: QueueRequest, seen: int) -> list[int]:
    """Arm the tasks that can still wait for upstream tasks; return them."""
    involved = {one.task_id for one in request.armed} | {each for one in request.armed for each in one.missing}
    by_status = _statuses(tx, run.workflow_id, sorted(involved))
    waiting, failed = set(by_status.get(TaskStatus.REGISTERING, ())), set(by_status.get(TaskStatus.ERROR_FATAL, ()))
    done = {task_id for status in fsm.SATISFIED for task_id in by_status.get(status, ())}
    armed = []
    for one in request.armed:
        missing = set(one.missing) - done
        is_possible = one.task_id in waiting and missing and not missing & failed
        if is_possible and tx.armed.arm(run.workflow_id, _armed_task(run, one, seen, request), sorted(missing)):
            armed.append(one.task_id)
    return armed


def _armed_task(run: RunRow, asked: TaskToArm, seen: int, request: QueueRequest) -> ArmedTask:
    return ArmedTask(
        asked.task_id, run.id, asked.task_resources_id, asked.cluster_id, seen, request.fail_fast, request.may_overtake
    )


def fire(tx: Transaction, run_id: int, due: Sequence[ArmedTask]) -> list[int]:
    """Queue armed tasks whose last upstream task became DONE in this transaction; return them. Wakes no long poll.

    Tasks that may not be queued any more, or that are affected by a change their orchestrator did not know, are left to
    the orchestrator.
    """
    run = require_run(tx, run_id)
    if not run.may_queue:
        return []
    groups: dict[tuple[int, int, int], list[int]] = {}
    for one in due:
        if one.run_id == run_id and one.seen >= run.limits_changed_at and not _has_failed(tx, run, one):
            groups.setdefault((one.task_resources_id, one.cluster_id, one.seen), []).append(one.task_id)
    for (task_resources_id, cluster_id, seen), task_ids in groups.items():
        transitions.queue_tasks(tx, run, task_ids, task_resources_id, cluster_id, seen)
    if groups and any(one.may_overtake for one in due):
        precedence.make_way(tx, run.workflow_id)
    return [task_id for task_ids in groups.values() for task_id in task_ids]


def _has_failed(tx: Transaction, run: RunRow, armed: ArmedTask) -> bool:
    """Return whether a run that fails fast has a failure that its orchestrator did not know."""
    if not armed.fail_fast:
        return False
    failed = TaskStatus.ERROR_FATAL.value
    return tx.value(_failed_since, workflow=run.workflow_id, seen=armed.seen, failed=failed) is not None


def _require_queuing(run: RunRow) -> None:
    if run.status in fsm.UNBOUND_RUNS:
        raise WorkflowRunStateError(f"Workflow run {run.id} has status {run.status}: it is not bound yet.")
    if not run.may_queue:
        raise StaleRun(f"Workflow run {run.id} has status {run.status} or was replaced; it may no longer queue tasks.")


def _require_resources(tx: Transaction, asked: Iterable[tuple[int, int]]) -> None:
    """Check that resource requests exist and are for the given clusters."""
    for resources_id, wanted_id in sorted(asked):
        cluster_id = tx.value(_cluster_of_resources, resources=resources_id)
        if cluster_id is None:
            raise NotFound.of("request for resources", resources_id)
        if cluster_id != wanted_id:
            raise InvalidValue(f"cluster_id: request {resources_id} is for cluster {cluster_id}.")


def _statuses(
    tx: Transaction, workflow_id: int, task_ids: list[int], held: list[int] | None = None
) -> dict[str, list[int]]:
    """Return tasks by status; held tasks are added to `held`."""
    by_status: dict[str, list[int]] = {}
    count = 0
    for task_id, status, is_held in tx.rows(_statuses_of_tasks, ids=task_ids, workflow=workflow_id):
        by_status.setdefault(status, []).append(task_id)
        if is_held and held is not None:
            held.append(task_id)
        count += 1
    if count != len(set(task_ids)):
        known = {task_id for ids in by_status.values() for task_id in ids}
        raise NotFound.of(f"task of workflow {workflow_id} with id", min(set(task_ids) - known))
    return by_status
