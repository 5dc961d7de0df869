"""Divide cores: never more than there are, no claim starves, a lone claim gets all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.server.fair_share import TURN_SECONDS, Claim, divide, grant, grant_with_loans

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
                priority=draw(st.integers(-1, 1)),
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


@given(_claims())
def test_what_the_highest_priority_wants_goes_to_it(given_claims):
    total, claims = given_claims
    shares = divide(total, claims, 5.0)
    highest = max(claim.priority for claim in claims)
    first = [claim for claim in claims if claim.priority == highest]
    if len(first) == 1 and first[0].head <= first[0].limit:
        assert shares[first[0].identity] >= first[0].limit - _CLOSE


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


class _Nested:
    """A workflow in a pool, whose commands run for one round, or run workflows of their own."""

    def __init__(self, identity, cores, commands, level, now, priority=0):
        self.identity, self.cores, self.level, self.priority = identity, cores, level, priority
        self.waiting = commands
        self.running = 0
        self.inner = []
        self.granted, self.since = 0.0, now

    @property
    def used(self):
        return self.cores * (self.running + len(self.inner))

    @property
    def is_over(self):
        return not (self.waiting or self.running or self.inner)

    def claim(self, total):
        wanted = min(total, self.used + self.cores * self.waiting)
        held = min(total, max(self.used, self.granted))
        head = self.cores if self.waiting else 0.0
        return Claim(
            identity=self.identity,
            most=total,
            granted=self.granted,
            held=held,
            wanted=wanted,
            head=head,
            since=self.since,
            priority=self.priority,
        )


@given(
    st.integers(1, 3),
    st.integers(1, 2),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(-1, 1)), min_size=1, max_size=4),
)
def test_workflows_that_commands_run_complete_at_any_depth_and_width(total, outer, levels):
    """In each round grants are heard, commands start, commands of the innermost level end."""
    depth = len(levels)

    def workflow(identity, level, now):
        commands, cores, priority = levels[level]
        return _Nested(identity, float(min(cores, total)), commands, level, now, priority)

    live = [workflow(number, 0, 0.0) for number in range(outer)]
    for now in range(400):
        claims = [one.claim(float(total)) for one in live]
        lent = {one.identity: one.cores * len(one.inner) for one in live if one.inner}
        grants = grant_with_loans(float(total), claims, lent, float(now))
        started = []
        for one, before in zip(live, claims, strict=True):
            one.granted = grants[one.identity]
            assert one.granted <= total + _CLOSE
            if replace(before, granted=one.granted).is_served != before.is_served:
                one.since = float(now)
            while one.waiting and one.used + one.cores <= one.granted + _CLOSE:
                one.waiting -= 1
                if one.level + 1 == depth:
                    one.running += 1
                else:
                    child = workflow(len(live) + len(started) + 1000 * (now + 1), one.level + 1, float(now))
                    one.inner.append(child)
                    started.append(child)
        assert sum(one.running * one.cores for one in live) <= total + _CLOSE
        for one in live:
            one.running = 0
        live += started
        for one in live:
            one.inner = [child for child in one.inner if not child.is_over]
        live = [one for one in live if not one.is_over]
        if not live:
            return
    raise AssertionError(f"{len(live)} workflows still wait for cores")
