"""Answers of the server to jobs: check their shape, and convert their tasks to columns.

Pure.
"""

from __future__ import annotations

from jobmon.agent.settlement import is_problem

HTTP_UNAUTHORIZED = 401
HTTP_TOO_LARGE = 413
HTTP_TOO_MANY = 429
HTTP_SERVER_FAULT = 500
#: Required fields of what the tasks of a job have in common, and their types.
JOB_FIELDS = (
    ("workflow_id", int),
    ("requested_resources", dict),
    ("heartbeat_interval", (int, float)),
    ("report_by_buffer", (int, float)),
)
#: Further fields that are required to start a task, and their types.
TASK_FIELDS = (("workflow_run_id", int), ("umask", int), ("working_directory", str))
#: Required fields of the answer to a start request, and their types.
START_FIELDS = (
    *(*JOB_FIELDS, *TASK_FIELDS),
    *(("task_instance_id", int), ("task_id", int), ("attempt", int), ("task_name", str), ("command", str)),
)
#: Columns of the tasks in an answer, and the fields of an answer to a start request with the same content.
COLUMNS = ("task_instance_ids", "task_ids", "names", "commands", "attempts")
_FIELDS = ("task_instance_id", "task_id", "task_name", "command", "attempt")
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def is_last_word(status: int, content: Any) -> bool:
    """Return whether an answer is our server's final refusal to let a job start; after other refusals it retries.

    A rejected credential is not final: the server may be restarted with another one, or another program may be
    answering in its place.
    """
    is_passing = status in (HTTP_UNAUTHORIZED, HTTP_TOO_LARGE, HTTP_TOO_MANY)
    is_final = 400 <= status < HTTP_SERVER_FAULT and not is_passing
    return is_final and is_problem(content)


def is_start_answer(content: Mapping[str, Any]) -> bool:
    """Return whether decoded content is an answer to a start request (`WorkerStartResponse`)."""
    return _has(content, START_FIELDS)


def is_report_answer(content: Mapping[str, Any]) -> bool:
    """Return whether decoded content is an answer to a report or heartbeat (`WorkerReportResponse`)."""
    are_lists = is_list_of_numbers(content.get("kill", [])) and is_list_of_numbers(content.get("unknown", []))
    return are_lists and isinstance(content.get("refused", {}), dict)


def is_take_answer(content: Mapping[str, Any]) -> bool:
    """Return whether decoded content is an answer with job and tasks (`WorkerTakeResponse`)."""
    job, tasks = content.get("job"), content.get("tasks")
    if not (
        isinstance(job, dict) and isinstance(tasks, dict) and is_held_answer(content) and is_report_answer(content)
    ):
        return False
    columns = [tasks.get(name) for name in COLUMNS]
    fields = (*JOB_FIELDS, ("width", int), *(TASK_FIELDS if any(columns) else ()))
    return (
        _has(job, fields)
        and all(isinstance(column, list) for column in columns)
        and len({len(column or ()) for column in columns}) == 1
    )


def is_held_answer(content: Mapping[str, Any]) -> bool:
    """Return whether decoded content is an answer to a poll (`WorkerTakeResponse`)."""
    is_flagged = all(isinstance(content.get(name, False), bool) for name in ("over", "has_work"))
    return is_flagged and is_list_of_numbers(content.get("kill"))


def is_list_of_numbers(value: Any) -> bool:
    """Return whether decoded content is a list of IDs."""
    return isinstance(value, list) and all(isinstance(one, int) for one in value)


def _has(content: Mapping[str, Any], fields: tuple[tuple[str, Any], ...]) -> bool:
    return all(isinstance(content.get(name), kind) for name, kind in fields)


def columns_of(job: Mapping[str, Any], tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Return tasks in the format of `AgentLaunches`; all share one request, and each counts as one core."""
    count = len(tasks["task_instance_ids"])
    return {
        **tasks,
        "requests": [0] * count,
        "requested_resources": [job["requested_resources"]],
        "cores": [1.0],
        "memory_gib": [0.0],
    }


def columns_of_start(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task in an answer to a start request in the format of `AgentLaunches`."""
    tasks: dict[str, Any] = {column: [content[name]] for column, name in zip(COLUMNS, _FIELDS, strict=True)}
    if declared := content.get("files"):
        tasks["files"] = {str(content["task_instance_id"]): declared}
    return columns_of(content, tasks)
