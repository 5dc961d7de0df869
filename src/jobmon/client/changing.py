"""Record a new version of a workflow: stage the changes of a plan, seal them, and have the server apply them."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobmon.client.comparison import template_of
from jobmon.client.task import Task
from jobmon.core.changes import NO_SET, Action, Reason, StatusChange, affected, upstreams_hash
from jobmon.core.constants import TaskStatus
from jobmon.core.wire.binding import TasksResponse
from jobmon.core.wire.changes import (
    STAGED_TASKS_MAX,
    STAGED_UPSTREAMS_MAX,
    SealRequest,
    StagedDefinitions,
    StagedStatuses,
    StagedTasks,
    StagedUpstreams,
    VersionRequest,
    VersionResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jobmon.client.array import Array
    from jobmon.client.comparison import Comparison
    from jobmon.client.recorded import Recorded
    from jobmon.core.changes import Decision
    from jobmon.core.requester import Requester

#: A set is edited in place if that takes at most this share of rewriting it.
EDIT_SHARE_MAX: Final = 0.5


class Decided(Protocol):
    """A comparison, and what happens to each of its tasks."""

    @property
    def comparison(self) -> Comparison:
        """The new tasks, compared with the recorded ones."""

    @property
    def decisions(self) -> Sequence[Decision]:
        """A decision for each of them."""


class Change:
    """Records one new version according to a plan.

    Args:
        requester: sends the requests.
        arrays: the arrays of the new tasks, by template.
        plan: what happens to the tasks.
        recorded: the record from which the plan was made.
        columns: returns the fields of a `TaskColumns` for tasks of an array.
        added: returns the fields of a `TasksRequest` for tasks of an array.
    """

    def __init__(
        self,
        requester: Requester,
        arrays: Mapping[str, Array],
        plan: Decided,
        recorded: Recorded,
        columns: Callable[[Array, Sequence[Task]], dict[str, Any]],
        added: Callable[[Array, Sequence[Task]], dict[str, Any]],
    ) -> None:
        self._requester = requester
        self._arrays = arrays
        self._plan = plan
        self._recorded = recorded
        self._columns = columns
        self._added = added
        self._key = ""
        self._route = ""
        self._parts = 0
        self._compared: Comparison = plan.comparison
        self._tasks = plan.comparison.tasks
        self._affected = affected(plan.decisions)
        #: The positions of tasks that are not recorded.
        self._new = [position for position, known in enumerate(plan.comparison.recorded) if known is None]

    def apply(self, request: VersionRequest, skipped: Sequence[int] = ()) -> VersionResponse:
        """Stage, seal and apply the version. The work is proportional to the changes, plus a look at each task.

        Args:
            request: begins the version.
            skipped: IDs of recorded tasks to skip.

        Raises:
            WorkflowVersionConflict: another user or process changed or ran the workflow in the meantime.
            StaleRun: the version is that of an expansion, and its run may no longer change the workflow.
        """
        self._key = request.key
        base = f"/workflows/{self._recorded.workflow.workflow_id}/versions"
        number = self._requester.call(base, request, VersionResponse).number
        self._route = f"{base}/{number}"
        self._stage_added()
        self._stage_definitions()
        self._stage_upstreams()
        self._stage_statuses()
        self._send_statuses(StatusChange.SKIP, skipped)
        if request.expansion_id is not None:
            self._send_statuses(StatusChange.EXPANDED, [request.expansion_id])
        seal = SealRequest(key=self._key, parts=self._parts)
        response = self._requester.call(f"{self._route}/seal", seal, VersionResponse)
        self._identify()
        return response

    def _next(self) -> int:
        self._parts += 1
        return self._parts - 1

    def _send(self, kind: str, message: object, reply: Any = dict) -> Any:
        return self._requester.call(f"{self._route}/{kind}", message, reply)

    # -- tasks --------------------------------------------------------------------------------------------------------

    def _stage_added(self) -> None:
        for array, positions in self._chunks(self._new):
            tasks = self._defined(positions)
            request = StagedTasks(**self._added(array, tasks), key=self._key, position=self._next())
            found = self._send("tasks", request, TasksResponse)
            for task, task_id, node_id in zip(tasks, found.task_ids, found.node_ids, strict=True):
                task.task_id, task.node_id = task_id, node_id
        for one, known in zip(self._tasks, self._compared.recorded, strict=True):
            if known is not None and isinstance(one, Task):
                one.task_id = known.task_id

    def _defined(self, positions: Iterable[int]) -> list[Task]:
        """Return tasks of the definition; those that are only recorded have no changes."""
        found = [self._tasks[position] for position in positions]
        return [task for task in found if isinstance(task, Task)]

    def _stage_definitions(self) -> None:
        compared = self._compared
        for array, positions in self._chunks(self._redefined()):
            tasks = self._defined(positions)
            names = array.template_version.arguments
            columns = list(zip(*(task.values[len(names.node_args) :] for task in tasks), strict=True))
            before = [compared.recorded[position] for position in positions]
            request = StagedDefinitions(
                **self._columns(array, tasks),
                task_ids=[_id(task) for task in tasks],
                task_args={name: list(column) for name, column in zip(names.task_args, columns, strict=True)},
                upstreams=[
                    upstreams_hash(() if known is None else self._recorded.upstream_ids(known)) for known in before
                ],
                key=self._key,
                position=self._next(),
            )
            self._send("definitions", request)

    def _is_redefined(self, position: int) -> bool:
        """Return whether a recorded task gets a new definition; a running task that may finish keeps the old one."""
        is_adopted = self._plan.decisions[position].action is Action.ADOPT
        return bool(self._compared.changes[position]) and not is_adopted

    def _redefined(self) -> list[int]:
        return [
            position for position, found in enumerate(self._compared.changes) if found and self._is_redefined(position)
        ]

    def _chunks(self, positions: Iterable[int]) -> Iterator[tuple[Array, list[int]]]:
        """Yield positions of tasks with their array, in bounded chunks."""
        by_array: dict[str, list[int]] = defaultdict(list)
        for position in positions:
            by_array[template_of(self._tasks[position])].append(position)
        for name, found in by_array.items():
            for start in range(0, len(found), STAGED_TASKS_MAX):
                yield self._arrays[name], found[start : start + STAGED_TASKS_MAX]

    # -- upstream tasks -----------------------------------------------------------------------------------------------

    def _stage_upstreams(self) -> None:
        """Send the sets that differ, and the tasks that use them.

        A recorded set whose users all change to the same new set is edited in place, so that adding twenty tasks to a
        set of a million takes twenty rows.
        """
        users: dict[int, list[int]] = defaultdict(list)
        for position in self._with_other_upstreams():
            users[self._compared.set_of[position]].append(position)
        edits = self._edits(users)
        for number in edits:
            del users[number]
        self._send_edits(edits)
        self._send_sets(users)

    def _with_other_upstreams(self) -> Iterator[int]:
        """Yield the positions of tasks whose upstream tasks have to be recorded."""
        compared = self._compared
        for position in self._new:
            if compared.set_of[position] != NO_SET:
                yield position
        for position in compared.upstream_changes:
            if self._is_redefined(position):
                yield position

    def _edits(self, users: dict[int, list[int]]) -> dict[int, tuple[int, list[int], list[int]]]:
        """Return the additions to and removals from recorded sets, by the number of the new set."""
        before = {number: self._only_set(positions) for number, positions in users.items() if number != NO_SET}
        counts = Counter(task.set_id for task in self._recorded.tasks if task.set_id) if any(before.values()) else {}
        found: dict[int, tuple[int, list[int], list[int]]] = {}
        for number, set_id in before.items():
            if not set_id or counts[set_id] != len(users[number]):
                continue
            wanted, members = self._ids(number), set(self._recorded.upstreams[set_id])
            gained, lost = sorted(wanted - members), sorted(members - wanted)
            if len(gained) + len(lost) <= len(wanted) * EDIT_SHARE_MAX:
                found[number] = (set_id, gained, lost)
        return found

    def _only_set(self, positions: Iterable[int]) -> int:
        """Return the recorded set that all these tasks use; 0 if they use different ones."""
        known = [self._compared.recorded[position] for position in positions]
        sets = {0 if task is None else task.set_id for task in known}
        return sets.pop() if len(sets) == 1 else 0

    def _ids(self, number: int) -> set[int]:
        return {_id(self._tasks[position]) for position in self._compared.sets[number]}

    def _send_edits(self, edits: dict[int, tuple[int, list[int], list[int]]]) -> None:
        for set_id, gained, lost in edits.values():
            for start in range(0, max(len(gained), len(lost)), STAGED_UPSTREAMS_MAX // 2):
                stop = start + STAGED_UPSTREAMS_MAX // 2
                request = StagedUpstreams(
                    key=self._key,
                    position=self._next(),
                    edited=[set_id],
                    gained=[gained[start:stop]],
                    lost=[lost[start:stop]],
                )
                self._send("upstreams", request)

    def _send_sets(self, users: dict[int, list[int]]) -> None:
        """Send sets, then their users; numbers in messages start at 1."""
        numbers = {number: at for at, number in enumerate((each for each in users if each != NO_SET), start=1)}
        members = ((numbers[number], task_id) for number in numbers for task_id in sorted(self._ids(number)))
        while chunk := list(islice(members, STAGED_UPSTREAMS_MAX)):
            sets: dict[int, list[int]] = defaultdict(list)
            for at, task_id in chunk:
                sets[at].append(task_id)
            request = StagedUpstreams(
                key=self._key, position=self._next(), set_numbers=list(sets), members=list(sets.values())
            )
            self._send("upstreams", request)
        pairs = ((_id(self._tasks[at]), numbers.get(number, 0)) for number, found in users.items() for at in found)
        while rows := list(islice(pairs, STAGED_TASKS_MAX)):
            request = StagedUpstreams(
                key=self._key,
                position=self._next(),
                task_ids=[row[0] for row in rows],
                task_sets=[row[1] for row in rows],
            )
            self._send("upstreams", request)

    # -- statuses -----------------------------------------------------------------------------------------------------

    def _stage_statuses(self) -> None:
        changes: dict[StatusChange, list[int]] = defaultdict(list)
        accepted: list[int] = []
        for position in self._affected:
            known, decision = self._compared.recorded[position], self._plan.decisions[position]
            if decision.action is Action.KEEP:
                if Reason.ACCEPTED in decision.reasons:
                    accepted.append(position)
            elif known is not None and (change := _status_change(known.status, decision.action)) is not None:
                changes[change].append(known.task_id)
        changes[StatusChange.REMOVE] = [task.task_id for task in self._compared.removed]
        for change, ids in changes.items():
            self._send_statuses(change, ids)
        self._send_accepted(accepted)

    def _send_statuses(self, change: StatusChange, task_ids: Sequence[int]) -> None:
        for start in range(0, len(task_ids), STAGED_TASKS_MAX):
            chunk = list(task_ids[start : start + STAGED_TASKS_MAX])
            self._send(
                "statuses", StagedStatuses(key=self._key, position=self._next(), change=change.value, task_ids=chunk)
            )

    def _send_accepted(self, positions: Sequence[int]) -> None:
        tasks = self._tasks
        for start in range(0, len(positions), STAGED_TASKS_MAX):
            chunk = positions[start : start + STAGED_TASKS_MAX]
            request = StagedStatuses(
                key=self._key,
                position=self._next(),
                change=StatusChange.ACCEPT.value,
                task_ids=[_id(tasks[position]) for position in chunk],
                accepted=[
                    self._compared.acceptance(position, [_id(tasks[at]) for at in self._compared.upstreams(position)])
                    for position in chunk
                ],
            )
            self._send("statuses", request)

    def _identify(self) -> None:
        """Set the initial statuses in the task objects of the workflow."""
        for task in self._tasks:
            if isinstance(task, Task):
                task.initial_status = TaskStatus.DONE
        for position in self._affected:
            task, known = self._tasks[position], self._compared.recorded[position]
            action = self._plan.decisions[position].action
            if not isinstance(task, Task) or action is Action.KEEP or action is Action.RESTORE:
                continue
            is_unchanged = action in (Action.ADOPT, Action.SKIP)
            status = known.status if is_unchanged and known is not None else TaskStatus.REGISTERING
            task.initial_status = TaskStatus(status)


def _status_change(status: str, action: Action) -> StatusChange | None:
    """Return the change of a recorded task's status, or None."""
    if action is Action.RESTORE:
        return StatusChange.RESTORE
    if status == TaskStatus.REMOVED:
        return StatusChange.ADD
    return StatusChange.REOPEN if action is Action.RUN and status == TaskStatus.DONE else None


def complete_version(requester: Requester, workflow_id: int) -> None:
    """Finish applying a version that was sealed but not applied completely; do nothing if there is none."""
    requester.call(f"/workflows/{workflow_id}/complete_version", {}, VersionResponse)


def _id(task: Any) -> int:
    """Return the ID of a recorded task."""
    found = task.task_id
    assert found is not None, "it is recorded before it is named"
    return int(found)
