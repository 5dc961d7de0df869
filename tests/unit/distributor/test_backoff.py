"""The polling interval of a cluster, and the back-off after failures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.distributor.backoff import (
    PAUSE_SECONDS_MAX,
    SHARE_OF_TIME_HURRIED_MAX,
    SHARE_OF_TIME_MAX,
    SUBMITTED_SECONDS,
    PollingInterval,
)


def make(most=10.0, calls_per_minute=60.0):
    return PollingInterval(most, calls_per_minute, now=100.0)


def looks(pace, until, took=0.01, calls=2):
    """Return when it looks."""
    at = []
    while pace.due <= until:
        at.append(round(pace.due, 3))
        pace.looked(pace.due, took, calls)
    return at


def test_what_was_submitted_is_looked_at_soon_and_then_ever_more_seldom():
    pace = make()
    assert pace.due == 110.0
    pace.hurry(SUBMITTED_SECONDS)
    assert looks(pace, 140.0) == [103.0, 109.0, 119.0, 129.0, 139.0]


def test_what_is_urgent_is_looked_at_once():
    pace = make()
    pace.looked(100.0, 0.01, 2)
    pace.urge()
    assert pace.due == 102.0, "the ceiling on calls holds"
    pace.looked(102.0, 0.01, 2)
    assert pace.due == 112.0


def test_a_slow_cluster_is_asked_seldom():
    pace = make()
    pace.looked(100.0, 2.0, 2)
    assert pace.due == 100.0 + 2.0 / SHARE_OF_TIME_MAX
    pace.hurry()
    assert pace.due == 100.0 + 2.0 / SHARE_OF_TIME_HURRIED_MAX
    pace.urge()
    assert pace.due == 100.0 + 2.0 / SHARE_OF_TIME_HURRIED_MAX


def test_pauses_double_while_a_cluster_does_not_answer():
    pace = make()
    now, pauses = 100.0, []
    for _ in range(9):
        pauses.append(pace.failed(now))
        now = pace.due
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == PAUSE_SECONDS_MAX
    pace.looked(now)
    assert not pace.backoff.is_failing


def test_a_view_of_somebody_else_counts_from_when_it_was_begun():
    pace = make()
    pace.looked(100.0)
    pace.saw(97.0)
    assert pace.due == 107.0


@given(
    st.lists(st.tuples(st.sampled_from(["hurry", "urge", "look", "fail"]), st.floats(0, 3), st.integers(0, 4))),
    st.floats(0.05, 60),
    st.floats(1, 600),
)
def test_whatever_happens_the_ceiling_on_calls_holds(events, most, calls_per_minute):
    pace = PollingInterval(most, calls_per_minute, now=0.0)
    for event, took, calls in events:
        if event == "hurry":
            pace.hurry(took)
        elif event == "urge":
            pace.urge()
        elif event == "fail":
            pace.failed(pace.due)
        else:
            now = pace.due
            pace.looked(now, took, calls)
            assert pace.due - now >= min(calls * 60 / calls_per_minute, 900.0) - 1e-6
            assert pace.due - now <= max(most, 900.0) + 1e-6


def test_a_short_longest_interval_is_kept():
    pace = make(most=0.05)
    pace.hurry()
    pace.looked(100.0, 0.0, 0)
    assert pace.due == pytest.approx(100.05)
