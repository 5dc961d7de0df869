"""Whether an open poll of a distributor has to be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core.constants import TaskInstanceStatus
from jobmon.server import limits
from jobmon.server.problems import NotFound
from jobmon.server.queries.leasing import has_other_grant
from jobmon.server.standing import Standing, orders, standing
from jobmon.server.transitions import QUEUING_RUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.core.wire.launching import SyncRequest
    from jobmon.server.sql import Session

TI = TaskInstanceStatus
_WORK: Final = """
SELECT ti.id FROM cluster c JOIN task_instance ti ON ti.cluster_id = c.id
WHERE c.name IN (:clusters...) AND ti.workflow_run_id = :run AND ti.status = :queued"""
_NOT_FULL: Final = " AND (SELECT t.array_id FROM task t WHERE t.id = ti.task_id) NOT IN (:full...)"
_ONE: Final = " LIMIT 1"


def place_of_run(session: Session, run_id: int) -> tuple[int, bool]:
    """Return the workflow of a run, and whether its limits were changed since it was bound."""
    row = session.row(
        """
        SELECT w.id, COALESCE(w.limit_at > r.bound_at, FALSE)
        FROM workflow_run r JOIN workflow w ON w.id = r.workflow_id WHERE r.id = :id
        """,
        id=run_id,
    )
    if row is None:
        raise NotFound.of("workflow run", run_id)
    return int(row[0]), bool(row[1])


def has_news(session: Session, run_id: int, request: SyncRequest) -> bool:
    """Say whether there is work, something new to kill or triage, a new status, another grant, or a successor."""
    now = standing(session, run_id, request.epoch)
    if now.is_fenced or request.known_status not in (None, now.run_status):
        return True
    if now.is_retired:
        return not request.retired or _has_orders(session, now, request)
    return (
        _has_work(session, run_id, now.run_status, request)
        or _has_orders(session, now, request)
        or has_other_grant(session, now.workflow_id, request.slots)
        or _is_batch_taken(session, now.workflow_id, request.packed)
    )


def _is_batch_taken(session: Session, workflow_id: int, numbers: Sequence[int]) -> bool:
    """Whether jobs have taken all of one of these batches: there is room for another."""
    if not numbers:
        return False
    found = session.value(
        """
        SELECT b.id FROM batch b JOIN packed_batch p ON p.batch_id = b.id
        WHERE b.workflow_id = :workflow AND b.number IN (:numbers...) AND p.taken >= p.size LIMIT 1
        """,
        workflow=workflow_id,
        numbers=list(numbers),
    )
    return found is not None


def _has_work(session: Session, run_id: int, status: str, request: SyncRequest) -> bool:
    wanting = [name for name, count in request.capacity.items() if count > 0]
    if not wanting or status not in QUEUING_RUNS:
        return False
    if request.key and session.value("SELECT id FROM batch WHERE request_key = :key LIMIT 1", key=request.key):
        return True
    left = limits.room(session, run_id)
    values = {"clusters": wanting, "run": run_id, "queued": TI.QUEUED.value}
    if left is None:
        return session.value(_WORK + _ONE, **values) is not None
    return left.workflow > 0 and session.value(_WORK + _NOT_FULL + _ONE, **values, full=left.full) is not None


def _has_orders(session: Session, now: Standing, request: SyncRequest) -> bool:
    known = {TI.KILL_SELF.value: set(request.known_to_kill), TI.TRIAGING.value: set(request.known_to_triage)}
    return any(attempt_id not in known[status] for attempt_id, status in orders(session, now))
