"""Run commands on this machine, as many in parallel as there are CPUs."""

from __future__ import annotations

from typing import Any

from jobmon.core.cluster_protocol import JoblessWorkerNode
from jobmon.core.configuration import JobmonConfig
from jobmon.plugins.local.cluster import LocalDistributor, LocalQueue, default_queue, folder_digest
from jobmon.plugins.local.machine import usable_cpus


class MultiprocessQueue(LocalQueue):
    """The queue of `multiprocess`."""


class MultiprocessDistributor(LocalDistributor):
    """Run as many commands in parallel as cores allow, across all workflows of one data folder on one host."""

    def pool(self) -> str:
        """Return the name of the slots, which all workflows of the data folder share."""
        return f"{self.cluster_name}:{folder_digest(self._data_folder)}"


class MultiprocessWorkerNode(JoblessWorkerNode):
    """The node of `multiprocess`."""


def get_cluster_queue_class() -> type[MultiprocessQueue]:
    """Return the class of its queues."""
    return MultiprocessQueue


def get_cluster_distributor_class() -> type[MultiprocessDistributor]:
    """Return the class of its distributor."""
    return MultiprocessDistributor


def get_cluster_worker_node_class() -> type[MultiprocessWorkerNode]:
    """Return the class of its worker node."""
    return MultiprocessWorkerNode


def get_default_queues() -> list[tuple[str, dict[str, Any]]]:
    """Return the queue of the cluster, which exists without being added."""
    return [default_queue(JobmonConfig().get_float("multiprocess", "slots") or usable_cpus())]
