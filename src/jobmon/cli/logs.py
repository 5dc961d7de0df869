"""`jobmon task logs` and `jobmon workflow logs`: the output of commands, also while they are running."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TextIO

import click

from jobmon.cli.lookups import task_detail
from jobmon.cli.output import LIMIT, ROWS, TABLE, named, note_limit, paged, rows_max, show_rows
from jobmon.cli.references import TASK, WORKFLOW, option
from jobmon.core.descriptors import is_terminal
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.terminal import unguarded
from jobmon.core.texts import number_of, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import AttemptDetail, TaskOutput

LOOK_SECONDS: Final = 0.2
ASK_SECONDS: Final = 1.0
CHUNK_BYTES: Final = 64 * 1024
#: Maximum number of outputs in one response.
OUTPUTS_MAX: Final = 10_000


@click.command("logs", epilog="Example: jobmon task logs 17 --follow")
@TASK
@click.option("-f", "--follow", is_flag=True, help="Keep printing while the attempt runs; wait for it to start.")
@click.option("--stderr", "wants_stderr", is_flag=True, help="Print standard error, if it has its own file.")
@option(
    "--attempt",
    quiet=("-n",),
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of the attempt. Default: the newest.",
)
@click.option("--all", "wants_all", is_flag=True, help="Print the whole file. Default: its last 10 KiB.")
@click.option("--raw", is_flag=True, help="Print control characters as they are, also on a terminal.")
def task_logs(
    *, task_id: int, follow: bool, wants_stderr: bool, attempt: int | None, wants_all: bool, raw: bool
) -> None:
    """Print the output of a task: from its file if it can be read here, otherwise the end that the server recorded.

    On a terminal, control characters are shown as symbols, so that the output cannot control the terminal.
    """
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    chosen = _attempt(requester, task_id, attempt, wait=follow)
    path = chosen.stderr if wants_stderr else chosen.stdout
    out = unguarded(sys.stdout) if raw or not is_terminal(sys.stdout) else sys.stdout
    file = _opened(path)
    if file is None:
        _print_tail(requester, chosen, path, out)
        return
    with file:
        _note(file, str(path), wants_all=wants_all)
        _copy(file, out)
        while follow and not _is_ended(requester, chosen):
            _copy_for(file, out, ASK_SECONDS)
        if follow:
            _copy(file, out)


def _attempt(requester: Requester, task_id: int, number: int | None, *, wait: bool) -> AttemptDetail:
    """Return an attempt; with `wait`, wait until it has started."""
    while True:
        attempts = task_detail(requester, task_id).attempts
        chosen = next((one for one in reversed(attempts) if number in (None, one.number)), None)
        if chosen is not None and (not wait or chosen.stdout or chosen.ended_at):
            return chosen
        if not wait:
            if not attempts:
                raise click.ClickException(f"Task {task_id} has no attempt yet. See why: jobmon task explain {task_id}")
            made = number_of(len(attempts), "attempt")
            raise InvalidRequest(f"Task {task_id} has no attempt {number}; it has {made} so far.")
        time.sleep(ASK_SECONDS)


def _opened(path: str | None) -> IO[bytes] | None:
    """Open a file; None: it cannot be read here, or is not a regular file (opening a pipe could block)."""
    try:
        return Path(path).open("rb") if path and Path(path).is_file() else None
    except OSError:
        return None


def _print_tail(requester: Requester, attempt: AttemptDetail, path: str | None, out: TextIO) -> None:
    from jobmon.cli.main import EXIT_FAILED
    from jobmon.core.wire.monitoring import LogTail

    tail = requester.call(f"/task_instances/{attempt.task_instance_id}/log_tail", {}, LogTail, "get")
    where = f"{path} cannot be read here" if path else "The attempt has no output file"
    if tail.text:
        click.echo(f"{where}; the server kept the end of the output:", err=True)
        click.echo(tail.text, out, nl=not tail.text.endswith("\n"))
        return
    click.echo(f"{where}, and the server kept none of the output.", err=True)
    if attempt.error:
        click.echo(attempt.error, err=True)
        raise click.exceptions.Exit(EXIT_FAILED)


def _note(file: IO[bytes], path: str, *, wants_all: bool) -> None:
    """Print on standard error which file this is, and seek to the start of the output to show."""
    from jobmon.cli import rendering
    from jobmon.core.constants import LOG_TAIL_BYTES_MAX

    size = file.seek(0, 2)
    start = 0 if wants_all else max(0, size - LOG_TAIL_BYTES_MAX)
    file.seek(start)
    if not size:
        click.echo(f"(no output in {path})", err=True)
        return
    part = "; --all prints all of it" if start else ""
    click.echo(f"{'End of ' if start else ''}{path} ({rendering.size(size)}{part}):", err=True)


def _copy(file: IO[bytes], out: TextIO) -> int:
    """Print what the file contains now; return the number of bytes."""
    count = 0
    while chunk := file.read(CHUNK_BYTES):
        count += len(chunk)
        click.echo(chunk.decode("utf-8", errors="replace"), out, nl=False)
    return count


def _copy_for(file: IO[bytes], out: TextIO, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Print what is written to the file during this time."""
    for _ in range(max(1, round(seconds / LOOK_SECONDS))):
        _copy(file, out)
        sleep(LOOK_SECONDS)


def _is_ended(requester: Requester, attempt: AttemptDetail) -> bool:
    attempts = task_detail(requester, attempt.task_id).attempts
    return next(one for one in attempts if one.number == attempt.number).ended_at is not None


@click.command("logs", epilog="Example: jobmon workflow logs 5 --name 'align_*'")
@WORKFLOW
@option(
    "--template",
    "array",
    quiet=("-a", "--array"),
    default="",
    help="Only tasks of this template; * stands for anything.",
)
@option("--name", "job", quiet=("-j", "--job"), default="", help="Only tasks of this name; * stands for anything.")
@LIMIT
@ROWS
def workflow_logs(workflow_id: int, array: str, job: str, limit: int | None, output: str) -> None:
    """List the output files of the newest attempt of each task."""
    from jobmon.core.constants import TaskInstanceStatus
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import OutputsResponse

    route = f"/workflows/{workflow_id}/outputs"
    most = rows_max(limit, output)
    if most is None or most >= OUTPUTS_MAX:
        most = OUTPUTS_MAX
    requester = Requester.from_defaults()
    query = {"array": array, "job": job, "limit": min(most + 1, OUTPUTS_MAX)}
    every = requester.call(route, query, OutputsResponse, "get").outputs
    found = every[:most]
    if len(every) > most:
        every = requester.call(route, {**query, "limit": OUTPUTS_MAX}, OutputsResponse, "get").outputs
    if output != TABLE:
        show_rows(named(found, {"status": TaskInstanceStatus}), output)
    elif not found:
        click.echo("None of these tasks has an attempt yet.")
    else:
        _show_outputs(found)
    note_limit(len(found), len(every), "task", at_least=len(every) == OUTPUTS_MAX, rows_max=OUTPUTS_MAX)


def _show_outputs(found: Sequence[TaskOutput]) -> None:
    from jobmon.cli import rendering
    from jobmon.core.constants import TaskInstanceStatus

    rows = [
        (
            one.task_id,
            shortened(one.name, 40),
            TaskInstanceStatus(one.status).name,
            "\n".join(_paths(one.stdout, one.stderr)) or "-",
        )
        for one in found
    ]
    with paged():
        rendering.show_table(("ID", "NAME", "STATUS", "OUTPUT"), rows, right=("ID",))


def _paths(*paths: str | None) -> list[str]:
    return list(dict.fromkeys(path for path in paths if path))
