"""`jobmon task hold|release|priority|skip|rerun` and `jobmon workflow hold|release|priority`: control single tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobmon.cli.references import TASKS, WORKFLOW
from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import ANY_OWNER, YES, complete_templates, make_sure, workflow_of
from jobmon.core.constants import PRIORITY_MAX
from jobmon.core.texts import number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    from jobmon.cli import rendering
    from jobmon.client import steering
    from jobmon.core.paths import user_name
    from jobmon.core.requester import Requester
    from jobmon.core.wire.steering import TASKS_UPDATED_MAX, HoldRequest, HoldResponse

    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    question = HoldRequest(
        task_ids=list(task_ids[:TASKS_UPDATED_MAX]),
        template=template,
        held=held,
        preview=True,
        user=user_name(),
        any_owner=any_owner,
    )
    affected = requester.call(f"/workflows/{workflow_id}/holds", question, HoldResponse).changed
    verb = "held" if held else "released"
    more = "at least " if affected == TASKS_UPDATED_MAX else ""
    make_sure(
        f"Workflow {workflow_id}: {more}{number_of(affected, 'task')} will be {verb}.", is_sure=is_sure or not affected
    )
    answer = steering.hold(requester, workflow_id, task_ids, template, held=held, any_owner=any_owner)
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "changed": answer.changed, "recalled": answer.recalled})
    else:
        recalled = f"; {number_of(answer.recalled, 'attempt')} recalled" if answer.recalled else ""
        click.echo(f"{verb.capitalize()}: {number_of(answer.changed, 'task')} of workflow {workflow_id}{recalled}.")


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
    from jobmon.cli import rendering
    from jobmon.client import steering
    from jobmon.core.paths import user_name
    from jobmon.core.requester import Requester
    from jobmon.core.wire.steering import TASKS_UPDATED_MAX, PriorityRequest, PriorityResponse

    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    question = PriorityRequest(
        priority=priority,
        task_ids=list(task_ids[:TASKS_UPDATED_MAX]),
        template=template,
        preview=True,
        user=user_name(),
        any_owner=any_owner,
    )
    affected = requester.call(f"/workflows/{workflow_id}/priorities", question, PriorityResponse).changed
    more = "at least " if affected == TASKS_UPDATED_MAX else ""
    what = f"{more}{number_of(affected, 'unfinished task')}"
    will = f"the workflow will get priority {priority} ({what})"
    if task_ids or template:
        will = f"{what} will get priority {priority}"
    make_sure(f"Workflow {workflow_id}: {will}.", is_sure=is_sure or not affected)
    answer = steering.prioritize(requester, workflow_id, priority, task_ids, template, any_owner=any_owner)
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "changed": answer.changed, "recalled": answer.recalled})
    else:
        recalled = f"; {number_of(answer.recalled, 'attempt')} recalled" if answer.recalled else ""
        tasks = number_of(answer.changed, "task")
        click.echo(f"Priority {priority}: {tasks} of workflow {workflow_id} changed{recalled}.")


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
    make_sure(f"Workflow {workflow_id}: {what} will be skipped.", is_sure=yes or not plan.task_ids)
    changed = steering.skip(requester, workflow_id, task_ids, any_owner=any_owner)
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "changed": changed, "is_running": plan.is_active})
    else:
        click.echo(f"Skipped: {number_of(changed, 'task')} of workflow {workflow_id}.")


@click.command(epilog="Example: jobmon task rerun 17 18")
@TASKS
@click.option("--command", metavar="TEXT", help="The command to run from now on; see jobmon task edit.")
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
    command: str | None,
    only: bool,
    yes: bool,
    any_owner: bool,
    output: str,
) -> None:
    """Rerun tasks and everything downstream, also while the workflow runs.

    Attempts of these tasks that are queued or running are stopped and not charged. If the workflow is not running, the
    tasks are rerun at the next resume.
    """
    from jobmon.cli import rendering
    from jobmon.cli.editing import check
    from jobmon.client import editing, steering
    from jobmon.core.requester import Requester

    new = None if command is None else editing.Edit(command)
    if new is not None:
        check(new)
    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    plan = steering.plan_rerun(requester, workflow_id, task_ids, only=only)
    what = number_of(len(plan.task_ids), "task")
    live = f" {number_of(plan.live, 'attempt')} will be stopped." if plan.live else ""
    edited = f" {number_of(len(task_ids), 'task')} will get the new command." if command is not None else ""
    is_sure = yes or not (plan.task_ids or edited)
    make_sure(f"Workflow {workflow_id}: {what} will be rerun.{live}{edited}", is_sure=is_sure)
    if new is not None:
        editing.edit(requester, workflow_id, task_ids, new, rerun=True, only=only, any_owner=any_owner)
    changed, to_kill = steering.rerun(requester, workflow_id, plan.task_ids, only=only, any_owner=any_owner)
    count = changed + to_kill if command is None else len(plan.task_ids)
    if output == "json":
        found = {"workflow_id": workflow_id, "changed": changed, "to_kill": to_kill, "is_running": plan.is_active}
        rendering.show_json(found)
    elif not count:
        click.echo(f"Nothing to do: {number_of(len(task_ids), 'task')} of workflow {workflow_id} will run anyway.")
    else:
        how = "" if plan.is_active else f" To run: jobmon workflow resume {workflow_id}"
        click.echo(f"Will be rerun: {number_of(count, 'task')} of workflow {workflow_id}.{how}")
