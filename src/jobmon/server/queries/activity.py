"""Whether the server is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.server import User, UsersResponse
from jobmon.server.transitions import FINAL_RUNS, TAKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.server.sql import Session

#: So many clients and as many distributors are named.
USERS_SHOWN_MAX: Final = 100
#: A distributor that was not heard of for so long counts as silent.
SILENT_MICROSECONDS: Final = 90 * 1_000_000


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


def users(session: Session, now: int) -> UsersResponse:
    """Name the clients of runs that are not final, and the distributors that registered last."""
    clients = session.rows(
        """
        SELECT workflow_id, id, host, pid, pid_start_time, report_by FROM workflow_run
        WHERE status NOT IN (:final...) ORDER BY id DESC LIMIT :most
        """,
        final=FINAL_RUNS,
        most=USERS_SHOWN_MAX,
    )
    distributors = session.rows(
        """
        SELECT workflow_id, workflow_run_id, host, pid, pid_start_time, seen_at FROM distributor
        ORDER BY id DESC LIMIT :most
        """,
        most=USERS_SHOWN_MAX,
    )
    found = [_user("client", row, row[5] < now) for row in clients]
    return UsersResponse(
        users=found + [_user("distributor", r, r[5] + SILENT_MICROSECONDS < now) for r in distributors]
    )


def _user(part: str, row: Sequence[Any], is_silent: bool) -> User:
    return User(
        part=part,
        workflow_id=row[0],
        workflow_run_id=row[1],
        host=row[2],
        pid=row[3],
        pid_start_time=row[4],
        is_silent=is_silent,
    )
