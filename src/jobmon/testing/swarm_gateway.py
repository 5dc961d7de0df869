"""A small true server for the swarm, in memory, with the methods of `ServerGateway`; for a virtual-time loop.

It keeps tasks, attempts, limits and the logical clock of the change feed, holds questions open, runs each queued task
for a while and ends it as the script says. It refuses what a real server would refuse, and it notes every breach of
the rules that the orchestrator has to keep (`breaches`): limits, order, double queueing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from jobmon.client.swarm.gateway import (
    HeartbeatResponse,
    QueueResponse,
    StatusUpdateResponse,
    TaskStatusUpdatesResponse,
)
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING, TaskInstanceStatus, TaskStatus, WorkflowRunStatus
from jobmon.core.exceptions import InvalidStateTransition, StaleRun
from jobmon.core.fsm import TASK_OF_INSTANCE, Machine, Verdict, is_terminal, judge
from jobmon.core.retry import after_failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.client.task_resources import TaskResources
    from jobmon.core.wire.swarm import QueueBatch, ResourceError

_IN_FLIGHT: Final = frozenset({TaskStatus.QUEUED, TaskStatus.INSTANTIATING, TaskStatus.LAUNCHED, TaskStatus.RUNNING})
_QUEUEABLE: Final = frozenset({TaskStatus.REGISTERING, TaskStatus.ADJUSTING_RESOURCES})
_MAKING_ROOM: Final = (WorkflowRunStatus.COLD_RESUME, WorkflowRunStatus.HOT_RESUME)


@dataclass
class FakeTask:
    """A task of the fake server. `outcomes`: how its attempts end, in order; after the last one they succeed."""

    task_id: int
    array_id: int = 1
    upstreams: frozenset[int] = frozenset()
    outcomes: list[TaskInstanceStatus] = field(default_factory=list)
    seconds: float = 1.0
    max_attempts: int = 3
    status: TaskStatus = TaskStatus.REGISTERING
    attempts: int = 0
    stamp: int = 0
    #: What each attempt asked for.
    requests: list[int] = field(default_factory=list)


class FakeSwarmGateway:
    """The server and the door to it in one.

    Args:
        tasks: what the workflow consists of.
        array_limits: array -> how many of its tasks may run at once; none given: no limit.
        limit: how many tasks may run at once in all.
        status: status of the run.
    """

    def __init__(
        self,
        tasks: Iterable[FakeTask],
        array_limits: dict[int, int] | None = None,
        limit: int = MAX_CONCURRENTLY_RUNNING,
        status: WorkflowRunStatus = WorkflowRunStatus.BOUND,
    ) -> None:
        self.tasks = {task.task_id: task for task in tasks}
        self.limit = limit
        arrays = {task.array_id: MAX_CONCURRENTLY_RUNNING for task in self.tasks.values()}
        self.array_limits = {**arrays, **(array_limits or {})}
        self.status = status
        self.statuses = [status]
        self.breaches: list[str] = []
        self.requests: Counter[str] = Counter()
        self.queued_batches: list[QueueBatch] = []
        self.in_flight_max = 0
        self.is_stale = False
        #: How attempts that end with a resource error ended.
        self.resource_error: ResourceError | None = None
        #: Changes of these tasks are kept from the feed; only a full snapshot tells them.
        self.silent: set[int] = set()
        #: Whether attempts start to run at all.
        self.is_distributing = True
        self._stamp = 0
        self._run_stamp = 0
        self._limits_stamp = 0
        self._changed = asyncio.Event()
        self._endings: dict[int, asyncio.TimerHandle] = {}
        self._resources: dict[TaskResources, int] = {}

    # -- what tests do to it ---------------------------------------------------------------------------------------

    def set_status(self, status: WorkflowRunStatus) -> None:
        """Change the run's status from outside."""
        self.status = status
        self.statuses.append(status)
        self._run_stamp = self._tick()

    def set_limit(self, limit: int) -> None:
        """Change how many tasks may run at once."""
        self.limit = limit
        self._limits_stamp = self._tick()

    def set_array_limit(self, array_id: int, limit: int) -> None:
        """Change how many tasks of an array may run at once."""
        self.array_limits[array_id] = limit
        self._limits_stamp = self._tick()

    def end_all(self) -> None:
        """End all attempts as killed: not charged, so their tasks are to be run again."""
        for task in self.tasks.values():
            if task.status in _IN_FLIGHT:
                self._cancel(task)
                self._move(task, TaskStatus.REGISTERING)

    def count(self, *statuses: TaskStatus) -> int:
        """Return how many tasks have one of these statuses."""
        return sum(task.status in statuses for task in self.tasks.values())

    # -- the methods of the gateway --------------------------------------------------------------------------------

    async def log_heartbeat(self, status: str, next_report_increment: float) -> HeartbeatResponse:
        """Note a heartbeat."""
        self.requests["heartbeat"] += 1
        await asyncio.sleep(0)
        return HeartbeatResponse(self.status)

    async def update_status(self, status: str) -> StatusUpdateResponse:
        """Change the run's status by the table."""
        self.requests["status"] += 1
        await asyncio.sleep(0)
        verdict = judge(Machine.WORKFLOW_RUN, self.status, status)
        if verdict is Verdict.ILLEGAL:
            raise InvalidStateTransition.of("workflow run", 1, self.status.name, status)
        if verdict is Verdict.LEGAL:
            self.set_status(WorkflowRunStatus(status))
        return StatusUpdateResponse(self.status)

    async def terminate_task_instances(self) -> None:
        """End all attempts, a moment later."""
        self.requests["terminate"] += 1
        asyncio.get_running_loop().call_later(1.0, self.end_all)

    async def request_triage(self) -> None:
        """Note the request."""
        self.requests["triage"] += 1

    async def get_task_status_updates(
        self, since: datetime | None = None, wait_seconds: float | None = None
    ) -> TaskStatusUpdatesResponse:
        """Answer with what changed, held open as asked for."""
        self.requests["full" if since is None else "changes"] += 1
        after = -1 if since is None else _number(since)
        if wait_seconds and not self._has_news(after):
            try:
                async with asyncio.timeout(wait_seconds):
                    while not self._has_news(after):
                        await self._changed.wait()
            except TimeoutError:
                pass
        await asyncio.sleep(0)
        return self._answer(after)

    async def bind_task_resources(self, task_resources: Sequence[TaskResources]) -> list[int]:
        """Give ids to requests."""
        self.requests["bind"] += 1
        return [self._resources.setdefault(resources, len(self._resources) + 100) for resources in task_resources]

    async def queue_task_batches(self, batches: Sequence[QueueBatch], seen: datetime | None = None) -> QueueResponse:
        """Queue tasks and let them run."""
        self.requests["queue"] += 1
        await asyncio.sleep(0)
        if self.is_stale or self.status in _MAKING_ROOM or is_terminal(Machine.WORKFLOW_RUN, self.status):
            raise StaleRun
        self.queued_batches += batches
        for batch in batches:
            for task_id in batch.task_ids:
                self._queue(self.tasks[task_id], batch)
        self._check_limits()
        asked = [self.tasks[task_id] for batch in batches for task_id in batch.task_ids]
        return QueueResponse(_by_status(asked))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _queue(self, task: FakeTask, batch: QueueBatch) -> None:
        if task.status not in _QUEUEABLE:
            self.breaches.append(f"task {task.task_id} was queued while {task.status.name}")
            return
        undone = [each for each in task.upstreams if self.tasks[each].status is not TaskStatus.DONE]
        if undone:
            self.breaches.append(f"task {task.task_id} was queued before {undone}")
        if batch.array_id != task.array_id:
            self.breaches.append(f"task {task.task_id} was queued for array {batch.array_id}")
        task.attempts += 1
        task.requests.append(batch.task_resources_id)
        self._move(task, TaskStatus.QUEUED)
        if self.is_distributing:
            loop = asyncio.get_running_loop()
            self._endings[task.task_id] = loop.call_later(task.seconds / 2, self._start, task)

    def _start(self, task: FakeTask) -> None:
        self._move(task, TaskStatus.RUNNING)
        loop = asyncio.get_running_loop()
        self._endings[task.task_id] = loop.call_later(task.seconds / 2, self._end, task)

    def _end(self, task: FakeTask) -> None:
        number = task.attempts - 1
        outcome = task.outcomes[number] if number < len(task.outcomes) else TaskInstanceStatus.DONE
        follows = TASK_OF_INSTANCE[outcome]
        if follows is TaskStatus.ERROR_RECOVERABLE:
            follows = after_failure(outcome, task.attempts, task.max_attempts)
        self._move(task, follows)

    def _cancel(self, task: FakeTask) -> None:
        ending = self._endings.pop(task.task_id, None)
        if ending is not None:
            ending.cancel()

    def _move(self, task: FakeTask, status: TaskStatus) -> None:
        task.status = status
        task.stamp = self._tick()

    def _check_limits(self) -> None:
        running = Counter(task.array_id for task in self.tasks.values() if task.status in _IN_FLIGHT)
        self.in_flight_max = max(self.in_flight_max, running.total())
        if running.total() > self.limit:
            self.breaches.append(f"{running.total()} tasks are in flight, {self.limit} may be")
        for array_id, count in running.items():
            if count > self.array_limits[array_id]:
                self.breaches.append(f"{count} tasks of array {array_id} are in flight")

    def _tick(self) -> int:
        self._stamp += 1
        self._changed.set()
        self._changed = asyncio.Event()
        return self._stamp

    def _has_news(self, after: int) -> bool:
        if self._run_stamp > after or self._limits_stamp > after:
            return True
        return any(task.stamp > after and task.task_id not in self.silent for task in self.tasks.values())

    def _answer(self, after: int) -> TaskStatusUpdatesResponse:
        told = [
            task
            for task in self.tasks.values()
            if task.stamp > after and (after < 0 or task.task_id not in self.silent)
        ]
        has_limits = self._limits_stamp > after
        return TaskStatusUpdatesResponse(
            time=_EPOCH + timedelta(microseconds=self._stamp),
            tasks_by_status=_by_status(told),
            workflow_run_status=self.status,
            max_concurrently_running=self.limit if has_limits else None,
            array_limits=dict(self.array_limits) if has_limits else {},
            resource_errors={
                task.task_id: self.resource_error
                for task in told
                if self.resource_error is not None and task.status is TaskStatus.ADJUSTING_RESOURCES
            },
        )


_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


def _number(stamp: datetime) -> int:
    return round((stamp - _EPOCH) / timedelta(microseconds=1))


def _by_status(tasks: Iterable[FakeTask]) -> dict[str, list[int]]:
    by_status: dict[str, list[int]] = {}
    for task in tasks:
        by_status.setdefault(task.status.value, []).append(task.task_id)
    return by_status
