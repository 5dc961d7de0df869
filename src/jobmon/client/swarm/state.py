"""The state of a running workflow. Pure: no clock, no loop, no network.

`SwarmState.apply_update` is the only writer of statuses and limits. Derived data (buckets by status, attempts in flight
per array and in total) is updated incrementally, so that a query costs no more than its answer and an update costs in
proportion to what it changes.

Ready tasks wait in lanes, one for each priority; `ready_to_run` is that of priority 0. Tasks whose array was full are
put aside in their lane (`held`), so that planning does not walk past them again until their array has room. An entry
may be out of date, for example if its task has been finished by another client in the meantime; the consumer therefore
checks the task.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from jobmon.client.swarm.arming import ArmedTasks
from jobmon.client.swarm.lanes import Lane, Taken
from jobmon.core.constants import TaskStatus, WorkflowRunStatus
from jobmon.core.exceptions import WorkflowRunStateError
from jobmon.core.explain import room
from jobmon.core.fsm import IN_FLIGHT, PASSING, QUEUEABLE, RUN_ORDER, SATISFIED, Machine, is_terminal
from jobmon.core.wire.swarm import ResourceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from jobmon.client.swarm.array import SwarmArray
    from jobmon.client.swarm.task import SwarmTask
    from jobmon.client.task_resources import TaskResources

logger = logging.getLogger(__name__)

_STATUS_OF: Final[Mapping[str, TaskStatus]] = {status.value: status for status in TaskStatus}
#: A run only moves forward in this order; a report of an earlier status is stale.
_RANK: Final = {status: rank for rank, status in enumerate(RUN_ORDER)}


@dataclass(frozen=True, slots=True)
class StateUpdate:
    """Changes to the state. Immutable; made from the server's responses, merged, and applied as a whole."""

    task_statuses: Mapping[int, str] = field(default_factory=dict)
    max_concurrently_running: int | None = None
    array_limits: Mapping[int, int] = field(default_factory=dict)
    workflow_run_status: str | None = None
    sync_time: datetime | None = None
    #: Task -> how its newest attempt ended if it ran out of a resource.
    resource_errors: Mapping[int, ResourceError] = field(default_factory=dict)
    #: Cluster -> why nothing can be launched on it now, for all clusters; None: not reported.
    launch_problems: Mapping[str, str] | None = None
    #: Cluster -> further notices about its jobs for users; None: not reported.
    notices: Mapping[str, str] | None = None
    #: All held tasks; None: not reported.
    held: frozenset[int] | None = None
    #: All tasks, and all arrays, whose own priority is not 0; None: not reported.
    priorities: Mapping[int, int] | None = None
    array_priorities: Mapping[int, int] | None = None
    #: Tasks that users edited, with their revisions.
    edited: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Replace the mappings by read-only copies."""
        object.__setattr__(self, "task_statuses", MappingProxyType(dict(self.task_statuses)))
        object.__setattr__(self, "array_limits", MappingProxyType(dict(self.array_limits)))
        object.__setattr__(self, "resource_errors", MappingProxyType(dict(self.resource_errors)))

    @property
    def is_empty(self) -> bool:
        """Whether the update changes nothing. An empty update is false."""
        return self == StateUpdate()

    def __bool__(self) -> bool:
        return not self.is_empty

    @classmethod
    def empty(cls) -> StateUpdate:
        """Return an update that changes nothing."""
        return cls()

    @classmethod
    def from_task_status_response(
        cls, tasks_by_status: Mapping[str, Iterable[int]], sync_time: datetime | None = None
    ) -> StateUpdate:
        """Return an update made from the server's {status: [task IDs]}."""
        statuses = {task_id: status for status, task_ids in tasks_by_status.items() for task_id in task_ids}
        return cls(task_statuses=statuses, sync_time=sync_time)

    def merge(self, other: StateUpdate) -> StateUpdate:
        """Return an update with the changes of both; where they differ, `other` takes precedence."""
        limit = other.max_concurrently_running
        return StateUpdate(
            task_statuses={**self.task_statuses, **other.task_statuses},
            max_concurrently_running=self.max_concurrently_running if limit is None else limit,
            array_limits={**self.array_limits, **other.array_limits},
            workflow_run_status=other.workflow_run_status or self.workflow_run_status,
            sync_time=other.sync_time or self.sync_time,
            resource_errors={**self.resource_errors, **other.resource_errors},
            launch_problems=self.launch_problems if other.launch_problems is None else other.launch_problems,
            notices=self.notices if other.notices is None else other.notices,
            held=self.held if other.held is None else other.held,
            priorities=self.priorities if other.priorities is None else other.priorities,
            array_priorities=self.array_priorities if other.array_priorities is None else other.array_priorities,
            edited={**self.edited, **other.edited},
        )


class SwarmState:
    """Tasks, arrays, limits and status of one workflow run.

    Args:
        workflow_id, workflow_run_id, dag_id: IDs in the database.
        max_concurrently_running: maximum number of tasks in flight.
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
        #: Tasks that were done before this run and are not in `tasks`; they are only counted.
        self.previously_done: frozenset[int] = frozenset()
        #: Tasks that were skipped before this run and are not in `tasks`.
        self.previously_skipped: frozenset[int] = frozenset()
        #: The ready tasks of priority 0.
        self.ready_to_run: deque[SwarmTask] = deque()
        self._lanes: dict[int, Lane] = {0: Lane(self.ready_to_run)}
        #: Expansions that are ready to be called, and those that are being called.
        self.ready_to_call: deque[SwarmTask] = deque()
        self.calling: set[SwarmTask] = set()
        #: Expansion -> the tasks that it has added.
        self._added: dict[int, list[SwarmTask]] = {}
        self._running_expansions = 0
        self._buckets: dict[TaskStatus, set[SwarmTask]] = {status: set() for status in TaskStatus}
        self._in_flight = 0
        self._in_flight_by_array: Counter[int] = Counter()
        #: Tasks that the server queues by itself; they count towards the limits.
        self.armed = ArmedTasks()
        self._resources: dict[int, TaskResources] = {}
        #: How attempts that ran out of a resource ended; kept until the request is raised.
        self.resource_errors: dict[int, ResourceError] = {}
        #: Tasks that are not queued until they are released.
        self.on_hold: frozenset[int] = frozenset()
        self._priorities: Mapping[int, int] = {}
        self._array_priorities: Mapping[int, int] = {}
        #: No task has a lower priority.
        self._least_priority = 0
        #: Tasks that users edited, with their revisions, until the new definitions are fetched.
        self.edited: dict[int, int] = {}
        #: Cluster -> why nothing can be launched on it now.
        self.launch_problems: Mapping[str, str] = {}
        self.notices: Mapping[str, str] = {}

    # -- contents --------------------------------------------------------------------------------------------------

    def add_task(self, task: SwarmTask) -> None:
        """Add a task.

        Raises:
            ValueError: there is another task with this ID.
        """
        if self.tasks.setdefault(task.task_id, task) is not task:
            raise ValueError(f"There are two tasks of id {task.task_id}.")
        if task.origin_id:
            self._added.setdefault(task.origin_id, []).append(task)
        if task in self._buckets[task.status]:
            return
        self._buckets[task.status].add(task)
        self._count(task, None, task.status)

    def add_array(self, array: SwarmArray) -> None:
        """Add an array."""
        self.arrays[array.array_id] = array

    def link(self, downstream: Mapping[int, list[int]]) -> None:
        """Link tasks with the tasks downstream of them, as far as they are in `tasks`.

        Args:
            downstream: task -> the tasks downstream of it; tasks with equal ones should share one list.
        """
        shared = {
            id(listed): tuple(self.tasks[each] for each in listed if each in self.tasks)
            for listed in {id(listed): listed for listed in downstream.values()}.values()
        }
        counts = Counter(id(listed) for listed in downstream.values())
        for task_id, listed in downstream.items():
            self.tasks[task_id].share_downstream(shared[id(listed)])
        for key, waiting in shared.items():
            for task in waiting:
                task.num_upstreams += counts[key]

    def grow(
        self,
        expansion: SwarmTask,
        tasks: Sequence[SwarmTask],
        upstreams: Iterable[tuple[Iterable[int], Sequence[SwarmTask]]],
    ) -> None:
        """Add the tasks that an expansion returned; linear in these and their dependencies.

        Whatever waits for the expansion, except what it added, waits for these tasks from now on.

        Args:
            expansion: the expansion.
            tasks: the tasks, not linked yet.
            upstreams: sets of upstream tasks besides the expansion, with those of `tasks` that have the set. Tasks that
                are not in the state were done before the run.
        """
        for task in tasks:
            self.add_task(task)
            self.arrays[task.array_id].add_task(task)
            task.num_upstreams = 1
            task.num_upstreams_done = int(expansion.is_propagated)
        waiting = tuple(task for task in expansion.iter_downstream() if task.origin_id != expansion.task_id)
        for task in waiting:
            task.num_upstreams += len(tasks)
        followers: dict[int, list[SwarmTask]] = {}
        for members, users in upstreams:
            present = self._with_added(members)
            done = sum(self.tasks[task_id].is_propagated for task_id in present)
            for user in users:
                user.num_upstreams += len(present)
                user.num_upstreams_done += done
            for task_id in present:
                followers.setdefault(task_id, []).extend(users)
        for task in tasks:
            own = followers.pop(task.task_id, ())
            task.share_downstream((*waiting, *own) if own else waiting)
        followers.setdefault(expansion.task_id, []).extend(tasks)
        for task_id, users in followers.items():
            self.tasks[task_id].downstream_swarm_tasks.update(users)

    def added_by(self, expansion_id: int) -> Iterator[SwarmTask]:
        """Yield the tasks that an expansion has added, directly or through other expansions."""
        waiting = [expansion_id]
        while waiting:
            for task in self._added.get(waiting.pop(), ()):
                yield task
                if task.is_expansion:
                    waiting.append(task.task_id)

    def _with_added(self, task_ids: Iterable[int]) -> list[int]:
        """Return the tasks that are in the state, with all tasks that the expansions among them have added."""
        found = dict.fromkeys(task_id for task_id in task_ids if task_id in self.tasks)
        for task_id in task_ids:
            found.update(dict.fromkeys(task.task_id for task in self.added_by(task_id)))
        return list(found)

    def drop(self, task_ids: Iterable[int]) -> None:
        """Remove tasks that wait for an expansion which no longer returns them, and what these have added."""
        removed = set(task_ids)
        self.previously_done -= removed
        self.previously_skipped -= removed
        left = [task_id for task_id in sorted(removed) if task_id in self.tasks]
        while left:
            task = self.tasks.pop(left.pop())
            left += [each.task_id for each in self._added.pop(task.task_id, ())]
            if task.origin_id in self._added:
                self._added[task.origin_id].remove(task)
            self._buckets[task.status].discard(task)
            self._count(task, task.status, None)
            self.arrays[task.array_id].tasks.discard(task)
            self.armed.moved(task)
            task.status = TaskStatus.REMOVED
            for waiting in task.iter_downstream():
                waiting.num_upstreams -= 1
                waiting.num_upstreams_done -= task.is_propagated

    def reopen(self, tasks: Iterable[SwarmTask], downstream: Mapping[int, list[int]]) -> None:
        """Add tasks that were done or skipped before the run and are to be run again.

        Args:
            tasks: the tasks, not linked yet.
            downstream: for all tasks, these included, as in `link`.
        """
        for task in tasks:
            self.add_task(task)
            self.arrays[task.array_id].add_task(task)
            self.previously_done -= {task.task_id}
            self.previously_skipped -= {task.task_id}
        self.relink(downstream)

    def relink(self, downstream: Mapping[int, list[int]]) -> None:
        """Relink all tasks; `downstream`: for all tasks, as in `link`."""
        for task in self.tasks.values():
            task.num_upstreams = task.num_upstreams_done = 0
        self.link(downstream)
        for task in self.tasks.values():
            if task.is_propagated:
                for waiting in task.iter_downstream():
                    waiting.num_upstreams_done += 1

    def get_task(self, task_id: int) -> SwarmTask | None:
        """Return the task with this ID, or None."""
        return self.tasks.get(task_id)

    def get_tasks_by_status(self, status: str) -> set[SwarmTask]:
        """Return all tasks with this status: the set itself, not a copy. Do not change it; the next update does."""
        return self._buckets[TaskStatus(status)]

    @property
    def task_status_map(self) -> dict[str, set[SwarmTask]]:
        """All tasks by the letter of their status; the sets themselves, read-only."""
        return {status.value: tasks for status, tasks in self._buckets.items()}

    def count_by_status(self) -> dict[TaskStatus, int]:
        """Return the number of tasks with each status, including those done before this run."""
        counts = {status: len(tasks) for status, tasks in self._buckets.items()}
        counts[TaskStatus.DONE] += len(self.previously_done)
        counts[TaskStatus.SKIPPED] += len(self.previously_skipped)
        return counts

    @property
    def total_tasks(self) -> int:
        """The number of tasks of the workflow."""
        return len(self.tasks) + len(self.previously_done) + len(self.previously_skipped)

    def all_tasks_final(self) -> bool:
        """Return whether every task is done, was skipped, or has failed permanently."""
        return self.get_done_count() + self.get_skipped_count() + self.get_failed_count() == self.total_tasks

    def get_done_count(self) -> int:
        """Return the number of done tasks, including those of earlier runs."""
        return len(self._buckets[TaskStatus.DONE]) + len(self.previously_done)

    def get_skipped_count(self) -> int:
        """Return the number of skipped tasks, including those skipped before this run."""
        return len(self._buckets[TaskStatus.SKIPPED]) + len(self.previously_skipped)

    def get_failed_count(self) -> int:
        """Return the number of tasks that failed permanently."""
        return len(self._buckets[TaskStatus.ERROR_FATAL])

    def get_active_task_count(self) -> int:
        """Return the number of tasks that are queued, launched or running."""
        return self._in_flight

    def get_ready_to_run_count(self) -> int:
        """Return the number of tasks that are ready to be queued."""
        return sum(len(lane.ready) for lane in self._lanes.values())

    def get_available_capacity(self) -> int:
        """Return the number of tasks that may still be queued; the same as `get_workflow_capacity`."""
        return self.get_workflow_capacity()

    def get_percent_done(self) -> float:
        """Return the percentage of done and skipped tasks, from 0 to 100; 100 for a workflow without tasks."""
        settled = self.get_done_count() + self.get_skipped_count()
        return 100.0 * settled / self.total_tasks if self.total_tasks else 100.0

    # -- pending work ----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """The number of tasks with an attempt that is queued, launched or running."""
        return self._in_flight

    @property
    def has_calls(self) -> bool:
        """Whether expansions are being called, or their outcome is not known yet."""
        return bool(self.calling) or self._running_expansions > 0

    def has_pending_work(self) -> bool:
        """Return whether anything is in flight, ready to run, or about to be.

        This includes tasks in ADJUSTING_RESOURCES, which will be queued again; armed tasks whose upstream tasks are all
        done, which the server may have queued; and held tasks that wait for nothing but their release.
        """
        if self._in_flight or self.has_waiting or self.ready_to_call or self.has_calls:
            return True
        if any(task.all_upstreams_done for task in self.armed) or any(self.waiting_for_release()):
            return True
        return any(self._buckets[status] for status in PASSING)

    def waiting_for_release(self) -> Iterator[SwarmTask]:
        """Yield the held tasks that could be queued otherwise."""
        for task_id in self.on_hold:
            task = self.tasks.get(task_id)
            if task is not None and task.status in QUEUEABLE and task.all_upstreams_done:
                yield task

    def get_workflow_capacity(self) -> int:
        """Return how many more tasks of the workflow may be queued."""
        return room(self.max_concurrently_running, self._in_flight + len(self.armed))

    def get_array_capacity(self, array_id: int) -> int:
        """Return how many more tasks of this array may be queued; 0 if there is no such array."""
        array = self.arrays.get(array_id)
        if array is None:
            return 0
        return room(array.max_concurrently_running, self._in_flight_by_array[array_id] + self.armed.of_array(array_id))

    # -- changes ---------------------------------------------------------------------------------------------------

    def apply_update(self, update: StateUpdate) -> set[SwarmTask]:
        """Apply an update as a whole and return the tasks whose status changed. Unknown IDs are ignored.

        Raises:
            ValueError: a status does not exist; nothing was changed.
        """
        changes = list(self._changes(update.task_statuses))
        queued = [
            task
            for task, status in changes
            if status in IN_FLIGHT and task.status not in IN_FLIGHT and not task.is_expansion
        ]
        run_status = None if update.workflow_run_status is None else WorkflowRunStatus(update.workflow_run_status)
        for task, status in changes:
            self._move(task, status)
        self.armed.expect(queued)
        self._set_limits(update)
        self.resource_errors.update(update.resource_errors)
        self.edited.update(update.edited)
        if update.held is not None:
            self.on_hold = update.held
        self._set_priorities(update)
        if update.launch_problems is not None:
            self.launch_problems = update.launch_problems
        if update.notices is not None:
            self.notices = update.notices
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
        if task.is_propagated and status not in SATISFIED:
            self._reopen(task)
        if old is TaskStatus.REGISTERING:
            self.armed.moved(task)

    @staticmethod
    def _reopen(task: SwarmTask) -> None:
        """Count a task that is to be rerun as not done in its downstream tasks."""
        task.is_propagated = False
        for waiting in task.iter_downstream():
            waiting.num_upstreams_done -= 1

    def _count(self, task: SwarmTask, old: TaskStatus | None, new: TaskStatus | None) -> None:
        if task.is_expansion:  # it needs no slot
            self._running_expansions += (new is TaskStatus.RUNNING) - (old is TaskStatus.RUNNING)
            return
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

    def _set_priorities(self, update: StateUpdate) -> None:
        before = (self._priorities, self._array_priorities)
        if update.priorities is not None:
            self._priorities = update.priorities
        if update.array_priorities is not None:
            self._array_priorities = update.array_priorities
        if before != (self._priorities, self._array_priorities):
            lowest = (min(values, default=0) for values in (self._priorities.values(), self._array_priorities.values()))
            self._least_priority = sum(min(0, one) for one in lowest)
            self._sort_lanes()

    def _is_news(self, told: WorkflowRunStatus) -> bool:
        """Return whether a reported status is later than the known one: responses may arrive out of order."""
        if is_terminal(Machine.WORKFLOW_RUN, self.status):
            return False
        if told in _RANK:
            return _RANK[told] > _RANK.get(self.status, len(_RANK))
        return self.status in _RANK or is_terminal(Machine.WORKFLOW_RUN, told)

    def update_task_status(self, task_id: int, new_status: str) -> bool:
        """Change the status of one task; return whether the task exists and changed."""
        return bool(self.apply_update(StateUpdate(task_statuses={task_id: new_status})))

    def propagate_completions(self, completed_tasks: Collection[SwarmTask]) -> list[SwarmTask]:
        """Count these tasks as done in their downstream tasks; return the tasks that became ready, by ID.

        Returns only REGISTERING tasks that are not armed. Each completion is counted once, even if it is passed again.
        Downstream tasks that several of the completed tasks share are walked once.
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
                is_ready = waiting.all_upstreams_done and waiting.status is TaskStatus.REGISTERING
                if is_ready and waiting not in self.armed:
                    ready[waiting.task_id] = waiting
        return [ready[task_id] for task_id in sorted(ready)]

    def set_resources(self, task: SwarmTask, resources: TaskResources) -> None:
        """Replace the request of a task; equal requests share one object."""
        task.task_resources = self.cache_resources(hash(resources), resources)

    # -- the queue of ready tasks ----------------------------------------------------------------------------------

    def priority_of(self, task: SwarmTask) -> int:
        """Return the priority of a task: its own and that of its array."""
        return self._priorities.get(task.task_id, 0) + self._array_priorities.get(task.array_id, 0)

    def may_overtake(self, tasks: Iterable[SwarmTask]) -> bool:
        """Return whether one of some tasks may be more urgent than another task of the workflow."""
        has_priorities = bool(self._priorities or self._array_priorities)
        return has_priorities and any(self.priority_of(task) > self._least_priority for task in tasks)

    def _lane_of(self, task: SwarmTask) -> Lane:
        priority = self.priority_of(task) if self._priorities or self._array_priorities else 0
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = Lane(deque())
        return lane

    def _sort_lanes(self) -> None:
        """Put all waiting tasks into the lanes of their new priorities, and otherwise keep their order."""
        lanes = self.lanes
        waiting = [task for _, lane in lanes for held in lane.held.values() for task in held]
        waiting += [task for _, lane in lanes for task in lane.ready]
        for _, lane in lanes:
            lane.ready.clear()
            lane.held.clear()
        for task in waiting:
            self.enqueue_task(task)

    @property
    def lanes(self) -> list[tuple[int, Lane]]:
        """The waiting tasks by priority, the highest first; lanes without tasks are left out."""
        return sorted(((priority, lane) for priority, lane in self._lanes.items() if lane), reverse=True)

    @property
    def has_waiting(self) -> bool:
        """Whether tasks are ready to be queued, or put aside because their array is full."""
        return any(self._lanes.values())

    def enqueue_task(self, task: SwarmTask, front: bool = False) -> None:
        """Add a task at the end of the ready queue of its priority, or at its front; an expansion to its own queue."""
        if task.is_expansion:
            self.ready_to_call.append(task)
            return
        ready = self._lane_of(task).ready
        if front:
            ready.appendleft(task)
        else:
            ready.append(task)

    def dequeue_task(self) -> SwarmTask | None:
        """Remove and return the next ready task, or None."""
        return next((lane.ready.popleft() for _, lane in self.lanes if lane.ready), None)

    @property
    def held(self) -> Mapping[int, Collection[SwarmTask]]:
        """Ready tasks put aside because their array was full, by array."""
        found: dict[int, list[SwarmTask]] = {}
        for _, lane in self.lanes:
            for array_id, waiting in lane.held.items():
                found.setdefault(array_id, []).extend(waiting)
        return found

    def count_held(self) -> Counter[int]:
        """Return the number of ready tasks put aside because their array was full, by array."""
        found: Counter[int] = Counter()
        for _, lane in self.lanes:
            for array_id, waiting in lane.held.items():
                found[array_id] += len(waiting)
        return found

    def take_from_queue(self, taken: Mapping[int, Taken]) -> None:
        """Apply what a plan did to the waiting tasks, by priority."""
        for priority, each in taken.items():
            self._lanes[priority].take(each)

    # -- resource requests -----------------------------------------------------------------------------------------

    def get_cached_resources(self, resource_hash: int) -> TaskResources | None:
        """Return the request with this hash, or None."""
        return self._resources.get(resource_hash)

    def cache_resources(self, resource_hash: int, task_resources: TaskResources) -> TaskResources:
        """Cache a request and return the cached object, which may be an equal one from before."""
        return self._resources.setdefault(resource_hash, task_resources)

    # -- invariants ------------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check every invariant from scratch; linear in tasks and edges. For tests and debugging.

        Raises:
            WorkflowRunStateError: an invariant is violated; the message lists all violations.
        """
        problems = [*self._bucket_problems(), *self._count_problems(), *self._upstream_problems()]
        problems += self.armed.problems()
        problems += [
            f"task {task.task_id} of array {task.array_id} is held with array {array_id}"
            for array_id, waiting in self.held.items()
            for task in waiting
            if task.array_id != array_id
        ]
        problems += [
            f"task {task.task_id} of priority {self.priority_of(task)} waits with priority {priority}"
            for priority, lane in self.lanes
            for task in (*lane.ready, *(task for waiting in lane.held.values() for task in waiting))
            if self.priority_of(task) != priority
        ]
        if problems:
            raise WorkflowRunStateError(f"The state of run {self.workflow_run_id} is broken: {'; '.join(problems)}.")

    def _bucket_problems(self) -> Iterator[str]:
        for status, bucket in self._buckets.items():
            expected = {task for task in self.tasks.values() if task.status is status}
            if bucket != expected:
                yield f"{len(bucket)} tasks are filed as {status.name}, {len(expected)} are"

    def _count_problems(self) -> Iterator[str]:
        running = (task for task in self.tasks.values() if task.status in IN_FLIGHT and not task.is_expansion)
        counted = Counter(task.array_id for task in running)
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
