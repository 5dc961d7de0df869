"""`jobmon workflow report`: the web page of a workflow as one file, or its attempts as CSV."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from jobmon.cli.exporting import pages, write_file
from jobmon.cli.output import csv_cell
from jobmon.cli.references import WORKFLOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.core.requester import Requester

HTML, CSV = "html", "csv"
#: Maximum number of tasks that a report lists; the most important ones.
TASKS_MAX: Final = 2_000
#: Maximum number of tasks whose attempts, with the end of their output, are part of a report; the most important ones.
DETAILED_MAX: Final = 100
#: Maximum number of attempts of one task that are part of a report; the newest ones.
ATTEMPTS_MAX: Final = 5
#: Maximum number of pages of the matrix: at least 50,000 tasks each.
MATRIX_PAGES_MAX: Final = 100
PAGE_TASKS: Final = 1_000
NEIGHBOURS_MAX: Final = 20
GROUPS_MAX: Final = 50
HISTORY_MAX: Final = 200
#: Parts of the page that are one answer each, without a query.
_WHOLE: Final = ("template_graph", "critical_path", "versions", "edited_tasks")


@click.command(epilog="Example: jobmon workflow report 5 -o five.html")
@WORKFLOW
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write. Default: workflow-ID.html in the current folder; for CSV: standard output.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice([HTML, CSV]),
    default=HTML,
    show_default=True,
    help="The page of the workflow as one file that needs no server, or one line per attempt.",
)
def report(workflow_id: int, path: Path | None, kind: str) -> None:
    """Write a report of a workflow that can be read without Jobmon: progress, failures, timeline, resources, history.

    The HTML file refers to no other file or address. It contains no values of env.
    """
    from jobmon.client.api_calls import workflow_summary
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    workflow_summary(requester, workflow_id)
    if kind == CSV and path is None:
        _write_attempts(requester, workflow_id, sys.stdout)
        return
    path = path or Path(f"workflow-{workflow_id}.html")
    if kind == CSV:
        write_file(path, lambda file: _write_attempts(requester, workflow_id, file))
    else:
        content = _page(_answers(requester, workflow_id), workflow_id)
        write_file(path, lambda file: file.write(content))


# --- HTML -------------------------------------------------------------------------------------------------------------


def _answers(requester: Requester, workflow_id: int) -> dict[str, Any]:
    """Return the answers that the page shows, by path. Values of `env` are removed, as from every page."""
    from jobmon.core.redaction import redacted

    route = f"/workflows/{workflow_id}"

    def ask(path: str, query: dict[str, Any] | None = None, verb: str = "get") -> Any:
        return requester.call(path, query or {}, dict, verb)

    found = {
        "/workflows": ask("/workflows", {"workflow_id": [workflow_id], "limit": 1}),
        f"{route}/view": ask(f"{route}/view"),
        f"{route}/failures": ask(f"{route}/failures", {"limit": GROUPS_MAX}),
        f"{route}/matrix": _matrix(ask, route),
        f"{route}/timeline": ask(f"{route}/timeline"),
        f"{route}/sizing": ask(f"{route}/sizing", {}, "post"),
        f"{route}/history": ask(f"{route}/history", {"limit": HISTORY_MAX}),
        **{f"{route}/{name}": ask(f"{route}/{name}") for name in _WHOLE},
    }
    tasks = ask(f"{route}/task_summaries", {"order": "importance", "limit": TASKS_MAX, "total": True})
    found[f"{route}/task_summaries"] = tasks
    for task in tasks["tasks"][:DETAILED_MAX]:
        found.update(_task(ask, task["task_id"]))
    return {path: redacted(answer) for path, answer in found.items()}


def _matrix(ask: Callable[..., Any], route: str) -> Any:
    """Return the statuses of all tasks as one page."""
    whole = ask(f"{route}/matrix")
    page = whole
    for _ in range(MATRIX_PAGES_MAX):
        if not page["is_cut"]:
            break
        last = page["runs"][-1]
        page = ask(f"{route}/matrix", {"after": last["first"] + last["count"] - 1})
        whole["runs"] += page["runs"]
        whole["statuses"] += page["statuses"]
    whole["is_cut"] = False
    return whole


def _task(ask: Callable[..., Any], task_id: int) -> dict[str, Any]:
    """Return the answers that the view of a task shows."""
    route = f"/tasks/{task_id}"
    detail = ask(route)
    detail["attempts"] = detail["attempts"][-ATTEMPTS_MAX:]
    found = {
        route: detail,
        f"{route}/explanation": ask(f"{route}/explanation"),
        f"{route}/graph": ask(f"{route}/graph"),
        f"{route}/revisions": ask(f"{route}/revisions"),
        f"{route}/dependencies": ask(f"{route}/dependencies", {"limit": NEIGHBOURS_MAX}),
    }
    for attempt in detail["attempts"]:
        tail = f"/task_instances/{attempt['task_instance_id']}/log_tail"
        found[tail] = ask(tail)
    return found


def _page(answers: dict[str, Any], workflow_id: int) -> str:
    """Return the page with these answers in it. Its policy admits nothing but its own style and script."""
    import base64
    import hashlib
    import json
    from datetime import UTC, datetime
    from importlib import resources
    from importlib.metadata import version

    static = resources.files("jobmon.server") / "static"
    style, script = ((static / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    held = {
        "workflow_id": workflow_id,
        "made_at": datetime.now(UTC).isoformat(),
        "version": version("jobmon"),
        "answers": answers,
    }
    # "<" would end the element early if names contain "</script>"
    data = json.dumps(held, separators=(",", ":")).replace("<", "\\u003c")

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {source(script)}; style-src {source(style)}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark"><title>Workflow {workflow_id} · Jobmon</title>\n'
        f"<style>{style}</style>\n"
        f'<script type="application/json" id="recorded">{data}</script>\n'
        f'<script type="module">{script}</script>\n'
        "</head><body><noscript>This report needs JavaScript.</noscript></body></html>\n"
    )


# --- CSV --------------------------------------------------------------------------------------------------------------


def _write_attempts(requester: Requester, workflow_id: int, file: TextIO) -> None:
    """Write one line per attempt, by task and attempt, as the server returns them."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for page in pages(requester, workflow_id):
        for task in page.tasks:
            for attempt in task.attempts:
                writer.writerow([csv_cell(value) for value in _values(task, attempt)])


_COLUMNS: Final = (
    *("task_id", "task", "template", "task_status", "attempt", "status", "charged", "cause", "exit_code", "signal"),
    *("cluster", "queue", "host", "queued_at", "started_at", "ended_at", "wallclock_seconds", "cpu_seconds"),
    *("max_rss_bytes", "requested_cores", "requested_memory_gib", "requested_runtime_seconds"),
)


def _values(task: Any, attempt: Any) -> tuple[Any, ...]:
    from jobmon.core.constants import TaskInstanceStatus, TaskStatus

    asked = attempt.requested_resources
    return (
        *(task.task_id, task.name, task.template, TaskStatus(task.status).name, attempt.number),
        *(TaskInstanceStatus(attempt.status).name, attempt.charged, attempt.cause, attempt.exit_code, attempt.signal),
        *(attempt.cluster_name, attempt.queue_name, attempt.host, attempt.queued_at, attempt.started_at),
        *(attempt.ended_at, attempt.wallclock_seconds, attempt.cpu_seconds, attempt.max_rss_bytes),
        *(asked.get("cores"), asked.get("memory"), asked.get("runtime")),
    )
