"""A task as the swarm knows it: its status, its counters, whom it holds up. A million of them must be small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core.constants import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from jobmon.client.task_resources import TaskResources


class SwarmTask:
    """One task of a running workflow. Equal only to itself.

    Args:
        task_id: id in the database.
        array_id: the array to which it belongs.
        status: letter of a `TaskStatus`.
        max_attempts: how many charged attempts it may have.
        task_resources: what it asks for; None while a `compute_resources_callable` has yet to say.
        cluster: the cluster on which it runs.
        resource_scales: resource -> how it grows after a resource error.
        fallback_queues: queues to try when a grown request no longer fits.
        compute_resources_callable: says what the task asks for once its upstreams are done.

    Only `SwarmState.apply_update` may change `status`; only the state counts upstreams.
    """

    __slots__ = (
        "_downstream",
        "adjustments",
        "array_id",
        "cluster",
        "compute_resources_callable",
        "fallback_queues",
        "is_propagated",
        "max_attempts",
        "num_upstreams",
        "num_upstreams_done",
        "resource_scales",
        "status",
        "task_id",
        "task_resources",
    )

    def __init__(
        self,
        task_id: int,
        array_id: int,
        status: str,
        max_attempts: int,
        task_resources: TaskResources | None,
        cluster: Any,
        resource_scales: dict[str, Any] | None = None,
        fallback_queues: Sequence[Any] | None = None,
        compute_resources_callable: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.task_id = task_id
        self.array_id = array_id
        self.status = TaskStatus(status)
        self.max_attempts = max_attempts
        self.task_resources = task_resources
        self.cluster = cluster
        self.resource_scales = resource_scales
        self.fallback_queues = fallback_queues
        self.compute_resources_callable = compute_resources_callable
        self.num_upstreams = 0
        self.num_upstreams_done = 0
        #: How often its request was raised.
        self.adjustments = 0
        #: Whether its downstreams know that it is done.
        self.is_propagated = False
        self._downstream: Collection[SwarmTask] = ()

    @property
    def all_upstreams_done(self) -> bool:
        """Whether nothing stands before it any more."""
        return self.num_upstreams_done >= self.num_upstreams

    @property
    def downstream_swarm_tasks(self) -> set[SwarmTask]:
        """The tasks that wait for this one, as a set of its own that may be changed."""
        if not isinstance(self._downstream, set):
            self._downstream = set(self._downstream)
        return self._downstream

    @downstream_swarm_tasks.setter
    def downstream_swarm_tasks(self, tasks: Iterable[SwarmTask]) -> None:
        self._downstream = set(tasks)

    @property
    def downstream_tasks(self) -> list[SwarmTask]:
        """The tasks that wait for this one, as a list."""
        return list(self._downstream)

    def share_downstream(self, tasks: tuple[SwarmTask, ...]) -> None:
        """Take a tuple that other tasks may have as well: a set costs more than all the rest of a task."""
        self._downstream = tasks

    def iter_downstream(self) -> Collection[SwarmTask]:
        """Return the tasks that wait for this one, to be read only."""
        return self._downstream

    def __repr__(self) -> str:
        return f"SwarmTask({self.task_id}, {self.status.name})"
