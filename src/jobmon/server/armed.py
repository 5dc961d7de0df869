"""Armed successors: tasks that the server queues itself in the transaction that makes their last upstream task DONE.

Armed sets exist only in the memory of one server process. They are a hint, never the record: a set may be lost at any
time (restart, rollback, too many sets), and the orchestrator then queues its tasks like all others.

A task must never stay armed after the orchestrator has stopped counting it. Therefore each set has a *floor*, a stamp
of the logical clock: requests to arm that were sent before it (`seen`) are late or duplicates, and arm nothing.
Used only by the writer. Pure: no clock, no database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobmon.core.wire.swarm import ARMED_TASKS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Number of sets that are kept; beyond it, the least recently used set is dropped.
ARMED_SETS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class ArmedTask:
    """A task, how to queue it, and the stamp up to which its orchestrator knew all changes."""

    task_id: int
    run_id: int
    task_resources_id: int
    cluster_id: int
    seen: int
    fail_fast: bool = False
    may_overtake: bool = False


@dataclass(slots=True)
class _Set:
    """The armed tasks of a workflow, all of one run."""

    floor: int
    run_id: int | None = None
    tasks: dict[int, ArmedTask] = field(default_factory=dict)
    #: Armed task -> its upstream tasks that are not DONE.
    missing: dict[int, set[int]] = field(default_factory=dict)
    #: Upstream task -> the armed tasks that depend on it.
    waiting: dict[int, set[int]] = field(default_factory=dict)

    def add(self, armed: ArmedTask, missing: Iterable[int]) -> None:
        self.remove(armed.task_id)
        self.tasks[armed.task_id] = armed
        self.missing[armed.task_id] = set(missing)
        for upstream in self.missing[armed.task_id]:
            self.waiting.setdefault(upstream, set()).add(armed.task_id)

    def remove(self, task_id: int) -> ArmedTask | None:
        for upstream in self.missing.pop(task_id, ()):
            others = self.waiting[upstream]
            others.discard(task_id)
            if not others:
                del self.waiting[upstream]
        return self.tasks.pop(task_id, None)

    def clear(self) -> None:
        self.tasks.clear()
        self.missing.clear()
        self.waiting.clear()


class ArmedSets:
    """The armed tasks of all workflows.

    A transaction calls `begin` before it touches them, and `rollback` if it fails: nothing that it touched then stays
    armed.
    """

    def __init__(self) -> None:
        self._sets: dict[int, _Set] = {}
        self._touched: set[int] = set()
        #: The floor of workflows without their own set. None: no transaction has begun yet.
        self._floor: int | None = None

    @property
    def is_begun(self) -> bool:
        """Whether a transaction has begun since this process started."""
        return self._floor is not None

    def begin(self, last_stamp: int | None = None) -> None:
        """Begin a transaction; the first one of a process passes the last stamp before it."""
        if self._floor is None:
            self._floor = last_stamp
        self._touched.clear()

    def rollback(self) -> None:
        """Disarm everything in the sets that the transaction touched."""
        for workflow_id in self._touched & self._sets.keys():
            self._sets[workflow_id].clear()
        self._touched.clear()

    def armed(self, workflow_id: int) -> list[int]:
        """Return the armed tasks of a workflow."""
        found = self._sets.get(workflow_id)
        return [] if found is None else list(found.tasks)

    def arm(self, workflow_id: int, task: ArmedTask, missing: Sequence[int]) -> bool:
        """Arm a task that waits for these upstream tasks; return whether it is now armed.

        It is not armed if the request is late (see the module docstring) or if too many tasks are armed.
        """
        mine = self._set(workflow_id, task.run_id)
        has_room = task.task_id in mine.tasks or len(mine.tasks) < ARMED_TASKS_MAX
        if task.seen <= mine.floor or not has_room:
            return False
        mine.add(task, missing)
        return True

    def disarm(self, workflow_id: int, run_id: int, task_ids: Iterable[int], stamp: int) -> None:
        """Disarm some tasks; requests to arm that were sent up to this stamp no longer arm anything."""
        mine = self._set(workflow_id, run_id)
        for task_id in task_ids:
            mine.remove(task_id)
        mine.floor = max(mine.floor, stamp)

    def done(self, workflow_id: int, task_ids: Iterable[int]) -> list[ArmedTask]:
        """Note tasks that are DONE; remove and return the armed tasks whose upstream tasks are now all DONE."""
        mine = self._find(workflow_id)
        due: list[ArmedTask] = []
        if mine is None:
            return due
        for upstream in task_ids:
            for task_id in sorted(mine.waiting.pop(upstream, ())):
                mine.missing[task_id].discard(upstream)
                if not mine.missing[task_id]:
                    armed = mine.remove(task_id)
                    assert armed is not None
                    due.append(armed)
        return due

    def failed(self, workflow_id: int, task_ids: Iterable[int]) -> None:
        """Note tasks that failed permanently; disarm all that depend on them, directly or through armed tasks."""
        mine = self._find(workflow_id)
        if mine is None:
            return
        lost = list(task_ids)
        while lost:
            for task_id in list(mine.waiting.get(lost.pop(), ())):
                mine.remove(task_id)
                lost.append(task_id)

    def release(self, workflow_id: int, stamp: int) -> None:
        """Disarm all tasks of a workflow; requests to arm that were sent up to this stamp no longer arm anything."""
        mine = self._set(workflow_id)
        mine.clear()
        mine.floor = max(mine.floor, stamp)

    def forget(self, workflow_id: int, run_id: int) -> None:
        """Drop the set of a run that may not queue tasks any more."""
        mine = self._sets.get(workflow_id)
        if mine is not None and mine.run_id == run_id:
            del self._sets[workflow_id]

    def _find(self, workflow_id: int) -> _Set | None:
        mine = self._sets.get(workflow_id)
        if mine is not None:
            self._touched.add(workflow_id)
        return mine

    def _set(self, workflow_id: int, run_id: int | None = None) -> _Set:
        """Return the set of a workflow and mark it as the most recently used; drop tasks armed by another run."""
        assert self._floor is not None
        mine = self._sets.pop(workflow_id, None) or _Set(self._floor)
        if run_id is not None and run_id != mine.run_id:
            mine.clear()
            mine.run_id = run_id
        self._sets[workflow_id] = mine
        self._touched.add(workflow_id)
        if len(self._sets) > ARMED_SETS_MAX:
            oldest = self._sets.pop(next(iter(self._sets)))
            self._floor = max(self._floor, oldest.floor)
        return mine
