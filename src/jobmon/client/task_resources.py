"""A request for resources on a queue, as a value: compared by content, and never modified. No HTTP."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import resources as resource_rules
from jobmon.core.constants import ResourceType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.core.cluster_protocol import ClusterQueue

#: Python hashes keep 61 bits, less a sign; 60 bits are preserved on every platform.
HASH_BITS: Final = 60


class TaskResources:
    """A request for resources and the queue it is for.

    Args:
        requested_resources: resources as users write them; stored in normalized form, without the queue's name.
        queue: the queue, an instance of its plug-in's class.
        cluster_name: the cluster to which the queue belongs.
        cluster_id: ID of the cluster in the database, if known.
        kind: whether the request is the original one, a validated one, or one raised after a resource error.
        original: the user's original request; stored only if it differs.

    `id` is the ID in the database; None until the request is bound.

    Raises:
        InvalidResources, InvalidMemoryFormat: a value is invalid.
    """

    __slots__ = ("_hash", "cluster_id", "cluster_name", "id", "kind", "original", "queue", "requested_resources")

    def __init__(
        self,
        requested_resources: Mapping[str, Any],
        queue: ClusterQueue,
        cluster_name: str,
        cluster_id: int | None = None,
        kind: ResourceType = ResourceType.ORIGINAL,
        original: Mapping[str, Any] | None = None,
    ) -> None:
        normal = resource_rules.normalized(requested_resources)
        normal.pop("queue", None)
        self.requested_resources = normal
        self.queue = queue
        self.cluster_name = cluster_name
        self.cluster_id = cluster_id
        self.kind = ResourceType(kind)
        self.original = dict(original) if original is not None and original != normal else None
        self.id: int | None = None
        self._hash = _stable_hash(self._canonical())

    @property
    def queue_name(self) -> str:
        """Name of the queue."""
        return self.queue.queue_name

    def _canonical(self) -> str:
        source = () if self.original is None else (self.original,)
        content = (self.cluster_name, self.queue.queue_name, self.kind.value, self.requested_resources, *source)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)

    def __hash__(self) -> int:
        """Return the first 60 bits of the content's SHA-256, which are the same in every process."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, TaskResources):
            return NotImplemented
        return self._hash == other._hash and self._canonical() == other._canonical()

    def __repr__(self) -> str:
        return f"TaskResources({self.cluster_name}/{self.queue_name}, {self.requested_resources}, {self.kind.value})"

    def validate(self, strict: bool = False) -> tuple[bool, str]:
        """Return whether the queue accepts the request, and the problems; strict includes what could be coerced."""
        return self.queue.validate_resources(strict, **self.requested_resources)

    def coerce_resources(self) -> TaskResources:
        """Return the request completed with the queue's defaults and adjusted to its limits."""
        return self._on(self.queue, self.queue.coerce_resources(**self.requested_resources), ResourceType.VALIDATED)

    def adjust(
        self,
        scales: Mapping[str, Any] | None,
        fallback_queues: Sequence[ClusterQueue],
        step: int,
        cause: str | None = None,
        peak_gib: float | None = None,
    ) -> TaskResources:
        """Return the request after the `step`-th resource error of its task.

        The request stays on its queue if it fits. Otherwise it moves to the first fallback queue that accepts it, or
        else is adjusted to the limits of the last queue.

        Args:
            scales: how each resource grows, applied as given; without any, the exhausted resource grows
                (`resources.raised`).
            fallback_queues: queues to try, in this order.
            step: number of resource errors of the task so far, from 1.
            cause: why the attempt failed, if known.
            peak_gib: peak memory of the attempt, in GiB, if measured.

        Raises:
            InvalidResources: a scale cannot be applied.
        """
        if scales:
            grown = resource_rules.scaled(self.requested_resources, scales, step)
        else:
            grown = resource_rules.raised(self.requested_resources, cause, peak_gib)
        queues = [self.queue, *fallback_queues]
        for queue in queues:
            if queue.validate_resources(strict=True, **grown)[0]:
                return self._on(queue, grown, ResourceType.ADJUSTED)
        return self._on(queues[-1], queues[-1].coerce_resources(**grown), ResourceType.ADJUSTED)

    def _on(self, queue: ClusterQueue, requested: Mapping[str, Any], kind: ResourceType) -> TaskResources:
        original = self.requested_resources if self.original is None else self.original
        return TaskResources(requested, queue, self.cluster_name, self.cluster_id, kind, original)


def _stable_hash(text: str) -> int:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - HASH_BITS)
