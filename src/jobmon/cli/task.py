"""`jobmon task`: tasks and their attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobmon.cli import editing, explain, holding, logs, steering
from jobmon.cli.formatting import TaskStates
from jobmon.cli.groups import Group
from jobmon.cli.lookups import task_detail
from jobmon.cli.output import CSV, JSON, LIMIT, ROWS, named, note_limit, paged, rows_max, show_rows
from jobmon.cli.references import TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.core.wire.monitoring import TaskDetail


@click.group(cls=Group)
def task() -> None:
    """Inspect tasks: status, attempts, output, why they do not run."""


task.add_command(steering.update)
task.add_command(holding.hold_tasks)
task.add_command(holding.release_tasks)
task.add_command(holding.prioritize_tasks)
task.add_command(holding.skip)
task.add_command(holding.rerun)
task.add_command(editing.edit)
task.add_command(explain.explain_task)
task.add_command(explain.dependencies)
task.add_command(logs.task_logs)


@task.command(epilog="Example: jobmon task status 17 18")
@TASKS
@click.option(
    "-s", "--status", "groups", type=TaskStates(), multiple=True, help="Only tasks with this status. Repeatable."
)
@LIMIT
@ROWS
def status(
    *,
    task_ids: list[int],
    workflow_id: int | None,
    groups: tuple[list[str], ...],
    limit: int | None,
    output: str,
) -> None:
    """Show tasks with all their attempts (requests, usage, outcome) and the files that they declare.

    CSV has a row for each attempt.
    """
    from jobmon.core.constants import TaskInstanceStatus
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    wanted = {letter for letters in groups for letter in letters}
    every = (task_detail(requester, task_id) for task_id in task_ids)
    found = [detail for detail in every if not wanted or detail.task.status in wanted]
    shown = found[: rows_max(limit, output)]
    if output == JSON:
        show_rows(map(_named, shown), output)
    elif output == CSV:
        attempts = (attempt for detail in shown for attempt in detail.attempts)
        show_rows(named(attempts, {"status": TaskInstanceStatus}), output)
    else:
        with paged():
            for detail in shown:
                _show(detail)
        note_limit(len(shown), len(found), "task")


def _named(detail: TaskDetail) -> dict[str, Any]:
    """Return a task for JSON, with the names of all statuses."""
    import msgspec

    from jobmon.core.constants import TaskInstanceStatus, TaskStatus

    (task,) = named([detail.task], {"status": TaskStatus})
    attempts = list(named(detail.attempts, {"status": TaskInstanceStatus}))
    found: dict[str, Any] = msgspec.to_builtins(detail)
    inputs, outputs = _files(detail)
    return {**found, "task": task, "attempts": attempts, "inputs": inputs, "outputs": outputs}


def _files(detail: TaskDetail) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the declared inputs and outputs of a task."""
    from jobmon.cli.files import declared_files

    task_id = detail.task.task_id
    inputs, outputs = (
        list(declared_files(detail.workflow_id, inputs=inputs, task_id=task_id)) for inputs in (True, False)
    )
    return inputs, outputs


def _show(detail: TaskDetail) -> None:
    from jobmon.cli import rendering
    from jobmon.cli.files import show_of_task
    from jobmon.core.constants import TaskInstanceStatus, TaskStatus

    found = detail.task
    name = found.name
    status = f"{TaskStatus(found.status).name}{f', priority {found.priority}' if found.priority else ''}"
    click.echo(f"Task {found.task_id} {name}: {status}, workflow {detail.workflow_id}")
    click.echo(f"  {found.command}")
    rendering.show_table(
        ("ATTEMPT", "STATUS", "STARTED", "REQUESTED", "TIME", "CPU", "MEMORY", "OUTCOME"),
        [
            (
                attempt.number,
                TaskInstanceStatus(attempt.status).name,
                attempt.started_at,
                _request(attempt.requested_resources),
                rendering.duration(attempt.wallclock_seconds),
                rendering.duration(attempt.cpu_seconds),
                rendering.peak(attempt.max_rss_bytes),
                _ending(attempt.exit_code, attempt.signal, attempt.cause, attempt.charged),
            )
            for attempt in detail.attempts
        ],
        right=("ATTEMPT", "TIME", "CPU", "MEMORY"),
    )
    show_of_task(*_files(detail))
    error = detail.error or next((attempt.error for attempt in reversed(detail.attempts) if attempt.error), None)
    if error:
        click.echo(f"Last error: {error}")


def _request(asked: Mapping[str, Any]) -> str:
    """Return what an attempt requested, in the units of the adjacent columns."""
    from jobmon.cli import rendering

    parts = [f"{asked['cores']:g} core{'' if asked['cores'] == 1 else 's'}" if "cores" in asked else ""]
    memory, runtime = asked.get("memory"), asked.get("runtime")
    parts.append(f"{memory} memory" if isinstance(memory, str) else rendering.size(memory * 1024**3) if memory else "")
    parts.append(f"{runtime} time" if isinstance(runtime, str) else rendering.duration(runtime) if runtime else "")
    return ", ".join(filter(None, parts)) or "-"


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
