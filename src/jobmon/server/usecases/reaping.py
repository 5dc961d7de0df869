"""What nobody looks after any more is brought to an end. One server process at a time does it: who holds the lease.

* A run that is overdue is closed as `fsm.RUN_WHEN_LOST` says. One that was told to make room is closed only when no
  attempt of it has still to end (KILL_SELF).
* Attempts that are overdue go to triage while a distributor is there to find out; orphans are ended (`triaging`).
* A workflow that no run leads any more and whose tasks are all done is DONE, though nobody said so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobmon.core import fsm
from jobmon.core.constants import Actor, TaskInstanceStatus, TaskStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.server import transitions
from jobmon.server.usecases.resuming import MAKING_ROOM, is_overdue
from jobmon.server.usecases.runs import require_run, require_workflow
from jobmon.server.usecases.triaging import end_all_orphans, triage

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

LEASE: Final = "reaper"
#: So much of each kind is done in one pass; the rest is for the next.
RUNS_PER_PASS_MAX: Final = 100
WORKFLOWS_PER_PASS_MAX: Final = 100
TI = TaskInstanceStatus
_UNDONE: Final = (WorkflowStatus.FAILED, WorkflowStatus.HALTED, WorkflowStatus.ABORTED)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a reader found: runs with attempts that are overdue, and workflows that may be done."""

    run_ids: list[int] = field(default_factory=list)
    workflow_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reaped:
    """What a pass did."""

    runs: list[int] = field(default_factory=list)
    attempts: int = 0
    repaired: list[int] = field(default_factory=list)


def look(session: Session, now: int, since: int) -> Candidates:
    """Search for what a pass may have to do; the search is long and needs no writer.

    Args:
        session: where to search.
        now: the time, microseconds.
        since: a workflow of which no task changed after this stamp is left out.
    """
    return Candidates(
        session.column(
            """
            SELECT r.id FROM workflow_run r WHERE EXISTS (
                SELECT 1 FROM task_instance ti WHERE ti.workflow_run_id = r.id AND ti.status IN (:taken...)
                AND ti.report_by < :now) ORDER BY r.id DESC LIMIT :most
            """,
            taken=transitions.TAKEN,
            now=now,
            most=RUNS_PER_PASS_MAX,
        ),
        session.column(
            """
            SELECT w.id FROM workflow w WHERE w.status IN (:undone...) AND w.bound
            AND EXISTS (SELECT 1 FROM task t WHERE t.workflow_id = w.id AND t.status_at > :since)
            AND NOT EXISTS (SELECT 1 FROM task t WHERE t.workflow_id = w.id AND t.status != :done)
            ORDER BY w.id DESC LIMIT :most
            """,
            since=since,
            undone=_UNDONE,
            done=TaskStatus.DONE.value,
            most=WORKFLOWS_PER_PASS_MAX,
        ),
    )


def reap(tx: Transaction, holder: str, candidates: Candidates, is_gone: Callable[[str], bool]) -> Reaped:
    """Do one pass, if the lease can be had.

    Args:
        tx: the transaction.
        holder: who asks for the lease.
        candidates: where attempts and workflows are looked for.
        is_gone: says whether another holder is proven to be gone.
    """
    if not _take_lease(tx, holder, is_gone):
        return Reaped()
    attempts = sum(_settle_attempts(tx, run_id) for run_id in candidates.run_ids)
    runs = _close_lost_runs(tx)
    repaired = [workflow_id for workflow_id in candidates.workflow_ids if _repair(tx, workflow_id)]
    return Reaped(runs, attempts, repaired)


def _take_lease(tx: Transaction, holder: str, is_gone: Callable[[str], bool]) -> bool:
    """Take or renew the lease for two passes."""
    tx.run(
        "INSERT INTO lease (name, holder, expires_at) VALUES (:name, :holder, 0) ON CONFLICT DO NOTHING",
        name=LEASE,
        holder=holder,
    )
    row = tx.row("SELECT holder, expires_at FROM lease WHERE name = :name FOR UPDATE", name=LEASE)
    assert row is not None
    longest = 2 * int(tx.settings.reaper_interval_seconds * 1e6)
    is_held = tx.now <= row[1] <= tx.now + longest  # later than that: a clock has jumped
    if row[0] != holder and is_held and not is_gone(row[0]):
        return False
    tx.run(
        "UPDATE lease SET holder = :holder, expires_at = :expires WHERE name = :name",
        holder=holder,
        expires=tx.now + longest,
        name=LEASE,
    )
    return True


def _close_lost_runs(tx: Transaction) -> list[int]:
    rows = tx.rows(
        """
        SELECT id, status, workflow_id, report_by FROM workflow_run
        WHERE status NOT IN (:final...) AND report_by < :now ORDER BY id LIMIT :most
        """,
        final=transitions.FINAL_RUNS,
        now=tx.now,
        most=RUNS_PER_PASS_MAX,
    )
    closed = []
    for run_id, status, workflow_id, due in rows:
        if not is_overdue(tx, due) or _must_wait(tx, status, workflow_id):
            continue
        transitions.move_run(tx, require_run(tx, run_id), fsm.RUN_WHEN_LOST[WorkflowRunStatus(status)], Actor.REAPER)
        tx.audit(Actor.REAPER, "close lost run", workflow_id, run=run_id, was=status)
        _repair(tx, workflow_id)
        closed.append(run_id)
    return closed


def _must_wait(tx: Transaction, status: str, workflow_id: int) -> bool:
    """A run that makes room is over when its attempts are."""
    return status in MAKING_ROOM and bool(transitions.live_attempts(tx, workflow_id, [TI.KILL_SELF]))


def _settle_attempts(tx: Transaction, run_id: int) -> int:
    """End overdue attempts that nobody looks after, and send the others to triage; return how many ended."""
    ended = end_all_orphans(tx, require_run(tx, run_id))
    if not ended:  # else there may be more of them, which must not be taken for silent by their own fault
        triage(tx, run_id)
    return ended


def _repair(tx: Transaction, workflow_id: int) -> bool:
    """A workflow whose tasks are all done is done, even if its client died before it could say so."""
    row = tx.row(
        """
        SELECT w.bound, (SELECT MIN(id) FROM workflow_run r WHERE r.workflow_id = w.id AND r.status NOT IN (:final...)),
            EXISTS (SELECT 1 FROM task t WHERE t.workflow_id = w.id AND t.status != :done)
        FROM workflow w WHERE w.id = :id
        """,
        final=transitions.FINAL_RUNS,
        done=TaskStatus.DONE.value,
        id=workflow_id,
    )
    if row is None or not row[0] or row[1] is not None or row[2]:
        return False
    status = require_workflow(tx, workflow_id)
    if status == WorkflowStatus.DONE:
        return False
    transitions.move_workflow(tx, workflow_id, status, WorkflowStatus.DONE)
    tx.audit(Actor.REAPER, "repair", workflow_id, was=status)
    tx.wake_all(workflow_id)
    return True
