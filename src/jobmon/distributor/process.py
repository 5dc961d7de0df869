"""`python -m jobmon.distributor --workflow-run-id N [--service-url URL]`: the distributor as a process.

The client starts it with pipes at stdin and stdout. When it is registered with the server and its clusters are ready,
it prints one line, `ALIVE {"pid": ...}`. The end of stdin means that the client has exited or wants it to stop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import logging.handlers
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

from jobmon.agent import addresses
from jobmon.core import loops, paths
from jobmon.core.clock import SystemClock
from jobmon.core.cluster import load_plugin
from jobmon.core.configuration import JobmonConfig, data_directory, environment_variable
from jobmon.core.descriptors import open_standard
from jobmon.core.exceptions import ClusterUnusable, ConfigError, PluginError
from jobmon.core.requester import Requester
from jobmon.core.wire.server import OpenRequest, ServerAddress
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.gateway import ServerGateway
from jobmon.distributor.incidents import UNHEARD_SECONDS
from jobmon.distributor.service import DistributorService, Identity, Setting, Timings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jobmon.core.cluster_protocol import ClusterDistributor
    from jobmon.core.wire.launching import ClusterInfo, DistributorResponse

#: The exit code of a distributor that would fail again if it were restarted; its last line on standard error says why.
EXIT_CANNOT_WORK: Final = 4
LOG_BYTES_MAX: Final = 5 * 1024 * 1024
LOG_FILES_MAX: Final = 2
#: Maximum number of log records kept until the workflow is known.
EARLY_LOG_RECORDS_MAX: Final = 1_000
ALIVE: Final = "ALIVE"
#: Passes the workers' credential to them: it is valid for their workflow only, and outlives the server process.
AGENT_TOKEN: Final = "JOBMON_TOKEN"

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a distributor; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobmon.distributor", description="Launches the tasks of a run.")
    parser.add_argument("--workflow-run-id", type=int, required=True)
    parser.add_argument("--service-url", default="", help="default: the setting, else the embedded server")
    arguments = parser.parse_args(argv)
    open_standard()
    os.umask(0o077)  # commands run with the umask of the script
    early = logging.handlers.MemoryHandler(EARLY_LOG_RECORDS_MAX, flushLevel=logging.CRITICAL + 1)
    logging.getLogger().addHandler(early)
    logging.getLogger("jobmon").setLevel(logging.INFO)
    try:
        config = JobmonConfig()
        config.check()
        loops.run_process(_serve(arguments.workflow_run_id, _requester(arguments.service_url, config), config, early))
    except (ClusterUnusable, ConfigError, PluginError) as error:
        logger.error("The distributor cannot run: %s", error)
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return EXIT_CANNOT_WORK
    except Exception:
        logger.exception("The distributor failed.")
        raise
    finally:
        early.close()
    return 0


def _requester(service_url: str, config: JobmonConfig) -> Requester:
    if service_url:
        config.set("http", "service_url", service_url)
    return Requester.from_defaults(config)


async def _serve(
    workflow_run_id: int, requester: Requester, config: JobmonConfig, early: logging.handlers.MemoryHandler
) -> None:
    data = data_directory()
    os.environ.update(worker_environment(requester, config, data))
    os.environ.pop(environment_variable("http", "token"), None)  # jobs receive their own credential

    def surroundings(response: DistributorResponse) -> Surroundings:
        logs = data / "logs" / str(response.workflow_id)
        _log_to(logs / f"distributor-{workflow_run_id}.log", early)
        return Surroundings(response.workflow_id, workflow_run_id, str(logs), response.server_identity)

    def make_cluster(info: ClusterInfo, response: DistributorResponse) -> ClusterDistributor:
        os.environ[AGENT_TOKEN] = response.agent_token
        if load_plugin(info.plugin).get_cluster_distributor_class().is_remote:
            os.environ.update(remote_environment(requester, config, workflow_run_id))
        return build_cluster(info, response, data, config)

    async with requester.open_session() as session:
        timeout = config.get_float("http", "request_timeout")
        gateway = ServerGateway(requester, session, workflow_run_id, timeout)
        setting = Setting(
            make_cluster,
            surroundings,
            data_folder=str(data),
            server_address=lambda: (
                ", ".join(os.environ.get("JOBMON_SERVER_ADDRESS", "").split()) or requester.target.address
            ),
        )
        service = DistributorService(gateway, setting, _identity(), timings_of(config), SystemClock())
        _heed_the_client(service)
        outcome = await service.run(on_registered=_say_alive)
        logger.info("Ended: %s.", outcome.value)


def build_cluster(
    info: ClusterInfo, response: DistributorResponse, data: Path, config: JobmonConfig
) -> ClusterDistributor:
    """Build the adapter of a cluster from its plug-in.

    Every plug-in's distributor receives these keyword arguments and uses those it needs.
    """
    kind: type[ClusterDistributor] = load_plugin(info.plugin).get_cluster_distributor_class()
    return kind(
        info.name, workflow_id=response.workflow_id, data_folder=data, config=config, connection=info.connection
    )


def worker_environment(requester: Requester, config: JobmonConfig, data: Path) -> dict[str, str]:
    """Return the environment in which a stand-alone worker finds the server and the settings; it cannot read YAML.

    For an embedded server this is only the data folder, whose access file always contains the server's current address.
    """
    found = {
        "JOBMON_DATA_DIR": str(data),
        environment_variable("worker_node", "shell"): str(config.get("worker_node", "shell")),
        environment_variable("worker_node", "command_interrupt_timeout"): str(
            config.get_float("worker_node", "command_interrupt_timeout")
        ),
        environment_variable("files", "latency_wait"): str(config.get_float("files", "latency_wait")),
        environment_variable("distributor", "submission_retry_timeout"): str(
            config.get_float("distributor", "submission_retry_timeout")
        ),
    }
    if config.get("http", "service_url"):
        found.update(JOBMON_SERVICE_URL=requester.addresses)
    return found


def remote_environment(requester: Requester, config: JobmonConfig, run_id: int) -> dict[str, str]:
    """Open an embedded server to other hosts; return the environment for workers that cannot read the data folder.

    Args:
        requester: sends requests to the server.
        config: the settings.
        run_id: the run that starts the workers; the server listens for other hosts while the run is active.

    Raises:
        JobmonError: the server cannot be opened.
    """
    if url := str(config.get("http", "service_url") or ""):
        if any(paths.is_loopback(addresses.parse(one).host) for one in addresses.split(url)):
            logger.warning("Hosts of the cluster cannot reach the server at %s (http.service_url).", url)
        return {}
    request = OpenRequest(workflow_run_id=run_id)
    found = requester.call("/server/open_to_other_hosts", request, ServerAddress)
    return {"JOBMON_SERVER_ADDRESS": " ".join(found.addresses or [found.address])}


def timings_of(config: JobmonConfig) -> Timings:
    """Read the service's intervals from the settings."""
    return Timings(
        long_poll=config.get_float("server", "long_poll"),
        hand_ahead_expiry=config.get_float("distributor", "hand_ahead_expiry"),
        cluster_poll=config.get_float("distributor", "poll_interval"),
        cluster_calls_per_minute=config.get_float("distributor", "cluster_calls_per_minute"),
        submission_retry=config.get_float("distributor", "submission_retry_timeout"),
        unheard=float(os.environ.get("JOBMON_UNHEARD_SECONDS", UNHEARD_SECONDS)),
    )


def _identity() -> Identity:
    pid = os.getpid()
    return Identity(socket.gethostname(), pid, paths.process_start_time(pid) or 0.0)


def _heed_the_client(service: DistributorService) -> None:
    """Drain when the client exits: at the end of stdin, and on SIGTERM; ignore SIGINT."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            service.drain()

    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, read)
    # the client handles Ctrl-C; SIG_IGN is not used because child processes would inherit it
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, service.drain)


def _say_alive() -> None:
    """Notify the client, which may have exited already."""
    try:
        sys.stdout.write(f"{ALIVE} {json.dumps({'pid': os.getpid()})}\n")
        sys.stdout.flush()
    except OSError:
        logger.info("The standard output is closed.")
    _silence(sys.stdout.fileno())


def _silence(descriptor: int) -> None:
    """Discard what plug-ins and their processes print: nothing reads it, and a full pipe would block them."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _log_to(path: Path, early: logging.handlers.MemoryHandler) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_MAX)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    early.setTarget(handler)
    early.flush()
    root.removeHandler(early)
