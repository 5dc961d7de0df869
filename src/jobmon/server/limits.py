"""Limit how many queued attempts may be launched if limits were changed after the run was bound.

The orchestrator queues within the limits that it knows. That is enough as long as the limits stay the same; if a user
lowers them, or pauses, attempts that are already queued are held here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobmon.server.constructs import func, select
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW
from jobmon.server.models import task, task_array, task_instance, workflow, workflow_run
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transitions import TAKEN

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.sql import Session


@dataclass(slots=True)
class Room:
    """How many more attempts may be launched: for the workflow, and for each array whose limit was changed."""

    workflow: int
    arrays: dict[int, int]

    @property
    def full(self) -> list[int]:
        """The arrays for which no more attempts may be launched."""
        return [array_id for array_id, count in self.arrays.items() if count <= 0]

    def of(self, array_id: int) -> int:
        """Return how many attempts of an array may be launched."""
        return max(0, min(self.workflow, self.arrays.get(array_id, self.workflow)))

    def admit(self, array_id: int) -> bool:
        """Reserve one attempt within the limits; return whether they allow it."""
        if not self.of(array_id):
            return False
        self.workflow -= 1
        if array_id in self.arrays:
            self.arrays[array_id] -= 1
        return True


@statement
def _changed_limit() -> Select[Any]:
    w, r = workflow.c, workflow_run.c
    return (
        select(w.id, w.max_concurrently_running, r.bound_at)
        .join_from(workflow_run, workflow, w.id == r.workflow_id)
        .where(r.id == param("run"), w.limit_at > r.bound_at)
    )


@statement
def _taken_by_array() -> Select[Any]:
    return (
        select(task.c.array_id, func.count())
        .select_from(ATTEMPTS_OF_WORKFLOW.join(task, task.c.id == task_instance.c.task_id))
        .where(workflow_run.c.workflow_id == param("workflow"), any_of(task_instance.c.status, "taken"))
        .group_by(task.c.array_id)
    )


@statement
def _changed_arrays() -> Select[Any]:
    a = task_array.c
    return select(a.id, a.max_concurrently_running).where(
        a.workflow_id == param("workflow"), a.limit_at > param("bound_at")
    )


def room(session: Session, run_id: int) -> Room | None:
    """Return how many attempts of a run may be launched; None: its limits are unchanged."""
    row = session.row(_changed_limit, run=run_id)
    if row is None:
        return None
    workflow_id, limit, bound_at = row
    taken = dict(session.rows(_taken_by_array, workflow=workflow_id, taken=TAKEN))
    changed = session.rows(_changed_arrays, workflow=workflow_id, bound_at=bound_at)
    return Room(limit - sum(taken.values()), {array_id: most - taken.get(array_id, 0) for array_id, most in changed})
