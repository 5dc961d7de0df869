"""Runs nothing: every command succeeds at once. For dry runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.cluster_protocol import ClusterQueue, ClusterWorkerNode, DirectClusterDistributor, Exit, Launch
from jobmon.core.constants import TaskInstanceStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOTS: Final = 1_000.0
_WAKE: Final = b"\0"


class DummyQueue(ClusterQueue):
    """Takes every request."""


class DummyDistributor(DirectClusterDistributor):
    """Says of everything that it succeeded."""

    def __init__(self, cluster_name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(cluster_name, *args, **kwargs)
        self._exits: list[Exit] = []
        self._reader = self._writer = -1

    def start(self) -> None:
        """Get a descriptor that can be waited for."""
        self._reader, self._writer = os.pipe()

    def stop(self) -> None:
        """Give the descriptor back."""
        for descriptor in {self._reader, self._writer} - {-1}:
            os.close(descriptor)
        self._reader = self._writer = -1

    def slots(self) -> float:
        """Many: nothing runs."""
        return SLOTS

    def spawn(self, launches: Sequence[Launch]) -> dict[int, str]:
        """Note these as ended."""
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
        """Return the endings since the last call."""
        if self._exits and self._reader >= 0:
            os.read(self._reader, len(_WAKE))
        exits, self._exits = self._exits, []
        return exits

    def adopt(self) -> dict[int, str]:
        """Nothing ever lives."""
        return {}

    def fileno(self) -> int:
        """Readable when something was spawned."""
        return self._reader

    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """Not for this cluster: it takes launches."""
        raise AttributeError(f"Cluster {self.cluster_name!r} takes no jobs.")

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """Nothing ever runs."""
        return set()

    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """Nothing to end."""

    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """Everything succeeds."""
        return TaskInstanceStatus.DONE, ""


class DummyWorkerNode(ClusterWorkerNode):
    """A node on which nothing runs."""

    @property
    def distributor_id(self) -> str | None:
        """None: nothing was submitted."""
        return None

    @property
    def array_step_id(self) -> int | None:
        """None: there are no arrays."""
        return None


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
    """Return its queue; the cluster is there without being added."""
    return [("default", {"default_cores": 1})]
