"""Messages between agents and the server: an agent registers, then calls `sync` repeatedly.

An agent runs commands on its own host. An attempt belongs to the agent that claimed it: only this agent reports it, and
the agent's heartbeat is the attempt's heartbeat. Two requests may be in flight. One carries reports and is answered at
once; the other has `wait_seconds` and no reports, and is answered as soon as there is work, an attempt to terminate, or
a different grant.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from jobmon.core.wire import Message
from jobmon.core.wire.fields import Cores, Count, Id, Name, ProcessId, Seconds
from jobmon.core.wire.launching import FromServer, LaunchFiles, LaunchProblem, Report, SlotsGranted, SlotsWanted

#: The scope of an agent that runs attempts of any array on its own host.
SCOPE_HOST = "host"
#: Maximum number of attempts that an agent names in one request.
ATTEMPTS_PER_REQUEST_MAX = 200_000


class AgentRequest(Message, frozen=True, kw_only=True):
    """POST /agents: an agent registers. -> `AgentResponse`

    `key` is random; the same key gets the same response. 409 `StaleRun` if the run is over or is not the newest.
    """

    workflow_run_id: Id
    cluster: Name
    scope: Name = SCOPE_HOST
    host: Name
    boot_id: Name
    pid: ProcessId
    pid_start_time: float
    key: Name


class AgentProcess(Message, frozen=True, kw_only=True):
    """A registered agent, with the process that runs or ran it. `seen_seconds_ago`: since its last request."""

    agent_id: int
    host: str
    boot_id: str
    pid: int
    pid_start_time: float
    seen_seconds_ago: float


class AgentResponse(FromServer, frozen=True, kw_only=True):
    """`token`: the agent's own credential; "": it needs none.

    `predecessors`: agents of the workflow on the same host that have not left. If the process of such an agent is gone,
    its successor terminates its remaining processes, then sends its journal on its behalf with `leaving`.
    """

    agent_id: int
    token: str
    workflow_id: int
    working_directory: str
    umask: int
    heartbeat_interval: float
    report_by_buffer: float
    predecessors: list[AgentProcess]


class AgentLaunches(Message, frozen=True, kw_only=True):
    """Claimed attempts, oldest first; columns per attempt.

    `requests`: for each attempt the index of its request in `requested_resources`, `cores` and `memory_gib` (0: no
    memory was requested). `files`: attempt -> its declared files, if it has any.
    """

    task_instance_ids: list[int]
    task_ids: list[int]
    names: list[str]
    commands: list[str]
    attempts: list[int]  # number of the attempt, from 1
    requests: list[int]
    requested_resources: list[dict[str, Any]]
    cores: list[float]
    memory_gib: list[float]
    files: dict[int, LaunchFiles] = field(default_factory=dict)


class AgentSyncRequest(Message, frozen=True, kw_only=True):
    """POST /agents/{agent_id}/sync: reports, one heartbeat for all attempts of the agent, and a claim.
    -> `AgentSyncResponse`

    `key` counts the agent's requests and is the same when a request is repeated; the claim is then the same, too.
    `cores_free`, `cores_ahead`: cores that can be used now, and cores' worth of work to prefetch.
    `running`, `unstarted`: all attempts that the agent has, sent with a heartbeat and after a lost response. Attempts
    that it claimed but does not have are handed out again. None: not sent.
    `known_to_kill`: attempts that are already being terminated; a poll does not return for these again.
    `slots`: what this request renews of the agent's lease; a poll returns when the grant differs from the known one.
    `launch_problem`: why nothing can be started; `has_problem`: whether `launch_problem` is an update, in which case
    None means that the problem is over.
    `drain`: the agent claims nothing more. `leaving`: the agent exits with this request; what it still has is lost.
    """

    key: Count
    reports: list[Report] = field(default_factory=list)
    running: list[Id] | None = None
    unstarted: list[Id] | None = None
    cores_free: Cores = 0.0
    cores_ahead: Cores = 0.0
    slots: SlotsWanted | None = None
    known_to_kill: list[Id] = field(default_factory=list)
    launch_problem: LaunchProblem | None = None
    has_problem: bool = False
    wait_seconds: Seconds = 0.0
    drain: bool = False
    leaving: bool = False


class AgentSyncResponse(FromServer, frozen=True, kw_only=True):
    """`kill`: attempts to terminate, either in KILL_SELF or running although the server has declared them lost.

    `late`, `refused`, `unknown`: as in `SyncResponse`. `slots`: the grant, if the request named a pool. `over`: nothing
    more will be handed out; the agent lets running commands finish and leaves.
    """

    launches: AgentLaunches | None = None
    kill: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)
    slots: SlotsGranted | None = None
    over: bool = False
