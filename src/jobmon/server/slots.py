"""Who gets how many cores of a pool that several workflows share. Pure.

Cores are dealt out in portions as large as each claim's next command, always to the claim that has least (max-min
fair). Whoever waits for its next command to fit comes before those who had a turn of `TURN_SECONDS`; so a wide command
reserves cores until enough are free, and nobody starves. What nobody wants stays where it is: a lone claim has all.

What a claim may be using (`held`) can be dealt out again only after it was given back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TURN_SECONDS: Final = 1.0
#: A pool is dealt out in at most about so many portions.
PORTIONS_MAX: Final = 128
_FRACTION: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one workflow has and wants. `most` is what it may have at all; `since` is seconds, see `is_served`."""

    identity: int
    most: float
    granted: float
    held: float
    wanted: float
    head: float
    since: float

    @property
    def is_served(self) -> bool:
        """Whether its next command fits into its grant. `since` says since when this is so, or is not."""
        return self.granted + _FRACTION >= self.need

    @property
    def need(self) -> float:
        """Return the smallest grant that lets it go on."""
        return min(self.head, self.limit)

    @property
    def limit(self) -> float:
        """Return the largest grant of which it would make use."""
        return min(self.wanted, self.most)


def divide(total: float, claims: Sequence[Claim], now: float) -> dict[int, float]:
    """Return what each claim should have, whatever is held at present."""
    order = sorted(claims, key=lambda claim: _precedence(claim, now))
    shares = {claim.identity: 0.0 for claim in order}
    left = total
    while True:
        takers = [claim for claim in order if 0 < _portion(claim, shares[claim.identity], total) <= left + _FRACTION]
        if not takers:
            break
        taker = min(takers, key=lambda claim: shares[claim.identity])
        portion = _portion(taker, shares[taker.identity], total)
        shares[taker.identity] += portion
        left -= portion
    _leave(order, shares, left)
    return shares


def _precedence(claim: Claim, now: float) -> tuple[int, float, int]:
    """Those whose turn is not over; those who wait, longest first; those whose turn is over, the youngest first."""
    if not claim.is_served:
        return 1, claim.since, claim.identity
    if now - claim.since < TURN_SECONDS:
        return 0, claim.since, claim.identity
    return 2, -claim.since, claim.identity


def _portion(claim: Claim, share: float, total: float) -> float:
    """Return how much more it takes at once: enough for its next command, unless less is left to want."""
    open_wish = claim.limit - share
    if open_wish <= _FRACTION:
        return 0.0
    return min(max(claim.head, total / PORTIONS_MAX), open_wish)


def _leave(order: Iterable[Claim], shares: dict[int, float], left: float) -> None:
    """What nobody wants stays with those who have it; the rest goes to the first."""
    order = list(order)
    for bounds in ({claim.identity: claim.granted for claim in order}, {claim.identity: claim.most for claim in order}):
        for claim in order:
            more = max(0.0, min(left, min(bounds[claim.identity], claim.most) - shares[claim.identity]))
            shares[claim.identity] += more
            left -= more


def grant(total: float, claims: Sequence[Claim], now: float) -> dict[int, float]:
    """Return what each claim may use from now on: its share, as far as the others have given back enough."""
    shares = divide(total, claims, now)
    free = total - sum(claim.held for claim in claims)
    grants: dict[int, float] = {}
    for claim in sorted(claims, key=lambda claim: _precedence(claim, now)):
        share = shares[claim.identity]
        reachable = min(share, max(claim.granted, claim.held + free))
        if reachable > claim.granted and reachable + _FRACTION < min(claim.need, share):
            reachable = claim.granted  # too little to start anything with
        grants[claim.identity] = reachable
        free -= max(0.0, reachable - claim.held)
    return grants
