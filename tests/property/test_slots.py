"""Dividing cores: never more than there are, nobody starves, a lone claim has all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.server.slots import TURN_SECONDS, Claim, divide, grant

_CLOSE = 1e-6
_cores = st.integers(1, 8).map(float) | st.floats(0.25, 8)


@st.composite
def _claims(draw):
    total = draw(st.integers(1, 16).map(float))
    claims, free = [], total
    for identity in range(draw(st.integers(1, 6))):
        held = draw(st.floats(0, free) | st.just(0.0))
        free -= held
        head = draw(st.just(0.0) | _cores)
        wanted = head and head + draw(st.floats(0, 20))
        claims.append(
            Claim(
                identity=identity,
                most=draw(st.just(total) | st.floats(1, 16).map(lambda most: min(most, total))),
                granted=draw(st.floats(0, 1)) * held,
                held=held,
                wanted=wanted,
                head=head,
                since=draw(st.floats(0, 10)),
            )
        )
    return total, claims


@given(_claims())
def test_never_more_is_granted_than_there_is_and_what_is_held_counts(given_claims):
    total, claims = given_claims
    granted = grant(total, claims, 5.0)
    assert all(0 <= granted[claim.identity] <= claim.most + _CLOSE for claim in claims if claim.held <= claim.most)
    assert sum(max(granted[claim.identity], claim.held) for claim in claims) <= total + _CLOSE


@given(_claims())
def test_a_division_deals_out_all_that_is_wanted_and_there(given_claims):
    total, claims = given_claims
    shares = divide(total, claims, 5.0)
    assert sum(shares.values()) <= total + _CLOSE
    left = total - sum(shares.values())
    assert all(
        left < _CLOSE or shares[claim.identity] >= claim.limit - _CLOSE or claim.head > left - _CLOSE
        for claim in claims
    )


@given(st.floats(1, 64), _cores)
def test_a_lone_claim_has_all(total, head):
    lone = Claim(identity=1, most=total, granted=0.0, held=0.0, wanted=0.0, head=0.0, since=0.0)
    assert grant(total, [lone], 0.0) == {1: total}
    assert grant(total, [replace(lone, wanted=head, head=head)], 0.0)[1] == pytest.approx(total)


@given(st.integers(1, 8), st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_everybody_gets_a_turn_wide_ones_too(total, widths):
    """Each claim has endless commands of one width; commands end in each round, and the shares are worked off."""
    claims = [
        Claim(
            identity=number,
            most=float(total),
            granted=0.0,
            held=0.0,
            wanted=float(total),
            head=float(min(width, total)),
            since=0.0,
        )
        for number, width in enumerate(widths)
    ]
    had_a_turn, now = set(), 0.0
    for _ in range(3 * len(claims) + 2):
        grants = grant(float(total), claims, now)
        moved = [
            replace(claim, granted=grants[claim.identity], held=grants[claim.identity]) for claim in claims
        ]  # whatever ran beyond the new grant has ended
        claims = [
            after if after.is_served == before.is_served else replace(after, since=now)
            for before, after in zip(claims, moved, strict=True)
        ]
        had_a_turn |= {claim.identity for claim in claims if claim.is_served}
        assert sum(claim.held for claim in claims) <= total + _CLOSE
        now += TURN_SECONDS
    assert had_a_turn == set(range(len(widths)))


def test_two_that_want_everything_share_evenly():
    claims = [
        Claim(identity=number, most=8.0, granted=0.0, held=0.0, wanted=8.0, head=1.0, since=0.0) for number in (1, 2)
    ]
    assert divide(8.0, claims, 0.0) == {1: 4.0, 2: 4.0}
