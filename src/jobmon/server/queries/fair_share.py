"""Compare the cores in a poll's request with the recorded leases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.server.constructs import select
from jobmon.server.models import slot_lease
from jobmon.server.sql import param, statement

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.core.wire.launching import SlotsWanted
    from jobmon.server.fair_share import Holder
    from jobmon.server.sql import Session


@statement
def _version() -> Select[Any]:
    c = slot_lease.c
    return select(c.version).where(
        c.pool == param("pool"), c.workflow_id == param("workflow"), c.agent_id == param("agent")
    )


@statement
def _leases_of_pool() -> Select[Any]:
    c = slot_lease.c
    columns = (c.workflow_id, c.agent_id, c.total, c.granted, c.held, c.wanted, c.head)
    return select(*columns).where(c.pool == param("pool"))


def has_other_grant(session: Session, holder: Holder, wanted: SlotsWanted) -> bool:
    """Return whether a holder has not received its newest grant."""
    workflow_id, agent_id = holder
    return bool(wanted.version != session.value(_version, pool=wanted.pool, workflow=workflow_id, agent=agent_id))


def is_renewal_due(session: Session, holder: Holder, wanted: SlotsWanted) -> bool:
    """Return whether a recorded lease is outdated; if its holder is alone in the pool, only the grant matters."""
    rows = session.rows(_leases_of_pool, pool=wanted.pool)
    leases = {row[:2]: row[2:] for row in rows}
    if holder not in leases:
        return True
    total, granted, *said = leases[holder]
    if len(leases) == 1:
        return bool(granted != wanted.total or total != wanted.total)
    return said != [wanted.held, wanted.wanted, wanted.head]
