"""`jobmon task explain`, `jobmon workflow explain` and `jobmon task dependencies`: why something does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from jobmon.cli.output import LIMIT_DEFAULT, note_limit, rows_max
from jobmon.cli.references import TASK, WORKFLOW
from jobmon.cli.rendering import OUTPUT
from jobmon.core.terminal import plain_line
from jobmon.core.texts import SHOWN_CHARACTERS_MAX, number_of, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import DependenciesResponse, Neighbour, Reason, TaskExplanation

NEIGHBOURS_MAX: Final = 10_000


@click.command("explain", epilog="Example: jobmon task explain 17")
@TASK
@OUTPUT
def explain_task(task_id: int, output: str) -> None:
    """Explain why a task does not run, or what it is doing."""
    from jobmon.cli import rendering
    from jobmon.core.fsm import CONCLUDED
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskExplanation

    found = Requester.from_defaults().call(f"/tasks/{task_id}/explanation", {}, TaskExplanation, "get")
    if output == "json":
        rendering.show_json(found)
        return
    _show_task(task_id, found)
    _show_reasons(found.reasons)
    if found.status not in CONCLUDED:
        _show_priority(found.priority)
        click.echo(f"  {found.num_attempts} of {number_of(found.max_attempts, 'attempt')} used.")


@click.command("explain", epilog="Example: jobmon workflow explain 5")
@WORKFLOW
@OUTPUT
def explain_workflow(workflow_id: int, output: str) -> None:
    """Explain why a workflow is stuck, or what it is doing."""
    import msgspec

    from jobmon.cli import rendering
    from jobmon.cli.formatting import count_text
    from jobmon.cli.listing import name_of
    from jobmon.client.api_calls import workflow_summary
    from jobmon.core.constants import TaskStatus
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import WorkflowExplanation

    requester = Requester.from_defaults()
    route = f"/workflows/{workflow_id}/explanation"
    found = requester.call(route, {}, WorkflowExplanation, "get")
    summary = workflow_summary(requester, workflow_id, counts=False)
    status = name_of(summary)
    if output == "json":
        rendering.show_json(msgspec.to_builtins(found) | {"status_name": status})
        return
    name = plain_line(shortened(found.name or summary.tool_name, SHOWN_CHARACTERS_MAX))
    click.echo(f"Workflow {workflow_id} {name}: {status}; {count_text(found.counts, TaskStatus) or 'no tasks'}")
    if gone := _dead_client(requester, workflow_id):
        click.echo(f"  {gone}")
    _show_reasons(found.reasons)
    _show_priority(found.priority)


def _show_priority(priority: int) -> None:
    if priority:
        click.echo(f"  Its priority is {priority}.")


def _dead_client(requester: Requester, workflow_id: int) -> str:
    """Return a note if the script of a run has exited on this machine, which the server notices only by its silence."""
    from jobmon.client.workflow_run import WorkflowRunFactory
    from jobmon.core.wire.run import ActiveRunsResponse

    runs = requester.call(f"/workflows/{workflow_id}/active_runs", None, ActiveRunsResponse, "get").runs
    if not runs or not WorkflowRunFactory(workflow_id, requester).are_active_runs_gone():
        return ""
    return f"Its script, which ran on this machine, has exited. To take over: jobmon workflow resume {workflow_id}"


def _show_task(task_id: int, found: TaskExplanation | DependenciesResponse) -> None:
    from jobmon.core.constants import TaskStatus

    name = shortened(found.name, SHOWN_CHARACTERS_MAX)
    click.echo(f"Task {task_id} {name} of workflow {found.workflow_id}: {TaskStatus(found.status).name}")


def _show_reasons(reasons: Sequence[Reason]) -> None:
    for reason in reasons:
        click.echo(f"  {reason.text}")


@click.command(epilog="Example: jobmon task dependencies 17")
@TASK
@click.option(
    "-l",
    "--limit",
    type=click.IntRange(0, NEIGHBOURS_MAX),
    metavar="N",
    help=(
        f"Show at most N upstream and N downstream tasks; 0 for all, up to {NEIGHBOURS_MAX:,}."
        f" Default: {LIMIT_DEFAULT} in a table, all in JSON."
    ),
)
@OUTPUT
def dependencies(task_id: int, limit: int | None, output: str) -> None:
    """Show the upstream and downstream tasks of a task."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import DependenciesResponse

    route = f"/tasks/{task_id}/dependencies"
    query = {"limit": rows_max(limit, output) or NEIGHBOURS_MAX}
    found = Requester.from_defaults().call(route, query, DependenciesResponse, "get")
    sides = {
        "upstream": (found.upstream, found.upstream_counts),
        "downstream": (found.downstream, found.downstream_counts),
    }
    if output == "json":
        rendering.show_json(found)
    else:
        _show_task(task_id, found)
        for side, (neighbours, counts) in sides.items():
            _show_side(side, neighbours, counts)
    for side, (neighbours, counts) in sides.items():
        note_limit(len(neighbours), sum(counts.values()), f"{side} task", rows_max=NEIGHBOURS_MAX)


def _show_side(side: str, neighbours: Sequence[Neighbour], counts: Mapping[str, int]) -> None:
    from jobmon.cli import rendering
    from jobmon.cli.formatting import count_text
    from jobmon.core.constants import TaskStatus

    total = sum(counts.values())
    if not total:
        click.echo(f"\nNo {side} tasks.")
        return
    click.echo(f"\n{number_of(total, f'{side} task')} ({count_text(dict(counts), TaskStatus)}):")
    rows = [(one.task_id, one.name, TaskStatus(one.status).name) for one in neighbours]
    rendering.show_table(("ID", "NAME", "STATUS"), rows, right=("ID",))
