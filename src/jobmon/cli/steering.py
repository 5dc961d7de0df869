"""Steering a workflow: how many tasks at once, start anew, what of it is done; and what was done to it so far.

Each command shows what it will change, asks on a terminal unless told `--yes`, and is written to the audit trail.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.rendering import OUTPUT
from jobmon.cli.words import Id
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import WorkflowSummary
    from jobmon.core.wire.steering import HistoryEntry, TaskUpdatePlan

HISTORY_DEFAULT: Final = 50


def workflow_option(name: str = "workflow_id", **settings: Any) -> Callable[[Any], Any]:
    """Return the option that names workflows, whose ids a shell completes."""

    def ids(context: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from jobmon.cli.completion import workflow_ids

        return workflow_ids(context, option, incomplete)

    settings = {"help": "The workflow.", **settings}
    return click.option("-w", "--workflow-id", name, type=Id(), shell_complete=ids, **settings)


WORKFLOW: Final = workflow_option(required=True)
YES: Final = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
ANY_OWNER: Final = click.option("--any-owner", is_flag=True, help="Also if somebody else recorded it.")


def make_sure(what: str, *, is_sure: bool) -> None:
    """Show what will change, and ask on a terminal."""
    click.echo(what, err=True)
    if not is_sure and sys.stdin.isatty():
        click.confirm("Go on?", abort=True, err=True)


@click.command(epilog="Example: jobmon workflow concurrency -w 5 -m 20")
@WORKFLOW
@click.option(
    "-m",
    "--max",
    "limit",
    type=click.IntRange(0, MAX_CONCURRENTLY_RUNNING),
    required=True,
    help="0: queue nothing more.",
)
@click.option("--template", default="", help="Only tasks of the template of this name.")
@YES
@OUTPUT
def concurrency(workflow_id: int, limit: int, template: str, yes: bool, output: str) -> None:
    """Change how many tasks may run at once, while it runs too. What was handed out already goes on."""
    from urllib.parse import quote

    from jobmon.cli import rendering
    from jobmon.client.binding import user_name
    from jobmon.core.requester import Requester
    from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse

    requester = Requester.from_defaults()
    part = f"/arrays/{quote(template, safe='')}" if template else ""
    route = f"/workflows/{workflow_id}{part}/concurrency"
    before = requester.call(route, {}, ConcurrencyResponse, "get").max_concurrently_running
    where = f"Workflow {workflow_id}" + (f", template {template}" if template else "")
    make_sure(f"{where}: {_limit_text(before)} now, {_limit_text(limit)} from here on.", is_sure=yes)
    request = ConcurrencyRequest(max_concurrently_running=limit, user=user_name())
    answer = requester.call(route, request, ConcurrencyResponse, "put")
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "before": before, "now": answer.max_concurrently_running})
    else:
        click.echo(f"{where}: {_limit_text(answer.max_concurrently_running)}. What was handed out already goes on.")


def _limit_text(limit: int) -> str:
    if limit == 0:
        return "paused"
    return "no limit" if limit >= MAX_CONCURRENTLY_RUNNING else f"at most {limit} at once"


@click.command(epilog="Example: jobmon workflow reset -w 5 --partial")
@WORKFLOW
@click.option("-p", "--partial", is_flag=True, help="Leave done tasks as they are.")
@click.option("--keep-resources", is_flag=True, help="Ask for as much as the last attempts did, not as defined.")
@YES
@ANY_OWNER
@OUTPUT
def reset(workflow_id: int, partial: bool, keep_resources: bool, yes: bool, any_owner: bool, output: str) -> None:
    """Start its tasks anew with all their attempts: all of them, or with --partial those that are not done.

    Nothing is run by this: `jobmon workflow resume` does that. A workflow that is being run must be stopped first.
    """
    from jobmon.cli import rendering
    from jobmon.client.binding import user_name
    from jobmon.core.requester import Requester
    from jobmon.core.wire.run import ResetRequest

    requester = Requester.from_defaults()
    summary = workflow_summary(requester, workflow_id)
    make_sure(_reset_text(summary, partial=partial), is_sure=yes)
    request = ResetRequest(keep_resources=keep_resources, keep_done=partial, user=user_name(), any_owner=any_owner)
    requester.call(f"/workflows/{workflow_id}/reset_tasks", request, dict)
    after = workflow_summary(requester, workflow_id)
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "status": after.status, "counts": after.counts})
    else:
        click.echo(f"Workflow {workflow_id} is reset: {_counts_text(after)}.")


def _reset_text(summary: WorkflowSummary, *, partial: bool) -> str:
    from jobmon.core.constants import TaskStatus

    what = "tasks that are not done start" if partial else "all tasks start"
    done = summary.counts.get(TaskStatus.DONE, 0)
    loss = "" if partial or not done else f" The work of {done} done tasks counts no more."
    name = summary.name or summary.tool_name
    return f"Workflow {summary.workflow_id} ({name}): {_counts_text(summary)}; {what} anew.{loss}"


def _counts_text(summary: WorkflowSummary) -> str:
    from jobmon.cli.words import count_text
    from jobmon.core.constants import TaskStatus

    return count_text(summary.counts, TaskStatus) or "no tasks"


def workflow_summary(requester: Requester, workflow_id: int) -> WorkflowSummary:
    """Return a workflow with its counts.

    Raises:
        InvalidRequest: there is none of this id.
    """
    from jobmon.core.exceptions import InvalidRequest
    from jobmon.core.wire.monitoring import WorkflowsResponse

    found = requester.call("/workflows", {"workflow_id": [workflow_id], "limit": 1}, WorkflowsResponse, "get").workflows
    if not found:
        raise InvalidRequest(f"There is no workflow {workflow_id}.")
    return found[0]


@click.command(epilog="Example: jobmon workflow history -w 5")
@WORKFLOW
@click.option("-l", "--limit", type=click.IntRange(1, 10_000), default=HISTORY_DEFAULT, show_default=True)
@OUTPUT
def history(workflow_id: int, limit: int, output: str) -> None:
    """Show who did what to a workflow and when, newest first: people, clients, the reaper."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.steering import HistoryResponse

    route = f"/workflows/{workflow_id}/history"
    entries = Requester.from_defaults().call(route, {"limit": limit}, HistoryResponse, "get").entries
    if output == "json":
        rendering.show_json(entries)
    elif not entries:
        click.echo(f"Nobody intervened in workflow {workflow_id}.")
    else:
        rows = [(entry.at, entry.user or entry.actor, entry.action, _details_text(entry)) for entry in entries]
        rendering.show_table(("WHEN", "WHO", "WHAT", "DETAILS"), rows)


def _details_text(entry: HistoryEntry) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {_value_text(value)}" for name, value in entry.details.items() if value != []
    )


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _wanted_status(_context: click.Context, _option: click.Parameter, word: str) -> str:
    from jobmon.cli.words import status_letter
    from jobmon.core.constants import TaskStatus

    return status_letter(TaskStatus, word, (TaskStatus.DONE, TaskStatus.REGISTERING))


@click.command(epilog="Example: jobmon task update -t 17 18 -w 5 -s DONE")
@click.option("-t", "--task-id", "task_ids", type=Id(), multiple=True, required=True, help="Repeatable.")
@click.argument("more", metavar="[ID]...", type=Id(), nargs=-1)
@WORKFLOW
@click.option(
    "-s", "--status", required=True, callback=_wanted_status, help="D (DONE), or G (REGISTERING) to run them again."
)
@click.option("-f", "--force", is_flag=True, help="Also while the workflow is run; ends attempts that are in the way.")
@click.option("-r", "--recursive", is_flag=True, help="To D: all before them too; to G: all after them too.")
@YES
@ANY_OWNER
@OUTPUT
def update(
    *,
    task_ids: tuple[int, ...],
    more: tuple[int, ...],
    workflow_id: int,
    status: str,
    force: bool,
    recursive: bool,
    yes: bool,
    any_owner: bool,
    output: str,
) -> None:
    """Say that tasks are done, or that they shall be run again."""
    from jobmon.cli import rendering
    from jobmon.client.binding import user_name
    from jobmon.core.requester import Requester
    from jobmon.core.wire.steering import TaskUpdatePlan, TaskUpdatePlanRequest, TaskUpdateRequest

    requester = Requester.from_defaults()
    question = TaskUpdatePlanRequest(task_ids=[*task_ids, *more], status=status, recursive=recursive)
    plan = requester.call(f"/workflows/{workflow_id}/task_updates/plan", question, TaskUpdatePlan)
    make_sure(_plan_text(plan, workflow_id, status), is_sure=yes or not plan.task_ids)

    def request(ids: list[int]) -> TaskUpdateRequest:
        return TaskUpdateRequest(task_ids=ids, status=status, user=user_name(), force=force, any_owner=any_owner)

    changed, to_kill = _apply(requester, workflow_id, plan.task_ids, request)
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "changed": changed, "to_kill": to_kill})
    else:
        ended = f"; {to_kill} attempts are being ended, their tasks follow" if to_kill else ""
        click.echo(f"{changed} tasks of workflow {workflow_id} changed{ended}.")


def _plan_text(plan: TaskUpdatePlan, workflow_id: int, status: str) -> str:
    from jobmon.cli.words import count_text, number_of
    from jobmon.core.constants import TaskStatus

    if not plan.task_ids:
        return f"Nothing to change: {number_of(plan.unchanged, 'task')} of workflow {workflow_id} stand so already."
    live = f" {plan.live} of them have an attempt under way." if plan.live else ""
    active = " The workflow is being run." if plan.is_active else ""
    first = f"Workflow {workflow_id}: {number_of(len(plan.task_ids), 'task')} ({count_text(plan.counts, TaskStatus)})"
    return f"{first} become {TaskStatus(status).name}.{live}{active}"


def _apply(
    requester: Requester, workflow_id: int, task_ids: list[int], request: Callable[[list[int]], Any]
) -> tuple[int, int]:
    """Change them in chunks; return how many changed, and how many attempts were told to end."""
    from jobmon.core.wire.steering import TASKS_UPDATED_MAX, TaskUpdateResponse

    changed = to_kill = 0
    for start in range(0, len(task_ids), TASKS_UPDATED_MAX):
        chunk = request(task_ids[start : start + TASKS_UPDATED_MAX])
        answer = requester.call(f"/workflows/{workflow_id}/task_updates", chunk, TaskUpdateResponse)
        changed += answer.changed
        to_kill += answer.to_kill
    return changed, to_kill
