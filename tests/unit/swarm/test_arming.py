from __future__ import annotations

import pytest

from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.planning import plan, tasks_to_arm, tasks_to_disarm
from jobmon.client.swarm.state import StateUpdate, SwarmState
from jobmon.client.swarm.task import SwarmTask
from jobmon.client.task_resources import TaskResources
from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.core.constants import TaskStatus
from jobmon.core.wire.swarm import ARMED_TASKS_MAX, MISSING_UPSTREAMS_MAX

QUEUE = ClusterQueue(1, "all.q", {})
BOUND = TaskResources({"cores": 1}, QUEUE, "here", 1)
BOUND.id = 50
D, E, F, G, Q = (
    TaskStatus.DONE,
    TaskStatus.ERROR_RECOVERABLE,
    TaskStatus.ERROR_FATAL,
    TaskStatus.REGISTERING,
    TaskStatus.QUEUED,
)


def make_state(upstreams, limit=10_000, limits=None, arrays=None, resources=BOUND, **task_values):
    """`upstreams`: task -> those before it. Those without any are ready."""
    state = SwarmState(1, 10, 5, limit)
    for array_id in {1, *(arrays or {}).values()}:
        state.add_array(SwarmArray(array_id, (limits or {}).get(array_id, 1_000_000)))
    for task_id in upstreams:
        state.add_task(SwarmTask(task_id, (arrays or {}).get(task_id, 1), G, 3, resources, None, **task_values))
    for task_id, before in upstreams.items():
        state.tasks[task_id].num_upstreams = len(before)
        for each in before:
            state.tasks[each].downstream_swarm_tasks.add(state.tasks[task_id])
        if not before:
            state.enqueue_task(state.tasks[task_id])
    return state


def chain(length):
    return {n: [n - 1] if n else [] for n in range(length)}


def step(state):
    """Plan as the scheduler does; return what is queued, armed for what, and disarmed."""
    chosen = plan(state)
    state.take_from_queue(chosen.taken)
    armed = tasks_to_arm(state, chosen)
    disarmed = tasks_to_disarm(state, chosen)
    state.apply_update(StateUpdate({task.task_id: Q for task in chosen.tasks}))
    state.validate()
    return (
        [task.task_id for task in chosen.tasks],
        {task.task_id: [each.task_id for each in missing] for task, missing in armed.items()},
        [task.task_id for task in disarmed],
    )


def update(state, **tasks_by_status):
    """Apply a change; `D=[1]`."""
    statuses = {task_id: status for status, ids in tasks_by_status.items() for task_id in ids}
    changed = state.apply_update(StateUpdate(statuses))
    for ready in state.propagate_completions([task for task in changed if task.status is D]):
        state.enqueue_task(ready)
    state.validate()


def armed(state):
    return [task.task_id for task in state.armed]


def test_a_chain_is_armed_along_with_its_first_task():
    assert step(make_state(chain(4))) == ([0], {1: [0], 2: [1], 3: [2]}, [])


def test_a_task_waits_for_all_its_missing_upstream_tasks():
    state = make_state({1: [], 2: [], 3: [1, 2], 4: [3, 1]})
    assert step(state) == ([1, 2], {3: [1, 2], 4: [1, 3]}, [])


def test_nothing_is_armed_whose_upstream_task_is_neither_in_flight_nor_armed():
    state = make_state({1: [], 2: [], 3: [1, 2]}, limits={2: 0}, arrays={2: 2})
    assert step(state) == ([1], {}, [])


def test_upstream_tasks_that_are_done_are_not_missing():
    state = make_state({1: [], 2: [], 3: [1, 2]}, limit=1)
    assert step(state)[0] == [1]
    update(state, D=[1])
    state.apply_update(StateUpdate(max_concurrently_running=5))
    assert step(state) == ([2], {3: [2]}, [])


def test_an_upstream_task_that_is_to_be_retried_is_not_in_flight():
    state = make_state({1: [], 2: [], 3: [1, 2]}, limit=1)
    step(state)
    update(state, G=[1])
    state.apply_update(StateUpdate(max_concurrently_running=5))
    assert step(state) == ([2], {}, [])
    state.enqueue_task(state.tasks[1])
    assert step(state) == ([1], {3: [1, 2]}, [])


@pytest.mark.parametrize("count", [MISSING_UPSTREAMS_MAX, MISSING_UPSTREAMS_MAX + 1])
def test_so_many_upstream_tasks_may_be_missing(count):
    state = make_state({**{n: [] for n in range(count)}, 99: list(range(count))})
    assert step(state)[1] == ({99: list(range(count))} if count <= MISSING_UPSTREAMS_MAX else {})


def test_a_task_with_a_callable_or_without_a_bound_request_is_not_armed():
    assert step(make_state(chain(2), compute_resources_callable=dict))[1] == {}
    assert step(make_state(chain(2), resources=TaskResources({"cores": 1}, QUEUE, "here", 1)))[1] == {}


def test_so_many_are_armed_and_the_set_is_topped_up_at_half():
    state = make_state(chain(1_000))
    assert len(step(state)[1]) == ARMED_TASKS_MAX
    for done in range(ARMED_TASKS_MAX // 2 - 1):
        update(state, D=[done], Q=[done + 1])
        assert step(state) == ([], {}, [])
    update(state, D=[ARMED_TASKS_MAX // 2 - 1], Q=[ARMED_TASKS_MAX // 2])
    assert len(step(state)[1]) == ARMED_TASKS_MAX // 2


def test_an_armed_task_counts_as_in_flight():
    state = make_state(chain(5), limit=3, limits={1: 4})
    assert step(state) == ([0], {1: [0], 2: [1]}, [])
    assert (state.get_workflow_capacity(), state.get_array_capacity(1), state.in_flight) == (0, 1, 1)
    update(state, D=[0], Q=[1])
    assert (state.get_workflow_capacity(), state.get_array_capacity(1), state.in_flight) == (1, 2, 1)


def test_an_array_that_is_full_arms_nothing():
    assert step(make_state(chain(3), limits={2: 1}, arrays={1: 2, 2: 2})) == ([0], {1: [0]}, [])


def test_nothing_is_armed_while_a_ready_task_waits_for_capacity():
    assert step(make_state({1: [], 2: [], 3: [1]}, limit=1)) == ([1], {}, [])
    assert step(make_state({1: [], 2: [], 3: [1]}, limits={2: 0}, arrays={2: 2})) == ([1], {}, [])


def test_the_capacity_of_the_newest_armed_task_is_taken_for_a_ready_one():
    state = make_state({1: [], 2: [1], 3: [2], 4: []}, limit=3)
    state.ready_to_run.pop()
    assert step(state) == ([1], {2: [1], 3: [2]}, [])
    state.enqueue_task(state.tasks[4])
    assert step(state) == ([], {}, [3])
    assert armed(state) == [2, 3], "until the server has answered"
    state.armed.release([state.tasks[3]])
    assert step(state) == ([4], {}, [])


def test_the_capacity_of_an_armed_task_of_the_same_array_is_taken():
    state = make_state({1: [], 2: [1], 3: [2], 4: []}, limits={2: 1}, arrays={2: 2, 4: 2})
    state.ready_to_run.pop()
    assert step(state) == ([1], {2: [1], 3: [2]}, [])
    state.enqueue_task(state.tasks[4])
    assert step(state) == ([], {}, [2])


def test_a_task_that_was_lost_is_ready():
    state = make_state(chain(3))
    step(state)
    update(state, D=[0])
    assert not state.ready_to_run, "the server may have queued it"
    assert state.has_pending_work()
    assert state.armed.release_unqueued() == [state.tasks[1]]
    assert state.armed.is_unreliable
    assert armed(state) == [2]
    update(state, Q=[2])
    assert not state.armed.is_unreliable


def test_what_waits_for_a_failed_task_is_armed_no_longer():
    state = make_state({1: [], 2: [1], 3: [2], 4: [], 5: [4]})
    step(state)
    update(state, F=[1])
    state.armed.release_downstream([state.tasks[1]])
    assert armed(state) == [5]


def test_a_shared_set_of_downstream_tasks_is_walked_once():
    class CountingTuple(tuple):
        walks = 0

        def __iter__(self):
            CountingTuple.walks += 1
            return super().__iter__()

    state = make_state({n: [] for n in range(100)})
    after = SwarmTask(1000, 1, G, 3, BOUND, None)
    after.num_upstreams = 100
    state.add_task(after)
    shared = CountingTuple([after])
    for task_id in range(100):
        state.tasks[task_id].share_downstream(shared)
    state.apply_update(StateUpdate(dict.fromkeys(range(100), Q)))
    assert CountingTuple.walks == 1
