"""Makes tasks ready and queues what the plan says, one request at a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from jobmon.client.swarm.planning import Plan, adjusted_resources, plan, remarks_on_adjustment
from jobmon.client.swarm.state import StateUpdate
from jobmon.client.task_resources import TaskResources
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import CallableReturnedInvalidObject, ConfigError, InvalidResources, JobmonError
from jobmon.core.reasons import QUEUEABLE
from jobmon.core.wire.swarm import QueueBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobmon.client.swarm.gateway import ServerGateway
    from jobmon.client.swarm.planning import Batch
    from jobmon.client.swarm.state import SwarmState
    from jobmon.client.swarm.task import SwarmTask

logger = logging.getLogger(__name__)


class Scheduler:
    """Queues ready tasks.

    Args:
        state: the run's memory.
        gateway: the door to the server.
    """

    def __init__(self, state: SwarmState, gateway: ServerGateway) -> None:
        self._state = state
        self._gateway = gateway
        #: Tasks that the server would not queue: tried again once there is news.
        self._refused: list[SwarmTask] = []

    def make_ready(self, tasks: Iterable[SwarmTask], *, front: bool = False) -> None:
        """Settle what these tasks ask for and put them into the queue.

        Raises:
            CallableReturnedInvalidObject: a `compute_resources_callable` did not return a dict.
            InvalidResources: a request cannot be read or raised.
        """
        for task in tasks:
            if task.compute_resources_callable is not None:
                self._compute_resources(task)
            if task.status is TaskStatus.ADJUSTING_RESOURCES:
                self._raise_request(task)
            self._state.enqueue_task(task, front=front)

    def _compute_resources(self, task: SwarmTask) -> None:
        """Call the task's callable, once and never again; what it does not name stays as asked for before."""
        callback, task.compute_resources_callable = task.compute_resources_callable, None
        asked = self._asked(task, callback)
        if not isinstance(asked, dict):
            raise CallableReturnedInvalidObject(
                f"compute_resources_callable of task {task.task_id} must return a dict of resources, "
                f"but it returned {asked!r}."
            )
        known = task.task_resources
        name = asked.get("queue")
        queue = task.cluster.queue(str(name or "")) if name or known is None else known.queue
        requested = {**(known.requested_resources if known is not None else {}), **asked}
        try:
            resources = TaskResources(requested, queue, task.cluster.name, task.cluster.cluster_id)
            valid, problems = resources.validate()
        except JobmonError as error:
            valid, problems = False, str(error)
        if not valid:
            raise InvalidResources(
                f"compute_resources_callable of task {task.task_id} returned {asked!r}: {problems}"
                f" (queue {queue.queue_name!r} of cluster {task.cluster.name!r})"
            )
        fits, problems = resources.validate(strict=True)
        coerced = resources.coerce_resources()
        if not fits and (lack := task.cluster.lack_of_room(resources.requested_resources)):
            raise InvalidResources(f"compute_resources_callable of task {task.task_id} returned {asked!r}: {lack}")
        if not fits:
            logger.warning("Task %s is moved within the limits of its queue: %s; %s.", task.task_id, problems, coerced)
        self._state.set_resources(task, coerced)

    @staticmethod
    def _asked(task: SwarmTask, callback: Callable[[], Any] | None) -> Any:
        try:
            return callback() if callback is not None else None
        except Exception as error:
            raise CallableReturnedInvalidObject(
                f"compute_resources_callable of task {task.task_id} raised {type(error).__name__}: {error}"
            ) from error

    def _raise_request(self, task: SwarmTask) -> None:
        """Raise what a task asks for after a resource error, and say what is worth knowing of it."""
        before, error = task.task_resources, self._state.resource_errors.pop(task.task_id, None)
        after = adjusted_resources(task, error)
        for remark in remarks_on_adjustment(task, before or after, after, error):
            logger.warning("Task %s asks for more: %s.", task.task_id, remark)
        self._state.set_resources(task, after)
        task.adjustments += 1

    def retry_refused(self) -> None:
        """Put back what the server would not queue."""
        refused, self._refused = self._refused, []
        self.make_ready_again(refused)

    def make_ready_again(self, tasks: Iterable[SwarmTask]) -> None:
        """Put tasks back before all others, in their order."""
        for task in reversed(list(tasks)):
            self._state.enqueue_task(task, front=True)

    @property
    def has_refused(self) -> bool:
        """Whether some tasks wait to be tried again."""
        return bool(self._refused)

    async def queue_next(self) -> tuple[StateUpdate, bool] | None:
        """Plan and send one request; return what became of its tasks and whether there may be more to queue at once.

        None: there was nothing to queue. When the request fails its tasks are ready again.
        """
        chosen = plan(self._state)
        self._state.take_from_queue(chosen.examined, chosen.held, chosen.released)
        if not chosen.batches:
            return None
        try:
            await self._bind(chosen)
            batches = [_message(batch) for batch in chosen.batches]
            answer = await self._gateway.queue_task_batches(batches, self._state.last_sync)
        except BaseException:
            self.make_ready_again(chosen.tasks)
            raise
        update = StateUpdate.from_task_status_response(answer.tasks_by_status)
        self._refused += [
            task for task in chosen.tasks if update.task_statuses.get(task.task_id, task.status) in QUEUEABLE
        ]
        return update, chosen.is_full

    async def _bind(self, chosen: Plan) -> None:
        unbound = list({batch.task_resources: None for batch in chosen.batches if batch.task_resources.id is None})
        if not unbound:
            return
        ids = await self._gateway.bind_task_resources(unbound)
        bound = dict(zip(unbound, ids, strict=True))
        for batch in chosen.batches:
            if batch.task_resources.id is None:
                batch.task_resources.id = bound[batch.task_resources]


def _message(batch: Batch) -> QueueBatch:
    resources = batch.task_resources
    if resources.id is None or resources.cluster_id is None:
        raise ConfigError(f"{resources} is not bound to a cluster of the server.")
    return QueueBatch(
        array_id=batch.array_id,
        task_ids=[task.task_id for task in batch.tasks],
        task_resources_id=resources.id,
        cluster_id=resources.cluster_id,
    )
