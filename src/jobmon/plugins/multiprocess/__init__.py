"""Runs commands on this machine, as many at once as there are CPUs."""

from __future__ import annotations

import hashlib
from typing import Any

from jobmon.core.configuration import JobmonConfig
from jobmon.plugins.local.cluster import LocalDistributor, LocalQueue, LocalWorkerNode, default_queue
from jobmon.plugins.local.machine import usable_cpus


class MultiprocessQueue(LocalQueue):
    """The queue of `multiprocess`."""


class MultiprocessDistributor(LocalDistributor):
    """Runs as many commands at once as their cores fit: those of all workflows of one data folder on one host."""

    def pool(self) -> str:
        """Named after cluster and data folder."""
        folder = hashlib.sha256(str(self.data_folder).encode()).hexdigest()[:16]
        return f"{self.cluster_name}:{folder}"


class MultiprocessWorkerNode(LocalWorkerNode):
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
    """Return its queue; the cluster is there without being added."""
    return [default_queue(JobmonConfig().get_float("multiprocess", "slots") or usable_cpus())]
