"""`jobmon db purge`, `jobmon db compact`: delete workflows with their output; give the freed space back."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.formatting import WorkflowStates
from jobmon.cli.main import EXIT_FAILED
from jobmon.cli.references import WORKFLOWS
from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import ANY_OWNER, YES, make_sure
from jobmon.core.descriptors import is_terminal
from jobmon.core.texts import number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import WorkflowSummary
    from jobmon.core.wire.server import CompactResponse

PURGED_MAX: Final = 10_000
SHOWN_MAX: Final = 50
#: Longest wait, seconds. Purging a workflow of a million tasks takes about a minute.
PURGE_SECONDS_MAX: Final = 3_600.0
#: Longest wait for the server to rewrite its database, seconds; it gives up earlier.
COMPACT_SECONDS_MAX: Final = 600.0
#: Interval at which a terminal shows how many tasks are left, seconds.
PROGRESS_SECONDS: Final = 1.0
_AGE: Final = re.compile(r"(\d+)\s*(d|h|m)?", re.IGNORECASE)
_AGE_SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60}


class Age(click.ParamType[float]):
    """An age: 30d, 12h, 45m; a number without unit is in days. Its value is in seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the age."""
        found = _AGE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r}: write 30d, 12h or 45m.", param, ctx)
        return float(int(found[1]) * _AGE_SECONDS[(found[2] or "d").lower()])


@click.command(epilog="Example: jobmon db purge --status DONE --older-than 90d")
@WORKFLOWS
@click.option(
    "-s",
    "--status",
    "statuses",
    type=WorkflowStates(),
    multiple=True,
    help="Your workflows with this status: DONE. Repeatable.",
)
@click.option("--older-than", type=Age(), help="Your workflows whose status has not changed for so long: 30d, 12h.")
@YES
@ANY_OWNER
@OUTPUT
def purge(
    *,
    workflow_ids: tuple[int, ...],
    statuses: tuple[str, ...],
    older_than: float | None,
    yes: bool,
    any_owner: bool,
    output: str,
) -> None:
    """Delete workflows: tasks, attempts, recorded output, history, and the log files below the data folder.

    Running workflows are kept. Tools, templates and clusters are kept, too; files that commands wrote elsewhere are not
    touched. An SQLite file is compacted afterwards if nothing is running and it is worthwhile; see jobmon db compact.
    """
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester

    if not (workflow_ids or statuses or older_than is not None):
        raise click.UsageError("Choose workflows: by ID, --status or --older-than.")
    requester = Requester.from_defaults()
    found = _chosen(requester, workflow_ids, statuses, older_than, any_owner=any_owner)
    if found:
        _ask(found, is_sure=yes)
    results = [_purge(requester, summary, any_owner=any_owner) for summary in found]
    note = _compact_after(requester) if any(result["tasks"] for result in results) else ""
    if output == "json":
        rendering.show_json(results)
    elif not found:
        click.echo("No workflow matches." if any_owner else "No workflow of yours matches.")
    else:
        _show(results)
    if note:
        click.echo(note, err=True)
    if any(result["refused"] for result in results):
        raise click.exceptions.Exit(EXIT_FAILED)


@click.command(epilog="Example: jobmon db compact")
@OUTPUT
def compact(output: str) -> None:
    """Return the space of deleted rows to the file system: rewrite an SQLite database. Nothing may be running.

    It takes about 10 s per GiB and needs twice the size of the new file meanwhile. PostgreSQL does this by itself.
    """
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester

    response = _compacted(Requester.from_defaults(), only_if_useful=False)
    if output == "json":
        before, after = response.bytes_before, response.bytes_after
        rendering.show_json({"database": response.database, "bytes_before": before, "bytes_after": after})
    else:
        click.echo(_compact_text(response) or "The database is compact already.")


def _compacted(requester: Requester, *, only_if_useful: bool) -> CompactResponse:
    from jobmon.core.wire.server import CompactRequest, CompactResponse

    with _progress("Compacting the database"):
        request = CompactRequest(only_if_useful=only_if_useful)
        return requester.call("/database/compact", request, CompactResponse, request_timeout=COMPACT_SECONDS_MAX)


def _compact_after(requester: Requester) -> str:
    """Compact the database after a purge if that is worthwhile; return what to say about it."""
    from jobmon.core.exceptions import InvalidRequest

    try:
        return _compact_text(_compacted(requester, only_if_useful=True))
    except InvalidRequest as error:  # something is running, there is no space, or only the owner of the server may
        return f"The database file keeps its size: {error}"


def _compact_text(response: CompactResponse) -> str:
    from jobmon.cli.rendering import size

    before, after = response.bytes_before, response.bytes_after
    if before is None or after is None:
        return "PostgreSQL reuses the freed space (autovacuum); to give it back to the file system: VACUUM FULL"
    return f"Compacted the database from {size(before)} to {size(after)}." if after < before else ""


@contextlib.contextmanager
def _progress(text: str, requester: Requester | None = None, summary: WorkflowSummary | None = None) -> Iterator[None]:
    """Show on a terminal what is being done and for how long, and how many tasks of a workflow are left to delete."""
    if not is_terminal(sys.stderr):
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task(text, total=None if summary is None else summary.task_count)
        is_over = threading.Event()

        def watch(requester: Requester, summary: WorkflowSummary) -> None:
            from jobmon.core.exceptions import JobmonError
            from jobmon.core.wire.monitoring import WorkflowsResponse

            while not is_over.wait(PROGRESS_SECONDS):
                with contextlib.suppress(JobmonError):
                    query = {"workflow_id": [summary.workflow_id]}
                    found = requester.call("/workflows", query, WorkflowsResponse, "get", tenacious=False).workflows
                    left = sum(found[0].counts.values()) if found else 0
                    shown.update(bar, completed=summary.task_count - left)

        if requester is not None and summary is not None:
            threading.Thread(target=watch, args=(requester, summary), name="progress", daemon=True).start()
        try:
            yield
        finally:
            is_over.set()


def _chosen(
    requester: Requester,
    workflow_ids: Sequence[int],
    statuses: Sequence[str],
    older_than: float | None,
    *,
    any_owner: bool,
) -> list[WorkflowSummary]:
    from datetime import UTC, datetime, timedelta

    from jobmon.core.exceptions import InvalidRequest
    from jobmon.core.paths import user_name
    from jobmon.core.wire.monitoring import WorkflowsResponse

    since = None if older_than is None else (datetime.now(UTC) - timedelta(seconds=older_than)).isoformat()
    query = {
        "workflow_id": list(workflow_ids),
        "status": list(statuses),
        "unchanged_since": since,
        "user": [] if any_owner or workflow_ids else [user_name()],
        "limit": PURGED_MAX,
    }
    found = requester.call("/workflows", query, WorkflowsResponse, "get").workflows
    missing = sorted(set(workflow_ids) - {summary.workflow_id for summary in found})
    if missing and not (statuses or since):
        raise InvalidRequest(f"There is no workflow {', '.join(map(str, missing))}.")
    return found


def _ask(found: Sequence[WorkflowSummary], *, is_sure: bool) -> None:
    """Show what will be deleted, and ask for confirmation."""
    from jobmon.cli.listing import name_of

    for one in found[:SHOWN_MAX]:
        what = f"{number_of(one.task_count, 'task')}, {number_of(one.attempt_count, 'attempt')}"
        name = one.name or one.tool_name
        click.echo(f"  {one.workflow_id} {name} of {one.user}: {name_of(one)}, {what}", err=True)
    if len(found) > SHOWN_MAX:
        click.echo(f"  and {len(found) - SHOWN_MAX} more", err=True)
    make_sure(f"{number_of(len(found), 'workflow')} will be deleted.", is_sure=is_sure)


def _purge(requester: Requester, summary: WorkflowSummary, *, any_owner: bool) -> dict[str, Any]:
    from jobmon.core.exceptions import InvalidRequest
    from jobmon.core.paths import user_name
    from jobmon.core.wire.steering import PurgeRequest, PurgeResponse

    number = summary.workflow_id
    result: dict[str, Any] = {"workflow_id": number, "tasks": 0, "log_folder": None, "refused": None}
    logs = _log_folder(requester, number)
    request = PurgeRequest(user=user_name(), any_owner=any_owner)
    route = f"/workflows/{number}/purge"
    try:
        with _progress(f"Deleting workflow {number}", requester, summary):
            result["tasks"] = requester.call(route, request, PurgeResponse, request_timeout=PURGE_SECONDS_MAX).tasks
    except InvalidRequest as error:
        result["refused"] = str(error)
        return result
    if logs is not None:
        shutil.rmtree(logs, ignore_errors=True)
        result["log_folder"] = str(logs)
    return result


def _log_folder(requester: Requester, workflow_id: int) -> Path | None:
    """Return its log folder below our data folder, if its output is there; other servers use the same IDs."""
    from jobmon.core.configuration import data_directory
    from jobmon.core.wire.monitoring import OutputsResponse

    folder = data_directory() / "logs" / str(workflow_id)
    if not folder.is_dir() or folder.is_symlink():
        return None
    found = requester.call(f"/workflows/{workflow_id}/outputs", {"limit": SHOWN_MAX}, OutputsResponse, "get").outputs
    is_there = any(one.stdout is not None and one.stdout.startswith(f"{folder}/") for one in found)
    return folder if is_there else None


def _show(results: Sequence[dict[str, Any]]) -> None:
    for result in results:
        if result["refused"]:
            click.echo(f"Workflow {result['workflow_id']} was not deleted: {result['refused']}", err=True)
    gone = [result for result in results if not result["refused"]]
    if gone:
        tasks = number_of(sum(result["tasks"] for result in gone), "task")
        click.echo(f"Deleted {number_of(len(gone), 'workflow')} with {tasks}.")
