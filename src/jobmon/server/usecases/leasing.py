"""Leases on the cores that several workflows share; who gets how many is decided in `server.slots`.

Every sync of a distributor renews its lease, which costs one look as long as nobody else is in the pool. Where the
division changes, the others' open polls are woken. A distributor that has been silent for `LEASE_SECONDS` is given
nothing more; the cores of its attempts stay counted until these end.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jobmon.core.wire.launching import SlotsGranted, SlotsWanted
from jobmon.server import transitions
from jobmon.server.problems import InvalidValue
from jobmon.server.slots import Claim, grant
from jobmon.server.transaction import Audience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

#: Longer than a poll stays open and its answer travels.
LEASE_SECONDS: Final = 60.0
POOLS_PER_REQUEST_MAX: Final = 100
POOL_CHARACTERS_MAX: Final = 255
CORES_MAX: Final = 1e6
_FRACTION: Final = 1e-9

_LEASES: Final = """
SELECT workflow_id, total, granted, version, held, wanted, head, since FROM slot_lease
WHERE pool = :pool ORDER BY workflow_id
"""


class _Lease:
    """A row, and what it was."""

    def __init__(self, workflow_id: int, claim: Claim, version: int) -> None:
        self.workflow_id = workflow_id
        self.claim = claim
        self.version = version


def renew(
    tx: Transaction, workflow_id: int, wanted: Mapping[str, SlotsWanted], *, is_over: bool
) -> dict[str, SlotsGranted]:
    """Renew the leases of a workflow; return what it may use of each.

    Args:
        tx: the transaction.
        workflow_id: whose leases.
        wanted: cluster name -> what it holds and wants.
        is_over: whether nothing more will be started, so that a lease without attempts is given back.
    """
    _check(wanted)
    granted = {name: _renew(tx, workflow_id, one) for name, one in wanted.items()}
    if is_over and wanted:
        release(tx, workflow_id)
    return granted


def _check(wanted: Mapping[str, SlotsWanted]) -> None:
    if len(wanted) > POOLS_PER_REQUEST_MAX:
        raise InvalidValue(f"slots: at most {POOLS_PER_REQUEST_MAX} clusters.")
    for one in wanted.values():
        if len(one.pool) > POOL_CHARACTERS_MAX:
            raise InvalidValue(f"slots: the name of a pool has at most {POOL_CHARACTERS_MAX} characters.")
        if not all(0 <= value <= CORES_MAX for value in (one.total, one.held, one.wanted, one.head)):
            raise InvalidValue(f"slots: cores must be from 0 to {CORES_MAX:g}.")
        if not 0 <= one.version < 2**31 - 1:
            raise InvalidValue("slots: version must be a number that was given.")


def _renew(tx: Transaction, workflow_id: int, wanted: SlotsWanted) -> SlotsGranted:
    leases = _leases(tx, wanted.pool)
    mine = leases.get(workflow_id)
    if not wanted.total and not wanted.held:
        return _close(tx, workflow_id, wanted, leases)
    if mine is not None and len(leases) == 1 and mine.claim.granted == mine.claim.most == wanted.total:
        return SlotsGranted(cores=mine.claim.granted, version=mine.version)
    if mine is None:
        leases[workflow_id] = _opened(tx, workflow_id, wanted)
    else:
        _take(tx, wanted.pool, mine, _renewed(mine, wanted, tx.now / 1e6), mine.version)
    _divide(tx, wanted.pool, leases)
    mine = leases[workflow_id]
    return SlotsGranted(cores=mine.claim.granted, version=mine.version)


def _close(tx: Transaction, workflow_id: int, wanted: SlotsWanted, leases: dict[int, _Lease]) -> SlotsGranted:
    """Whoever asks will start nothing any more, and nothing of it runs."""
    if leases.pop(workflow_id, None) is not None:
        _remove(tx, wanted.pool, workflow_id)
        _divide(tx, wanted.pool, leases)
    return SlotsGranted(cores=0.0, version=wanted.version)


def _leases(session: Session, pool: str) -> dict[int, _Lease]:
    return {
        row[0]: _Lease(
            row[0],
            Claim(
                identity=row[0],
                most=row[1],
                granted=row[2],
                held=row[4],
                wanted=row[5],
                head=row[6],
                since=row[7] / 1e6,
            ),
            row[3],
        )
        for row in session.rows(_LEASES, pool=pool)
    }


def _opened(tx: Transaction, workflow_id: int, wanted: SlotsWanted) -> _Lease:
    """The number goes on from what an earlier lease had, so that no late answer passes for a newer one."""
    claim = Claim(
        identity=workflow_id,
        most=wanted.total,
        granted=0.0,
        held=wanted.held,
        wanted=wanted.wanted,
        head=wanted.head,
        since=tx.now / 1e6,
    )
    version = wanted.version + 1
    tx.run(
        """
        INSERT INTO slot_lease (pool, workflow_id, total, granted, version, held, wanted, head, since)
        VALUES (:pool, :workflow, :total, 0, :version, :held, :wanted, :head, :now)
        """,
        pool=wanted.pool,
        workflow=workflow_id,
        total=wanted.total,
        version=version,
        held=wanted.held,
        wanted=wanted.wanted,
        head=wanted.head,
        now=tx.now,
    )
    return _Lease(workflow_id, claim, version)


def _renewed(lease: _Lease, wanted: SlotsWanted, now: float) -> Claim:
    """Whoever has not heard of the newest grant may still be using an earlier one: its cores are not free yet."""
    former = lease.claim
    is_told = wanted.version == lease.version
    held = max(wanted.held, former.granted) if is_told else max(wanted.held, former.held)
    claim = replace(former, most=wanted.total, held=held, wanted=wanted.wanted, head=wanted.head)
    return claim if claim.is_served == former.is_served else replace(claim, since=now)


def _take(tx: Transaction, pool: str, lease: _Lease, claim: Claim, version: int) -> None:
    """Store what changed."""
    if claim == lease.claim and version == lease.version:
        return
    tx.run(
        """
        UPDATE slot_lease SET total = :total, granted = :granted, version = :version, held = :held, wanted = :wanted,
            head = :head, since = :since
        WHERE pool = :pool AND workflow_id = :workflow
        """,
        pool=pool,
        workflow=lease.workflow_id,
        total=claim.most,
        granted=claim.granted,
        version=version,
        held=claim.held,
        wanted=claim.wanted,
        head=claim.head,
        since=int(claim.since * 1e6),
    )
    lease.claim, lease.version = claim, version


def _divide(tx: Transaction, pool: str, leases: dict[int, _Lease]) -> None:
    """Divide the pool anew, and wake those who get another share."""
    if len(leases) > 1:
        _lapse(tx, pool, leases)
    total = max((lease.claim.most for lease in leases.values()), default=0.0)
    now = tx.now / 1e6
    grants = grant(total, [lease.claim for lease in leases.values()], now)
    for workflow_id, lease in leases.items():
        cores = grants[workflow_id]
        if math.isclose(cores, lease.claim.granted, abs_tol=_FRACTION):
            continue
        claim = replace(lease.claim, granted=cores, held=max(cores, lease.claim.held))
        if claim.is_served != lease.claim.is_served:
            claim = replace(claim, since=now)
        _take(tx, pool, lease, claim, lease.version + 1)
        tx.wake(Audience.DISTRIBUTOR, workflow_id)


def _lapse(tx: Transaction, pool: str, leases: dict[int, _Lease]) -> None:
    """Leases of distributors that are silent count for what of their attempts may still run.

    A pool is named after its host: where a distributor was replaced from another one, that one's is no sign of life.
    """
    rows = tx.rows(
        """
        SELECT workflow_id, host, MAX(seen_at) FROM distributor WHERE workflow_id IN (:ids...)
        GROUP BY workflow_id, host
        """,
        ids=list(leases),
    )
    seen = {workflow_id: seen_at for workflow_id, host, seen_at in rows if pool.startswith(f"{host}:")}
    for workflow_id, lease in list(leases.items()):
        if seen.get(workflow_id, 0) + int(LEASE_SECONDS * 1e6) >= tx.now:
            continue
        held = min(lease.claim.held, _cores_taken(tx, workflow_id))
        if held <= 0:
            _remove(tx, pool, workflow_id)
            del leases[workflow_id]
        else:
            claim = replace(lease.claim, granted=0.0, held=held, wanted=0.0, head=0.0)
            _take(tx, pool, lease, claim, lease.version + bool(lease.claim.granted))


def _cores_taken(session: Session, workflow_id: int) -> float:
    rows = session.rows(
        """
        SELECT r.requested, COUNT(*) FROM workflow_run w JOIN task_instance ti ON ti.workflow_run_id = w.id
        JOIN task_resources r ON r.id = ti.task_resources_id
        WHERE w.workflow_id = :id AND ti.status IN (:taken...) GROUP BY r.requested
        """,
        id=workflow_id,
        taken=transitions.TAKEN,
    )
    return sum((float(json.loads(requested).get("cores") or 1) * int(count) for requested, count in rows), 0.0)


def _remove(tx: Transaction, pool: str, workflow_id: int) -> None:
    tx.run("DELETE FROM slot_lease WHERE pool = :pool AND workflow_id = :workflow", pool=pool, workflow=workflow_id)


def release(tx: Transaction, workflow_id: int) -> None:
    """Give back the leases of a workflow of which nothing runs any more."""
    pools = tx.column("SELECT pool FROM slot_lease WHERE workflow_id = :id ORDER BY pool", id=workflow_id)
    if not pools or transitions.live_attempts(tx, workflow_id, transitions.TAKEN):
        return
    for pool in pools:
        _remove(tx, pool, workflow_id)
        if leases := _leases(tx, pool):
            _divide(tx, pool, leases)
