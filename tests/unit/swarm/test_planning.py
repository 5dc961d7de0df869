from __future__ import annotations

import pytest

from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.planning import adjusted_resources, initial_fringe, plan, remarks_on_adjustment
from jobmon.client.swarm.state import StateUpdate, SwarmState
from jobmon.client.swarm.task import SwarmTask
from jobmon.client.task_resources import TaskResources
from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.core.constants import Cause, TaskStatus
from jobmon.core.exceptions import InvalidResources, WorkflowRunStateError
from jobmon.core.wire.swarm import ResourceError

QUEUE = ClusterQueue(1, "all.q", {})
SMALL = TaskResources({"cores": 1}, QUEUE, "here", 1)
LARGE = TaskResources({"cores": 8}, QUEUE, "here", 1)


def make_state(*rows, limits=None, limit=10_000):
    """Rows are (task id, array id, request); all are ready."""
    state = SwarmState(1, 10, 5, limit)
    for array_id in {row[1] for row in rows}:
        state.add_array(SwarmArray(array_id, (limits or {}).get(array_id, 1_000_000)))
    for task_id, array_id, resources in rows:
        task = SwarmTask(task_id, array_id, TaskStatus.REGISTERING, 3, resources, None)
        state.add_task(task)
        state.enqueue_task(task)
    return state


def shown(plan):
    return [(batch.array_id, batch.task_resources, [task.task_id for task in batch.tasks]) for batch in plan.batches]


def carry_out(state, planned):
    state.take_from_queue(planned.taken)
    state.apply_update(StateUpdate({task.task_id: TaskStatus.QUEUED for task in planned.tasks}))
    state.validate()


def test_tasks_of_one_array_with_equal_requests_make_one_batch():
    equal = TaskResources({"cores": 1}, QUEUE, "here", 1)
    state = make_state((1, 1, SMALL), (2, 2, SMALL), (3, 1, LARGE), (4, 1, equal))
    assert shown(plan(state)) == [(1, SMALL, [1, 4]), (2, SMALL, [2]), (1, LARGE, [3])]


def test_planning_changes_nothing():
    state = make_state((1, 1, SMALL), (2, 1, SMALL), limits={1: 1})
    assert plan(state) == plan(state)
    assert len(state.ready_to_run) == 2


def test_a_paused_workflow_plans_nothing_and_looks_at_nothing():
    planned = plan(make_state((1, 1, SMALL), limit=0))
    assert (planned.batches, planned.taken, planned.is_full) == ((), {}, False)


def test_tasks_of_a_full_array_are_put_aside_and_come_back():
    state = make_state((1, 1, SMALL), (2, 1, SMALL), (3, 1, SMALL), (4, 2, SMALL), limits={1: 1})
    first = plan(state)
    assert shown(first) == [(1, SMALL, [1]), (2, SMALL, [4])]
    carry_out(state, first)
    assert ([*state.ready_to_run], [task.task_id for task in state.held[1]]) == ([], [2, 3])
    assert plan(state).batches == ()
    state.update_task_status(1, TaskStatus.DONE)
    second = plan(state)
    assert shown(second) == [(1, SMALL, [2])]
    carry_out(state, second)
    state.apply_update(StateUpdate({2: TaskStatus.DONE}, array_limits={1: 5}))
    carry_out(state, plan(state))
    assert not state.held
    assert state.get_tasks_by_status(TaskStatus.QUEUED) == {state.tasks[3], state.tasks[4]}


def test_what_waits_behind_a_full_workflow_is_not_looked_at():
    state = make_state(*((n, 1, SMALL) for n in range(1_000)), limit=3)
    assert plan(state).taken[0].examined == 3


def test_a_request_is_bounded_and_says_that_there_may_be_more():
    state = make_state((1, 1, SMALL), (2, 1, SMALL), (3, 1, SMALL))
    planned = plan(state, tasks_max=2)
    assert ([task.task_id for task in planned.tasks], planned.is_full) == ([1, 2], True)


def test_an_entry_that_is_out_of_date_or_there_twice_is_passed_over():
    state = make_state((1, 1, SMALL), (2, 1, SMALL), (3, 1, SMALL))
    state.enqueue_task(state.tasks[3])
    state.update_task_status(1, TaskStatus.DONE)
    state.tasks[2].num_upstreams = 1
    planned = plan(state)
    assert ([task.task_id for task in planned.tasks], planned.taken[0].examined) == ([3], 4)


def test_an_entry_put_aside_that_is_out_of_date_is_passed_over():
    state = make_state((1, 1, SMALL), (2, 1, SMALL), (3, 1, SMALL), limits={1: 1})
    carry_out(state, plan(state))
    state.apply_update(StateUpdate({1: TaskStatus.DONE, 2: TaskStatus.DONE}))
    planned = plan(state)
    assert ([task.task_id for task in planned.tasks], planned.taken[0].released) == ([3], {1: 2})


def test_the_highest_priority_of_task_and_array_goes_first_within_the_limits():
    state = make_state((1, 1, SMALL), (2, 1, SMALL), (3, 2, SMALL), (4, 2, SMALL), (5, 3, SMALL), limit=3)
    state.apply_update(StateUpdate(priorities={2: 5, 4: -8, 5: -1}, array_priorities={2: 7}))
    state.validate()
    planned = plan(state)
    assert [task.task_id for task in planned.tasks] == [3, 2, 1]
    carry_out(state, planned)
    assert list(state.ready_to_run) == []
    assert state.get_ready_to_run_count() == 2
    state.apply_update(StateUpdate(max_concurrently_running=4))
    assert [task.task_id for task in plan(state).tasks] == [4]


def test_a_changed_priority_moves_what_waits_ready_or_put_aside():
    state = make_state((1, 1, SMALL), (2, 1, SMALL), (3, 1, SMALL), (4, 2, SMALL), limits={1: 1})
    carry_out(state, plan(state))
    assert [task.task_id for task in state.held[1]] == [2, 3]
    state.apply_update(StateUpdate(priorities={3: 1}))
    state.validate()
    state.update_task_status(1, TaskStatus.DONE)
    assert [task.task_id for task in plan(state).tasks] == [3]
    state.apply_update(StateUpdate(priorities={}))
    state.validate()
    assert {task.task_id for task in state.ready_to_run} == {2, 3}
    assert len(plan(state).tasks) == 1


def test_a_full_array_of_high_priority_does_not_keep_others_from_running():
    state = make_state((1, 1, SMALL), (2, 1, SMALL), (3, 2, SMALL), limits={1: 1})
    state.apply_update(StateUpdate(array_priorities={1: 100}))
    assert [task.task_id for task in plan(state).tasks] == [1, 3]


def test_a_task_without_a_request_is_an_error():
    with pytest.raises(WorkflowRunStateError, match="Task 1"):
        plan(make_state((1, 1, None)))


def test_raising_a_request_uses_scales_step_and_fallback_queues():
    small, large = ClusterQueue(1, "small", {"max_memory": 2}), ClusterQueue(2, "large", {"max_memory": 10})
    task = SwarmTask(
        1,
        1,
        TaskStatus.ADJUSTING_RESOURCES,
        3,
        TaskResources({"memory": 1}, small, "here", 1),
        None,
        {"memory": [2, 8, 32]},
        [large],
    )
    seen = []
    for _ in range(3):
        task.task_resources = adjusted_resources(task)
        task.adjustments += 1
        seen.append((task.task_resources.queue_name, task.task_resources.requested_resources["memory"]))
    assert seen == [("small", 2.0), ("large", 8.0), ("large", 10.0)]


def test_what_a_user_should_know_of_a_raised_request():
    queue = ClusterQueue(1, "small", {"max_memory": 2})
    request = TaskResources({"memory": 2, "runtime": 60}, queue, "here", 1)
    task = SwarmTask(7, 1, TaskStatus.ADJUSTING_RESOURCES, 3, request, None, {"memory": [2]})
    task.adjustments = 1
    error = ResourceError(cause=Cause.OUT_OF_TIME)
    assert remarks_on_adjustment(task, request, adjusted_resources(task, error), error) == [
        "the scale of 'memory' has no further value and repeats its last one",
        "it was out of time, but its resource_scales do not include 'runtime'",
    ]
    task.resource_scales = {"memory": 0.5}
    memory = ResourceError(cause=Cause.OUT_OF_MEMORY)
    assert remarks_on_adjustment(task, request, adjusted_resources(task, memory), memory) == [
        "queue 'small' does not allow more than the request that was not enough",
    ]
    task.resource_scales, task.fallback_queues = {"memory": lambda old: old / 0}, [ClusterQueue(2, "large", {})]
    with pytest.raises(InvalidResources, match=r"task 7 .*ZeroDivisionError"):
        adjusted_resources(task, error)
    task.resource_scales = None
    raised = adjusted_resources(task, ResourceError(cause=Cause.OUT_OF_MEMORY, max_rss_bytes=4 * 1024**3))
    assert raised.requested_resources == {"memory": 4.8, "runtime": 60}
    assert remarks_on_adjustment(task, request, raised, None) == [
        "it no longer fits queue 'small' and moves to 'large'"
    ]


def test_raising_no_request_is_an_error():
    with pytest.raises(WorkflowRunStateError, match="Task 1"):
        adjusted_resources(SwarmTask(1, 1, TaskStatus.ADJUSTING_RESOURCES, 3, None, None))


def test_the_fringe_is_what_may_be_queued_and_is_not_queued_yet():
    state = make_state((1, 1, SMALL))
    for task_id, status, upstreams in [(2, "G", 0), (3, "G", 1), (4, "A", 0), (5, "D", 0), (6, "R", 0)]:
        task = SwarmTask(task_id, 1, status, 3, SMALL, None)
        task.num_upstreams = upstreams
        state.add_task(task)
    assert [task.task_id for task in initial_fringe(state)] == [2, 4]
