"""`jobmon task hold|release|priority|skip|rerun` and `jobmon workflow hold|release|priority`: control single tasks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from jobmon.cli.editing import EDIT, check, what_changes
from jobmon.cli.references import TASKS, WORKFLOW
from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import ANY_OWNER, YES, complete_templates, make_sure, workflow_of
from jobmon.core.constants import PRIORITY_MAX
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.texts import number_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.client.editing import Edit
    from jobmon.core.wire.steering import HoldResponse, PriorityResponse

#: Maximum number of tasks that a sentence names.
NAMED_MAX: Final = 10

TEMPLATE = click.option(
    "-t",
    "--template",
    required=True,
    shell_complete=complete_templates,
    help="Template whose unfinished tasks are selected.",
)


@click.command("hold", epilog="Example: jobmon task hold 17 18")
@TASKS
@YES
@ANY_OWNER
@OUTPUT
def hold_tasks(*, task_ids: list[int], workflow_id: int | None, yes: bool, any_owner: bool, output: str) -> None:
    """Hold tasks: they are not launched until released, also while the workflow runs.

    Attempts that have not started are recalled and not charged; running ones finish.
    """
    _hold(workflow_id, task_ids, held=True, is_sure=yes, any_owner=any_owner, output=output)


@click.command("release", epilog="Example: jobmon task release 17 18")
@TASKS
@YES
@ANY_OWNER
@OUTPUT
def release_tasks(*, task_ids: list[int], workflow_id: int | None, yes: bool, any_owner: bool, output: str) -> None:
    """Release held tasks: they are launched as soon as their dependencies and the limits allow."""
    _hold(workflow_id, task_ids, held=False, is_sure=yes, any_owner=any_owner, output=output)


@click.command("hold", epilog="Example: jobmon workflow hold -w 5 -t count")
@WORKFLOW
@TEMPLATE
@YES
@ANY_OWNER
@OUTPUT
def hold_template(*, workflow_id: int, template: str, yes: bool, any_owner: bool, output: str) -> None:
    """Hold the unfinished tasks of a template, as `jobmon task hold` does."""
    _hold(workflow_id, (), template, held=True, is_sure=yes, any_owner=any_owner, output=output)


@click.command("release", epilog="Example: jobmon workflow release -w 5 -t count")
@WORKFLOW
@TEMPLATE
@YES
@ANY_OWNER
@OUTPUT
def release_template(*, workflow_id: int, template: str, yes: bool, any_owner: bool, output: str) -> None:
    """Release the held tasks of a template."""
    _hold(workflow_id, (), template, held=False, is_sure=yes, any_owner=any_owner, output=output)


def _hold(
    workflow_id: int | None,
    task_ids: Sequence[int],
    template: str = "",
    *,
    held: bool,
    is_sure: bool,
    any_owner: bool,
    output: str,
) -> None:
    from jobmon.client import steering
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    options = {"held": held, "any_owner": any_owner}
    send = functools.partial(steering.hold, requester, workflow_id, task_ids, template, **options)
    verb = "held" if held else "released"
    _carry_out(
        send,
        _Wording(
            workflow_id=workflow_id,
            task_ids=task_ids,
            template=template,
            will=f"{{tasks}} will be {verb}",
            did=f"{verb.capitalize()}: {{tasks}} of workflow {workflow_id}",
            can=f"be {verb}",
            already="{are} held already" if held else "{are} not held",
            other="is not held yet" if held else "is held",
        ),
        is_sure=is_sure,
        output=output,
    )


PRIORITY = click.option(
    "-p",
    "--priority",
    required=True,
    type=click.IntRange(-PRIORITY_MAX, PRIORITY_MAX),
    metavar="N",
    help=f"From -{PRIORITY_MAX} to {PRIORITY_MAX}; the default of all tasks is 0.",
)


@click.command("priority", epilog="Example: jobmon task priority 17 18 -p 10")
@TASKS
@PRIORITY
@YES
@ANY_OWNER
@OUTPUT
def prioritize_tasks(
    *, task_ids: list[int], workflow_id: int | None, priority: int, yes: bool, any_owner: bool, output: str
) -> None:
    """Set the priority of tasks: of those that are ready, the highest priority runs first.

    The priority of the template is added. Attempts that have not started are put into the new order, too.
    """
    _prioritize(workflow_id, task_ids, priority=priority, is_sure=yes, any_owner=any_owner, output=output)


@click.command("priority", epilog="Example: jobmon workflow priority -w 5 -t count -p 10")
@WORKFLOW
@click.option(
    "-t", "--template", default="", shell_complete=complete_templates, help="Only the tasks of this template."
)
@PRIORITY
@YES
@ANY_OWNER
@OUTPUT
def prioritize_workflow(
    *, workflow_id: int, template: str, priority: int, yes: bool, any_owner: bool, output: str
) -> None:
    """Set the priority of a workflow among those that share the cores of a machine, or that of a template in it.

    A workflow of lower priority gets the cores that those of higher priority do not want. The priority of a template is
    added to that of its tasks.
    """
    _prioritize(workflow_id, (), template, priority=priority, is_sure=yes, any_owner=any_owner, output=output)


def _prioritize(
    workflow_id: int | None,
    task_ids: Sequence[int],
    template: str = "",
    *,
    priority: int,
    is_sure: bool,
    any_owner: bool,
    output: str,
) -> None:
    from jobmon.client import steering
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    send = functools.partial(
        steering.prioritize, requester, workflow_id, priority, task_ids, template, any_owner=any_owner
    )
    is_of_tasks = bool(task_ids or template)
    _carry_out(
        send,
        _Wording(
            workflow_id=workflow_id,
            task_ids=task_ids,
            template=template,
            unit="unfinished task",
            will=f"{{tasks}} will get priority {priority}"
            if is_of_tasks
            else f"the workflow will get priority {priority} ({{tasks}})",
            did=f"Priority {priority}: {{tasks}} of workflow {workflow_id} changed",
            can="get another priority",
            already=f"{{have}} priority {priority} already",
            other=f"has another priority than {priority}",
        ),
        is_sure=is_sure,
        output=output,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wording:
    """The tasks that a command changes, and what it says about them.

    `will`, `did`: what happens to {tasks}. `can`: what only unfinished tasks can. `already`: what tasks {are} or {have}
    that do not change; `other`: what those are or have that do.
    """

    workflow_id: int
    task_ids: Sequence[int]
    template: str
    unit: str = "task"
    will: str
    did: str
    can: str
    already: str
    other: str

    def nothing(self, finished: Sequence[int]) -> str:
        """Return why nothing changes."""
        unchanged = sorted(set(self.task_ids) - set(finished))
        if unchanged:
            are, have = ("is", "has") if len(unchanged) == 1 else ("are", "have")
            return f"Nothing to do: {_named(unchanged)} {self.already.format(are=are, have=have)}."
        where = f"template {self.template!r}" if self.template else f"workflow {self.workflow_id}"
        return f"Nothing to do: no unfinished task of {where} {self.other}."


def _named(task_ids: Sequence[int]) -> str:
    """Return tasks by ID: "task 17", "tasks 17, 18"."""
    shown = ", ".join(map(str, task_ids[:NAMED_MAX]))
    more = f" and {len(task_ids) - NAMED_MAX:,} more" if len(task_ids) > NAMED_MAX else ""
    return f"{'task' if len(task_ids) == 1 else 'tasks'} {shown}{more}"


def _are_finished(task_ids: Sequence[int]) -> str:
    named = _named(task_ids)
    return f"{named[0].upper()}{named[1:]} {'is' if len(task_ids) == 1 else 'are'} done or skipped"


def _carry_out(
    send: Callable[..., HoldResponse | PriorityResponse], wording: _Wording, *, is_sure: bool, output: str
) -> None:
    """Change tasks after confirmation, and say which of them did not change and why.

    Raises:
        InvalidRequest: none of the tasks named is unfinished.
    """
    from jobmon.cli import rendering
    from jobmon.core.wire.steering import TASKS_UPDATED_MAX

    found = send(preview=True)
    if found.finished and set(found.finished) == set(wording.task_ids):
        raise InvalidRequest(
            f"{_are_finished(found.finished)}; only unfinished tasks can {wording.can}. Nothing was changed."
        )
    more = "at least " if wording.template and found.changed == TASKS_UPDATED_MAX else ""
    will = wording.will.format(tasks=f"{more}{number_of(found.changed, wording.unit)}")
    if found.changed:
        make_sure(f"Workflow {wording.workflow_id}: {will}.", is_sure=is_sure)
    answer = send()
    if output == "json":
        numbers = {"changed": answer.changed, "recalled": answer.recalled, "finished": answer.finished}
        rendering.show_json({"workflow_id": wording.workflow_id, **numbers})
        return
    finished = f" {_are_finished(answer.finished)}." if answer.finished else ""
    if not answer.changed:
        click.echo(f"{wording.nothing(answer.finished)}{finished}")
        return
    recalled = f"; {number_of(answer.recalled, 'attempt')} recalled" if answer.recalled else ""
    did = wording.did.format(tasks=number_of(answer.changed, "task"))
    click.echo(f"{did}{recalled}.{finished and f'{finished[:-1]}, and unchanged.'}")


@click.command("skip", epilog="Example: jobmon task skip 17 18")
@TASKS
@YES
@ANY_OWNER
@OUTPUT
def skip(*, task_ids: list[int], workflow_id: int | None, yes: bool, any_owner: bool, output: str) -> None:
    """Skip unfinished tasks, also failed ones: they are not run, and tasks downstream no longer wait for them.

    Tasks that are done, queued or running cannot be skipped. `jobmon task rerun` runs a skipped task after all.
    """
    from jobmon.cli import rendering
    from jobmon.client import steering
    from jobmon.core.constants import TaskStatus
    from jobmon.core.requester import Requester
    from jobmon.core.wire.steering import TaskUpdatePlan, TaskUpdatePlanRequest

    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    question = TaskUpdatePlanRequest(task_ids=list(task_ids), status=TaskStatus.SKIPPED.value)
    plan = requester.call(f"/workflows/{workflow_id}/task_updates/plan", question, TaskUpdatePlan)
    what = number_of(len(plan.task_ids), "task")
    if plan.task_ids:
        make_sure(f"Workflow {workflow_id}: {what} will be skipped.", is_sure=yes)
    changed = steering.skip(requester, workflow_id, task_ids, any_owner=any_owner)
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "changed": changed, "is_running": plan.is_active})
    elif not changed:
        are = "is" if len(task_ids) == 1 else "are"
        click.echo(f"Nothing to do: {_named(task_ids)} {are} skipped already.")
    else:
        click.echo(f"Skipped: {number_of(changed, 'task')} of workflow {workflow_id}.")


@click.command(epilog="Example: jobmon task rerun 17 18")
@TASKS
@EDIT
@click.option(
    "--only", is_flag=True, help="Do not rerun downstream tasks: the results of those that are done are accepted."
)
@YES
@ANY_OWNER
@OUTPUT
def rerun(
    *,
    task_ids: list[int],
    workflow_id: int | None,
    change: Edit,
    only: bool,
    yes: bool,
    any_owner: bool,
    output: str,
) -> None:
    """Rerun tasks and everything downstream, also while the workflow runs; with options, edit the tasks before.

    Attempts of these tasks that are queued or running are stopped and not charged. If the workflow is not running, the
    tasks are rerun at the next resume. For the edits see `jobmon task edit`.
    """
    from jobmon.cli import rendering
    from jobmon.client import editing, steering
    from jobmon.core.requester import Requester

    is_edit = bool(change.options)
    if is_edit:
        check(change)
    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    plan = steering.plan_rerun(requester, workflow_id, task_ids, only=only)
    if is_edit:
        definitions = editing.plan_edit(requester, workflow_id, task_ids)
        editing.require_requests(requester, task_ids, definitions, change)
    what = f" {number_of(len(plan.task_ids), 'task')} will be rerun." if plan.task_ids or not is_edit else ""
    live = f" {number_of(plan.live, 'attempt')} will be stopped." if plan.live else ""
    verb = "reset" if change.reset else "edited"
    edited = f" {number_of(len(task_ids), 'task')} will be {verb} ({what_changes(change)})." if is_edit else ""
    if plan.task_ids or edited:
        make_sure(f"Workflow {workflow_id}:{what}{live}{edited}", is_sure=yes)
    if is_edit:
        editing.edit(requester, workflow_id, task_ids, change, rerun=True, only=only, any_owner=any_owner)
    changed, to_kill = steering.rerun(requester, workflow_id, plan.task_ids, only=only, any_owner=any_owner)
    count = len(plan.task_ids) if is_edit else changed + to_kill
    if output == "json":
        found = {"workflow_id": workflow_id, "changed": changed, "to_kill": to_kill, "is_running": plan.is_active}
        rendering.show_json(found)
    elif not count and not is_edit:
        click.echo(f"Nothing to do: {number_of(len(task_ids), 'task')} of workflow {workflow_id} will run anyway.")
    else:
        how = "" if plan.is_active else f" To run: jobmon workflow resume {workflow_id}"
        if not count:
            click.echo(f"{verb.capitalize()}: {number_of(len(task_ids), 'task')} of workflow {workflow_id}.{how}")
            return
        click.echo(f"Will be rerun: {number_of(count, 'task')} of workflow {workflow_id}.{how}")
