"""`jobmon task logs` and `jobmon workflow logs`: what commands wrote, while they run too."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import WORKFLOW
from jobmon.cli.words import Id, number_of
from jobmon.core.exceptions import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import Attempt, TaskDetail

LOOK_SECONDS: Final = 0.2
ASK_SECONDS: Final = 1.0
CHUNK_BYTES: Final = 64 * 1024
LIMIT_DEFAULT: Final = 25


@click.command("logs", epilog="Example: jobmon task logs 17 --follow")
@click.argument("task_id", type=Id())
@click.option("-f", "--follow", is_flag=True, help="Go on while the attempt runs; waits for one that has not begun.")
@click.option(
    "--stderr", "wants_stderr", is_flag=True, help="What it wrote to standard error, where that has its own file."
)
@click.option("-n", "--attempt", type=click.IntRange(min=1), help="Which attempt; the newest if not given.")
@click.option("--all", "wants_all", is_flag=True, help="All of the file; else its last 10 KiB.")
def task_logs(task_id: int, follow: bool, wants_stderr: bool, attempt: int | None, wants_all: bool) -> None:
    """Print a task's output: of its file if that can be read here, else the end of it that was kept."""
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    chosen = _attempt(requester, task_id, attempt, wait=follow)
    path = chosen.stderr if wants_stderr else chosen.stdout
    file = _opened(path)
    if file is None:
        _print_tail(requester, chosen, path)
        return
    with file:
        _note(file, str(path), wants_all=wants_all)
        _copy(file)
        while follow and not _is_ended(requester, chosen):
            _copy_for(file, ASK_SECONDS)
        if follow:
            _copy(file)


def _attempt(requester: Requester, task_id: int, number: int | None, *, wait: bool) -> Attempt:
    """Return an attempt; with `wait`, one that has begun."""
    while True:
        attempts = _detail(requester, task_id).attempts
        chosen = next((one for one in reversed(attempts) if number in (None, one.number)), None)
        if chosen is not None and (not wait or chosen.stdout or chosen.ended_at):
            return chosen
        if not wait:
            if not attempts:
                raise click.ClickException(f"Task {task_id} has no attempt yet. Why: jobmon task explain {task_id}")
            made = number_of(len(attempts), "attempt")
            raise InvalidRequest(f"Task {task_id} has no attempt {number}: {made} so far.")
        time.sleep(ASK_SECONDS)


def _detail(requester: Requester, task_id: int) -> TaskDetail:
    from jobmon.core.wire.monitoring import TaskDetail

    return requester.call(f"/tasks/{task_id}", {}, TaskDetail, "get")


def _opened(path: str | None) -> IO[bytes] | None:
    try:
        return Path(path).open("rb") if path else None
    except OSError:
        return None


def _print_tail(requester: Requester, attempt: Attempt, path: str | None) -> None:
    from jobmon.cli.main import EXIT_FAILED
    from jobmon.core.wire.monitoring import LogTail

    tail = requester.call(f"/task_instances/{attempt.task_instance_id}/log_tail", {}, LogTail, "get")
    where = f"{path} cannot be read here; this" if path else "No file is known; this"
    if tail.text:
        click.echo(f"{where} is the end of its output that was kept.", err=True)
        click.echo(tail.text, nl=not tail.text.endswith("\n"))
        return
    click.echo(f"{where.removesuffix('; this')}, and nothing of its output was kept.", err=True)
    if attempt.error:
        click.echo(attempt.error, err=True)
        raise click.exceptions.Exit(EXIT_FAILED)


def _note(file: IO[bytes], path: str, *, wants_all: bool) -> None:
    """Say on standard error which file this is; go to where to begin."""
    from jobmon.cli import rendering
    from jobmon.core.constants import LOG_TAIL_BYTES_MAX

    size = file.seek(0, 2)
    start = 0 if wants_all else max(0, size - LOG_TAIL_BYTES_MAX)
    file.seek(start)
    what = f"The end of {path} ({rendering.size(size)}; --all prints all of it)" if start else f"All of it: {path}"
    click.echo(what, err=True)


def _copy(file: IO[bytes]) -> int:
    """Print what is there now; return how many bytes that was."""
    count = 0
    while chunk := file.read(CHUNK_BYTES):
        count += len(chunk)
        click.echo(chunk.decode("utf-8", errors="replace"), nl=False)
    return count


def _copy_for(file: IO[bytes], seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Print what comes in so long a time."""
    for _ in range(max(1, round(seconds / LOOK_SECONDS))):
        _copy(file)
        sleep(LOOK_SECONDS)


def _is_ended(requester: Requester, attempt: Attempt) -> bool:
    attempts = _detail(requester, attempt.task_id).attempts
    return next(one for one in attempts if one.number == attempt.number).ended_at is not None


@click.command("logs", epilog="Example: jobmon workflow logs -w 5 -j 'align_*'")
@WORKFLOW
@click.option("-a", "--array", default="", help="Only of this template; * stands for anything.")
@click.option("-j", "--job", default="", help="Only of tasks of this name; * stands for anything.")
@click.option("-l", "--limit", type=click.IntRange(1, 10_000), default=LIMIT_DEFAULT, show_default=True)
@OUTPUT
def workflow_logs(workflow_id: int, array: str, job: str, limit: int, output: str) -> None:
    """Show where the output of the newest attempts is."""
    from jobmon.cli import rendering
    from jobmon.core.constants import TaskInstanceStatus
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import OutputsResponse

    route = f"/workflows/{workflow_id}/outputs"
    query = {"array": array, "job": job, "limit": limit}
    found = Requester.from_defaults().call(route, query, OutputsResponse, "get").outputs
    if output == "json":
        rendering.show_json(found)
        return
    if not found:
        click.echo("No attempt of such a task was made.")
        return
    rows = [
        (one.task_id, one.name, TaskInstanceStatus(one.status).name, "\n".join(_paths(one.stdout, one.stderr)) or "-")
        for one in found
    ]
    rendering.show_table(("ID", "NAME", "STATUS", "OUTPUT"), rows, right=("ID",))


def _paths(*paths: str | None) -> list[str]:
    return list(dict.fromkeys(path for path in paths if path))
