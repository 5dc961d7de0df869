"""The orchestrator's conversation: queue tasks, learn what became of them, rebuild a run from the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobmon.core.constants import ResourceType

QUEUE_BATCH_MAX = 10_000
LONG_POLL_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBatch:
    """Tasks of one array with one request, for one cluster."""

    array_id: int
    task_ids: list[int]
    task_resources_id: int
    cluster_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRequest:
    """POST /workflow_runs/{workflow_run_id}/queue: G or A -> Q, one new attempt each. -> `QueueResponse`

    At most `QUEUE_BATCH_MAX` tasks in all batches together. Tasks that may not be queued are left as they are.
    409 `StaleRun` when a newer run exists or this one is final or told to make room.
    `seen`: the last stamp of the change feed that was taken in. A task that has changed since is left as it is: the
    request was sent before that, and has come late or again.
    """

    batches: list[QueueBatch]
    seen: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueResponse:
    """Every task of the request under the status that it has now."""

    tasks_by_status: dict[str, list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceError:
    """How the newest attempt of a task that waits for a larger request ended, and what it used."""

    cause: str | None = None
    max_rss_bytes: int | None = None
    wallclock_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesResponse:
    """GET /workflows/{workflow_id}/changes?since=&wait_seconds=&workflow_run_id=

    Without `since`: all tasks. With it: those whose status changed after that stamp. `wait_seconds` (default 0) holds
    the answer until a task, the run's status or a limit changed. `time` is the logical stamp of the snapshot.
    Limits are given when they changed after `since`, and always with a full snapshot. `resource_errors`: task -> how
    its newest attempt ended, for the tasks given as ADJUSTING_RESOURCES.
    """

    time: datetime
    tasks_by_status: dict[str, list[int]]
    workflow_run_status: str | None = None
    max_concurrently_running: int | None = None
    array_limits: dict[int, int] = field(default_factory=dict)
    resource_errors: dict[int, ResourceError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowMetadata:
    """GET /workflows/{workflow_id}/metadata"""

    workflow_id: int
    dag_id: int
    max_concurrently_running: int
    name: str
    workflow_args: str
    status: str
    task_count: int
    tool_name: str
    tool_version_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayInfo:
    """One array of a workflow."""

    array_id: int
    name: str
    max_concurrently_running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraysResponse:
    """GET /workflows/{workflow_id}/arrays"""

    arrays: list[ArrayInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesInfo:
    """A recorded request, as tasks refer to it."""

    task_resources_id: int
    cluster_id: int
    cluster_name: str
    queue_id: int
    queue_name: str
    requested: dict[str, Any]
    kind: str = ResourceType.VALIDATED.value
    original: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksPage:
    """GET /workflows/{workflow_id}/tasks?max_task_id=&chunk_size=: tasks that are not DONE, by id, columnar.

    Empty when there are no more. `resources` holds each request that the page refers to once. `num_attempts` counts
    charged ones.
    """

    task_ids: list[int]
    array_ids: list[int]
    node_ids: list[int]
    names: list[str]
    statuses: list[str]
    max_attempts: list[int]
    num_attempts: list[int]
    task_resources_ids: list[int | None]
    scales: list[dict[str, Any]]
    fallback_queues: list[list[str]]
    resources: list[ResourcesInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class DownstreamRequest:
    """POST /workflows/{workflow_id}/downstream -> `DownstreamResponse`"""

    task_ids: list[int]
    dag_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DownstreamResponse:
    """For each task (in order) its node and which of `sets` holds its downstream *task ids*; equal sets once."""

    node_ids: list[int]
    set_index: list[int]
    sets: list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """An attempt that failed."""

    task_id: int
    task_name: str
    task_instance_id: int
    status: str
    time: datetime
    cause: str | None
    error: str
    exit_code: int | None
    host: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorsResponse:
    """GET /workflows/{workflow_id}/errors?limit=1000 (newest first), GET /tasks/{task_id}/errors"""

    errors: list[TaskError]
