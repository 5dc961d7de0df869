"""How people control a workflow: reset it, set task statuses, hold tasks; and the audit trail of such actions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import field

from jobmon.core.wire import Message
from jobmon.core.wire.fields import Count, Hash, Id, Name, Priority, Stamp, Text
from jobmon.core.wire.swarm import ResourcesInfo

TASKS_UPDATED_MAX = 10_000
#: Maximum number of tasks in a plan to hold or release: they are held in requests of `TASKS_UPDATED_MAX`.
TASKS_PLANNED_MAX = 1_000_000


class TaskUpdatePlanRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/task_updates/plan: what `TaskUpdateRequest` would change. -> `TaskUpdatePlan`

    `recursive`: to DONE, include all upstream tasks; to REGISTERING, include all downstream tasks.
    """

    task_ids: list[Id]
    status: Name
    recursive: bool = False


class TaskUpdatePlan(Message, frozen=True, kw_only=True):
    """Tasks that would change, their counts by status, how many have the status already, and whether a run is active.

    `live`: how many of the tasks have an attempt that may be running.
    """

    task_ids: list[int]
    counts: dict[str, int]
    unchanged: int
    live: int
    is_active: bool


class TaskUpdateRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/task_updates -> `TaskUpdateResponse`. At most `TASKS_UPDATED_MAX` tasks.

    `status` is DONE, REGISTERING or SKIPPED. While a run is active, `force` is required. `force` also terminates live
    attempts (to REGISTERING), else 409 `InvalidRequest`, as for tasks to be skipped that are done or in progress.
    `accepted_ids`: done downstream tasks that are not to be rerun because of this; `accepted`: for each of them the
    hash for which its result is accepted.
    `unchanged_since`: as for `HoldRequest`; a task whose status changed counts, too.
    """

    task_ids: list[Id]
    status: Name
    user: Name
    force: bool = False
    any_owner: bool = False
    accepted_ids: list[Id] = field(default_factory=list)
    accepted: list[Hash] = field(default_factory=list)
    unchanged_since: Stamp = 0


class TaskUpdateResponse(Message, frozen=True, kw_only=True):
    """How many tasks changed, how many attempts were told to terminate (their tasks follow), the workflow status."""

    changed: int
    to_kill: int
    workflow_status: str


class HoldRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/holds: hold tasks, or release them (`held` false). -> `HoldResponse`

    Names at most `TASKS_UPDATED_MAX` tasks, or a `template`, which selects its tasks. In the latter case at most this
    many change per request, and the request has to be repeated until none changes. Done tasks are not changed.
    `preview`: change nothing, and count what would change. `unchanged_since`: the `snapshot` of a `TaskSetPlan`; 409
    `WorkflowVersionConflict` if somebody held, released, edited, reopened or reprioritized tasks of the workflow since
    then. 0: do not check.
    """

    task_ids: list[Id] = field(default_factory=list)
    template: Name = ""
    held: bool = True
    preview: bool = False
    user: Name = ""
    any_owner: bool = False
    unchanged_since: Stamp = 0


class HoldResponse(Message, frozen=True, kw_only=True):
    """How many tasks were held or released, how many of their attempts were recalled, how many tasks did not change.

    `finished`: those of the named tasks that did not change because they are done or skipped.
    `snapshot`: for the next of several requests with one preview, its `unchanged_since`: this request changed the
    workflow, too.
    """

    changed: int
    recalled: int = 0
    unchanged: int = 0
    finished: list[int] = field(default_factory=list)
    snapshot: int = 0


class PriorityRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/priorities: set the priority of tasks, a template or the workflow.

    -> `PriorityResponse`. Names at most `TASKS_UPDATED_MAX` tasks, or a `template`; neither means the workflow. The
    request has to be repeated until the response is complete. `preview`: change nothing, and count what would change.
    `unchanged_since`: as for `HoldRequest`. `expected`: 409 `WorkflowVersionConflict` if the template or workflow has
    another priority now.
    """

    priority: Priority
    task_ids: list[Id] = field(default_factory=list)
    template: Name = ""
    preview: bool = False
    user: Name = ""
    any_owner: bool = False
    unchanged_since: Stamp = 0
    expected: Priority | None = None


class PriorityResponse(Message, frozen=True, kw_only=True):
    """How many unfinished tasks have another priority now, and how many of their workflow's attempts were recalled.

    `is_complete`: all queued attempts are in the new order. `finished`: as in `HoldResponse`. `former`: the priority of
    the template or workflow before.
    """

    changed: int
    recalled: int = 0
    is_complete: bool = True
    finished: list[int] = field(default_factory=list)
    former: int | None = None


class EditPlanRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/edits/plan: what `EditRequest` refers to. -> `EditPlan`"""

    task_ids: list[Id]


class EditPlan(Message, frozen=True, kw_only=True):
    """Tasks as columns, in the order of the request. `statuses`: letters.

    `task_resources_ids`: the requests for resources, found in `resources`; None: determined later by the client.
    `edited`: whether the task differs from what its script defined. `live`: how many have an attempt in progress.
    """

    names: list[str]
    statuses: list[str]
    revisions: list[int]
    task_resources_ids: list[int | None]
    edited: list[bool]
    resources: list[ResourcesInfo]
    live: int = 0
    is_active: bool = False


class EditRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/edits: change the definition of tasks for their next attempts. -> `EditResponse`

    Names at most `TASKS_UPDATED_MAX` tasks, with the revisions on which the edit is based: 409 `InvalidRequest` if one
    of them has another one by now. `command`, `max_attempts`: None leaves them as they are. `task_resources_ids`: one
    for each task; empty leaves them. `reset`: restore what the script defined. `rerun`: reopen done tasks and terminate
    live attempts; otherwise 409 for done tasks.
    """

    task_ids: list[Id]
    revisions: list[Count]
    command: Text | None = None
    max_attempts: Count | None = None
    task_resources_ids: list[Id] = field(default_factory=list)
    reset: bool = False
    rerun: bool = False
    user: Name = ""
    any_owner: bool = False


class EditResponse(Message, frozen=True, kw_only=True):
    """How many tasks have another definition now, and how many of their attempts were recalled or told to terminate."""

    changed: int
    recalled: int = 0


class AdjustRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/adjustments: edit what tasks request, not what they run. -> `EditResponse`

    As `EditRequest`, but the server merges the resources with those that each task requests now, within the limits of
    its queue. `memory`, `runtime`, `cores`: as in a script, such as "8G", "2h", "2"; "" leaves them. `reset`: restore
    what the script defined, also the command. `unchanged_since`: as for `HoldRequest`.
    """

    task_ids: list[Id]
    memory: Name = ""
    runtime: Name = ""
    cores: Name = ""
    max_attempts: Count | None = None
    reset: bool = False
    user: Name = ""
    any_owner: bool = False
    unchanged_since: Stamp = 0


class TaskSetRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/task_sets/plan: what an action on a set of tasks would do. -> `TaskSetPlan`

    `action`: a `SetAction`; `priority`: the new one, for that action. The set: `task_ids`, or, without any, all tasks
    that match `status` (repeatable), `array`, `name` and `host`, as for `TaskSummariesResponse`. At most
    `TASKS_PLANNED_MAX` tasks to hold or release, and at most `TASKS_UPDATED_MAX` for every other action.
    """

    action: Name
    task_ids: list[Id] = field(default_factory=list)
    status: list[Name] = field(default_factory=list)
    array: Name = ""
    name: Name = ""
    host: Name = ""
    priority: Priority = 0


class TaskSetPlan(Message, frozen=True, kw_only=True):
    """The tasks that the action would change, at the logical time `snapshot`, and their counts by status.

    `selected`: tasks in the set; `unchanged`: how many of them would not change; `added`: tasks downstream of the set
    that would change with it. `live`: how many of the changing tasks have an attempt that may be running. `is_active`:
    whether a run is active. `priority`: the own priority that all changing tasks have now; None: they differ.
    """

    snapshot: int
    task_ids: list[int]
    counts: dict[str, int]
    selected: int
    unchanged: int
    added: int
    live: int
    is_active: bool
    priority: int | None = None


class HistoryEntry(Message, frozen=True, kw_only=True):
    """An action of a user or component. `actor`: user, client, server or reaper; `user`: as the client stated.

    `principal`: the owner of the credential, as determined by the server; "" in entries older than credentials.
    """

    at: datetime
    actor: str
    action: str
    user: str
    details: dict[str, Any] = field(default_factory=dict)
    principal: str = ""


class HistoryResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/history?limit=&routine=: newest first.

    `routine` false: without what clients do on their own.
    """

    entries: list[HistoryEntry]


class PurgeRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/purge: delete a workflow with its tasks and attempts. -> `PurgeResponse`

    409 `InvalidRequest` while a run or an attempt of it is active, or if it belongs to a different user.
    """

    user: Name
    any_owner: bool = False


class PurgeResponse(Message, frozen=True, kw_only=True):
    """How many tasks were deleted."""

    tasks: int
