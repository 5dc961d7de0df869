"""A task as the swarm sees it: status, counters, downstream tasks. Kept small, because there may be a million."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core.constants import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from jobmon.client.task_resources import TaskResources


class SwarmTask:
    """One task of a running workflow. Equal only to itself.

    Args:
        task_id: ID in the database.
        array_id: ID of the array to which the task belongs.
        status: letter of a `TaskStatus`.
        max_attempts: maximum number of charged attempts.
        task_resources: its request; None until `compute_resources_callable` has returned it.
        cluster: the cluster on which it runs.
        resource_scales: how each resource grows after a resource error, by resource; None: not at all.
        fallback_queues: queues to try, in this order, when a raised request no longer fits its queue.
        compute_resources_callable: returns the request once the upstream tasks are done.
        is_expansion: whether it is an expansion, whose function is called instead of a command.
        origin_id: the expansion that added it; 0: the script defines it.

    Only `SwarmState.apply_update` may change `status`, and only `SwarmState` may change the counts of upstream tasks.
    """

    __slots__ = (
        "_downstream",
        "adjustments",
        "array_id",
        "cluster",
        "compute_resources_callable",
        "fallback_queues",
        "is_expansion",
        "is_propagated",
        "max_attempts",
        "num_upstreams",
        "num_upstreams_done",
        "origin_id",
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
        *,
        is_expansion: bool = False,
        origin_id: int = 0,
    ) -> None:
        self.task_id = task_id
        self.array_id = array_id
        self.status = status if type(status) is TaskStatus else TaskStatus(status)
        self.max_attempts = max_attempts
        self.task_resources = task_resources
        self.cluster = cluster
        self.resource_scales = resource_scales
        self.fallback_queues = fallback_queues
        self.compute_resources_callable = compute_resources_callable
        self.is_expansion = is_expansion
        self.origin_id = origin_id
        self.num_upstreams = 0
        self.num_upstreams_done = 0
        #: Number of times its request was raised.
        self.adjustments = 0
        #: Whether its downstream tasks have counted it as done.
        self.is_propagated = False
        self._downstream: Collection[SwarmTask] = ()

    @property
    def all_upstreams_done(self) -> bool:
        """Whether all upstream tasks are done."""
        return self.num_upstreams_done >= self.num_upstreams

    @property
    def downstream_swarm_tasks(self) -> set[SwarmTask]:
        """The tasks that depend on this one, as a set of this task that callers may change."""
        if not isinstance(self._downstream, set):
            self._downstream = set(self._downstream)
        return self._downstream

    @downstream_swarm_tasks.setter
    def downstream_swarm_tasks(self, tasks: Iterable[SwarmTask]) -> None:
        self._downstream = set(tasks)

    @property
    def downstream_tasks(self) -> list[SwarmTask]:
        """The tasks that depend on this one, as a list."""
        return list(self._downstream)

    def share_downstream(self, tasks: tuple[SwarmTask, ...]) -> None:
        """Use a tuple that other tasks may share: a set takes more memory than the rest of a task."""
        self._downstream = tasks

    def iter_downstream(self) -> Collection[SwarmTask]:
        """Return the tasks that depend on this one, read-only."""
        return self._downstream

    def __repr__(self) -> str:
        return f"SwarmTask({self.task_id}, {self.status.name})"
