"""Find the task that killed the process that runs its command.

When that process dies, all its running attempts are lost, and one of their commands may be the reason (`kill $PPID`).
So each of these tasks, the suspects, runs alone the next time. A task whose command exits is cleared. A task whose
command ran alone when the process died again is to blame.

Pure. Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

#: Maximum number of suspects remembered; no machine has ever run more commands at once.
SUSPECTS_MAX = 10_000
#: The error text of an attempt whose task is to blame.
ERROR = (
    "killed its parent: the process that runs commands here was killed while only this command was running, as it was"
    " before, while other commands were running too. Does it kill its parent, as 'kill $PPID' does?"
)
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Suspects:
    """The suspects of one cluster."""

    def __init__(self) -> None:
        self._tasks: dict[int, None] = {}

    def __contains__(self, task_id: int) -> bool:
        return task_id in self._tasks

    @property
    def tasks(self) -> list[int]:
        """The suspects, oldest first."""
        return list(self._tasks)

    def lost(self, task_ids: Iterable[int]) -> int | None:
        """Record the tasks that ran when the process died; return the task that is to blame, if known."""
        together = set(task_ids)
        if len(together) == 1 and together <= self._tasks.keys():
            return next(iter(together))
        self.add(sorted(together))
        return None

    def add(self, task_ids: Iterable[int]) -> None:
        """Add suspects."""
        self._tasks.update(dict.fromkeys(task_ids))
        while len(self._tasks) > SUSPECTS_MAX:
            del self._tasks[next(iter(self._tasks))]

    def ended(self, task_id: int) -> None:
        """Clear a task whose command has exited while its parent was alive."""
        self._tasks.pop(task_id, None)
