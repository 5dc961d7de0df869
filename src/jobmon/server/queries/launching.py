"""Determine whether an open poll of a distributor has to be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core.constants import TaskInstanceStatus
from jobmon.server import limits
from jobmon.server.constructs import false, func, select
from jobmon.server.leadership import Role, orders, role_of
from jobmon.server.models import batch, cluster, packed_batch, task, task_instance, workflow, workflow_run
from jobmon.server.problems import NotFound
from jobmon.server.sql import any_of, none_of, param, statement, statements
from jobmon.server.transitions import QUEUING_RUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select

    from jobmon.core.wire.launching import SyncRequest
    from jobmon.server.sql import Session

TI = TaskInstanceStatus


@statements
def _work(is_limited: bool) -> Select[Any]:
    """Select an attempt that may be launched; with changed limits, none of a full array."""
    found = (
        select(task_instance.c.id)
        .join_from(cluster, task_instance, task_instance.c.cluster_id == cluster.c.id)
        .where(
            any_of(cluster.c.name, "clusters"),
            task_instance.c.workflow_run_id == param("run"),
            task_instance.c.status == param("queued"),
        )
        .limit(1)
    )
    if not is_limited:
        return found
    array_id = select(task.c.array_id).where(task.c.id == task_instance.c.task_id).scalar_subquery()
    return found.where(none_of(array_id, "full"))


@statement
def _workflow_of_run() -> Select[Any]:
    w, r = workflow.c, workflow_run.c
    return (
        select(w.id, func.coalesce(w.limit_at > r.bound_at, false()))
        .join_from(workflow_run, workflow, w.id == r.workflow_id)
        .where(r.id == param("id"))
    )


@statement
def _taken_batch() -> Select[Any]:
    b, p = batch.c, packed_batch.c
    return (
        select(b.id)
        .join_from(batch, packed_batch, p.batch_id == b.id)
        .where(b.workflow_id == param("workflow"), any_of(b.number, "numbers"), p.taken >= p.size)
        .limit(1)
    )


@statement
def _batch_of_request() -> Select[Any]:
    return select(batch.c.id).where(batch.c.request_key == param("key")).limit(1)


def place_of_run(session: Session, run_id: int) -> tuple[int, bool]:
    """Return the workflow of a run, and whether its limits were changed since it was bound."""
    row = session.row(_workflow_of_run, id=run_id)
    if row is None:
        raise NotFound.of("workflow run", run_id)
    return int(row[0]), bool(row[1])


def has_news(session: Session, run_id: int, request: SyncRequest) -> bool:
    """Return whether there is work, something new to kill or triage, a new status, another grant, or a successor."""
    now = role_of(session, run_id, request.epoch)
    if now.is_fenced or request.known_status not in (None, now.run_status):
        return True
    if now.is_retired:
        return not request.retired or _has_orders(session, now, request)
    return (
        _has_work(session, run_id, now.run_status, request)
        or _has_orders(session, now, request)
        or _is_batch_taken(session, now.workflow_id, request.packed)
    )


def _is_batch_taken(session: Session, workflow_id: int, numbers: Sequence[int]) -> bool:
    """Return whether jobs have taken all attempts of one of these batches, so that there is space for another."""
    if not numbers:
        return False
    return session.value(_taken_batch, workflow=workflow_id, numbers=numbers) is not None


def _has_work(session: Session, run_id: int, status: str, request: SyncRequest) -> bool:
    wanting = [name for name, count in request.capacity.items() if count > 0]
    if not wanting or status not in QUEUING_RUNS:
        return False
    if request.key and session.value(_batch_of_request, key=request.key):
        return True
    return is_work_queued(session, run_id, wanting)


def is_work_queued(session: Session, run_id: int, wanting: Sequence[str]) -> bool:
    """Return whether something may be launched on one of these clusters."""
    left = limits.room(session, run_id)
    values = {"clusters": wanting, "run": run_id, "queued": TI.QUEUED.value}
    if left is None:
        return session.value(_work(False), **values) is not None
    return left.workflow > 0 and session.value(_work(True), **values, full=left.full) is not None


def _has_orders(session: Session, now: Role, request: SyncRequest) -> bool:
    known = {TI.KILL_SELF.value: set(request.known_to_kill), TI.TRIAGING.value: set(request.known_to_triage)}
    return any(attempt_id not in known[status] for attempt_id, status in orders(session, now))
