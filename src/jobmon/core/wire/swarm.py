"""The orchestrator's conversation: queue tasks, learn their outcomes, rebuild a run from the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import field

from jobmon.core.constants import ResourceType
from jobmon.core.wire import Message
from jobmon.core.wire.fields import Id, Time

QUEUE_BATCH_MAX = 10_000
LONG_POLL_SECONDS_MAX = 30.0
#: Maximum number of armed tasks of a run, and of upstream tasks that an armed task may still be waiting for.
ARMED_TASKS_MAX = 256
MISSING_UPSTREAMS_MAX = 16


class QueueBatch(Message, frozen=True, kw_only=True):
    """Tasks of one array with one request, for one cluster."""

    array_id: Id
    task_ids: list[Id]
    task_resources_id: Id
    cluster_id: Id


class TaskToArm(Message, frozen=True, kw_only=True):
    """A task that the server may queue by itself once its missing upstream tasks are DONE.

    At most `MISSING_UPSTREAMS_MAX` are missing; all other upstream tasks are DONE.
    """

    task_id: Id
    task_resources_id: Id
    cluster_id: Id
    missing: list[Id]


class QueueRequest(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/queue: G or A -> Q, one new attempt each. -> `QueueResponse`

    At most `QUEUE_BATCH_MAX` tasks in all batches together. Tasks that may not be queued are left unchanged.
    409 `StaleRun` if a newer run exists or this one is final or was asked to make way.
    `seen`: the last stamp of the change feed that was processed. A task that has changed since is left unchanged: the
    request was sent before the change, and was delayed or repeated.
    `armed`: tasks to arm, at most `ARMED_TASKS_MAX`; needs `seen`. The server may queue each in the transaction that
    makes its last missing upstream task DONE, unless a limit or the task has changed after `seen`. It may also disarm
    them at any time: a task that is still G in a response that shows all its upstream tasks DONE is no longer armed.
    `disarm`: tasks that the server must no longer queue by itself. `fail_fast`: none of `armed` may be queued after a
    task of the workflow has failed permanently. `may_overtake`: tasks of the request may be more urgent than attempts
    that agents claimed in advance, which are then recalled.
    """

    batches: list[QueueBatch]
    seen: Time | None = None
    armed: list[TaskToArm] = field(default_factory=list)
    disarm: list[Id] = field(default_factory=list)
    fail_fast: bool = False
    may_overtake: bool = False


class QueueResponse(Message, frozen=True, kw_only=True):
    """Every task of the request by its current status.

    `armed`, `held`: tasks of the request that are armed, and those that are held and therefore not queued.
    """

    tasks_by_status: dict[str, list[int]]
    armed: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)


class ResourceError(Message, frozen=True, kw_only=True):
    """The outcome and usage of the newest attempt of a task that is waiting for a larger request."""

    cause: str | None = None
    max_rss_bytes: int | None = None
    wallclock_seconds: float | None = None


class ChangesResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/changes?since=&wait_seconds=&workflow_run_id=&steering=

    Without `since`: all tasks. With `since`: tasks whose status changed after that stamp. `wait_seconds` (default 0)
    holds the response until a task, the run's status or a limit changed. `time` is the logical stamp of the snapshot.
    Limits are given if they changed after `since`, and always with a full snapshot. `resource_errors`: task -> outcome
    of its newest attempt, for the tasks given as ADJUSTING_RESOURCES. `launch_problems`: cluster -> why nothing of the
    workflow can be launched there now, for all clusters. `notices`: cluster -> what else users should know
    about jobs there. `held`: all held tasks; `priorities`, `array_priorities`: all tasks and arrays whose own priority
    is not 0; None: unchanged. `edited`: tasks that users edited after `since`, with their revisions. `steering=true`
    requests these four, and all skipped tasks, as with a full snapshot.
    """

    time: datetime
    tasks_by_status: dict[str, list[int]]
    workflow_run_status: str | None = None
    max_concurrently_running: int | None = None
    array_limits: dict[int, int] = field(default_factory=dict)
    resource_errors: dict[int, ResourceError] = field(default_factory=dict)
    launch_problems: dict[str, str] = field(default_factory=dict)
    notices: dict[str, str] = field(default_factory=dict)
    held: list[int] | None = None
    priorities: dict[int, int] | None = None
    array_priorities: dict[int, int] | None = None
    edited: dict[int, int] = field(default_factory=dict)


class WorkflowMetadata(Message, frozen=True, kw_only=True):
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


class ArrayInfo(Message, frozen=True, kw_only=True):
    """One array of a workflow."""

    array_id: int
    name: str
    max_concurrently_running: int


class ArraysResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/arrays"""

    arrays: list[ArrayInfo]


class ResourcesInfo(Message, frozen=True, kw_only=True):
    """A recorded request, as referenced by tasks."""

    task_resources_id: int
    cluster_id: int
    cluster_name: str
    queue_id: int
    queue_name: str
    requested: dict[str, Any]
    kind: str = ResourceType.VALIDATED.value
    original: dict[str, Any] | None = None


class TasksPage(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/tasks?max_task_id=&chunk_size=: tasks that are not DONE, by id, columnar.

    Empty when there are no more. `resources` holds each request that the page refers to once. `num_attempts` counts
    charged attempts. By position: `expansions`, and the expansions that added tasks (`origins`).
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
    expansions: list[int] = field(default_factory=list)
    origins: dict[int, int] = field(default_factory=dict)


class DownstreamRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/downstream -> `DownstreamResponse`

    `dag_id` is not used: the workflow's DAG counts, which is another one after its definition has changed.
    """

    task_ids: list[Id]
    dag_id: Id


class DownstreamResponse(Message, frozen=True, kw_only=True):
    """For each task (in order) its node and the index in `sets` of its downstream *task ids*. Sets are unique."""

    node_ids: list[int]
    set_index: list[int]
    sets: list[list[int]]


class TaskError(Message, frozen=True, kw_only=True):
    """A failed attempt. `task_status`: the current letter of its task, ERROR_FATAL if it failed permanently.

    `task_instance_id` 0: a failed call of an expansion.
    """

    task_id: int
    task_name: str
    task_instance_id: int
    status: str
    time: datetime
    cause: str | None
    error: str
    exit_code: int | None
    host: str | None
    task_status: str = ""


class ErrorsResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/errors?limit=1000&tasks=&permanent= and GET /tasks/{task_id}/errors?limit=1000

    Newest first. `limit` counts attempts; `tasks`: only the attempts of this many tasks, those that failed last;
    `permanent`: only tasks that failed permanently.
    """

    errors: list[TaskError]
