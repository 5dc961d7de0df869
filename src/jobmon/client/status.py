"""Status of workflows and tasks for scripts and notebooks, and attributes that a running task records for itself."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import asdict

from jobmon.client.defaults import whole
from jobmon.client.task import checked_attributes
from jobmon.core.constants import TaskStatus
from jobmon.core.outcomes import TASK_GROUPS, group_of

if TYPE_CHECKING:
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskSummary, WorkflowSummary

TASK_ID_VARIABLE: Final = "JOBMON_TASK_ID"
#: Rows per request.
_PAGE_ROWS: Final = 1_000
_ID_MAX: Final = 2**63 - 1


def workflow_status(
    workflow_id: int | Iterable[int] | None = (), user: str | Iterable[str] | None = (), limit: int | None = None
) -> Any:
    """Return the status of workflows, newest first.

    Args:
        workflow_id: one ID or several; none means the workflows of `user`.
        user: one name or several; none, without IDs, means your own workflows.
        limit: maximum number of workflows; None means all of them.

    Returns:
        A DataFrame with a row for each workflow if pandas is installed, otherwise a list of dicts with the same keys.

    Raises:
        ValueError: a workflow ID is not an integer, or the limit is not an integer of at least 1.
    """
    from jobmon.core.paths import user_name
    from jobmon.core.wire.monitoring import WorkflowsResponse

    ids = _ids(workflow_id, "workflow_id")
    users = _strings(user, "user")
    most = _checked_limit(limit)
    query = {"workflow_id": ids, "user": users or ([] if ids else [user_name()])}
    requester = _requester()
    found: list[WorkflowSummary] = []
    while more := _page_rows(most, len(found)):
        page = {**query, "limit": more, **({"before": found[-1].workflow_id} if found else {})}
        rows = requester.call("/workflows", page, WorkflowsResponse, "get").workflows
        found += rows
        if len(rows) < more:
            break
    return _table([asdict(one) for one in found])


def workflow_tasks(workflow_id: int, status: str | Iterable[str] | None = (), limit: int | None = None) -> Any:
    """Return the tasks of a workflow, by ID.

    Args:
        workflow_id: ID of the workflow.
        status: one status or several, as letters, names such as "DONE", or the groups that the commands show:
            "PENDING", "RUNNING", "DONE", "FATAL"; none means all.
        limit: maximum number of tasks; None means all of them.

    Returns:
        A DataFrame with a row for each task if pandas is installed, otherwise a list of dicts with the same keys.

    Raises:
        ValueError: a status does not exist, the workflow ID is not an integer, or the limit is not an integer of at
            least 1.
        InvalidRequest: the workflow does not exist.
    """
    from jobmon.core.wire.monitoring import TaskSummariesResponse

    ids = _ids(workflow_id, "workflow_id")
    if len(ids) != 1:
        raise ValueError(f"workflow_id must be the ID of one workflow, not {workflow_id!r}.")
    query = {"status": _letters(status), "args": "true"}
    most = _checked_limit(limit)
    requester = _requester()
    found: list[TaskSummary] = []
    while more := _page_rows(most, len(found)):
        page = {**query, "limit": more, "after": found[-1].task_id if found else 0}
        rows = requester.call(f"/workflows/{ids[0]}/task_summaries", page, TaskSummariesResponse, "get").tasks
        found += rows
        if len(rows) < more:
            break
    return _table([asdict(one) for one in found])


def task_status(task_ids: int | Iterable[int], status: str | Iterable[str] | None = ()) -> Any:
    """Return the attempts of tasks, oldest first.

    Args:
        task_ids: one ID or several.
        status: include only tasks with one of these statuses, in the forms of `workflow_tasks`; none means all.

    Returns:
        A DataFrame with a row for each attempt, or one row for a task without attempts, if pandas is installed;
        otherwise a list of dicts with the same keys.

    Raises:
        ValueError: a status does not exist, or a task ID is not an integer.
    """
    from jobmon.core.wire.monitoring import TaskDetail

    letters = _letters(status)
    requester = _requester()
    rows: list[dict[str, Any]] = []
    for task_id in _ids(task_ids, "task_ids"):
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


def _checked_limit(limit: object) -> int | None:
    number = whole(limit)
    if limit is not None and (number is None or number < 1):
        raise ValueError(f"limit must be an integer of at least 1, or None for all, not {limit!r}.")
    return number


def _page_rows(most: int | None, count: int) -> int:
    """Return how many rows to request next; 0 if there are as many as wanted."""
    return _PAGE_ROWS if most is None else min(_PAGE_ROWS, most - count)


def _several(value: Any, what: str, kind: str) -> list[Any]:
    """Return one value or several as a list; None means no value."""
    if value is None:
        return []
    if isinstance(value, str) or whole(value) is not None:
        return [value]
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise ValueError(f"{what} must be {kind}, not {value!r}.")
    return list(value)


def _ids(value: Any, what: str) -> list[int]:
    numbers = [whole(each) for each in _several(value, what, "one ID or several")]
    found = [number for number in numbers if number is not None and 1 <= number <= _ID_MAX]
    if len(found) != len(numbers):
        raise ValueError(f"{what} must be one ID or several (integers of at least 1), not {value!r}.")
    return found


def _strings(value: Any, what: str) -> list[str]:
    given = _several(value, what, "one name or several")
    if not all(isinstance(each, str) and each for each in given):
        raise ValueError(f"{what} must be one name or several, not {value!r}.")
    return given


def _letters(status: Any) -> list[str]:
    given = _several(status, "status", "one status or several")
    known = {word: [each.value] for each in TaskStatus for word in (each.value, each.name)}
    known |= {group: [each.value for each in TaskStatus if group_of(each) == group] for group in TASK_GROUPS}
    words = [each.upper() if isinstance(each, str) else each for each in given]
    for word, each in zip(words, given, strict=True):
        if not isinstance(word, str) or word not in known:
            names = dict.fromkeys([*(status.name for status in TaskStatus), *TASK_GROUPS])
            raise ValueError(f"{each!r} is not a task status; valid names: {', '.join(names)}.")
    return sorted({letter for word in words for letter in known[word]})


def _table(rows: list[dict[str, Any]]) -> Any:
    try:
        pandas: Any = importlib.import_module("pandas")
    except ImportError:
        return rows
    return pandas.DataFrame(rows)
