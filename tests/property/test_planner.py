"""The planner keeps limits, order and promises, and its work is linear (style.md 4.2, property 5)."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.planning import initial_fringe, plan
from jobmon.client.swarm.state import StateUpdate, SwarmState
from jobmon.client.swarm.task import SwarmTask
from jobmon.client.task_resources import TaskResources
from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.core.constants import TaskStatus
from jobmon.core.fsm import QUEUEABLE

QUEUE = ClusterQueue(1, "all.q", {})
REQUESTS = [TaskResources({"cores": cores}, QUEUE, "here", 1) for cores in (1, 2)]
ARRAYS = 3


@st.composite
def workflows(draw):
    """A state with some tasks in any status, its ready ones in the queue."""
    count = draw(st.integers(1, 25))
    state = SwarmState(1, 10, 5, draw(st.integers(0, 12)))
    for array_id in range(ARRAYS):
        state.add_array(SwarmArray(array_id, draw(st.integers(0, 6))))
    for task_id in range(count):
        before = draw(st.sets(st.integers(0, task_id - 1), max_size=2)) if task_id else set()
        is_free = all(state.tasks[each].status is TaskStatus.DONE for each in before)
        # what waits for others was never queued, so it can only be REGISTERING
        status = draw(st.sampled_from(list(TaskStatus)) | st.just(TaskStatus.REGISTERING)) if is_free else "G"
        array_id = draw(st.integers(0, ARRAYS - 1))
        task = SwarmTask(task_id, array_id, status, 3, draw(st.sampled_from(REQUESTS)), None)
        for each in before:
            state.tasks[each].downstream_swarm_tasks.add(task)
        task.num_upstreams = len(before)
        state.add_task(task)
    state.propagate_completions(state.get_tasks_by_status(TaskStatus.DONE))
    some = st.dictionaries(st.integers(0, count - 1), st.integers(-2, 2))
    state.apply_update(StateUpdate(priorities=draw(some), array_priorities=draw(some)))
    for task in draw(st.permutations(initial_fringe(state))):
        state.enqueue_task(task)
    return state


def can_run(state):
    """Say the slow way whether anything may be queued."""
    return state.get_workflow_capacity() > 0 and any(
        task.status in QUEUEABLE and task.all_upstreams_done and state.get_array_capacity(task.array_id) > 0
        for task in state.tasks.values()
    )


def check(state, planned, tasks_max=10_000):
    tasks = planned.tasks
    assert len({task.task_id for task in tasks}) == len(tasks)
    assert len(tasks) <= state.get_workflow_capacity()
    for array_id, count in Counter(task.array_id for task in tasks).items():
        assert count <= state.get_array_capacity(array_id)
    for task in tasks:
        assert task.status in QUEUEABLE
        assert task.all_upstreams_done
    for batch in planned.batches:
        assert {(task.array_id, task.task_resources) for task in batch.tasks} == {
            (batch.array_id, batch.task_resources)
        }
    assert bool(tasks) == can_run(state)
    check_order(state, {task.task_id for task in tasks}, is_cut=len(tasks) == tasks_max)


def check_order(state, chosen, *, is_cut):
    """What is left behind has no higher priority than a chosen task of its array, or of any array if a limit is why."""
    left = [
        task
        for task in state.tasks.values()
        if task.status in QUEUEABLE and task.all_upstreams_done and task.task_id not in chosen
    ]
    is_full = is_cut or len(chosen) == state.get_workflow_capacity()
    for task in (state.tasks[each] for each in chosen):
        for other in left:
            is_array_full = state.get_array_capacity(other.array_id) == sum(
                state.tasks[each].array_id == other.array_id for each in chosen
            )
            if other.array_id == task.array_id or (is_full and not is_array_full):
                assert state.priority_of(other) <= state.priority_of(task)


def carry_out(state, planned):
    state.take_from_queue(planned.taken)
    state.apply_update(StateUpdate({task.task_id: TaskStatus.QUEUED for task in planned.tasks}))


@given(workflows(), st.integers(1, 10))
def test_a_plan_keeps_the_rules_and_is_the_same_twice(state, tasks_max):
    planned = plan(state, tasks_max)
    check(state, planned, tasks_max)
    assert len(planned.tasks) <= tasks_max
    assert plan(state, tasks_max) == planned
    state.validate()


@given(workflows(), st.data())
def test_planning_again_and_again_runs_everything_that_can_be_run(state, data):
    """Limits and endings change at any time; in the end, without limits, nothing is left."""
    ends = st.sampled_from(["D", "D", "G", "F"])
    for _ in range(200):
        planned = plan(state, 4)
        check(state, planned, 4)
        carry_out(state, planned)
        running = sorted(task.task_id for task in state.get_tasks_by_status(TaskStatus.QUEUED))
        if running:
            task = state.tasks[data.draw(st.sampled_from(running))]
            state.update_task_status(task.task_id, data.draw(ends))
            if task.status is TaskStatus.DONE:
                for ready in state.propagate_completions({task}):
                    state.enqueue_task(ready)
            elif task.status is TaskStatus.REGISTERING:
                state.enqueue_task(task, front=True)
        if data.draw(st.booleans()):
            limits = {data.draw(st.integers(0, ARRAYS - 1)): data.draw(st.integers(0, 5))}
            state.apply_update(StateUpdate(max_concurrently_running=data.draw(st.integers(0, 9)), array_limits=limits))
        if data.draw(st.booleans()):
            some = st.dictionaries(st.integers(0, len(state.tasks) - 1), st.integers(-2, 2))
            state.apply_update(StateUpdate(priorities=data.draw(some)))
            state.validate()
        if not running and not planned.tasks:
            break
    state.apply_update(StateUpdate(max_concurrently_running=1_000, array_limits=dict.fromkeys(range(ARRAYS), 1_000)))
    carry_out(state, plan(state))
    assert not can_run(state)
    assert not state.held
    assert not state.ready_to_run
    state.validate()


class CountingTask(SwarmTask):
    """Counts how often its readiness is queried."""

    __slots__ = ()
    looks = 0

    @property
    def all_upstreams_done(self):
        CountingTask.looks += 1
        return True


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 7))
def test_work_is_linear_in_tasks(count, array_limit, limit):
    """However small the limits, each task is looked at a few times, not once in every round."""
    CountingTask.looks = 0
    state = SwarmState(1, 10, 5, limit)
    state.add_array(SwarmArray(0, array_limit))
    state.add_array(SwarmArray(1, array_limit))
    for task_id in range(count):
        task = CountingTask(task_id, task_id * 2 // count, TaskStatus.REGISTERING, 3, REQUESTS[0], None)
        state.add_task(task)
        state.enqueue_task(task)
    rounds = 0
    while state.has_pending_work():
        carry_out(state, plan(state))
        running = state.get_tasks_by_status(TaskStatus.QUEUED)
        state.update_task_status(min(task.task_id for task in running), TaskStatus.DONE)
        rounds += 1
    assert rounds <= count + 1
    assert CountingTask.looks <= 2 * count
