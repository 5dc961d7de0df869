"""The most frequent conversation: a distributor takes attempts, reports their progress, and receives what to terminate.

One route, `POST /workflow_runs/{workflow_run_id}/sync`, is used by two kinds of requests, one of each in flight. The
*poll* has `wait_seconds` and no reports. It is answered when there is work for `capacity`, something to terminate or to
triage, or when the run's status changed. The *report* request sends what accumulated. It is answered at once, and the
same transaction claims work for its own `capacity`, so that one round trip reports results and fetches new work.

A stand-alone worker (Slurm, ...) gets its command with `POST /worker/start` and sends the same `Report`s to
`POST /worker/report`. A job that runs many tasks (*packed*) gets them one after another with `POST /worker/take`; the
distributor handles only these jobs, never the attempts in them.
"""

from __future__ import annotations

from typing import Any

from msgspec import field
from msgspec.structs import force_setattr

from jobmon.core.wire import Message
from jobmon.core.wire.fields import (
    Bytes,
    Cores,
    Count,
    ExitCode,
    Id,
    Measured,
    Name,
    Number,
    ProcessId,
    Seconds,
    Signal,
    Stamp,
    Text,
    Time,
    check_time,
)

REPORTS_PER_REQUEST_MAX = 5_000
LAUNCHES_PER_RESPONSE_MAX = 10_000
#: Limit for all commands in a response. A character may need six bytes in JSON; a test checks the product.
COMMAND_CHARACTERS_PER_RESPONSE_MAX = 5_000_000


class FromServer(Message, frozen=True, kw_only=True):
    """Fields that identify the server in every response to a reporter, so that no other response is mistaken for one.

    `server_identity` belongs to the server's database. `server_incarnation` changes when a server starts: an attempt
    that the previous incarnation did not have may exist again. `jobmon.agent.settlement` defines when a response
    settles a report.
    """

    server_identity: str = ""
    server_incarnation: str = ""

    def name_server(self, identity: str, incarnation: str) -> None:
        """Fill in the server in a response before it is sent. A copy would cost a tenth of a small request."""
        force_setattr(self, "server_identity", identity)
        force_setattr(self, "server_incarnation", incarnation)


class LaunchFiles(Message, frozen=True, kw_only=True):
    """The declared files of a task, as absolute paths: `*` is any part of a name, "/" at the end means a folder."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


class FoundFile(Message, frozen=True, kw_only=True):
    """A declared file as an attempt found it: before its command if it is an input, otherwise after it.

    `matches`: the number of files that match the path; `size_bytes`: of all of them; `modified`: when the newest of
    them was modified, microseconds since the epoch.
    """

    is_output: bool
    path: Text
    matches: Count
    size_bytes: Bytes
    modified: Number


class Report(Message, frozen=True, kw_only=True):
    """The progress or outcome of one attempt. Status is one of `fsm.REPORTS`; unknown values are None.

    A short command's RUNNING may be omitted: its final report carries `started_at`. Times are of the executing host.
    `of_job`: reported by the cluster about the job; it concerns the attempt only if a worker of the job was there.
    `files`: declared files that were found; `missing_file`: the path of one that was not.
    """

    task_instance_id: Id
    status: Name
    distributor_id: Name | None = None
    host: Name | None = None
    pid: ProcessId | None = None
    started_at: Time | None = None
    ended_at: Time | None = None
    exit_code: ExitCode | None = None
    signal: Signal | None = None
    cause: Name | None = None
    error: Text | None = None
    log_tail: Text | None = None  # last 10 KiB of the output, decoded with replacement
    stdout: Text | None = None  # path
    stderr: Text | None = None
    wallclock_seconds: Measured | None = None
    cpu_seconds: Measured | None = None
    max_rss_bytes: Bytes | None = None
    read_bytes: Bytes | None = None
    written_bytes: Bytes | None = None
    of_job: bool = False
    files: list[FoundFile] = field(default_factory=list)
    missing_file: Text | None = None

    def __post_init__(self) -> None:
        """Reject times that cannot be stored."""
        if self.started_at is not None or self.ended_at is not None:
            check_time("started_at", self.started_at)
            check_time("ended_at", self.ended_at)


class DistributorRequest(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/distributors: a distributor registers. -> `DistributorResponse`

    The newest registration of a workflow wins: older distributors are fenced at their next sync, after their reports
    were recorded. `key` is random; the same key gets the same response. `epoch`: the epoch of the earlier registration
    if this distributor registers again. 409 `StaleRun` if another distributor has registered since, or if one of a
    newer run ever registered, unless this one is *retired*: the newest of its host, where commands of the workflow run
    that no other host can monitor.
    """

    host: Name
    pid: ProcessId
    pid_start_time: float
    key: Name
    epoch: Count = 0


class LiveAttempt(Message, frozen=True, kw_only=True):
    """An attempt that an earlier distributor took and that has not ended, to be adopted."""

    task_instance_id: int
    task_id: int
    status: str
    cluster_name: str
    distributor_id: str | None
    array_id: int
    batch_number: int
    array_step_id: int
    requested_resources: dict[str, Any]
    name: str = ""
    launched_at: float = 0.0  # when it was handed out, seconds since the epoch
    packed: bool = False  # its batch was packed: the job that runs it takes it from the server


class ClusterInfo(Message, frozen=True, kw_only=True):
    """What a distributor needs to build the adapter of a cluster."""

    cluster_id: int
    name: str
    plugin: str
    connection: dict[str, Any]


class PackedBatch(Message, frozen=True, kw_only=True):
    """A packed batch with live attempts. `distributor_ids`: its known jobs that are not known to have ended.

    `submitted`: whether the submission was reported to the server.
    """

    batch_number: int
    cluster_name: str
    untaken: int
    submitted: bool
    distributor_ids: list[str]


class DistributorResponse(FromServer, frozen=True, kw_only=True):
    """`epoch` is sent with every sync. `clusters`: all clusters that tasks of the workflow request.

    `server_identity` is part of the tokens by which submissions are looked up. `stamp`: the server's logical time.
    `attempts`: live attempts, except those on the machines of other distributors. `retired`: see `SyncResponse`.
    `agent_token`: the credential of the workflow's workers; see `core.credentials`.
    """

    epoch: int
    workflow_id: int
    workflow_run_status: str
    working_directory: str
    umask: int
    clusters: list[ClusterInfo]
    attempts: list[LiveAttempt]
    attempt_heartbeat_interval: float
    report_by_buffer: float
    stamp: int = 0
    packed: list[PackedBatch] = field(default_factory=list)
    retired: bool = False
    agent_token: str = ""


class SlotsWanted(Message, frozen=True, kw_only=True):
    """A machine whose cores several agents share: what this agent holds and wants.

    `pool` identifies host, data folder and cluster. It has `total` cores (0: nothing more will be started). `version`
    is that of the last grant received (0: none), `held` the cores that may be in use until the next request, `wanted`
    all cores that could be used now, `head` the cores of the next waiting command (0: none is waiting).
    """

    pool: Name
    total: Cores
    version: Count = 0
    held: Cores = 0.0
    wanted: Cores = 0.0
    head: Cores = 0.0


class SlotsGranted(Message, frozen=True, kw_only=True):
    """The number of cores that may be used from now on. Grants are numbered; the highest number counts."""

    cores: float
    version: int


class SubmittedBatch(Message, frozen=True, kw_only=True):
    """The jobs submitted for a packed batch. No jobs: it was not submitted, and its attempts are queued again."""

    batch_number: Count
    distributor_ids: list[Name]


class EndedJob(Message, frozen=True, kw_only=True):
    """A job of a packed batch that has ended. Its status and cause, as in a `Report`, settle what ran in it."""

    distributor_id: Name
    status: Name
    cause: Name | None = None
    error: Text | None = None
    exit_code: ExitCode | None = None
    host: Name | None = None


class LaunchProblem(Message, frozen=True, kw_only=True):
    """Why a distributor cannot launch on a cluster now, in the wording of the cluster or the system.

    `since_seconds`, `tried_seconds`: how long ago it began, and the last try was; `next_seconds`: time to the next try.
    `waiting`: how many of the distributor's attempts are waiting for it.
    """

    text: Text
    since_seconds: Seconds
    tried_seconds: Seconds
    next_seconds: Seconds
    waiting: Count


class SyncRequest(Message, frozen=True, kw_only=True):
    """POST /workflow_runs/{workflow_run_id}/sync -> `SyncResponse`

    `capacity`: cluster name -> how many more attempts this request takes. `alive`: attempts whose heartbeat this is.
    `known_to_kill` / `known_to_triage`: received before and still in progress; a poll does not return for these again.
    `key` is random and the same when the request is repeated: if its response was lost, its launches are sent again.
    `slots`: sent only by distributors of earlier versions, which leased the cores of local clusters; they get them all.
    `ended_since`: sent by a distributor with attempts on classic clusters, whose workers report their outcomes to
    the server; asks which ended after this logical time. `pending`: attempt -> why it is waiting on its cluster.
    `packing`: clusters whose batches may be packed. `packed`: batches with live jobs, as far as the distributor knows.
    `live_jobs`: sent with a heartbeat, the jobs of these batches; extends the deadlines of attempts waiting for them.
    `local`: sent only by distributors of earlier versions, clusters whose commands run on the distributor's own machine
    and are not shown to those on other machines. `retired`: sent only by these, too: the distributor knows that it is
    retired; a poll does not return for that again.
    `launch_problems`: cluster name -> why nothing can be launched there, for all clusters; None: unchanged.
    `unheard`, `unheard_jobs`: attempts and packed jobs that have been running for a while according to their cluster;
    asks whether one of their workers has ever reached the server.
    """

    epoch: Count
    reports: list[Report] = field(default_factory=list)
    capacity: dict[Name, Number] = field(default_factory=dict)
    alive: list[Id] = field(default_factory=list)
    known_to_kill: list[Id] = field(default_factory=list)
    known_to_triage: list[Id] = field(default_factory=list)
    known_status: Name | None = None
    wait_seconds: Seconds = 0.0
    key: Name = ""
    slots: dict[Name, SlotsWanted] = field(default_factory=dict)
    ended_since: Stamp | None = None
    pending: dict[Id, Text] = field(default_factory=dict)
    packing: list[Name] = field(default_factory=list)
    packed: list[Count] = field(default_factory=list)
    live_jobs: list[Name] | None = None
    submitted: list[SubmittedBatch] = field(default_factory=list)
    ended_jobs: list[EndedJob] = field(default_factory=list)
    local: list[Name] = field(default_factory=list)
    retired: bool = False
    launch_problems: dict[Name, LaunchProblem] | None = None
    unheard: list[Id] = field(default_factory=list)
    unheard_jobs: list[Name] = field(default_factory=list)


class JobPlan(Message, frozen=True, kw_only=True):
    """How to submit a packed batch: `jobs` jobs with space for `width` concurrent tasks each (see `core.packing`).

    No jobs (0) if live pilots already handle it.
    """

    mode: str
    jobs: int
    width: int = 1
    runtime_seconds: float | None = None


class LaunchBatch(Message, frozen=True, kw_only=True):
    """Attempts of one array with one request for one cluster, taken together (Q -> I). Columns per attempt.

    `batch_number` is unique in the workflow; the `array_step_id` of the i-th attempt is i. `plan`: set if the batch is
    packed, which is recorded already.
    """

    batch_number: int
    array_id: int
    array_name: str
    cluster_name: str
    queue_name: str
    requested_resources: dict[str, Any]
    task_instance_ids: list[int]
    task_ids: list[int]
    names: list[str]
    commands: list[str]
    attempts: list[int]  # number of the attempt, from 1
    excluded_hosts: list[str] = field(default_factory=list)  # where workers of this run failed before their commands
    plan: JobPlan | None = None


class SyncResponse(FromServer, frozen=True, kw_only=True):
    """`late`: reports that were too late or repeated (ids), for the log.

    A fenced distributor gets `fenced=True` and no launches, and leaves. A distributor that was replaced from another
    host while its commands are running gets `retired=True` and no launches: one of an earlier version only monitors
    these commands until they have exited, any other one leaves. `refused`: attempt -> why, for reports that the state
    machine rules out. `unknown`: those among them whose attempt does not exist on this server. `slots`: all cores of
    each cluster that the request named.
    `ended`: attempts that ended after `ended_since`; `ended_until` is the next request's `ended_since`.
    `untaken`: for each batch in `packed`, how many attempts no job has taken. `over`: batches without live attempts,
    now or later; their `unstarted` jobs are to be terminated.
    `heard`, `heard_jobs`: those of `unheard` and `unheard_jobs` whose worker has reached the server; None: the request
    named none.
    """

    workflow_run_status: str
    fenced: bool = False
    retired: bool = False
    launches: list[LaunchBatch] = field(default_factory=list)
    kill: list[int] = field(default_factory=list)
    triage: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)
    slots: dict[str, SlotsGranted] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    ended_until: int | None = None
    untaken: dict[int, int] = field(default_factory=dict)
    over: list[int] = field(default_factory=list)
    unstarted: list[str] = field(default_factory=list)
    heard: list[int] | None = None
    heard_jobs: list[str] = field(default_factory=list)


class WorkerStartRequest(Message, frozen=True, kw_only=True):
    """POST /worker/start: a stand-alone worker requests its attempt, by id or by array, batch and step.

    -> `WorkerStartResponse`; marks the attempt RUNNING. 409 `AttemptOver` if the attempt is to be terminated or has
    ended, 404 `AttemptUnknown` if it does not exist.
    """

    task_instance_id: Id | None = None
    array_id: Id | None = None
    batch_number: Count | None = None
    array_step_id: Count | None = None
    distributor_id: Name | None = None
    host: Name
    pid: ProcessId
    started_at: Time

    def __post_init__(self) -> None:
        """Reject a time that cannot be stored."""
        check_time("started_at", self.started_at)


class WorkerStartResponse(FromServer, frozen=True, kw_only=True):
    """Everything that is needed to run the command."""

    task_instance_id: int
    task_id: int
    workflow_id: int
    workflow_run_id: int
    task_name: str
    attempt: int
    command: str
    requested_resources: dict[str, Any]
    working_directory: str
    umask: int
    heartbeat_interval: float
    report_by_buffer: float
    files: LaunchFiles | None = None


class WorkerReportRequest(Message, frozen=True, kw_only=True):
    """POST /worker/report: reports and heartbeats of a worker. -> `WorkerReportResponse`

    `pending`: attempt -> why its command is not running yet although its worker is; "": it is running.
    """

    reports: list[Report] = field(default_factory=list)
    alive: list[Id] = field(default_factory=list)
    pending: dict[Id, Text] = field(default_factory=dict)


class WorkerReportResponse(FromServer, frozen=True, kw_only=True):
    """`kill`: reported or alive attempts that are in KILL_SELF, and alive attempts that were declared lost.

    `refused`, `unknown`: as in `SyncResponse`.
    """

    kill: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)


class WorkerTakeRequest(Message, frozen=True, kw_only=True):
    """POST /worker/take: a job of a packed batch reports, sends heartbeats, and takes work. -> `WorkerTakeResponse`

    `capacity` tasks are to be started now (they become RUNNING), `ahead` more soon (LAUNCHED under this job). `alive`:
    all attempts that it has. `key` is random and the same when the request is repeated: if its response was lost, its
    tasks are sent again. It begins with an increasing number and a colon: a delayed older request gets nothing.
    With `wait_seconds` the request is held until there is something to kill that is not in `known_to_kill`, work (if
    `wants_work`), or no work will come any more. Such a request takes nothing and needs no `alive`. `leaving`: the job
    exits; what it has not reported is lost. `pending`: as in `WorkerReportRequest`.
    """

    array_id: Id
    batch_number: Count
    distributor_id: Name
    host: Name = ""
    reports: list[Report] = field(default_factory=list)
    alive: list[Id] = field(default_factory=list)
    pending: dict[Id, Text] = field(default_factory=dict)
    capacity: Number = 0
    ahead: Number = 0
    key: Name = ""
    wait_seconds: Seconds = 0.0
    wants_work: bool = False
    known_to_kill: list[Id] = field(default_factory=list)
    leaving: bool = False


class WorkerTasks(Message, frozen=True, kw_only=True):
    """Columns per attempt; attempts that are to be started now come first. `files`: as in `AgentLaunches`."""

    task_instance_ids: list[int]
    task_ids: list[int]
    names: list[str]
    commands: list[str]
    attempts: list[int]
    files: dict[int, LaunchFiles] = field(default_factory=dict)


class PackedJob(Message, frozen=True, kw_only=True):
    """What the tasks of a packed job have in common."""

    mode: str
    width: int
    runtime_seconds: float | None
    workflow_id: int
    workflow_run_id: int
    requested_resources: dict[str, Any]
    working_directory: str
    umask: int
    heartbeat_interval: float
    report_by_buffer: float


class WorkerTakeResponse(FromServer, frozen=True, kw_only=True):
    """`over`: no more work will come. `has_work`: work can be taken. Other fields as in `WorkerReportResponse`.

    The response to a request that was held has neither job nor tasks.
    """

    job: PackedJob | None = None
    tasks: WorkerTasks | None = None
    kill: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)
    over: bool = False
    has_work: bool = False
