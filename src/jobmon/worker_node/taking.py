"""Answers of the server to a packed job: check their shape, and convert their tasks to columns.

Pure.
"""

from __future__ import annotations

from jobmon.worker_node.run import is_list_of_numbers, is_report_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: Columns of the tasks in an answer.
COLUMNS = ("task_instance_ids", "task_ids", "names", "commands", "attempts")
#: Required fields of the job, and their types.
JOB_FIELDS = (
    ("width", int),
    ("workflow_id", int),
    ("requested_resources", dict),
    ("heartbeat_interval", (int, float)),
)
#: Further fields that are required to start a task, and their types.
TASK_FIELDS = (("workflow_run_id", int), ("umask", int), ("working_directory", str))


def is_take_answer(content: Mapping[str, Any]) -> bool:
    """Return whether decoded content is an answer with job and tasks (`WorkerTakeResponse`)."""
    job, tasks = content.get("job"), content.get("tasks")
    if not (
        isinstance(job, dict) and isinstance(tasks, dict) and is_held_answer(content) and is_report_answer(content)
    ):
        return False
    columns = [tasks.get(name) for name in COLUMNS]
    fields = (*JOB_FIELDS, *TASK_FIELDS) if any(columns) else JOB_FIELDS
    return (
        all(isinstance(job.get(name), kind) for name, kind in fields)
        and all(isinstance(column, list) for column in columns)
        and len({len(column or ()) for column in columns}) == 1
        and isinstance(content.get("refused", {}), dict)
    )


def is_held_answer(content: Mapping[str, Any]) -> bool:
    """Return whether decoded content is an answer to a long poll (`WorkerTakeResponse`)."""
    is_flagged = all(isinstance(content.get(name, False), bool) for name in ("over", "has_work"))
    return is_flagged and is_list_of_numbers(content.get("kill"))


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
