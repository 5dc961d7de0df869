"""Gateway, builder and run over real HTTP."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from jobmon.client.swarm import WorkflowRunConfig, resume_workflow_run, run_workflow
from jobmon.client.swarm.builder import SwarmBuilder
from jobmon.client.swarm.gateway import DownstreamTasksResponse, ServerGateway, StatusUpdateResponse, WorkflowMetadata
from jobmon.client.task_resources import TaskResources
from jobmon.core.cluster_protocol import ClusterQueue
from jobmon.core.constants import DEFAULT_CLUSTER_NAME, TaskInstanceStatus, TaskStatus, WorkflowRunStatus
from jobmon.core.exceptions import StaleRun, WorkflowNotResumable, WorkflowRunStateError
from jobmon.core.wire.swarm import QueueBatch
from jobmon.testing.swarm_gateway import FakeTask

Z = TaskInstanceStatus.RESOURCE_ERROR
SOON = 0.02


def chain(length, **kwargs):
    return [
        FakeTask(n, upstreams=frozenset({n - 1} if n > 1 else ()), seconds=SOON, **kwargs) for n in range(1, length + 1)
    ]


class Definition:
    """A bound task as the builder reads it."""

    def __init__(self, fake, array, resources):
        self.task_id, self.array, self.task_resources = fake.task_id, array, resources
        self.initial_status, self.max_attempts = fake.status, fake.max_attempts
        self.resource_scales, self.fallback_queues, self.compute_resources_callable = {}, [], None
        self.cluster_name = DEFAULT_CLUSTER_NAME
        self.options = None
        self.upstream_tasks = set()


def workflow_of(server):
    queue = ClusterQueue(1, "small", {})
    resources = TaskResources({"cores": 1}, queue, DEFAULT_CLUSTER_NAME)
    resources.id = 50
    arrays = {
        f"a{n}": SimpleNamespace(array_id=n, name=f"a{n}", max_concurrently_running=limit)
        for n, limit in server.fake.array_limits.items()
    }
    tasks = {n: Definition(fake, arrays[f"a{fake.array_id}"], resources) for n, fake in server.fake.tasks.items()}
    for n, task in tasks.items():
        task.upstream_tasks = {tasks[before] for before in server.fake.tasks[n].upstreams}
    return SimpleNamespace(
        workflow_id=1, dag_id=5, max_concurrently_running=server.fake.limit, arrays=arrays, tasks=tasks
    )


def wait_until(condition, seconds=10.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def alive():
    return True


# --- gateway ----------------------------------------------------------------------------------------------------------


async def test_the_gateway_opens_and_closes_its_own_session(serve):
    _server, requester = serve(chain(2))
    async with ServerGateway(requester, 1, 10) as gateway:
        assert (await gateway.log_heartbeat("B", 30.0)).status == "B"
        session = gateway._session
    assert session.closed


async def test_a_session_from_outside_is_not_closed(serve):
    server, requester = serve(chain(2))
    async with requester.open_session() as session:
        gateway = ServerGateway(requester, 1, 10)
        gateway.set_session(session)
        assert await gateway.get_workflow_concurrency() == server.fake.limit
        await gateway.close()
        assert not session.closed


async def test_every_question_gets_its_answer(serve):
    server, requester = serve(chain(3), array_limits={1: 4})
    async with ServerGateway(requester, 1, 10) as gateway:
        assert await gateway.get_array_concurrency(1) == 4
        assert await gateway.get_workflow_metadata() == WorkflowMetadata(1, 5, server.fake.limit)
        assert await gateway.update_status(WorkflowRunStatus.INSTANTIATED) == StatusUpdateResponse("I")
        updates = await gateway.get_task_status_updates()
        assert updates.tasks_by_status == {"G": [1, 2, 3]}
        assert abs(await gateway.get_server_time() - datetime.now(UTC)) < timedelta(minutes=1)
        assert (await gateway.get_task_status_updates(updates.time, 0.01)).tasks_by_status == {}
        tasks = await gateway.get_tasks(max_task_id=1)
        assert (list(tasks), tasks[2].name, tasks[2].resources.queue_name) == ([2, 3], "t2", "small")
        downstream = await gateway.get_downstream_tasks([1, 3], 5)
        assert downstream == DownstreamTasksResponse({1: (1001, [2]), 3: (1003, [])})
        assert (await gateway.queue_task_batch(1, [1], 50, 7)).tasks_by_status == {"Q": [1]}
        await gateway.request_triage()
        await gateway.terminate_task_instances()


async def test_binding_requests_gives_them_their_ids(serve):
    _, requester = serve(chain(1))
    requests = [TaskResources({"cores": n}, ClusterQueue(1, "small", {}), DEFAULT_CLUSTER_NAME) for n in (1, 2)]
    async with ServerGateway(requester, 1, 10) as gateway:
        assert await gateway.bind_task_resources(requests) == [100, 101]
    assert [each.id for each in requests] == [100, 101]


async def test_a_refusal_is_the_error_that_it_names(serve):
    server, requester = serve(chain(1))
    server.fake.is_stale = True
    async with ServerGateway(requester, 1, 10) as gateway:
        with pytest.raises(StaleRun):
            await gateway.queue_task_batches([QueueBatch(array_id=1, task_ids=[1], task_resources_id=50, cluster_id=7)])


async def test_a_server_that_is_busy_is_asked_again(serve):
    server, requester = serve(chain(1))
    server.is_failing = True
    async with ServerGateway(requester, 1, 10) as gateway:
        assert (await gateway.log_heartbeat("B", 30.0)).status == "B"
    assert server.calls == ["heartbeat", "heartbeat"]


async def test_no_such_workflow_is_a_value_error(serve):
    _, requester = serve(chain(1))
    async with ServerGateway(requester, 404, 10) as gateway:
        with pytest.raises(ValueError, match="There is no workflow with ID 404"):
            await gateway.get_workflow_metadata()


def test_the_sync_methods(serve):
    _server, requester = serve(chain(2))
    gateway = ServerGateway(requester, 1, 10)
    assert gateway.log_heartbeat_sync("B", 30.0).status == "B"
    assert gateway.update_status_sync("I").status == "I"
    assert abs(gateway.get_server_time_sync() - datetime.now(UTC)) < timedelta(minutes=1)
    assert gateway.get_cursor_sync().time == gateway.get_task_status_updates_sync().time


# --- builder ----------------------------------------------------------------------------------------------------------


class StepClock:
    """Every look at it takes ten seconds."""

    seconds = 0.0

    def monotonic(self):
        self.seconds += 10
        return self.seconds


def test_building_from_a_workflow_in_memory(serve):
    server, requester = serve([*chain(3), FakeTask(4, array_id=2, upstreams=frozenset({1, 2, 3}))], limit=9)
    server.fake.tasks[1].status = TaskStatus.DONE
    builder = SwarmBuilder(requester, 10)
    assert (builder.state, builder.last_sync, builder.task_status_map) == (None, None, {})
    builder.build_from_workflow(workflow_of(server))
    state = builder.state
    assert (state.workflow_id, state.workflow_run_id, state.dag_id, state.max_concurrently_running) == (1, 10, 5, 9)
    assert {n: task.num_upstreams for n, task in state.tasks.items()} == {1: 0, 2: 1, 3: 1, 4: 3}
    assert {n: sorted(t.task_id for t in task.downstream_tasks) for n, task in state.tasks.items()} == {
        1: [2, 4],
        2: [3, 4],
        3: [4],
        4: [],
    }
    assert builder.task_status_map["D"] == {state.tasks[1]}
    assert state.tasks[1].task_resources.cluster_id == 7
    assert builder.last_sync is not None
    state.validate()


def test_what_was_in_flight_at_the_build_is_asked_for_in_full(serve):
    server, requester = serve(chain(2))
    server.fake.tasks[1].status = TaskStatus.RUNNING
    builder = SwarmBuilder(requester, 10)
    builder.build_from_workflow(workflow_of(server))
    assert builder.last_sync is None


def test_a_workflow_that_is_not_bound_is_refused(serve):
    _, requester = serve(chain(1))
    with pytest.raises(WorkflowRunStateError, match="bound"):
        SwarmBuilder(requester, 10).build_from_workflow(SimpleNamespace(workflow_id=None, dag_id=None))


def test_building_from_the_database(serve):
    server, requester = serve([*chain(4), FakeTask(5, upstreams=frozenset({1, 4}))])
    server.fake.tasks[1].status = server.fake.tasks[2].status = TaskStatus.DONE
    server.scales = {3: {"memory": [1, 2]}}
    server.fallback_queues = {3: ["large"]}
    builder = SwarmBuilder(requester, 10, heartbeat_interval=15, clock=StepClock())
    builder.build_from_workflow_id(1, edge_chunk_size=2)
    state = builder.state
    assert sorted(state.tasks) == [3, 4, 5]
    assert (state.previously_done, state.total_tasks) == (frozenset({1, 2}), 5)
    assert {n: task.num_upstreams for n, task in state.tasks.items()} == {3: 0, 4: 1, 5: 1}
    three = state.tasks[3]
    assert (three.resource_scales, [queue.queue_name for queue in three.fallback_queues]) == (
        {"memory": [1, 2]},
        ["large"],
    )
    assert (three.task_resources.id, three.task_resources.cluster_id) == (50, 7)
    assert three.task_resources is state.tasks[4].task_resources
    assert builder.last_sync is not None
    assert server.calls.count("downstream") == 2
    assert server.calls.count("heartbeat") >= 2
    state.validate()


def test_what_needs_a_python_function_cannot_be_rebuilt(serve):
    server, requester = serve(chain(2))
    server.scales = {2: {"memory": None}}
    with pytest.raises(WorkflowNotResumable, match=r"'t2'.*scale of 'memory'.*script"):
        SwarmBuilder(requester, 10).build_from_workflow_id(1)
    server.scales, server.unbound = {}, {1}
    with pytest.raises(WorkflowNotResumable, match=r"'t1'.*compute_resources_callable"):
        SwarmBuilder(requester, 10).build_from_workflow_id(1)


# --- run --------------------------------------------------------------------------------------------------------------


def test_a_workflow_runs_to_its_end(serve):
    server, requester = serve(chain(10))
    seen = []
    result = run_workflow(workflow_of(server), 10, alive, requester=requester, on_change=seen.append)
    assert (result.final_status, result.done_count, result.error) == (WorkflowRunStatus.DONE, 10, None)
    assert server.fake.breaches == []
    assert seen
    assert result.elapsed_time < 10 * SOON + 5


def test_a_run_is_resumed_from_the_database(serve):
    server, requester = serve(chain(6))
    server.fake.tasks[1].status = TaskStatus.DONE
    server.fake.tasks[3].outcomes = [Z]
    result = resume_workflow_run(1, 10, alive, requester=requester, config=WorkflowRunConfig(heartbeat_interval=1))
    assert (result.final_status, result.total_tasks, result.num_previously_complete) == (WorkflowRunStatus.DONE, 6, 1)
    assert server.fake.tasks[3].requests == [50, 100]
    assert server.fake.breaches == []


async def test_it_works_inside_a_running_loop(serve):
    server, requester = serve(chain(2))
    result = run_workflow(workflow_of(server), 10, alive, requester=requester)
    assert result.final_status == WorkflowRunStatus.DONE


def test_it_works_off_the_main_thread(serve):
    server, requester = serve(chain(2))
    results = []
    thread = threading.Thread(
        target=lambda: results.append(run_workflow(workflow_of(server), 10, alive, requester=requester))
    )
    thread.start()
    thread.join(20)
    assert results[0].final_status == WorkflowRunStatus.DONE


def interrupt_when(condition):
    def watch():
        wait_until(condition)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_an_interrupt_stops_the_run_and_ends_its_attempts(serve):
    server, requester = serve([FakeTask(1, seconds=1_000)])
    watcher = interrupt_when(lambda: server.fake.count(TaskStatus.QUEUED))
    result = run_workflow(workflow_of(server), 10, alive, requester=requester)
    watcher.join()
    assert isinstance(result.error, KeyboardInterrupt)
    assert (result.final_status, server.fake.status) == (WorkflowRunStatus.STOPPED, WorkflowRunStatus.STOPPED)
    assert server.fake.count(TaskStatus.REGISTERING) == 1


def test_an_interrupt_that_was_not_meant_changes_nothing(serve):
    server, requester = serve([FakeTask(1, seconds=1_000)])
    asked = []

    def confirm():
        asked.append(True)
        server.do(server.fake._move, server.fake.tasks[1], TaskStatus.DONE)
        return False

    watcher = interrupt_when(lambda: server.fake.count(TaskStatus.QUEUED))
    result = run_workflow(workflow_of(server), 10, alive, requester=requester, confirm_interrupt=confirm)
    watcher.join()
    assert (result.final_status, result.error, asked) == (WorkflowRunStatus.DONE, None, [True])


def test_what_cannot_be_started_raises(serve):
    server, requester = serve(chain(1), status=WorkflowRunStatus.DONE)
    with pytest.raises(WorkflowRunStateError):
        run_workflow(workflow_of(server), 10, alive, status="D", requester=requester)


def test_the_timeout_is_in_the_result(serve):
    server, requester = serve([FakeTask(1, seconds=1_000)])
    result = run_workflow(workflow_of(server), 10, alive, timeout=0.5, requester=requester)
    assert isinstance(result.error, RuntimeError)
    assert not isinstance(result.error, asyncio.TimeoutError)
    assert server.fake.status == WorkflowRunStatus.ERROR
