"""What people look at: read models for the command line and the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSummary:
    """One workflow with its counts. `counts`: task status letter -> number of tasks."""

    workflow_id: int
    name: str
    workflow_args: str
    tool_name: str
    user: str
    status: str
    created_at: datetime
    status_at: datetime
    counts: dict[str, int]
    task_count: int
    attempt_count: int
    last_workflow_run_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowsResponse:
    """GET /workflows?workflow_id=&user=&status=&name=&before=&unchanged_since=&limit=&counts=: newest first.

    The first three are repeatable; `*` in the name stands for anything; `before`: only ids below it; `counts=false`
    leaves out the counts of tasks and attempts.
    """

    workflows: list[WorkflowSummary]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """One task with its newest attempt."""

    task_id: int
    name: str
    status: str
    num_attempts: int
    max_attempts: int
    command: str
    array_name: str
    status_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummariesResponse:
    """GET /workflows/{workflow_id}/task_summaries?status=&array=&name=&after=&limit=: by id, those above `after`.

    The status is repeatable; `*` in the names stands for anything.
    """

    tasks: list[TaskSummary]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt with everything that was recorded.

    `request_kind` is a `ResourceType`; `original_resources`: what the user had asked for, where that is something else.
    """

    task_instance_id: int
    task_id: int
    workflow_run_id: int
    number: int
    status: str
    cluster_name: str
    queue_name: str
    distributor_id: str | None
    host: str | None
    pid: int | None
    queued_at: datetime
    launched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    signal: int | None
    cause: str | None
    error: str | None
    charged: bool
    stdout: str | None
    stderr: str | None
    wallclock_seconds: float | None
    cpu_seconds: float | None
    max_rss_bytes: int | None
    requested_resources: dict[str, Any] = field(default_factory=dict)
    request_kind: str = ""
    original_resources: dict[str, Any] | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDetail:
    """GET /tasks/{task_id}: the task and all its attempts, oldest first."""

    task: TaskSummary
    workflow_id: int
    attempts: list[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTail:
    """GET /task_instances/{task_instance_id}/log_tail: the last 10 KiB of output that were kept."""

    task_instance_id: int
    text: str
    stdout: str | None
    stderr: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRequest:
    """POST /task_template_versions/{task_template_version_id}/resource_usage -> `UsageResponse`

    POST /workflows/{workflow_id}/resource_usage and /tools/{tool_id}/resource_usage -> `TemplateUsages`.

    Counts the last DONE attempt of each task. `workflow_ids` None: of all workflows. `node_args`: argument name ->
    values, one of which a task must have. `confidence`: level of the intervals, such as 0.95; None: no intervals.
    `percentiles`: which ones are wanted, such as 95.
    """

    workflow_ids: list[int] | None = None
    node_args: dict[str, list[str]] = field(default_factory=dict)
    confidence: float | None = None
    percentiles: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageResponse:
    """What tasks used: memory in GiB, runtime in seconds, cores busy on average. None where nothing was measured.

    Percentiles are in the order of the request, and empty where nothing was measured.
    """

    num_tasks: int
    min_mem: float | None = None
    max_mem: float | None = None
    mean_mem: float | None = None
    median_mem: float | None = None
    min_runtime: float | None = None
    max_runtime: float | None = None
    mean_runtime: float | None = None
    median_runtime: float | None = None
    ci_mem: list[float] | None = None
    ci_runtime: list[float] | None = None
    percentiles_mem: list[float] = field(default_factory=list)
    percentiles_runtime: list[float] = field(default_factory=list)
    percentiles_cores: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateUsages:
    """What the tasks of a workflow or of a tool used, by the names of their templates, all versions together."""

    templates: dict[str, UsageResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something does not run. `kind`: a word of `core.reasons.Kind`, for programs; `text`: a sentence."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A task next to another one."""

    task_id: int
    name: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExplanation:
    """GET /tasks/{task_id}/explanation: why it does not run, what counts most first.

    `unmet`: some of its direct upstreams that are not done; `fatal`: some tasks before it, however far, that failed for
    good, each with how many there are.
    """

    task_id: int
    name: str
    status: str
    workflow_id: int
    num_attempts: int
    max_attempts: int
    reasons: list[Reason]
    unmet: list[Neighbour] = field(default_factory=list)
    unmet_count: int = 0
    fatal: list[Neighbour] = field(default_factory=list)
    fatal_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowExplanation:
    """GET /workflows/{workflow_id}/explanation: why it does not go on, what counts most first.

    `blocked`: tasks that will never run since one before them failed for good.
    """

    workflow_id: int
    name: str
    status: str
    counts: dict[str, int]
    blocked: int
    reasons: list[Reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class DependenciesResponse:
    """GET /tasks/{task_id}/dependencies?limit=: the tasks directly before and after it, by id.

    The lists hold at most `limit` each; the counts, by status, are of all.
    """

    task_id: int
    name: str
    status: str
    workflow_id: int
    upstream: list[Neighbour]
    downstream: list[Neighbour]
    upstream_counts: dict[str, int]
    downstream_counts: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutput:
    """Where the output of a task's newest attempt is; None: nowhere yet."""

    task_id: int
    name: str
    array_name: str
    task_instance_id: int
    number: int
    status: str
    stdout: str | None
    stderr: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsResponse:
    """GET /workflows/{workflow_id}/outputs?array=&job=&limit=: by task id; `*` in the names stands for anything."""

    outputs: list[TaskOutput]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTask:
    """A task with all that is recorded of it. It waits for the tasks in `upstream_sets`."""

    task_id: int
    name: str
    template: str
    status: str
    status_at: datetime
    command: str
    max_attempts: int
    num_attempts: int
    node_args: dict[str, str]
    task_args: dict[str, str]
    requested_resources: dict[str, Any]
    upstream_sets: list[int]
    attempts: list[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPage:
    """GET /workflows/{workflow_id}/export?after=&limit=: tasks with ids above `after`, by id; none: that is all.

    `sets`: task ids in each set that a task of the page waits for.
    """

    tasks: list[ExportedTask]
    sets: dict[int, list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateProgress:
    """How the tasks of a template stand. `counts`: status letter -> number; `seconds`: how long one took, median."""

    name: str
    counts: dict[str, int]
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressResponse:
    """GET /workflows/{workflow_id}/progress: by template, in the order of their arrays, and how long it still takes.

    `left_from` and `left_to`: seconds; None where that cannot be said yet. Nothing is counted for `unknown` tasks, of
    templates of which none has ended. `blocked` tasks will never run.
    """

    workflow_id: int
    status: str
    templates: list[TemplateProgress]
    left_from: float | None
    left_to: float | None
    unknown: int
    blocked: int
