"""How people steer a workflow: reset it, say how tasks stand; and what was done so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

TASKS_UPDATED_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUpdatePlanRequest:
    """POST /workflows/{workflow_id}/task_updates/plan: what would `TaskUpdateRequest` change? -> `TaskUpdatePlan`

    `recursive`: to DONE all that comes before the tasks too, to REGISTERING all that comes after them.
    """

    task_ids: list[int]
    status: str
    recursive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUpdatePlan:
    """The tasks that would change, how many of them stand where, how many stand there already, whether a run is active.

    `live`: how many of the tasks have an attempt that may be running.
    """

    task_ids: list[int]
    counts: dict[str, int]
    unchanged: int
    live: int
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUpdateRequest:
    """POST /workflows/{workflow_id}/task_updates -> `TaskUpdateResponse`. At most `TASKS_UPDATED_MAX` tasks.

    `status` is DONE or REGISTERING. While a run is active only with `force`; done tasks are not reset even then, since
    that run counts on them. Live attempts are ended with `force` (to REGISTERING), else 409 `InvalidRequest`.
    """

    task_ids: list[int]
    status: str
    user: str
    force: bool = False
    any_owner: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUpdateResponse:
    """How many tasks changed, how many attempts were told to end (their tasks follow them), how the workflow stands."""

    changed: int
    to_kill: int
    workflow_status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """What somebody did. `actor`: user, client, server or reaper; `user` where it is known."""

    at: datetime
    actor: str
    action: str
    user: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryResponse:
    """GET /workflows/{workflow_id}/history?limit=: newest first."""

    entries: list[HistoryEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeRequest:
    """POST /workflows/{workflow_id}/purge: forget a workflow, its tasks and attempts for good. -> `PurgeResponse`

    409 `InvalidRequest` while a run or an attempt of it is active, or if it belongs to somebody else.
    """

    user: str
    any_owner: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeResponse:
    """How many tasks went."""

    tasks: int
