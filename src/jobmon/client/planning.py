"""Make the plan of a workflow, and the error that says how it differs from its record. Read-only."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from jobmon.client import comparison, dag, file_state, garbage, plan, recorded
from jobmon.client.comparison import Comparison, template_of
from jobmon.client.defaults import checked_flag
from jobmon.client.plan import Plan
from jobmon.client.recorded import Recorded
from jobmon.core import changes, forecast
from jobmon.core.changes import Action, CheckFiles, OnChange, Reason
from jobmon.core.cluster import load_plugin
from jobmon.core.configuration import JobmonConfig
from jobmon.core.constants import DEFAULT_CLUSTER_NAME
from jobmon.core.exceptions import WorkflowChanged
from jobmon.core.resources import Limits
from jobmon.core.terminal import plain_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jobmon.client.workflow import Workflow
    from jobmon.core.changes import Decision
    from jobmon.core.requester import Requester
    from jobmon.core.wire.changes import RecordedWorkflow

#: Maximum number of durations of a template from which the time is estimated.
SAMPLES_MAX: Final = 2_000
TEMPLATES_SHOWN_MAX: Final = 3
TASKS_SHOWN_MAX: Final = 5


def plan_workflow(workflow: Workflow, consent: Consent) -> Plan:
    """Return what a run of a workflow would do; see `Workflow.plan`."""
    with garbage.kept():
        dag.check(workflow)
        found = recorded.find(workflow)
        tasks = list(workflow.tasks.values())
        if found is None:
            compared, files = comparison.unrecorded(tasks), file_state.UNCHECKED
        else:
            compared = comparison.compare(tasks, recorded.fetch(workflow.requester, found))
            files = file_state.look(workflow.requester, compared, found, consent.check_files)
        return _plan(compared, found, workflow.name or workflow.tool.name, consent, files)


@dataclass(frozen=True, slots=True)
class Consent:
    """What a run accepts.

    Args:
        on_change: how to treat changes; see `core.changes.modes_of`.
        allow_removal: whether tasks may be removed.
        check_files: which files to look for, so that tasks rerun because of them.
    """

    on_change: Any = OnChange.ERROR.value
    allow_removal: bool = False
    check_files: CheckFiles = CheckFiles.NONE

    @property
    def accepts_changes(self) -> bool:
        """Whether changes of at least one template are accepted."""
        return bool(self.on_change != OnChange.ERROR)


@dataclass(frozen=True, slots=True)
class Pairing:
    """The tasks of a workflow paired with the recorded ones. `plan` None means that all results stay valid."""

    recorded: Recorded
    comparison: Comparison
    plan: Plan | None


def pair(workflow: Workflow, found: RecordedWorkflow, consent: Consent) -> Pairing:
    """Pair the tasks of a workflow with the recorded ones, and plan the change if there is one.

    Raises:
        WorkflowChanged: the difference is not accepted.
        ValueError: the consent names an unknown template or mode.
    """
    with garbage.kept():
        fetched = recorded.fetch(workflow.requester, found)
        compared = comparison.compare(list(workflow.tasks.values()), fetched)
        files = file_state.look(workflow.requester, compared, found, consent.check_files)
        if not compared.is_changed and not files.changed and not files.missing:
            return Pairing(fetched, compared, None)
        plan = _plan(compared, found, workflow.name or workflow.tool.name, consent, files)
        if not plan.makes_version:
            return Pairing(fetched, compared, None)
    if plan.needs:
        raise changed(workflow, plan)
    return Pairing(fetched, compared, plan)


def consent_of(on_change: Any, allow_removal: bool | None, check_files: Any = None) -> Consent:
    """Return what a run accepts: the given values, or those of the settings in the section `run`.

    Raises:
        ValueError: `check_files` is invalid.
        ConfigError: a setting is invalid.
    """
    config = JobmonConfig()
    if allow_removal is None:
        allow_removal = config.get_boolean("run", "allow_removal")
    allow_removal = checked_flag(allow_removal, "allow_removal")
    check = checked_files(check_files)
    if on_change is not None:
        return Consent(on_change, allow_removal, check)
    return Consent(config.parsed("run", "on_change"), allow_removal, check)


def consent_of_run(workflow: Workflow, values: Mapping[str, Any], *, resume: bool) -> Consent:
    """Return what a run of a workflow accepts.

    Args:
        workflow: the workflow.
        values: the arguments of `Workflow.run` that control what a resume may change.
        resume: whether the run may resume the workflow.

    Raises:
        ValueError: an argument is invalid, or is given although the run may not resume the workflow.
        ConfigError: a setting is invalid.
    """
    given = next((name for name, value in values.items() if value is not None), None)
    if not resume and given is not None:
        raise ValueError(f"{given} controls what a resume may change; pass resume=True with it.")
    consent = consent_of(**values) if resume or form() else Consent()
    if values["on_change"] is not None:
        changes.modes_of(values["on_change"], workflow.arrays)
    return consent


def checked_files(given: Any) -> CheckFiles:
    """Return which files to look for; None means the setting `run.check_files`.

    Raises:
        ValueError: the value is invalid.
        ConfigError: the setting is invalid.
    """
    if given is not None:
        return changes.check_files_of(given)
    return CheckFiles(JobmonConfig().parsed("run", "check_files"))


def plan_recorded(requester: Requester, workflow_id: int) -> Plan:
    """Return what a resume by ID would do; everything comes from the record.

    Raises:
        InvalidRequest: the workflow does not exist.
    """
    found = recorded.find_by_id(requester, workflow_id)
    compared = comparison.recorded_only(recorded.fetch(requester, found))
    name = found.name or found.tool_name
    return _plan(compared, found, name, Consent(OnChange.RERUN.value), file_state.UNCHECKED)


def _plan(
    compared: Comparison, found: RecordedWorkflow | None, name: str, consent: Consent, files: file_state.FileState
) -> Plan:
    templates = [template_of(task) for task in compared.tasks]
    modes = changes.modes_of(consent.on_change, templates)
    evidence = [
        known._replace(files=Reason.INPUT_CHANGED) if known is not None and position in files.changed else known
        for position, known in enumerate(compared.evidence())
    ]
    decisions = changes.decide_with_outputs(
        evidence,
        compared.sets,
        compared.set_of,
        [modes[template] for template in templates],
        files.missing,
    )
    return plan.Plan(
        workflow_id=None if found is None else found.workflow_id,
        name=name,
        base_version=None if found is None else found.version,
        comparison=compared,
        decisions=decisions,
        needs=_needs(compared, modes, templates, is_recorded=found is not None, allow_removal=consent.allow_removal),
        forecast=_estimate(compared, decisions),
        file_details=files.details,
    )


def _needs(
    compared: Comparison,
    modes: Mapping[str, OnChange],
    templates: Sequence[str],
    *,
    is_recorded: bool,
    allow_removal: bool,
) -> list[str]:
    """Return the names of the options that the run needs but was not given."""
    if not is_recorded:
        return []
    differing = {
        template
        for template, known, differences in zip(templates, compared.recorded, compared.changes, strict=True)
        if known is None or differences
    }
    is_refused = any(modes[template] is OnChange.ERROR for template in differing)
    return [
        *(["on_change"] if is_refused else []),
        *(["allow_removal"] if compared.removed and not allow_removal else []),
    ]


# -- instead of a run ---------------------------------------------------------------------------------------------


class PlanShown(SystemExit):
    """Exits a script after its plan was shown; code after `run()` would use results that do not exist."""

    def __init__(self) -> None:
        super().__init__(0)


def form() -> str:
    """Return the format in which to show the plan instead of a run, "table" or "json"; "" runs the workflow.

    Raises:
        ConfigError: the setting `run.plan` has another value.
    """
    return str(JobmonConfig().parsed("run", "plan"))


def end_with_plan(workflow: Workflow, form: str, consent: Consent) -> NoReturn:
    """Show what a run with this consent would do, and exit the script.

    Raises:
        PlanShown: always.
    """
    found = plan_workflow(workflow, consent)
    show = _show.get()
    if show is not None:
        show(found)
    elif form == "json":
        sys.stdout.write(json.dumps(found.to_dict(), indent=2) + "\n")
    else:
        sys.stdout.write(f"{found}\n{FIRST_ONLY}\n")
    sys.stdout.flush()
    raise PlanShown


FIRST_ONLY: Final = "  The script was stopped here; workflows after this one are not planned."
#: Receives the plan if a command runs the script.
_show: ContextVar[Callable[[Plan], None] | None] = ContextVar("show", default=None)


@contextmanager
def shown_by(show: Callable[[Plan], None]) -> Iterator[None]:
    """Pass plans to `show` instead of printing them, inside the context."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


# -- estimate -------------------------------------------------------------------------------------------------------


def _estimate(compared: Comparison, decisions: Sequence[Decision]) -> plan.Estimate | None:
    """Forecast from earlier durations: those of the task itself, or those of its template."""
    if any(_cluster_of(task) != DEFAULT_CLUSTER_NAME for task in compared.tasks[:1]):
        return None
    known: dict[str, list[float]] = defaultdict(list)
    for task in (*filter(None, compared.recorded), *compared.removed):
        samples = known[task.template.name]
        if task.seconds is not None and len(samples) < SAMPLES_MAX:
            samples.append(task.seconds)
    by_template = {name: forecast.Durations.of(samples) for name, samples in known.items()}
    unknown_tasks = plan.unknown_tasks(compared, decisions)
    runs = [
        position
        for position, (task, decision) in enumerate(zip(compared.tasks, decisions, strict=True))
        if decision.action in changes.RUNS and position not in unknown_tasks and not comparison.is_expansion(task)
    ]
    rests, unknown = _rests(compared, runs, by_template)
    cores = _cores_here()
    left = forecast.time_left(rests, _path(compared, runs, by_template), cores, cores)
    if left is None or not runs:
        return None
    return plan.Estimate(low_s=left.low, high_s=left.high, cores=cores, unknown=unknown)


def _cluster_of(task: Any) -> str:
    return getattr(task, "cluster_name", DEFAULT_CLUSTER_NAME)


def _cores_here() -> float:
    """Return the number of cores that the local cluster may use at once."""
    [(_, parameters)] = load_plugin(DEFAULT_CLUSTER_NAME).get_default_queues()
    return Limits.read("cores", parameters).maximum or 1.0


def _rests(
    compared: Comparison, runs: Iterable[int], by_template: Mapping[str, forecast.Durations | None]
) -> tuple[list[forecast.Rest], dict[str, int]]:
    own: list[float] = []
    left: dict[str, int] = defaultdict(int)
    for position in runs:
        task = compared.recorded[position]
        if task is not None and task.seconds is not None:
            own.append(task.seconds)
        else:
            left[template_of(compared.tasks[position])] += 1
    durations = forecast.Durations.of(own[:SAMPLES_MAX])
    rests = [forecast.Rest(left=len(own), running=0, durations=durations)] if own else []
    rests += [forecast.Rest(left=count, running=0, durations=by_template.get(name)) for name, count in left.items()]
    return rests, {name: count for name, count in left.items() if by_template.get(name) is None}


def _path(
    compared: Comparison, runs: Iterable[int], by_template: Mapping[str, forecast.Durations | None]
) -> tuple[float, float]:
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    for position in runs:
        task, durations = compared.recorded[position], by_template.get(template_of(compared.tasks[position]))
        if task is not None and task.seconds is not None:
            low[position] = high[position] = task.seconds
        else:
            low[position], high[position] = (0.0, 0.0) if durations is None else (durations.low, durations.high)
    members = dict(enumerate(compared.sets))
    users: dict[int, list[int]] = defaultdict(list)
    for position in low:
        users[compared.set_of[position]].append(position)
    return forecast.longest_path(low, members, users), forecast.longest_path(high, members, users)


# -- the error ----------------------------------------------------------------------------------------------------


def changed(workflow: Workflow, found: Plan) -> WorkflowChanged:
    """Return the error that says how a workflow differs from its record, and what to do."""
    compared = found.comparison
    lines = [
        f"Workflow {found.workflow_id} {found.name!r} (workflow_args {workflow.workflow_args!r}) is recorded with a"
        f" different definition (version {found.base_version}):",
        *difference_lines(compared),
        f'on_change="rerun" would run {_counted(found.run_count, "task")} and keep {_counted(_kept(found), "result")}.'
        " Nothing has been changed.",
        *([_removal(compared)] if "allow_removal" in found.needs else []),
        *(_accepting(compared) if "on_change" in found.needs else []),
        f"  look first    {_command()}",
    ]
    error = WorkflowChanged("\n".join(lines))
    error.plan = found
    return error


def _kept(found: Plan) -> int:
    return sum(1 for decision in found.decisions if decision.action in (Action.KEEP, Action.RESTORE))


def running_script() -> str:
    """Return the running script with its arguments, as typed on the command line; "" if there is none."""
    script = Path(sys.argv[0] if sys.argv else "")
    is_script = script.suffix == ".py" and script.name != "__main__.py"
    return shlex.join([script.name, *sys.argv[1:]]) if is_script else ""


def _command() -> str:
    """Return what shows the plan: the command for a script, otherwise the method."""
    return f"jobmon workflow plan {running_script()}" if running_script() else "workflow.plan()"


def _accepting(compared: Comparison) -> list[str]:
    """Return lines that say how to accept the change."""
    removal, variable = (", allow_removal=True", " JOBMON__RUN__ALLOW_REMOVAL=true") if compared.removed else ("", "")
    script = f"JOBMON__RUN__ON_CHANGE=rerun{variable} python {running_script()}" if running_script() else ""
    changed_templates = [
        template_of(compared.tasks[position]) for position, each in enumerate(compared.changes) if each
    ]
    example = dict.fromkeys(changed_templates[:1], "keep") | {"*": "rerun"}
    keep = f'  keep results  on_change="keep", or per template: on_change={example}'
    return [
        f'  accept        workflow.run(resume=True, on_change="rerun"{removal}){f"   or   {script}" if script else ""}',
        *([keep] if changed_templates else []),
    ]


def _removal(compared: Comparison) -> str:
    known = sum(1 for each in compared.recorded if each is not None and not each.is_removed)
    count, total = len(compared.removed), len(compared.removed) + known
    names = dict.fromkeys(task.template.name for task in compared.removed)
    templates = ", ".join(map(repr, names))
    verb = "is" if count == 1 else "are"
    return (
        f"{count} of {total} recorded tasks {verb} not in this definition"
        f" ({'template' if len(names) == 1 else 'templates'} {templates}). If that is intended: allow_removal=True."
    )


def change_lines(found: Plan) -> list[str]:
    """Return what a new version changes, for its record."""
    return [*difference_lines(found.comparison), *_file_lines(found)]


def _file_lines(found: Plan) -> Iterator[str]:
    """Yield a line for each template of which tasks rerun because of files."""
    counts = Counter(
        (template_of(found.comparison.tasks[position]), reason)
        for position in changes.affected(found.decisions)
        for reason in found.decisions[position].reasons
        if reason in changes.FILE_REASONS
    )
    for (template, reason), count in counts.items():
        yield f"  {template}  {reason.value} ({_counted(count, 'task')})"


def difference_lines(compared: Comparison) -> list[str]:
    """Return the differences by template, for the first templates."""
    parts = _parts(compared)
    width = max(map(len, list(parts)[:TEMPLATES_SHOWN_MAX]), default=0)
    lines: list[str] = []
    for name in list(parts)[:TEMPLATES_SHOWN_MAX]:
        first, *details = parts[name]
        lines.append(f"  {name:<{width}}  {first}")
        lines += [f"  {'':<{width}}  {detail}" for detail in details]
    more = len(parts) - TEMPLATES_SHOWN_MAX
    lines += [f"  {_counted(more, 'more template')}"] if more > 0 else []
    return list(map(plain_line, lines))  # values of arguments may contain line ends


def _parts(compared: Comparison) -> dict[str, list[str]]:
    """Return, for each template that differs, a summary and lines with details."""
    added: dict[str, list[int]] = defaultdict(list)
    differing: dict[str, list[int]] = defaultdict(list)
    for position, (known, differences) in enumerate(zip(compared.recorded, compared.changes, strict=True)):
        if known is None:
            added[template_of(compared.tasks[position])].append(position)
        elif differences:
            differing[template_of(compared.tasks[position])].append(position)
    removed: dict[str, list[Any]] = defaultdict(list)
    for task in compared.removed:
        removed[task.template.name].append(task)
    found = {}
    for name in dict.fromkeys([*added, *differing, *removed]):
        heads, details = _changed_parts(compared, differing.get(name, []))
        new = [compared.tasks[position] for position in added.get(name, [])]
        texts = [
            *([_listed_tasks("added", new)] if new else []),
            *([_listed_tasks("removed", removed[name])] if name in removed else []),
            *([", ".join(heads)] if heads else []),
        ]
        found[name] = ["; ".join(texts), *details]
    return found


def _listed_tasks(what: str, tasks: Sequence[Any]) -> str:
    shown = [
        " ".join(f"{name}={value}" for name, value in task.node_args.items()) or task.name
        for task in tasks[:TASKS_SHOWN_MAX]
    ]
    more = len(tasks) - len(shown)
    return f"{_counted(len(tasks), 'task')} {what}: {', '.join([*shown, *([f'{more} more'] if more else [])])}"


def _changed_parts(compared: Comparison, positions: Sequence[int]) -> tuple[list[str], list[str]]:
    heads: list[str] = []
    details: list[str] = []
    for reason in (Reason.COMMAND, Reason.TASK_ARGS, Reason.UPSTREAMS):
        having = [position for position in positions if reason in compared.changes[position]]
        if not having:
            continue
        first = having[0]
        known, wanted = compared.recorded[first], comparison.definition_of(compared.tasks[first])
        assert known is not None
        if reason is Reason.UPSTREAMS:
            change = compared.upstream_changes[first]
            signs = (f"+{change.added}" if change.added else "", f"-{change.removed}" if change.removed else "")
            alone = f" ({_counted(len(having), 'task')})" if len(having) != len(positions) or not heads else ""
            heads.append(f"upstreams {' '.join(filter(None, signs))}{alone}")
            continue
        heads.append(f"{reason.value} ({_counted(len(having), 'task')})")
        if reason is Reason.COMMAND:
            details += plan.command_difference(known.definition, wanted)
        else:
            details.append(f"{compared.tasks[first].name}: {plan.task_args_difference(known.definition, wanted)}")
    return heads, details


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
