"""`jobmon workflow status` and `jobmon workflow tasks`: lists of workflows and of their tasks."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.formatting import TaskStates, WorkflowStates
from jobmon.cli.output import (
    LIMIT,
    ROWS,
    TABLE,
    argument_columns,
    named,
    note_limit,
    paged,
    rows_max,
    show_rows,
)
from jobmon.cli.references import WORKFLOW, WORKFLOWS
from jobmon.core.descriptors import is_terminal
from jobmon.core.outcomes import TASK_GROUPS, group_of
from jobmon.core.terminal import plain_line, unguarded
from jobmon.core.texts import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from rich.console import RenderableType

    from jobmon.client.progress import Outlook, Snapshot
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskSummary, WorkflowSummary

WATCH_SECONDS: Final = 1.0
#: Maximum share of the time that requests to the server may take.
WATCH_SHARE_MAX: Final = 0.2
WATCHED_MAX: Final = 5
#: Rows per request.
PAGE_ROWS: Final = 1_000
NAME_CHARACTERS_MAX: Final = 32
ARGUMENT_COLUMNS_MAX: Final = 4
#: Groups of tasks with a column only if there are such tasks.
_RARE_GROUPS: Final = frozenset({"SKIPPED"})


@click.command(epilog="Example: jobmon workflow status 5 --watch")
@WORKFLOWS
@click.option("-u", "--user", "users", multiple=True, help="Only workflows of this user. Repeatable.")
@click.option("--all-users", is_flag=True, help="Workflows of all users.")
@click.option("--name", default="", help="Only workflows of this name; * stands for anything.")
@click.option("--args", "workflow_args", default="", help="Only with these workflow_args; * stands for anything.")
@click.option(
    "-s", "--status", "statuses", type=WorkflowStates(), multiple=True, help="Only with this status. Repeatable."
)
@LIMIT
@click.option("--watch", is_flag=True, help="Show progress until they finish, or until you press Ctrl-C.")
@ROWS
def status(
    *,
    workflow_ids: tuple[int, ...],
    users: tuple[str, ...],
    all_users: bool,
    name: str,
    workflow_args: str,
    statuses: tuple[str, ...],
    limit: int | None,
    watch: bool,
    output: str,
) -> None:
    """List workflows and how many of their tasks have which status, newest first.

    Shows your own workflows, unless you name some or choose other users. A workflow that was stopped, timed out, or
    whose script died is shown as STOPPED, TIMED OUT or INTERRUPTED; JSON also has the stored status, F.
    """
    from jobmon.core.requester import Requester

    if not (workflow_ids or users or all_users):
        from jobmon.core.paths import user_name

        users = (user_name(),)
    requester = Requester.from_defaults()
    query = {"user": list(users), "status": list(statuses), "name": name, "args": workflow_args}
    most = rows_max(limit, output)
    if output != TABLE:
        if watch:
            raise click.UsageError("--watch draws on the terminal; call the command repeatedly for JSON or CSV.")
        show_rows(_workflow_rows(_all_summaries(requester, workflow_ids, query, most)), output)
        return
    found, total = summaries(requester, workflow_ids, query, most)
    if watch:
        _watch(requester, [summary.workflow_id for summary in found if _is_active(summary)][:WATCHED_MAX], found)
    elif not found:
        is_filtered = bool(name or workflow_args or statuses)
        which = " that match" if is_filtered else ""
        click.echo(f"No workflows{which}." if all_users else _nothing_of(users, which))
    else:
        with paged():
            _show(found)
        note_limit(len(found), total, "workflow")


def _nothing_of(users: Sequence[str], which: str) -> str:
    return f"No workflows of {', '.join(users)}{which} (--all-users shows all)."


def _show(found: Sequence[WorkflowSummary]) -> None:
    from jobmon.cli import rendering

    counted = [_by_group(summary) for summary in found]
    groups = [name for name in TASK_GROUPS if name not in _RARE_GROUPS or any(counts[name] for counts in counted)]
    priority = ["PRIORITY"] if any(summary.priority for summary in found) else []
    columns = ("ID", "NAME", "ARGS", "STATUS", *priority, "TASKS", *groups, "SINCE")
    rows = [
        _row(summary, [summary.priority] if priority else [], [counts[name] for name in groups])
        for summary, counts in zip(found, counted, strict=True)
    ]
    rendering.show_table(columns, rows, right=("ID", "PRIORITY", "TASKS", *groups))


def _by_group(summary: WorkflowSummary) -> dict[str, int]:
    counts = dict.fromkeys(TASK_GROUPS, 0)
    for letter, count in summary.counts.items():
        counts[group_of(letter)] += count
    return counts


def _row(summary: WorkflowSummary, priority: Sequence[int], counts: Sequence[int]) -> tuple[object, ...]:
    name = plain_line(shortened(summary.name or summary.tool_name, NAME_CHARACTERS_MAX))
    args = plain_line(shortened(summary.workflow_args, NAME_CHARACTERS_MAX))
    status = name_of(summary), *priority
    return (summary.workflow_id, name, args, *status, summary.task_count, *counts, summary.status_at)


def name_of(summary: WorkflowSummary) -> str:
    """Return the displayed name of a workflow's status."""
    from jobmon.core.constants import WorkflowStatus

    return summary.status_name or WorkflowStatus(summary.status).name


def _workflow_rows(found: Iterable[WorkflowSummary]) -> Iterator[dict[str, Any]]:
    import msgspec

    for summary in found:
        yield {**msgspec.to_builtins(summary), "status_name": name_of(summary)}


def summaries(
    requester: Requester, workflow_ids: Sequence[int], query: Mapping[str, Any], most: int | None
) -> tuple[list[WorkflowSummary], int | None]:
    """Return workflows, newest first, and the total number of matches.

    Raises:
        InvalidRequest: there is no workflow with one of the given IDs.
    """
    from jobmon.core.exceptions import InvalidRequest
    from jobmon.core.wire.monitoring import WorkflowsResponse

    limit = min(max(most or PAGE_ROWS, len(workflow_ids)), PAGE_ROWS)
    asked = {**query, "workflow_id": list(workflow_ids), "limit": limit, "total": "true"}
    answer = requester.call("/workflows", asked, WorkflowsResponse, "get")
    unknown = sorted(set(workflow_ids) - {summary.workflow_id for summary in answer.workflows})
    if unknown and not any(query.values()):
        raise InvalidRequest(f"There is no workflow {', '.join(map(str, unknown))}.")
    found = list(answer.workflows)
    while len(answer.workflows) == limit and (most is None or len(found) < most):
        answer_after = {**asked, "before": found[-1].workflow_id, "limit": min(PAGE_ROWS, (most or 2**31) - len(found))}
        page = requester.call("/workflows", answer_after, WorkflowsResponse, "get").workflows
        if not page:
            break
        found += page
    return found, answer.total


def _all_summaries(
    requester: Requester, workflow_ids: Sequence[int], query: Mapping[str, Any], most: int | None
) -> list[WorkflowSummary]:
    return summaries(requester, workflow_ids, query, most)[0]


def _is_active(summary: WorkflowSummary) -> bool:
    from jobmon.core.fsm import Machine, is_terminal

    return not is_terminal(Machine.WORKFLOW, summary.status)


def _watch(requester: Requester, workflow_ids: list[int], found: Sequence[WorkflowSummary]) -> None:
    """Show workflows until none is active: in place on a terminal, otherwise one line for each change."""
    if not workflow_ids:
        _show(found)
        return
    display = watching_display()
    try:
        _show_until_over(requester, workflow_ids, display)
    except KeyboardInterrupt:
        display.end(redraws=False)
        click.echo("Stopped watching; the workflows continue.", err=True)
    finally:
        display.end()


def _show_until_over(requester: Requester, workflow_ids: list[int], display: _Live | _Lines) -> None:
    view = View(requester)
    while True:
        began = time.monotonic()
        now, _ = summaries(requester, workflow_ids, {}, WATCHED_MAX)
        display.show([view.snapshot(summary) for summary in now])
        if not any(_is_active(summary) for summary in now):
            break
        time.sleep(pause_seconds(time.monotonic() - began))


def watching_display() -> _Live | _Lines:
    """Return what shows workflows being watched: in place on a terminal, otherwise a line for each change."""
    return _Live() if is_terminal(sys.stdout) else _Lines()


def pause_seconds(request_seconds: float) -> float:
    """Return how long to wait until workflows are looked at again, given how long the last requests took."""
    return max(WATCH_SECONDS, request_seconds / WATCH_SHARE_MAX)


class View:
    """Turns summaries into snapshots; remembers the counts of the first one."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester
        self._started = time.monotonic()
        self._done_before: dict[int, int] = {}
        self._failed: dict[int, int] = {}
        self._errors: dict[int, tuple[str, ...]] = {}
        self._outlooks: dict[int, Outlook] = {}
        self._began: dict[int, datetime] = {}

    def snapshot(self, summary: WorkflowSummary) -> Snapshot:
        """Return the snapshot of a workflow."""
        from datetime import UTC, datetime

        from jobmon.client.progress import Snapshot, grouped, summed
        from jobmon.core.constants import TaskStatus

        counts = grouped({TaskStatus(letter): count for letter, count in summary.counts.items()})
        number = summary.workflow_id
        outlook = self._outlook_of(number)
        began = self._began.setdefault(number, summary.status_at)
        return Snapshot(
            title=f"{number} {summary.name or summary.tool_name} {name_of(summary)}",
            counts=counts if len(outlook.templates) <= 1 else summed(outlook.templates),
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
        from jobmon.client.api_calls import permanent_failures
        from jobmon.client.progress import ERRORS_SHOWN_MAX, error_line

        if failed != self._failed.get(number, 0):
            errors = permanent_failures(self._requester, number, ERRORS_SHOWN_MAX)
            self._failed[number] = failed
            self._errors[number] = tuple(map(error_line, errors))
        return self._errors.get(number, ())


class _Live:
    """Draws in place on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=unguarded(sys.stdout)), auto_refresh=False)
        self._live.start()

    def show(self, snapshots: Sequence[Snapshot]) -> None:
        """Draw the snapshots."""
        from rich.console import Group

        from jobmon.client.progress import drawn

        parts: list[RenderableType] = [drawn(snapshot) for snapshot in snapshots]
        self._live.update(Group(*parts), refresh=True)

    def end(self, *, redraws: bool = True) -> None:
        """Stop, and keep the last picture on the terminal.

        Args:
            redraws: whether to draw it once more, in full if it is higher than the terminal. Not after Ctrl-C: the
                terminal has written "^C" behind the picture, perhaps on a new line, so that lines would be drawn twice.
        """
        if not redraws:
            self._live.refresh = lambda: None  # type: ignore[method-assign]  # `stop` draws by this method
        self._live.stop()


class _Lines:
    """Prints a line for each workflow whose counts changed."""

    def __init__(self) -> None:
        self._shown: dict[str, object] = {}

    def show(self, snapshots: Sequence[Snapshot]) -> None:
        """Print the snapshots that changed."""
        from jobmon.client.progress import line_of

        for snapshot in snapshots:
            if self._shown.get(snapshot.title) != snapshot.counts:
                self._shown[snapshot.title] = snapshot.counts
                click.echo(line_of(snapshot))
        sys.stdout.flush()

    def end(self, *, redraws: bool = True) -> None:
        """Do nothing: all lines are printed already."""


@click.command(epilog="Example: jobmon workflow tasks 5 -s FATAL")
@WORKFLOW
@click.option(
    "-s",
    "--status",
    "groups",
    type=TaskStates(),
    multiple=True,
    help=f"Only tasks with this status: {', '.join(TASK_GROUPS)}, or a name or letter. Repeatable.",
)
@click.option("--template", default="", help="Only tasks of this template; * stands for anything.")
@click.option("--name", default="", help="Only tasks of this name; * stands for anything.")
@LIMIT
@ROWS
def tasks(
    *, workflow_id: int, groups: tuple[list[str], ...], template: str, name: str, limit: int | None, output: str
) -> None:
    """List the tasks of a workflow, with their arguments."""
    from jobmon.core.constants import TaskStatus
    from jobmon.core.requester import Requester

    wanted = sorted({letter for letters in groups for letter in letters})
    query = {"status": wanted or None, "array": template, "name": name}
    most = rows_max(limit, output)
    pages = _task_pages(Requester.from_defaults(), workflow_id, query, most)
    if output != TABLE:
        show_rows(named((task for page, _ in pages for task in page), {"status": TaskStatus}), output)
        return
    found, total = [], None
    for page, counted in pages:
        found += page
        total = total if counted is None else counted
    with paged():
        _show_tasks(found)
    note_limit(len(found), total, "task")


def _task_pages(
    requester: Requester, workflow_id: int, query: Mapping[str, Any], most: int | None
) -> Iterator[tuple[list[TaskSummary], int | None]]:
    """Yield pages of tasks. With a limit, the first page has the total number of matches; the others have None."""
    from jobmon.core.wire.monitoring import TaskSummariesResponse

    route, after, shown = f"/workflows/{workflow_id}/task_summaries", 0, 0
    while True:
        limit = PAGE_ROWS if most is None else min(PAGE_ROWS, most - shown)
        is_first = {"total": "true"} if after == 0 and most is not None else {}
        asked = {**query, **is_first, "after": after, "limit": limit, "args": "true"}
        answer = requester.call(route, asked, TaskSummariesResponse, "get")
        yield answer.tasks, answer.total
        shown += len(answer.tasks)
        if len(answer.tasks) < limit or (most is not None and shown >= most):
            return
        after = answer.tasks[-1].task_id


def _show_tasks(found: Sequence[TaskSummary]) -> None:
    """Show a column for each argument; omit names that only repeat the template and the arguments."""
    from jobmon.cli import rendering
    from jobmon.core.constants import TaskStatus

    arguments = argument_columns([task.node_args for task in found], ARGUMENT_COLUMNS_MAX)
    has_names = arguments is None or any(not task.name.startswith(task.array_name) for task in found)
    priority = ["PRIORITY"] if any(task.priority for task in found) else []
    columns = ["ID", *(["NAME"] if has_names else []), "TEMPLATE", *(arguments or ()), "STATUS", *priority]
    columns += ["ATTEMPTS", "SINCE"]
    rows = []
    for task in found:
        name = [shortened(task.name, NAME_CHARACTERS_MAX)] if has_names else []
        values = [shortened(task.node_args.get(each, "-"), NAME_CHARACTERS_MAX) for each in arguments or ()]
        attempts = f"{task.num_attempts}/{task.max_attempts}"
        status = TaskStatus(task.status).name, *([task.priority] if priority else [])
        rows.append([task.task_id, *name, task.array_name, *values, *status, attempts, task.status_at])
    rendering.show_table(columns, rows, right=("ID", "PRIORITY"))
