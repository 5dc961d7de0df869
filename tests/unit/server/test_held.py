"""Which open poll is given the attempts that a request queues."""

import contextlib

import pytest

from jobmon.server.longpolls import OpenPoll, OpenPolls

RUN, LOCAL, GRID = 1, 7, 8


@pytest.fixture
def held():
    """The open polls of a run: a distributor's, then those of two agents."""
    polls = OpenPolls()
    with contextlib.ExitStack() as stack:
        found = {
            name: stack.enter_context(
                polls.hold(RUN, OpenPoll((print, RUN, None), name != "drained", cluster, None, None))
            )
            for name, cluster in (("distributor", None), ("drained", LOCAL), ("agent", LOCAL))
        }
        yield polls, found


def test_an_agent_is_given_the_attempts_of_its_cluster_and_the_distributor_all_others(held):
    polls, found = held
    assert polls.wanting(RUN, {LOCAL}) is found["agent"]
    assert polls.wanting(RUN, {GRID}) is found["distributor"]
    assert polls.wanting(RUN, {LOCAL, GRID}) is found["agent"]
    assert polls.wanting(RUN + 1, {LOCAL}) is None


def test_one_that_is_being_given_something_is_passed_over(held):
    polls, found = held
    found["agent"].answer = object()
    assert polls.wanting(RUN, {LOCAL}) is found["distributor"]
