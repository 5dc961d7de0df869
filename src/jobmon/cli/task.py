"""`jobmon task`: one task and its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobmon.cli import explain, logs, steering
from jobmon.cli.rendering import OUTPUT
from jobmon.cli.words import Id, TaskStates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskDetail


@click.group()
def task() -> None:
    """One task: status, attempts, output."""


task.add_command(steering.update)
task.add_command(explain.explain_task)
task.add_command(explain.dependencies)
task.add_command(logs.task_logs)


@task.command(epilog="Example: jobmon task status -t 17 -t 18")
@click.option("-t", "--task-id", "task_ids", type=Id(), multiple=True, required=True, help="Repeatable.")
@click.option(
    "-s", "--status", "groups", type=TaskStates(), multiple=True, help="Only those that stand so. Repeatable."
)
@click.option("-l", "--limit", type=click.IntRange(min=1), help="So many of them.")
@OUTPUT
def status(task_ids: tuple[int, ...], groups: tuple[list[str], ...], limit: int | None, output: str) -> None:
    """Show tasks with all their attempts."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    wanted = {letter for letters in groups for letter in letters}
    found = [_detail(requester, task_id) for task_id in task_ids]
    found = [detail for detail in found if not wanted or detail.task.status in wanted][:limit]
    if output == "json":
        rendering.show_json(found)
        return
    for detail in found:
        _show(detail)


def _detail(requester: Requester, task_id: int) -> TaskDetail:
    from jobmon.core.wire.monitoring import TaskDetail

    return requester.call(f"/tasks/{task_id}", {}, TaskDetail, "get")


def _show(detail: TaskDetail) -> None:
    from jobmon.cli import rendering
    from jobmon.core.constants import TaskInstanceStatus, TaskStatus

    found = detail.task
    name = rendering.plain(found.name)
    click.echo(f"Task {found.task_id} {name}: {TaskStatus(found.status).name}, workflow {detail.workflow_id}")
    click.echo(f"  {rendering.plain(found.command)}")
    rendering.show_table(
        ("ATTEMPT", "STATUS", "STARTED", "ASKED FOR", "TIME", "CPU", "MEMORY", "HOW IT ENDED"),
        [
            (
                attempt.number,
                TaskInstanceStatus(attempt.status).name,
                attempt.started_at,
                _request(attempt.requested_resources),
                rendering.duration(attempt.wallclock_seconds),
                rendering.duration(attempt.cpu_seconds),
                rendering.size(attempt.max_rss_bytes),
                _ending(attempt.exit_code, attempt.signal, attempt.cause, attempt.charged),
            )
            for attempt in detail.attempts
        ],
        right=("ATTEMPT", "TIME", "CPU", "MEMORY"),
    )
    error = next((attempt.error for attempt in reversed(detail.attempts) if attempt.error), None)
    if error:
        click.echo(f"Last error: {rendering.plain(error)}")


def _request(asked: Mapping[str, Any]) -> str:
    """Say what an attempt asked for, in the units of the columns beside it."""
    from jobmon.cli import rendering

    parts = [f"{asked['cores']:g} core{'' if asked['cores'] == 1 else 's'}" if "cores" in asked else ""]
    parts.append(rendering.size(asked["memory"] * 1024**3) if "memory" in asked else "")
    parts.append(rendering.duration(asked["runtime"]) if "runtime" in asked else "")
    return "\n".join(filter(None, parts)) or "-"


def _ending(exit_code: int | None, signal: int | None, cause: str | None, charged: bool) -> str:
    from jobmon.core.constants import Cause

    ended_itself = signal is not None or exit_code is not None
    is_told = cause in (Cause.OUT_OF_MEMORY, Cause.OUT_OF_TIME) or not ended_itself
    parts = [cause] if cause is not None and is_told else []
    if signal is not None:
        parts.append(f"signal {signal}")
    elif exit_code is not None:
        parts.append(f"exit code {exit_code}")
    return ", ".join([*parts, *([] if charged or not cause else ["not charged"])]) or "-"
