"""`jobmon task edit`: change what the next attempts of tasks run."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.references import TASKS
from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import ANY_OWNER, YES, make_sure, workflow_of
from jobmon.core.texts import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobmon.client.editing import Edit
    from jobmon.core.wire.steering import EditPlan

    Function = Callable[..., Any]


def _settings(_context: click.Context, _option: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    """Return the resources given as NAME=VALUE."""
    found: dict[str, Any] = {}
    for word in words:
        name, is_given, text = word.partition("=")
        if not is_given or not name.strip() or not text.strip():
            raise click.BadParameter(f"{word!r} is not NAME=VALUE, such as memory=8G.")
        found[name.strip()] = _value(text.strip())
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


EDITS: Final = (
    click.option("--command", metavar="TEXT", help="The new command."),
    click.option(
        "--set",
        "resources",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_settings,
        help="A resource to change, such as memory=8G or runtime=2h. Repeatable; other resources are kept.",
    ),
    click.option("--max-attempts", type=click.IntRange(min=1), metavar="N", help="The new maximum number of attempts."),
    click.option("--queue", metavar="NAME", help="Another queue of the same cluster."),
    click.option("--reset", is_flag=True, help="Restore what the script defined, instead of changing anything."),
)


def EDIT(function: Function) -> Function:
    """Add the options that say what to change in tasks. Passed on as `change`."""

    @functools.wraps(function)
    def run(
        *,
        command: str | None,
        resources: dict[str, Any],
        max_attempts: int | None,
        queue: str | None,
        reset: bool,
        **values: Any,
    ) -> Any:
        from jobmon.client import editing

        changes = resources | ({editing.QUEUE: queue} if queue else {})
        return function(change=editing.Edit(command, changes, max_attempts, reset=reset), **values)

    for add in reversed(EDITS):
        run = add(run)
    return run


@click.command(epilog="Example: jobmon task edit 17 --set memory=8G")
@TASKS
@EDIT
@YES
@ANY_OWNER
@OUTPUT
def edit(
    *,
    task_ids: list[int],
    workflow_id: int | None,
    change: Edit,
    yes: bool,
    any_owner: bool,
    output: str,
) -> None:
    """Edit unfinished tasks: their next attempts run the new definition, also while the workflow runs.

    Attempts that have not started are recalled and not charged; running ones finish. A resume keeps an edit as long as
    the script's own value is unchanged.
    """
    from jobmon.cli import rendering
    from jobmon.client import editing
    from jobmon.core.requester import Requester

    if not change.options:
        raise click.UsageError("Specify what to change (--command, --set, --max-attempts, --queue), or --reset.")
    check(change)
    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    plan = editing.plan_edit(requester, workflow_id, task_ids)
    editing.require_unfinished(task_ids, plan, change)
    editing.require_requests(requester, task_ids, plan, change)
    make_sure(_question(workflow_id, plan, change), is_sure=yes)
    answer = editing.edit(requester, workflow_id, task_ids, change, any_owner=any_owner, plan=plan)
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "changed": answer.changed, "recalled": answer.recalled})
    elif not answer.changed:
        what = "as the script defined them" if change.reset else "like that already"
        click.echo(f"Nothing to do: {number_of(len(task_ids), 'task')} of workflow {workflow_id}, {what}.")
    else:
        recalled = f"; {number_of(answer.recalled, 'attempt')} recalled" if answer.recalled else ""
        hint = _how_to_run(workflow_id, task_ids, plan)
        click.echo(f"Edited: {number_of(answer.changed, 'task')} of workflow {workflow_id}{recalled}.{hint}")


def check(change: Edit) -> None:
    """Reject invalid values before anything is asked.

    Raises:
        UsageError: a value is invalid, or a reset is combined with a change.
    """
    if change.reset and len(change.options) > 1:
        raise click.UsageError("Specify what to change (--command, --set, --max-attempts, --queue), or --reset.")
    try:
        change.check()
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def what_changes(change: Edit) -> str:
    """Return what an edit changes: "command, memory"."""
    names = {
        "command": change.command is not None,
        **dict.fromkeys(change.compute_resources, True),
        "maximum number of attempts": change.max_attempts is not None,
        "everything that was edited": change.reset,
    }
    return ", ".join(name for name, is_changed in names.items() if is_changed)


def _question(workflow_id: int, plan: EditPlan, change: Edit) -> str:
    what = what_changes(change)
    verb = "reset" if change.reset else "edited"
    live = f" Attempts in progress: {plan.live:,}; those that run finish as they are." if plan.live else ""
    return f"Workflow {workflow_id}: {number_of(len(plan.statuses), 'task')} will be {verb} ({what}).{live}"


def _how_to_run(workflow_id: int, task_ids: Sequence[int], plan: EditPlan) -> str:
    """Return how to run edited tasks that do not run by themselves."""
    from jobmon.core.constants import TaskStatus

    failed = [
        task_id for task_id, status in zip(task_ids, plan.statuses, strict=True) if status == TaskStatus.ERROR_FATAL
    ]
    if skipped := [one for one, status in zip(task_ids, plan.statuses, strict=True) if status == TaskStatus.SKIPPED]:
        return f" To run what is skipped: jobmon task rerun {' '.join(map(str, skipped))}"
    if plan.is_active and failed:
        return f" To run: jobmon task rerun {' '.join(map(str, failed))}"
    return "" if plan.is_active else f" To run: jobmon workflow resume {workflow_id}"
