"""What a run would do with each task, and why: the result of `Workflow.plan()`."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from jobmon.client.comparison import definition_of, is_expansion, template_of
from jobmon.core.changes import FILE_REASONS, NO_SET, Action, Decision, Definition, Reason

if TYPE_CHECKING:
    from jobmon.client.comparison import Comparison
    from jobmon.client.recorded import RecordedTask
    from jobmon.client.task import Task

#: Maximum number of upstream tasks named as the cause of a rerun.
BECAUSE_NAMES_MAX: Final = 10
#: Maximum number of lines of a difference between two commands.
DIFFERENCE_LINES_MAX: Final = 20
#: Maximum number of combinations of reasons shown in the line of a template.
REASONS_SHOWN_MAX: Final = 3
EXPANSIONS_SHOWN_MAX: Final = 10
SECONDS_PER_MINUTE: Final = 60
SECONDS_PER_HOUR: Final = 3600
_REMOVED: Final = Decision(Action.REMOVE, (Reason.REMOVED,))
#: Order in which the line of a template counts the tasks that do not run.
_OTHER_ACTIONS: Final = (Action.KEEP, Action.RESTORE, Action.ADOPT, Action.KILL, Action.SKIP, Action.REMOVE)


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """What a run would do with a task.

    Args:
        name: name of the task.
        template: name of its template.
        node_args: node args by name, as text.
        task_id: ID of the task; None if it is not recorded.
        action: "run", "adopt" (it is running and may finish), "kill" (it is running and is terminated and rerun),
            "keep", "restore" (its earlier result counts again), "skip" or "remove".
        reasons: pairs of reason and detail, the most informative first; the detail may be "".
        because: names of upstream tasks that cause the rerun, at most ten.
        remarks: "held" if it waits for its release; "edited by" and the user if a user edited it.
    """

    name: str
    template: str
    node_args: Mapping[str, str]
    task_id: int | None
    action: str
    reasons: list[tuple[str, str]]
    because: list[str]
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the planned task as plain JSON values."""
        return {
            "name": self.name,
            "template": self.template,
            "node_args": dict(self.node_args),
            "task_id": self.task_id,
            "action": self.action,
            "reasons": [{"reason": reason, "detail": detail} for reason, detail in self.reasons],
            "because": list(self.because),
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Forecast of the duration of a run, in seconds.

    `unknown` has the number of tasks to run for each template without any finished task.
    """

    low_s: float
    high_s: float
    cores: float
    unknown: Mapping[str, int] = field(default_factory=dict)


class Plan:
    """What a run would do, and why. Returned by `Workflow.plan()`; a plan changes nothing.

    Attributes:
        workflow_id: ID of the workflow; None if it is not recorded.
        name: name of the workflow, or of its tool.
        base_version: the recorded version; None if the workflow is not recorded.
        needs: options that must be passed to `run()`, such as "on_change".
    """

    def __init__(
        self,
        *,
        workflow_id: int | None,
        name: str,
        base_version: int | None,
        comparison: Comparison,
        decisions: Sequence[Decision],
        needs: Sequence[str] = (),
        forecast: Estimate | None = None,
        file_details: Mapping[int, str] | None = None,
    ) -> None:
        self.workflow_id = workflow_id
        self.name = name
        self.base_version = base_version
        self.needs = list(needs)
        self.comparison = comparison
        self.decisions = decisions
        self._forecast = forecast
        self._file_details = file_details or {}
        self._unknown_tasks = unknown_tasks(comparison, decisions)

    def __repr__(self) -> str:
        """Return the name of the workflow and the number of tasks that would run."""
        return f"<Plan of {self._subject}: {self.run_count} of {self.task_count} tasks would run>"

    # -- results ------------------------------------------------------------------------------------------------------

    @property
    def task_count(self) -> int:
        """The number of tasks that the workflow would have."""
        return len(self.decisions) - len(self._unknown_tasks)

    @cached_property
    def run_count(self) -> int:
        """The number of tasks that would run."""
        return sum(1 for _, _, decision in self._planned_tasks() if decision.action in (Action.RUN, Action.KILL))

    def _planned_tasks(self) -> Iterator[tuple[int, Task | RecordedTask, Decision]]:
        """Yield the tasks with positions and decisions, except those that an expansion may add again or not."""
        for position, (task, decision) in enumerate(zip(self.comparison.tasks, self.decisions, strict=True)):
            if position not in self._unknown_tasks:
                yield position, task, decision

    @cached_property
    def expansions(self) -> dict[str, int]:
        """The expansions that would be called, with the number of tasks that they added last time."""
        added = Counter(self._unknown_tasks.values())
        return {
            task.name: added[position]
            for position, task, decision in self._planned_tasks()
            if is_expansion(task) and decision.action is Action.RUN
        }

    @cached_property
    def makes_version(self) -> bool:
        """Whether a run would make a new version: the definition has changed, or tasks rerun because of files."""
        return self.comparison.is_changed or any(not FILE_REASONS.isdisjoint(one.reasons) for one in self.decisions)

    @cached_property
    def tasks(self) -> list[PlannedTask]:
        """All tasks in the order of the script, followed by those that would be removed."""
        return list(self.iterate())

    def iterate(self) -> Iterator[PlannedTask]:
        """Yield the entries of `tasks` one by one, for workflows with very many tasks."""
        for position, task, decision in self._planned_tasks():
            yield self._planned(task, position, decision)
        for removed in self.comparison.removed:
            yield _planned(removed, removed, _REMOVED, [(Reason.REMOVED.value, "")], [])

    def task_ids(self, action: Action) -> list[int]:
        """Return the IDs of the recorded tasks with this action."""
        pairs = zip(self.comparison.recorded, self.decisions, strict=True)
        return [known.task_id for known, decision in pairs if known is not None and decision.action is action]

    @cached_property
    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Number of tasks as {template: {action: {reason: number}}}; only the first reason of a task counts."""
        found: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        for _, task, decision in self._planned_tasks():
            found[template_of(task)][decision.action.value][decision.reasons[0].value] += 1
        for removed in self.comparison.removed:
            found[removed.template.name][Action.REMOVE.value][Reason.REMOVED.value] += 1
        return {
            template: {action: dict(reasons) for action, reasons in actions.items()}
            for template, actions in found.items()
        }

    @property
    def estimate(self) -> tuple[float, float] | None:
        """The estimated duration of the run as (low, high), in seconds; None if no durations are known."""
        return None if self._forecast is None else (self._forecast.low_s, self._forecast.high_s)

    def to_dict(self, *, tasks: bool = True) -> dict[str, Any]:
        """Return the plan as plain JSON values.

        Args:
            tasks: whether to include the individual tasks.
        """
        forecast = self._forecast
        found: dict[str, Any] = {
            "workflow_id": self.workflow_id,
            "name": self.name,
            "base_version": self.base_version,
            "task_count": self.task_count,
            "run_count": self.run_count,
            "counts": self.counts,
            "estimate": None if forecast is None else {"low_s": forecast.low_s, "high_s": forecast.high_s},
            "unknown_durations": {} if forecast is None else dict(forecast.unknown),
            "needs": self.needs,
            "expansions": self.expansions,
        }
        if tasks:
            found["tasks"] = [task.to_dict() for task in self.iterate()]
        return found

    # -- texts --------------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        """Return a heading and one line for each template."""
        needs = f" (needs {', '.join(map(option_text, self.needs))})" if self.needs else ""
        noun = "task" if self.task_count == 1 else "tasks"
        heading = f"{self._subject}: {self.run_count} of {self.task_count} {noun} would run{self._duration}{needs}"
        return "\n".join([heading, *self._lines(), *self._expansions, *self._unknown, *self._held, *self._edited])

    @property
    def _subject(self) -> str:
        if self.workflow_id is None or self.base_version is None:
            return f"New workflow {self.name!r}"
        then = f" -> {self.base_version + 1}" if self.makes_version else ""
        return f"Workflow {self.workflow_id} {self.name!r}, version {self.base_version}{then}"

    @property
    def _duration(self) -> str:
        forecast = self._forecast
        if forecast is None or not self.run_count:
            return ""
        cores = f"{forecast.cores:g} core{'' if forecast.cores == 1 else 's'}"
        return f", about {duration_text(forecast.low_s, forecast.high_s)} on {cores}"

    @property
    def _expansions(self) -> list[str]:
        shown = [
            f"  {name}: tasks unknown{f' ({added:,} last time)' if added else ''}"
            for name, added in islice(self.expansions.items(), EXPANSIONS_SHOWN_MAX)
        ]
        more = len(self.expansions) - len(shown)
        return [*shown, *([f"  {more:,} more expansions: tasks unknown"] if more > 0 else [])]

    @property
    def _unknown(self) -> list[str]:
        unknown = {} if self._forecast is None else self._forecast.unknown
        listed = ", ".join(f"{name} ({count} {'task' if count == 1 else 'tasks'})" for name, count in unknown.items())
        return [f"  Not in the estimate, because none of them has finished yet: {listed}"] if listed else []

    @property
    def _held(self) -> list[str]:
        pairs = zip(self.comparison.recorded, self.decisions, strict=True)
        held = sum(1 for known, decision in pairs if _is_held(known, decision))
        if not held:
            return []
        first = "1 of these tasks is" if held == 1 else f"{held:,} of these tasks are"
        return [f"  {first} held until released: jobmon task release ID"]

    @property
    def _edited(self) -> list[str]:
        pairs = zip(self.comparison.recorded, self.comparison.changes, strict=True)
        edited = sum(1 for known, changes in pairs if _keeps_edit(known, changes))
        if not edited:
            return []
        first = "1 of these tasks is" if edited == 1 else f"{edited:,} of these tasks are"
        return [f"  {first} edited; to restore what the script defines: jobmon task edit ID --reset"]

    def _lines(self) -> Iterator[str]:
        counts = {
            template: {action: sum(reasons.values()) for action, reasons in actions.items()}
            for template, actions in self.counts.items()
        }
        runs = self._run_reasons()
        name_width = max(map(len, counts), default=0)
        run_width = max((len(str(each.get(Action.RUN, 0))) for each in counts.values()), default=0)
        reason_width = max(map(len, runs.values()), default=0)
        keep_width = max((len(str(each.get(Action.KEEP, 0))) for each in counts.values()), default=0)
        for template, each in counts.items():
            others = [
                f"{action.value} {each.get(action, 0):>{keep_width if action is Action.KEEP else 0}}"
                for action in _OTHER_ACTIONS
                if action is Action.KEEP or each.get(action)
            ]
            run = f"run {each.get(Action.RUN, 0):>{run_width}}"
            reasons = f"{runs.get(template, ''):<{reason_width}}"
            yield "  ".join(["", f"{template:<{name_width}}", run, reasons, *others]).rstrip()

    def _run_reasons(self) -> dict[str, str]:
        """Return a short text of why tasks run, by template."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for position, task, decision in self._planned_tasks():
            if decision.action in (Action.RUN, Action.KILL):
                found[template_of(task)][self._reasons_text(position, decision)] += 1
        texts = {}
        for template, reasons in found.items():
            shown = reasons.most_common(REASONS_SHOWN_MAX)
            parts = [text if len(reasons) == 1 else f"{text} ({count})" for text, count in shown]
            more = len(reasons) - len(shown)
            texts[template] = "; ".join([*parts, *([f"{more} more reasons"] if more > 0 else [])])
        return texts

    def _reasons_text(self, position: int, decision: Decision) -> str:
        return ", ".join(
            f"upstreams {self._upstreams_text(position)}" if reason is Reason.UPSTREAMS else reason.value
            for reason in decision.reasons
        )

    # -- single tasks -------------------------------------------------------------------------------------------------

    def _planned(self, task: Task | RecordedTask, position: int, decision: Decision) -> PlannedTask:
        reasons = [(reason.value, self._detail(position, reason)) for reason in decision.reasons]
        because = self._because(position) if Reason.UPSTREAM_RERUNS in decision.reasons else []
        recorded = self.comparison.recorded[position]
        planned = _planned(task, recorded, decision, reasons, because)
        is_kept = _keeps_edit(recorded, self.comparison.changes[position])
        if is_kept and recorded is not None and recorded.edit is not None:
            planned.remarks.append(f"edited by {recorded.edit.user}")
        return planned

    def _detail(self, position: int, reason: Reason) -> str:
        recorded = self.comparison.recorded[position]
        if recorded is None:
            return ""
        wanted = self.comparison.tasks[position]
        match reason:
            case Reason.COMMAND:
                text = "\n".join(command_difference(recorded.definition, definition_of(wanted)))
            case Reason.TASK_ARGS:
                text = task_args_difference(recorded.definition, definition_of(wanted))
            case Reason.UPSTREAMS:
                text = self._upstreams_text(position)
            case Reason.INPUT_CHANGED | Reason.OUTPUT_MISSING:
                text = self._file_details.get(position, "")
            case Reason.FAILED:
                text = recorded.outcome
            case _:
                text = ""
        return text

    def _upstreams_text(self, position: int) -> str:
        change = self.comparison.upstream_changes[position]
        parts = [f"+{change.added}" if change.added else "", f"-{change.removed}" if change.removed else ""]
        return " ".join(filter(None, parts))

    def _because(self, position: int) -> list[str]:
        number = self.comparison.set_of[position]
        members = self.comparison.sets[number] if number != NO_SET else ()
        causes = (at for at in members if self.decisions[at].forces)
        return [self.comparison.tasks[at].name for at, _ in zip(causes, range(BECAUSE_NAMES_MAX), strict=False)]


def unknown_tasks(compared: Comparison, decisions: Sequence[Decision]) -> dict[int, int]:
    """Return the tasks that expansions to be called have added before, and may add again or not.

    Returns:
        The position of the outermost such expansion, by the position of the task.
    """
    outermost: dict[int, int | None] = {}  # of each expansion that has added something, itself included
    found: dict[int, int] = {}
    for position, origin in compared.origins.items():
        path: list[int] = []
        at: int | None = origin
        while at is not None and at not in outermost:
            path.append(at)
            at = compared.origins.get(at)
        above = None if at is None else outermost[at]
        for each in reversed(path):
            is_called = decisions[each].action in (Action.RUN, Action.KILL)
            above = each if above is None and is_called else above
            outermost[each] = above
        if (called := outermost[origin]) is not None:
            found[position] = called
    return found


def _planned(
    task: Task | RecordedTask,
    recorded: RecordedTask | None,
    decision: Decision,
    reasons: list[tuple[str, str]],
    because: list[str],
) -> PlannedTask:
    task_id = None if recorded is None else recorded.task_id
    remarks = ["held"] if _is_held(recorded, decision) else []
    template, action = template_of(task), decision.action.value
    return PlannedTask(task.name, template, task.node_args, task_id, action, reasons, because, remarks)


def _keeps_edit(recorded: RecordedTask | None, changes: Sequence[Reason]) -> bool:
    """Return whether a task is edited, and the script does not change its command."""
    return recorded is not None and recorded.edit is not None and Reason.COMMAND not in changes


def _is_held(recorded: RecordedTask | None, decision: Decision) -> bool:
    """Return whether a task to be launched is held."""
    return recorded is not None and recorded.is_held and decision.action in (Action.RUN, Action.KILL)


def command_difference(recorded: Definition, wanted: Definition) -> list[str]:
    """Return the removed (-) and added (+) lines of a command."""
    lines = difflib.unified_diff(recorded.command.splitlines(), wanted.command.splitlines(), n=0, lineterm="")
    found = [f"{line[0]} {line[1:]}" for line in list(lines)[2:] if not line.startswith("@@")]
    more = len(found) - DIFFERENCE_LINES_MAX
    return [*found[:DIFFERENCE_LINES_MAX], *([f"  {more} more lines"] if more > 0 else [])]


def task_args_difference(recorded: Definition, wanted: Definition) -> str:
    """Return the task args that differ, as "x: 1 -> 1.0"; empty ones as ''."""
    before, now = dict(recorded.task_args), dict(wanted.task_args)
    names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    shown = ((name, *(one.get(name, "absent") or "''" for one in (before, now))) for name in names)
    return ", ".join(f"{name}: {old} -> {new}" for name, old, new in shown)


def option_text(option: str) -> str:
    """Return how an option is written in a call of `run()`."""
    return f'{option}="rerun"' if option == "on_change" else f"{option}=True"


def duration_text(low: float, high: float) -> str:
    """Return a range of seconds as a short text.

    >>> duration_text(0.2, 3.4), duration_text(240, 350), duration_text(7000, 9000)
    ('1-4 s', '4-6 min', '1.9-2.5 h')
    """
    if high < SECONDS_PER_MINUTE:
        return _range(f"{max(1, round(low))}", f"{max(1, -int(-high // 1))}", "s")
    if high < SECONDS_PER_HOUR:
        least = max(1, round(low / SECONDS_PER_MINUTE))
        return _range(f"{least}", f"{max(1, -int(-high // SECONDS_PER_MINUTE))}", "min")
    return _range(f"{low / SECONDS_PER_HOUR:.1f}", f"{high / SECONDS_PER_HOUR:.1f}", "h")


def _range(low: str, high: str, unit: str) -> str:
    return f"{low} {unit}" if low == high else f"{low}-{high} {unit}"
