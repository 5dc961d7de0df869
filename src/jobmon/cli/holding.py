"""`jobmon task hold|release|rerun` and `jobmon workflow hold|release`: control single tasks of a workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobmon.cli.references import TASKS, WORKFLOW
from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import ANY_OWNER, YES, complete_templates, make_sure, workflow_of
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
    from jobmon.core.places import user_name
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


@click.command(epilog="Example: jobmon task rerun 17 18")
@TASKS
@click.option(
    "--only", is_flag=True, help="Do not rerun downstream tasks: the results of those that are done are accepted."
)
@YES
@ANY_OWNER
@OUTPUT
def rerun(*, task_ids: list[int], workflow_id: int | None, only: bool, yes: bool, any_owner: bool, output: str) -> None:
    """Rerun tasks and everything downstream, also while the workflow runs.

    Attempts of these tasks that are queued or running are stopped and not charged. If the workflow is not running, the
    tasks are rerun at the next resume.
    """
    from jobmon.cli import rendering
    from jobmon.client import steering
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    plan = steering.plan_rerun(requester, workflow_id, task_ids, only=only)
    what = number_of(len(plan.task_ids), "task")
    live = f" {number_of(plan.live, 'attempt')} will be stopped." if plan.live else ""
    make_sure(f"Workflow {workflow_id}: {what} will be rerun.{live}", is_sure=yes or not plan.task_ids)
    changed, to_kill = steering.rerun(requester, workflow_id, plan.task_ids, only=only, any_owner=any_owner)
    count = changed + to_kill
    if output == "json":
        found = {"workflow_id": workflow_id, "changed": changed, "to_kill": to_kill, "is_running": plan.is_active}
        rendering.show_json(found)
    elif not count:
        click.echo(f"Nothing to do: {number_of(len(task_ids), 'task')} of workflow {workflow_id} will run anyway.")
    else:
        how = "" if plan.is_active else f" To run: jobmon workflow resume {workflow_id}"
        click.echo(f"Will be rerun: {number_of(count, 'task')} of workflow {workflow_id}.{how}")
