from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta

import pytest

from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.lanes import Taken
from jobmon.client.swarm.state import StateUpdate, SwarmState
from jobmon.client.swarm.task import SwarmTask
from jobmon.core.constants import TaskStatus, WorkflowRunStatus
from jobmon.core.exceptions import WorkflowRunStateError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def task(task_id, status=TaskStatus.REGISTERING, array_id=1):
    return SwarmTask(task_id, array_id, status, 3, None, None)


@pytest.fixture
def state():
    """Three tasks, 1 and 2 before 3; every invariant is checked at the end."""
    state = SwarmState(workflow_id=1, workflow_run_id=10, dag_id=5)
    state.add_array(SwarmArray(1, 2, "one"))
    for n in (1, 2, 3):
        state.add_task(task(n))
        state.arrays[1].add_task(state.tasks[n])
    for n in (1, 2):
        state.tasks[n].downstream_swarm_tasks.add(state.tasks[3])
    state.tasks[3].num_upstreams = 2
    yield state
    state.validate()


def test_defaults():
    state = SwarmState(workflow_id=1, workflow_run_id=10, dag_id=5)
    assert (state.max_concurrently_running, state.status, state.last_sync) == (10000, "B", None)
    assert list(state.ready_to_run) == []
    assert not state.has_pending_work()


def test_an_update_is_immutable():
    update = StateUpdate(task_statuses={1: "D"})
    with pytest.raises(FrozenInstanceError):
        update.sync_time = NOW
    with pytest.raises(TypeError):
        update.task_statuses[2] = "D"


def test_an_update_does_not_change_with_what_it_was_made_from():
    statuses = {1: "D"}
    update = StateUpdate(task_statuses=statuses)
    statuses[1] = "F"
    assert update.task_statuses == {1: "D"}


def test_an_empty_update_changes_nothing(state):
    assert StateUpdate.empty() == StateUpdate()
    assert state.apply_update(StateUpdate.empty()) == set()


def test_an_update_from_an_answer_of_the_server():
    update = StateUpdate.from_task_status_response({"D": [1, 2], "R": [3]}, NOW)
    assert update == StateUpdate(task_statuses={1: "D", 2: "D", 3: "R"}, sync_time=NOW)


def test_merging_prefers_the_other():
    one = StateUpdate({1: "R", 2: "R"}, 5, {1: 1, 2: 2}, "R", NOW)
    other = StateUpdate({2: "D"}, None, {2: 9}, "C", None)
    assert one.merge(other) == StateUpdate({1: "R", 2: "D"}, 5, {1: 1, 2: 9}, "C", NOW)
    assert one.merge(StateUpdate(max_concurrently_running=0)).max_concurrently_running == 0


def test_applying_returns_what_changed(state):
    update = StateUpdate({1: "D", 2: "G", 99: "D"}, sync_time=NOW)
    assert state.apply_update(update) == {state.tasks[1]}
    assert state.get_tasks_by_status("D") == {state.tasks[1]}
    assert state.apply_update(update) == set()
    assert state.last_sync == NOW


def test_an_update_with_an_unknown_status_changes_nothing(state):
    with pytest.raises(ValueError, match=r"'\?'"):
        state.apply_update(StateUpdate({1: "D", 2: "?"}, max_concurrently_running=1))
    assert state.get_tasks_by_status("G") == set(state.tasks.values())
    assert state.max_concurrently_running == 10000


def test_the_sync_time_never_goes_back(state):
    state.apply_update(StateUpdate(sync_time=NOW))
    state.apply_update(StateUpdate(sync_time=NOW - timedelta(seconds=1)))
    assert state.last_sync == NOW


@pytest.mark.parametrize(
    ("known", "told", "expected"),
    [
        ("B", "R", "R"),
        ("R", "O", "R"),
        ("R", "C", "C"),
        ("C", "R", "C"),
        ("C", "H", "C"),
        ("C", "T", "T"),
        ("R", "E", "E"),
        ("E", "R", "E"),
        ("D", "C", "D"),
    ],
)
def test_old_news_of_the_run_does_not_count(known, told, expected):
    state = SwarmState(1, 10, 5, status=known)
    state.apply_update(StateUpdate(workflow_run_status=told))
    assert state.status == WorkflowRunStatus(expected)


def test_updating_one_task(state):
    assert state.update_task_status(1, "R")
    assert not state.update_task_status(99, "R")
    assert state.get_task(1).status == "R"
    assert state.get_task(99) is None


def test_two_tasks_of_one_id_are_refused(state):
    with pytest.raises(ValueError, match="id 1"):
        state.add_task(task(1))


def test_an_array_refuses_the_task_of_another():
    with pytest.raises(ValueError, match="array 2"):
        SwarmArray(1, 5).add_task(task(1, array_id=2))


def test_capacity_counts_what_is_in_flight(state):
    assert state.get_array_capacity(1) == 2
    state.apply_update(StateUpdate({1: "Q", 2: "R"}))
    assert (state.get_array_capacity(1), state.get_workflow_capacity(), state.in_flight) == (0, 9998, 2)
    state.apply_update(StateUpdate({1: "D", 2: "A"}))
    assert (state.get_array_capacity(1), state.in_flight) == (2, 0)
    state.apply_update(StateUpdate(max_concurrently_running=0, array_limits={1: 7, 99: 3}))
    assert (state.get_array_capacity(1), state.get_workflow_capacity()) == (7, 0)
    assert state.get_array_capacity(99) == 0


@pytest.mark.parametrize("status", "QIORAE")
def test_what_is_under_way_is_pending(state, status):
    state.update_task_status(1, status)
    assert state.has_pending_work()


@pytest.mark.parametrize("status", "GDF")
def test_what_waits_or_is_final_is_not_pending(state, status):
    state.update_task_status(1, status)
    assert not state.has_pending_work()


def test_a_ready_task_is_pending_also_when_put_aside(state):
    state.enqueue_task(state.tasks[1])
    assert state.has_pending_work()
    state.take_from_queue({0: Taken(1, (state.tasks[1],))})
    assert state.has_pending_work()
    state.take_from_queue({0: Taken(0, released={1: 1})})
    assert not state.has_pending_work()


def test_downstreams_that_several_completed_tasks_share_are_walked_once():
    class Counted(tuple):
        walks = 0

        def __iter__(self):
            Counted.walks += 1
            return super().__iter__()

    state = SwarmState(workflow_id=1, workflow_run_id=10, dag_id=5)
    state.add_array(SwarmArray(1, 2, "one"))
    for n in range(1, 6):
        state.add_task(task(n))
    *before, last = state.tasks.values()
    waiting = Counted([last])
    for one in before:
        one.share_downstream(waiting)
    last.num_upstreams = len(before)
    state.apply_update(StateUpdate({one.task_id: "D" for one in before}))
    Counted.walks = 0
    assert state.propagate_completions(before) == [last]
    assert (Counted.walks, last.num_upstreams_done) == (1, len(before))


def test_completions_make_ready_what_waited_for_all_of_them(state):
    one, two, three = state.tasks.values()
    state.apply_update(StateUpdate({1: "D"}))
    assert state.propagate_completions({one}) == []
    assert state.propagate_completions({one}) == []
    assert three.num_upstreams_done == 1
    state.apply_update(StateUpdate({2: "D"}))
    assert state.propagate_completions({one, two}) == [three]


def test_only_registering_tasks_become_ready(state):
    state.apply_update(StateUpdate({1: "D", 2: "D", 3: "R"}))
    assert state.propagate_completions({state.tasks[1], state.tasks[2]}) == []
    assert state.tasks[3].all_upstreams_done


def test_the_queue_is_first_in_first_out_unless_pushed(state):
    one, two, three = state.tasks.values()
    state.enqueue_task(one)
    state.enqueue_task(two)
    state.enqueue_task(three, front=True)
    assert [state.dequeue_task() for _ in range(4)] == [three, one, two, None]


def test_equal_requests_are_kept_once(state):
    assert state.get_cached_resources(5) is None
    first = object()
    assert state.cache_resources(5, first) is first
    assert state.cache_resources(5, object()) is first
    assert state.get_cached_resources(5) is first


def test_counts_include_what_was_done_before(state):
    state.previously_done = frozenset({100})
    state.update_task_status(1, "D")
    assert state.count_by_status()[TaskStatus.DONE] == 2
    assert state.total_tasks == 4
    assert state.task_status_map["D"] == {state.tasks[1]}


def test_validation_names_all_that_is_broken():
    state = SwarmState(1, 10, 5)
    state.add_task(task(1))
    state.tasks[1].status = TaskStatus.RUNNING
    state.tasks[1].num_upstreams_done = 1
    with pytest.raises(WorkflowRunStateError, match=r"filed as REGISTERING.*counted in flight.*counts 1 of 0"):
        state.validate()


def test_a_task_is_small_and_equal_only_to_itself():
    one = task(1)
    one.share_downstream((task(2),))
    assert sys.getsizeof(one) <= 200
    assert not hasattr(one, "__dict__")
    assert one != task(1)


def test_downstream_tasks_as_a_set_of_their_own():
    one, two, three = task(1), task(2), task(3)
    shared = (three,)
    one.share_downstream(shared)
    two.share_downstream(shared)
    one.downstream_swarm_tasks.add(two)
    assert (set(one.downstream_tasks), two.downstream_tasks) == ({two, three}, [three])
    two.downstream_swarm_tasks = [one]
    assert two.downstream_swarm_tasks == {one}


def test_a_status_that_does_not_exist_is_refused():
    with pytest.raises(ValueError):
        task(1, "?")
