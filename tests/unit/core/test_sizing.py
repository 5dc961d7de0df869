"""Strategies, quantiles, proposals and accounts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.core import sizing
from jobmon.core.exceptions import InvalidResources
from jobmon.core.resources import memory_gib, runtime_seconds

MAX = sizing.Strategy.read("max")
_used = st.builds(sizing.Used, st.floats(0.001, 1e6), st.floats(0, 1e6), st.floats(0.001, 1e3))


@pytest.mark.parametrize(
    ("text", "value"), [("avg", 2.5), ("min", 1.0), ("max", 4.0), ("q50", 2.0), ("q51", 3.0), ("q99.9", 4.0), ("q0", 1)]
)
def test_strategies(text, value):
    assert sizing.Strategy.read(text).of([4.0, 1.0, 3.0, 2.0]) == value


@pytest.mark.parametrize("text", ["", "median", "q", "q101", "q-1", "Q95", "95"])
def test_an_unknown_strategy_is_named_with_the_known_ones(text):
    with pytest.raises(InvalidResources, match=f"no strategy '{text}'; use avg, min, max"):
        sizing.Strategy.read(text)


def test_a_proposal_has_margins_and_is_rounded_up():
    history = [sizing.Used(100.0, 210.0, 1.0), sizing.Used(50.0, None, None)]
    proposal = sizing.propose(history, MAX, MAX, MAX)
    assert proposal == sizing.Proposal(cores=2, memory_gib=1229 / 1024, runtime_seconds=150.0)
    assert proposal.as_request() == {"cores": 2, "memory": "1229M", "runtime": "150s"}


def test_nothing_measured_nothing_proposed():
    assert sizing.propose([], MAX, MAX, MAX).as_request() == {}
    tiny = sizing.propose([sizing.Used(0.0, 0.0, None)], MAX, MAX, MAX)
    assert tiny == sizing.Proposal(cores=None, memory_gib=None, runtime_seconds=sizing.RUNTIME_SECONDS_MIN)


def test_what_was_too_short_says_nothing_of_cores():
    short, long = sizing.Used(0.004, 0.02, None), sizing.Used(10.0, 10.0, None)
    assert short.cores is None
    assert sizing.propose([short, long], MAX, MAX, MAX).cores == 1


@given(st.lists(_used, min_size=1, max_size=30))
def test_what_the_largest_use_proposes_kills_nothing_and_survives_being_written(history):
    proposal = sizing.propose(history, MAX, MAX, MAX)
    assert sizing.killed_by(proposal, history) == 0
    written = proposal.as_request()
    assert memory_gib(written["memory"]) == pytest.approx(proposal.memory_gib)
    assert runtime_seconds(written["runtime"]) == proposal.runtime_seconds


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_was_used_and_covers_its_share(values, share):
    found = sizing.quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


def test_accounts():
    done = sizing.account(10.0, 4.0, is_done=True, is_killed=False)
    more = sizing.account(1.0, 4.0, is_done=True, is_killed=False)
    failed = sizing.account(2.0, 1.0, is_done=False, is_killed=False)
    killed = sizing.account(3.0, 1.0, is_done=False, is_killed=True)
    assert sum((done, more, failed, killed), sizing.Account()) == sizing.Account(16.0, 6.0, 2.0, 3.0)
