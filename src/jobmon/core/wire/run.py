"""Workflow runs: start, heartbeat, status, resume; limits and what people ask of a workflow."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """POST /workflows/{workflow_id}/runs: create a run, REGISTERED. -> `RunResponse`

    409 `WorkflowNotResumable` while another run of it is active; 409 `WorkflowAlreadyComplete` when it is DONE.
    `key` is random; the same key answers the same run, so the request may be repeated.
    """

    user: str
    host: str
    pid: int
    pid_start_time: float
    version: str
    next_report_increment: float
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResponse:
    """The run created."""

    workflow_run_id: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatRequest:
    """POST /workflow_runs/{workflow_run_id}/heartbeat -> `RunStatusResponse`"""

    status: str
    next_report_increment: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatusRequest:
    """POST /workflow_runs/{workflow_run_id}/status -> `RunStatusResponse`

    A LATE change is answered with the status that stands; an ILLEGAL one is 409 `InvalidStateTransition`.
    Moves the workflow by the coupling table.
    """

    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatusResponse:
    """The status that stands now."""

    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateResponse:
    """POST /workflow_runs/{workflow_run_id}/terminate_task_instances with `{}`.

    QUEUED attempts ended at once; the other live ones went to KILL_SELF.
    """

    ended: int
    to_kill: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TriageResponse:
    """POST /workflow_runs/{workflow_run_id}/triage with `{}`: overdue attempts were sent to triage or closed."""

    triaging: int
    no_heartbeat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRun:
    """A run that is not final, with what is needed to find out whether its client lives."""

    workflow_run_id: int
    status: str
    user: str
    host: str
    pid: int
    pid_start_time: float
    heartbeat_overdue: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRunsResponse:
    """GET /workflows/{workflow_id}/active_runs"""

    workflow_id: int
    workflow_status: str
    runs: list[ActiveRun]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequest:
    """POST /workflows/{workflow_id}/resume: ask to take over. May be repeated. -> `ResumeResponse`

    `gone_run_ids`: runs whose client the caller, on the recorded host, found to be gone. Such runs and overdue ones are
    closed at once (`fsm.RUN_WHEN_LOST`); live ones get COLD_RESUME or HOT_RESUME. Cold: QUEUED attempts end at once,
    all other live ones get KILL_SELF. Hot: QUEUED ones end at once, the others stay as they are.
    409 `InvalidRequest` when `user` is given, is not the workflow's owner and `any_owner` is not set.
    """

    reset_running_jobs: bool = True
    gone_run_ids: list[int] = field(default_factory=list)
    user: str = ""
    any_owner: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeResponse:
    """GET /workflows/{workflow_id}/resume or the answer to `ResumeRequest`: may a new run start?

    `kill_self`: attempts still in KILL_SELF; `distributors`: the distributors that may still settle them. A new one
    that is to settle them registers for `newest_run_id`: those of older runs are fenced.
    """

    is_resumable: bool
    workflow_status: str
    active_runs: list[ActiveRun]
    kill_self: int
    distributors: list[Distributor]
    newest_run_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Distributor:
    """A distributor as it registered; `seen_seconds_ago` is since its last request."""

    workflow_run_id: int
    host: str
    pid: int
    pid_start_time: float
    seen_seconds_ago: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForceCleanupResponse:
    """POST /workflows/{workflow_id}/force_cleanup with `{}`: attempts in KILL_SELF that were closed.

    `perhaps_alive`: those of which there was a sign of life not long ago, and where they run, as sentences for people.
    """

    cleaned: int
    perhaps_alive: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetRequest:
    """POST /workflows/{workflow_id}/reset_tasks: tasks that are not DONE go to REGISTERING with no attempts used.

    Without `keep_done` those that are DONE too. `user`: the person who asks, if it is one.

    `reset_if_running=False` leaves tasks with a live attempt as they are; else there must be none. Requests for
    resources that were raised after a failure stay with `keep_resources`, else what was asked for first counts again.
    409 `WorkflowNotResumable` while a run of the workflow is active. -> `{}`
    """

    reset_if_running: bool = True
    keep_resources: bool = True
    keep_done: bool = True
    user: str = ""
    any_owner: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest:
    """POST /workflows/{workflow_id}/stop: a person stops it. -> `StopResponse`

    Active runs become STOPPED and launch nothing more. `kill`: their attempts are told to end; else they may finish.
    """

    user: str
    kill: bool = True
    any_owner: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StopResponse:
    """Runs that were stopped; attempts that ended at once, that were told to end, and that may finish."""

    workflow_status: str
    run_ids: list[int]
    ended: int
    to_kill: int
    left_running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyRequest:
    """PUT /workflows/{workflow_id}/concurrency, PUT /arrays/{array_id}/concurrency,
    PUT /workflows/{workflow_id}/arrays/{name}/concurrency. -> `ConcurrencyResponse`

    `user`: the person who asks.
    """

    max_concurrently_running: int
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyResponse:
    """GET or PUT of the same routes."""

    max_concurrently_running: int
