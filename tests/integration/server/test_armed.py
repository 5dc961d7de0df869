"""Armed tasks are queued by the report that completes their last upstream task, and returned in its answer."""

import itertools

import pytest
from server_world import CLUSTER, RUN, TI, Refused, report

from jobmon.core.constants import TaskStatus
from jobmon.core.wire.launching import SyncRequest, WorkerReportRequest, WorkerReportResponse
from jobmon.core.wire.run import (
    ConcurrencyRequest,
    ConcurrencyResponse,
    ResumeRequest,
    ResumeResponse,
    StopRequest,
    StopResponse,
    TerminateResponse,
)
from jobmon.core.wire.steering import TaskUpdateRequest, TaskUpdateResponse
from jobmon.core.wire.swarm import ARMED_TASKS_MAX, MISSING_UPSTREAMS_MAX, QueueRequest, QueueResponse, TaskToArm
from jobmon.server.usecases import queueing, reporting

G, Q, D, F = TaskStatus.REGISTERING, TaskStatus.QUEUED, TaskStatus.DONE, TaskStatus.ERROR_FATAL
KEYS = itertools.count()


class Chain:
    """A workflow of a chain, or other edges, of which the first task is in flight."""

    def __init__(self, bound, run):
        self.bound, self.run = bound, run
        self.ids = bound.task_ids
        self.attempts = {}

    def to_arm(self, index, *missing, **values):
        ids = {"task_resources_id": self.bound.resources_id, "cluster_id": self.bound.cluster_id, **values}
        return TaskToArm(task_id=self.ids[index], missing=[self.ids[each] for each in missing], **ids)

    async def seen(self):
        return (await self.bound.changes()).time

    async def ask(self, seen=None, **message):
        request = QueueRequest(batches=[], seen=seen or await self.seen(), **message)
        return await self.bound.world.post(f"/workflow_runs/{self.run.id}/queue", QueueResponse, request)

    async def arm(self, index, *missing, seen=None, **message):
        """Arm a task; return whether it is."""
        answer = await self.ask(seen, armed=[self.to_arm(index, *missing)], **message)
        return answer.armed == [self.ids[index]]

    async def end(self, index, status=TI.DONE, capacity=10, **values):
        """Report how a task ended; return the tasks handed out in the same answer."""
        return await self.take(report(self.attempts[self.ids[index]], status, **values), capacity=capacity)

    async def take(self, *reports, capacity=10):
        wanted = {CLUSTER: capacity} if capacity else {}
        answer = await self.run.sync(*reports, capacity=wanted, key=f"k{next(KEYS)}")
        for batch in answer.launches:
            self.attempts |= dict(zip(batch.task_ids, batch.task_instance_ids, strict=True))
        return [self.ids.index(task_id) for batch in answer.launches for task_id in batch.task_ids]

    async def statuses(self):
        found = await self.bound.statuses()
        return "".join(found[task_id] for task_id in self.ids)


async def begin(world, edges=None, count=3, first=(0,), **values):
    bound = await world.bound(count, edges=edges or {1: [0], 2: [1]}, **values)
    run = await bound.start()
    await run.register()
    chain = Chain(bound, run)
    await run.queue([bound.task_ids[index] for index in first])
    assert await chain.take() == list(first)
    return chain


async def test_the_answer_to_the_report_hands_out_the_successor_in_the_same_transaction(world):
    chain = await begin(world)
    assert await chain.arm(1, 0)
    assert await chain.arm(2, 1)
    before = world.app.state.services.writer.transactions
    assert await chain.end(0) == [1]
    assert await chain.end(1) == [2]
    assert await chain.end(2) == []
    assert await chain.statuses() == "DDD"
    assert world.app.state.services.writer.transactions == before + 3


async def test_a_task_is_queued_with_its_last_missing_upstream_task_and_not_before(world):
    chain = await begin(world, {2: [0, 1]}, first=(0, 1))
    assert await chain.arm(2, 0, 1)
    assert await chain.end(1) == []
    assert (await chain.statuses())[2] == G
    assert await chain.end(0) == [2]


async def test_a_repeated_report_queues_nothing_a_second_time(world):
    chain = await begin(world)
    await chain.arm(1, 0)
    assert await chain.end(0) == [1]
    assert await chain.end(1, TI.ERROR) == []
    assert await chain.end(0) == []
    assert await chain.statuses() == "DGG"


async def test_an_upstream_task_that_is_retried_keeps_its_successor_armed(world):
    chain = await begin(world)
    await chain.arm(1, 0)
    assert await chain.end(0, TI.ERROR) == []
    await chain.run.queue([chain.ids[0]])
    assert await chain.take() == [0]
    assert await chain.end(0) == [1]


async def test_a_report_that_asks_for_no_work_queues_nothing(world):
    """The client may be gone: its distributor only sees to what runs. The orchestrator queues it if it lives."""
    chain = await begin(world)
    await chain.arm(1, 0)
    assert await chain.end(0, capacity=0) == []
    assert await chain.statuses() == "DGG"
    assert await chain.take() == []
    await chain.run.queue([chain.ids[1]])
    assert await chain.take() == [1]


async def test_a_worker_that_reports_by_itself_queues_nothing(world):
    chain = await begin(world)
    await chain.arm(1, 0)
    message = WorkerReportRequest(reports=[report(chain.attempts[chain.ids[0]], TI.DONE)])
    await world.post("/worker/report", WorkerReportResponse, message)
    assert await chain.take() == []
    assert await chain.statuses() == "DGG"


async def test_a_disarmed_task_is_not_queued_and_cannot_be_armed_by_an_older_request(world):
    chain = await begin(world)
    seen = await chain.seen()
    assert await chain.arm(1, 0, seen=seen)
    assert (await chain.ask(seen, disarm=[chain.ids[1]])).tasks_by_status == {G: [chain.ids[1]]}
    assert not await chain.arm(1, 0, seen=seen)
    assert await chain.end(0) == []
    assert await chain.statuses() == "DGG"


async def test_a_task_whose_upstream_tasks_are_done_already_is_left_to_its_orchestrator(world):
    chain = await begin(world)
    seen = await chain.seen()
    await chain.end(0)
    assert not await chain.arm(1, 0, seen=seen)
    assert await chain.statuses() == "DGG"


async def test_a_task_that_has_changed_since_is_not_queued(world):
    chain = await begin(world, {1: [0]}, count=2)
    seen = await chain.seen()
    await chain.run.queue([chain.ids[1]])
    assert await chain.take() == [1]
    assert not await chain.arm(1, 0, seen=seen), "it is in flight"
    assert await chain.end(1, TI.ERROR) == []
    assert await chain.arm(1, 0, seen=seen)
    assert await chain.end(0) == []
    assert await chain.statuses() == "DG"


@pytest.mark.parametrize("what", ["", "/arrays/t"])
async def test_a_limit_that_the_orchestrator_does_not_know_holds_back_what_it_armed(world, what):
    chain = await begin(world)
    seen = await chain.seen()
    assert await chain.arm(1, 0, seen=seen)
    message = ConcurrencyRequest(max_concurrently_running=0, user="me")
    await world.call("PUT", f"/workflows/{chain.bound.workflow_id}{what}/concurrency", ConcurrencyResponse, message)
    assert await chain.end(0) == []
    assert await chain.statuses() == "DGG"


async def test_after_the_news_of_a_limit_tasks_are_armed_again(world):
    chain = await begin(world)
    message = ConcurrencyRequest(max_concurrently_running=5, user="me")
    await world.call("PUT", f"/workflows/{chain.bound.workflow_id}/concurrency", ConcurrencyResponse, message)
    assert await chain.arm(1, 0)
    assert await chain.end(0) == [1]


async def test_a_permanent_failure_releases_what_waits_for_it(world):
    chain = await begin(world, {1: [0], 2: [1]}, max_attempts=1)
    await chain.arm(1, 0)
    await chain.arm(2, 1)
    await chain.end(0, TI.ERROR)
    assert await chain.statuses() == "FGG"
    assert not await chain.arm(1, 0)


async def test_what_a_permanent_failure_releases_makes_room_for_others(world):
    above, last = ARMED_TASKS_MAX + 1, ARMED_TASKS_MAX + 2
    edges = {**{index: [0] for index in range(1, above)}, last: [above]}
    chain = await begin(world, edges, count=last + 1, first=(0, above), max_attempts=1)
    answer = await chain.ask(armed=[chain.to_arm(index, 0) for index in range(1, above)])
    assert len(answer.armed) == ARMED_TASKS_MAX
    assert not await chain.arm(last, above)
    await chain.end(0, TI.ERROR)
    assert await chain.arm(last, above)


@pytest.mark.parametrize("fail_fast", [True, False])
async def test_after_a_permanent_failure_a_run_that_fails_fast_queues_nothing(world, fail_fast):
    chain = await begin(world, {2: [0]}, first=(0, 1), max_attempts=1)
    await chain.arm(2, 0, fail_fast=fail_fast)
    await chain.end(1, TI.ERROR)
    assert await chain.end(0) == ([] if fail_fast else [2])


async def test_a_run_that_is_told_to_end_queues_nothing(world):
    chain = await begin(world)
    await chain.arm(1, 0)
    await world.post(f"/workflow_runs/{chain.run.id}/terminate_task_instances", TerminateResponse)
    assert await chain.end(0) == []
    assert "Q" not in await chain.statuses()


@pytest.mark.parametrize("status", [RUN.STOPPED, RUN.ERROR, RUN.HOT_RESUME])
async def test_a_run_that_is_over_queues_nothing(world, status):
    chain = await begin(world)
    await chain.arm(1, 0)
    if status == RUN.STOPPED:
        message = StopRequest(user="me", kill=False)
        await world.post(f"/workflows/{chain.bound.workflow_id}/stop", StopResponse, message)
    elif status == RUN.HOT_RESUME:
        message = ResumeRequest(reset_running_jobs=False)
        await world.post(f"/workflows/{chain.bound.workflow_id}/resume", ResumeResponse, message)
    else:
        await chain.run.move(status)
    assert await chain.end(0) == []
    assert await chain.statuses() == "DGG"


async def test_a_person_who_sets_the_status_of_a_task_disarms_the_workflow(world):
    chain = await begin(world, {2: [0]})
    await chain.arm(2, 0)
    message = TaskUpdateRequest(task_ids=[chain.ids[1]], status=D, user="me", force=True)
    await world.post(f"/workflows/{chain.bound.workflow_id}/task_updates", TaskUpdateResponse, message)
    assert await chain.end(0) == []
    assert await chain.statuses() == "DDG"


async def test_where_a_transaction_failed_its_parts_leave_the_successor_to_the_orchestrator(world):
    chain = await begin(world)
    await chain.arm(1, 0)
    writer = world.app.state.services.writer
    done = report(chain.attempts[chain.ids[0]], TI.DONE)
    request = SyncRequest(epoch=chain.run.epoch, reports=[done], capacity={CLUSTER: 1}, key="k")

    def fail(tx, *_):
        raise ZeroDivisionError

    answer, failed = writer.run_together((reporting.sync, chain.run.id, request), (fail, 1, 2))
    assert (await answer).launches == []
    with pytest.raises(ZeroDivisionError):
        await failed
    assert await chain.statuses() == "DGG"
    assert await chain.arm(2, 1)


async def test_what_a_failed_transaction_armed_is_not_armed(world):
    chain = await begin(world)
    request = QueueRequest(batches=[], seen=await chain.seen(), armed=[chain.to_arm(1, 0)])

    def arm_and_fail(tx, *given):
        assert queueing.queue(tx, *given).armed == [chain.ids[1]]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await world.app.state.services.writer.run(arm_and_fail, chain.run.id, request)
    assert await chain.end(0) == []
    assert await chain.statuses() == "DGG"


async def test_a_distributor_that_was_replaced_queues_nothing(world):
    chain = await begin(world)
    await chain.arm(1, 0)
    await chain.run.register()
    chain.run.epoch -= 1
    assert await chain.end(0) == []
    assert await chain.statuses() == "DGG"


async def test_a_request_to_arm_that_cannot_be_meant_is_refused(world):
    chain = await begin(world)
    seen = await chain.seen()
    cases = [
        ("armed: at most", {"armed": [chain.to_arm(1, 0)] * (ARMED_TASKS_MAX + 1)}),
        ("disarm: at most", {"disarm": [chain.ids[0]] * (ARMED_TASKS_MAX + 1)}),
        ("missing: must name 1 to", {"armed": [chain.to_arm(1)]}),
        ("missing: must name 1 to", {"armed": [chain.to_arm(1, *[0] * (MISSING_UPSTREAMS_MAX + 1))]}),
        ("cluster_id: request", {"armed": [chain.to_arm(1, 0, cluster_id=999)]}),
        ("request for resources", {"armed": [chain.to_arm(1, 0, task_resources_id=999)]}),
        ("task of workflow", {"disarm": [999]}),
        ("task of workflow", {"armed": [TaskToArm(task_id=1, task_resources_id=1, cluster_id=1, missing=[999])]}),
    ]
    for message, values in cases:
        with pytest.raises(Refused, match=message):
            await chain.ask(seen, **values)
    message = QueueRequest(batches=[], armed=[chain.to_arm(1, 0)])
    with pytest.raises(Refused, match="seen: must be given"):
        await world.post(f"/workflow_runs/{chain.run.id}/queue", QueueResponse, message)
    assert await chain.end(0) == []
