"""Failed attempts and their tasks; late, stale and impossible reports; fencing."""

import pytest
from server_world import CLUSTER, RUN, TI, Refused, report

from jobmon.core.constants import Cause, TaskStatus
from jobmon.core.retry import UNCHARGED_IN_A_ROW_MAX
from jobmon.core.wire import replace
from jobmon.core.wire.launching import DistributorRequest, DistributorResponse
from jobmon.core.wire.monitoring import TaskDetail
from jobmon.core.wire.run import TriageResponse

TASK = TaskStatus


async def started(world, count=1, max_attempts=3):
    bound = await world.bound(count, max_attempts=max_attempts)
    run = await bound.start()
    await run.register()
    return bound, run


async def launched(run):
    await run.queue()
    (attempt,) = (await run.launched()).task_instance_ids
    return attempt


@pytest.mark.parametrize(
    ("status", "cause", "expected"),
    [
        (TI.ERROR, Cause.EXIT_CODE, TASK.REGISTERING),
        (TI.UNKNOWN_ERROR, Cause.WORKER_LOST, TASK.REGISTERING),
        (TI.NO_DISTRIBUTOR_ID, Cause.SUBMISSION_FAILED, TASK.ERROR_FATAL),
        (TI.NO_DISTRIBUTOR_ID, Cause.WORKER_LOST, TASK.REGISTERING),
        (TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, TASK.ADJUSTING_RESOURCES),
        (TI.ERROR_FATAL, None, TASK.ERROR_FATAL),
        (TI.DONE, None, TASK.DONE),
    ],
)
async def test_a_task_follows_its_attempt(world, status, cause, expected):
    bound, run = await started(world)
    await run.sync(report(await launched(run), status, cause=cause))
    assert await bound.statuses() == {bound.task_ids[0]: expected}


async def test_attempts_are_used_up_and_numbered(world):
    bound, run = await started(world, max_attempts=2)
    for expected in (TASK.REGISTERING, TASK.ERROR_FATAL):
        await run.sync(report(await launched(run), TI.ERROR, cause=Cause.EXIT_CODE))
        assert await bound.statuses() == {bound.task_ids[0]: expected}
    detail = await world.get(f"/tasks/{bound.task_ids[0]}", TaskDetail)
    assert [(one.number, one.charged) for one in detail.attempts] == [(1, True), (2, True)]
    assert await run.queue() == {TASK.ERROR_FATAL: bound.task_ids}


async def test_what_is_not_the_tasks_fault_is_charged_only_after_many_in_a_row(world):
    bound, run = await started(world, max_attempts=1)
    for _ in range(UNCHARGED_IN_A_ROW_MAX):
        await run.sync(report(await launched(run), TI.UNKNOWN_ERROR, cause=Cause.NODE_FAILURE))
        assert await bound.statuses() == {bound.task_ids[0]: TASK.REGISTERING}
    await run.sync(report(await launched(run), TI.UNKNOWN_ERROR, cause=Cause.NODE_FAILURE))
    assert await bound.statuses() == {bound.task_ids[0]: TASK.ERROR_FATAL}


async def test_running_and_its_end_in_one_request(world):
    bound, run = await started(world)
    attempt = await launched(run)
    answer = await run.sync(report(attempt, TI.RUNNING, pid=5, host="n"), report(attempt, TI.DONE, exit_code=0))
    assert answer.late == []
    (shown,) = (await world.get(f"/tasks/{bound.task_ids[0]}", TaskDetail)).attempts
    assert (shown.status, shown.pid, shown.exit_code) == (TI.DONE, 5, 0)
    assert shown.started_at is not None


async def test_a_stale_attempt_never_moves_its_task(world):
    bound, run = await started(world)
    first = await launched(run)
    await run.sync(report(first, TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST))
    second = await launched(run)
    answer = await run.sync(report(first, TI.DONE))
    assert answer.late == [first]
    assert await bound.statuses() == {bound.task_ids[0]: TASK.INSTANTIATING}
    await run.sync(report(second, TI.DONE))
    assert await bound.statuses() == {bound.task_ids[0]: TASK.DONE}


async def test_launched_that_was_overtaken_by_running_still_tells_its_id(world):
    bound, run = await started(world)
    attempt = await launched(run)
    await run.sync(report(attempt, TI.RUNNING))
    assert (await run.sync(report(attempt, TI.LAUNCHED, distributor_id="job 7"))).late == [attempt]
    (shown,) = (await world.get(f"/tasks/{bound.task_ids[0]}", TaskDetail)).attempts
    assert (shown.status, shown.distributor_id) == (TI.RUNNING, "job 7")
    assert world.app.state.services.writer.ignored == {("task instance", TI.RUNNING, TI.LAUNCHED): 1}


async def test_impossible_reports_are_refused_one_by_one(world):
    bound, run = await started(world, count=3)
    await run.queue(bound.task_ids[:2])
    (first,) = (await run.launched(1)).task_instance_ids
    answer = await run.sync(
        report(first, TI.QUEUED), report(first + 1, TI.RUNNING), report(999, TI.DONE), report(first, TI.DONE)
    )
    assert set(answer.refused) == {first, first + 1, 999}
    assert sorted((await bound.statuses()).values()) == [TASK.DONE, TASK.REGISTERING, TASK.QUEUED]


async def test_a_replaced_distributor_may_report_but_gets_nothing(world):
    bound, run = await started(world, count=2)
    old = run.epoch
    await run.queue(bound.task_ids[:1])
    (attempt,) = (await run.launched()).task_instance_ids
    adopted = await run.register()
    assert [one.task_instance_id for one in adopted.attempts] == [attempt]
    await run.queue(bound.task_ids[1:])
    answer = await run.sync(report(attempt, TI.DONE), epoch=old, capacity={CLUSTER: 5})
    assert (answer.fenced, answer.launches) == (True, [])
    assert (await bound.statuses())[bound.task_ids[0]] == TASK.DONE
    assert len((await run.launched()).task_ids) == 1


async def test_launches_whose_answer_was_lost_come_again(world):
    _bound, run = await started(world, count=3)
    await run.queue()
    lost = await run.sync(capacity={CLUSTER: 2}, key="once")
    again = await run.sync(capacity={CLUSTER: 2}, key="once", wait_seconds=5)
    assert again.launches == lost.launches
    assert len(lost.launches[0].task_ids) == 2
    assert len((await run.launched()).task_ids) == 1


async def test_overdue_attempts_are_closed_or_triaged_and_then_settled(world):
    bound, run = await started(world, count=4)
    await run.queue()
    running, submitted, beating, done = (await run.launched()).task_instance_ids
    await run.sync(
        report(running, TI.RUNNING), report(submitted, TI.LAUNCHED), report(beating, TI.RUNNING), report(done, TI.DONE)
    )
    assert (await world.post(f"/workflow_runs/{run.id}/triage", TriageResponse)) == TriageResponse(
        triaging=0, no_heartbeat=0
    )
    world.clock.seconds = 90 * 3.1 + 1
    await run.sync(alive=[beating])
    answer = await world.post(f"/workflow_runs/{run.id}/triage", TriageResponse)
    assert answer == TriageResponse(triaging=1, no_heartbeat=1)
    assert (await run.sync()).triage == [running]
    statuses = await bound.statuses()
    assert [statuses[task_id] for task_id in bound.task_ids] == [
        TASK.RUNNING,
        TASK.REGISTERING,
        TASK.RUNNING,
        TASK.DONE,
    ]
    await run.sync(report(running, TI.DONE))
    assert (await bound.statuses())[bound.task_ids[0]] == TASK.DONE
    assert (await run.sync()).triage == []


async def test_only_a_run_under_way_may_queue(world):
    bound = await world.bound(1)
    early = await bound.start(until=RUN.LINKING)
    with pytest.raises(Refused, match=r"409.*WorkflowRunStateError"):
        await early.queue()
    await early.move(RUN.ABORTED)
    run = await bound.start()
    with pytest.raises(Refused, match=r"409.*StaleRun"):
        await early.queue()
    await run.move(RUN.STOPPED)
    with pytest.raises(Refused, match=r"409.*StaleRun"):
        await run.queue()


async def test_changes_of_a_run_follow_the_table(world):
    bound = await world.bound(1)
    run = await bound.start()
    with pytest.raises(Refused, match=r"409.*InvalidStateTransition"):
        await run.move(RUN.BOUND)
    with pytest.raises(Refused, match=r"409.*InvalidStateTransition"):
        await run.move(RUN.COLD_RESUME)
    assert await run.move(RUN.RUNNING) == RUN.RUNNING
    with pytest.raises(Refused, match="422"):
        await run.move("?")
    assert await run.move(RUN.ERROR) == RUN.ERROR
    assert await run.move(RUN.DONE) == RUN.ERROR


async def test_a_distributor_of_an_older_run_or_registration_takes_nothing_over(world):
    workflow, run = await started(world)
    request = DistributorRequest(host="h", pid=1, pid_start_time=0.0, key="one more")
    route = f"/workflow_runs/{run.id}/distributors"
    assert (await world.post(route, DistributorResponse, replace(request, epoch=run.epoch))).epoch == run.epoch + 1
    with pytest.raises(Refused, match=r"409.*StaleRun"):
        await world.post(route, DistributorResponse, replace(request, key="late", epoch=run.epoch))
    await run.move(RUN.ERROR)
    await (await workflow.start(pid=2)).register()
    with pytest.raises(Refused, match=r"409.*StaleRun"):
        await world.post(route, DistributorResponse, replace(request, key="old"))


async def test_being_handed_out_and_never_started_uses_up_nothing(world):
    bound, run = await started(world, max_attempts=1)
    for _ in range(UNCHARGED_IN_A_ROW_MAX + 3):
        await run.sync(report(await launched(run), TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST))
    assert set((await bound.statuses()).values()) == {TASK.REGISTERING}
