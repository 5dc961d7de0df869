"""This machine as a cluster whose commands host agents run: the common base of `multiprocess` and `sequential`."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from jobmon.agent.devices import GPUS
from jobmon.core import access
from jobmon.core.cluster_protocol import AgentOffer, ClusterQueue, JoblessDistributor
from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.plugins.local import earlier
from jobmon.plugins.local.devices import RESOURCES, local_devices, problems_with
from jobmon.plugins.local.machine import usable_cpus, usable_memory_gib

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)


class LocalQueue(ClusterQueue):
    """The only queue of this machine."""

    extra_keys = frozenset({GPUS, RESOURCES})

    def validate_resources(self, strict: bool = False, **resources: Any) -> tuple[bool, str]:
        """Validate the request, including whether this machine has the requested devices."""
        _, text = super().validate_resources(strict, **resources)
        problems = [text] if text else []
        problems += problems_with(resources, JobmonConfig())
        return not problems, "; ".join(problems)


def folder_digest(folder: Path) -> str:
    """Return a digest that distinguishes data folders in the names of pools."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def default_queue(max_cores: float) -> tuple[str, dict[str, Any]]:
    """Return the queue of this machine, with limits that reject requests that could never run."""
    return "default", {"max_cores": max_cores, "default_cores": 1, "max_memory": round(usable_memory_gib(), 3)}


class LocalDistributor(JoblessDistributor):
    """Offer this machine to host agents, which run its commands.

    Args:
        cluster_name: the cluster's name.
        workflow_id: the workflow whose commands are run.
        data_folder: the data folder; by default the configured one.
        config: the settings.
        connection: settings of the cluster; `slots` overrides the global setting.
    """

    def __init__(
        self,
        cluster_name: str,
        *args: Any,
        workflow_id: int = 0,
        data_folder: Path | None = None,
        config: JobmonConfig | None = None,
        connection: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cluster_name, *args, **kwargs)
        self._config = config or JobmonConfig()
        self._workflow_id = workflow_id
        self._connection = dict(connection or {})
        self._data_folder = data_folder or data_directory()

    def slots(self) -> float:
        """Return how many cores' worth of commands may run in parallel."""
        asked = float(self._connection.get("slots") or self._config.get_float("multiprocess", "slots"))
        return asked or usable_cpus()

    def pool(self) -> str:
        """Return the name of the slots on this host, which each workflow has to itself."""
        return f"{self.cluster_name}:{folder_digest(self._data_folder)}:{self._workflow_id}"

    def agent_offer(self) -> AgentOffer:
        """Offer the slots of this machine."""
        devices = local_devices(self._config)
        return AgentOffer(cores=self.slots(), memory_gib=usable_memory_gib(), pool=self.pool(), devices=devices)

    def start(self) -> None:
        """Terminate what an earlier version left running for the workflow; its attempts are reported as lost."""
        for journal in earlier.journals(self._workflow_id, self._data_folder, self.cluster_name):
            server = access.read_access_file(self._data_folder)
            count = earlier.end_supervisor(journal, [] if server is None else [server.pid])
            logger.warning("Terminated %d processes that an earlier version of Jobmon left running.", count)
