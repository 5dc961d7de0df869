"""Run nothing: every command succeeds at once. For dry runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import ClusterQueue, DirectClusterDistributor, Exit, JoblessWorkerNode, Launch

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOTS: Final = 1_000.0
_WAKE: Final = b"\0"


class DummyQueue(ClusterQueue):
    """A queue that accepts every request."""


class DummyDistributor(DirectClusterDistributor):
    """Report every command as successful."""

    def __init__(self, cluster_name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(cluster_name, *args, **kwargs)
        self._exits: list[Exit] = []
        self._reader = self._writer = -1

    def start(self) -> None:
        """Open a descriptor that can be waited for."""
        self._reader, self._writer = os.pipe()

    def stop(self) -> None:
        """Close the descriptor."""
        for descriptor in {self._reader, self._writer} - {-1}:
            os.close(descriptor)
        self._reader = self._writer = -1

    def slots(self) -> float:
        """Return a large number: nothing runs."""
        return SLOTS

    def spawn(self, launches: Sequence[Launch]) -> dict[int, str]:
        """Record launches as completed."""
        now = time.time()
        if launches and not self._exits and self._writer >= 0:
            os.write(self._writer, _WAKE)
        for launch in launches:
            identity = launch.task_instance_id
            self._exits.append(
                Exit(
                    task_instance_id=identity,
                    distributor_id=str(identity),
                    exit_code=0,
                    started_at=now,
                    ended_at=now,
                    cpu_seconds=0.0,
                )
            )
        return {launch.task_instance_id: str(launch.task_instance_id) for launch in launches}

    def collect_exits(self) -> list[Exit]:
        """Return the exits since the last call."""
        if self._exits and self._reader >= 0:
            os.read(self._reader, len(_WAKE))
        exits, self._exits = self._exits, []
        return exits

    def adopt(self) -> dict[int, str]:
        """Return nothing, as nothing is ever alive."""
        return {}

    def fileno(self) -> int:
        """Return a descriptor that is readable when something was spawned."""
        return self._reader

    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """Do nothing, as nothing ever runs."""


class DummyWorkerNode(JoblessWorkerNode):
    """A node on which nothing runs."""


def get_cluster_queue_class() -> type[DummyQueue]:
    """Return the class of its queues."""
    return DummyQueue


def get_cluster_distributor_class() -> type[DummyDistributor]:
    """Return the class of its distributor."""
    return DummyDistributor


def get_cluster_worker_node_class() -> type[DummyWorkerNode]:
    """Return the class of its worker node."""
    return DummyWorkerNode


def get_default_queues() -> list[tuple[str, dict[str, Any]]]:
    """Return the queue of the cluster, which exists without being added."""
    return [("default", {"default_cores": 1})]
