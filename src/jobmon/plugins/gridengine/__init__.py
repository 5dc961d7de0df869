"""Grid Engine (Son of Grid Engine, Univa, Altair): commands run as jobs, or as array jobs if there are many.

`answers`, `commands`, `parsing`, `endings` are pure: the requests to Grid Engine, its answers, and their meaning.
`discovery` finds queues, and `cluster` is used by the distributor. The rest is in `jobmon.plugins.batch`.
"""

from __future__ import annotations

from typing import Any

from jobmon.core.exceptions import JobmonError, PluginError
from jobmon.plugins.batch import BatchWorkerNode
from jobmon.plugins.gridengine import discovery
from jobmon.plugins.gridengine.cluster import GridEngineDistributor
from jobmon.plugins.gridengine.queue import GridEngineQueue


def get_cluster_queue_class() -> type[GridEngineQueue]:
    """Return the class of its queues."""
    return GridEngineQueue


def get_cluster_distributor_class() -> type[GridEngineDistributor]:
    """Return the class of its distributor."""
    return GridEngineDistributor


def get_cluster_worker_node_class() -> type[BatchWorkerNode]:
    """Return the class of its worker node."""
    return BatchWorkerNode


def get_default_queues() -> list[tuple[str, dict[str, Any]]]:
    """Return the queues of the cluster that this host belongs to.

    Raises:
        PluginError: this host has no Grid Engine, or it does not respond.
    """
    if not discovery.is_here():
        raise PluginError(
            "qsub and qconf are not on the PATH: run this on a host with Grid Engine's commands (a submit host)"
        )
    try:
        found = discovery.queues_here()
    except JobmonError as error:
        raise PluginError(f"its queues could not be listed: {error}") from error
    if not found:
        raise PluginError("it has no queue that accepts jobs")
    return found
