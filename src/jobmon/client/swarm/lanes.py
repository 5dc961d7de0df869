"""The waiting tasks of a run, one lane for each priority. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobmon.client.swarm.task import SwarmTask


@dataclass(frozen=True, slots=True)
class Taken:
    """What a plan did to the waiting tasks of one priority.

    Args:
        examined: number of entries at the front of the ready tasks that the plan processed.
        held: those of them to be put aside because their array is full.
        released: array -> number of its tasks put aside, from the front, that the plan processed.
    """

    examined: int
    held: tuple[SwarmTask, ...] = ()
    released: Mapping[int, int] = field(default_factory=dict)


class Lane:
    """The waiting tasks of one priority: ready ones in order, and those put aside because their array was full."""

    __slots__ = ("held", "ready")

    def __init__(self, ready: deque[SwarmTask]) -> None:
        self.ready = ready
        self.held: dict[int, deque[SwarmTask]] = {}

    def __bool__(self) -> bool:
        return bool(self.ready or self.held)

    def take(self, taken: Taken) -> None:
        """Apply what a plan did."""
        for _ in range(taken.examined):
            self.ready.popleft()
        for array_id, count in taken.released.items():
            waiting = self.held[array_id]
            for _ in range(count):
                waiting.popleft()
            if not waiting:
                del self.held[array_id]
        for task in taken.held:
            self.held.setdefault(task.array_id, deque()).append(task)
