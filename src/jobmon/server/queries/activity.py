"""Whether the server is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.server.transitions import FINAL_RUNS, TAKEN

if TYPE_CHECKING:
    from jobmon.server.sql import Session


def is_anything_alive(session: Session, now: int) -> bool:
    """Say whether a run or an attempt showed a sign of life that still counts."""
    run = session.value(
        "SELECT id FROM workflow_run WHERE status NOT IN (:final...) AND report_by > :now LIMIT 1",
        final=FINAL_RUNS,
        now=now,
    )
    if run is not None:
        return True
    attempt = session.value(
        """
        SELECT ti.id FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        WHERE ti.status IN (:taken...) AND ti.report_by > :now LIMIT 1
        """,
        taken=TAKEN,
        now=now,
    )
    return attempt is not None
