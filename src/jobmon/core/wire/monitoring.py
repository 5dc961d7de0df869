"""Read models for the command line and the web page."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import field

from jobmon.core.wire import Message
from jobmon.core.wire.fields import Id, Name, Text


class WorkflowSummary(Message, frozen=True, kw_only=True):
    """One workflow with its counts. `counts`: task status letter -> number of tasks.

    `status_name`: the displayed status: the name of the status, or STOPPED, TIMED OUT, INTERRUPTED (`core.outcomes`).
    `last_run_seconds`: how long the newest run took; None while it is active. `priority`: among workflows.
    """

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
    status_name: str = ""
    last_run_seconds: float | None = None
    priority: int = 0


class WorkflowsResponse(Message, frozen=True, kw_only=True):
    """GET /workflows?workflow_id=&user=&status=&name=&args=&before=&unchanged_since=&limit=&counts=&total=: newest.

    The first three are repeatable; `*` in name and args matches anything; `before`: only lower ids; `counts=false`
    omits the counts of tasks and attempts. `total`: the total number of matches, if requested.
    """

    workflows: list[WorkflowSummary]
    total: int | None = None


class TaskSummary(Message, frozen=True, kw_only=True):
    """One task with its newest attempt. `held`: it is not launched until it is released.

    `priority`: the sum of its own and its template's.
    """

    task_id: int
    name: str
    status: str
    num_attempts: int
    max_attempts: int
    command: str
    array_name: str
    status_at: datetime
    node_args: dict[str, str] = field(default_factory=dict)
    held: bool = False
    priority: int = 0


class TaskSummariesResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/task_summaries?status=&array=&name=&order=&rank=&after=&limit=&args=&total=.

    Only ids above `after`. The status is repeatable; `*` in the names matches anything. `args=true` adds the node args.
    `order=importance`: failed tasks first, then held, running, waiting, done and skipped ones, each by id; `rank` in
    the query and in the response, that of the last task, says with `after` where to resume. `total`: the total number
    of matches, if requested.
    """

    tasks: list[TaskSummary]
    total: int | None = None
    rank: int = 0


class AttemptDetail(Message, frozen=True, kw_only=True):
    """One attempt with everything that was recorded.

    `request_kind` is a `ResourceType`; `original_resources`: what the user originally requested, if that differs.
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


class TaskDetail(Message, frozen=True, kw_only=True):
    """GET /tasks/{task_id}: the task and all its attempts, oldest first.

    `error`: why the newest call of an expansion failed, with the traceback.
    """

    task: TaskSummary
    workflow_id: int
    attempts: list[AttemptDetail]
    error: str | None = None


class LogTail(Message, frozen=True, kw_only=True):
    """GET /task_instances/{task_instance_id}/log_tail: the last 10 KiB of output, as recorded."""

    task_instance_id: int
    text: str
    stdout: str | None
    stderr: str | None


class LogPart(Message, frozen=True, kw_only=True):
    """GET /task_instances/{task_instance_id}/log?stream=&start=&most=: a range of an output file.

    `start` and `end`: the range in bytes; `size`: current size of the file. `problem`: why there is no text, or "".
    """

    path: str
    size: int
    start: int
    end: int
    text: str
    problem: str


class LogMatch(Message, frozen=True, kw_only=True):
    """The position of a match in an output file, in bytes, and the text around it."""

    at: int
    line: str


class LogMatches(Message, frozen=True, kw_only=True):
    """GET /task_instances/{task_instance_id}/log_search?stream=&word=&start=: at most 200, in order.

    `next`: where to continue the search; null: end of the file. `problem`: why the file cannot be searched, or "".
    """

    size: int
    matches: list[LogMatch]
    next: int | None
    problem: str


class UsageRequest(Message, frozen=True, kw_only=True):
    """POST /task_template_versions/{task_template_version_id}/resource_usage -> `UsageResponse`

    POST /workflows/{workflow_id}/resource_usage and /tools/{tool_id}/resource_usage -> `TemplateUsages`.

    Counts the last DONE attempt of each task. `workflow_ids` None: of all workflows. `node_args`: argument name ->
    values, one of which a task must have. `confidence`: level of the intervals, such as 0.95; None: no intervals.
    `percentiles`: the requested percentiles, such as 95.
    """

    workflow_ids: list[Id] | None = None
    node_args: dict[Name, list[Text]] = field(default_factory=dict)
    confidence: float | None = None
    percentiles: list[float] = field(default_factory=list)


class UsageResponse(Message, frozen=True, kw_only=True):
    """What tasks used: memory in GiB, runtime in seconds, average number of busy cores. None if nothing was measured.

    Percentiles are in the order of the request, and empty if nothing was measured.
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


class TemplateUsages(Message, frozen=True, kw_only=True):
    """What the tasks of a workflow or of a tool used, by template name, all versions together."""

    templates: dict[str, UsageResponse]


class Reason(Message, frozen=True, kw_only=True):
    """Why something does not run. `kind`: a value of `core.explain.Kind`, for programs; `text`: a sentence."""

    kind: str
    text: str


class Neighbour(Message, frozen=True, kw_only=True):
    """A direct upstream or downstream task, or an upstream task at any distance."""

    task_id: int
    name: str
    status: str


class TaskExplanation(Message, frozen=True, kw_only=True):
    """GET /tasks/{task_id}/explanation: why a task does not run, the most important reason first.

    `unmet`: some of its direct upstream tasks that are not done; `fatal`: some tasks upstream of it, at any distance,
    that failed permanently. Each has a count of all such tasks. `priority`: as in `TaskSummary`.
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
    priority: int = 0


class WorkflowExplanation(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/explanation: why a workflow makes no progress, the most important reason first.

    `blocked`: tasks that will never run because an upstream task failed permanently.
    """

    workflow_id: int
    name: str
    status: str
    counts: dict[str, int]
    blocked: int
    reasons: list[Reason]
    priority: int = 0


class DependenciesResponse(Message, frozen=True, kw_only=True):
    """GET /tasks/{task_id}/dependencies?limit=: the direct upstream and downstream tasks, by id.

    The lists hold at most `limit` tasks each; the counts, by status, cover all tasks.
    """

    task_id: int
    name: str
    status: str
    workflow_id: int
    upstream: list[Neighbour]
    downstream: list[Neighbour]
    upstream_counts: dict[str, int]
    downstream_counts: dict[str, int]


class TaskOutput(Message, frozen=True, kw_only=True):
    """Where the output of a task's newest attempt is; None: not written yet."""

    task_id: int
    name: str
    array_name: str
    task_instance_id: int
    number: int
    status: str
    stdout: str | None
    stderr: str | None


class OutputsResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/outputs?array=&job=&limit=: by task id; `*` in the names matches anything."""

    outputs: list[TaskOutput]


class ExportedTask(Message, frozen=True, kw_only=True):
    """A task with everything recorded about it. It depends on the tasks in `upstream_sets`."""

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
    attempts: list[AttemptDetail]


class ExportPage(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/export?after=&limit=: tasks with ids above `after`, by id; none: there are no more.

    `sets`: the task ids in each set that a task of the page depends on.
    """

    tasks: list[ExportedTask]
    sets: dict[int, list[int]]


class TemplateProgress(Message, frozen=True, kw_only=True):
    """The progress of a template's tasks. `counts`: status letter -> number; `seconds`: median duration of a task."""

    name: str
    counts: dict[str, int]
    seconds: float | None


class TaskRun(Message, frozen=True, kw_only=True):
    """Tasks of one template with consecutive ids."""

    template: str
    first: int
    count: int


class Matrix(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/matrix?after=&since=: statuses of tasks, one letter each, in the order of `runs`.

    By id, at most 2,000,000 from `after` on, or as many as are known soon; or, with `since`, tasks that changed after
    that snapshot. `is_cut`: there are more tasks, or, with `since`, too many changes: request everything again.
    `total`: number of tasks of the workflow; 0 with `since`.
    """

    snapshot: int
    runs: list[TaskRun]
    statuses: str
    is_cut: bool
    total: int = 0

    @property
    def is_partial(self) -> bool:
        """Whether there will soon be more."""
        return self.is_cut


class WorkflowView(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/view: progress and explanation at the same logical time, `snapshot`."""

    snapshot: int
    progress: ProgressResponse
    explanation: WorkflowExplanation


class ProgressResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/progress: progress by template, in the order of their arrays, and the time left.

    `left_from` and `left_to`: seconds; None if there is no estimate yet. The estimate excludes `unknown` tasks, which
    belong to templates of which no task has ended. `blocked` tasks will never run. `removed`: tasks of earlier
    versions, which no count includes.
    """

    workflow_id: int
    status: str
    templates: list[TemplateProgress]
    left_from: float | None
    left_to: float | None
    unknown: int
    blocked: int
    removed: int = 0
