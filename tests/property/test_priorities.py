"""What makes way for more urgent tasks: enough, nothing of another cluster, and nothing that is as urgent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobmon.core.priorities import Blocked, Unstarted, to_recall

small = st.integers(1, 3)
levels = st.integers(-2, 2)
attempts = st.lists(
    st.builds(
        Unstarted,
        id=st.integers(1, 10**6),
        cluster_id=small,
        array_id=small,
        priority=levels,
        position=st.none() | st.tuples(st.integers(), st.integers()),
    ),
    max_size=20,
    unique_by=(lambda one: one.id, lambda one: one.position or one.id),
)
urgent = st.dictionaries(small, levels, max_size=3)
blocked = st.lists(
    st.builds(Blocked, array_id=small, number=st.integers(1, 5), priority=levels, is_array_full=st.booleans()),
    max_size=3,
    unique_by=lambda one: one.array_id,
)


def hinders(one, tasks):
    return one.priority < tasks.priority and (one.array_id == tasks.array_id or not tasks.is_array_full)


def delays(one, attempts, urgent):
    """Whether a claimed attempt would start before a more urgent one of its cluster."""
    others = [
        other.priority
        for other in attempts
        if other.cluster_id == one.cluster_id and other.position is not None and other.position > one.position
    ]
    return one.priority < max([*others, urgent.get(one.cluster_id, one.priority)])


@given(attempts, urgent, blocked)
def test_no_claimed_attempt_stays_before_a_more_urgent_one_of_its_cluster(attempts, urgent, blocked):
    recalled = to_recall(attempts, urgent, blocked)
    kept = [one for one in attempts if one.id not in recalled]
    assert not [one for one in kept if one.position is not None and delays(one, kept, urgent)]


@given(attempts, urgent, blocked)
def test_each_recalled_attempt_delays_something_more_urgent(attempts, urgent, blocked):
    recalled = to_recall(attempts, urgent, blocked)
    for one in (one for one in attempts if one.id in recalled):
        is_before = one.position is not None and delays(one, attempts, urgent)
        assert is_before or any(hinders(one, tasks) for tasks in blocked)


@given(attempts, urgent, blocked)
def test_a_limit_gets_as_much_room_as_its_tasks_need_and_no_more(attempts, urgent, blocked):
    recalled = to_recall(attempts, urgent, blocked)
    without = to_recall(attempts, urgent, [])
    assert without <= recalled
    assert len(recalled - without) <= sum(tasks.number for tasks in blocked)
    for tasks in blocked if len(blocked) == 1 else []:
        candidates = [one for one in attempts if hinders(one, tasks)]
        freed = [one for one in candidates if one.id in recalled]
        assert len(freed) >= min(tasks.number, len(candidates))
        ready = sum(one.id in without for one in candidates)
        assert len(recalled - without) == max(0, min(tasks.number, len(candidates)) - ready)
        kept = [one for one in candidates if one.id not in recalled]
        extra = [one for one in freed if one.id not in without]
        assert all((one.priority, -one.id) < (other.priority, -other.id) for one in extra for other in kept)


@given(attempts, urgent)
def test_what_was_recalled_needs_no_second_recall(attempts, urgent):
    recalled = to_recall(attempts, urgent, [])
    left = [one for one in attempts if one.id not in recalled]
    assert to_recall(left, urgent, []) == set()


@given(attempts, small)
def test_among_tasks_of_one_priority_nothing_makes_way(attempts, number):
    equal = [Unstarted(one.id, one.cluster_id, one.array_id, 0, one.position) for one in attempts]
    assert to_recall(equal, dict.fromkeys((1, 2, 3), 0), [Blocked(1, number, 0, is_array_full=False)]) == set()


def test_another_cluster_keeps_what_it_claimed():
    attempts = [Unstarted(1, 1, 1, 0, (1,)), Unstarted(2, 2, 1, 0, (2,))]
    assert to_recall(attempts, {2: 5}, []) == {2}
    assert to_recall(attempts, {}, []) == set()
