"""Which attempts make way for more urgent tasks. Pure.

An agent claims attempts of its cluster in advance, and runs them in the order in which it claimed them; and queued
attempts count towards the limits of the workflow and of its templates. Both would delay an urgent task, so attempts
that have not started are recalled, uncharged. Nothing makes way for a task of equal priority, and no claimed attempt
makes way for one of another cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Unstarted:
    """An attempt that has not started. `position`: the order in which agents claimed it; None: it is still queued."""

    id: int
    cluster_id: int
    array_id: int
    priority: int
    position: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Tasks that may be queued, but for which a limit leaves no room: that of their array, or that of the workflow."""

    array_id: int
    number: int
    priority: int
    is_array_full: bool


def to_recall(attempts: Iterable[Unstarted], urgent: Mapping[int, int], blocked: Iterable[Blocked]) -> set[int]:
    """Return the IDs of the attempts that make way.

    Args:
        attempts: those that have not started.
        urgent: highest priority of the queued attempts of each cluster, by ID.
        blocked: tasks that cannot be queued because of a limit.
    """
    ordered = sorted(attempts, key=lambda one: (one.priority, -one.id))  # the least urgent and newest first
    recalled = _claimed_before(ordered, dict(urgent))
    used: set[int] = set()
    for tasks in sorted(blocked, key=lambda one: -one.priority):
        candidates = [one for one in _that_hinder(tasks, ordered) if one.id not in used]
        candidates.sort(key=lambda one: one.id not in recalled)  # those that make way anyway leave room, too
        used.update(one.id for one in candidates[: tasks.number])
    return recalled | used


def _claimed_before(attempts: Iterable[Unstarted], urgent: dict[int, int]) -> set[int]:
    """Return the claimed attempts that would start before a more urgent one of their cluster."""
    claimed = [(one.position, one) for one in attempts if one.position is not None]
    recalled = set()
    for _, one in sorted(claimed, key=lambda pair: pair[0], reverse=True):
        if one.priority < urgent.get(one.cluster_id, one.priority):
            recalled.add(one.id)
        else:
            urgent[one.cluster_id] = one.priority
    return recalled


def _that_hinder(tasks: Blocked, attempts: Iterable[Unstarted]) -> Iterator[Unstarted]:
    for one in attempts:
        if one.priority < tasks.priority and (one.array_id == tasks.array_id or not tasks.is_array_full):
            yield one
