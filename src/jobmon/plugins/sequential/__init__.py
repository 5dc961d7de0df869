"""Runs commands on this machine, one at a time, whatever they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.plugins.local.cluster import LocalDistributor, LocalQueue, LocalWorkerNode, default_queue
from jobmon.plugins.local.machine import usable_cpus

if TYPE_CHECKING:
    from jobmon.core.cluster_protocol import Launch


class SequentialQueue(LocalQueue):
    """The queue of `sequential`."""


class SequentialDistributor(LocalDistributor):
    """Runs one command after the other."""

    def slots(self) -> float:
        """One."""
        return 1.0

    def weight(self, launch: Launch) -> tuple[float, float]:
        """Every command takes the only place, whatever cores it asks for."""
        return 1.0, super().weight(launch)[1]


class SequentialWorkerNode(LocalWorkerNode):
    """The node of `sequential`."""


def get_cluster_queue_class() -> type[SequentialQueue]:
    """Return the class of its queues."""
    return SequentialQueue


def get_cluster_distributor_class() -> type[SequentialDistributor]:
    """Return the class of its distributor."""
    return SequentialDistributor


def get_cluster_worker_node_class() -> type[SequentialWorkerNode]:
    """Return the class of its worker node."""
    return SequentialWorkerNode


def get_default_queues() -> list[tuple[str, dict[str, Any]]]:
    """Return its queue; the cluster is there without being added."""
    return [default_queue(usable_cpus())]
