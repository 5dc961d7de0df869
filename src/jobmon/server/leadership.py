"""Decide a distributor's role: leader, retired (finishing its own attempts), or fenced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.server.constructs import Boolean, and_, func, or_, select
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, newest_run
from jobmon.server.models import batch, distributor, packed_batch, task_instance, workflow, workflow_run
from jobmon.server.problems import NotFound
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transitions import TAKEN

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.sql import Session


@dataclass(frozen=True, slots=True)
class Role:
    """A distributor's role. `is_fenced`: it must exit. `is_retired`: replaced by another host, with commands left."""

    workflow_id: int
    run_status: str
    host: str | None
    is_fenced: bool = False
    is_retired: bool = False

    @property
    def leads(self) -> bool:
        """Whether it leads its workflow: it may launch, and handles everything that is not bound to another host."""
        return not (self.is_fenced or self.is_retired)


@statement
def _place() -> Select[Any]:
    r, d = workflow_run.c, distributor.c
    of_workflow = d.workflow_id == r.workflow_id
    newest_epoch = select(func.max(d.epoch)).where(of_workflow).scalar_subquery()
    host = select(d.host).where(of_workflow, d.epoch == param("epoch")).scalar_subquery()
    return select(r.workflow_id, r.status, newest_run(r.workflow_id), newest_epoch, host).where(r.id == param("run"))


def role_of(session: Session, run_id: int, epoch: int) -> Role:
    """Return the role of the distributor of an epoch.

    Raises:
        NotFound: the run does not exist.
    """
    row = session.row(_place, run=run_id, epoch=epoch)
    if row is None:
        raise NotFound.of("workflow run", run_id)
    workflow_id, status, newest_run, newest_epoch, host = row
    if newest_run == run_id and newest_epoch == epoch:
        return Role(workflow_id, status, host)
    is_retired = host is not None and has_to_stay(session, workflow_id, run_id, epoch, host)
    return Role(workflow_id, status, host, is_fenced=not is_retired, is_retired=is_retired)


@statement
def _successor() -> Select[Any]:
    w, d, r = workflow.c, distributor.c, workflow_run.c
    same_host = select(d.id).where(d.workflow_id == w.id, d.epoch > param("epoch"), d.host == param("host"))
    next_run = select(r.id).where(r.host == param("host"), r.id != param("run"), r.id == newest_run(w.id))
    return select(w.id).where(w.id == param("workflow"), or_(same_host.exists(), next_run.exists()))


def has_to_stay(session: Session, workflow_id: int, run_id: int, epoch: int, host: str) -> bool:
    """Return whether a replaced distributor must stay for commands that no other host can see.

    It need not stay if its own host has, or will have, a newer distributor, which adopts these commands.
    """
    has_successor = session.value(_successor, workflow=workflow_id, run=run_id, epoch=epoch, host=host)
    return has_successor is None and has_live_attempts(session, workflow_id, host)


_OF_HOSTS: Final = ATTEMPTS_OF_WORKFLOW.join(batch, batch.c.id == task_instance.c.batch_id)


@statement
def _live_on_host() -> Select[Any]:
    return (
        select(task_instance.c.id)
        .select_from(_OF_HOSTS)
        .where(
            workflow_run.c.workflow_id == param("workflow"),
            any_of(task_instance.c.status, "taken"),
            batch.c.host == param("host"),
        )
        .limit(1)
    )


def has_live_attempts(session: Session, workflow_id: int, host: str) -> bool:
    """Return whether a host still has live attempts."""
    found = session.value(_live_on_host, workflow=workflow_id, taken=TAKEN, host=host)
    return found is not None


@statement
def _orders() -> Select[Any]:
    ti, p = task_instance.c, packed_batch.c
    packed = select(p.batch_id).where(p.workflow_id == param("workflow"))
    return (
        select(ti.id, ti.status)
        .select_from(_OF_HOSTS)
        .where(
            workflow_run.c.workflow_id == param("workflow"),
            any_of(ti.status, "statuses"),
            or_(batch.c.host == param("host"), and_(batch.c.host.is_(None), param("leads", Boolean))),
            ti.batch_id.not_in(packed),
        )
    )


def orders(session: Session, of: Role) -> list[tuple[int, str]]:
    """Return the attempts that a distributor must kill or triage, with their status; none of packed jobs."""
    return session.rows(_orders, workflow=of.workflow_id, statuses=fsm.ORDERS, host=of.host, leads=of.leads)
