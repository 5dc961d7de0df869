"""Recording a workflow in bounded columnar chunks, each of which may be repeated.

Order: `WorkflowRequest`; then templates (`definition.TemplatesRequest`), `ArraysRequest`, `ResourcesRequest`; then
`TasksRequest` chunks of one array each; then, unless `WorkflowResponse.dag_is_complete`, `EdgesRequest` chunks, the
last with `last=True`; then `POST /workflows/{id}/bound` with `{}`, which checks the counts and marks the workflow
complete. A workflow whose recorded definition differs but leaves all results valid is sent as `RedefineRequest` chunks.

Identity hashes are the first 32 bytes of SHA-256 as lower-case hex (64 characters).
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from jobmon.core.packing import problems_with
from jobmon.core.wire import Message
from jobmon.core.wire.fields import BigCount, Count, FreeForm, Hash, Id, Name, Priority, Text

TASKS_PER_CHUNK_MAX = 5_000
EDGES_PER_CHUNK_MAX = 50_000
RESOURCES_PER_CHUNK_MAX = 1_000
REQUEST_BYTES_MAX = 32 * 1024 * 1024


class WorkflowRequest(Message, frozen=True, kw_only=True):
    """POST /workflows: find or create a workflow.

    Found by `tool_version_id` and `workflow_args_hash`. If the `dag_hash` or `task_hash` of the found workflow differs,
    the response is 409 `WorkflowAlreadyExists`, whose message gives the recorded and the requested number of tasks per
    template, and nothing is written. `task_counts`: template name -> number of tasks, for that message.
    """

    tool_version_id: Id
    workflow_args: Text
    workflow_args_hash: Hash
    dag_hash: Hash
    task_hash: Hash
    task_count: BigCount
    edge_set_count: BigCount
    name: Text
    description: Text
    max_concurrently_running: Count
    task_counts: dict[Name, BigCount]
    user: Name
    working_directory: Text
    umask: Count
    workflow_attributes: dict[Name, Any] = field(default_factory=dict)
    priority: Priority = 0


class WorkflowResponse(Message, frozen=True, kw_only=True):
    """`newly_created`: by this request. `is_bound`: completely recorded. `was_started`: a run reached BOUND.

    `has_incomplete_version`: a version is sealed and must be completed before anything else.
    """

    workflow_id: int
    dag_id: int
    status: str
    newly_created: bool
    is_bound: bool
    was_started: bool
    dag_is_complete: bool
    version: int = 1
    has_incomplete_version: bool = False


class FilePattern(Message, frozen=True, kw_only=True):
    """A file that the tasks of an array read or write. `name` is "" if only the pattern was given."""

    name: Name
    pattern: Text


class ArraySpec(Message, frozen=True, kw_only=True):
    """All tasks of one template version in the workflow.

    `inputs` and `outputs`: the files that its tasks read and write; see `core.files`.
    """

    task_template_version_id: Id
    name: Name
    max_concurrently_running: Count
    priority: Priority = 0
    inputs: list[FilePattern] = field(default_factory=list)
    outputs: list[FilePattern] = field(default_factory=list)


class ArraysRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/arrays: find or create; limits, priorities and files are updated. -> `IdsResponse`

    `keep_limits`: existing arrays keep their limits and priorities. For expansions: a function that is called by ID
    does not know what the script has set.
    """

    arrays: list[ArraySpec]
    keep_limits: bool = False


class IdsResponse(Message, frozen=True, kw_only=True):
    """Ids in the order of the request."""

    ids: list[int]


class ResourcesSpec(Message, frozen=True, kw_only=True):
    """A request for a queue. `requested` is plain JSON. `kind` is a `ResourceType`.

    `original`: what the user originally requested, if that differs.
    """

    cluster_name: Name
    queue_name: Name
    requested: FreeForm
    kind: Name
    original: FreeForm | None = None

    def __post_init__(self) -> None:
        """Reject a request that the server itself could not process."""
        if problems := problems_with(self.requested):
            raise ValueError(f"{'; '.join(problems)}.")


class ResourcesRequest(Message, frozen=True, kw_only=True):
    """POST /task_resources: find or create by content; unknown cluster or queue is 422. -> `IdsResponse`"""

    resources: list[ResourcesSpec]


class TaskColumns(Message, frozen=True, kw_only=True):
    """Columns that may be set in tasks of one array at any time, with one entry per task.

    `attributes`: index in the chunk -> {name: value}. `priorities`: index -> priority, unless it is 0. `scales`:
    JSON-able scales {resource: number or list}; scales that cannot be stored (callables) appear as {"resource": null}.
    Scales and fallback queues are given as an index into the deduplicated lists.
    """

    array_id: Id
    names: list[Name]
    commands: list[Text]
    task_hashes: list[Hash]
    max_attempts: list[Count]
    task_resources_ids: list[Id | None]  # None: determined later by a compute_resources_callable
    scales: list[FreeForm]
    scales_index: list[BigCount]
    fallback_queues: list[list[Name]]
    fallback_index: list[BigCount]
    attributes: dict[BigCount, dict[Name, Text]] = field(default_factory=dict)
    priorities: dict[BigCount, Priority] = field(default_factory=dict)


class TasksRequest(TaskColumns, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/tasks: create (or find, by node) tasks of one array. -> `TasksResponse`

    `node_args` and `task_args`: argument name -> column of strings. A found task that is not DONE gets the new name,
    command, number of attempts and resources. `are_expansions`: all of them are expansions (`wire.expanding`).
    """

    task_template_version_id: Id
    node_hashes: list[Hash]
    node_args: dict[Name, list[Text]]
    task_args: dict[Name, list[Text]]
    are_expansions: bool = False


class RedefineRequest(TaskColumns, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/redefined_tasks: set these columns in tasks that are not DONE -> `TasksResponse`.

    The tasks move to the array. For DONE tasks only the attributes are set.
    """

    task_ids: list[Id]


class SupersededEdit(Message, frozen=True, kw_only=True):
    """An edit of a task by a user that the script's new definition replaced."""

    task_id: int
    user: str


class TasksResponse(Message, frozen=True, kw_only=True):
    """Columns in the order of the request; `statuses` are the current statuses of the tasks.

    `superseded`: users' edits that the request replaced, because the script's own definition has changed.
    """

    task_ids: list[int]
    node_ids: list[int]
    statuses: list[str]
    superseded: list[SupersededEdit] = field(default_factory=list)


class RecordedTasks(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/recorded_tasks?after_id=&count=: recorded tasks, ordered by id.

    `hash`: SHA-256 of the concatenated `task_hashes`. If the client's next tasks have the same hash, they are the
    same tasks, and the client resends only those that are not DONE.
    """

    task_ids: list[int]
    node_ids: list[int]
    statuses: list[str]
    hash: str


class EdgesRequest(Message, frozen=True, kw_only=True):
    """POST /dags/{dag_id}/edges: sets of upstream nodes, and the set of each node. -> `{}`

    Equal sets are sent once: `set_numbers[i]` is the caller's number of the set `upstream_nodes[i]`. A set larger
    than a chunk is sent in parts under the same number. `node_ids[i]` has the set `node_sets[i]` (a number sent in
    this or an earlier chunk). Nodes without upstreams are not sent. `last` closes the DAG.
    `key` is random per bind: set numbers are private to the caller, and two callers may record the same DAG at once.
    """

    set_numbers: list[BigCount]
    upstream_nodes: list[list[Id]]
    node_ids: list[Id]
    node_sets: list[BigCount]
    last: bool
    key: Name = ""


class BoundResponse(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/bound."""

    workflow_id: int
    task_count: int
