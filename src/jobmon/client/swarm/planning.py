"""Plan what to queue next. Pure functions; only arming changes the `SwarmState`.

A plan takes ready tasks in order, those of the highest priority first, as long as the limits of the workflow, their
array and the request size allow, and puts tasks of one array with equal requests into one batch (a request names its
cluster, so equal requests are for the same cluster). It also says which entries of the queue it processed;
`SwarmState.take_from_queue` applies that. The work is proportional to the tasks taken or put aside, never to all tasks
that wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.client.swarm.lanes import Taken
from jobmon.client.swarm.task import SwarmTask
from jobmon.client.task_resources import TaskResources
from jobmon.core.exceptions import InvalidResources, JobmonError, WorkflowRunStateError
from jobmon.core.fsm import QUEUEABLE
from jobmon.core.resources import MISSING, dry_scales
from jobmon.core.wire.swarm import QUEUE_BATCH_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobmon.client.swarm.state import SwarmState
    from jobmon.core.wire.swarm import ResourceError

GIB: Final = 1024.0**3


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks of one array with equal requests."""

    array_id: int
    task_resources: TaskResources
    tasks: tuple[SwarmTask, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to queue in one request, and how that changes the waiting tasks, by priority.

    `is_full`: the request has no room for more tasks, so there may be more to plan at once.
    """

    batches: tuple[Batch, ...]
    taken: Mapping[int, Taken]
    is_full: bool

    @property
    def tasks(self) -> list[SwarmTask]:
        """All tasks of the plan."""
        return [task for batch in self.batches for task in batch.tasks]


class _Selection:
    """The tasks chosen so far and the remaining capacity."""

    def __init__(self, state: SwarmState, room: int) -> None:
        self._state = state
        self._array_room: dict[int, int] = {}
        self._seen: set[int] = set()
        self.room = room
        self.chosen: list[SwarmTask] = []

    def room_of(self, array_id: int) -> int:
        """Return how many more tasks of this array may be chosen."""
        room = self._array_room.get(array_id)
        if room is None:
            room = self._array_room[array_id] = self._state.get_array_capacity(array_id)
        return room

    def is_candidate(self, task: SwarmTask) -> bool:
        """Return whether an entry of the queue is still valid: its task may be queued."""
        is_free = task.task_id not in self._seen and task.task_id not in self._state.on_hold
        return is_free and task.status in QUEUEABLE and task.all_upstreams_done

    def choose(self, task: SwarmTask) -> None:
        """Choose a task."""
        self._seen.add(task.task_id)
        self.chosen.append(task)
        self._array_room[task.array_id] -= 1
        self.room -= 1


def plan(state: SwarmState, tasks_max: int = QUEUE_BATCH_MAX) -> Plan:
    """Choose what to queue now, at most `tasks_max` tasks.

    Raises:
        WorkflowRunStateError: a ready task has no resource request.
    """
    selection = _Selection(state, min(state.get_workflow_capacity(), tasks_max))
    taken: dict[int, Taken] = {}
    for priority, lane in state.lanes:
        if not selection.room:
            break
        released = _choose_held(selection, lane.held)
        examined, held = _choose_ready(selection, lane.ready)
        taken[priority] = Taken(examined, tuple(held), released)
    chosen = selection.chosen
    return Plan(_batches(chosen), taken, is_full=len(chosen) == tasks_max)


def _choose_held(selection: _Selection, held: Mapping[int, Iterable[SwarmTask]]) -> dict[int, int]:
    """Choose among the tasks put aside, whose arrays may have room again."""
    released: dict[int, int] = {}
    for array_id, waiting in held.items():
        count = 0
        for task in waiting:
            if not selection.room or not selection.room_of(array_id):
                break
            count += 1
            if selection.is_candidate(task):
                selection.choose(task)
        if count:
            released[array_id] = count
    return released


def _choose_ready(selection: _Selection, ready: Iterable[SwarmTask]) -> tuple[int, list[SwarmTask]]:
    """Choose from the front of the queue; return the number of processed entries, and the tasks to put aside."""
    examined = 0
    held: list[SwarmTask] = []
    for task in ready:
        if not selection.room:
            break
        examined += 1
        if not selection.is_candidate(task):
            continue
        if selection.room_of(task.array_id):
            selection.choose(task)
        else:
            held.append(task)
    return examined, held


def _batches(chosen: Iterable[SwarmTask]) -> tuple[Batch, ...]:
    """Group tasks, in the order in which their groups first appear."""
    groups: dict[tuple[int, TaskResources], list[SwarmTask]] = {}
    for task in chosen:
        if task.task_resources is None:
            raise WorkflowRunStateError(f"Task {task.task_id} is ready, but its resources are not known.")
        groups.setdefault((task.array_id, task.task_resources), []).append(task)
    return tuple(Batch(array_id, resources, tuple(tasks)) for (array_id, resources), tasks in groups.items())


def tasks_to_arm(state: SwarmState, chosen: Plan) -> dict[SwarmTask, list[SwarmTask]]:
    """Arm tasks downstream of the planned tasks and of those in flight; return each with its missing upstream tasks.

    Arms nothing while a ready task waits for capacity. Unless the plan needs a request anyway, arms nothing until a
    separate request is worthwhile (`ArmedTasks.is_due`).
    """
    if state.has_waiting or chosen.is_full:
        return {}
    by_array = Counter(task.array_id for task in chosen.tasks)
    capacity = state.get_workflow_capacity() - by_array.total()
    state.armed.expect(chosen.tasks)
    if capacity <= 0 or not (chosen.batches or state.armed.is_due(capacity)):
        return {}

    def has_room(task: SwarmTask) -> bool:
        is_free = task.task_id not in state.on_hold
        return is_free and state.get_array_capacity(task.array_id) > by_array[task.array_id]

    return state.armed.arm(capacity, has_room, set(chosen.tasks))


def tasks_to_disarm(state: SwarmState, chosen: Plan) -> list[SwarmTask]:
    """Return the most recently armed tasks whose capacity is needed by ready tasks that a plan left behind."""
    if chosen.is_full or not state.has_waiting:
        return []
    if len(chosen.tasks) >= state.get_workflow_capacity():
        return state.armed.newest(state.get_ready_to_run_count() + state.count_held().total())
    by_array = Counter(task.array_id for task in chosen.tasks)
    return [
        task
        for array_id, count in state.count_held().items()
        if by_array[array_id] >= state.get_array_capacity(array_id)
        for task in state.armed.newest(count, array_id)
    ]


def adjusted_resources(task: SwarmTask, error: ResourceError | None = None) -> TaskResources:
    """Return the next request of a task in ADJUSTING_RESOURCES.

    Args:
        task: the task.
        error: how its last attempt ended, if known.

    Raises:
        WorkflowRunStateError: the task has no request yet.
        InvalidResources: a scale cannot be applied; the message names the task.
    """
    if task.task_resources is None:
        raise WorkflowRunStateError(f"Task {task.task_id} has no request that could be raised.")
    cause = None if error is None else error.cause
    peak = None if error is None or error.max_rss_bytes is None else error.max_rss_bytes / GIB
    try:
        return task.task_resources.adjust(
            task.resource_scales, task.fallback_queues or (), task.adjustments + 1, cause, peak
        )
    except JobmonError as problem:
        raise InvalidResources(f"The request of task {task.task_id} cannot be raised: {problem}") from problem


def remarks_on_adjustment(
    task: SwarmTask, before: TaskResources, after: TaskResources, error: ResourceError | None
) -> list[str]:
    """Return sentences that explain to the user how a request was raised."""
    scales = task.resource_scales or {}
    dry = dry_scales(scales, task.adjustments + 1)
    remarks = [f"the scale of {key!r} has no further value and repeats its last one" for key in dry]
    missing = None if error is None else MISSING.get(error.cause)
    if scales and missing is not None and missing not in scales:
        remarks.append(f"it was {error.cause if error else ''}, but its resource_scales do not include {missing!r}")
    if after.queue_name != before.queue_name:
        remarks.append(f"it no longer fits queue {before.queue_name!r} and moves to {after.queue_name!r}")
    elif not dry and after.requested_resources == before.requested_resources:
        remarks.append(f"queue {after.queue_name!r} does not allow more than the request that was not enough")
    return remarks


def initial_fringe(state: SwarmState) -> list[SwarmTask]:
    """Return the tasks that can be queued from the start, by ID, except those already in the queue."""
    known = {task.task_id for _, lane in state.lanes for task in lane.ready}
    known |= {task.task_id for waiting in state.held.values() for task in waiting}
    ready = (
        task
        for status in QUEUEABLE
        for task in state.get_tasks_by_status(status)
        if task.all_upstreams_done and task.task_id not in known
    )
    return sorted(ready, key=lambda task: task.task_id)
