"""Status of workflows and tasks for scripts and notebooks, and attributes that a running task records for itself."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import asdict

from jobmon.client.defaults import whole
from jobmon.client.task import checked_attributes
from jobmon.core.constants import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobmon.core.requester import Requester

TASK_ID_VARIABLE: Final = "JOBMON_TASK_ID"
_LIMIT_DEFAULT: Final = 1_000


def workflow_status(
    workflow_id: int | Iterable[int] = (), user: str | Iterable[str] = (), limit: int = _LIMIT_DEFAULT
) -> Any:
    """Return the status of workflows, newest first.

    Args:
        workflow_id: one ID or several; none means the workflows of `user`.
        user: one name or several; none, without IDs, means your own workflows.
        limit: maximum number of workflows.

    Returns:
        A DataFrame with a row for each workflow if pandas is installed, otherwise a list of dicts with the same keys.

    Raises:
        ValueError: a workflow ID is not an integer.
    """
    from jobmon.core.paths import user_name
    from jobmon.core.wire.monitoring import WorkflowsResponse

    ids = _whole_numbers(workflow_id, "workflow_id")
    users = [user] if isinstance(user, str) else list(user)
    query = {"workflow_id": ids, "user": users or ([] if ids else [user_name()]), "limit": limit}
    found = _requester().call("/workflows", query, WorkflowsResponse, "get").workflows
    return _table([asdict(one) for one in found])


def workflow_tasks(workflow_id: int, status: str | Iterable[str] = (), limit: int = _LIMIT_DEFAULT) -> Any:
    """Return the tasks of a workflow, by ID.

    Args:
        workflow_id: ID of the workflow.
        status: one status or several, as letters or names such as "DONE"; none means all.
        limit: maximum number of tasks.

    Returns:
        A DataFrame with a row for each task if pandas is installed, otherwise a list of dicts with the same keys.

    Raises:
        ValueError: there is no such status, or the workflow ID is not an integer.
    """
    from jobmon.core.wire.monitoring import TaskSummariesResponse

    (number,) = _whole_numbers(workflow_id, "workflow_id")
    query = {"status": _letters(status), "limit": limit}
    route = f"/workflows/{number}/task_summaries"
    found = _requester().call(route, query, TaskSummariesResponse, "get").tasks
    return _table([asdict(one) for one in found])


def task_status(task_ids: int | Iterable[int], status: str | Iterable[str] = ()) -> Any:
    """Return the attempts of tasks, oldest first.

    Args:
        task_ids: one ID or several.
        status: include only tasks with one of these statuses, as letters or names; none means all.

    Returns:
        A DataFrame with a row for each attempt, or one row for a task without attempts, if pandas is installed;
        otherwise a list of dicts with the same keys.

    Raises:
        ValueError: there is no such status, or a task ID is not an integer.
    """
    from jobmon.core.wire.monitoring import TaskDetail

    letters = _letters(status)
    requester = _requester()
    rows: list[dict[str, Any]] = []
    for task_id in _whole_numbers(task_ids, "task_ids"):
        detail = requester.call(f"/tasks/{task_id}", None, TaskDetail, "get")
        if letters and detail.task.status not in letters:
            continue
        task = {"task_id": task_id, "task_name": detail.task.name, "task_status": detail.task.status}
        rows += [{**task, **asdict(attempt)} for attempt in detail.attempts] or [task]
    return _table(rows)


def add_task_attributes(attributes: Iterable[str] | Mapping[str, Any]) -> None:
    """Record attributes of the task whose command calls this function.

    Args:
        attributes: names, or names and values. They are searchable and never passed to commands.

    Raises:
        RuntimeError: the caller is not the command of a task.
        ValueError: a name or value cannot be recorded.
    """
    from jobmon.core.wire.run import TaskAttributesRequest

    task_id = os.environ.get(TASK_ID_VARIABLE, "")
    if not task_id.isdigit():
        raise RuntimeError(
            f"add_task_attributes() records attributes of the task that calls it, but {TASK_ID_VARIABLE} is not set"
            " here. Call it in the command of a task, or use task.add_attribute() where the task is created."
        )
    request = TaskAttributesRequest(attributes=checked_attributes(attributes))
    _requester().call(f"/tasks/{task_id}/attributes", request, dict)


def _requester() -> Requester:
    from jobmon.core.requester import Requester

    return Requester.from_defaults()


def _whole_numbers(value: Any, what: str) -> list[int]:
    given = [value] if whole(value) is not None or isinstance(value, str) else list(value)
    numbers = [whole(each) for each in given]
    if None in numbers:
        raise ValueError(f"{what} must be one ID or several, not {value!r}.")
    return [number for number in numbers if number is not None]


def _letters(status: str | Iterable[str]) -> list[str]:
    letters = {letter: each.value for each in TaskStatus for letter in (each.value, each.name)}
    given = [status] if isinstance(status, str) else list(status)
    unknown = [each for each in given if each not in letters]
    if unknown:
        raise ValueError(
            f"There is no task status {unknown[0]!r}; valid names: {', '.join(each.name for each in TaskStatus)}."
        )
    return [letters[each] for each in given]


def _table(rows: list[dict[str, Any]]) -> Any:
    try:
        pandas: Any = importlib.import_module("pandas")
    except ImportError:
        return rows
    return pandas.DataFrame(rows)
