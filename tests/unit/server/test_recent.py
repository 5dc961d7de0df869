"""How long results of expensive queries are reused."""

from __future__ import annotations

import pytest

from jobmon.server import recent
from jobmon.server.recent import Recent


class Work:
    """Counts how often a result is computed, at a cost in CPU time."""

    def __init__(self, cost_seconds):
        self.now = self.cpu = 0.0
        self.count = 0
        self.cost_seconds = cost_seconds
        self.recent = Recent(lambda: self.now, lambda: self.cpu)

    def compute(self):
        self.cpu += self.cost_seconds
        self.count += 1
        return self.count


def test_a_cheap_result_is_computed_for_every_reader():
    work = Work(recent.CHEAP_SECONDS / 2)
    assert [work.recent.paced("a", work.compute) for _ in range(3)] == [1, 2, 3]
    assert [work.recent.while_same("a", 7, work.compute) for _ in range(3)] == [4, 5, 6]


def test_an_expensive_result_takes_a_small_share_of_the_time():
    work = Work(0.005)
    used = []
    while work.now < 60:
        work.recent.paced("a", work.compute)
        used.append(work.count)
        work.now += 0.1
    assert work.cpu / work.now <= recent.SHARE_MAX * 1.1
    assert used[-1] == pytest.approx(60 / (0.005 / recent.SHARE_MAX), abs=2)


@pytest.mark.parametrize("cost_seconds", [0.1, 10.0, 1_000.0])
def test_no_result_is_older_than_the_limit(cost_seconds):
    work = Work(cost_seconds)
    assert work.recent.paced("a", work.compute) == 1
    work.now = recent.AGE_SECONDS_MAX - 0.1
    assert work.recent.paced("a", work.compute) == 1
    work.now = recent.AGE_SECONDS_MAX
    assert work.recent.paced("a", work.compute) == 2


def test_a_result_holds_while_nothing_that_it_depends_on_changes():
    work = Work(1.0)
    assert work.recent.while_same("a", "x", work.compute) == 1
    work.now = recent.CHANGED_SECONDS_MAX + 0.1
    assert work.recent.while_same("a", "x", work.compute) == 1
    assert work.recent.while_same("a", "y", work.compute) == 2
    assert work.recent.while_same("a", "z", work.compute) == 2  # outdated, but only for a moment
    work.now += recent.CHANGED_SECONDS_MAX + 0.1
    assert work.recent.while_same("a", "z", work.compute) == 3


def test_the_last_result_is_kept_for_a_reader_that_builds_on_it():
    work = Work(0.0)
    assert work.recent.last("a") is None
    assert work.recent.paced("a", work.compute) == 1
    assert work.recent.last("a") == 1
    work.now = recent.AGE_SECONDS_MAX
    assert work.recent.last("a") is None
    assert work.recent.last("a", 60.0) == 1


def test_the_number_of_results_is_bounded():
    work = Work(1.0)
    for number in range(recent.RESULTS_MAX):
        work.recent.paced(number, work.compute)
    work.recent.paced(0, work.compute)  # used again, so number 1 is the oldest
    work.recent.paced("one more", work.compute)
    assert work.recent.last(0) is not None
    assert work.recent.last(1) is None
