"""The hot conversation: a distributor takes attempts, reports how they fare, and hears what to kill.

One route, `POST /workflow_runs/{workflow_run_id}/sync`, in two lanes with one request in flight each. The *poll lane*
sends no reports and `wait_seconds`: it is answered when there is work for `capacity`, something to kill, something to
triage, or the run's status changed. The *report lane* sends what accumulated and is answered at once, in the same
transaction with work for its own `capacity`: what was finished and what is wanted next travel together.

A stand-alone worker (Slurm, ...) speaks the same `Report`s to `POST /worker/report`, learns its command with
`POST /worker/start`. A job that runs many tasks (*packed*) gets them from `POST /worker/take`, one after another; the
distributor sees to such jobs only, never to the attempts in them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

REPORTS_PER_REQUEST_MAX = 5_000
LAUNCHES_PER_RESPONSE_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of one attempt. Status is one of `fsm.REPORTS`; a value that is not known is None.

    A short command's RUNNING may be left out: the ending carries `started_at`. Times are of the executing host.
    """

    task_instance_id: int
    status: str
    distributor_id: str | None = None
    host: str | None = None
    pid: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    cause: str | None = None
    error: str | None = None
    log_tail: str | None = None  # last 10 KiB of the output, decoded with replacement
    stdout: str | None = None  # path
    stderr: str | None = None
    wallclock_seconds: float | None = None
    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributorRequest:
    """POST /workflow_runs/{workflow_run_id}/distributors: a distributor registers. -> `DistributorResponse`

    The newest registration of a workflow wins: older ones are fenced at their next sync, after their reports were
    taken. `key` is random; the same key answers the same. `epoch`: that of the earlier registration of a distributor
    that registers anew. 409 `StaleRun` where another one has registered since, or one of a newer run has ever, unless
    it is *retired*: the newest of its host, where commands of the workflow run that no other host can see to.
    """

    host: str
    pid: int
    pid_start_time: float
    key: str
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAttempt:
    """An attempt that an earlier distributor took and nobody has ended: to be adopted."""

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
    packed: bool = False  # its batch was packed: whoever runs it takes it from the server


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInfo:
    """What a distributor needs to build the adapter of a cluster."""

    cluster_id: int
    name: str
    plugin: str
    connection: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """A packed batch of which attempts live. `distributor_ids`: its jobs, as far as known and not known to have ended.

    `submitted`: somebody told the server of its submission.
    """

    batch_number: int
    cluster_name: str
    untaken: int
    submitted: bool
    distributor_ids: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributorResponse:
    """`epoch` goes with every sync. `clusters`: all that tasks of the workflow ask for.

    `server_identity` is part of the tokens under which submissions are found again. `stamp`: the server's logical time.
    `attempts`: those that live, but for what runs on the machines of other distributors. `retired`: see `SyncResponse`.
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
    server_identity: str = ""
    stamp: int = 0
    packed: list[PackedBatch] = field(default_factory=list)
    retired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsWanted:
    """A direct cluster whose cores several workflows share: what this one holds and wants.

    `pool` names host, data folder and cluster; it has `total` cores (0: nothing will be started any more). `version`
    is that of the last grant heard (0: none), `held` the cores that may be in use until the next request, `wanted` all
    that could be used now, `head` what the next waiting command takes (0: none waits).
    """

    pool: str
    total: float
    version: int = 0
    held: float = 0.0
    wanted: float = 0.0
    head: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsGranted:
    """So many cores may be used from now on; grants are numbered, the highest counts."""

    cores: float
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedBatch:
    """A packed batch was submitted as these jobs; none: it was not, and its attempts are to be queued again."""

    batch_number: int
    distributor_ids: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """A job of a packed batch is gone. Status and cause as in a `Report`, of the job: they settle what ran in it."""

    distributor_id: str
    status: str
    cause: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """POST /workflow_runs/{workflow_run_id}/sync -> `SyncResponse`

    `capacity`: cluster name -> how many more attempts this lane takes now. `alive`: attempts whose heartbeat this is.
    `known_to_kill` / `known_to_triage`: told before and still being worked on; a poll does not wake for these again.
    `key` is random and the same when the request is sent again: where the answer was lost, its launches come again.
    `slots`: cluster name -> what this request renews of its lease; a poll wakes for another grant than the one known.
    `ended_since`: from a distributor with attempts on classic clusters, whose workers tell the server themselves how
    they end: it wants to hear which ended after this logical time. `pending`: attempt -> why it waits on its cluster.
    `packing`: clusters whose batches may be packed. `packed`: batches with jobs that live, as far as is known here.
    `live_jobs`: with a heartbeat, the jobs of these; it moves the deadlines of what waits for them.
    `local`: clusters whose commands run on the distributor's own machine: nobody on another one is told of them.
    `retired`: it knows that it is; a poll does not wake for that again.
    """

    epoch: int
    reports: list[Report] = field(default_factory=list)
    capacity: dict[str, int] = field(default_factory=dict)
    alive: list[int] = field(default_factory=list)
    known_to_kill: list[int] = field(default_factory=list)
    known_to_triage: list[int] = field(default_factory=list)
    known_status: str | None = None
    wait_seconds: float = 0.0
    key: str = ""
    slots: dict[str, SlotsWanted] = field(default_factory=dict)
    ended_since: int | None = None
    pending: dict[int, str] = field(default_factory=dict)
    packing: list[str] = field(default_factory=list)
    packed: list[int] = field(default_factory=list)
    live_jobs: list[str] | None = None
    submitted: list[SubmittedBatch] = field(default_factory=list)
    ended_jobs: list[EndedJob] = field(default_factory=list)
    local: list[str] = field(default_factory=list)
    retired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """How a packed batch is to be submitted: `jobs` jobs with room for `width` tasks at once (see `core.packing`).

    None of them (0) where pilots that live already see to it.
    """

    mode: str
    jobs: int
    width: int = 1
    runtime_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchBatch:
    """Attempts of one array with one request for one cluster, taken together (Q -> I). Columns per attempt.

    `batch_number` is unique in the workflow; `array_step_id` of the i-th attempt is i. `plan`: it is packed, which is
    recorded already.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResponse:
    """`late`: reports that were too late or repeated (ids), for the log.

    A fenced distributor gets `fenced=True` and no launches: it leaves. One that was replaced from another host while
    its commands run gets `retired=True` and no launches: it sees to these, and to nothing else, until they have ended.
    `refused`: attempt -> why, for reports that the table calls illegal. `slots`: the grant for each cluster that the
    request named; a cluster left out is not shared.
    `ended`: attempts that ended after `ended_since`; `ended_until` is the next request's `ended_since`.
    `untaken`: of each batch in `packed`, how many attempts no job has taken; `over`: those of which no attempt lives
    nor will, with `unstarted` jobs that are to be terminated.
    """

    workflow_run_status: str
    fenced: bool = False
    retired: bool = False
    launches: list[LaunchBatch] = field(default_factory=list)
    kill: list[int] = field(default_factory=list)
    triage: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    slots: dict[str, SlotsGranted] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    ended_until: int | None = None
    untaken: dict[int, int] = field(default_factory=dict)
    over: list[int] = field(default_factory=list)
    unstarted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStartRequest:
    """POST /worker/start: a stand-alone worker asks for its attempt, by id or by array, batch and step.

    -> `WorkerStartResponse`; marks the attempt RUNNING. 409 when the attempt is to be killed or has ended.
    """

    task_instance_id: int | None = None
    array_id: int | None = None
    batch_number: int | None = None
    array_step_id: int | None = None
    distributor_id: str | None = None
    host: str
    pid: int
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStartResponse:
    """All that is needed to run the command."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReportRequest:
    """POST /worker/report: reports and heartbeats of a worker. -> `WorkerReportResponse`"""

    reports: list[Report] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReportResponse:
    """`kill`: those of the reported or alive attempts that are in KILL_SELF, and alive ones that were given up."""

    kill: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTakeRequest:
    """POST /worker/take: a job of a packed batch reports, beats, and takes work. -> `WorkerTakeResponse`

    `capacity` tasks are to be started now (they become RUNNING), `ahead` more soon (LAUNCHED under this job). `alive`:
    all that it has. `key` is random and the same when the request is sent again: where the answer was lost, its tasks
    come again. It begins with a number that grows and a colon: an older request that comes late gets nothing.
    With `wait_seconds` it is held until there is something to kill that is not in `known_to_kill`, work (if
    `wants_work`), or an end; it takes nothing then, and needs no `alive`. `leaving`: the job ends; what it has not
    reported is lost.
    """

    array_id: int
    batch_number: int
    distributor_id: str
    host: str = ""
    reports: list[Report] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)
    capacity: int = 0
    ahead: int = 0
    key: str = ""
    wait_seconds: float = 0.0
    wants_work: bool = False
    known_to_kill: list[int] = field(default_factory=list)
    leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTasks:
    """Columns per attempt, those that are to be started now first."""

    task_instance_ids: list[int]
    task_ids: list[int]
    names: list[str]
    commands: list[str]
    attempts: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedJob:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTakeResponse:
    """`kill`: as in `WorkerReportResponse`. `over`: no work will come any more. `has_work`: some can be taken.

    A request that was held has neither job nor tasks.
    """

    job: PackedJob | None = None
    tasks: WorkerTasks | None = None
    kill: list[int] = field(default_factory=list)
    over: bool = False
    has_work: bool = False
