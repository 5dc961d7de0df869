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


class Growing:
    """A workflow whose expansions add tasks, and a model of what each task waits for.

    Args:
        draw: makes choices.
    """

    def __init__(self, draw):
        self.draw = draw
        self.state = SwarmState(1, 10, 5)
        self.state.add_array(SwarmArray(0, 100))
        self.upstreams: dict[int, set[int]] = {}
        self.origins: dict[int, int] = {}
        for _ in range(draw(st.integers(1, 5))):
            task = self.made(origin_id=0)
            self.upstreams[task.task_id] = self.some(self.upstreams)
            self.state.add_task(task)
            self.state.arrays[0].add_task(task)
        self.state.relink(self.downstream())

    def made(self, origin_id):
        number = len(self.upstreams) + 1
        is_expansion = self.draw(st.booleans())
        return SwarmTask(
            number, 0, TaskStatus.REGISTERING, 1, None, None, is_expansion=is_expansion, origin_id=origin_id
        )

    def some(self, candidates):
        return self.draw(st.sets(st.sampled_from(sorted(candidates)))) if candidates else set()

    def added_by(self, expansion):
        """Return everything that an expansion has added, directly or not."""
        found = {task_id for task_id, origin_id in self.origins.items() if origin_id == expansion}
        return found.union(*map(self.added_by, found))

    def waits_for(self, task_id):
        """Return what a task waits for, from the rule alone: its upstream tasks, its origin, and all that these add."""
        upstreams = self.upstreams[task_id]
        origin = {self.origins[task_id]} if task_id in self.origins else set()
        return (upstreams | origin).union(*map(self.added_by, upstreams))

    def downstream(self):
        found = {task_id: [] for task_id in self.upstreams}
        for task_id in self.upstreams:
            for upstream in self.waits_for(task_id):
                found[upstream].append(task_id)
        return found

    def all_downstream(self, task_id):
        direct = self.downstream()
        found, waiting = set(), [task_id]
        while waiting:
            new = set(direct[waiting.pop()]) - found
            found |= new
            waiting += new
        return found

    def grow(self, expansion):
        number = self.draw(st.integers(0, 3 if len(self.upstreams) < 20 else 0))
        chain, above = {expansion.task_id}, expansion.task_id
        while (above := self.origins.get(above, 0)) != 0:
            chain.add(above)
        waiting = self.all_downstream(expansion.task_id) | chain
        outside = {task_id for task_id in self.upstreams if waiting.isdisjoint({task_id, *self.added_by(task_id)})}
        tasks, groups = [], []
        for _ in range(number):
            task = self.made(expansion.task_id)
            own = self.some({each.task_id for each in tasks}) | self.some(outside)
            self.upstreams[task.task_id] = own
            self.origins[task.task_id] = expansion.task_id
            tasks.append(task)
            if own:
                groups.append((sorted(own), [task]))
        self.state.grow(expansion, tasks, groups)
        self.state.validate()

    def counters(self):
        return {each.task_id: (each.num_upstreams, each.num_upstreams_done) for each in self.state.tasks.values()}


@given(st.data())
def test_nothing_is_ready_before_everything_that_its_expansions_add_is_done(data):
    growing = Growing(data.draw)
    state = growing.state
    ready = [task for task in state.tasks.values() if task.all_upstreams_done]
    done: set[int] = set()
    while ready:
        task = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
        assert growing.waits_for(task.task_id) <= done
        if task.is_expansion:
            growing.grow(task)
        done.add(task.task_id)
        state.update_task_status(task.task_id, TaskStatus.DONE)
        ready += state.propagate_completions({task})
        state.validate()
    assert done == set(growing.upstreams), "nothing waits for ever"
    counters = growing.counters()
    state.relink(growing.downstream())
    assert growing.counters() == counters, "it grew to what the record says"


@given(st.data())
def test_dropped_tasks_leave_nothing_behind(data):
    growing = Growing(data.draw)
    state = growing.state
    expansion = next((task for task in state.tasks.values() if task.is_expansion and task.all_upstreams_done), None)
    if expansion is None:
        return
    before = growing.counters()
    known = set(state.tasks)
    growing.grow(expansion)
    state.drop(task_id for task_id, origin_id in growing.origins.items() if origin_id == expansion.task_id)
    state.validate()
    assert set(state.tasks) == known
    assert growing.counters() == before
