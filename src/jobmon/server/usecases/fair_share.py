"""Lease cores that several agents share; `server.fair_share` decides how many each agent gets.

Every sync renews the lease of its agent. That costs one look-up as long as it is the only holder in the pool. When the
division changes, the open polls of the others are woken. A holder that was silent for `LEASE_SECONDS`, or since before
this server started, gets no more cores; the cores of its attempts remain counted until the attempts end.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.launching import SlotsGranted, SlotsWanted
from jobmon.server import transitions
from jobmon.server.constructs import delete, func, insert, select, update
from jobmon.server.fair_share import Claim, Holder, grant_with_loans
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW
from jobmon.server.models import agent, slot_lease, task_instance, task_resources, workflow, workflow_run
from jobmon.server.problems import InvalidValue
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.transaction import Audience

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, Delete, Insert, Select, Update

    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

#: Longer than an open poll and the transfer of its response take together.
LEASE_SECONDS: Final = 60.0
POOL_CHARACTERS_MAX: Final = 255
CORES_MAX: Final = 1e6
_FRACTION: Final = 1e-9


def _is_lease() -> list[ColumnElement[bool]]:
    c = slot_lease.c
    return [c.pool == param("pool"), c.workflow_id == param("workflow"), c.agent_id == param("agent")]


@statement
def _leases_of_pool() -> Select[Any]:
    c, w = slot_lease.c, workflow.c
    return (
        select(c.workflow_id, c.agent_id, c.total, c.granted, c.version, c.held, c.wanted, c.head, c.since, w.priority)
        .join_from(slot_lease, workflow, w.id == c.workflow_id)
        .where(c.pool == param("pool"))
        .order_by(c.workflow_id, c.agent_id)
    )


@statement
def _priority() -> Select[Any]:
    return select(workflow.c.priority).where(workflow.c.id == param("workflow"))


@statement
def _leases_of_workflow() -> Select[Any]:
    c = slot_lease.c
    return (
        select(c.pool, c.workflow_id, c.agent_id).where(c.workflow_id == param("workflow")).order_by(c.pool, c.agent_id)
    )


@statement
def _add_lease() -> Insert:
    return insert(slot_lease)


@statement
def _change_lease() -> Update:
    names = ("total", "granted", "version", "held", "wanted", "head", "since")
    return update(slot_lease).values({name: param(name) for name in names}).where(*_is_lease())


@statement
def _delete_lease() -> Delete:
    return delete(slot_lease).where(*_is_lease())


@statement
def _agents_last_seen() -> Select[Any]:
    """Select when live agents were last seen."""
    a = agent.c
    return select(a.workflow_id, a.id, a.seen_at).where(any_of(a.id, "ids"), any_of(a.status, "live"))


@statement
def _requests_taken() -> Select[Any]:
    """Select the resource requests of a holder's taken attempts, with the number of attempts."""
    ti, r = task_instance.c, task_resources.c
    return (
        select(r.requested, func.count())
        .select_from(ATTEMPTS_OF_WORKFLOW.join(task_resources, r.id == ti.task_resources_id))
        .where(
            workflow_run.c.workflow_id == param("workflow"),
            any_of(ti.status, "taken"),
            ti.agent_id == param("agent"),
        )
        .group_by(r.requested)
    )


@statement
def _waiting_parents() -> Select[Any]:
    """Select attempts whose commands run certain workflows, with their holders and resource requests."""
    ti, tr, inner = task_instance.c, task_resources.c, workflow_run.alias("inner")
    parents = select(inner.c.parent_task_instance_id).where(
        any_of(inner.c.workflow_id, "ids"),
        inner.c.status.not_in(sorted(transitions.FINAL_RUNS)),
        inner.c.parent_task_instance_id.is_not(None),
    )
    return (
        select(workflow_run.c.workflow_id, ti.agent_id, tr.requested)
        .select_from(ATTEMPTS_OF_WORKFLOW.join(task_resources, tr.id == ti.task_resources_id))
        .where(ti.id.in_(parents), any_of(unindexed(ti.status), "taken"), ti.agent_id.is_not(None))
    )


class _Lease:
    """A stored lease."""

    def __init__(self, holder: Holder, claim: Claim, version: int) -> None:
        self.holder = holder
        self.claim = claim
        self.version = version


def renew(tx: Transaction, holder: Holder, wanted: SlotsWanted) -> SlotsGranted:
    """Renew a lease; return the cores that its holder may use.

    Raises:
        InvalidValue: a value is out of range.
    """
    _check(wanted)
    leases = _leases(tx, wanted.pool)
    mine = leases.get(holder)
    if not wanted.total and not wanted.held:
        return _close(tx, holder, wanted, leases)
    if mine is not None and len(leases) == 1 and mine.claim.granted == mine.claim.most == wanted.total:
        return SlotsGranted(cores=mine.claim.granted, version=mine.version)
    if mine is None:
        leases[holder] = _opened(tx, holder, wanted)
    else:
        _take(tx, wanted.pool, mine, _renewed(mine, wanted, tx.now / 1e6), mine.version)
    _divide(tx, wanted.pool, leases)
    mine = leases[holder]
    return SlotsGranted(cores=mine.claim.granted, version=mine.version)


def _check(wanted: SlotsWanted) -> None:
    if len(wanted.pool) > POOL_CHARACTERS_MAX:
        raise InvalidValue(f"slots: the name of a pool has at most {POOL_CHARACTERS_MAX} characters.")
    if not all(0 <= value <= CORES_MAX for value in (wanted.total, wanted.held, wanted.wanted, wanted.head)):
        raise InvalidValue(f"slots: cores must be from 0 to {CORES_MAX:g}.")
    if not 0 <= wanted.version < 2**31 - 1:
        raise InvalidValue("slots: version must be a number that the server issued.")


def _close(tx: Transaction, holder: Holder, wanted: SlotsWanted, leases: dict[Holder, _Lease]) -> SlotsGranted:
    """Close the lease of a holder that starts nothing more and has nothing running."""
    if leases.pop(holder, None) is not None:
        _remove(tx, wanted.pool, holder)
        _divide(tx, wanted.pool, leases)
    return SlotsGranted(cores=0.0, version=wanted.version)


def _leases(session: Session, pool: str) -> dict[Holder, _Lease]:
    leases = {}
    for workflow_id, agent_id, most, granted, version, held, wanted, head, since, priority in session.rows(
        _leases_of_pool, pool=pool
    ):
        holder = Holder(workflow_id, agent_id)
        claim = Claim(
            identity=holder,
            most=most,
            granted=granted,
            held=held,
            wanted=wanted,
            head=head,
            since=since / 1e6,
            priority=priority,
        )
        leases[holder] = _Lease(holder, claim, version)
    return leases


def _opened(tx: Transaction, holder: Holder, wanted: SlotsWanted) -> _Lease:
    """Open a lease. Its version follows that of an earlier lease, so that a late response never looks newer."""
    claim = Claim(
        identity=holder,
        most=wanted.total,
        granted=0.0,
        held=wanted.held,
        wanted=wanted.wanted,
        head=wanted.head,
        since=tx.now / 1e6,
        priority=tx.value(_priority, workflow=holder.workflow_id) or 0,
    )
    version = wanted.version + 1
    tx.run(
        _add_lease,
        pool=wanted.pool,
        workflow_id=holder.workflow_id,
        agent_id=holder.agent_id,
        total=wanted.total,
        granted=0.0,
        version=version,
        held=wanted.held,
        wanted=wanted.wanted,
        head=wanted.head,
        since=tx.now,
    )
    return _Lease(holder, claim, version)


def _renewed(lease: _Lease, wanted: SlotsWanted, now: float) -> Claim:
    """Return the renewed claim. A holder that has not received its newest grant may still be using an earlier one."""
    former = lease.claim
    is_told = wanted.version == lease.version
    held = max(wanted.held, former.granted) if is_told else max(wanted.held, former.held)
    claim = replace(former, most=wanted.total, held=held, wanted=wanted.wanted, head=wanted.head)
    return claim if claim.is_served == former.is_served else replace(claim, since=now)


def _take(tx: Transaction, pool: str, lease: _Lease, claim: Claim, version: int) -> None:
    """Store a lease if it changed."""
    if claim == lease.claim and version == lease.version:
        return
    tx.run(
        _change_lease,
        pool=pool,
        workflow=lease.holder.workflow_id,
        agent=lease.holder.agent_id,
        total=claim.most,
        granted=claim.granted,
        version=version,
        held=claim.held,
        wanted=claim.wanted,
        head=claim.head,
        since=int(claim.since * 1e6),
    )
    lease.claim, lease.version = claim, version


def _divide(tx: Transaction, pool: str, leases: dict[Holder, _Lease]) -> None:
    """Divide the pool again, and wake the holders whose share changed."""
    if len(leases) > 1:
        _lapse(tx, pool, leases)
    total = max((lease.claim.most for lease in leases.values()), default=0.0)
    now = tx.now / 1e6
    claims = [lease.claim for lease in leases.values()]
    grants = grant_with_loans(total, claims, _lent(tx, leases) if len(leases) > 1 else {}, now)
    for holder, lease in leases.items():
        cores = grants[holder]
        if math.isclose(cores, lease.claim.granted, abs_tol=_FRACTION):
            continue
        claim = replace(lease.claim, granted=cores, held=max(cores, lease.claim.held))
        if claim.is_served != lease.claim.is_served:
            claim = replace(claim, since=now)
        _take(tx, pool, lease, claim, lease.version + 1)
        tx.wake(Audience.DISTRIBUTOR, holder.workflow_id)


def _lent(session: Session, leases: Iterable[Holder]) -> dict[Holder, float]:
    """Return the cores of each holder's attempts whose commands run workflows with leases in the same pool."""
    lent: dict[Holder, float] = {}
    rows = session.rows(_waiting_parents, ids={holder.workflow_id for holder in leases}, taken=transitions.TAKEN)
    for workflow_id, agent_id, requested in rows:
        holder = Holder(workflow_id, agent_id)
        lent[holder] = lent.get(holder, 0.0) + _cores_of(requested)
    return lent


def _lapse(tx: Transaction, pool: str, leases: dict[Holder, _Lease]) -> None:
    """Reduce the leases of silent holders to the cores of their attempts that may still be running.

    A holder that has not been seen since this server started may have left while no server was running.
    """
    ids = {holder.agent_id for holder in leases}
    rows = tx.rows(_agents_last_seen, ids=ids, live=transitions.LIVE_AGENTS)
    seen = {Holder(workflow_id, agent_id): seen_at for workflow_id, agent_id, seen_at in rows}
    silent_before = max(tx.now - int(LEASE_SECONDS * 1e6), tx.started_at - int(transitions.SEEN_SECONDS * 1e6))
    for holder, lease in list(leases.items()):
        if seen.get(holder, 0) >= silent_before:
            continue
        held = min(lease.claim.held, _cores_taken(tx, holder))
        if held <= 0:
            _remove(tx, pool, holder)
            del leases[holder]
        else:
            claim = replace(lease.claim, granted=0.0, held=held, wanted=0.0, head=0.0)
            _take(tx, pool, lease, claim, lease.version + bool(lease.claim.granted))


def _cores_taken(session: Session, holder: Holder) -> float:
    rows = session.rows(_requests_taken, workflow=holder.workflow_id, taken=transitions.TAKEN, agent=holder.agent_id)
    return sum((_cores_of(requested) * int(count) for requested, count in rows), 0.0)


def _cores_of(requested: str) -> float:
    return float(json.loads(requested).get("cores") or 1)


def _remove(tx: Transaction, pool: str, holder: Holder) -> None:
    tx.run(_delete_lease, pool=pool, workflow=holder.workflow_id, agent=holder.agent_id)


def release(tx: Transaction, workflow_id: int) -> None:
    """Release the leases of a workflow if none of its attempts may still be running."""
    held = _held(tx, workflow_id)
    if held and not transitions.live_attempts(tx, workflow_id, transitions.TAKEN):
        _give_back(tx, held)


def release_of_agent(tx: Transaction, holder: Holder) -> None:
    """Release the lease of an agent that is gone."""
    _give_back(tx, [one for one in _held(tx, holder.workflow_id) if one[1] == holder])


def divide_again(tx: Transaction, workflow_id: int) -> None:
    """Divide the pools in which a workflow holds leases: its priority has changed."""
    for pool in dict.fromkeys(pool for pool, _ in _held(tx, workflow_id)):
        _divide(tx, pool, _leases(tx, pool))


def _held(tx: Transaction, workflow_id: int) -> list[tuple[str, Holder]]:
    return [(pool, Holder(*holder)) for pool, *holder in tx.rows(_leases_of_workflow, workflow=workflow_id)]


def _give_back(tx: Transaction, held: Iterable[tuple[str, Holder]]) -> None:
    for pool, holder in held:
        _remove(tx, pool, holder)
        if leases := _leases(tx, pool):
            _divide(tx, pool, leases)
