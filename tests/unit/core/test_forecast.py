"""The time left: the predicted range contains the duration of simulated schedules."""

from __future__ import annotations

import heapq
import random

import pytest

from jobmon.core.forecast import Durations, Rest, longest_path, time_left, width_of


def rest(left, seconds, running=0):
    return Rest(left=left, running=running, durations=Durations.of(seconds))


def test_equal_tasks_on_full_places_take_work_by_width():
    found = time_left([rest(100, [10.0] * 50)], (10.0, 10.0), 4.0, 4.0)
    assert (found.low, found.unknown) == (250.0, 0)
    assert 250.0 <= found.high <= 260.0


def test_a_chain_takes_its_length_whatever_the_width():
    found = time_left([rest(10, [3.0] * 20)], (30.0, 30.0), 8.0, 100.0)
    assert found.low == 30.0
    assert 30.0 <= found.high <= 34.0


def test_pauses_between_short_tasks_count():
    """A width below 1 is what is seen of tasks that are shorter than what lies between them."""
    found = time_left([rest(100, [0.01] * 50)], (0.01, 0.01), 0.1, 0.1)
    assert found.low == pytest.approx(10.0)
    assert found.high == pytest.approx(10.0)


def test_nothing_is_said_where_nothing_is_known_and_unknown_tasks_are_counted():
    assert time_left([rest(10, [])], (0.0, 0.0), 1.0, 1.0) is None
    assert time_left([rest(10, [1.0])], (0.0, 0.0), 0.0, 1.0) is None
    found = time_left([rest(10, [1.0] * 9), rest(3, [])], (1.0, 1.0), 1.0, 1.0)
    assert (found.unknown, found.low) == (3, 10.0)


def test_few_samples_make_the_range_wider_and_more_make_it_narrower():
    def width(samples):
        found = time_left([rest(100, samples)], (0.0, 0.0), 1.0, 1.0)
        return found.high - found.low

    assert width([9.0, 11.0]) > width([9.0, 11.0] * 10) > width([9.0, 11.0] * 1000) > 0


def test_running_tasks_are_half_way():
    assert time_left([rest(2, [10.0] * 9, running=2)], (0.0, 0.0), 1.0, 1.0).low == 10.0


def test_width_is_how_many_ran_at_once():
    assert width_of([]) == 0.0
    assert width_of([(0.0, 10.0)]) == 1.0
    assert width_of([(0.0, 10.0), (0.0, 10.0), (10.0, 10.0), (10.0, 10.0)]) == 2.0
    assert width_of([(0.0, 1.0), (9.0, 1.0)]) == pytest.approx(0.2)


def test_the_longest_path_is_the_heaviest_chain():
    # 1 -> {2, 3} -> 4 as sets: 10 = {1} used by 2, 3; 11 = {2, 3} used by 4
    weights = {1: 1.0, 2: 5.0, 3: 2.0, 4: 1.0, 5: 6.5}
    assert longest_path(weights, {10: [1], 11: [2, 3]}, {10: [2, 3], 11: [4]}) == 7.0
    assert longest_path({4: 1.0, 3: 2.0}, {11: [3]}, {10: [3], 11: [4]}) == 3.0  # what is done counts no more
    assert longest_path({}, {}, {}) == 0.0


def test_a_task_with_several_sets_waits_for_all():
    assert longest_path({1: 1.0, 2: 9.0, 3: 1.0}, {10: [1], 11: [2]}, {10: [3], 11: [3]}) == 10.0


def test_a_long_chain_is_no_recursion():
    count = 20_000
    weights = dict.fromkeys(range(count), 1.0)
    members, users = {i: [i] for i in range(count - 1)}, {i: [i + 1] for i in range(count - 1)}
    assert longest_path(weights, members, users) == count


@pytest.mark.parametrize("seed", range(20))
def test_the_range_holds_what_a_schedule_takes(seed):
    """Random layered graphs, durations as those seen before, on a fixed number of places."""
    chance = random.Random(seed)
    places = chance.randint(1, 8)
    kinds = [(chance.uniform(1, 20), chance.uniform(0.05, 0.3)) for _ in range(3)]
    layers = [[(chance.randrange(3)) for _ in range(chance.randint(1, 40))] for _ in range(chance.randint(1, 6))]

    def duration(kind):
        mean, spread = kinds[kind]
        return max(0.1, chance.gauss(mean, mean * spread))

    seen = {kind: [duration(kind) for _ in range(30)] for kind in range(3)}
    durations = {kind: Durations.of(samples) for kind, samples in seen.items()}
    left = [sum(layer.count(kind) for layer in layers) for kind in range(3)]
    path = [sum(max(getattr(durations[kind], end) for kind in layer) for layer in layers) for end in ("low", "high")]
    rests = [Rest(left=left[kind], running=0, durations=durations[kind]) for kind in range(3)]
    found = time_left(rests, (path[0], path[1]), float(places), float(places))
    real = [[duration(kind) for kind in layer] for layer in layers]
    took = sum(_scheduled(layer, places) for layer in real)
    beyond = max(0.0, sum(map(max, real)) - path[1])  # a chain of tasks that each take longer than nine in ten do
    assert found.low * 0.95 <= took <= found.high + beyond


def _scheduled(durations, places):
    ends = [0.0] * places
    for seconds in durations:
        heapq.heappush(ends, heapq.heappop(ends) + seconds)
    return max(ends)
