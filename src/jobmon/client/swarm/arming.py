"""Armed tasks: the server queues them as soon as their upstream tasks are done. Pure.

A task can be armed if each of its unfinished upstream tasks has an attempt in flight or is armed itself. It counts
towards the limits from the moment the server is asked to arm it, until the server reports that it did not arm it or
disarmed it, or that the task has another status. Tasks that the server has armed are therefore always counted here.

The server may lose armed tasks. Such a task is detected because it is not queued although all its upstream tasks are
done. Candidates are found when an upstream task is queued or armed, and each is examined once. If there is no room for
a candidate then, it is queued like any other task when it is ready.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from jobmon.core.constants import TaskStatus
from jobmon.core.fsm import IN_FLIGHT
from jobmon.core.wire.swarm import ARMED_TASKS_MAX, MISSING_UPSTREAMS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from jobmon.client.swarm.task import SwarmTask


class ArmedTasks:
    """The armed tasks of a run, oldest first, and the candidates to be armed next."""

    def __init__(self) -> None:
        self._armed: dict[SwarmTask, None] = {}
        self._by_array: Counter[int] = Counter()
        self._candidates: dict[SwarmTask, None] = {}
        #: Task -> its upstream tasks that were queued or armed; some may no longer be either.
        self._expected: dict[SwarmTask, set[SwarmTask]] = {}
        #: Whether the server recently lost an armed task; completions are then fetched without delay.
        self.is_unreliable = False

    def __len__(self) -> int:
        return len(self._armed)

    def __contains__(self, task: SwarmTask) -> bool:
        return task in self._armed

    def __iter__(self) -> Iterator[SwarmTask]:
        return iter(self._armed)

    def of_array(self, array_id: int) -> int:
        """Return the number of armed tasks of an array."""
        return self._by_array[array_id]

    def is_due(self, room: int) -> bool:
        """Return whether it is worth arming more: at most half of what `room` and the bound allow is armed."""
        return bool(self._candidates) and 2 * len(self._armed) <= min(ARMED_TASKS_MAX, len(self._armed) + room)

    # -- candidates --------------------------------------------------------------------------------------------

    def expect(self, upstreams: Iterable[SwarmTask]) -> None:
        """Note tasks that are being queued or armed: their downstream tasks become candidates.

        Tasks that share a set of downstream tasks are processed together, so that the set is walked once.
        """
        groups: dict[int, tuple[Collection[SwarmTask], list[SwarmTask]]] = {}
        for upstream in upstreams:
            downstream = upstream.iter_downstream()
            if downstream:
                groups.setdefault(id(downstream), (downstream, []))[1].append(upstream)
        for downstream, group in groups.values():
            for task in downstream:
                missing = task.num_upstreams - task.num_upstreams_done
                if missing <= MISSING_UPSTREAMS_MAX and task.status is TaskStatus.REGISTERING:
                    expected = self._expected.setdefault(task, set())
                    expected.update(group)
                    if len(expected) >= missing and task not in self._armed:
                        self._candidates[task] = None

    def arm(
        self, tasks_max: int, has_room: Callable[[SwarmTask], bool], queued: Collection[SwarmTask] = ()
    ) -> dict[SwarmTask, list[SwarmTask]]:
        """Arm candidates, which may make their downstream tasks candidates; return each with missing upstream tasks.

        Args:
            tasks_max: maximum number of tasks to arm.
            has_room: returns whether the array of a task has room for it.
            queued: tasks that the same request queues.
        """
        chosen: dict[SwarmTask, list[SwarmTask]] = {}
        tasks_max = min(tasks_max, ARMED_TASKS_MAX - len(self._armed))
        while self._candidates and len(chosen) < tasks_max:
            task = next(iter(self._candidates))
            del self._candidates[task]
            missing = self._missing(task, queued)
            if missing and has_room(task):
                chosen[task] = missing
                self._armed[task] = None
                self._by_array[task.array_id] += 1
                self.expect((task,))
        return chosen

    def _missing(self, task: SwarmTask, queued: Collection[SwarmTask]) -> list[SwarmTask]:
        """Return the upstream tasks that are not done; none if one of them is neither in flight nor armed."""
        resources = task.task_resources
        if task.compute_resources_callable is not None or resources is None:
            return []
        if resources.id is None or resources.cluster_id is None:
            return []
        expected = [
            each
            for each in self._expected.get(task, ())
            if each.status in IN_FLIGHT or each in self._armed or each in queued
        ]
        is_complete = len(expected) == task.num_upstreams - task.num_upstreams_done
        return sorted(expected, key=lambda each: each.task_id) if is_complete else []

    # -- after arming ------------------------------------------------------------------------------------------

    def moved(self, task: SwarmTask) -> None:
        """Note that a task has left REGISTERING: it is no longer armed and cannot be."""
        self._expected.pop(task, None)
        self._candidates.pop(task, None)
        if self._drop(task):
            self.is_unreliable = False

    def release(self, tasks: Iterable[SwarmTask]) -> list[SwarmTask]:
        """Stop counting tasks that the server did not arm; return those that are ready to run."""
        released = [task for task in tasks if self._drop(task)]
        return [task for task in released if task.all_upstreams_done and task.status is TaskStatus.REGISTERING]

    def release_unqueued(self) -> list[SwarmTask]:
        """Release and return the tasks that are not queued although all their upstream tasks are done."""
        lost = self.release([task for task in self._armed if task.all_upstreams_done])
        self.is_unreliable |= bool(lost)
        return lost

    def release_downstream(self, failed: Iterable[SwarmTask]) -> None:
        """Release the tasks that depend, directly or through armed tasks, on tasks that failed permanently."""
        pending = list(failed)
        while pending:
            lost = [task for task in pending.pop().iter_downstream() if task in self._armed]
            self.release(lost)
            pending += lost

    def newest(self, count: int, array_id: int | None = None) -> list[SwarmTask]:
        """Return the most recently armed tasks, at most `count`, of one array or of all."""
        chosen = (task for task in reversed(self._armed) if array_id is None or task.array_id == array_id)
        return [task for task, _ in zip(chosen, range(count), strict=False)]

    def _drop(self, task: SwarmTask) -> bool:
        if task not in self._armed:
            return False
        del self._armed[task]
        self._by_array[task.array_id] -= 1
        return True

    def problems(self) -> Iterator[str]:
        """Yield a message for each violated invariant."""
        counted = Counter(task.array_id for task in self._armed)
        if +self._by_array != counted:
            yield f"armed by array are counted {dict(+self._by_array)}, there are {dict(counted)}"
        for task in self._armed:
            if task.status is not TaskStatus.REGISTERING:
                yield f"task {task.task_id} is armed while {task.status.name}"
