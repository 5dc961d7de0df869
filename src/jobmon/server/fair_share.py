"""Divide the cores of a pool among the workflows that share it. Pure.

Cores are dealt out in portions as large as each claim's next command, always to the claim with the fewest (max-min
fair) among those of the highest priority; claims of lower priority get what these do not want. A claim whose next
command does not fit precedes those that had a turn of `TURN_SECONDS`; a wide command thus reserves cores until enough
are free, and no claim starves among those of its priority. Unwanted cores stay where they are: a lone claim has all.

Cores that a claim may be using (`held`) can be dealt out again only after they were returned. The cores of commands
that run workflows in the same pool are *lent* to these workflows (`grant_with_loans`): such commands wait, and would
otherwise hold the cores that they wait for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TURN_SECONDS: Final = 1.0
#: A pool is dealt out in at most about this many portions.
PORTIONS_MAX: Final = 128
_FRACTION: Final = 1e-9


class Holder(NamedTuple):
    """The holder of a lease: an agent of a workflow."""

    workflow_id: int
    agent_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a holder has and wants. `most` is the most it may have at all; `since` is in seconds, see `is_served`.

    `priority` is that of its workflow: cores go to claims of lower priority only if no other wants them.
    `identity` distinguishes claims; among equal claims, the smaller identity comes first.
    """

    identity: Any
    most: float
    granted: float
    held: float
    wanted: float
    head: float
    since: float
    priority: int = 0

    @property
    def is_served(self) -> bool:
        """Whether its next command fits into its grant. `since` is when this last changed."""
        return self.granted + _FRACTION >= self.need

    @property
    def need(self) -> float:
        """The smallest grant with which it can start its next command."""
        return min(self.head, self.limit)

    @property
    def limit(self) -> float:
        """The largest grant that it could use."""
        return min(self.wanted, self.most)


def divide(total: float, claims: Sequence[Claim], now: float) -> dict[Any, float]:
    """Return the share of each claim, regardless of what is currently held."""
    order = sorted(claims, key=lambda claim: _precedence(claim, now))
    shares = {claim.identity: 0.0 for claim in order}
    left = total
    while True:
        takers = [claim for claim in order if 0 < _portion(claim, shares[claim.identity], total) <= left + _FRACTION]
        if not takers:
            break
        taker = min(takers, key=lambda claim: (-claim.priority, shares[claim.identity]))
        portion = _portion(taker, shares[taker.identity], total)
        shares[taker.identity] += portion
        left -= portion
    _leave(order, shares, left)
    return shares


def _precedence(claim: Claim, now: float) -> tuple[int, int, float, Any]:
    """Order claims of equal priority: within their turn; waiting, longest first; others, most recent turn first."""
    if not claim.is_served:
        return -claim.priority, 1, claim.since, claim.identity
    if now - claim.since < TURN_SECONDS:
        return -claim.priority, 0, claim.since, claim.identity
    return -claim.priority, 2, -claim.since, claim.identity


def _portion(claim: Claim, share: float, total: float) -> float:
    """Return how much more a claim takes at once: enough for its next command, unless it wants less."""
    open_wish = claim.limit - share
    if open_wish <= _FRACTION:
        return 0.0
    return min(max(claim.head, total / PORTIONS_MAX), open_wish)


def _leave(order: Iterable[Claim], shares: dict[Any, float], left: float) -> None:
    """Leave unwanted cores with the claims that have them; give the rest to the first claims."""
    order = list(order)
    for bounds in ({claim.identity: claim.granted for claim in order}, {claim.identity: claim.most for claim in order}):
        for claim in order:
            more = max(0.0, min(left, min(bounds[claim.identity], claim.most) - shares[claim.identity]))
            shares[claim.identity] += more
            left -= more


def grant_with_loans(total: float, claims: Sequence[Claim], lent: Mapping[Any, float], now: float) -> dict[Any, float]:
    """Return what each claim may use from now on, as `grant` does, with loans taken into account.

    Args:
        total: cores of the pool.
        claims: the claims of all holders.
        lent: cores of a holder's commands that wait for workflows in this pool. They are dealt out a second time, and
            the holder keeps them as well.
        now: seconds.
    """
    grants = grant(total, [_without(claim, lent.get(claim.identity, 0.0)) for claim in claims], now)
    return {claim.identity: min(grants[claim.identity] + lent.get(claim.identity, 0.0), claim.most) for claim in claims}


def _without(claim: Claim, lent: float) -> Claim:
    """Return a claim without its commands that wait for workflows.

    If its next command does not fit next to them, it wants nothing: a grant would be idle until one of them exits.
    """
    if not lent:
        return claim
    wanted = max(0.0, min(claim.wanted, claim.most) - lent)
    fits = claim.head <= wanted + _FRACTION
    return replace(
        claim,
        granted=max(0.0, claim.granted - lent),
        held=max(0.0, claim.held - lent),
        wanted=wanted if fits else 0.0,
        head=claim.head if fits else 0.0,
    )


def grant(total: float, claims: Sequence[Claim], now: float) -> dict[Any, float]:
    """Return what each claim may use from now on: its share, as far as the others have returned enough."""
    shares = divide(total, claims, now)
    free = total - sum(claim.held for claim in claims)
    grants: dict[Any, float] = {}
    for claim in sorted(claims, key=lambda claim: _precedence(claim, now)):
        share = shares[claim.identity]
        reachable = min(share, max(claim.granted, claim.held + free))
        if reachable > claim.granted and reachable + _FRACTION < min(claim.need, share):
            reachable = claim.granted  # too little to start any command
        grants[claim.identity] = reachable
        free -= max(0.0, reachable - claim.held)
    return grants
