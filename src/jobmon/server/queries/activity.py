"""Whether the server is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobmon.server.transitions import FINAL_RUNS, TAKEN

if TYPE_CHECKING:
    from jobmon.server.sql import Session


@dataclass(frozen=True, slots=True)
class Activity:
    """What lives, and how much is stored (None: this database does not say)."""

    runs: int
    attempts: int
    database_bytes: int | None


def activity(session: Session, now: int) -> Activity:
    """Count what shows signs of life."""
    runs = session.value(
        "SELECT COUNT(*) FROM workflow_run WHERE status NOT IN (:final...) AND report_by > :now",
        final=FINAL_RUNS,
        now=now,
    )
    attempts = session.value(
        """
        SELECT COUNT(*) FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        WHERE r.status NOT IN (:final...) AND ti.status IN (:taken...) AND ti.report_by > :now
        """,
        final=FINAL_RUNS,
        taken=TAKEN,
        now=now,
    )
    size = None
    if session.dialect == "sqlite":
        size = session.value("PRAGMA page_count") * session.value("PRAGMA page_size")
    return Activity(runs, attempts, size)


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
