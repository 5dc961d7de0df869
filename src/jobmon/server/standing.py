"""Where a distributor stands in its workflow: does it launch, does it only see to what it began, or has it to leave?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import TaskInstanceStatus
from jobmon.server.problems import NotFound
from jobmon.server.transitions import TAKEN

if TYPE_CHECKING:
    from jobmon.server.sql import Session

_ORDERS: Final = (TaskInstanceStatus.KILL_SELF, TaskInstanceStatus.TRIAGING)


@dataclass(frozen=True, slots=True)
class Standing:
    """`is_fenced`: it has to leave. `is_retired`: another host has taken over, and commands of it run on its own."""

    workflow_id: int
    run_status: str
    host: str | None
    is_fenced: bool = False
    is_retired: bool = False

    @property
    def leads(self) -> bool:
        """Whether it is the one of its workflow: it may launch, and sees to all that no other host has to."""
        return not (self.is_fenced or self.is_retired)


def standing(session: Session, run_id: int, epoch: int) -> Standing:
    """Return where the distributor of an epoch stands.

    Raises:
        NotFound: there is no such run.
    """
    row = session.row(
        """
        SELECT r.workflow_id, r.status,
            (SELECT MAX(id) FROM workflow_run newest WHERE newest.workflow_id = r.workflow_id),
            (SELECT MAX(epoch) FROM distributor d WHERE d.workflow_id = r.workflow_id),
            (SELECT host FROM distributor d WHERE d.workflow_id = r.workflow_id AND d.epoch = :epoch)
        FROM workflow_run r WHERE r.id = :run
        """,
        run=run_id,
        epoch=epoch,
    )
    if row is None:
        raise NotFound.of("workflow run", run_id)
    workflow_id, status, newest_run, newest_epoch, host = row
    if newest_run == run_id and newest_epoch == epoch:
        return Standing(workflow_id, status, host)
    is_retired = host is not None and has_to_stay(session, workflow_id, run_id, epoch, host)
    return Standing(workflow_id, status, host, is_fenced=not is_retired, is_retired=is_retired)


def has_to_stay(session: Session, workflow_id: int, run_id: int, epoch: int, host: str) -> bool:
    """Say whether a distributor that was replaced has still to see to commands that no other host could see.

    Not where its own host has another one, or will have: that adopts them.
    """
    has_successor = session.value(
        """
        SELECT 1 FROM workflow w WHERE w.id = :workflow AND (
            EXISTS (SELECT 1 FROM distributor d WHERE d.workflow_id = w.id AND d.epoch > :epoch AND d.host = :host)
            OR EXISTS (SELECT 1 FROM workflow_run r WHERE r.host = :host AND r.id != :run
                AND r.id = (SELECT MAX(id) FROM workflow_run newest WHERE newest.workflow_id = w.id)))
        """,
        workflow=workflow_id,
        run=run_id,
        epoch=epoch,
        host=host,
    )
    return has_successor is None and has_live_attempts(session, workflow_id, host)


def has_live_attempts(session: Session, workflow_id: int, host: str) -> bool:
    """Say whether attempts live of which the commands run on a host."""
    found = session.value(
        """
        SELECT ti.id FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        JOIN batch b ON b.id = ti.batch_id
        WHERE r.workflow_id = :workflow AND ti.status IN (:taken...) AND b.host = :host LIMIT 1
        """,
        workflow=workflow_id,
        taken=TAKEN,
        host=host,
    )
    return found is not None


def orders(session: Session, of: Standing) -> list[tuple[int, str]]:
    """Return the attempts that a distributor is to kill or to look for, with their status; none of packed jobs."""
    return session.rows(
        """
        SELECT ti.id, ti.status FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        JOIN batch b ON b.id = ti.batch_id
        WHERE r.workflow_id = :workflow AND ti.status IN (:statuses...)
        AND (b.host = :host OR b.host IS NULL AND :leads = 1)
        AND ti.batch_id NOT IN (SELECT p.batch_id FROM packed_batch p WHERE p.workflow_id = :workflow)
        """,
        workflow=of.workflow_id,
        statuses=_ORDERS,
        host=of.host,
        leads=int(of.leads),
    )
