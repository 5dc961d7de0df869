"""Workflow runs: start, heartbeat, status, resume; concurrency limits and users' requests to a workflow."""

from __future__ import annotations

from msgspec import field

from jobmon.core.wire import Message
from jobmon.core.wire.agents import AgentProcess
from jobmon.core.wire.fields import Count, Id, Name, ProcessId, Seconds, Text
from jobmon.core.wire.launching import ClusterInfo


class RunRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/runs: create a run, REGISTERED. -> `RunResponse`

    409 `WorkflowNotResumable` while another run of it is active; 409 `WorkflowAlreadyComplete` if it is DONE.
    `key` is random; the same key gets the same run, so the request may be repeated. `parent_task_instance_id`: the
    attempt whose command starts the run, on the server of `parent_server_identity`; ignored if that is another server,
    or if the attempt is not live or belongs to a different user.
    """

    user: Name
    host: Name
    pid: ProcessId
    pid_start_time: float
    version: Name
    next_report_increment: Seconds
    key: Name
    parent_task_instance_id: Id | None = None
    parent_server_identity: Name = ""


class RunResponse(Message, frozen=True, kw_only=True):
    """A run: the response to its creation, and to GET /workflow_runs/{workflow_run_id}.

    `clusters`: all clusters that tasks and live attempts of the workflow request. `has_attempts_of_distributors`:
    whether earlier runs have live attempts that only a distributor can handle.
    """

    workflow_run_id: int
    status: str
    workflow_id: int = 0
    clusters: list[ClusterInfo] = field(default_factory=list)
    has_attempts_of_distributors: bool = False


class LeadRequest(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/lead: lead a BOUND run that another process created. -> `RunResponse`

    `former_pid`, `former_pid_start_time`: the process that leads it now, on the same host. The request may be repeated.
    409 `StaleRun` if another process leads the run, or if it is not BOUND.
    """

    host: Name
    pid: ProcessId
    pid_start_time: float
    former_pid: ProcessId
    former_pid_start_time: float
    next_report_increment: Seconds


class HeartbeatRequest(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/heartbeat -> `RunStatusResponse`"""

    status: Name
    next_report_increment: Seconds


class RunStatusRequest(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/status -> `RunStatusResponse`

    A LATE change is answered with the current status; an ILLEGAL one with 409 `InvalidStateTransition`.
    Moves the workflow by the coupling table. `reason` is an `EndReason`, or None if the status says enough.
    """

    status: Name
    reason: Name | None = None


class RunStatusResponse(Message, frozen=True, kw_only=True):
    """The current status."""

    status: str


class TerminateResponse(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/terminate_task_instances with `{}`.

    QUEUED attempts ended at once; the other live attempts went to KILL_SELF.
    """

    ended: int
    to_kill: int


class TriageResponse(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/triage with `{}`: overdue attempts were sent to triage or closed."""

    triaging: int
    no_heartbeat: int


class ActiveRun(Message, frozen=True, kw_only=True):
    """A run that is not final, with what is needed to find out whether its client is alive."""

    workflow_run_id: int
    status: str
    user: str
    host: str
    pid: int
    pid_start_time: float
    heartbeat_overdue: bool


class ActiveRunsResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/active_runs"""

    workflow_id: int
    workflow_status: str
    runs: list[ActiveRun]


class ResumeRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/resume: request to take over. May be repeated. -> `ResumeResponse`

    `gone_run_ids`: runs whose client the caller, on the recorded host, found to be gone. Such runs and overdue ones are
    closed at once (`fsm.RUN_WHEN_LOST`); live ones get COLD_RESUME or HOT_RESUME. Cold: QUEUED attempts end at once,
    all other live attempts get KILL_SELF. Hot: QUEUED attempts end at once, the others are left unchanged.
    409 `InvalidRequest` if `user` is given but is not the workflow's owner, and `any_owner` is not set.
    """

    reset_running_jobs: bool = True
    gone_run_ids: list[Id] = field(default_factory=list)
    user: Name = ""
    any_owner: bool = False


class ResumeResponse(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/resume, and the response to `ResumeRequest`: whether a new run may start.

    `kill_self`: number of attempts still in KILL_SELF; `kill_self_of_agents`: how many of them belong to agents.
    `distributors`, `agents`: those that may still settle them. A new distributor that is to settle them registers for
    `newest_run_id`: those of older runs are fenced.
    """

    is_resumable: bool
    workflow_status: str
    active_runs: list[ActiveRun]
    kill_self: int
    distributors: list[Distributor]
    newest_run_id: int | None = None
    agents: list[AgentProcess] = field(default_factory=list)
    kill_self_of_agents: int = 0


class Distributor(Message, frozen=True, kw_only=True):
    """A distributor as it registered; `seen_seconds_ago`: time since its last request."""

    workflow_run_id: int
    host: str
    pid: int
    pid_start_time: float
    seen_seconds_ago: float


class ForceCleanupResponse(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/force_cleanup with `{}`: attempts in KILL_SELF that were closed.

    `perhaps_alive`: those that showed signs of life recently, and where they run, as sentences for people.
    """

    cleaned: int
    perhaps_alive: list[str] = field(default_factory=list)


class ResetRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/reset_tasks: reset tasks that are not DONE to REGISTERING with no attempts used.

    Without `keep_done`, DONE tasks are reset too. `user`: the person who requests it, if any.

    `reset_if_running=False` leaves tasks with a live attempt unchanged; otherwise there must be none. With
    `keep_resources`, requests that were raised after a failure are kept; otherwise the original requests apply again.
    409 `WorkflowNotResumable` while a run of the workflow is active. -> `{}`
    """

    reset_if_running: bool = True
    keep_resources: bool = True
    keep_done: bool = True
    user: Name = ""
    any_owner: bool = False


class BackgroundResumeRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/background_resume: the embedded server starts a run that nobody has to attend.

    -> `BackgroundResumeResponse`. 409 `WorkflowVersionConflict` while a run is active, `InvalidRequest` on a shared
    server.
    """

    user: Name
    any_owner: bool = False


class BackgroundResumeResponse(Message, frozen=True, kw_only=True):
    """Whether the new run has begun, and what the client said that started it."""

    is_running: bool
    message: str


class StopRequest(Message, frozen=True, kw_only=True):
    """POST /workflows/{workflow_id}/stop: a person stops the workflow. -> `StopResponse`

    Active runs become STOPPED and launch nothing more. `kill`: terminate their attempts; otherwise they may finish.
    `workflow_run_id`: 409 `WorkflowVersionConflict` if another run is active, or none.
    """

    user: Name
    kill: bool = True
    any_owner: bool = False
    workflow_run_id: Id | None = None


class StopResponse(Message, frozen=True, kw_only=True):
    """Runs that were stopped; attempts that ended at once, that were told to terminate, and that may finish."""

    workflow_status: str
    run_ids: list[int]
    ended: int
    to_kill: int
    left_running: int


class TaskAttributesRequest(Message, frozen=True, kw_only=True):
    """POST /tasks/{task_id}/attributes -> {}. Set these attributes of a task; its other attributes are kept."""

    attributes: dict[Name, Text]


class ConcurrencyRequest(Message, frozen=True, kw_only=True):
    """PUT /workflows/{workflow_id}/concurrency, PUT /arrays/{array_id}/concurrency,
    PUT /workflows/{workflow_id}/arrays/{name}/concurrency. -> `ConcurrencyResponse`

    `user`: the person who requests it. `expected`: 409 `WorkflowVersionConflict` if the limit is a different one now.
    """

    max_concurrently_running: Count
    user: Name = ""
    expected: Count | None = None


class ConcurrencyResponse(Message, frozen=True, kw_only=True):
    """GET or PUT of the same routes."""

    max_concurrently_running: int
