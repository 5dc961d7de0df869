"""Start the agents that run commands: on this machine, or through the plug-in of a direct cluster."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import uuid
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobmon.agent import processes
from jobmon.agent import start as agent_program
from jobmon.client.launching import STARTUP_TIMEOUT_SECONDS, DistributorProcess
from jobmon.core import access, paths
from jobmon.core.cluster import load_plugin
from jobmon.core.cluster_protocol import AgentOffer, DirectClusterDistributor
from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.core.exceptions import PluginError
from jobmon.core.texts import NAME_CHARACTERS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jobmon.core.requester import Requester
    from jobmon.core.wire.agents import AgentProcess
    from jobmon.core.wire.launching import ClusterInfo

#: An agent needs only the standard library, and starts three times as fast without site packages.
AGENT_COMMAND: Final = (sys.executable, "-I", "-S", "-B", str(agent_program.__file__))
#: An agent of a direct cluster, which loads the cluster's plug-in.
DIRECT_AGENT_COMMAND: Final = (sys.executable, "-P", "-m", "jobmon.distributor.direct")


class RunToServe(Protocol):
    """What must be known about a run to start the processes that run its commands."""

    @property
    def workflow_id(self) -> int:
        """The ID of its workflow."""

    @property
    def workflow_run_id(self) -> int:
        """The ID of the run."""

    @property
    def requester(self) -> Requester:
        """Sends requests to its server."""

    @property
    def clusters(self) -> Sequence[ClusterInfo]:
        """All clusters that its tasks and live attempts request."""

    @property
    def has_attempts_of_distributors(self) -> bool:
        """Whether attempts of earlier runs are alive that only a distributor can handle."""


def offer_of(info: ClusterInfo, workflow_id: int) -> AgentOffer | None:
    """Return what an agent may use to run the commands of a cluster; None: a distributor serves the cluster."""
    try:
        kind = load_plugin(info.plugin).get_cluster_distributor_class()
    except PluginError:
        return None  # the distributor reports the problem
    if kind.is_remote and not issubclass(kind, DirectClusterDistributor):
        return None
    data, config = data_directory(), JobmonConfig()
    adapter = kind(info.name, workflow_id=workflow_id, data_folder=data, config=config, connection=info.connection)
    offer: AgentOffer | None = adapter.agent_offer()
    return offer


def agent_of(run: RunToServe, info: ClusterInfo, offer: AgentOffer, startup_timeout: float) -> DistributorProcess:
    """Return the agent that runs the commands of a cluster for a run."""
    common = _setup(run.requester, run.workflow_id, info.name) | {
        "workflow_run_id": run.workflow_run_id,
        "cluster": info.name,
        "cluster_info": {"name": info.name, "plugin": info.plugin, "connection": info.connection},
        "cores": offer.cores,
        "memory_gib": offer.memory_gib,
        "pool": _pool_name(offer.pool) if offer.pool else "",
        "is_whole": offer.is_whole,
        "devices": {name: list(tokens) for name, tokens in offer.devices.items()},
        "device_folder": str(paths.runtime_directory()),
    }

    def setup(pid: int) -> bytes:
        own = {"pid_start_time": paths.process_start_time(pid) or 0.0, "key": uuid.uuid4().hex}
        return json.dumps(common | own).encode() + b"\n"

    return DistributorProcess(
        run.workflow_run_id,
        startup_timeout,
        command=DIRECT_AGENT_COMMAND if offer.is_direct else AGENT_COMMAND,
        setup=setup,
        kind="agent",
        suffix=f"-{_file_name(info.name)}",
    )


def settle(agents: Sequence[AgentProcess], workflow_id: int, run_id: int, requester: Requester) -> DistributorProcess:
    """Start a process that terminates what dead agents of this host left behind, records that, and exits by itself."""
    common = _setup(requester, workflow_id, "") | {
        "workflow_run_id": run_id,
        "dead_agents": [
            {"agent_id": one.agent_id, "boot_id": one.boot_id, "pid": one.pid, "pid_start_time": one.pid_start_time}
            for one in agents
        ],
    }

    def setup(pid: int) -> bytes:
        return json.dumps(common | {"pid_start_time": paths.process_start_time(pid) or 0.0}).encode() + b"\n"

    process = DistributorProcess(
        run_id,
        STARTUP_TIMEOUT_SECONDS,
        command=AGENT_COMMAND,
        setup=setup,
        restarts_max=0,
        kind="agent",
        suffix="-settling",
    )
    process.start()
    return process


def _setup(requester: Requester, workflow_id: int, cluster: str) -> dict[str, Any]:
    """Return the setup that all agents of a workflow receive; `agent.host` and `agent.host_access` read it."""
    data, config = data_directory(), JobmonConfig()
    is_own_server = not config.get("http", "service_url")
    server = {"JOBMON_DATA_DIR": str(data)}
    if not is_own_server:
        server |= {"JOBMON_SERVICE_URL": requester.addresses, "JOBMON_TOKEN": requester.target.token}
    command = {"JOBMON_DATA_DIR": str(data)} | (
        {processes.DATA_VARIABLE: str(data)} if is_own_server else {"JOBMON_SERVICE_URL": requester.addresses}
    )
    return {
        "workflow_id": workflow_id,
        "host": socket.gethostname(),
        "boot_id": paths.boot_id(),
        "client_pid": os.getpid(),
        "data_folder": str(data),
        "journal_prefix": str(_journal_prefix(data, workflow_id, cluster)),
        "shell": str(config.get("worker_node", "shell")),
        "interrupt_seconds": config.get_float("worker_node", "command_interrupt_timeout"),
        "latency_wait_seconds": config.get_float("files", "latency_wait"),
        "patience_seconds": config.get_float("distributor", "submission_retry_timeout"),
        "cgroups": config.get_boolean("supervisor", "cgroups"),
        "server_environment": server,
        "command_environment": command,
        "access_file": str(access.access_file_path(data)),
        "server_command": [sys.executable, "-P", "-m", "jobmon.server", "--embedded", "--data-dir", str(data)]
        if is_own_server
        else [],
        "server_log": str(access.server_log_path(data)),
    }


def _journal_prefix(data: Path, workflow_id: int, cluster: str) -> Path:
    """Return the common path prefix of the journals of a workflow's agents, for one cluster or for all."""
    digest = hashlib.sha256(f"{data}\0{workflow_id}".encode()).hexdigest()[:16]
    return paths.runtime_directory() / f"agent-{digest}-{_file_name(cluster) + '-' if cluster else ''}"


def _file_name(cluster: str) -> str:
    return hashlib.sha256(cluster.encode()).hexdigest()[:8]


def _pool_name(pool: str) -> str:
    """Return the name of a pool on this host; a name that is too long ends with a digest of all of it."""
    name = f"{socket.gethostname()}:{pool}"
    if len(name) <= NAME_CHARACTERS_MAX:
        return name
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]
    return f"{name[: NAME_CHARACTERS_MAX - len(digest) - 1]}:{digest}"
