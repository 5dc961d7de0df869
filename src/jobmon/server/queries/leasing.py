"""Whether a poll has something to say or to hear about the cores that its workflow shares with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.core.wire.launching import SlotsWanted
    from jobmon.server.sql import Session


def has_other_grant(session: Session, workflow_id: int, wanted: Mapping[str, SlotsWanted]) -> bool:
    """Say whether the workflow does not know its newest grant."""
    return any(
        one.version
        != session.value(
            "SELECT version FROM slot_lease WHERE pool = :pool AND workflow_id = :workflow",
            pool=one.pool,
            workflow=workflow_id,
        )
        for one in wanted.values()
    )


def is_renewal_due(session: Session, workflow_id: int, wanted: Mapping[str, SlotsWanted]) -> bool:
    """Say whether the leases are not recorded as they are; alone in a pool only the grant matters."""
    return any(_is_due(session, workflow_id, one) for one in wanted.values())


def _is_due(session: Session, workflow_id: int, wanted: SlotsWanted) -> bool:
    rows = session.rows(
        "SELECT workflow_id, total, granted, held, wanted, head FROM slot_lease WHERE pool = :pool", pool=wanted.pool
    )
    leases = {row[0]: row[1:] for row in rows}
    if workflow_id not in leases:
        return True
    total, granted, *said = leases[workflow_id]
    if len(leases) == 1:
        return bool(granted != wanted.total or total != wanted.total)
    return said != [wanted.held, wanted.wanted, wanted.head]
