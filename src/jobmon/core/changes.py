"""Decide which tasks have to run after a change: the rule shared by plans, resumes and explanations. Pure functions.

A task is *up to date* if

1. its newest started attempt succeeded with the definition and the upstream tasks that are wanted now,
2. all its upstream tasks are up to date or skipped,
3. each upstream task succeeded no later than that attempt was queued, by the server's logical clock,
4. no rerun was requested.

Everything else runs. An *accepted* result (kept by choice, or marked as done by a user) satisfies 1 and 3, and an
upstream task that reruns does not force it to rerun, until its own or an upstream definition changes or it runs.
Attempt counts, resources and hosts never matter.

Files count only if that is requested. A task with a missing output then reruns if no task reads that output, or if one
that reads it runs: intermediate results of finished work may be deleted. A changed input is like a requested rerun.

Tasks are positions in a list. Tasks with the same upstream tasks share one set, so time and memory are linear in tasks
and in distinct sets.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobmon.core.constants import TaskStatus
from jobmon.core.fsm import IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: In `on_change`: all templates that are not named.
ALL_TEMPLATES: Final = "*"
#: The number of the empty set of upstream tasks.
NO_SET: Final = -1


class OnChange(StrEnum):
    """What happens to a task whose recorded definition or upstream tasks differ from the wanted ones."""

    ERROR = "error"
    RERUN = "rerun"
    RERUN_ONLY = "rerun-only"
    KEEP = "keep"


class CheckFiles(StrEnum):
    """Which declared files a plan or resume looks for: none, outputs, or also the inputs that no task writes."""

    NONE = "none"
    OUTPUTS = "outputs"
    ALL = "all"


class VersionState(StrEnum):
    """How far a version of a workflow is: partly recorded, certain to be applied, or in force."""

    STAGED = "staged"
    SEALED = "sealed"
    APPLIED = "applied"


class StatusChange(StrEnum):
    """What a version does to tasks besides changing their definitions."""

    ADD = "add"
    REOPEN = "reopen"
    RESTORE = "restore"
    ACCEPT = "accept"
    REMOVE = "remove"
    SKIP = "skip"
    EXPANDED = "expanded"


class Action(StrEnum):
    """What a resume does with a task."""

    RUN = "run"
    ADOPT = "adopt"
    KILL = "kill"
    KEEP = "keep"
    RESTORE = "restore"
    SKIP = "skip"
    REMOVE = "remove"


#: Actions after which the command of the task is run or continues to run.
RUNS: Final = frozenset({Action.RUN, Action.ADOPT, Action.KILL})


class Reason(StrEnum):
    """Why; the most specific reasons come first."""

    NEW = "new"
    COMMAND = "command changed"
    TASK_ARGS = "task args changed"
    UPSTREAMS = "upstreams changed"
    INPUT_CHANGED = "input changed"
    OUTPUT_MISSING = "output missing"
    REQUESTED = "requested"
    FAILED = "failed"
    STOPPED = "stopped"
    NOT_RUN = "not run yet"
    RUNNING = "running"
    UPSTREAM_RERUNS = "upstream reruns"
    UPSTREAM_RERAN = "upstream reran"
    UP_TO_DATE = "up to date"
    ACCEPTED = "accepted"
    SKIPPED = "skipped"
    REVERTED = "change reverted"
    REMOVED = "removed"


#: Reasons that files give.
FILE_REASONS: Final = frozenset({Reason.INPUT_CHANGED, Reason.OUTPUT_MISSING})


class Definition(NamedTuple):
    """What determines the result of a task besides its upstream tasks. `task_args`: pairs of name and text."""

    command_template: str
    command: str
    task_args: tuple[tuple[str, str], ...]


def definition_changes(recorded: Definition, wanted: Definition) -> tuple[Reason, ...]:
    """Return what differs, if the difference requires a rerun.

    The command counts only if both the template and the rendered command differ. Otherwise only op args differ, or only
    parts of the template that do not affect this task.
    """
    if recorded == wanted:
        return ()
    is_other_command = recorded.command_template != wanted.command_template and recorded.command != wanted.command
    is_other_data = recorded.task_args != wanted.task_args
    return (*((Reason.COMMAND,) if is_other_command else ()), *((Reason.TASK_ARGS,) if is_other_data else ()))


def upstreams_hash(task_ids: Iterable[int]) -> str:
    """Return the hash of a set of upstream tasks."""
    return sha256(",".join(map(str, sorted(task_ids))).encode()).hexdigest()


def acceptance_hash(own: tuple[Definition, str], upstreams: Iterable[Definition]) -> str:
    """Return the hash of the definition and upstream tasks for which a result was accepted.

    Args:
        own: the definition of the task, and the hash of its upstream tasks.
        upstreams: the definitions of its upstream tasks.
    """
    others = sorted(map(repr, upstreams))
    return sha256(repr((own, others)).encode()).hexdigest()


class Evidence(NamedTuple):
    """What is recorded about a task.

    Args:
        status: the status of the task.
        changes: how the wanted definition and upstream tasks differ from those of the newest started attempt.
        succeeded: whether the newest started attempt succeeded.
        queued: logical time at which that attempt was queued; None: recorded before logical times existed.
        ended: logical time of its success; None: as for `queued`, or it did not succeed.
        accepted: whether the result was accepted, and neither it nor an upstream definition changed since.
        requested: whether a rerun was requested.
        unfinished: why a task that is not done is not done.
        files: why its files require a rerun; None: they do not.
    """

    status: str
    changes: tuple[Reason, ...] = ()
    succeeded: bool = False
    queued: int | None = None
    ended: int | None = None
    accepted: bool = False
    requested: bool = False
    unfinished: Reason = Reason.NOT_RUN
    files: Reason | None = None


class Decision(NamedTuple):
    """What happens to a task, and why. `forces`: whether downstream tasks rerun because of it."""

    action: Action
    reasons: tuple[Reason, ...]
    forces: bool = False


class _Upstreams(NamedTuple):
    """What a set of upstream tasks means for its downstream tasks.

    Args:
        forces: whether one of them runs and requires that downstream tasks rerun.
        runs: whether one of them runs.
        newest: the latest logical time at which one of them succeeded; 0 if none is known.
    """

    forces: bool
    runs: bool
    newest: int


_NO_UPSTREAMS: Final = _Upstreams(forces=False, runs=False, newest=0)
_NEW: Final = Decision(Action.RUN, (Reason.NEW,), forces=True)
#: The decision about nearly all tasks of a large workflow.
UP_TO_DATE: Final = Decision(Action.KEEP, (Reason.UP_TO_DATE,))
_ACCEPTED: Final = Decision(Action.KEEP, (Reason.ACCEPTED,))
_SKIPPED: Final = Decision(Action.SKIP, (Reason.SKIPPED,))
_RESTORED: Final = Decision(Action.RESTORE, (Reason.REVERTED,))
_ADOPTED: Final = Decision(Action.ADOPT, (Reason.RUNNING,), forces=True)


def affected(decisions: Sequence[Decision]) -> list[int]:
    """Return the positions of all tasks that are not simply up to date."""
    return [position for position, decision in enumerate(decisions) if decision is not UP_TO_DATE]


def decide(
    tasks: Sequence[Evidence | None],
    sets: Sequence[Sequence[int]],
    set_of: Sequence[int],
    modes: Sequence[OnChange],
) -> list[Decision]:
    """Decide what happens to each task.

    Args:
        tasks: what is recorded about each task; None: it is new.
        sets: distinct sets of upstream tasks, as positions in `tasks`.
        set_of: number of the set of each task; `NO_SET`: it has no upstream tasks.
        modes: what happens to each task on a change; `ERROR` counts as `RERUN`: the caller rejects changes.

    Returns:
        A decision for each task.

    Raises:
        ValueError: the dependencies form a cycle.
    """
    decisions: list[Decision | None] = [None] * len(tasks)
    known: list[_Upstreams | None] = [None] * len(sets)
    for position in in_order(sets, set_of):
        number = set_of[position]
        upstreams = _NO_UPSTREAMS
        if number != NO_SET:
            found = known[number]
            if found is None:
                found = known[number] = _upstreams(sets[number], decisions, tasks)
            upstreams = found
        evidence = tasks[position]
        decisions[position] = _NEW if evidence is None else _decide(evidence, upstreams, modes[position])
    return [decision for decision in decisions if decision is not None]


def decide_with_outputs(
    tasks: Sequence[Evidence | None],
    sets: Sequence[Sequence[int]],
    set_of: Sequence[int],
    modes: Sequence[OnChange],
    missing: Mapping[int, Sequence[Sequence[int]]],
) -> list[Decision]:
    """Decide what happens to each task if outputs are missing.

    Args:
        tasks: as for `decide`, like the following arguments.
        sets: distinct sets of upstream tasks.
        set_of: number of the set of each task.
        modes: what happens to each task on a change.
        missing: tasks with missing outputs; for each of these outputs, the tasks that read it.

    Returns:
        A decision for each task.

    Raises:
        ValueError: the dependencies form a cycle.
    """
    decisions = decide(tasks, sets, set_of, modes)
    if not missing:
        return decisions
    evidence = list(tasks)
    readers_first = [position for position in reversed(list(in_order(sets, set_of))) if position in missing]
    while needed := _needed(decisions, readers_first, missing):  # each pass makes at least one more task rerun
        for position in needed:
            task = evidence[position]
            assert task is not None, "a new task has no output"
            evidence[position] = task._replace(files=Reason.OUTPUT_MISSING)
        decisions = decide(evidence, sets, set_of, modes)
    return decisions


def _needed(
    decisions: Sequence[Decision], readers_first: Iterable[int], missing: Mapping[int, Sequence[Sequence[int]]]
) -> list[int]:
    """Return the tasks whose results are kept although a missing output is needed."""
    runs = {position for position, decision in enumerate(decisions) if decision.action in _STARTS}
    needed = []
    for position in readers_first:
        is_kept = position not in runs and decisions[position].action in _KEEPS
        if is_kept and any(not readers or not runs.isdisjoint(readers) for readers in missing[position]):
            runs.add(position)
            needed.append(position)
    return needed


#: Actions after which the command of the task is started, and actions after which a result of it is used.
_STARTS: Final = frozenset({Action.RUN, Action.KILL})
_KEEPS: Final = frozenset({Action.KEEP, Action.RESTORE})


def _upstreams(
    members: Sequence[int], decisions: Sequence[Decision | None], tasks: Sequence[Evidence | None]
) -> _Upstreams:
    forces = runs = False
    newest = 0
    for position in members:
        decision = decisions[position]
        assert decision is not None, "upstream tasks are decided first"
        if decision.action in RUNS:
            runs = True
            forces = forces or decision.forces
        elif decision.action is Action.SKIP:
            continue  # an earlier result of it does not count
        elif (evidence := tasks[position]) is not None and evidence.ended is not None:
            newest = max(newest, evidence.ended)
    return _Upstreams(forces, runs, newest)


def _decide(task: Evidence, upstreams: _Upstreams, mode: OnChange) -> Decision:
    if task.status == TaskStatus.SKIPPED:
        return _SKIPPED
    if (demand := _demand_for(task)) is not None:
        return Decision(Action.RUN, (*task.changes, demand), forces=mode is not OnChange.RERUN_ONLY)
    reasons = task.changes or _because_of(task, upstreams)
    if task.status == TaskStatus.DONE:
        return _decide_done(task, upstreams, mode, reasons)
    forces = not (task.changes and mode is OnChange.RERUN_ONLY)
    if task.status in IN_FLIGHT:
        forced = tuple(reason for reason in reasons if reason is not Reason.UPSTREAM_RERAN)
        return Decision(Action.KILL, forced, forces) if forced and mode is not OnChange.KEEP else _ADOPTED
    if task.succeeded and task.queued is not None and not reasons and not upstreams.runs:
        return _RESTORED
    return Decision(Action.RUN, (*task.changes, task.unfinished), forces)


def _demand_for(task: Evidence) -> Reason | None:
    """Return why a task reruns whatever became of its definition and its upstream tasks."""
    if task.requested:
        return Reason.REQUESTED
    has_result = task.status not in IN_FLIGHT and (task.status == TaskStatus.DONE or task.succeeded)
    return task.files if has_result else None


def _because_of(task: Evidence, upstreams: _Upstreams) -> tuple[Reason, ...]:
    """Return why the upstream tasks require a rerun."""
    if upstreams.forces:
        return (Reason.UPSTREAM_RERUNS,)
    if task.queued is not None and upstreams.newest > task.queued:
        return (Reason.UPSTREAM_RERAN,)
    return ()


def _decide_done(task: Evidence, upstreams: _Upstreams, mode: OnChange, reasons: tuple[Reason, ...]) -> Decision:
    is_accepted = task.accepted and not task.changes
    if not is_accepted and reasons and mode is not OnChange.KEEP:
        return Decision(Action.RUN, reasons, forces=mode is not OnChange.RERUN_ONLY)
    return _ACCEPTED if is_accepted or reasons or upstreams.runs else UP_TO_DATE


def in_order(sets: Sequence[Sequence[int]], set_of: Sequence[int]) -> Iterator[int]:
    """Yield the positions of all tasks, upstream tasks first.

    Raises:
        ValueError: the dependencies form a cycle.
    """
    waiting = [len(members) for members in sets]
    sets_of: dict[int, list[int]] = {}
    for number, members in enumerate(sets):
        for position in members:
            sets_of.setdefault(position, []).append(number)
    users = _users(len(sets), set_of)
    ready = [position for position, number in enumerate(set_of) if number == NO_SET or not waiting[number]]
    count = 0
    while ready:
        position = ready.pop()
        count += 1
        yield position
        for number in sets_of.get(position, ()):
            waiting[number] -= 1
            if not waiting[number]:
                ready.extend(users[number])
    if count < len(set_of):
        raise ValueError("The dependencies form a cycle.")


def _users(count: int, set_of: Sequence[int]) -> list[list[int]]:
    """Return the tasks that have each set of upstream tasks."""
    users: list[list[int]] = [[] for _ in range(count)]
    for position, number in enumerate(set_of):
        if number != NO_SET:
            users[number].append(position)
    return users


# -- what a user requests ------------------------------------------------------------------------------------------


def modes_of(value: Any, templates: Iterable[str]) -> dict[str, OnChange]:
    """Return what happens on a change, by template.

    Args:
        value: one of the modes, or {template name or "*": mode}.
        templates: the existing template names.

    Returns:
        A mode for each template; templates that are not named get the mode of "*", or `ERROR` if there is none.

    Raises:
        ValueError: a mode or template does not exist.
    """
    names = dict.fromkeys(templates)
    given = value if isinstance(value, Mapping) else {ALL_TEMPLATES: value}
    modes = {name: _mode(mode) for name, mode in given.items()}
    for name in modes:
        if name != ALL_TEMPLATES and name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; its templates are {', '.join(map(repr, names))}."
            raise ValueError(f"on_change names template {name!r}, but the workflow has no tasks of that template{hint}")
    others = modes.get(ALL_TEMPLATES, OnChange.ERROR)
    return {name: modes.get(name, others) for name in names}


def check_files_of(value: Any) -> CheckFiles:
    """Return which declared files to look for.

    Args:
        value: "none", "outputs" or "all".

    Raises:
        ValueError: it is something else.
    """
    try:
        return CheckFiles(value)
    except ValueError:
        listed = ", ".join(repr(one.value) for one in CheckFiles)
        raise ValueError(f"check_files must be one of {listed}, not {value!r}.") from None


def _mode(value: Any) -> OnChange:
    try:
        return OnChange(value)
    except ValueError:
        listed = ", ".join(repr(mode.value) for mode in OnChange)
        raise ValueError(
            f"on_change must be one of {listed}, or a dict that maps templates to these, not {value!r}."
        ) from None
