"""`jobmon workflow outputs`: the files that the tasks of a workflow declare, and whether they exist here."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.agent.patterns import shown
from jobmon.cli.output import LIMIT, ROWS, TABLE, note_limit, paged, rows_max, show_rows
from jobmon.cli.references import WORKFLOW
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.texts import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobmon.core.wire.files import DeclaredFile

#: Maximum number of files that are only counted, not shown.
COUNTED_MAX: Final = 10_000


@click.command("outputs", epilog="Example: jobmon workflow outputs 5 --missing")
@WORKFLOW
@click.option("-t", "--template", default="", help="Only files of tasks of this template.")
@click.option(
    "--missing", "only_missing", is_flag=True, help="Only files that do not exist; of outputs, only of done tasks."
)
@click.option("--inputs", is_flag=True, help="List inputs instead of outputs.")
@LIMIT
@ROWS
def outputs(
    *, workflow_id: int, template: str, only_missing: bool, inputs: bool, limit: int | None, output: str
) -> None:
    """List the files that tasks declare as outputs, as their newest attempts found them.

    Whether a file exists is looked up on this machine.
    """
    found = declared_files(workflow_id, template, inputs=inputs)
    files = (row for row in found if not only_missing or _is_missing(row, inputs=inputs))
    most = rows_max(limit, output)
    if output != TABLE:
        show_rows(islice(files, most), output)
        return
    rows = list(islice(files, most))
    total = len(rows) + sum(1 for _ in islice(files, COUNTED_MAX))
    kind = "input" if inputs else "output"
    if rows:
        _show(rows)
    elif template and template not in (names := _templates(workflow_id)):
        raise InvalidRequest(f"There is no template of workflow {workflow_id} called {template!r}; it has {names}.")
    elif only_missing:
        click.echo(f"No {kind} is missing.")
    else:
        click.echo(f"No task declares an {kind}. Declare {kind}s with Tool.get_task_template(..., {kind}s=[...]).")
    note_limit(len(rows), total, "file", at_least=total - len(rows) == COUNTED_MAX)


def _templates(workflow_id: int) -> list[str]:
    from jobmon.core.requester import Requester
    from jobmon.core.wire.swarm import ArraysResponse

    found = Requester.from_defaults().call(f"/workflows/{workflow_id}/arrays", None, ArraysResponse, "get")
    return sorted({array.name for array in found.arrays})


def _is_missing(row: dict[str, Any], *, inputs: bool) -> bool:
    return not row["exists"] and (inputs or row["status"] == TaskStatus.DONE)


def declared_files(workflow_id: int, template: str = "", *, inputs: bool, task_id: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the declared files of a workflow, or of one of its tasks, as they arrive."""
    from jobmon.core.requester import Requester
    from jobmon.core.wire.files import DeclaredFiles

    requester, after = Requester.from_defaults(), 0
    while True:
        query = {"after": after, "inputs": inputs, "template": template, "task_id": task_id}
        page = requester.call(f"/workflows/{workflow_id}/files", query, DeclaredFiles, "get")
        yield from (_row(file, page.folder) for file in page.files)
        if page.is_last:
            return
        after = page.last_task


def _row(file: DeclaredFile, folder: str) -> dict[str, Any]:
    from jobmon.agent.files import find

    found = file.found
    return {
        "task_id": file.task_id,
        "task_name": file.task_name,
        "template": file.template,
        "status": file.status,
        "status_name": TaskStatus(file.status).name,
        "name": file.name,
        "path": file.path,
        "folder": folder,
        "exists": not find([file.path]).missing,
        "task_instance_id": None if found is None else found.task_instance_id,
        "matches": None if found is None else found.matches,
        "size_bytes": None if found is None else found.size_bytes,
        "modified": None if found is None else datetime.fromtimestamp(found.modified / 1e6, UTC).isoformat(),
    }


def show_of_task(inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
    """Show the declared files of one task; nothing if it declares none."""
    from jobmon.cli import rendering

    table = [
        (kind, shown(one["path"], one["folder"]), *_state(one))
        for kind, rows in (("input", inputs), ("output", outputs))
        for one in rows
    ]
    if table:
        rendering.show_table(("FILE", "PATH", "EXISTS", "SIZE", "MODIFIED"), table, right=("SIZE",))


def _state(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return whether a file exists here, and the size and time that an attempt has seen."""
    from jobmon.cli import rendering

    text = row["modified"]
    modified = rendering.local_time(None if text is None else datetime.fromisoformat(text))
    return "yes" if row["exists"] else "no", rendering.size(row["size_bytes"]), modified


def _show(rows: Sequence[dict[str, Any]]) -> None:
    from jobmon.cli import rendering

    table = [
        (
            one["task_id"],
            shortened(one["task_name"], 40),
            one["status_name"],
            shown(one["path"], one["folder"]),
            *_state(one),
        )
        for one in rows
    ]
    columns = ("ID", "NAME", "STATUS", "PATH", "EXISTS", "SIZE", "MODIFIED")
    with paged():
        click.echo(f"Paths start at {rows[0]['folder']}.")
        rendering.show_table(columns, table, right=("ID", "SIZE"))
