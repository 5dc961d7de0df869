"""Makes tasks ready and queues planned tasks, one request at a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from jobmon.client.defaults import checked_resources
from jobmon.client.swarm.planning import (
    Plan,
    adjusted_resources,
    plan,
    remarks_on_adjustment,
    tasks_to_arm,
    tasks_to_disarm,
)
from jobmon.client.swarm.state import StateUpdate
from jobmon.client.task_resources import TaskResources
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import CallableReturnedInvalidObject, ConfigError, InvalidResources, JobmonError
from jobmon.core.fsm import QUEUEABLE
from jobmon.core.wire.swarm import QueueBatch, TaskToArm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobmon.client.swarm.gateway import ServerGateway
    from jobmon.client.swarm.planning import Batch
    from jobmon.client.swarm.state import SwarmState
    from jobmon.client.swarm.task import SwarmTask

logger = logging.getLogger(__name__)


class Scheduler:
    """Queues ready tasks and arms their downstream tasks.

    Args:
        state: state of the run.
        gateway: sends requests to the server.
        arms: whether tasks are armed at all.
        fail_fast: whether the run queues nothing more after a permanent failure.
    """

    def __init__(
        self, state: SwarmState, gateway: ServerGateway, *, arms: bool = True, fail_fast: bool = False
    ) -> None:
        self._state = state
        self._gateway = gateway
        self._arms = arms
        self._fail_fast = fail_fast
        #: Tasks that the server did not queue; retried after the next changes.
        self._refused: list[SwarmTask] = []

    def make_ready(self, tasks: Iterable[SwarmTask], *, front: bool = False) -> None:
        """Determine the requests of these tasks and put the tasks into the queue.

        Raises:
            CallableReturnedInvalidObject: a `compute_resources_callable` did not return a dict.
            InvalidResources: a request is invalid or cannot be raised.
        """
        for task in tasks:
            if task.compute_resources_callable is not None:
                self._compute_resources(task)
            if task.status is TaskStatus.ADJUSTING_RESOURCES:
                self._raise_request(task)
            self._state.enqueue_task(task, front=front)

    def _compute_resources(self, task: SwarmTask) -> None:
        """Call the task's callable, once only; resources that it does not return keep their requested values."""
        callback, task.compute_resources_callable = task.compute_resources_callable, None
        asked = self._asked(task, callback)
        if not isinstance(asked, dict):
            raise CallableReturnedInvalidObject(
                f"compute_resources_callable of task {task.task_id} must return a dict of resources, "
                f"but it returned {asked!r}."
            )
        known = task.task_resources
        returned = checked_resources(
            asked, f"compute_resources_callable of task {task.task_id} returned {asked!r}", task.cluster.name
        )
        name = returned.get("queue")
        queue = task.cluster.queue(name or "") if name or known is None else known.queue
        requested = {**(known.requested_resources if known is not None else {}), **returned}
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
            logger.warning("Task %s is adjusted to the limits of its queue: %s; %s.", task.task_id, problems, coerced)
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
        """Raise the request of a task after a resource error, and log remarks about it."""
        before, error = task.task_resources, self._state.resource_errors.pop(task.task_id, None)
        after = adjusted_resources(task, error)
        for remark in remarks_on_adjustment(task, before or after, after, error):
            logger.warning("Task %s requests more: %s.", task.task_id, remark)
        self._state.set_resources(task, after)
        task.adjustments += 1

    def retry_refused(self) -> None:
        """Put tasks that the server did not queue back into the queue."""
        refused, self._refused = self._refused, []
        self.make_ready_again(refused)

    def make_ready_again(self, tasks: Iterable[SwarmTask]) -> None:
        """Put tasks back at the front of the queue, in order."""
        for task in reversed(list(tasks)):
            self._state.enqueue_task(task, front=True)

    @property
    def has_refused(self) -> bool:
        """Whether tasks are waiting to be retried."""
        return bool(self._refused)

    async def queue_next(self) -> tuple[StateUpdate, bool] | None:
        """Plan and send one request; return the resulting update, and whether there may be more to queue at once.

        Returns None if there was nothing to send. If the request fails, its tasks are ready again.
        """
        chosen = plan(self._state)
        self._state.take_from_queue(chosen.taken)
        try:
            await self._bind(chosen)
            armed, disarm = self._to_arm(chosen), tasks_to_disarm(self._state, chosen)
            if not (chosen.batches or armed or disarm):
                return None
            answer = await self._gateway.queue_task_batches(
                [_message(batch) for batch in chosen.batches],
                self._state.last_sync,
                [_arming(task, missing) for task, missing in armed.items()],
                [task.task_id for task in disarm],
                self._fail_fast,
                self._state.may_overtake([*chosen.tasks, *armed]),
            )
        except BaseException:
            self.make_ready_again(chosen.tasks)
            raise
        update = StateUpdate.from_task_status_response(answer.tasks_by_status)
        if answer.held:
            update = update.merge(StateUpdate(held=self._state.on_hold.union(answer.held)))
        self._refused += [
            task
            for task in chosen.tasks
            if task.task_id not in answer.held and update.task_statuses.get(task.task_id, task.status) in QUEUEABLE
        ]
        self._release({*armed, *disarm}, set(answer.armed), update)
        return update, chosen.is_full or bool(disarm)

    def _to_arm(self, chosen: Plan) -> dict[SwarmTask, list[SwarmTask]]:
        """Arm tasks, unless it is unknown up to what time the server's changes have been applied."""
        if not self._arms or self._refused or self._state.last_sync is None:
            return {}
        return tasks_to_arm(self._state, chosen)

    def _release(self, asked: set[SwarmTask], armed: set[int], update: StateUpdate) -> None:
        """Stop counting tasks that the server disarmed or did not arm, and has not queued either."""
        left = [
            task
            for task in sorted(asked, key=lambda each: each.task_id)
            if task.task_id not in armed and update.task_statuses.get(task.task_id) == TaskStatus.REGISTERING
        ]
        self.make_ready(self._state.armed.release(left))

    def release_lost(self) -> None:
        """Enqueue the armed tasks that the server has not queued although all their upstream tasks are done."""
        self.make_ready(self._state.armed.release_unqueued())

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
    resources_id, cluster_id = _ids(batch.task_resources)
    return QueueBatch(
        array_id=batch.array_id,
        task_ids=[task.task_id for task in batch.tasks],
        task_resources_id=resources_id,
        cluster_id=cluster_id,
    )


def _arming(task: SwarmTask, missing: Iterable[SwarmTask]) -> TaskToArm:
    resources_id, cluster_id = _ids(task.task_resources)
    return TaskToArm(
        task_id=task.task_id,
        task_resources_id=resources_id,
        cluster_id=cluster_id,
        missing=[upstream.task_id for upstream in missing],
    )


def _ids(resources: TaskResources | None) -> tuple[int, int]:
    if resources is None or resources.id is None or resources.cluster_id is None:
        raise ConfigError(f"{resources} is not bound to a cluster of the server.")
    return resources.id, resources.cluster_id
