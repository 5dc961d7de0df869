"""Recording a workflow: in bounded columnar chunks, each of which may be sent again.

Order: `WorkflowRequest`; then `ArraysRequest`, `ResourcesRequest`; then `TasksRequest` chunks of one array each; then,
unless `WorkflowResponse.dag_is_complete`, `EdgesRequest` chunks, the last with `last=True`; then
`POST /workflows/{id}/bound` with `{}`, which checks the counts and marks the workflow complete.

Identity hashes are the first 32 bytes of SHA-256 as lower-case hex (64 characters).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TASKS_PER_CHUNK_MAX = 5_000
EDGES_PER_CHUNK_MAX = 50_000
RESOURCES_PER_CHUNK_MAX = 1_000
REQUEST_BYTES_MAX = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRequest:
    """POST /workflows: find or create a workflow.

    Found by `tool_version_id` and `workflow_args_hash`. A found one whose `dag_hash` or `task_hash` differs is a 409
    `WorkflowAlreadyExists` whose message says which templates have how many tasks there and here, unless no run of it
    ever reached BOUND and nothing of it differs.
    `task_counts`: template name -> number of tasks, for that message.
    """

    tool_version_id: int
    workflow_args: str
    workflow_args_hash: str
    dag_hash: str
    task_hash: str
    task_count: int
    edge_set_count: int
    name: str
    description: str
    max_concurrently_running: int
    task_counts: dict[str, int]
    user: str
    working_directory: str
    umask: int
    workflow_attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowResponse:
    """`newly_created`: by this request. `is_bound`: completely recorded. `was_started`: a run reached BOUND."""

    workflow_id: int
    dag_id: int
    status: str
    newly_created: bool
    is_bound: bool
    was_started: bool
    dag_is_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """All tasks of one template version in the workflow."""

    task_template_version_id: int
    name: str
    max_concurrently_running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraysRequest:
    """POST /workflows/{workflow_id}/arrays: find or create; limits are updated. -> `IdsResponse`"""

    arrays: list[ArraySpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdsResponse:
    """Ids in the order of the request."""

    ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesSpec:
    """A request for a queue. `requested` is plain JSON. `kind` is a `ResourceType`.

    `original`: what the user had asked for, where that is something else.
    """

    cluster_name: str
    queue_name: str
    requested: dict[str, Any]
    kind: str
    original: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesRequest:
    """POST /task_resources: find or create by content; unknown cluster or queue is 422. -> `IdsResponse`"""

    resources: list[ResourcesSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksRequest:
    """POST /workflows/{workflow_id}/tasks: create (or find, by node) tasks of one array. -> `TasksResponse`

    Columns have one entry per task. `node_args` and `task_args`: argument name -> column of strings. `attributes`:
    index in the chunk -> {name: value}. `resource_scales`: JSON-able scales {resource: number or list}; the ones
    that cannot be stored (callables) stand there as {"resource": null}; scales and fallback queues are given as
    an index into the deduplicated lists. A found task that is not DONE gets the new name, command, attempts, resources.
    """

    array_id: int
    task_template_version_id: int
    names: list[str]
    commands: list[str]
    node_hashes: list[str]
    task_hashes: list[str]
    node_args: dict[str, list[str]]
    task_args: dict[str, list[str]]
    max_attempts: list[int]
    task_resources_ids: list[int | None]  # None: a compute_resources_callable decides later
    scales: list[dict[str, Any]]
    scales_index: list[int]
    fallback_queues: list[list[str]]
    fallback_index: list[int]
    attributes: dict[int, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksResponse:
    """Columns in the order of the request; `statuses` are the tasks' present states."""

    task_ids: list[int]
    node_ids: list[int]
    statuses: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTasks:
    """GET /workflows/{workflow_id}/recorded_tasks?after_id=&count=: tasks that are recorded, by id.

    `hash`: SHA-256 of their `task_hashes`, one after another. A client whose next tasks have the same knows that they
    are these, and sends only those again that are not DONE.
    """

    task_ids: list[int]
    node_ids: list[int]
    statuses: list[str]
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgesRequest:
    """POST /dags/{dag_id}/edges: sets of upstream nodes, and which nodes have which set.

    Equal sets are sent once: `set_numbers[i]` is the caller's number of the set `upstream_nodes[i]`. A set larger
    than a chunk is sent in parts under the same number. `node_ids[i]` has the set `node_sets[i]` (a number sent in
    this or an earlier chunk). Nodes without upstreams are not sent. `last` closes the DAG.
    `key` is random per bind: numbers are the caller's own, and two callers may record the same DAG at once. -> `{}`
    """

    set_numbers: list[int]
    upstream_nodes: list[list[int]]
    node_ids: list[int]
    node_sets: list[int]
    last: bool
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundResponse:
    """POST /workflows/{workflow_id}/bound."""

    workflow_id: int
    task_count: int
