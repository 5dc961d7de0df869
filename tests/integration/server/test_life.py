"""A workflow from definition to done, the long polls, and everything that may be sent twice."""

import asyncio
import threading

import pytest
from server_world import CLUSTER, RUN, TI, Refused, edges_request, open_world, report, tasks_request, workflow_request
from tests.databases import change

from jobmon.core.constants import Cause, TaskStatus, WorkflowStatus
from jobmon.core.wire import replace
from jobmon.core.wire.binding import TasksResponse, WorkflowResponse
from jobmon.core.wire.definition import ClustersResponse, TemplateVersionsResponse, ToolRequest, ToolResponse
from jobmon.core.wire.launching import WorkerStartRequest, WorkerStartResponse
from jobmon.core.wire.monitoring import LogTail, TaskDetail, TaskSummariesResponse, WorkflowsResponse
from jobmon.core.wire.run import (
    ConcurrencyRequest,
    ConcurrencyResponse,
    HeartbeatRequest,
    RunStatusResponse,
    TaskAttributesRequest,
)
from jobmon.core.wire.swarm import (
    ArraysResponse,
    DownstreamRequest,
    DownstreamResponse,
    ErrorsResponse,
    QueueRequest,
    QueueResponse,
    TasksPage,
    WorkflowMetadata,
)
from jobmon.server.transaction import Audience

TASK = TaskStatus


async def test_a_workflow_from_definition_to_done(world):
    bound = await world.bound(3)
    run = await bound.start()
    registered = await run.register()
    assert [cluster.name for cluster in registered.clusters] == [CLUSTER]
    before = (await bound.changes()).time

    assert await run.queue() == {TASK.QUEUED: bound.task_ids}
    batch = await run.launched()
    assert batch.task_ids == bound.task_ids
    assert batch.commands == ["echo 0", "echo 1", "echo 2"]
    assert batch.attempts == [1, 1, 1]
    assert (batch.cluster_name, batch.queue_name, batch.requested_resources) == (CLUSTER, "q", {"cores": 1})

    answer = await run.sync(*(report(attempt, TI.DONE, exit_code=0) for attempt in batch.task_instance_ids))
    assert (answer.late, answer.refused) == ([], {})
    changes = await bound.changes(since=before.isoformat(), workflow_run_id=run.id)
    assert changes.tasks_by_status == {TASK.DONE: bound.task_ids}
    assert changes.workflow_run_status == RUN.RUNNING
    assert await run.move(RUN.DONE) == RUN.DONE
    (shown,) = (await world.get("/workflows", WorkflowsResponse, workflow_id=bound.workflow_id)).workflows
    assert (shown.status, shown.counts, shown.attempt_count) == (WorkflowStatus.DONE, {TASK.DONE: 3}, 3)
    with pytest.raises(Refused, match="WorkflowAlreadyComplete"):
        await bound.start()


async def test_batches_are_numbered_and_bounded_by_capacity(world):
    bound = await world.bound(3)
    run = await bound.start()
    await run.register()
    await run.queue()
    first, second = await run.launched(2), await run.launched(2)
    assert (first.batch_number, len(first.task_ids)) == (1, 2)
    assert (second.batch_number, len(second.task_ids)) == (2, 1)
    assert (await run.sync(capacity={CLUSTER: 5, "unknown": 5})).launches == []


async def test_requests_without_tasks_change_nothing(world):
    bound = await world.bound(1)
    run = await bound.start()
    await run.register()
    assert await run.queue([]) == {}
    nothing = QueueRequest(batches=[])
    assert (await world.post(f"/workflow_runs/{run.id}/queue", QueueResponse, nothing)).tasks_by_status == {}
    assert (await run.sync(capacity={CLUSTER: 0})).launches == []
    assert (await run.sync(capacity={CLUSTER: -5, "nowhere": 5})).launches == []
    none = replace(bound.tasks, **{name: [] for name in ("names", "commands", "node_hashes", "task_hashes")})
    with pytest.raises(Refused) as refused:
        await world.post(f"/workflows/{bound.workflow_id}/tasks", TasksResponse, none)
    assert (refused.value.status, refused.value.message) == (422, "max_attempts: has 1 entries where names has 0.")
    assert await bound.statuses() == dict.fromkeys(bound.task_ids, TASK.REGISTERING)


async def test_every_repeat_gives_the_same_answer_and_changes_nothing(world):
    bound = await world.bound(2, edges={1: [0]})
    found = await world.post("/workflows", WorkflowResponse, bound.request)
    assert (found.workflow_id, found.newly_created, found.is_bound, found.was_started) == (
        bound.workflow_id,
        False,
        True,
        False,
    )
    again = await world.post(f"/workflows/{bound.workflow_id}/tasks", TasksResponse, bound.tasks)
    assert again.task_ids == bound.task_ids
    await world.post(f"/dags/{bound.dag_id}/edges", None, edges_request(again.node_ids, {1: [0]}))
    await world.post(f"/workflows/{bound.workflow_id}/bound")

    run = await bound.start(key="once")
    assert (await bound.start(key="once", until=RUN.REGISTERED)).id == run.id
    assert (await run.register("same")).epoch == (await run.register("same")).epoch == 1
    assert await run.queue() == await run.queue()
    batch = await run.launched()
    reports = [report(attempt, TI.DONE, exit_code=0) for attempt in batch.task_instance_ids]
    assert (await run.sync(*reports)).late == []
    stamp = (await bound.changes()).time
    assert (await run.sync(*reports)).late == batch.task_instance_ids
    assert await run.queue() == {TASK.DONE: bound.task_ids}
    assert (await bound.changes(since=stamp.isoformat())).tasks_by_status == {}


async def test_a_request_to_queue_that_comes_again_after_its_attempt_failed_queues_nothing(world):
    """Found by the simulation (seed 740): it was one more than the limit allowed."""
    bound = await world.bound(1)
    run = await bound.start()
    await run.register()
    seen = (await bound.changes()).time
    await run.queue(seen=seen)
    (attempt,) = (await run.launched()).task_instance_ids
    await run.sync(report(attempt, TI.ERROR, cause="exit code"))
    assert await run.queue(seen=seen) == {"G": bound.task_ids}
    assert await run.queue(seen=(await bound.changes()).time) == {"Q": bound.task_ids}


async def test_the_same_arguments_with_other_tasks_are_refused_with_the_difference(world):
    bound = await world.bound(2)
    other = replace(bound.request, task_hash="x" * 64, task_counts={"t": 5, "u": 1})
    with pytest.raises(
        Refused, match="'t' has 2 recorded tasks and 5 now; template 'u' has 0 recorded tasks and 1 now"
    ):
        await world.post("/workflows", None, other)


async def test_binding_is_only_finished_when_everything_is_there(world):
    version, template, _, resources = await world.define()
    found = await world.post("/workflows", WorkflowResponse, workflow_request(version, "w", 2, edge_set_count=1))
    with pytest.raises(Refused, match="has 0 recorded tasks, but 2 were announced"):
        await world.post(f"/workflows/{found.workflow_id}/bound")
    with pytest.raises(Refused, match=r"404.*array"):
        await world.post(f"/workflows/{found.workflow_id}/tasks", None, tasks_request(9, template, "w", 2, resources))


async def test_two_callers_who_record_one_dag_do_not_mix_their_numbers(world):
    version, _template, _, _resources = await world.define()
    bound = await world.bound(3)
    nodes = (await world.post(f"/workflows/{bound.workflow_id}/tasks", TasksResponse, bound.tasks)).node_ids
    request = workflow_request(version, "other", 3, edge_set_count=2)
    dag_id = (await world.post("/workflows", WorkflowResponse, request)).dag_id
    await world.post(f"/dags/{dag_id}/edges", None, edges_request(nodes, {1: [0], 2: [1]}, key="a", last=False))
    await world.post(f"/dags/{dag_id}/edges", None, edges_request(nodes, {2: [1], 1: [0]}, key="b"))
    await world.post(f"/dags/{dag_id}/edges", None, edges_request(nodes, {1: [0], 2: [1]}, key="a"))
    change(world.database_uri, "UPDATE workflow SET dag_id = :dag WHERE id = :id", dag=dag_id, id=bound.workflow_id)
    message = DownstreamRequest(task_ids=bound.task_ids, dag_id=dag_id)
    answer = await world.post(f"/workflows/{bound.workflow_id}/downstream", DownstreamResponse, message)
    _first, second, third = bound.task_ids
    assert [answer.sets[index] for index in answer.set_index] == [[second], [third], []]


async def test_equal_upstreams_are_stored_once_and_told_once(world):
    ups, downs = list(range(20)), list(range(20, 40))
    bound = await world.bound(40, edges={20: ups})
    nodes = (await world.post(f"/workflows/{bound.workflow_id}/tasks", TasksResponse, bound.tasks)).node_ids
    assert len(nodes) == 40
    message = DownstreamRequest(task_ids=bound.task_ids, dag_id=bound.dag_id)
    answer = await world.post(f"/workflows/{bound.workflow_id}/downstream", DownstreamResponse, message)
    assert answer.sets == [[bound.task_ids[20]], []]
    assert answer.set_index == [0] * 20 + [1] * 20
    assert downs


async def test_downstream_tasks_are_those_of_the_workflows_own_dag(world):
    """A run keeps the number of a shared DAG; a change of the workflow's definition gives the workflow another one."""
    bound, other = await world.bound(3, edges={1: [0]}), await world.bound(3, edges={2: [0]})
    assert bound.dag_id != other.dag_id
    for dag_id in (bound.dag_id, other.dag_id, 10**9):
        message = DownstreamRequest(task_ids=bound.task_ids[:1], dag_id=dag_id)
        answer = await world.post(f"/workflows/{bound.workflow_id}/downstream", DownstreamResponse, message)
        assert answer.sets == [[bound.task_ids[1]]]


async def test_a_workflow_can_be_rebuilt_from_what_is_read(world):
    bound = await world.bound(3)
    meta = await world.get(f"/workflows/{bound.workflow_id}/metadata", WorkflowMetadata)
    assert (meta.dag_id, meta.task_count, meta.max_concurrently_running) == (bound.dag_id, 3, 1000)
    (array,) = (await world.get(f"/workflows/{bound.workflow_id}/arrays", ArraysResponse)).arrays
    assert array.array_id == bound.array_id
    page = await world.get(f"/workflows/{bound.workflow_id}/tasks", TasksPage, chunk_size=2)
    assert page.task_ids == bound.task_ids[:2]
    assert page.scales == [{}, {"memory": 0.5}]
    assert [one.requested for one in page.resources] == [{"cores": 1}]
    rest = await world.get(f"/workflows/{bound.workflow_id}/tasks", TasksPage, max_task_id=page.task_ids[-1])
    assert rest.task_ids == bound.task_ids[2:]


async def test_what_people_look_at(world):
    bound = await world.bound(1, max_attempts=1)
    run = await bound.start()
    await run.register()
    await run.queue()
    (attempt,) = (await run.launched()).task_instance_ids
    await run.sync(
        report(attempt, TI.ERROR, exit_code=3, host="n1", cause=Cause.EXIT_CODE, error="bad", log_tail="ouch\n")
    )
    (error,) = (await world.get(f"/workflows/{bound.workflow_id}/errors", ErrorsResponse)).errors
    assert (error.error, error.exit_code, error.host, error.task_name) == ("bad", 3, "n1", "t_0")
    assert (await world.get(f"/tasks/{error.task_id}/errors", ErrorsResponse)).errors == [error]
    detail = await world.get(f"/tasks/{error.task_id}", TaskDetail)
    assert [(one.number, one.status, one.charged, one.cause) for one in detail.attempts] == [
        (1, TI.ERROR, True, Cause.EXIT_CODE)
    ]
    assert (await world.get(f"/task_instances/{attempt}/log_tail", LogTail)).text == "ouch\n"
    route = f"/workflows/{bound.workflow_id}/task_summaries"
    assert (await world.get(route, TaskSummariesResponse, status=[TASK.DONE.value])).tasks == []
    assert len((await world.get(route, TaskSummariesResponse, status=[TASK.ERROR_FATAL.value])).tasks) == 1


async def test_definitions_are_found_again_and_versions_are_listed(world):
    version, *_ = await world.define()
    assert (await world.define())[0] == version
    tool = await world.post("/tools", ToolResponse, ToolRequest(name="tool"))
    newer = await world.post(f"/tools/{tool.tool_id}/versions", ToolResponse)
    assert newer.tool_version_ids[:-1] == tool.tool_version_ids
    found = await world.get(f"/tool_versions/{version}/task_templates/t/versions", TemplateVersionsResponse)
    assert [one.template.command_template for one in found.versions] == ["echo {x} {y}"]
    assert [one.name for one in (await world.get("/clusters", ClustersResponse)).clusters] == [CLUSTER]
    await world.call("DELETE", f"/clusters/{CLUSTER}")
    assert (await world.get("/clusters", ClustersResponse)).clusters == []


async def test_a_stand_alone_worker_learns_its_command_and_may_ask_again(world):
    bound = await world.bound(2)
    run = await bound.start()
    await run.register()
    await run.queue()
    batch = await run.launched()
    ask = WorkerStartRequest(
        array_id=bound.array_id,
        batch_number=batch.batch_number,
        array_step_id=1,
        host="n",
        pid=7,
        started_at=world.clock.now(),
    )
    first = await world.post("/worker/start", WorkerStartResponse, ask)
    assert (first.task_instance_id, first.command) == (batch.task_instance_ids[1], "echo 1")
    assert await world.post("/worker/start", WorkerStartResponse, ask) == first
    assert (await bound.statuses())[bound.task_ids[1]] == TASK.RUNNING
    await run.sync(report(first.task_instance_id, TI.DONE))
    with pytest.raises(Refused, match="409"):
        await world.post("/worker/start", None, ask)


class TestPolls:
    @pytest.fixture
    async def world(self, tmp_path):
        async with open_world(tmp_path, clock=None) as opened:
            yield opened

    async def poll_held(self, world, coroutine):
        """Start a poll and wait until the server holds it."""
        feed = world.app.state.services.feed
        polls = feed.open_polls
        task = asyncio.create_task(coroutine)
        while feed.open_polls == polls and not task.done():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        assert not task.done()
        return task

    async def test_changes_are_told_the_moment_they_are_committed(self, world):
        bound = await world.bound(1)
        run = await bound.start()
        await run.register()
        await run.queue()
        (attempt,) = (await run.launched()).task_instance_ids
        stamp = (await bound.changes()).time
        held = await self.poll_held(
            world, bound.changes(since=stamp.isoformat(), wait_seconds=20, workflow_run_id=run.id)
        )
        await run.sync(report(attempt, TI.DONE))
        assert (await held).tasks_by_status == {TASK.DONE: bound.task_ids}

    async def test_a_new_limit_and_a_new_status_of_the_run_are_told_at_once(self, world):
        bound = await world.bound(1)
        run = await bound.start()
        stamp = (await bound.changes()).time.isoformat()
        held = await self.poll_held(world, bound.changes(since=stamp, wait_seconds=20, workflow_run_id=run.id))
        route = f"/workflows/{bound.workflow_id}/concurrency"
        await world.call("PUT", route, None, ConcurrencyRequest(max_concurrently_running=7))
        first = await held
        assert first.max_concurrently_running == 7
        assert (await world.get(route, ConcurrencyResponse)).max_concurrently_running == 7
        stamp = first.time.isoformat()
        held = await self.poll_held(world, bound.changes(since=stamp, wait_seconds=20, workflow_run_id=run.id))
        await run.move(RUN.STOPPED)
        assert (await held).workflow_run_status == RUN.STOPPED

    async def test_queued_work_is_handed_to_the_open_poll(self, world):
        bound = await world.bound(2)
        run = await bound.start()
        await run.register()
        held = await self.poll_held(world, run.sync(capacity={CLUSTER: 5}, wait_seconds=20, known_status=RUN.RUNNING))
        before = world.app.state.services.writer.transactions
        await run.queue()
        ((batch,),) = ((await held).launches,)
        assert batch.task_ids == bound.task_ids
        assert world.app.state.services.writer.transactions == before + 1, "queued and handed over in one"

    async def test_a_request_to_queue_that_is_refused_leaves_the_open_poll_to_the_next(self, world):
        bound = await world.bound(1)
        run = await bound.start()
        await run.register()
        held = await self.poll_held(world, run.sync(capacity={CLUSTER: 5}, wait_seconds=20, known_status=RUN.RUNNING))
        with pytest.raises(Refused) as refused:
            await run.queue([999])
        assert (refused.value.status, held.done()) == (404, False)
        await run.queue()
        assert [batch.task_ids for batch in (await held).launches] == [bound.task_ids]

    async def test_every_open_poll_is_given_what_it_has_room_for(self, world):
        bound = await world.bound(3)
        run = await bound.start()
        await run.register()
        wanted = {"wait_seconds": 20, "known_status": RUN.RUNNING}
        held = [
            await self.poll_held(world, run.sync(capacity={CLUSTER: 1}, key="one", **wanted)),
            await self.poll_held(world, run.sync(capacity={CLUSTER: 5}, key="two", **wanted)),
        ]
        await run.queue()
        assert [[batch.task_ids for batch in answer.launches] for answer in await asyncio.gather(*held)] == [
            [bound.task_ids[:1]],
            [bound.task_ids[1:]],
        ]

    async def test_whatever_is_handed_over_reaches_who_asked(self, world):
        """Several clients queue concurrently while polls are open: each attempt is returned exactly once."""
        bound = await world.bound(120)
        run = await bound.start()
        await run.register()
        told = []
        for start in range(0, 120, 4):
            wanted = {"capacity": {CLUSTER: 9}, "wait_seconds": 20, "known_status": RUN.RUNNING}
            held = [await self.poll_held(world, run.sync(key=f"{start} {number}", **wanted)) for number in range(2)]
            await asyncio.gather(*(run.queue([task_id]) for task_id in bound.task_ids[start : start + 4]))
            answer = await run.sync(capacity={CLUSTER: 9}, key=f"{start} rest")
            told.append(answer)
            for poll in held:
                world.app.state.services.feed.wake([(Audience.DISTRIBUTOR, bound.workflow_id)])
                done, _ = await asyncio.wait([poll], timeout=0.05)
                if not done:
                    poll.cancel()
                else:
                    told.append(poll.result())
        handed = [task_id for answer in told for batch in answer.launches for task_id in batch.task_ids]
        assert sorted(handed) == bound.task_ids
        assert set((await bound.statuses()).values()) == {TASK.INSTANTIATING}

    async def test_a_poll_that_is_being_answered_waits_for_what_is_handed_to_it_meanwhile(self, world):
        services = world.app.state.services
        bound = await world.bound(2)
        run = await bound.start()
        await run.register()
        await run.queue(bound.task_ids[:1])
        (attempt,) = (await run.launched()).task_instance_ids
        held = await self.poll_held(world, run.sync(capacity={CLUSTER: 5}, wait_seconds=20, known_status=RUN.RUNNING))
        change(world.database_uri, "UPDATE task_instance SET status = :status", status=TI.KILL_SELF.value)
        gate = threading.Event()
        blocking = asyncio.create_task(services.writer.run(lambda _: gate.wait(20)))
        await self.until(lambda: services.writer.waiting == 1)
        services.feed.wake([(Audience.DISTRIBUTOR, bound.workflow_id)])
        await self.until(lambda: services.writer.waiting == 2)  # it has seen what to kill, and asks for it
        queued = asyncio.create_task(run.queue(bound.task_ids[1:]))
        await self.until(lambda: services.writer.waiting == 4)  # queued, and handed to the same poll
        gate.set()
        answer = await held
        assert (answer.kill, [batch.task_ids for batch in answer.launches]) == ([attempt], [bound.task_ids[1:]])
        assert await queued == {TASK.QUEUED: bound.task_ids[1:]}
        assert await blocking

    async def until(self, is_so):
        while not is_so():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)

    async def test_an_open_poll_does_not_wake_again_for_what_is_known(self, world):
        bound = await world.bound(1)
        run = await bound.start()
        await run.register()
        await run.queue()
        (attempt,) = (await run.launched()).task_instance_ids
        held = await self.poll_held(world, run.sync(wait_seconds=20))
        await world.post(f"/workflow_runs/{run.id}/terminate_task_instances")
        assert (await held).kill == [attempt]
        held = await self.poll_held(world, run.sync(wait_seconds=20, known_to_kill=[attempt]))
        world.app.state.begin_stop()
        assert (await held).kill == [attempt]

    async def test_polls_are_answered_at_once_when_the_server_stops(self, world):
        bound = await world.bound(1)
        run = await bound.start()
        await run.register()
        stamp = (await bound.changes()).time.isoformat()
        held = [
            await self.poll_held(world, bound.changes(since=stamp, wait_seconds=20)),
            await self.poll_held(world, run.sync(wait_seconds=20)),
        ]
        world.app.state.begin_stop()
        async with asyncio.timeout(5):
            assert [type(answer).__name__ for answer in await asyncio.gather(*held)] == [
                "ChangesResponse",
                "SyncResponse",
            ]


async def test_the_server_is_idle_when_nobody_lives(world):
    bound = await world.bound(1)
    await world.app.state.is_idle()
    assert await world.app.state.is_idle()
    run = await bound.start()
    await world.app.state.is_idle()
    assert not await world.app.state.is_idle()
    message = HeartbeatRequest(status=RUN.RUNNING, next_report_increment=500.0)
    assert (await world.post(f"/workflow_runs/{run.id}/heartbeat", RunStatusResponse, message)).status == RUN.RUNNING
    world.clock.seconds = 400
    await world.app.state.is_idle()
    assert not await world.app.state.is_idle()
    world.clock.seconds = 600
    assert await world.app.state.is_idle()


async def test_errors_are_counted_by_tasks_and_chosen_by_what_became_of_them(world):
    bound = await world.bound(3, max_attempts=2)
    run = await bound.start()
    await run.register()
    for ending in ({0, 1, 2}, {0, 1}):
        await run.queue([bound.task_ids[number] for number in ending])
        for attempt in (await run.launched()).task_instance_ids:
            await run.sync(report(attempt, TI.ERROR, cause=Cause.EXIT_CODE, error="bad"))
    route = f"/workflows/{bound.workflow_id}/errors"

    async def tasks(**query):
        found = (await world.get(route, ErrorsResponse, **query)).errors
        return [(bound.task_ids.index(error.task_id), error.task_status) for error in found]

    assert await tasks(limit=10) == [(1, "F"), (0, "F"), (2, "G"), (1, "F"), (0, "F")]
    assert await tasks(tasks=1) == [(1, "F"), (1, "F")]
    assert await tasks(tasks=2) == [(1, "F"), (0, "F"), (1, "F"), (0, "F")]
    assert await tasks(permanent="true", tasks=3) == [(1, "F"), (0, "F"), (1, "F"), (0, "F")]
    with pytest.raises(Refused, match=r"422.*tasks: must be from 1"):
        await tasks(tasks=0)


async def test_a_task_gets_attributes_and_keeps_its_others(world):
    bound = await world.bound(1)
    route = f"/tasks/{bound.task_ids[0]}/attributes"
    for attributes in ({"size": "1", "kind": "a"}, {"size": "2"}, {"size": "2"}, {}):
        await world.post(route, None, TaskAttributesRequest(attributes=attributes))
    rows = world.rows(
        "SELECT a.name, t.value FROM task_attribute t JOIN argument a ON a.id = t.argument_id ORDER BY a.name"
    )
    assert rows == [("kind", "a"), ("size", "2")]
    with pytest.raises(Refused, match=r"422.*each with a name"):
        await world.post(route, None, TaskAttributesRequest(attributes={"": "1"}))
    with pytest.raises(Refused, match=r"404.*no task 99"):
        await world.post("/tasks/99/attributes", None, TaskAttributesRequest(attributes={"size": "1"}))
