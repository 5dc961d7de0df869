"""Updates in any order, also repeated, lead to the same state (style.md 4.2, property 6)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.state import StateUpdate, SwarmState
from jobmon.client.swarm.task import SwarmTask
from jobmon.core.constants import TaskStatus

TASKS, ARRAYS = 12, 3
START = datetime(2026, 1, 1, tzinfo=UTC)
ids = st.integers(0, TASKS + 1)
statuses = st.sampled_from(list(TaskStatus))
edges = st.sets(st.tuples(st.integers(0, TASKS - 1), st.integers(0, TASKS - 1)).filter(lambda e: e[0] < e[1]))
updates = st.builds(
    StateUpdate,
    task_statuses=st.dictionaries(ids, statuses),
    max_concurrently_running=st.none() | st.integers(0, 10),
    array_limits=st.dictionaries(st.integers(0, ARRAYS), st.integers(0, 5)),
    sync_time=st.none() | st.integers(0, 100).map(lambda n: START + timedelta(seconds=n)),
)


def make_state(pairs):
    state = SwarmState(1, 10, 5)
    for array_id in range(ARRAYS):
        state.add_array(SwarmArray(array_id, 4))
    for task_id in range(TASKS):
        state.add_task(SwarmTask(task_id, task_id % ARRAYS, TaskStatus.REGISTERING, 3, None, None))
    for before, after in pairs:
        state.tasks[before].downstream_swarm_tasks.add(state.tasks[after])
        state.tasks[after].num_upstreams += 1
    return state


def picture(state):
    """Return everything that a state can report."""
    return {
        "statuses": {task_id: task.status for task_id, task in state.tasks.items()},
        "buckets": {status: {t.task_id for t in state.get_tasks_by_status(status)} for status in TaskStatus},
        "capacity": [state.get_array_capacity(array_id) for array_id in range(ARRAYS)],
        "in flight": (state.in_flight, state.get_workflow_capacity(), state.has_pending_work()),
        "upstreams": {task_id: task.num_upstreams_done for task_id, task in state.tasks.items()},
        "sync": state.last_sync,
    }


def play(state, several):
    for update in several:
        changed = state.apply_update(update)
        state.propagate_completions({task for task in changed if task.status is TaskStatus.DONE})
        state.validate()
    return state


@given(edges, st.lists(updates, max_size=6))
def test_every_invariant_holds_after_every_update(pairs, several):
    play(make_state(pairs), several)


@given(edges, st.lists(updates, max_size=6))
def test_one_update_made_of_all_ends_in_the_same_state(pairs, several):
    merged = StateUpdate.empty()
    stamps = [update.sync_time for update in several if update.sync_time is not None]
    for update in several:
        merged = merged.merge(update)
    final = picture(play(make_state(pairs), [merged, StateUpdate(sync_time=max(stamps, default=None))]))
    step_by_step = picture(play(make_state(pairs), several))
    # a task that was done and then reset told its downstreams; one that was never seen done did not
    for each in (final, step_by_step):
        each.pop("upstreams")
    assert final == step_by_step


@given(edges, st.lists(st.dictionaries(ids, statuses), max_size=6), st.data())
def test_order_and_repetition_do_not_matter(pairs, parts, data):
    """Each part tells of other tasks, as answers of the server between which nothing changed."""
    told: set[int] = set()
    several = []
    for number, part in enumerate(parts):
        several.append(
            StateUpdate(
                {task_id: status for task_id, status in part.items() if task_id not in told},
                sync_time=START + timedelta(seconds=number),
            )
        )
        told |= part.keys()
    shuffled = data.draw(st.permutations([*several, data.draw(st.sampled_from(several))] if several else []))
    assert picture(play(make_state(pairs), several)) == picture(play(make_state(pairs), shuffled))


@given(edges, st.permutations(range(TASKS)))
def test_everything_becomes_ready_exactly_once_whatever_the_order_of_completions(pairs, order):
    state = make_state(pairs)
    ready = [task.task_id for task in state.tasks.values() if task.all_upstreams_done]
    done: set[int] = set()
    while ready:
        task_id = min(ready, key=order.index)
        ready.remove(task_id)
        done.add(task_id)
        state.update_task_status(task_id, TaskStatus.DONE)
        for _ in range(2):
            ready += [task.task_id for task in state.propagate_completions({state.tasks[task_id]})]
        state.validate()
    assert done == set(range(TASKS))
