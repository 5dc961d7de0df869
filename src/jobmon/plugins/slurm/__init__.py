"""Slurm: commands run as jobs, or as job arrays if there are many.

`answers`, `commands`, `parsing`, `endings`, `view` are pure: the requests to Slurm, its answers, and their meaning.
`discovery` finds partitions, and `cluster` is used by the distributor. The rest is in `jobmon.plugins.batch`.
"""

from __future__ import annotations

from typing import Any

from jobmon.core.exceptions import JobmonError, PluginError
from jobmon.plugins.batch import BatchWorkerNode
from jobmon.plugins.slurm import discovery
from jobmon.plugins.slurm.cluster import SlurmDistributor
from jobmon.plugins.slurm.queue import SlurmQueue


def get_cluster_queue_class() -> type[SlurmQueue]:
    """Return the class of its queues."""
    return SlurmQueue


def get_cluster_distributor_class() -> type[SlurmDistributor]:
    """Return the class of its distributor."""
    return SlurmDistributor


def get_cluster_worker_node_class() -> type[BatchWorkerNode]:
    """Return the class of its worker node."""
    return BatchWorkerNode


def get_default_queues() -> list[tuple[str, dict[str, Any]]]:
    """Return the partitions of the cluster that this host belongs to.

    Raises:
        PluginError: this host has no Slurm, or it does not respond.
    """
    if not discovery.is_here():
        raise PluginError(
            "sbatch is not on the PATH: run this on a host with Slurm's commands (a login node), or load its module"
        )
    try:
        found = discovery.queues_here()
    except JobmonError as error:
        raise PluginError(f"its partitions could not be listed: {error}") from error
    if not found:
        raise PluginError("it has no partition that accepts jobs")
    return found


def get_queue(queue_name: str) -> dict[str, Any] | None:
    """Return the parameters of a partition or of a group of partitions ("short,long"); None if Slurm has none.

    Raises:
        PluginError: see `get_default_queues`.
    """
    return discovery.group_of(queue_name, get_default_queues())
