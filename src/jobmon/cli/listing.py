"""`jobmon workflow status` and `jobmon workflow tasks`: how workflows and their tasks stand, and how they go on."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import click

from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import WORKFLOW, workflow_option
from jobmon.cli.words import TASK_GROUPS, TaskStates, group_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rich.console import RenderableType

    from jobmon.client.progress import Outlook, Snapshot
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import WorkflowSummary

LIMIT_DEFAULT: Final = 25
WATCH_SECONDS: Final = 1.0
#: A server is not asked for more than this share of the time.
WATCH_SHARE_MAX: Final = 0.2
WATCHED_MAX: Final = 5


@click.command(epilog="Example: jobmon workflow status -w 5 --watch")
@workflow_option("workflow_ids", multiple=True, help="Repeatable; your newest if not given.")
@click.option("-u", "--user", "users", multiple=True, help="Those of this user. Repeatable.")
@click.option("--all-users", is_flag=True, help="Those of everybody.")
@click.option("-l", "--limit", type=click.IntRange(1, 10_000), default=LIMIT_DEFAULT, show_default=True)
@click.option("--watch", is_flag=True, help="Show how they go on, until they end or you press Ctrl-C.")
@OUTPUT
def status(
    *, workflow_ids: tuple[int, ...], users: tuple[str, ...], all_users: bool, limit: int, watch: bool, output: str
) -> None:
    """Show workflows and how many of their tasks stand where, newest first."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester

    if not (workflow_ids or users or all_users):
        from jobmon.client.binding import user_name

        users = (user_name(),)
    requester = Requester.from_defaults()
    found = summaries(requester, workflow_ids, users, limit)
    if watch:
        if output == "json":
            raise click.UsageError("--watch draws; ask again and again for JSON instead.")
        _watch(requester, [summary.workflow_id for summary in found if _is_active(summary)][:WATCHED_MAX], found)
    elif output == "json":
        rendering.show_json(found)
    elif not found:
        click.echo("No workflows." if all_users else f"No workflows of {', '.join(users)} (--all-users shows all).")
    else:
        _show(found)


def _show(found: Sequence[WorkflowSummary]) -> None:
    from jobmon.cli import rendering

    columns = ("ID", "NAME", "STATUS", "TASKS", *TASK_GROUPS, "SINCE")
    rendering.show_table(columns, [_row(summary) for summary in found], right=("ID", "TASKS", *TASK_GROUPS))


def _row(summary: WorkflowSummary) -> tuple[object, ...]:
    from jobmon.core.constants import WorkflowStatus

    counts = dict.fromkeys(TASK_GROUPS, 0)
    for letter, count in summary.counts.items():
        counts[group_of(letter)] += count
    state = WorkflowStatus(summary.status).name
    name = summary.name or "-"
    return (summary.workflow_id, name, state, summary.task_count, *counts.values(), summary.status_at)


def summaries(
    requester: Requester, workflow_ids: Sequence[int], users: Sequence[str] = (), limit: int = LIMIT_DEFAULT
) -> list[WorkflowSummary]:
    """Ask for workflows; one that was named and is not there is wrong use."""
    from jobmon.core.exceptions import InvalidRequest
    from jobmon.core.wire.monitoring import WorkflowsResponse

    query = {"workflow_id": list(workflow_ids), "user": list(users), "limit": max(limit, len(workflow_ids))}
    found = requester.call("/workflows", query, WorkflowsResponse, "get").workflows
    unknown = sorted(set(workflow_ids) - {summary.workflow_id for summary in found})
    if unknown and not users:
        raise InvalidRequest(f"There is no workflow {', '.join(map(str, unknown))}.")
    return found


def _is_active(summary: WorkflowSummary) -> bool:
    from jobmon.core.fsm import Machine, is_terminal

    return not is_terminal(Machine.WORKFLOW, summary.status)


def _watch(requester: Requester, workflow_ids: list[int], found: Sequence[WorkflowSummary]) -> None:
    """Show workflows until none is under way; on a terminal in place, elsewhere a line for each change."""
    if not workflow_ids:
        _show(found)
        return
    view = _View(requester)
    display = _Live() if sys.stdout.isatty() else _Lines()
    try:
        while True:
            began = time.monotonic()
            now = summaries(requester, workflow_ids, limit=WATCHED_MAX)
            display.show([view.snapshot(summary) for summary in now])
            if not any(_is_active(summary) for summary in now):
                break
            time.sleep(max(WATCH_SECONDS, (time.monotonic() - began) / WATCH_SHARE_MAX))
    except KeyboardInterrupt:
        click.echo("No longer watched; the workflows go on.", err=True)
    finally:
        display.end()


class _View:
    """Turns summaries into snapshots: remembers how it stood when the watch began."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester
        self._started = time.monotonic()
        self._done_before: dict[int, int] = {}
        self._failed: dict[int, int] = {}
        self._errors: dict[int, tuple[str, ...]] = {}
        self._outlooks: dict[int, Outlook] = {}
        self._began: dict[int, datetime] = {}

    def snapshot(self, summary: WorkflowSummary) -> Snapshot:
        """Return how a workflow stands."""
        from datetime import UTC, datetime

        from jobmon.client.progress import Snapshot, grouped
        from jobmon.core.constants import TaskStatus, WorkflowStatus

        counts = grouped({TaskStatus(letter): count for letter, count in summary.counts.items()})
        number = summary.workflow_id
        outlook = self._outlook_of(number)
        began = self._began.setdefault(number, summary.status_at)
        state = WorkflowStatus(summary.status).name
        return Snapshot(
            title=f"{number} {summary.name or summary.tool_name} {state}",
            counts=counts,
            total=summary.task_count,
            done_before=self._done_before.setdefault(number, counts["done"]),
            elapsed_seconds=max(0.0, (datetime.now(UTC) - began).total_seconds()),
            watched_seconds=time.monotonic() - self._started,
            errors=self._errors_of(number, counts["failed"]),
            templates=outlook.templates,
            left=outlook.left if _is_active(summary) else "",
        )

    def _outlook_of(self, number: int) -> Outlook:
        from jobmon.client.progress import Outlook
        from jobmon.core.wire.monitoring import ProgressResponse

        def fetch() -> ProgressResponse:
            return self._requester.call(f"/workflows/{number}/progress", None, ProgressResponse, "get")

        if number not in self._outlooks:
            self._outlooks[number] = Outlook(fetch, wait_first=False)
        outlook = self._outlooks[number]
        outlook.learn()
        return outlook

    def _errors_of(self, number: int, failed: int) -> tuple[str, ...]:
        from jobmon.client.progress import ERRORS_SHOWN_MAX, first_line
        from jobmon.core.wire.swarm import ErrorsResponse

        if failed != self._failed.get(number, 0):
            query = {"limit": ERRORS_SHOWN_MAX}
            errors = self._requester.call(f"/workflows/{number}/errors", query, ErrorsResponse, "get").errors
            self._failed[number] = failed
            self._errors[number] = tuple(f"{error.task_name}: {first_line(error.error)}" for error in errors)
        return self._errors.get(number, ())


class _Live:
    """Drawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False)
        self._live.start()

    def show(self, snapshots: Sequence[Snapshot]) -> None:
        """Draw."""
        from rich.console import Group

        from jobmon.client.progress import drawn

        parts: list[RenderableType] = [drawn(snapshot) for snapshot in snapshots]
        self._live.update(Group(*parts), refresh=True)

    def end(self) -> None:
        """Leave the last picture."""
        self._live.stop()


class _Lines:
    """A line for each workflow whose counts changed."""

    def __init__(self) -> None:
        self._shown: dict[str, object] = {}

    def show(self, snapshots: Sequence[Snapshot]) -> None:
        """Print what is new."""
        from jobmon.client.progress import line_of

        for snapshot in snapshots:
            if self._shown.get(snapshot.title) != snapshot.counts:
                self._shown[snapshot.title] = snapshot.counts
                click.echo(line_of(snapshot))
        sys.stdout.flush()

    def end(self) -> None:
        """Nothing to leave."""


@click.command(epilog="Example: jobmon workflow tasks -w 5 -s FATAL")
@WORKFLOW
@click.option(
    "-s",
    "--status",
    "groups",
    type=TaskStates(),
    multiple=True,
    help=f"{', '.join(TASK_GROUPS)}, or a status by name or letter. Repeatable.",
)
@click.option("-l", "--limit", type=click.IntRange(1, 10_000), default=LIMIT_DEFAULT, show_default=True)
@OUTPUT
def tasks(workflow_id: int, groups: tuple[list[str], ...], limit: int, output: str) -> None:
    """Show the tasks of a workflow."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskSummariesResponse

    wanted = sorted({letter for letters in groups for letter in letters})
    route = f"/workflows/{workflow_id}/task_summaries"
    query = {"status": wanted or None, "limit": limit}
    found = Requester.from_defaults().call(route, query, TaskSummariesResponse, "get").tasks
    if output == "json":
        rendering.show_json(found)
        return
    rows = [
        (task.task_id, task.name, group_of(task.status), f"{task.num_attempts}/{task.max_attempts}", task.status_at)
        for task in found
    ]
    rendering.show_table(("ID", "NAME", "STATUS", "ATTEMPTS", "SINCE"), rows, right=("ID",))
