"""Control a workflow: concurrency, reset, the status of tasks; and show the history of such actions.

Each command shows what it will change, asks for confirmation unless `--yes` is given, and is recorded in the audit
trail.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.lookups import task_detail
from jobmon.cli.output import LIMIT, ROWS, TABLE, named, note_limit, paged, rows_max, show_rows
from jobmon.cli.references import TASKS, WORKFLOW, option
from jobmon.cli.rendering import OUTPUT
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING
from jobmon.core.descriptors import is_terminal
from jobmon.core.terminal import plain_line
from jobmon.core.texts import number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import WorkflowSummary
    from jobmon.core.wire.steering import HistoryEntry, TaskUpdatePlan

#: The server keeps only the newest entries.
HISTORY_MAX: Final = 10_000


YES: Final = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation; required without a terminal.")
ANY_OWNER: Final = click.option("--any-owner", is_flag=True, help="Act even if it belongs to another user.")


def complete_templates(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a template."""
    from jobmon.cli.completion import templates

    return templates(context, parameter, incomplete)


def workflow_of(requester: Requester, workflow_id: int | None, task_ids: Sequence[int]) -> int:
    """Return the workflow given, or that of the first task."""
    return task_detail(requester, task_ids[0]).workflow_id if workflow_id is None else workflow_id


def make_sure(what: str, *, is_sure: bool) -> None:
    """Show what will change, and ask for confirmation. Check before whether it can be done.

    Args:
        what: sentences that say what will be done.
        is_sure: the user has confirmed it already, or there is nothing to do.

    Raises:
        UsageError: there is no terminal on which to ask; what would be done is shown.
    """
    is_asked = is_sure or is_terminal(sys.stdin)
    click.echo(what if is_asked else what.replace(" will be ", " would be "), err=True)
    if is_sure:
        return
    if not is_asked:
        raise click.UsageError("Nothing was changed: there is no terminal on which to ask. To confirm: --yes")
    click.confirm("Continue?", abort=True, err=True)


@click.command(epilog="Example: jobmon workflow concurrency 5 -m 20")
@WORKFLOW
@option(
    "-m",
    "--max",
    "limit",
    quiet=("--max-tasks",),
    type=click.IntRange(0, MAX_CONCURRENTLY_RUNNING),
    required=True,
    metavar="N",
    help="At most N tasks at once; 0 pauses the workflow.",
)
@click.option(
    "--template", default="", shell_complete=complete_templates, help="Limit only the tasks of this template."
)
@YES
@OUTPUT
def concurrency(workflow_id: int, limit: int, template: str, yes: bool, output: str) -> None:
    """Limit how many tasks run at once, also while the workflow runs. Tasks that are queued or running continue."""
    from urllib.parse import quote

    from jobmon.cli import rendering
    from jobmon.core.paths import user_name
    from jobmon.core.requester import Requester
    from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse

    requester = Requester.from_defaults()
    part = f"/arrays/{quote(template, safe='')}" if template else ""
    route = f"/workflows/{workflow_id}{part}/concurrency"
    before = requester.call(route, {}, ConcurrencyResponse, "get").max_concurrently_running
    where = f"Workflow {workflow_id}" + (f", template {template}" if template else "")
    make_sure(f"{where}: {_limit_text(before)} now, {_limit_text(limit)} afterwards.", is_sure=yes)
    request = ConcurrencyRequest(max_concurrently_running=limit, user=user_name())
    answer = requester.call(route, request, ConcurrencyResponse, "put")
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "before": before, "now": answer.max_concurrently_running})
    else:
        click.echo(f"{where}: {_limit_text(answer.max_concurrently_running)}. Queued and running tasks continue.")


def _limit_text(limit: int) -> str:
    if limit == 0:
        return "paused"
    return "no limit" if limit >= MAX_CONCURRENTLY_RUNNING else f"at most {limit} at once"


@click.command(epilog="Example: jobmon workflow reset 5 --partial")
@WORKFLOW
@click.option("-p", "--partial", is_flag=True, help="Keep done tasks.")
@click.option(
    "--keep-resources", is_flag=True, help="Keep the requests of the last attempts, which may have been raised."
)
@YES
@ANY_OWNER
@OUTPUT
def reset(workflow_id: int, partial: bool, keep_resources: bool, yes: bool, any_owner: bool, output: str) -> None:
    """Reset tasks, so that they are rerun with all their attempts: all of them, or those that are not done.

    This runs nothing; `jobmon workflow resume` does. Stop a running workflow first.
    """
    from jobmon.cli import rendering
    from jobmon.client.api_calls import workflow_summary
    from jobmon.core.paths import user_name
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
        click.echo(f"Workflow {workflow_id} was reset: {_counts_text(after)}.")


def _reset_text(summary: WorkflowSummary, *, partial: bool) -> str:
    from jobmon.core.constants import TaskStatus

    what = "unfinished tasks will be rerun" if partial else "all tasks will be rerun"
    done = summary.counts.get(TaskStatus.DONE, 0)
    loss = "" if partial or not done else f", {number_of(done, 'done task')} included"
    name = summary.name or summary.tool_name
    return f"Workflow {summary.workflow_id} ({name}): {_counts_text(summary)}; {what}{loss}."


def _counts_text(summary: WorkflowSummary) -> str:
    from jobmon.cli.formatting import count_text
    from jobmon.core.constants import TaskStatus

    return count_text(summary.counts, TaskStatus) or "no tasks"


@click.command(epilog="Example: jobmon workflow history 5")
@WORKFLOW
@click.option("--all", "with_routine", is_flag=True, help="Also what clients do on their own: define, register.")
@LIMIT
@ROWS
def history(workflow_id: int, *, with_routine: bool, limit: int | None, output: str) -> None:
    """Show who did what to a workflow and when, newest first: people, clients, the reaper."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.steering import HistoryResponse

    route = f"/workflows/{workflow_id}/history"
    query = {"limit": HISTORY_MAX, "routine": with_routine}
    entries = Requester.from_defaults().call(route, query, HistoryResponse, "get").entries
    shown = entries[: rows_max(limit, output)]
    if output != TABLE:
        show_rows(named(shown, {}), output)
    elif not entries:
        click.echo(f"No actions are recorded for workflow {workflow_id}.")
    else:
        rows = [
            (entry.at, plain_line(entry.user or entry.actor), entry.action, _details_text(entry)) for entry in shown
        ]
        with paged():
            rendering.show_table(("WHEN", "WHO", "WHAT", "DETAILS"), rows)
        note_limit(len(shown), len(entries), "event")


def _details_text(entry: HistoryEntry) -> str:
    details = entry.details
    return plain_line(
        ", ".join(
            f"{name.replace('_', ' ')} {_value_text(name, value)}" for name, value in details.items() if value != []
        )
    )


def _value_text(name: str, value: Any) -> str:
    from jobmon.core.constants import TaskStatus

    if name == "status" and value in list(TaskStatus):
        return TaskStatus(value).name
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _wanted_status(_context: click.Context, _option: click.Parameter, word: str) -> str:
    from jobmon.cli.formatting import status_letter
    from jobmon.core.constants import TaskStatus
    from jobmon.core.fsm import MARKABLE

    return status_letter(TaskStatus, word, MARKABLE)


@click.command(epilog="Example: jobmon task update 17 18 -s DONE")
@TASKS
@click.option(
    "-s",
    "--status",
    required=True,
    callback=_wanted_status,
    help="DONE (D), or REGISTERING (G) to rerun them at the next resume.",
)
@option(
    "--force",
    quiet=("-f",),
    is_flag=True,
    help="Update even while the workflow is running; stops attempts of these tasks.",
)
@click.option(
    "-r", "--recursive", is_flag=True, help="Include upstream tasks (for DONE) or downstream tasks (for REGISTERING)."
)
@YES
@ANY_OWNER
@OUTPUT
def update(
    *,
    task_ids: list[int],
    workflow_id: int | None,
    status: str,
    force: bool,
    recursive: bool,
    yes: bool,
    any_owner: bool,
    output: str,
) -> None:
    """Mark tasks as done, or for rerun."""
    from jobmon.cli import rendering
    from jobmon.client import steering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.steering import TaskUpdatePlan, TaskUpdatePlanRequest

    requester = Requester.from_defaults()
    workflow_id = workflow_of(requester, workflow_id, task_ids)
    question = TaskUpdatePlanRequest(task_ids=task_ids, status=status, recursive=recursive)
    plan = requester.call(f"/workflows/{workflow_id}/task_updates/plan", question, TaskUpdatePlan)
    make_sure(_plan_text(plan, workflow_id, status), is_sure=yes or not plan.task_ids)

    changed, to_kill = steering.update(requester, workflow_id, plan.task_ids, status, force=force, any_owner=any_owner)
    if output == "json":
        rendering.show_json({"workflow_id": workflow_id, "changed": changed, "to_kill": to_kill})
    else:
        stopped = f"; {number_of(to_kill, 'attempt')} being stopped; their tasks change afterwards" if to_kill else ""
        click.echo(f"Changed {number_of(changed, 'task')} of workflow {workflow_id}{stopped}.")


def _plan_text(plan: TaskUpdatePlan, workflow_id: int, status: str) -> str:
    from jobmon.cli.formatting import count_text
    from jobmon.core.constants import TaskStatus

    if not plan.task_ids:
        unchanged = number_of(plan.unchanged, "task")
        return f"Nothing to change: {unchanged} of workflow {workflow_id} already {TaskStatus(status).name}."
    live = f" Attempts in progress: {plan.live:,}." if plan.live else ""
    active = " The workflow is running." if plan.is_active else ""
    first = f"Workflow {workflow_id}: {number_of(len(plan.task_ids), 'task')} ({count_text(plan.counts, TaskStatus)})"
    return f"{first} will be {TaskStatus(status).name}.{live}{active}"
