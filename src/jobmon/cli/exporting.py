"""`jobmon db export`: a workflow as JSON lines or in WfFormat, page by page."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from jobmon.agent import trust
from jobmon.cli.formatting import NotWritable
from jobmon.cli.references import WORKFLOW, option
from jobmon.core.terminal import DIRECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import ExportPage, WorkflowSummary

PAGE_TASKS: Final = 1_000
FORMAT: Final = "jobmon-1"
#: Control characters that JSON does not escape. Escaped, they cannot control a terminal and mean the same.
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in (127, *range(128, 160), *DIRECTIONS)}


@click.command(epilog="Example: jobmon db export 5 --file five.jsonl")
@WORKFLOW
@click.option(
    "--format",
    "kind",
    type=click.Choice(["jsonl", "wfformat"]),
    default="jsonl",
    show_default=True,
    help="One JSON object per line (the workflow, sets of task IDs, tasks), or a WfFormat 1.5 document.",
)
@option(
    "--file",
    "path",
    quiet=("-f",),
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to FILE instead of stdout.",
)
def export(workflow_id: int, kind: str, path: Path | None) -> None:
    """Export everything recorded about a workflow: definition, attempts, usage.

    In JSON lines a task depends on the tasks of its `upstream_sets`; each set precedes it on a line of its own. A
    WfFormat file can be replayed by `jobmon workflow run`, and read by other tools.
    """
    from jobmon.client.api_calls import workflow_summary
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    summary = workflow_summary(requester, workflow_id)
    found = pages(requester, workflow_id)
    lines: Iterable[dict[str, Any]] = _lines(summary, found) if kind == "jsonl" else _wfformat(summary, found)
    if path is None:
        _write(lines, sys.stdout)
        return
    write_file(path, lambda file: _write(lines, file))


def target_of(path: Path) -> Path:
    """Return the file that a path leads to, past symbolic links that no other user can have put there.

    Raises:
        UsageError: the path names no file.
        UntrustedFile: another user can have put a link on the path.
        NotWritable: the system accepts no such path; its name is too long, for instance.
    """
    from jobmon.core import paths

    try:
        if path.name and not path.is_dir():
            with paths.trusting():
                return Path(trust.followed(str(path)))
    except OSError as error:
        raise NotWritable(path, error) from None
    raise click.UsageError(f"{str(path)!r} is not the name of a file.")


def write_file(path: Path, write: Callable[[TextIO], object]) -> None:
    """Write a file completely or not at all, and say so. A device or pipe is written directly; "-" is standard output.

    Raises:
        UsageError: the path names no file.
        UntrustedFile: another user can have put a link or a pipe there.
        NotWritable: it cannot be written.
    """
    from jobmon.core import paths

    if str(path) == "-":
        write(sys.stdout)
        return
    target = target_of(path)
    temporary = target.with_name(f".{target.name}.{os.urandom(8).hex()}.part")
    try:
        if target.exists() and not target.is_file():
            with paths.trusting():
                trust.require_own_output(target.stat(), str(target))
            with target.open("w", encoding="utf-8", newline="") as file:
                write(file)
            return
        with temporary.open("x", encoding="utf-8", newline="") as file:
            write(file)
        temporary.replace(target)
    except OSError as error:
        raise NotWritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    click.echo(f"Wrote {path}", err=True)


def _write(lines: Iterable[Any], file: TextIO) -> None:
    for line in lines:
        file.write(json.dumps(line, ensure_ascii=False).translate(_ESCAPED) + "\n")


def pages(requester: Requester, workflow_id: int) -> Iterator[ExportPage]:
    """Yield everything recorded about the tasks of a workflow, a page at a time."""
    from jobmon.core.wire.monitoring import ExportPage

    after = 0
    while True:
        query = {"after": after, "limit": PAGE_TASKS}
        page = requester.call(f"/workflows/{workflow_id}/export", query, ExportPage, "get")
        if not page.tasks:
            return
        yield page
        after = page.tasks[-1].task_id


def _lines(summary: WorkflowSummary, pages: Iterable[ExportPage]) -> Iterator[dict[str, Any]]:
    """Yield the workflow, then each set before the first task that refers to it."""
    import msgspec

    yield {"kind": "workflow", "format": FORMAT, **msgspec.to_builtins(summary)}
    written: set[int] = set()
    for page in pages:
        for number, members in page.sets.items():
            if number not in written:
                written.add(number)
                yield {"kind": "set", "set_id": number, "task_ids": members}
        for task in page.tasks:
            yield {"kind": "task", **msgspec.to_builtins(task)}


def _wfformat(summary: WorkflowSummary, pages: Iterable[ExportPage]) -> Iterator[dict[str, Any]]:
    from jobmon.client.wfformat import written_document

    yield written_document(summary, pages)
