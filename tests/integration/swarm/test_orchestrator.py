"""The orchestrator on virtual time against the small server of `jobmon.testing.swarm_gateway`."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path

import numpy
import pytest
from swarm_world import chain, independent, resources, run, state_of

from jobmon.client.swarm.orchestrator import OrchestratorConfig, WorkflowRunOrchestrator
from jobmon.client.swarm.state import StateUpdate
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING, Cause, TaskInstanceStatus, TaskStatus, WorkflowRunStatus
from jobmon.core.exceptions import (
    CallableReturnedInvalidObject,
    DistributorNotAlive,
    ServerUnavailable,
    StaleRun,
    WorkflowRunStateError,
    WorkflowTestError,
)
from jobmon.core.wire.swarm import ResourceError
from jobmon.testing.swarm_gateway import FakeSwarmGateway, FakeTask
from jobmon.testing.virtual_time import run_virtual

ERROR = TaskInstanceStatus.ERROR
Z = TaskInstanceStatus.RESOURCE_ERROR
D, F, G = TaskStatus.DONE, TaskStatus.ERROR_FATAL, TaskStatus.REGISTERING


def test_a_chain_runs_in_order_and_as_fast_as_its_tasks():
    server = FakeSwarmGateway(chain(20))
    result = run(server)
    assert (result.final_status, result.error) == (WorkflowRunStatus.DONE, None)
    assert (result.total_tasks, result.done_count, result.failed_count) == (20, 20, 0)
    assert result.task_final_statuses == dict.fromkeys(range(1, 21), D)
    assert result.done_task_ids == frozenset(range(1, 21))
    assert result.elapsed_time == pytest.approx(20.0, abs=0.1)
    assert "".join(server.statuses) == "BIORD"


def test_a_fan_in_waits_for_all_and_is_queued_once():
    tasks = [*independent(50), FakeTask(51, upstreams=frozenset(range(1, 51)))]
    server = FakeSwarmGateway(tasks)
    result = run(server)
    assert result.done_count == 51
    assert [len(batch.task_ids) for batch in server.queued_batches] == [50, 1]


def test_tasks_done_before_the_run_only_count():
    tasks = chain(3)
    tasks[0].status = D
    server = FakeSwarmGateway(tasks)
    state = state_of(server)
    state.previously_done = frozenset({100, 101})
    result = run(server, state=state)
    assert (result.num_previously_complete, result.done_count, result.total_tasks) == (3, 5, 5)
    assert result.task_final_statuses[100] == D


def test_a_run_with_nothing_left_to_do_is_done():
    tasks = independent(2)
    for task in tasks:
        task.status = D
    server = FakeSwarmGateway(tasks)
    result = run(server)
    assert (result.final_status, result.num_previously_complete) == (WorkflowRunStatus.DONE, 2)
    assert "".join(server.statuses) == "BIORD"


def test_a_failed_attempt_is_tried_again():
    server = FakeSwarmGateway([FakeTask(1, outcomes=[ERROR, ERROR]), FakeTask(2, upstreams=frozenset({1}))])
    result = run(server)
    assert result.final_status == WorkflowRunStatus.DONE
    assert server.tasks[1].attempts == 3


def test_a_task_that_fails_for_good_stops_only_its_downstream():
    tasks = [*chain(3), FakeTask(4), FakeTask(5, upstreams=frozenset({4}))]
    tasks[0].outcomes = [ERROR] * 3
    result = run(FakeSwarmGateway(tasks))
    assert (result.final_status, result.error) == (WorkflowRunStatus.ERROR, None)
    assert result.task_final_statuses == {1: F, 2: G, 3: G, 4: D, 5: D}
    assert (result.failed_task_ids, result.failed_count) == (frozenset({1}), 1)


def test_failing_fast_launches_nothing_more_and_lets_running_ones_finish():
    tasks = [FakeTask(1, outcomes=[TaskInstanceStatus.ERROR_FATAL]), FakeTask(2, seconds=5), *independent(9)[2:]]
    server = FakeSwarmGateway(tasks, limit=2)
    result = run(server, fail_fast=True)
    assert result.final_status == WorkflowRunStatus.ERROR
    assert (result.done_task_ids, result.failed_task_ids) == (frozenset({2}), frozenset({1}))
    assert result.elapsed_time == pytest.approx(5.0, abs=0.1)


def test_a_resource_error_raises_the_request_each_time():
    server = FakeSwarmGateway([FakeTask(1, outcomes=[Z, Z])])
    state = state_of(server, lambda: resources(memory=1), resource_scales={"memory": 0.5})
    result = run(server, state=state)
    assert result.final_status == WorkflowRunStatus.DONE
    assert len(set(server.tasks[1].requests)) == 3
    assert state.tasks[1].task_resources.requested_resources["memory"] == pytest.approx(2.25)


def test_equal_requests_are_bound_once_and_queued_together():
    server = FakeSwarmGateway(independent(100))
    run(server)
    assert len(server.queued_batches) == 1
    assert server.requests["bind"] == 1


def test_the_callable_for_resources_is_called_once_when_upstreams_are_done(caplog):
    calls = []
    server = FakeSwarmGateway([FakeTask(1), FakeTask(2, upstreams=frozenset({1}), outcomes=[ERROR])])
    state = state_of(server)
    task = state.tasks[2]

    def ask():
        calls.append(server.tasks[1].status)
        return {"memory": "100G", "cores": 2}

    task.compute_resources_callable = ask
    result = run(server, state=state)
    assert result.final_status == WorkflowRunStatus.DONE
    assert calls == [D]
    assert "Task 2 is adjusted to the limits of its queue: memory 100 GiB is above the maximum of 4 GiB" in caplog.text
    assert task.task_resources.requested_resources == {"cores": 2, "memory": 4.0}


def test_a_callable_may_return_numbers_of_numpy_and_paths():
    server = FakeSwarmGateway([FakeTask(1)])
    returned = {"cores": numpy.int64(2), "memory": numpy.float32(1.5), "stdout": Path("out.log")}
    state = state_of(server, None, compute_resources_callable=lambda: returned)
    task = state.tasks[1]
    assert run(server, state=state).final_status == WorkflowRunStatus.DONE
    requested = {"cores": 2, "memory": 1.5, "stdout": str(Path.cwd() / "out.log")}
    assert {key: task.task_resources.requested_resources[key] for key in requested} == requested


def test_a_callable_that_returns_no_dict_ends_the_run():
    server = FakeSwarmGateway([FakeTask(1)])
    state = state_of(server, None, compute_resources_callable=lambda: "much")
    result = run(server, state=state)
    assert isinstance(result.error, CallableReturnedInvalidObject)
    assert (result.final_status, server.status) == (WorkflowRunStatus.ERROR, WorkflowRunStatus.ERROR)


def _raise():
    raise KeyError("no such file")


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (lambda: None, "must return a dict of resources, but it returned None"),
        (_raise, "raised KeyError: 'no such file'"),
        (lambda: {"memory": "8GG"}, r"returned {'memory': '8GG'}: .*'GG'"),
        (lambda: {"cores": 0}, "returned {'cores': 0}: Cores 0 must be"),
        (lambda: {"memroy": 1}, r"Unknown resource 'memroy'; did you mean 'memory'\?.*queue 'all.q'"),
        (lambda: {"memory": "auto"}, "'auto' cannot be read"),
        (
            lambda: {"memory": "300G"},
            "returned {'memory': '300G'}: no queue .* 'all.q': memory.* 'big.q': memory 300",
        ),
    ],
)
def test_what_a_callable_does_wrong_is_told_before_anything_is_submitted(callback, said):
    server = FakeSwarmGateway([FakeTask(1), FakeTask(2)])
    state = state_of(server, None)
    for task in state.tasks.values():
        task.task_resources = resources()
    state.tasks[2].compute_resources_callable = callback
    result = run(server, state=state)
    assert isinstance(result.error, ValueError)
    assert re.search(rf"compute_resources_callable of task 2 {said}|task 2 .*{said}", str(result.error)), result.error
    assert server.queued_batches == []


def test_the_orchestrator_raises_what_the_server_says_was_missing():
    server = FakeSwarmGateway([FakeTask(1, outcomes=[Z, Z])])
    server.resource_error = ResourceError(cause=Cause.OUT_OF_MEMORY, max_rss_bytes=2 * 1024**3)
    state = state_of(server, lambda: resources(memory=1, runtime=60))
    result = run(server, state=state)
    assert result.final_status == WorkflowRunStatus.DONE
    assert state.tasks[1].task_resources.requested_resources == {"memory": pytest.approx(3.6), "runtime": 60}
    assert state.resource_errors == {}


def test_the_timeout_is_an_error_and_submitted_tasks_go_on():
    server = FakeSwarmGateway(independent(1, seconds=1_000))
    result = run(server, timeout=100)
    assert isinstance(result.error, RuntimeError)
    assert "100 s" in str(result.error)
    assert (result.final_status, server.status) == (WorkflowRunStatus.ERROR, WorkflowRunStatus.ERROR)
    assert result.elapsed_time == pytest.approx(100, abs=0.1)
    assert server.requests["terminate"] == 0


def test_ten_hours_of_waiting_cost_little():
    server = FakeSwarmGateway(independent(1, seconds=35_000))
    result = run(server, wedged_workflow_sync_interval=600)
    assert result.final_status == WorkflowRunStatus.DONE
    assert server.requests["heartbeat"] == pytest.approx(35_000 / 30, abs=2)
    assert server.requests["changes"] < 1.1 * 35_000 / 30 + 100
    assert server.requests["full"] == pytest.approx(35_000 / 600, abs=2)
    assert 0 < server.requests["triage"] <= 35_000 / 120


def test_a_dead_distributor_ends_the_run_within_seconds():
    server = FakeSwarmGateway(independent(1, seconds=1_000))
    died = []

    async def script(_):
        await asyncio.sleep(10)
        died.append(True)

    result = run(server, script, alive=lambda: not died)
    assert isinstance(result.error, DistributorNotAlive)
    assert result.elapsed_time == pytest.approx(11, abs=1.1)
    assert result.final_status == WorkflowRunStatus.ERROR


def test_a_hot_resume_ends_the_run_at_once():
    server = FakeSwarmGateway(independent(3, seconds=100))

    async def script(_):
        await asyncio.sleep(10)
        server.set_status(WorkflowRunStatus.HOT_RESUME)

    result = run(server, script)
    assert (result.final_status, result.error) == (WorkflowRunStatus.TERMINATED, None)
    assert result.elapsed_time == pytest.approx(10, abs=0.5)
    assert server.status == WorkflowRunStatus.TERMINATED


def test_a_cold_resume_waits_until_its_attempts_are_ended():
    server = FakeSwarmGateway(independent(3, seconds=1_000), limit=2)

    async def script(_):
        await asyncio.sleep(10)
        server.set_status(WorkflowRunStatus.COLD_RESUME)
        await asyncio.sleep(20)
        server.end_all()

    result = run(server, script)
    assert (result.final_status, result.error) == (WorkflowRunStatus.TERMINATED, None)
    assert result.elapsed_time == pytest.approx(30, abs=0.5)
    assert sum(len(batch.task_ids) for batch in server.queued_batches) == 2


def test_a_cold_resume_whose_attempts_never_end_lets_them_go():
    server = FakeSwarmGateway(independent(1, seconds=10_000))

    async def script(_):
        await asyncio.sleep(10)
        server.set_status(WorkflowRunStatus.COLD_RESUME)

    result = run(server, script)
    assert result.final_status == WorkflowRunStatus.TERMINATED
    assert result.elapsed_time == pytest.approx(310, abs=1)


def test_a_heartbeat_brings_the_signal_when_the_feed_does_not():
    server = FakeSwarmGateway(independent(1, seconds=1_000))

    async def silent(since=None, wait_seconds=None):
        await asyncio.sleep(10_000)

    async def script(_):
        await asyncio.sleep(5)
        server.get_task_status_updates = silent
        await asyncio.sleep(1)
        server.status = WorkflowRunStatus.HOT_RESUME

    result = run(server, script, heartbeat_interval=7.0)
    assert result.final_status == WorkflowRunStatus.TERMINATED
    assert result.elapsed_time <= 40


def test_a_run_that_was_replaced_stops_queueing():
    server = FakeSwarmGateway(chain(3))

    async def script(_):
        await asyncio.sleep(0.6)
        server.is_stale = True

    result = run(server, script)
    assert isinstance(result.error, StaleRun)
    assert result.final_status == WorkflowRunStatus.ERROR


def test_a_run_that_the_user_stopped_elsewhere_ends_as_stopped():
    server = FakeSwarmGateway(independent(1, seconds=100))

    async def script(_):
        await asyncio.sleep(5)
        server.set_status(WorkflowRunStatus.STOPPED)

    result = run(server, script)
    assert (result.final_status, result.error) == (WorkflowRunStatus.STOPPED, None)


def test_a_run_that_the_reaper_closed_says_so():
    server = FakeSwarmGateway(independent(1, seconds=100))

    async def script(_):
        await asyncio.sleep(5)
        server.set_status(WorkflowRunStatus.ERROR)

    result = run(server, script, heartbeat_interval=30.0, heartbeat_report_by_buffer=3.0)
    assert result.final_status == WorkflowRunStatus.ERROR
    assert isinstance(result.error, WorkflowRunStateError)
    assert "reaper closed run 10 as ERROR" in str(result.error)
    assert "more than 90 s" in str(result.error)


@pytest.mark.parametrize("status", [WorkflowRunStatus.ERROR, WorkflowRunStatus.ABORTED])
def test_a_run_that_the_reaper_closed_is_done_where_all_tasks_are(status):
    """The client was stopped for longer than its heartbeat interval, and its tasks continued."""
    server = FakeSwarmGateway(independent(3, seconds=10))
    server.silent = {1, 2, 3}

    async def script(_):
        await asyncio.sleep(15)
        assert server.count(D) == 3
        server.set_status(status)

    result = run(server, script)
    assert (result.final_status, result.error, result.done_count) == (WorkflowRunStatus.DONE, None, 3)
    assert server.statuses[-1] is status


def test_an_interrupt_ends_the_attempts_and_stops_the_run():
    server = FakeSwarmGateway(independent(3, seconds=1_000))

    async def script(running):
        await asyncio.sleep(10)
        running.cancel()

    result = run(server, script)
    assert isinstance(result.error, asyncio.CancelledError)
    assert (result.final_status, server.status) == (WorkflowRunStatus.STOPPED, WorkflowRunStatus.STOPPED)
    assert server.requests["terminate"] == 1
    assert server.count(G) == 3
    assert result.elapsed_time == pytest.approx(11, abs=0.5)


def test_a_second_interrupt_ends_the_waiting():
    server = FakeSwarmGateway(independent(1, seconds=1_000))

    async def never_ends():
        server.requests["terminate"] += 1

    async def script(running):
        server.terminate_task_instances = never_ends
        await asyncio.sleep(10)
        running.cancel()
        await asyncio.sleep(5)
        running.cancel()

    result = run(server, script)
    assert (result.final_status, server.status) == (WorkflowRunStatus.STOPPED, WorkflowRunStatus.STOPPED)
    assert result.elapsed_time == pytest.approx(15, abs=0.5)


def test_an_interrupt_while_attempts_never_end_is_bounded():
    server = FakeSwarmGateway(independent(1, seconds=1_000_000))

    async def hangs():
        await asyncio.sleep(1_000_000)

    async def script(running):
        server.terminate_task_instances = hangs
        await asyncio.sleep(10)
        running.cancel()

    result = run(server, script)
    assert result.final_status == WorkflowRunStatus.STOPPED
    assert result.elapsed_time < 200


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ServerUnavailable("The disk is full."), "The disk is full."),
        (ConnectionRefusedError(111, "Connection refused"), "the server does not respond (Connection refused)"),
        (None, "the server does not respond"),
    ],
)
@pytest.mark.parametrize(("interrupts", "seconds"), [(1, 12), (2, 4)])
def test_a_server_that_answers_nothing_does_not_hold_up_an_interrupt(interrupts, seconds, failure, reason):
    server = FakeSwarmGateway(independent(1, seconds=1_000_000))

    async def deaf(*args, **kwargs):
        try:
            await asyncio.sleep(1_000_000)
        except asyncio.CancelledError as cancelled:  # as the requester tells why there was no answer
            raise cancelled from failure

    async def script(running):
        await asyncio.sleep(10)
        server.terminate_task_instances = server.update_status = server.get_task_status_updates = deaf
        for _ in range(interrupts):
            running.cancel()
            await asyncio.sleep(2)

    result = run(server, script)
    assert isinstance(result.error, asyncio.CancelledError)
    assert (server.status, result.unrecorded) == (WorkflowRunStatus.RUNNING, reason)
    assert result.elapsed_time - 10 <= seconds


def test_a_server_that_falls_silent_while_attempts_end_is_not_waited_for():
    server = FakeSwarmGateway(independent(1, seconds=1_000_000))

    async def silent(*args, **kwargs):
        await asyncio.sleep(1_000_000)

    async def told():
        server.get_task_status_updates = server.update_status = silent

    async def script(running):
        await asyncio.sleep(10)
        server.terminate_task_instances = told
        running.cancel()

    result = run(server, script)
    assert (server.status, result.unrecorded) == (WorkflowRunStatus.RUNNING, "the server does not respond")
    assert result.elapsed_time <= 31


def test_a_server_that_never_answers_the_last_word_does_not_hang_the_run():
    server = FakeSwarmGateway(independent(1))
    answer = server.update_status

    async def deaf(status):
        if status == WorkflowRunStatus.DONE:
            await asyncio.sleep(1_000_000)
        return await answer(status)

    server.update_status = deaf
    result = run(server)
    assert (result.final_status, result.done_count) == (WorkflowRunStatus.DONE, 1)
    assert result.elapsed_time < 100


def test_limits_of_workflow_and_arrays_are_held():
    tasks = [FakeTask(n, array_id=n % 3 + 1) for n in range(60)]
    server = FakeSwarmGateway(tasks, array_limits={1: 2, 2: 5}, limit=8)
    result = run(server)
    assert result.done_count == 60
    assert server.in_flight_max == 8


def test_a_paused_workflow_waits_and_goes_on():
    server = FakeSwarmGateway(independent(4), limit=0)

    async def script(_):
        await asyncio.sleep(1_000)
        server.set_limit(2)

    result = run(server, script)
    assert result.final_status == WorkflowRunStatus.DONE
    assert result.elapsed_time == pytest.approx(1_002, abs=0.5)
    assert server.in_flight_max == 2


def test_a_paused_array_waits_and_goes_on():
    server = FakeSwarmGateway(independent(4), array_limits={1: 0})

    async def script(_):
        await asyncio.sleep(100)
        server.set_array_limit(1, 4)

    result = run(server, script)
    assert result.elapsed_time == pytest.approx(101, abs=0.5)


def test_a_lowered_limit_kills_nothing():
    server = FakeSwarmGateway(independent(10, seconds=10), limit=4)
    server._check_limits = lambda: None

    async def script(_):
        await asyncio.sleep(1)
        server.set_limit(1)

    result = run(server, script)
    assert result.done_count == 10
    assert result.elapsed_time == pytest.approx(70, abs=1)


def test_a_change_that_the_feed_never_told_is_found_by_the_full_sync():
    server = FakeSwarmGateway(chain(2, seconds=10))
    server.silent = {1}
    result = run(server, wedged_workflow_sync_interval=50)
    assert result.final_status == WorkflowRunStatus.DONE
    assert 49 < result.elapsed_time < 70


def test_the_test_hook_fails_the_run_after_n_executions():
    tasks = chain(5)
    tasks[0].status = D
    server = FakeSwarmGateway(tasks)
    result = run(server, fail_after_n_executions=2)
    assert isinstance(result.error, WorkflowTestError)
    assert (result.final_status, result.done_count) == (WorkflowRunStatus.ERROR, 3)


def test_the_status_flow_starts_from_where_the_run_is():
    server = FakeSwarmGateway(independent(1), status=WorkflowRunStatus.LAUNCHED)
    run(server)
    assert "".join(server.statuses) == "ORD"


@pytest.mark.parametrize("status", [WorkflowRunStatus.DONE, WorkflowRunStatus.LINKING])
def test_only_a_bound_run_that_has_not_ended_can_be_run(status):
    server = FakeSwarmGateway(independent(1), status=status)
    orchestrator = WorkflowRunOrchestrator(state_of(server), server, OrchestratorConfig())
    with pytest.raises(WorkflowRunStateError, match=status.name):
        run_virtual(orchestrator.run(lambda: True))


def test_an_error_inside_is_in_the_result():
    server = FakeSwarmGateway(independent(1))

    async def broken(batches, *rest):
        raise ZeroDivisionError

    server.queue_task_batches = broken
    result = run(server)
    assert isinstance(result.error, ZeroDivisionError)
    assert (result.final_status, result.task_final_statuses) == (WorkflowRunStatus.ERROR, {1: G})


def test_a_heartbeat_that_fails_ends_the_run():
    server = FakeSwarmGateway(independent(1, seconds=100))

    async def broken(status, next_report_increment):
        raise ZeroDivisionError

    server.log_heartbeat = broken
    assert isinstance(run(server).error, ZeroDivisionError)


def test_what_the_server_will_not_queue_now_is_tried_again_after_news():
    server = FakeSwarmGateway(independent(2, seconds=3))
    answer = server.queue_task_batches
    refusals = []

    async def reluctant(batches, *rest):
        if not refusals:
            refusals.append(batches[0].task_ids.pop())
            response = await answer(batches)
            response.tasks_by_status.setdefault(G, []).append(refusals[0])
            return response
        return await answer(batches)

    server.queue_task_batches = reluctant
    result = run(server)
    assert (result.final_status, result.done_count) == (WorkflowRunStatus.DONE, 2)
    assert server.requests["queue"] == 2


def test_the_observer_sees_each_change_once_and_may_fail():
    seen = []

    def watch(state):
        seen.append(state.count_by_status()[D])
        if len(seen) == 6:
            raise ValueError("no terminal")

    server = FakeSwarmGateway(chain(5))
    result = run(server, on_change=watch)
    assert result.final_status == WorkflowRunStatus.DONE
    assert len(seen) == 6
    assert seen == sorted(seen)


def test_thousands_of_tasks_go_in_requests_of_bounded_size():
    server = FakeSwarmGateway(independent(25_000, seconds=50), limit=MAX_CONCURRENTLY_RUNNING)
    result = run(server)
    assert result.done_count == 25_000
    assert [len(batch.task_ids) for batch in server.queued_batches] == [10_000, 10_000, 5_000]


def test_that_nothing_can_be_launched_is_said_once_and_that_it_can_again(caplog):
    server = FakeSwarmGateway([FakeTask(1)])
    orchestrator = WorkflowRunOrchestrator(state_of(server), server, OrchestratorConfig())
    for problems in ({"here": "no room."}, {"here": "no room, still"}, None, {}, {}):
        orchestrator._take_in(StateUpdate(launch_problems=problems))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "Tasks are waiting for cluster here, and are not charged: no room. See: jobmon workflow explain 1",
        "Tasks are launched on cluster here again.",
    ]


def test_held_tasks_wait_for_their_release_and_nothing_else_does():
    server = FakeSwarmGateway(independent(5))

    async def script(_):
        server.hold(2, 4)
        await asyncio.sleep(100.0)
        assert server.count(D) == 3
        server.hold(4)
        await asyncio.sleep(10.0)
        assert (server.tasks[2].status, server.tasks[4].status) == (D, G)
        server.hold()

    result = run(server, script)
    assert (result.final_status, result.done_count) == (WorkflowRunStatus.DONE, 5)
    assert server.requests["queue"] < 10


def test_a_client_that_does_not_know_of_a_hold_learns_it_from_the_answer():
    server = FakeSwarmGateway(chain(3))
    state = state_of(server)
    server.hold(2)
    state.last_sync = server._answer(-1).time

    async def script(_):
        await asyncio.sleep(50.0)
        assert server.count(D) == 1
        server.hold()

    result = run(server, script, state=state)
    assert result.done_count == 3
    assert server.tasks[2].attempts == 1


def test_a_run_with_a_failure_upstream_of_a_held_task_ends():
    server = FakeSwarmGateway([FakeTask(1, outcomes=[ERROR], max_attempts=1), FakeTask(2, upstreams=frozenset({1}))])
    server.hold(2)
    assert run(server).final_status == WorkflowRunStatus.ERROR


def test_a_done_task_is_rerun_with_everything_downstream_while_the_run_goes_on():
    server = FakeSwarmGateway(chain(5))

    async def script(_):
        await asyncio.sleep(3.6)
        assert server.tasks[3].status is D
        server.rerun(2)

    result = run(server, script)
    assert (result.final_status, result.done_count) == (WorkflowRunStatus.DONE, 5)
    assert [server.tasks[number].attempts for number in range(1, 6)] == [1, 2, 2, 2, 1]


@pytest.mark.parametrize("seed", range(40))
def test_reruns_and_holds_at_any_time_lose_nothing_and_start_nothing_too_early(seed):
    dice = random.Random(seed)
    tasks = [
        FakeTask(number, upstreams=frozenset(dice.sample(range(1, number), min(number - 1, dice.randrange(3)))))
        for number in range(1, 13)
    ]
    server = FakeSwarmGateway(tasks, limit=dice.choice([1, 2, 100]))

    async def script(running):
        for _ in range(6):
            await asyncio.sleep(dice.random() * 2)
            if running.done():
                return
            if dice.random() < 0.6:
                server.rerun(dice.randint(1, 12))
            else:
                server.hold(*dice.sample(range(1, 13), dice.randrange(4)))
        server.hold()

    result = run(server, script)
    if server.held:
        assert server.count(D) == 12
    assert (result.final_status, server.count(D)) == (WorkflowRunStatus.DONE, 12)


@pytest.mark.parametrize("seed", range(40))
def test_skips_and_priorities_at_any_time_lose_nothing_and_start_nothing_too_early(seed):
    dice = random.Random(f"skips {seed}")
    endings = [[], [], [TaskInstanceStatus.ERROR_FATAL], [TaskInstanceStatus.ERROR]]
    tasks = [
        FakeTask(
            number,
            upstreams=frozenset(dice.sample(range(1, number), min(number - 1, dice.randrange(3)))),
            outcomes=dice.choice(endings),
        )
        for number in range(1, 13)
    ]
    server = FakeSwarmGateway(tasks, limit=dice.choice([1, 2, 100]))

    async def script(running):
        while True:
            await asyncio.sleep(dice.random() * 2)
            if running.done():
                return
            match dice.randrange(3):
                case 0:
                    server.skip(dice.randint(1, 12))
                case 1:
                    server.prioritize({n: dice.randint(-3, 3) for n in dice.sample(range(1, 13), 4)})
                case 2:
                    server.skip(*(n for n, task in server.tasks.items() if task.status == F))

    result = run(server, script)
    skipped = {n for n, task in server.tasks.items() if task.status == TaskStatus.SKIPPED}
    assert result.skipped_task_ids == skipped
    if result.final_status == WorkflowRunStatus.DONE:
        assert server.count(D) + len(skipped) == 12
    else:
        assert (result.final_status, bool(result.failed_task_ids)) == (WorkflowRunStatus.ERROR, True)


def test_a_limited_run_queues_the_most_urgent_tasks_first():
    server = FakeSwarmGateway([FakeTask(number) for number in range(1, 7)], limit=1)
    server.prioritize({2: -1, 5: 3})

    async def script(_):
        await asyncio.sleep(0.1)
        server.prioritize({2: -1, 5: 3, 6: 9})

    assert run(server, script).final_status == WorkflowRunStatus.DONE
    order = [task_id for batch in server.queued_batches for task_id in batch.task_ids]
    assert order == [1, 6, 5, 3, 4, 2]


def test_a_rerun_of_what_the_run_does_not_know_ends_it_and_says_how_to_go_on():
    server = FakeSwarmGateway([FakeTask(1, status=D), FakeTask(2)])
    state = state_of(server)
    del state.tasks[1]
    state._buckets[D].clear()
    state.previously_done = frozenset({1})

    async def script(_):
        await asyncio.sleep(0.2)
        server.rerun(1)

    result = run(server, script, state=state)
    assert result.final_status == WorkflowRunStatus.ERROR
    assert "1 task done before this run began is to be rerun. To do so: jobmon workflow resume 1" in str(result.error)
