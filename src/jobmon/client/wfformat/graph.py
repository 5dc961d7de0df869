"""Dependencies of a recorded workflow: order, cycles, critical path. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.client.wfformat.document import Recording


def topological_order(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the tasks so that each comes after its parents; omit tasks that are in or downstream of a cycle."""
    waiting = {task: len(above) for task, above in parents.items()}
    children: dict[str, list[str]] = {task: [] for task in parents}
    for task, above in parents.items():
        for parent in above:
            children[parent].append(task)
    order = [task for task, count in waiting.items() if not count]
    for task in order:  # grows during the iteration
        for child in children[task]:
            waiting[child] -= 1
            if not waiting[child]:
                order.append(child)
    return order


def find_cycle(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the tasks of one cycle, each followed by a task that depends on it; empty if there is no cycle."""
    stuck = parents.keys() - set(topological_order(parents))
    if not stuck:
        return []
    # Every stuck task has a stuck parent, so walking up must return to a task already seen.
    trail = [min(stuck)]
    seen = {trail[0]: 0}
    while True:
        above = next(parent for parent in parents[trail[-1]] if parent in stuck)
        if above in seen:
            return trail[seen[above] :][::-1]
        seen[above] = len(trail)
        trail.append(above)


def critical_path_seconds(recording: Recording) -> float:
    """Return the duration of the longest chain of tasks: no number of machines can be faster."""
    ends: dict[str, float] = {}
    for task in recording.tasks:
        start = max((ends[parent] for parent in task.parents), default=0.0)
        ends[task.task_id] = start + task.duration_seconds
    return max(ends.values(), default=0.0)
