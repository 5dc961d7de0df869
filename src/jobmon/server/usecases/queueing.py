"""The orchestrator queues tasks: G or A -> Q, each with a new attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.exceptions import StaleRun, WorkflowRunStateError
from jobmon.core.wire.swarm import QUEUE_BATCH_MAX, QueueBatch, QueueRequest, QueueResponse
from jobmon.server import transitions
from jobmon.server.models.types import to_microseconds
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.usecases.runs import require_run

if TYPE_CHECKING:
    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions import RunRow

from jobmon.core.constants import WorkflowRunStatus

#: Later than any stamp, microseconds.
FAR_FUTURE = 1 << 62
_NOT_YET = (WorkflowRunStatus.REGISTERED, WorkflowRunStatus.LINKING)


def queue(tx: Transaction, run_id: int, request: QueueRequest) -> QueueResponse:
    """Queue what may be queued; answer with the status that every task has then.

    Raises:
        StaleRun: a newer run exists, or this one is over or told to make room.
        NotFound: a task, array, cluster or request for resources that does not exist.
    """
    wanted = [task_id for batch in request.batches for task_id in batch.task_ids]
    if len(wanted) > QUEUE_BATCH_MAX:
        raise InvalidValue(f"batches: at most {QUEUE_BATCH_MAX} tasks in one request.")
    run = require_run(tx, run_id)
    _require_queuing(run)
    seen = FAR_FUTURE if request.seen is None else to_microseconds(request.seen)
    for batch in request.batches:
        _require_resources(tx, batch)
        transitions.queue_tasks(tx, run, batch.task_ids, batch.task_resources_id, batch.cluster_id, seen)
    return QueueResponse(tasks_by_status=_statuses(tx, run.workflow_id, wanted))


def _require_queuing(run: RunRow) -> None:
    if run.status in _NOT_YET:
        raise WorkflowRunStateError(f"Workflow run {run.id} is in state {run.status}: it is not bound yet.")
    if not run.is_newest or run.status not in transitions.QUEUING_RUNS:
        raise StaleRun(f"Workflow run {run.id} is in state {run.status} or was replaced; it may not queue any more.")


def _require_resources(tx: Transaction, batch: QueueBatch) -> None:
    cluster_id = tx.value(
        "SELECT q.cluster_id FROM task_resources r JOIN queue q ON q.id = r.queue_id WHERE r.id = :id",
        id=batch.task_resources_id,
    )
    if cluster_id is None:
        raise NotFound.of("request for resources", batch.task_resources_id)
    if cluster_id != batch.cluster_id:
        raise InvalidValue(f"cluster_id: request {batch.task_resources_id} is for cluster {cluster_id}.")


def _statuses(tx: Transaction, workflow_id: int, task_ids: list[int]) -> dict[str, list[int]]:
    by_status: dict[str, list[int]] = {}
    count = 0
    for task_id, status in tx.rows(
        "SELECT id, status FROM task WHERE id IN (:ids...) AND +workflow_id = :workflow",
        ids=task_ids,
        workflow=workflow_id,
    ):
        by_status.setdefault(status, []).append(task_id)
        count += 1
    if count != len(set(task_ids)):
        known = {task_id for ids in by_status.values() for task_id in ids}
        raise NotFound.of(f"task of workflow {workflow_id} with id", min(set(task_ids) - known))
    return by_status
