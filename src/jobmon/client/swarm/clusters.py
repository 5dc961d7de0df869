"""The clusters of the server, fetched once when somebody first asks, with their queues as plug-in objects."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from jobmon.core.cluster import load_plugin
from jobmon.core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.core.cluster_protocol import ClusterQueue
    from jobmon.core.wire import definition


class SwarmCluster:
    """One cluster and its queues; the first queue is the default one."""

    def __init__(self, recorded: definition.Cluster) -> None:
        self.cluster_id = recorded.cluster_id
        self.name = recorded.name
        kind = load_plugin(recorded.plugin).get_cluster_queue_class()
        self._queues: dict[str, ClusterQueue] = {
            queue.queue_name: kind(queue.queue_id, queue.queue_name, queue.parameters) for queue in recorded.queues
        }

    def queue(self, name: str | None = None) -> ClusterQueue:
        """Return a queue by name, or the default one.

        Raises:
            ConfigError: there is no such queue.
        """
        if not name and self._queues:
            return next(iter(self._queues.values()))
        if name not in self._queues:
            raise ConfigError(f"Cluster {self.name!r} has no queue {name!r}; it has {', '.join(self._queues)}.")
        return self._queues[name]


class Clusters:
    """Clusters by name.

    Args:
        fetch: asks the server for all of them.
    """

    def __init__(self, fetch: Callable[[], definition.ClustersResponse]) -> None:
        self._fetch = fetch
        self._made: dict[str, SwarmCluster] = {}

    @cached_property
    def _recorded(self) -> dict[str, definition.Cluster]:
        return {cluster.name: cluster for cluster in self._fetch().clusters}

    def get(self, name: str) -> SwarmCluster:
        """Return a cluster.

        Raises:
            ConfigError: the server knows of none of that name.
            PluginError: its plug-in cannot be loaded.
        """
        if name not in self._made:
            if name not in self._recorded:
                raise ConfigError(f"There is no cluster {name!r}; there are {', '.join(self._recorded)}.")
            self._made[name] = SwarmCluster(self._recorded[name])
        return self._made[name]
