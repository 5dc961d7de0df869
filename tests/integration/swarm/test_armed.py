"""The orchestrator arms tasks, on virtual time against the small server of `jobmon.testing.swarm_gateway`."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from swarm_world import chain, resources, run, state_of

from jobmon.core.constants import TaskInstanceStatus, TaskStatus, WorkflowRunStatus
from jobmon.testing.swarm_gateway import FakeSwarmGateway, FakeTask

ERROR, Z = TaskInstanceStatus.ERROR, TaskInstanceStatus.RESOURCE_ERROR


def run_armed(server, script=None, **config):
    """Run with one request for resources that all tasks share, as builders make it."""
    shared = resources()
    return run(server, script, state=state_of(server, lambda: shared), **config)


def talk(server):
    """Return the number of requests of the scheduler and the synchronizer."""
    return server.requests["queue"] + server.requests["changes"] + server.requests["full"]


def test_a_chain_needs_few_requests():
    server = FakeSwarmGateway(chain(300, seconds=0.01))
    result = run_armed(server)
    assert (result.final_status, result.done_count) == (WorkflowRunStatus.DONE, 300)
    assert server.requests["queue"] <= 4
    assert talk(server) <= 300 * 0.5
    assert result.elapsed_time == pytest.approx(3.0, abs=0.2)


def test_a_chain_whose_server_forgets_runs_as_without():
    server = FakeSwarmGateway(chain(50))
    server.is_forgetful = True
    result = run_armed(server)
    assert result.done_count == 50
    assert result.elapsed_time == pytest.approx(50.0, abs=0.5)


def test_a_chain_under_a_limit_of_one_keeps_it():
    server = FakeSwarmGateway(chain(20), limit=1)
    assert run_armed(server).done_count == 20
    assert server.in_flight_max == 1
    assert not any(server.armed)


def test_a_retry_takes_the_capacity_of_an_armed_task():
    """The chain has armed up to the limit when the other task has to be retried."""
    server = FakeSwarmGateway([*chain(30, seconds=2), FakeTask(31, outcomes=[ERROR, ERROR], seconds=3)], limit=3)
    result = run_armed(server)
    assert result.done_count == 31
    assert result.elapsed_time == pytest.approx(60, abs=1)


def test_capacity_is_reused_only_after_the_server_has_disarmed():
    """Requests to queue take a while; what is armed may be queued by the server meanwhile."""
    long = chain(6, seconds=1.3)
    first = FakeTask(10, seconds=1.0)
    fan = [FakeTask(n, upstreams=frozenset({10}), seconds=0.7 + n % 7 / 10) for n in range(11, 41)]
    server = FakeSwarmGateway([*long, first, *fan], limit=4)
    queue_task_batches = server.queue_task_batches
    disarmed = []

    async def slow(batches, seen=None, armed=(), disarm=(), *rest):
        disarmed.extend(disarm)
        await asyncio.sleep(0.4)
        return await queue_task_batches(batches, seen, armed, disarm, *rest)

    server.queue_task_batches = slow
    assert run_armed(server).done_count == 37
    assert disarmed
    assert server.in_flight_max == 4


def test_nothing_is_armed_under_a_limit_of_executions():
    server = FakeSwarmGateway(chain(5))
    arms = []
    answer = server.queue_task_batches

    async def watched(batches, seen=None, armed=(), *rest):
        arms.extend(armed)
        return await answer(batches, seen, armed, *rest)

    server.queue_task_batches = watched
    run_armed(server, fail_after_n_executions=3)
    assert arms == []


def test_a_lost_set_in_the_middle_of_a_run_is_noticed():
    server = FakeSwarmGateway(chain(60))

    async def lose(running):
        for _ in range(5):
            await asyncio.sleep(9.5)
            server.armed.clear()

    result = run_armed(server, lose)
    assert result.done_count == 60
    assert result.elapsed_time == pytest.approx(60, abs=1)


@st.composite
def workflows(draw):
    count = draw(st.integers(2, 20))
    return [
        FakeTask(
            number,
            array_id=draw(st.integers(1, 2)),
            upstreams=frozenset(draw(st.sets(st.integers(1, number - 1), max_size=3)) if number > 1 else ()),
            outcomes=draw(st.lists(st.sampled_from([ERROR, ERROR, Z]), max_size=2)),
            seconds=draw(st.sampled_from([0.01, 0.3, 1.0, 7.0])),
            max_attempts=draw(st.sampled_from([1, 3, 3])),
        )
        for number in range(1, count + 1)
    ]


@settings(max_examples=40)
@given(workflows(), st.integers(1, 6), st.integers(1, 4), st.lists(st.tuples(st.floats(0.05, 5), st.integers(0, 2))))
def test_order_and_limits_hold_whatever_happens_to_the_armed_tasks(tasks, limit, array_limit, events):
    """Attempts fail, the server forgets, limits rise and fall: nothing runs too early, twice, or beyond a limit."""
    server = FakeSwarmGateway(tasks, {1: array_limit}, limit)

    async def disturb(running):
        for pause, what in events:
            await asyncio.sleep(pause)
            if what == 0:
                server.armed.clear()
            elif what == 1:
                server.is_forgetful = not server.is_forgetful
            elif server.limit < 20:
                server.set_limit(server.limit + 1)

    result = run_armed(server, disturb)
    failed = {task.task_id for task in tasks if task.status is TaskStatus.ERROR_FATAL}
    stuck = set(failed)
    for task in tasks:
        if task.upstreams & stuck:
            stuck.add(task.task_id)
    assert result.done_task_ids == {task.task_id for task in tasks} - stuck
    assert all(server.tasks[each].attempts == 0 for each in stuck - failed)
