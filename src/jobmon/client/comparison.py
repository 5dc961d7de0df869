"""How a definition differs from the recorded one, task by task.

The *key* of a task is the name of its template with its node args. The command is not part of it, so a task with a
corrected command is the same task.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from jobmon.client.expansion import Expansion
from jobmon.client.recorded import RecordedTask
from jobmon.client.task import Task, with_upstreams
from jobmon.core.changes import (
    NO_SET,
    Definition,
    Evidence,
    Reason,
    acceptance_hash,
    definition_changes,
    upstreams_hash,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jobmon.client.recorded import Recorded
    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.core.wire.changes import RecordedTemplate


class UpstreamChange(NamedTuple):
    """The number of upstream tasks that a task has gained and lost."""

    added: int
    removed: int


_SAME = UpstreamChange(0, 0)


@dataclass(slots=True)
class Comparison:
    """A new definition compared with the recorded one. Tasks are given by their positions in `tasks`.

    Args:
        tasks: the tasks of the new definition.
        recorded: the recorded task with the same key, for each task; None if there is none.
        removed: recorded tasks that the new definition lacks.
        changes: how each task differs from its record, as far as that requires a rerun.
        ran_changes: how each task differs from what its newest started attempt ran.
        sets: distinct sets of upstream tasks, as positions.
        set_of: number of the set of each task; `NO_SET` if it has no upstream tasks.
        upstream_changes: changes of tasks whose upstream tasks differ, by position.
        origins: the position of the expansion that added a task, by the position of the task.
    """

    tasks: Sequence[Task | RecordedTask]
    recorded: list[RecordedTask | None]
    removed: list[RecordedTask]
    changes: list[tuple[Reason, ...]]
    ran_changes: list[tuple[Reason, ...]]
    sets: list[Sequence[int]]
    set_of: list[int]
    upstream_changes: dict[int, UpstreamChange] = field(default_factory=dict)
    origins: dict[int, int] = field(default_factory=dict)
    _acceptances: dict[int, list[Definition]] = field(default_factory=dict)

    @property
    def added(self) -> Iterable[int]:
        """The positions of tasks that the current version does not have."""
        return (position for position, task in enumerate(self.recorded) if task is None or task.is_removed)

    @property
    def is_changed(self) -> bool:
        """Whether the new definition requires consent."""
        return bool(self.removed) or any(self.changes) or next(iter(self.added), None) is not None

    def evidence(self) -> list[Evidence | None]:
        """Return the recorded evidence for each task; None if it is not recorded."""
        return [
            None if known is None else known.evidence(changes, is_accepted=self._is_accepted(position, known))
            for position, (known, changes) in enumerate(zip(self.recorded, self.ran_changes, strict=True))
        ]

    def _is_accepted(self, position: int, known: RecordedTask) -> bool:
        if known.accepted is None:
            return False
        members = self.upstreams(position)
        ids = [task.task_id for at in members if (task := self.recorded[at]) is not None]
        return len(ids) == len(members) and known.accepted == self.acceptance(position, ids)

    def upstreams(self, position: int) -> Sequence[int]:
        """Return the positions of a task's upstream tasks."""
        number = self.set_of[position]
        return () if number == NO_SET else self.sets[number]

    def acceptance(self, position: int, upstream_ids: Iterable[int]) -> str:
        """Return the hash of what the result of a task is accepted for.

        Args:
            position: position of the task.
            upstream_ids: IDs of its upstream tasks.
        """
        number = self.set_of[position]
        definitions = self._acceptances.get(number)
        if definitions is None:
            members = self.upstreams(position)
            definitions = self._acceptances[number] = [definition_of(self.tasks[at]) for at in members]
        return acceptance_hash((definition_of(self.tasks[position]), upstreams_hash(upstream_ids)), definitions)


def is_expansion(task: Task | RecordedTask) -> bool:
    """Return whether a task is an expansion."""
    return task.is_expansion if isinstance(task, RecordedTask) else isinstance(task, Expansion)


def template_of(task: Task | RecordedTask) -> str:
    """Return the name of a task's template."""
    return task.template.name if isinstance(task, RecordedTask) else task.template_version.name


def definition_of(task: Task | RecordedTask) -> Definition:
    """Return what determines the result of a task."""
    if isinstance(task, RecordedTask):
        return task.definition
    version = task.template_version
    names = version.arguments
    task_args = tuple(zip(names.task_args, task.values[len(names.node_args) :], strict=True))
    return Definition(version.command_template, task.command, task_args)


def unrecorded(tasks: Sequence[Task]) -> Comparison:
    """Return the comparison of a definition that is not recorded."""
    sets, set_of = _sets(tasks)
    nothing: list[tuple[Reason, ...]] = [()] * len(tasks)
    return Comparison(tasks, [None] * len(tasks), [], nothing, nothing, sets, set_of)


def recorded_only(recorded: Recorded) -> Comparison:
    """Return the comparison of a recorded definition with itself."""
    tasks = [task for task in recorded.tasks if not task.is_removed]
    at = {task.task_id: position for position, task in enumerate(tasks)}
    used = dict.fromkeys(task.set_id for task in tasks if task.set_id)
    numbers = {set_id: number for number, set_id in enumerate(used)}
    return Comparison(
        tasks,
        list(tasks),
        [],
        [()] * len(tasks),
        [_ran_changes(task, task.definition, partial(recorded.upstream_ids, task)) for task in tasks],
        [[at[task_id] for task_id in recorded.upstreams[set_id] if task_id in at] for set_id in used],
        [numbers[task.set_id] if task.set_id else NO_SET for task in tasks],
        origins={at[task.task_id]: at[task.origin_id] for task in tasks if task.origin_id in at},
    )


def _ran_changes(
    known: RecordedTask, wanted: Definition, upstream_ids: Callable[[], Iterable[int]]
) -> tuple[Reason, ...]:
    """Return how a new definition differs from what the newest started attempt of a task ran."""
    if known.ran is None:
        return definition_changes(known.edited_definition, wanted) if known.edit is not None else ()
    ran, upstreams = known.ran
    same = not upstreams or upstreams_hash(upstream_ids()) == upstreams
    return (*definition_changes(ran, wanted), *(() if same else (Reason.UPSTREAMS,)))


def compare(tasks: Sequence[Task], recorded: Recorded) -> Comparison:
    """Compare a definition with the recorded one; time and memory are linear.

    Tasks that expansions added in earlier runs follow the tasks of the definition, unless their expansion is gone; they
    are upstream tasks of whatever depends on their expansion.

    Args:
        tasks: the tasks of the new definition.
        recorded: the record of their workflow.
    """
    defined = [each for each in recorded.tasks if not each.origin_id]
    pairs, removed = _pairs(tasks, defined)
    sets, set_of = _sets(tasks)
    compared = Comparison(tasks, pairs, removed, [], [], sets, set_of)
    if len(defined) < len(recorded.tasks):
        _append_added(compared, recorded)
    upstreams = _UpstreamComparison(compared, recorded)
    definitions = _DefinitionComparison()
    for position, (task, known) in enumerate(zip(compared.tasks, compared.recorded, strict=True)):
        if isinstance(task, RecordedTask):
            compared.changes.append(())
            compared.ran_changes.append(_ran_changes(task, task.definition, partial(recorded.upstream_ids, task)))
            continue
        changes: tuple[Reason, ...] = ()
        ran = changes
        if known is not None:
            changes = definitions.changes(task, known)
            difference = upstreams.difference(set_of[position], known.set_id)
            if difference is not _SAME and difference != _SAME:
                compared.upstream_changes[position] = difference
                changes = (*changes, Reason.UPSTREAMS)
            if known.ran is None and known.edit is None:
                ran = changes
            elif known.ran is None:
                of_definition = _ran_changes(known, definition_of(task), list)
                ran = (*of_definition, *(each for each in changes if each is Reason.UPSTREAMS))
            else:
                ran = _ran_changes(known, definition_of(task), partial(upstreams.ids, position))
        compared.changes.append(changes)
        compared.ran_changes.append(ran)
    return compared


def _append_added(compared: Comparison, recorded: Recorded) -> None:
    """Append the tasks that remaining expansions have added, and complete the sets of upstream tasks with them."""
    children: dict[int, list[RecordedTask]] = defaultdict(list)
    for each in recorded.tasks:
        if each.origin_id and not each.is_removed:
            children[each.origin_id].append(each)
    kept = list(compared.recorded)
    roots = [(position, known) for position, known in enumerate(kept) if known is not None]
    at = {known.task_id: position for position, known in roots}
    added: dict[int, range] = {}  # expansion of the script -> all that follows from it
    for root, known in roots:
        start, waiting = len(kept), [known.task_id]
        while waiting:
            origin_id = waiting.pop()
            for each in children.pop(origin_id, ()):
                at[each.task_id] = len(kept)
                compared.origins[len(kept)] = at[origin_id]
                kept.append(each)
                waiting.append(each.task_id)
        if start < len(kept):
            added[root] = range(start, len(kept))
    compared.removed.extend(each for left in children.values() for each in left)
    compared.sets[:] = [_with_added(each, added) for each in compared.sets]
    _append_sets(compared, recorded, [each for each in kept[len(compared.tasks) :] if each is not None], at)
    compared.recorded = kept


def _with_added(members: Sequence[int], added: Mapping[int, range]) -> Sequence[int]:
    more = [position for root in members if root in added for position in added[root]]
    return [*members, *more] if more else members


def _append_sets(compared: Comparison, recorded: Recorded, kept: Sequence[RecordedTask], at: Mapping[int, int]) -> None:
    """Append added tasks with their sets of upstream tasks."""
    numbers: dict[int, int] = {}
    for each in kept:
        if each.set_id and each.set_id not in numbers:
            numbers[each.set_id] = len(compared.sets)
            compared.sets.append([at[one] for one in recorded.upstream_ids(each) if one in at])
        compared.set_of.append(numbers[each.set_id] if each.set_id else NO_SET)
    compared.tasks = [*compared.tasks, *kept]


def _pairs(
    tasks: Sequence[Task], recorded: Iterable[RecordedTask]
) -> tuple[list[RecordedTask | None], list[RecordedTask]]:
    """Return the recorded task of each task, and the remaining recorded tasks."""
    known: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], RecordedTask]] = defaultdict(dict)
    template, of_template = None, known["", ()]
    for each in recorded:
        if each.template is not template:
            template = each.template
            of_template = known[template.name, tuple(template.node_args)]
        of_template[each.node_values] = each
    pairs = []
    version, count = None, 0
    for task in tasks:
        if task.template_version is not version:
            version = task.template_version
            names = version.arguments.node_args
            of_template, count = known[version.name, names], len(names)
        pairs.append(of_template.pop(task.values[:count], None))
    left = (each for found in known.values() for each in found.values())
    return pairs, [each for each in left if not each.is_removed]


def _sets(tasks: Sequence[Task]) -> tuple[list[Sequence[int]], list[int]]:
    """Number the sets of upstream tasks; tasks that share a set object share a number."""
    if not with_upstreams(tasks):
        return [], [NO_SET] * len(tasks)
    at = {id(task): position for position, task in enumerate(tasks)}
    sets: list[Sequence[int]] = []
    set_of: list[int] = []
    numbers: dict[int, int] = {}
    for task in tasks:
        upstreams = task.upstream_tasks
        if not upstreams:
            set_of.append(NO_SET)
            continue
        number = numbers.setdefault(id(upstreams), len(sets))
        if number == len(sets):
            sets.append(sorted(at[id(each)] for each in upstreams))
        set_of.append(number)
    return sets, set_of


class _DefinitionComparison:
    """Compares definitions, and each pair of templates only once."""

    def __init__(self) -> None:
        #: Recorded template and template version -> their number of node args if they are equal; otherwise None.
        self._node_counts: dict[tuple[int, int], int | None] = {}

    def changes(self, task: Task, known: RecordedTask) -> tuple[Reason, ...]:
        """Return what differs, if the difference requires a rerun."""
        key = id(known.template), id(task.template_version)
        if key not in self._node_counts:
            self._node_counts[key] = _common_node_count(task.template_version, known.template)
        count = self._node_counts[key]
        is_same = count is not None and task.command == known.command and task.values[count:] == known.task_values
        if is_same and known.edit is None:
            return ()
        return definition_changes(known.definition, definition_of(task))


def _common_node_count(version: TaskTemplateVersion, known: RecordedTemplate) -> int | None:
    arguments = version.arguments
    is_same = version.command_template == known.command_template and list(arguments.task_args) == known.task_args
    return len(arguments.node_args) if is_same else None


class _UpstreamComparison:
    """Compares sets of upstream tasks by key, and each pair of sets only once."""

    def __init__(self, compared: Comparison, recorded: Recorded) -> None:
        self._compared = compared
        self._recorded = recorded
        self._known: dict[tuple[int, int], UpstreamChange] = {}

    def ids(self, position: int) -> list[int]:
        """Return the IDs of a task's new upstream tasks; 0 for each that is not recorded."""
        members = (self._compared.recorded[at] for at in self._compared.upstreams(position))
        return [0 if task is None else task.task_id for task in members]

    def difference(self, number: int, set_id: int) -> UpstreamChange:
        """Return how a new set differs from a recorded one."""
        if number == NO_SET and not set_id:
            return _SAME
        found = self._known.get((number, set_id))
        if found is None:
            found = self._known[number, set_id] = self._difference(number, set_id)
        return found

    def _difference(self, number: int, set_id: int) -> UpstreamChange:
        members = () if number == NO_SET else self._compared.sets[number]
        known = [task.task_id for position in members if (task := self._compared.recorded[position]) is not None]
        recorded = self._recorded.upstreams.get(set_id, ())
        new = len(members) - len(known)
        if not new and len(known) == len(recorded) and set(known).issuperset(recorded):
            return _SAME
        common = len(set(known).intersection(recorded))
        return UpstreamChange(new + len(known) - common, len(recorded) - common)
