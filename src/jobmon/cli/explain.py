"""`jobmon task explain`, `jobmon workflow explain` and `jobmon task dependencies`: why does it not run?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from jobmon.cli.rendering import OUTPUT, plain
from jobmon.cli.steering import workflow_option
from jobmon.cli.words import Id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.core.wire.monitoring import Neighbour, Reason

NEIGHBOURS_DEFAULT: Final = 25


@click.command("explain", epilog="Example: jobmon task explain 17")
@click.argument("task_id", type=Id())
@OUTPUT
def explain_task(task_id: int, output: str) -> None:
    """Say why a task does not run, or what it is at."""
    from jobmon.cli import rendering
    from jobmon.core.constants import TaskStatus
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskExplanation

    found = Requester.from_defaults().call(f"/tasks/{task_id}/explanation", {}, TaskExplanation, "get")
    if output == "json":
        rendering.show_json(found)
        return
    status = TaskStatus(found.status).name
    click.echo(f"Task {task_id} {plain(found.name)} of workflow {found.workflow_id}: {status}")
    _show_reasons(found.reasons)
    if found.status not in (TaskStatus.DONE, TaskStatus.ERROR_FATAL):
        click.echo(f"  {found.num_attempts} of {found.max_attempts} attempts are used.")


@click.command("explain", epilog="Example: jobmon workflow explain 5")
@click.argument("number", metavar="[ID]", type=Id(), required=False)
@workflow_option(help="The workflow, if not said before.")
@OUTPUT
def explain_workflow(number: int | None, workflow_id: int | None, output: str) -> None:
    """Say why a workflow does not go on, or what it is at."""
    from jobmon.cli import rendering
    from jobmon.cli.words import count_text
    from jobmon.core.constants import TaskStatus, WorkflowStatus
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import WorkflowExplanation

    if (number is None) == (workflow_id is None):
        raise click.UsageError("Say which workflow: jobmon workflow explain 5.")
    workflow_id = number if workflow_id is None else workflow_id
    route = f"/workflows/{workflow_id}/explanation"
    found = Requester.from_defaults().call(route, {}, WorkflowExplanation, "get")
    if output == "json":
        rendering.show_json(found)
        return
    status = WorkflowStatus(found.status).name
    click.echo(
        f"Workflow {workflow_id} {plain(found.name)}: {status}; {count_text(found.counts, TaskStatus) or 'no tasks'}"
    )
    _show_reasons(found.reasons)


def _show_reasons(reasons: Sequence[Reason]) -> None:
    for reason in reasons:
        click.echo(f"  {plain(reason.text)}")


@click.command(epilog="Example: jobmon task dependencies -t 17")
@click.option("-t", "--task-id", type=Id(), required=True, help="The task.")
@click.option("-l", "--limit", type=click.IntRange(1, 10_000), default=NEIGHBOURS_DEFAULT, show_default=True)
@OUTPUT
def dependencies(task_id: int, limit: int, output: str) -> None:
    """Show the tasks directly before and after a task."""
    from jobmon.cli import rendering
    from jobmon.core.constants import TaskStatus
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import DependenciesResponse

    route = f"/tasks/{task_id}/dependencies"
    found = Requester.from_defaults().call(route, {"limit": limit}, DependenciesResponse, "get")
    if output == "json":
        rendering.show_json(found)
        return
    status = TaskStatus(found.status).name
    click.echo(f"Task {task_id} {plain(found.name)} of workflow {found.workflow_id}: {status}")
    _show_side("before", found.upstream, found.upstream_counts)
    _show_side("after", found.downstream, found.downstream_counts)


def _show_side(side: str, neighbours: Sequence[Neighbour], counts: Mapping[str, int]) -> None:
    from jobmon.cli import rendering
    from jobmon.cli.words import count_text, number_of
    from jobmon.core.constants import TaskStatus

    total = sum(counts.values())
    if not total:
        click.echo(f"\nNothing is {side} it.")
        return
    more = f", {len(neighbours)} of them here" if total > len(neighbours) else ""
    click.echo(f"\n{number_of(total, 'task')} {side} it ({count_text(dict(counts), TaskStatus)}){more}:")
    rows = [(one.task_id, one.name, TaskStatus(one.status).name) for one in neighbours]
    rendering.show_table(("ID", "NAME", "STATUS"), rows, right=("ID",))
