"""Cores of an agent: what fits, what to request, and sums that always stay correct."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.agent.starting import Launch
from jobmon.agent.work import AHEAD_EXPIRY_SECONDS_MAX, AHEAD_SECONDS, SECONDS_ASSUMED, Work, ahead_expiry


def launch(identity, cores=1.0, memory=0.0):
    return Launch(identity, ["true"], {}, "/", 0o22, "/dev/null", cores=cores, memory=memory)


def work(cores=2.0, memory=8.0, granted=None):
    return Work(cores, memory, cores if granted is None else granted)


def started(here):
    found = []
    while (one := here.next()) is not None:
        here.begin(one)
        found.append(one.identity)
    return found


def test_what_fits_is_started_oldest_first_and_a_wide_one_is_not_overtaken():
    here = work(4.0)
    here.take([launch(1, 2.0), launch(2, 4.0), launch(3, 1.0)])
    assert started(here) == [1]
    here.end(1, 1.0)
    assert started(here) == [2]
    here.end(2, 1.0)
    assert started(here) == [3]


def test_forty_small_ones_run_at_once_on_two_cores():
    here = work(2.0)
    here.take([launch(number, 0.05) for number in range(50)])
    assert len(started(here)) == 40


def test_nothing_is_started_without_a_grant_but_work_is_prefetched():
    here = work(2.0, granted=0.0)
    free, ahead = here.wanted()
    assert free == 0.0
    assert ahead == pytest.approx(2.0 * AHEAD_SECONDS / SECONDS_ASSUMED)
    here.take([launch(1)])
    assert started(here) == []


def test_memory_is_kept_to_unless_one_command_asks_for_more_than_there_is():
    here = work(4.0, memory=4.0)
    here.take([launch(1, memory=3.0), launch(2, memory=3.0), launch(3, memory=9.0)])
    assert started(here) == [1]
    here.end(1, 1.0)
    assert started(here) == [2]
    here.end(2, 1.0)
    assert started(here) == [3]


def test_long_commands_are_hardly_prefetched_and_short_ones_much():
    slow, fast = work(), work()
    for here, seconds in ((slow, 3600.0), (fast, 0.001)):
        for number in range(100):
            here.take([launch(number)])
            here.begin(here.next())
            here.end(number, seconds)
    assert slow.wanted()[1] < 0.01
    assert fast.wanted()[1] > 50


def test_what_waits_counts_against_what_is_wanted():
    here = work(2.0)
    here.take([launch(1), launch(2), launch(3)])
    free, ahead = here.wanted()
    assert free == 0.0
    assert ahead == pytest.approx(2.0 * AHEAD_SECONDS / SECONDS_ASSUMED - 1.0)
    assert here.demand() == (0.0, 2.0, 1.0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.floats(0.01, 5.0), st.floats(0.0, 9.0)),
        st.tuples(st.just("start")),
        st.tuples(st.just("end"), st.floats(0.0, 100.0)),
        st.tuples(st.just("back")),
        st.tuples(st.just("kill"), st.integers(0, 20)),
        st.tuples(st.just("drop")),
        st.tuples(st.just("grant"), st.floats(0.0, 4.0)),
    ),
    max_size=60,
)


@given(steps)
def test_sums_are_right_after_every_event(events):
    here, running, count = work(4.0), [], 0
    for event, *values in events:
        if event == "take":
            count += 1
            here.take([launch(count, min(values[0], 4.0), values[1])])
        elif event == "start" and (one := here.next()) is not None:
            here.begin(one)
            running.append(one)
        elif event == "end" and running:
            here.end(running.pop(0).identity, values[0])
        elif event == "back" and running:
            one = running.pop()
            here.end(one.identity, None)
            here.put_back(one)
        elif event == "kill":
            here.remove({values[0]})
        elif event == "drop":
            here.drop_all()
        elif event == "grant":
            here.granted = values[0]
        here.validate()
        free, ahead = here.wanted()
        assert free >= 0.0
        assert ahead >= 0.0


def test_one_whose_devices_are_in_use_is_passed_over():
    here = work(4.0)
    here.take([launch(1), launch(2)])
    assert here.next({1}).identity == 2
    assert here.next({1, 2}) is None
    assert here.next().identity == 1


@given(st.floats(0.05, 3600), st.floats(1.01, 100))
def test_prefetched_work_expires_before_the_server_may_have_it_run_elsewhere(interval, buffer):
    expiry = ahead_expiry(interval, buffer)
    assert 0 < expiry <= AHEAD_EXPIRY_SECONDS_MAX
    assert expiry < interval * buffer
