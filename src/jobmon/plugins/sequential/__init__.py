"""Run commands on this machine, one at a time, regardless of their requests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobmon.core.cluster_protocol import JoblessWorkerNode
from jobmon.plugins.local.cluster import LocalDistributor, LocalQueue, default_queue
from jobmon.plugins.local.machine import usable_cpus

if TYPE_CHECKING:
    from jobmon.core.cluster_protocol import AgentOffer


class SequentialQueue(LocalQueue):
    """The queue of `sequential`."""


class SequentialDistributor(LocalDistributor):
    """Run one command after the other."""

    def slots(self) -> float:
        """Return 1."""
        return 1.0

    def agent_offer(self) -> AgentOffer:
        """Offer the only slot, which every command takes."""
        return replace(super().agent_offer(), is_whole=True)


class SequentialWorkerNode(JoblessWorkerNode):
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
    """Return the queue of the cluster, which exists without being added."""
    return [default_queue(usable_cpus())]
