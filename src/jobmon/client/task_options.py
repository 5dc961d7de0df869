"""Options of how a task is run, as given for it, and merged with the defaults of all levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from jobmon.client.defaults import IteratorScale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobmon.core.resources import Resources


class TaskOptions:
    """Options of how a task is run; shared by all tasks with equal options."""

    __slots__ = (
        "array_name",
        "cluster_name",
        "compute_resources",
        "compute_resources_callable",
        "fallback_queues",
        "max_attempts",
        "priority",
        "resource_scales",
        "variants",
    )

    def __init__(
        self,
        max_attempts: int | None = None,
        compute_resources: Resources | None = None,
        compute_resources_callable: Callable[..., Any] | None = None,
        resource_scales: dict[str, Any] | None = None,
        cluster_name: str = "",
        fallback_queues: list[str] | None = None,
        array_name: str = "",
        priority: int = 0,
        variants: dict[int, TaskOptions] | None = None,
    ) -> None:
        self.array_name = array_name
        self.priority = priority
        #: The same options with other priorities, so that tasks share them.
        self.variants = variants
        self.max_attempts = max_attempts
        self.compute_resources = compute_resources
        self.compute_resources_callable = compute_resources_callable
        self.resource_scales = resource_scales
        self.cluster_name = cluster_name
        self.fallback_queues = fallback_queues

    def replaced(self, **changes: Any) -> TaskOptions:
        """Return a copy with some options changed, for a single task."""
        return TaskOptions(**({name: getattr(self, name) for name in self.__slots__} | {"variants": None} | changes))

    def with_priority(self, priority: int) -> TaskOptions:
        """Return these options with another priority; tasks of the same priority share them."""
        if self.variants is None:
            self.variants = {self.priority: self}
        if priority not in self.variants:
            self.variants[priority] = self.replaced(priority=priority, variants=self.variants)
        return self.variants[priority]


class Settled(NamedTuple):
    """Options of a task after merging the defaults of all levels."""

    cluster_name: str
    max_attempts: int
    resource_scales: dict[str, Any]


def settled_scales(scales: Mapping[str, Any], max_attempts: int) -> dict[str, Any]:
    """Replace each iterator by its first values, one for each attempt."""
    return {
        key: scale.values(max_attempts) if isinstance(scale, IteratorScale) else scale for key, scale in scales.items()
    }
