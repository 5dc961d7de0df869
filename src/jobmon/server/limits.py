"""What may be handed out of what is queued, where limits were changed since the run was bound.

The orchestrator queues within the limits that it knows. As long as nobody changes them that is enough; when somebody
lowers them, or pauses, what is queued already is held back here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobmon.server.transitions import TAKEN

if TYPE_CHECKING:
    from jobmon.server.sql import Session


@dataclass(slots=True)
class Room:
    """How many more attempts may be handed out: of the workflow, and of each array of which the limit was changed."""

    workflow: int
    arrays: dict[int, int]

    @property
    def full(self) -> list[int]:
        """The arrays of which none may be handed out."""
        return [array_id for array_id, count in self.arrays.items() if count <= 0]

    def of(self, array_id: int) -> int:
        """Return how many of an array may be handed out."""
        return max(0, min(self.workflow, self.arrays.get(array_id, self.workflow)))

    def admit(self, array_id: int) -> bool:
        """Take the place of one attempt, if there is room for it."""
        if not self.of(array_id):
            return False
        self.workflow -= 1
        if array_id in self.arrays:
            self.arrays[array_id] -= 1
        return True


def room(session: Session, run_id: int) -> Room | None:
    """Return how much may be handed out for a run; None: nobody changed its limits."""
    row = session.row(
        """
        SELECT w.id, w.max_concurrently_running, r.bound_at FROM workflow_run r JOIN workflow w ON w.id = r.workflow_id
        WHERE r.id = :run AND w.limit_at > r.bound_at
        """,
        run=run_id,
    )
    if row is None:
        return None
    workflow_id, limit, bound_at = row
    taken = dict(
        session.rows(
            """
            SELECT b.array_id, COUNT(*) FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
            JOIN batch b ON b.id = ti.batch_id
            WHERE r.workflow_id = :workflow AND ti.status IN (:taken...) GROUP BY b.array_id
            """,
            workflow=workflow_id,
            taken=TAKEN,
        )
    )
    changed = session.rows(
        "SELECT id, max_concurrently_running FROM task_array WHERE workflow_id = :workflow AND limit_at > :bound_at",
        workflow=workflow_id,
        bound_at=bound_at,
    )
    return Room(limit - sum(taken.values()), {array_id: most - taken.get(array_id, 0) for array_id, most in changed})
