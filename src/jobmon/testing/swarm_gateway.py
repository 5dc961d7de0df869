"""A small in-memory server for the swarm, with the methods of `ServerGateway`; for a virtual-time loop.

It keeps tasks, attempts, limits and the logical clock of the change feed, supports long polls, runs each queued task
for a while and ends it as scripted. It rejects what a real server would reject, and it records every violation of the
rules that the orchestrator has to keep (`breaches`): limits, order, double queueing.
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
from jobmon.core.constants import (
    MAX_CONCURRENTLY_RUNNING,
    EndReason,
    TaskInstanceStatus,
    TaskStatus,
    WorkflowRunStatus,
)
from jobmon.core.exceptions import InvalidStateTransition, StaleRun
from jobmon.core.fsm import (
    IN_FLIGHT,
    MAKING_ROOM,
    QUEUEABLE,
    SATISFIED,
    TASK_OF_INSTANCE,
    Machine,
    Verdict,
    is_terminal,
    judge,
)
from jobmon.core.retry import after_failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.client.task_resources import TaskResources
    from jobmon.core.wire.swarm import QueueBatch, ResourceError, TaskToArm


@dataclass
class FakeTask:
    """A task of the fake server. `outcomes`: how its attempts end, in order; all later attempts succeed."""

    task_id: int
    array_id: int = 1
    upstreams: frozenset[int] = frozenset()
    outcomes: list[TaskInstanceStatus] = field(default_factory=list)
    seconds: float = 1.0
    max_attempts: int = 3
    status: TaskStatus = TaskStatus.REGISTERING
    attempts: int = 0
    stamp: int = 0
    #: ID of the request of each attempt.
    requests: list[int] = field(default_factory=list)


class FakeSwarmGateway:
    """The server and the gateway to it in one.

    Args:
        tasks: the tasks of the workflow.
        array_limits: array -> concurrency limit; arrays that are not given have no limit.
        limit: concurrency limit of the workflow.
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
        #: Tasks whose changes are missing from the feed; only a full snapshot contains them.
        self.silent: set[int] = set()
        #: Task -> how to queue it when its missing upstream tasks are done, and those upstream tasks.
        self.armed: dict[int, tuple[TaskToArm, set[int]]] = {}
        #: Held tasks, which are not queued.
        self.held: set[int] = set()
        #: Task -> its priority, unless that is 0.
        self.priorities: dict[int, int] = {}
        #: Whether armed tasks are forgotten at once, as after a server restart.
        self.is_forgetful = False
        #: Whether queued attempts start to run.
        self.is_distributing = True
        self._stamp = 0
        self._run_stamp = 0
        self._limits_stamp = 0
        self._holds_stamp = 0
        self._changed = asyncio.Event()
        self._endings: dict[int, asyncio.TimerHandle] = {}
        self._resources: dict[TaskResources, int] = {}

    # -- for tests -------------------------------------------------------------------------------------------------

    def set_status(self, status: WorkflowRunStatus) -> None:
        """Change the run's status, as another process would."""
        self.status = status
        self.statuses.append(status)
        self._run_stamp = self._tick()

    def set_limit(self, limit: int) -> None:
        """Change the concurrency limit of the workflow."""
        self.limit = limit
        self.armed.clear()
        self._limits_stamp = self._tick()

    def set_array_limit(self, array_id: int, limit: int) -> None:
        """Change the concurrency limit of an array."""
        self.array_limits[array_id] = limit
        self.armed.clear()
        self._limits_stamp = self._tick()

    def hold(self, *task_ids: int) -> None:
        """Hold exactly these tasks."""
        self.held = set(task_ids)
        self.armed.clear()
        self._holds_stamp = self._tick()

    def prioritize(self, priorities: dict[int, int]) -> None:
        """Give exactly these tasks a priority of their own."""
        self.priorities = dict(priorities)
        self.armed.clear()
        self._holds_stamp = self._tick()

    def skip(self, *task_ids: int) -> None:
        """Skip those of the tasks that are neither done nor in flight."""
        self.armed.clear()
        for task_id in task_ids:
            if self.tasks[task_id].status in (*QUEUEABLE, TaskStatus.ERROR_FATAL):
                self._move(self.tasks[task_id], TaskStatus.SKIPPED)

    def rerun(self, *task_ids: int) -> None:
        """Request a rerun of tasks and everything downstream."""
        self.armed.clear()
        wanted = set(task_ids)
        while more := {task.task_id for task in self.tasks.values() if task.upstreams & wanted} - wanted:
            wanted |= more
        for task_id in sorted(wanted):
            self._cancel(self.tasks[task_id])
            self._move(self.tasks[task_id], TaskStatus.REGISTERING)

    def end_all(self) -> None:
        """End all attempts as killed: they are not charged, and their tasks are queued again."""
        self.armed.clear()
        for task in self.tasks.values():
            if task.status in IN_FLIGHT:
                self._cancel(task)
                self._move(task, TaskStatus.REGISTERING)

    def count(self, *statuses: TaskStatus) -> int:
        """Return the number of tasks with one of these statuses."""
        return sum(task.status in statuses for task in self.tasks.values())

    # -- the methods of the gateway --------------------------------------------------------------------------------

    async def log_heartbeat(self, status: str, next_report_increment: float) -> HeartbeatResponse:
        """Count a heartbeat, and return the run's status."""
        self.requests["heartbeat"] += 1
        await asyncio.sleep(0)
        return HeartbeatResponse(self.status)

    async def update_status(self, status: str, reason: EndReason | None = None) -> StatusUpdateResponse:
        """Change the run's status according to the state machine."""
        self.requests["status"] += 1
        await asyncio.sleep(0)
        verdict = judge(Machine.WORKFLOW_RUN, self.status, status)
        if verdict is Verdict.ILLEGAL:
            raise InvalidStateTransition.of("workflow run", 1, self.status.name, status)
        if verdict is Verdict.LEGAL:
            self.set_status(WorkflowRunStatus(status))
        return StatusUpdateResponse(self.status)

    async def terminate_task_instances(self) -> None:
        """End all attempts a moment later."""
        self.requests["terminate"] += 1
        asyncio.get_running_loop().call_later(1.0, self.end_all)

    async def request_triage(self) -> None:
        """Count the request."""
        self.requests["triage"] += 1

    async def get_task_status_updates(
        self, since: datetime | None = None, wait_seconds: float | None = None
    ) -> TaskStatusUpdatesResponse:
        """Return what changed; hold the request open until something does, as requested."""
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
        """Assign IDs to requests."""
        self.requests["bind"] += 1
        return [self._resources.setdefault(resources, len(self._resources) + 100) for resources in task_resources]

    async def queue_task_batches(
        self,
        batches: Sequence[QueueBatch],
        seen: datetime | None = None,
        armed: Sequence[TaskToArm] = (),
        disarm: Sequence[int] = (),
        fail_fast: bool = False,
        may_overtake: bool = False,
    ) -> QueueResponse:
        """Queue tasks and let them run; arm and disarm others."""
        self.requests["queue"] += 1
        await asyncio.sleep(0)
        if self.is_stale or self.status in MAKING_ROOM or is_terminal(Machine.WORKFLOW_RUN, self.status):
            raise StaleRun
        self.queued_batches += batches
        for batch in batches:
            for task_id in batch.task_ids:
                if seen is None or self.tasks[task_id].stamp <= _number(seen):
                    self._queue(self.tasks[task_id], batch.task_resources_id, batch.array_id)
        self._check_limits()
        for task_id in disarm:
            self.armed.pop(task_id, None)
        for one in armed:
            self._arm(one)
        asked = [task_id for batch in batches for task_id in batch.task_ids]
        asked += [*disarm, *(one.task_id for one in armed)]
        taken = [one.task_id for one in armed if one.task_id in self.armed]
        held = [task_id for task_id in dict.fromkeys(asked) if task_id in self.held]
        return QueueResponse(_by_status(self.tasks[task_id] for task_id in dict.fromkeys(asked)), taken, held)

    # -- internals -------------------------------------------------------------------------------------------------

    def _arm(self, one: TaskToArm) -> None:
        missing = {each for each in one.missing if self.tasks[each].status not in SATISFIED}
        others = self.tasks[one.task_id].upstreams - set(one.missing)
        if any(self.tasks[each].status not in SATISFIED for each in others):
            self.breaches.append(f"task {one.task_id} was armed for {one.missing}, other upstream tasks are not done")
        if missing and not self.is_forgetful and self.tasks[one.task_id].status is TaskStatus.REGISTERING:
            self.armed[one.task_id] = (one, missing)

    def _fire(self, done: FakeTask) -> None:
        for one, missing in list(self.armed.values()):
            if done.task_id in missing:
                missing.discard(done.task_id)
                if not missing:
                    del self.armed[one.task_id]
                    task = self.tasks[one.task_id]
                    self._queue(task, one.task_resources_id, task.array_id)
                    self._check_limits()

    def _queue(self, task: FakeTask, task_resources_id: int, array_id: int) -> None:
        if task.task_id in self.held:
            return
        if task.status not in QUEUEABLE:
            self.breaches.append(f"task {task.task_id} was queued while {task.status.name}")
            return
        undone = [each for each in task.upstreams if self.tasks[each].status not in SATISFIED]
        if undone:
            self.breaches.append(f"task {task.task_id} was queued before {undone}")
        if array_id != task.array_id:
            self.breaches.append(f"task {task.task_id} was queued for array {array_id}")
        task.attempts += 1
        task.requests.append(task_resources_id)
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
        if follows is TaskStatus.DONE and not is_terminal(Machine.WORKFLOW_RUN, self.status):
            self._fire(task)

    def _cancel(self, task: FakeTask) -> None:
        ending = self._endings.pop(task.task_id, None)
        if ending is not None:
            ending.cancel()

    def _move(self, task: FakeTask, status: TaskStatus) -> None:
        task.status = status
        task.stamp = self._tick()

    def _check_limits(self) -> None:
        running = Counter(task.array_id for task in self.tasks.values() if task.status in IN_FLIGHT)
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
        if max(self._run_stamp, self._limits_stamp, self._holds_stamp) > after:
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
            held=sorted(self.held) if self._holds_stamp > after else None,
            priorities=dict(self.priorities) if self._holds_stamp > after else None,
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
