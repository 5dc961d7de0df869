"""`python -m jobmon.distributor --workflow-run-id N [--service-url URL]`: the distributor as a process.

The client starts it with pipes at stdin and stdout. When the server knows it and its clusters are ready it prints one
line, `ALIVE {"pid": ...}`; when stdin ends, the client is gone or wants it to end.
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
from urllib.parse import urlsplit

from jobmon.core import loops, places
from jobmon.core.clock import SystemClock
from jobmon.core.cluster import load_plugin
from jobmon.core.configuration import JobmonConfig, data_directory, environment_variable
from jobmon.core.requester import Requester
from jobmon.core.wire.server import ServerAddress
from jobmon.distributor.batch import Surroundings
from jobmon.distributor.gateway import ServerGateway
from jobmon.distributor.service import DistributorService, Identity, Setting, Timings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jobmon.core.cluster_protocol import ClusterDistributor
    from jobmon.core.wire.launching import ClusterInfo, DistributorResponse

LOG_BYTES_MAX: Final = 5 * 1024 * 1024
LOG_FILES_MAX: Final = 2
#: Log lines from before the workflow is known.
EARLY_LOG_RECORDS_MAX: Final = 1_000
ALIVE: Final = "ALIVE"
logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a distributor; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobmon.distributor", description="Launches the tasks of a run.")
    parser.add_argument("--workflow-run-id", type=int, required=True)
    parser.add_argument("--service-url", default="", help="default: the setting, else the embedded server")
    arguments = parser.parse_args(argv)
    early = logging.handlers.MemoryHandler(EARLY_LOG_RECORDS_MAX, flushLevel=logging.CRITICAL + 1)
    logging.getLogger().addHandler(early)
    logging.getLogger("jobmon").setLevel(logging.INFO)
    config = JobmonConfig()
    try:
        loops.run_process(_serve(arguments.workflow_run_id, _requester(arguments.service_url, config), config, early))
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

    def surroundings(response: DistributorResponse) -> Surroundings:
        logs = data / "logs" / str(response.workflow_id)
        _log_to(logs / f"distributor-{workflow_run_id}.log", early)
        return surroundings_of(response, workflow_run_id, logs, config)

    def make_cluster(info: ClusterInfo, response: DistributorResponse) -> ClusterDistributor:
        if load_plugin(info.plugin).get_cluster_distributor_class().is_remote:
            os.environ.update(remote_environment(requester, config))
        return build_cluster(info, response, data, config)

    async with requester.open_session() as session:
        timeout = config.get_float("http", "request_timeout")
        gateway = ServerGateway(requester, session, workflow_run_id, timeout)
        setting = Setting(make_cluster, surroundings, data_folder=str(data))
        service = DistributorService(gateway, setting, _identity(), timings_of(config), SystemClock())
        _heed_the_client(service)
        outcome = await service.run(on_registered=_say_alive)
        logger.info("Ended: %s.", outcome.value)


def surroundings_of(
    response: DistributorResponse, workflow_run_id: int, logs: Path, config: JobmonConfig
) -> Surroundings:
    """Return what all attempts of this run have in common."""
    return Surroundings(
        workflow_id=response.workflow_id,
        workflow_run_id=workflow_run_id,
        working_directory=response.working_directory,
        umask=response.umask,
        log_folder=str(logs),
        shell=str(config.get("worker_node", "shell")),
        server_identity=response.server_identity,
    )


def build_cluster(
    info: ClusterInfo, response: DistributorResponse, data: Path, config: JobmonConfig
) -> ClusterDistributor:
    """Build the adapter of a cluster from its plug-in.

    Every plug-in's distributor gets these keyword arguments; it takes what it needs.
    """
    kind: type[ClusterDistributor] = load_plugin(info.plugin).get_cluster_distributor_class()
    return kind(
        info.name, workflow_id=response.workflow_id, data_folder=data, config=config, connection=info.connection
    )


def worker_environment(requester: Requester, config: JobmonConfig, data: Path) -> dict[str, str]:
    """Return what a stand-alone worker needs to find the server and to obey the settings: it cannot read YAML.

    Of an embedded server it gets the data folder only, whose access file tells where the server is at any time.
    """
    found = {
        "JOBMON_DATA_DIR": str(data),
        environment_variable("worker_node", "shell"): str(config.get("worker_node", "shell")),
        environment_variable("worker_node", "command_interrupt_timeout"): str(
            config.get_float("worker_node", "command_interrupt_timeout")
        ),
    }
    if config.get("http", "service_url"):
        found.update(JOBMON_SERVICE_URL=requester.target.address, JOBMON_TOKEN=requester.target.token)
    return found


def remote_environment(requester: Requester, config: JobmonConfig) -> dict[str, str]:
    """Have an embedded server opened to other hosts; return what workers need there that cannot read the data folder.

    Raises:
        JobmonError: it cannot be opened.
    """
    if url := str(config.get("http", "service_url") or ""):
        if places.is_loopback(urlsplit(url).hostname or ""):
            logger.warning("Hosts of the cluster cannot reach the server at %s (http.service_url).", url)
        return {}
    address = requester.call("/server/open_to_other_hosts", None, ServerAddress).address
    return {"JOBMON_SERVER_ADDRESS": address, "JOBMON_TOKEN": requester.target.token}


def timings_of(config: JobmonConfig) -> Timings:
    """Read the service's intervals from the settings."""
    return Timings(
        long_poll=config.get_float("server", "long_poll"),
        hand_ahead_expiry=config.get_float("distributor", "hand_ahead_expiry"),
        cluster_poll=config.get_float("distributor", "poll_interval"),
        cluster_calls_per_minute=config.get_float("distributor", "cluster_calls_per_minute"),
    )


def _identity() -> Identity:
    pid = os.getpid()
    return Identity(socket.gethostname(), pid, places.process_start_time(pid) or 0.0)


def _heed_the_client(service: DistributorService) -> None:
    """End with the client: at the end of stdin, and at the signals that are meant for both."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            service.drain()

    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, read)
    # Ctrl-C is the client's affair; not SIG_IGN, which everything started from here would inherit
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, service.drain)


def _say_alive() -> None:
    """Tell the client; it may be gone already."""
    try:
        sys.stdout.write(f"{ALIVE} {json.dumps({'pid': os.getpid()})}\n")
        sys.stdout.flush()
    except OSError:
        logger.info("Nobody reads our output.")
    _silence(sys.stdout.fileno())


def _silence(descriptor: int) -> None:
    """Whatever plug-ins and their processes print goes nowhere: nobody reads it, and a full pipe would block them."""
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
