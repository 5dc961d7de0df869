"""Right-sizing: what a workflow's tasks requested, used and wasted, and which request to make instead."""

from __future__ import annotations

from msgspec import field

from jobmon.core.wire import Message
from jobmon.core.wire.fields import Id, Name


class SizingRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/sizing -> `SizingResponse`

    Strategies: avg, min, max or a quantile such as q95 of what finished attempts used. `task_id`: only this task.
    `partial`: what has been added up so far is enough, if adding up takes long; see `share` of the response.
    """

    memory_strategy: Name = "max"
    cores_strategy: Name = "max"
    runtime_strategy: Name = "max"
    task_id: Id | None = None
    partial: bool = False


class Figures(Message, frozen=True, kw_only=True):
    """Statistics of the requested or used amount of a resource; GiB, cores or seconds."""

    count: int
    minimum: float
    mean: float
    median: float
    p95: float
    maximum: float


class Waste(Message, frozen=True, kw_only=True):
    """Resource-hours that attempts held, and how much of it was wasted, by cause.

    `over_request`: finished attempts held more than they used. `killed`: attempts that were terminated (for memory, for
    time, or by a person). `failed`: all other attempts that did not finish.
    """

    held: float
    over_request: float
    failed: float
    killed: float


class TemplateSizing(Message, frozen=True, kw_only=True):
    """One template's tasks in a workflow. `proposed` is a request; empty if nothing was measured.

    `saved_*`: resource-hours that the proposal would have saved. `would_kill`: how many of the `measured` finished
    attempts the proposal would have killed. `queues`: cluster -> queue where the tasks ran last.
    """

    template_name: str
    task_template_version_id: int
    tool_name: str
    queues: dict[str, str]
    attempts: int
    measured: int
    memory_requested: Figures | None
    memory_used: Figures | None
    cores_requested: Figures | None
    cores_used: Figures | None
    runtime_requested: Figures | None
    runtime_used: Figures | None
    core_hours: Waste
    gib_hours: Waste
    proposed: dict[str, int | str] = field(default_factory=dict)
    saved_core_hours: float = 0.0
    saved_gib_hours: float = 0.0
    would_kill: int = 0


class SizingResponse(Message, frozen=True, kw_only=True):
    """The templates of a workflow whose tasks have run.

    `share`: of the attempts, how many are in it: less than 1 only if `partial` was requested, for a moment.
    """

    workflow_id: int
    templates: list[TemplateSizing]
    share: float = 1.0


class HistoryResponse(Message, frozen=True, kw_only=True):
    """GET /task_template_versions/{task_template_version_id}/history: what its newest finished tasks used, as columns.

    `node_args`: name -> value of each task.
    """

    seconds: list[float]
    cpu_seconds: list[float | None]
    memory_gib: list[float | None]
    node_args: dict[str, list[str]] = field(default_factory=dict)
