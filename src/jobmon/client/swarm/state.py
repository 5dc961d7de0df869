"""The memory of a running workflow. Pure: no clock, no loop, no network.

`SwarmState.apply_update` is the only writer of statuses and limits. What the rest needs of them (buckets per status,
attempts in flight per array and in all) is kept as changes come, so that no question costs more than its answer and
a change costs in proportion to what it changes.

Ready tasks wait in `ready_to_run`. Those of an array that was found full are put aside (`held`), so that planning never
walks past them again until their array has room. An entry may be out of date (its task was finished by somebody
else meanwhile): whoever takes it looks at the task.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import TaskStatus, WorkflowRunStatus
from jobmon.core.exceptions import WorkflowRunStateError
from jobmon.core.fsm import Machine, is_terminal
from jobmon.core.reasons import IN_FLIGHT, room
from jobmon.core.wire.swarm import ResourceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from jobmon.client.swarm.array import SwarmArray
    from jobmon.client.swarm.task import SwarmTask
    from jobmon.client.task_resources import TaskResources

logger = logging.getLogger(__name__)

#: States in which a task passes through on its own: something will still become of it.
_TRANSIENT: Final = (TaskStatus.ADJUSTING_RESOURCES, TaskStatus.ERROR_RECOVERABLE)
_STATUS_OF: Final[Mapping[str, TaskStatus]] = {status.value: status for status in TaskStatus}
#: A run only goes forward along these; news of an earlier one is old.
_RUN_ORDER: Final = {
    status: rank
    for rank, status in enumerate(
        (
            WorkflowRunStatus.REGISTERED,
            WorkflowRunStatus.LINKING,
            WorkflowRunStatus.BOUND,
            WorkflowRunStatus.INSTANTIATED,
            WorkflowRunStatus.LAUNCHED,
            WorkflowRunStatus.RUNNING,
        )
    )
}


@dataclass(frozen=True, slots=True)
class StateUpdate:
    """What changed. Immutable; made from the server's answers, merged, and applied as a whole."""

    task_statuses: Mapping[int, str] = field(default_factory=dict)
    max_concurrently_running: int | None = None
    array_limits: Mapping[int, int] = field(default_factory=dict)
    workflow_run_status: str | None = None
    sync_time: datetime | None = None
    #: Task -> how its newest attempt ended, where it was short of a resource.
    resource_errors: Mapping[int, ResourceError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep copies that nobody can change."""
        object.__setattr__(self, "task_statuses", MappingProxyType(dict(self.task_statuses)))
        object.__setattr__(self, "array_limits", MappingProxyType(dict(self.array_limits)))
        object.__setattr__(self, "resource_errors", MappingProxyType(dict(self.resource_errors)))

    @classmethod
    def empty(cls) -> StateUpdate:
        """Return one that changes nothing."""
        return cls()

    @classmethod
    def from_task_status_response(
        cls, tasks_by_status: Mapping[str, Iterable[int]], sync_time: datetime | None = None
    ) -> StateUpdate:
        """Make one from the server's {status: [task ids]}."""
        statuses = {task_id: status for status, task_ids in tasks_by_status.items() for task_id in task_ids}
        return cls(task_statuses=statuses, sync_time=sync_time)

    def merge(self, other: StateUpdate) -> StateUpdate:
        """Return both in one; where they differ, `other` holds."""
        limit = other.max_concurrently_running
        return StateUpdate(
            task_statuses={**self.task_statuses, **other.task_statuses},
            max_concurrently_running=self.max_concurrently_running if limit is None else limit,
            array_limits={**self.array_limits, **other.array_limits},
            workflow_run_status=other.workflow_run_status or self.workflow_run_status,
            sync_time=other.sync_time or self.sync_time,
            resource_errors={**self.resource_errors, **other.resource_errors},
        )


class SwarmState:
    """Tasks, arrays, limits and status of one workflow run.

    Args:
        workflow_id, workflow_run_id, dag_id: ids in the database.
        max_concurrently_running: how many tasks may be in flight.
        status: status of the run.
    """

    def __init__(
        self,
        workflow_id: int,
        workflow_run_id: int,
        dag_id: int,
        max_concurrently_running: int = 10_000,
        status: str = WorkflowRunStatus.BOUND,
    ) -> None:
        self.workflow_id = workflow_id
        self.workflow_run_id = workflow_run_id
        self.dag_id = dag_id
        self.max_concurrently_running = max_concurrently_running
        self.status = WorkflowRunStatus(status)
        self.last_sync: datetime | None = None
        self.tasks: dict[int, SwarmTask] = {}
        self.arrays: dict[int, SwarmArray] = {}
        #: Tasks that were done before this run and are not among `tasks`: they only count.
        self.previously_done: frozenset[int] = frozenset()
        self.ready_to_run: deque[SwarmTask] = deque()
        self._held: dict[int, deque[SwarmTask]] = {}
        self._buckets: dict[TaskStatus, set[SwarmTask]] = {status: set() for status in TaskStatus}
        self._in_flight = 0
        self._in_flight_by_array: Counter[int] = Counter()
        self._resources: dict[int, TaskResources] = {}
        #: How attempts that were short of a resource ended, until the request is raised.
        self.resource_errors: dict[int, ResourceError] = {}

    # -- what there is ---------------------------------------------------------------------------------------------

    def add_task(self, task: SwarmTask) -> None:
        """Take in a task.

        Raises:
            ValueError: another task of that id is there.
        """
        if self.tasks.setdefault(task.task_id, task) is not task:
            raise ValueError(f"There are two tasks of id {task.task_id}.")
        if task in self._buckets[task.status]:
            return
        self._buckets[task.status].add(task)
        self._count(task, None, task.status)

    def add_array(self, array: SwarmArray) -> None:
        """Take in an array."""
        self.arrays[array.array_id] = array

    def get_task(self, task_id: int) -> SwarmTask | None:
        """Return a task by id, or None."""
        return self.tasks.get(task_id)

    def get_tasks_by_status(self, status: str) -> set[SwarmTask]:
        """Return all tasks with that status: the set itself, not a copy. Read it; the next update changes it."""
        return self._buckets[TaskStatus(status)]

    @property
    def task_status_map(self) -> dict[str, set[SwarmTask]]:
        """All tasks by the letter of their status; the sets themselves, to be read only."""
        return {status.value: tasks for status, tasks in self._buckets.items()}

    def count_by_status(self) -> dict[TaskStatus, int]:
        """Return how many tasks have each status, those done before this run included."""
        counts = {status: len(tasks) for status, tasks in self._buckets.items()}
        counts[TaskStatus.DONE] += len(self.previously_done)
        return counts

    @property
    def total_tasks(self) -> int:
        """How many tasks the workflow has."""
        return len(self.tasks) + len(self.previously_done)

    # -- what may go on --------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """How many tasks have an attempt that is queued, launched or running."""
        return self._in_flight

    def has_pending_work(self) -> bool:
        """Say whether anything is in flight or ready to run, or about to be.

        Tasks in ADJUSTING_RESOURCES count: they will be queued again.
        """
        if self._in_flight or self.ready_to_run or self._held:
            return True
        return any(self._buckets[status] for status in _TRANSIENT)

    def get_workflow_capacity(self) -> int:
        """Return how many more tasks may be queued in all."""
        return room(self.max_concurrently_running, self._in_flight)

    def get_array_capacity(self, array_id: int) -> int:
        """Return how many more tasks may be queued for this array; none if there is no such array."""
        array = self.arrays.get(array_id)
        if array is None:
            return 0
        return room(array.max_concurrently_running, self._in_flight_by_array[array_id])

    # -- changes ---------------------------------------------------------------------------------------------------

    def apply_update(self, update: StateUpdate) -> set[SwarmTask]:
        """Apply an update as a whole and return the tasks whose status changed. Unknown ids are passed over.

        Raises:
            ValueError: a status that does not exist; nothing was changed.
        """
        changes = list(self._changes(update.task_statuses))
        run_status = None if update.workflow_run_status is None else WorkflowRunStatus(update.workflow_run_status)
        for task, status in changes:
            self._move(task, status)
        self._set_limits(update)
        self.resource_errors.update(update.resource_errors)
        if run_status is not None and self._is_news(run_status):
            self.status = run_status
        if update.sync_time is not None and (self.last_sync is None or update.sync_time > self.last_sync):
            self.last_sync = update.sync_time
        return {task for task, _ in changes}

    def _changes(self, task_statuses: Mapping[int, str]) -> Iterator[tuple[SwarmTask, TaskStatus]]:
        tasks = self.tasks
        for task_id, letter in task_statuses.items():
            status = _STATUS_OF.get(letter)
            if status is None:
                raise ValueError(f"Task {task_id} was given the status {letter!r}, which does not exist.")
            task = tasks.get(task_id)
            if task is not None and task.status is not status:
                yield task, status

    def _move(self, task: SwarmTask, status: TaskStatus) -> None:
        old = task.status
        self._buckets[old].discard(task)
        self._buckets[status].add(task)
        self._count(task, old, status)
        task.status = status

    def _count(self, task: SwarmTask, old: TaskStatus | None, new: TaskStatus) -> None:
        step = (new in IN_FLIGHT) - (old in IN_FLIGHT)
        if step:
            self._in_flight += step
            self._in_flight_by_array[task.array_id] += step

    def _set_limits(self, update: StateUpdate) -> None:
        if update.max_concurrently_running is not None:
            self.max_concurrently_running = update.max_concurrently_running
        for array_id, limit in update.array_limits.items():
            array = self.arrays.get(array_id)
            if array is not None:
                array.max_concurrently_running = limit

    def _is_news(self, told: WorkflowRunStatus) -> bool:
        """Say whether a status that we are told is later than the one we know: answers overtake each other."""
        if is_terminal(Machine.WORKFLOW_RUN, self.status):
            return False
        if told in _RUN_ORDER:
            return _RUN_ORDER[told] > _RUN_ORDER.get(self.status, len(_RUN_ORDER))
        return self.status in _RUN_ORDER or is_terminal(Machine.WORKFLOW_RUN, told)

    def update_task_status(self, task_id: int, new_status: str) -> bool:
        """Change the status of one task; say whether the task was there and changed."""
        return bool(self.apply_update(StateUpdate(task_statuses={task_id: new_status})))

    def propagate_completions(self, completed_tasks: Collection[SwarmTask]) -> list[SwarmTask]:
        """Tell the tasks downstream that these are done; return those that became ready, by id.

        Only REGISTERING tasks are returned. A task that is told twice counts once. Downstreams that several of the
        completed tasks share are walked once.
        """
        ready: dict[int, SwarmTask] = {}
        walks: dict[int, tuple[Collection[SwarmTask], int]] = {}
        for task in completed_tasks:
            if task.is_propagated:
                continue
            task.is_propagated = True
            downstream = task.iter_downstream()
            walks[id(downstream)] = (downstream, walks.get(id(downstream), (downstream, 0))[1] + 1)
        for downstream, count in walks.values():
            for waiting in downstream:
                waiting.num_upstreams_done += count
                if waiting.all_upstreams_done and waiting.status is TaskStatus.REGISTERING:
                    ready[waiting.task_id] = waiting
        return [ready[task_id] for task_id in sorted(ready)]

    def set_resources(self, task: SwarmTask, resources: TaskResources) -> None:
        """Give a task another request; equal requests are one object."""
        task.task_resources = self.cache_resources(hash(resources), resources)

    # -- the queue of ready tasks ----------------------------------------------------------------------------------

    def enqueue_task(self, task: SwarmTask, front: bool = False) -> None:
        """Put a task at the end of the ready ones, or before them."""
        if front:
            self.ready_to_run.appendleft(task)
        else:
            self.ready_to_run.append(task)

    def dequeue_task(self) -> SwarmTask | None:
        """Take the next ready task, or None."""
        return self.ready_to_run.popleft() if self.ready_to_run else None

    @property
    def held(self) -> Mapping[int, Collection[SwarmTask]]:
        """Ready tasks put aside because their array was full, by array."""
        return self._held

    def take_from_queue(self, examined: int, held: Iterable[SwarmTask], released: Mapping[int, int]) -> None:
        """Carry out what a plan did with the queue.

        Args:
            examined: how many entries of `ready_to_run`, from its front, the plan dealt with.
            held: those of them to be put aside because their array is full.
            released: array -> how many of its tasks put aside, from the front, the plan dealt with.
        """
        for _ in range(examined):
            self.ready_to_run.popleft()
        for array_id, count in released.items():
            waiting = self._held[array_id]
            for _ in range(count):
                waiting.popleft()
            if not waiting:
                del self._held[array_id]
        for task in held:
            self._held.setdefault(task.array_id, deque()).append(task)

    # -- requests for resources ------------------------------------------------------------------------------------

    def get_cached_resources(self, resource_hash: int) -> TaskResources | None:
        """Return the request of that hash, or None."""
        return self._resources.get(resource_hash)

    def cache_resources(self, resource_hash: int, task_resources: TaskResources) -> TaskResources:
        """Keep a request and return the one that is kept, which may be an equal one that was there before."""
        return self._resources.setdefault(resource_hash, task_resources)

    # -- what must always hold -------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check every invariant from the ground up; linear in tasks and edges. For tests and doubts.

        Raises:
            WorkflowRunStateError: names all that do not hold.
        """
        problems = [*self._bucket_problems(), *self._count_problems(), *self._upstream_problems()]
        problems += [
            f"task {task.task_id} of array {task.array_id} is held with array {array_id}"
            for array_id, waiting in self._held.items()
            for task in waiting
            if task.array_id != array_id
        ]
        if problems:
            raise WorkflowRunStateError(f"The state of run {self.workflow_run_id} is broken: {'; '.join(problems)}.")

    def _bucket_problems(self) -> Iterator[str]:
        for status, bucket in self._buckets.items():
            expected = {task for task in self.tasks.values() if task.status is status}
            if bucket != expected:
                yield f"{len(bucket)} tasks are filed as {status.name}, {len(expected)} are"

    def _count_problems(self) -> Iterator[str]:
        counted = Counter(task.array_id for task in self.tasks.values() if task.status in IN_FLIGHT)
        if self._in_flight != counted.total():
            yield f"{self._in_flight} tasks are counted in flight, {counted.total()} are"
        if +self._in_flight_by_array != counted:
            yield f"in flight by array are counted {dict(+self._in_flight_by_array)}, there are {dict(counted)}"

    def _upstream_problems(self) -> Iterator[str]:
        known = Counter(
            waiting for task in self.tasks.values() if task.is_propagated for waiting in task.iter_downstream()
        )
        for task in self.tasks.values():
            if task.num_upstreams_done != known[task] or task.num_upstreams_done > task.num_upstreams:
                yield (
                    f"task {task.task_id} counts {task.num_upstreams_done} of {task.num_upstreams} upstreams as done, "
                    f"{known[task]} told it"
                )
