"""Workflows, tasks and templates as arguments: an ID alone or after `-w`/`-t`; tasks and templates also by name.

The decorators add parameters to a command and pass IDs to it.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.lookups import newest_workflow
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.texts import SHOWN_CHARACTERS_MAX, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from click.shell_completion import CompletionItem

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskSummary

    Function = Callable[..., Any]

#: The largest integer that the databases can store.
ID_MAX: Final = 2**63 - 1
#: Maximum number of tasks that are listed if a name is ambiguous.
NAMESAKES_MAX: Final = 10


class Number(click.FloatRange):
    """A number in a range, but neither infinite nor "not a number"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Id(click.ParamType[int]):
    """The ID of a workflow, task or template version.

    Args:
        hint: what to do with something that is not an ID.
    """

    name = "id"

    def __init__(self, hint: str = "") -> None:
        self.hint = f" {hint}" if hint else ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the ID."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a valid ID: IDs are integers.{self.hint}", param, ctx)
        if not 0 < number <= ID_MAX:
            self.fail(f"{number} is not a valid ID: IDs are positive integers.", param, ctx)
        return number


WORKFLOW_ID: Final = Id("To find a workflow by name: jobmon workflow status --name NAME")


class Option(click.Option):
    """An option with additional names that its help does not show, for scripts that use them."""

    def __init__(self, *names: Any, quiet: Sequence[str] = (), **settings: Any) -> None:
        self._quiet = frozenset(quiet)
        super().__init__(*names, **settings)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the lines of the help, without the hidden names."""
        every, self.opts = self.opts, [name for name in self.opts if name not in self._quiet]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every


def option(*names: str, quiet: Sequence[str] = (), **settings: Any) -> Callable[[Function], Function]:
    """Return an option with some names that the help does not show."""
    return click.option(*names, *quiet, cls=Option, quiet=quiet, **settings)


def _workflow_ids(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from jobmon.cli.completion import workflow_ids

    return workflow_ids(context, parameter, incomplete)


def _task_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from jobmon.cli.completion import tasks

    return tasks(context, parameter, incomplete)


def workflow_option(name: str = "workflow_id", **settings: Any) -> Callable[[Function], Function]:
    """Return the option `-w`, with shell completion of IDs."""
    settings = {"help": "ID of the workflow.", **settings}
    return click.option("-w", "--workflow-id", name, type=WORKFLOW_ID, shell_complete=_workflow_ids, **settings)


def WORKFLOW(function: Function) -> Function:
    """Add a required workflow: `jobmon workflow errors 5`, or with `-w 5`. Passed on as `workflow_id`."""

    @functools.wraps(function)
    def run(*, given: tuple[int, ...], named: int | None, **values: Any) -> Any:
        return function(workflow_id=_one([*given, *([] if named is None else [named])], "workflow", "-w"), **values)

    return workflow_option("named")(_bare("given", "[WORKFLOW]", WORKFLOW_ID, _workflow_ids)(run))


def WORKFLOWS(function: Function) -> Function:
    """Add any number of workflows, passed on as `workflow_ids`."""

    @functools.wraps(function)
    def run(*, given: tuple[int, ...], named: tuple[int, ...], **values: Any) -> Any:
        return function(workflow_ids=_several(given, named, "-w"), **values)

    text = "ID of a workflow. Repeatable."
    return workflow_option("named", multiple=True, help=text)(
        _bare("given", "[WORKFLOW]...", WORKFLOW_ID, _workflow_ids)(run)
    )


def TASK(function: Function) -> Function:
    """Add a required task, by ID or name. Passed on as `task_id`."""

    @functools.wraps(function)
    def run(*, given: tuple[str, ...], named: str | None, workflow_id: int | None, **values: Any) -> Any:
        word = _one([*given, *([] if named is None else [named])], "task", "-t")
        return function(task_id=task_ids([word], workflow_id)[0], **values)

    return _task_option()(_task_workflow(_bare("given", "[TASK]", click.STRING, _task_names)(run)))


def TASKS(function: Function) -> Function:
    """Add one or more tasks, by ID or name. Passed on as `task_ids`, with the given `workflow_id`."""

    @functools.wraps(function)
    def run(*, given: tuple[str, ...], named: tuple[str, ...], workflow_id: int | None, **values: Any) -> Any:
        words = [*named, *given]
        if not words:
            raise click.UsageError(_missing("task", "-t"))
        return function(task_ids=task_ids(words, workflow_id), workflow_id=workflow_id, **values)

    return _task_option(multiple=True)(_task_workflow(_bare("given", "[TASK]...", click.STRING, _task_names)(run)))


def _bare(name: str, metavar: str, kind: Any, complete: Any) -> Callable[[Function], Function]:
    return click.argument(name, metavar=metavar, type=kind, nargs=-1, shell_complete=complete)


def _task_option(*, multiple: bool = False) -> Callable[[Function], Function]:
    text = f"ID or name of a task.{' Repeatable.' if multiple else ''}"
    return click.option("-t", "--task-id", "named", multiple=multiple, shell_complete=_task_names, help=text)


_task_workflow: Final = workflow_option(
    help="Workflow in which to look for a task given by name. Default: your newest."
)


def _one(words: Sequence[Any], what: str, flag: str) -> Any:
    if not words:
        raise click.UsageError(_missing(what, flag))
    if len(words) > 1:
        raise click.UsageError(f"This command takes one {what}, not {len(words)}: {', '.join(map(str, words))}.")
    return words[0]


def _missing(what: str, flag: str) -> str:
    path = click.get_current_context().command_path
    where = "jobmon workflow status" if what == "workflow" else "jobmon workflow tasks WORKFLOW"
    return f"Name the {what}: {path} ID, or {flag} ID. IDs are shown by: {where}"


def _several(given: Sequence[Any], named: Sequence[Any], flag: str) -> tuple[Any, ...]:
    if given and named:
        repeated = " ".join(f"{flag} {each}" for each in (*named, *given))
        raise click.UsageError(f"{flag} takes one ID; repeat the option: {repeated}")
    return (*given, *named)


def task_ids(words: Sequence[str], workflow_id: int | None) -> list[int]:
    """Return the IDs of tasks that are given by ID or name.

    Args:
        words: IDs and names.
        workflow_id: the workflow in which to look up names; None means the user's newest workflow.

    Raises:
        InvalidRequest: there is no task of such a name, or there are several.
    """
    names = [word for word in words if not word.lstrip("-").isdigit()]
    if not names:
        return [Id().convert(word, None, None) for word in words]
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    where = workflow_id or newest_workflow(requester)
    found = {name: _task_id(requester, where, name) for name in names}
    return [found[word] if word in found else Id().convert(word, None, None) for word in words]


def _task_id(requester: Requester, workflow_id: int, name: str) -> int:
    found = _tasks(requester, workflow_id, name)
    if len(found) == 1:
        return found[0].task_id
    if found:
        listed = ", ".join(str(task.task_id) for task in found)
        raise InvalidRequest(f"Several tasks of workflow {workflow_id} are named {name!r}. Give an ID: {listed}.")
    near = _tasks(requester, workflow_id, f"*{name}*")
    if near:
        hint = f"; did you mean task {near[0].task_id} ({shortened(near[0].name, SHOWN_CHARACTERS_MAX)!r})?"
    else:
        hint = f". They are listed by: jobmon workflow tasks {workflow_id}"
    raise InvalidRequest(f"Workflow {workflow_id} has no task {name!r}{hint}")


def _tasks(requester: Requester, workflow_id: int, name: str) -> list[TaskSummary]:
    from jobmon.core.wire.monitoring import TaskSummariesResponse

    query = {"name": name, "limit": NAMESAKES_MAX}
    return requester.call(f"/workflows/{workflow_id}/task_summaries", query, TaskSummariesResponse, "get").tasks


def template_version_id(requester: Requester, word: str, workflow_id: int | None) -> int:
    """Return the ID of the version of a template that is given by ID or name.

    Args:
        requester: sends the requests.
        word: the ID of a template version, or the name of a template.
        workflow_id: the workflow in which to look up a name; None means the user's newest workflow.

    Raises:
        InvalidRequest: the workflow has no such template; the message names the nearest.
    """
    if word.isdigit():
        return Id().convert(word, None, None)
    from jobmon.client.defaults import name_hint
    from jobmon.core.wire.sizing import SizingRequest, SizingResponse

    where = workflow_id or newest_workflow(requester)
    found = requester.call(f"/workflows/{where}/sizing", SizingRequest(), SizingResponse).templates
    versions = {one.template_name: one.task_template_version_id for one in found}
    if word not in versions:
        raise InvalidRequest(f"No task of a template {word!r} has run in workflow {where}{name_hint(word, versions)}")
    return versions[word]
