"""The recorded definition of a workflow, for a client that compares it with its own; and new versions of a workflow.

To compare, a client gets `RecordedWorkflow`, which says whether the workflow is recorded; then one `DefinitionPage`
after another until the last; then the sets that the pages refer to, with `UpstreamsRequest`.

To change a workflow, `VersionRequest` begins a version. Its changes are *staged* in parts: `StagedTasks`,
`StagedDefinitions`, `StagedUpstreams`, `StagedStatuses`. Each part has a position (from 0) under which it may be
repeated. No part takes effect until `SealRequest`, which applies all of them in the order of their positions. A sealed
version is always completed; a version that was not sealed is dropped when another one begins or a run is created. All
messages about a version carry the `key` with which it was begun.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import field

from jobmon.core.wire import Message
from jobmon.core.wire.binding import RedefineRequest, SupersededEdit, TasksRequest
from jobmon.core.wire.fields import BigCount, Count, Hash, Id, Name, Text

DEFINITION_TASKS_MAX = 2_000
DEFINITION_CHARACTERS_MAX = 5_000_000
UPSTREAM_SETS_MAX = 5_000
UPSTREAMS_PER_ANSWER_MAX = 50_000
STAGED_TASKS_MAX = 2_500
STAGED_UPSTREAMS_MAX = 50_000


class RecordedWorkflow(Message, frozen=True, kw_only=True):
    """GET /recorded_workflow?tool_name=&tool_version_id=&workflow_args_hash=, or GET /workflows/{id}/recorded.

    `workflow_id` None: nothing is recorded. `dag_hash` and `task_hash`: hashes of the definition. `working_directory`:
    the folder in which its commands run.
    """

    workflow_id: int | None
    tool_name: str = ""
    name: str = ""
    workflow_args: str = ""
    status: str = ""
    dag_hash: str = ""
    task_hash: str = ""
    version: int = 1
    working_directory: str = ""


class RecordedTemplate(Message, frozen=True, kw_only=True):
    """A template version. `node_args` and `task_args`: names, in the order of the values of its tasks."""

    name: str
    command_template: str
    node_args: list[str]
    task_args: list[str]


class RanDefinition(Message, frozen=True, kw_only=True):
    """The definition that the newest started attempt of a task ran, if the definition of the task has changed since.

    `template_index`: index into the templates of the page. `upstreams`: the hash of its upstream tasks; "": they are
    the same as now.
    """

    template_index: int
    command: str
    task_args: list[str]
    upstreams: str


class RecordedAttempt(Message, frozen=True, kw_only=True):
    """The newest attempt of a task that is not done. `is_success`: whether the newest started attempt succeeded."""

    status: str
    is_started: bool
    is_success: bool = False
    cause: str | None = None
    exit_code: int | None = None
    signal: int | None = None


class RecordedEdit(Message, frozen=True, kw_only=True):
    """An edit of a task by a user. `command`: what the script defined; None: the command is not edited."""

    user: str
    command: str | None = None


class DefinitionPage(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/definition?after=&count=&origin=: the next tasks by id, as columns.

    `origin`: only the tasks that this expansion has added.

    Contains fewer tasks than requested if commands are long; `is_last`: there are no more.
    `template_index`: of each task, index into `templates`. `set_ids`: the set of upstream nodes, 0 if there is none.
    `seconds`: duration of the newest attempt of a done task. `queued` and `ended`: the logical times at which the
    newest started attempt was queued and succeeded, microseconds. By position: `attempts` of tasks not done; `ran`;
    `accepted`, hashes for which results were accepted; `requested`, the tasks of which a rerun was requested; `held`,
    tasks that are not launched until they are released; `edits`, those that a user edited; `expansions`, and for the
    tasks that an expansion added, its ID (`origins`). The call of an expansion counts as its attempt.
    """

    templates: list[RecordedTemplate]
    task_ids: list[int]
    names: list[str]
    statuses: list[str]
    commands: list[str]
    template_index: list[int]
    node_args: list[list[str]]
    task_args: list[list[str]]
    set_ids: list[int]
    seconds: list[float | None]
    queued: list[int | None]
    ended: list[int | None]
    attempts: dict[int, RecordedAttempt] = field(default_factory=dict)
    ran: dict[int, RanDefinition] = field(default_factory=dict)
    accepted: dict[int, str] = field(default_factory=dict)
    requested: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    edits: dict[int, RecordedEdit] = field(default_factory=dict)
    expansions: list[int] = field(default_factory=list)
    origins: dict[int, int] = field(default_factory=dict)
    is_last: bool = False


class UpstreamsRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/upstreams: the tasks in sets of upstream nodes -> `UpstreamsResponse`.

    `after_task`: from the first set, only tasks with higher ids.
    """

    set_ids: list[Id]
    after_task: BigCount = 0


class UpstreamsResponse(Message, frozen=True, kw_only=True):
    """The tasks of as many of the sets as fit into a response, in the order of the request.

    `last_task`: where to resume in the last of these sets; 0: that set is complete.
    """

    task_ids: list[list[int]]
    last_task: int = 0


class VersionRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/versions: begin a version -> `VersionResponse`.

    409 `WorkflowVersionConflict` if `base` is not the current version. `summary`: human-readable changes. `key` is
    random, because two clients may begin a version of the same number.

    `expansion_id`: the expansion whose function, called in the active run `workflow_run_id`, returned the tasks to add.
    The definition of the script then stays the same, and `base`, the hashes and the counts are ignored.
    """

    key: Name
    base: Count
    dag_hash: Hash
    task_hash: Hash
    task_count: BigCount
    task_counts: dict[Name, BigCount]
    user: Name
    host: Name
    summary: list[Text]
    expansion_id: Id | None = None
    workflow_run_id: Id | None = None


class VersionResponse(Message, frozen=True, kw_only=True):
    """The version that was begun, or that is in force after `SealRequest`. `dag_id`: the DAG of the workflow.

    `superseded`: the edits of users that the version replaced.
    """

    number: int
    dag_id: int
    superseded: list[SupersededEdit] = field(default_factory=list)


class StagedTasks(TasksRequest, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/versions/{number}/tasks: tasks to add -> `TasksResponse`."""

    key: Name
    position: Count


class StagedDefinitions(RedefineRequest, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/versions/{number}/definitions: tasks whose definition or upstream tasks change.

    `upstreams`: the hash of the upstream tasks that each task had before. -> `{}`
    """

    key: Name
    position: Count
    task_args: dict[Name, list[Text]]
    upstreams: list[Hash]


class StagedUpstreams(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/versions/{number}/upstreams: sets of upstream tasks, and each task's set -> `{}`.

    `set_numbers[i]` is the client's number of the set with the tasks `members[i]`; a large set is sent in parts under
    the same number. `task_ids[i]` gets the set `task_sets[i]`, sent in this or an earlier part; 0: none. Alternatively,
    a recorded set is edited for all tasks that have it: `edited[i]` gains the tasks `gained[i]` and loses `lost[i]`.
    """

    key: Name
    position: Count
    set_numbers: list[Id] = field(default_factory=list)
    members: list[list[Id]] = field(default_factory=list)
    task_ids: list[Id] = field(default_factory=list)
    task_sets: list[BigCount] = field(default_factory=list)
    edited: list[Id] = field(default_factory=list)
    gained: list[list[Id]] = field(default_factory=list)
    lost: list[list[Id]] = field(default_factory=list)


class StagedStatuses(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/versions/{number}/statuses: changes of task statuses -> `{}`.

    `change`: a `core.changes.StatusChange`. `accepted`: for "accept", the hash for which each result is accepted.
    "expanded": the expansion of the version is DONE; must be its last part.
    """

    key: Name
    position: Count
    change: Name
    task_ids: list[Id]
    accepted: list[Hash] = field(default_factory=list)


class SealRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/versions/{number}/seal: apply all `parts` parts that have been sent.

    409 `WorkflowVersionConflict` if the workflow was changed or run in the meantime. -> `VersionResponse`
    """

    key: Name
    parts: Count


class DropRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/drop_version: drop a version of which no part is in force yet -> `{}`."""

    user: Name = ""
    any_owner: bool = False


class Version(Message, frozen=True, kw_only=True):
    """A version of a workflow. `summary`: what changed, in lines. `workflow_run_ids`: the runs of this version.

    `task_count` None: no longer known.
    """

    number: int
    state: str
    created_at: datetime
    user: str
    host: str
    task_count: int | None
    summary: list[str]
    workflow_run_ids: list[int]


class VersionsResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/versions: oldest first."""

    workflow_id: int
    versions: list[Version]


class EditedTask(Message, frozen=True, kw_only=True):
    """A task that differs from its script. `was`, `now`: "command", "resources", "max_attempts", if edited."""

    task_id: int
    name: str
    user: str
    edited_at: datetime
    was: dict[str, Any]
    now: dict[str, Any]


class EditsResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/edited_tasks: the tasks that users edited, the newest edit first."""

    edits: list[EditedTask]
    is_cut: bool = False


class TaskRevision(Message, frozen=True, kw_only=True):
    """A definition of a task. `attempts`: the numbers of the attempts that ran it."""

    number: int
    command: str
    task_args: dict[str, str]
    attempts: list[int]


class RevisionsResponse(Message, frozen=True, kw_only=True):
    """GET /tasks/{task_id}/revisions: the definitions of a task, the current one first. `edited_by`: who edited it."""

    revisions: list[TaskRevision]
    edited_by: str = ""
    edited_at: datetime | None = None
