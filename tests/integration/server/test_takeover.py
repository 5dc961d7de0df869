"""Who may take over, reset or stop a workflow; concurrent attempts to do so are serialized."""

import asyncio
import contextlib

import pytest
from server_world import RUN, TI, UNDER_WAY, Refused, report
from sqlalchemy import select, update

from jobmon.core.constants import TaskStatus, WorkflowStatus
from jobmon.core.wire.binding import IdsResponse, ResourcesRequest, ResourcesSpec
from jobmon.core.wire.launching import WorkerReportRequest, WorkerReportResponse
from jobmon.core.wire.monitoring import TaskDetail
from jobmon.core.wire.run import (
    ActiveRunsResponse,
    ForceCleanupResponse,
    LeadRequest,
    ResetRequest,
    ResumeRequest,
    ResumeResponse,
    RunResponse,
    RunStatusRequest,
    StopRequest,
    StopResponse,
)
from jobmon.core.wire.swarm import QueueBatch, QueueRequest, QueueResponse, TasksPage
from jobmon.server.models import audit, workflow, workflow_run

TASK = TaskStatus


async def resume(bound, **message):
    return await bound.world.post(f"/workflows/{bound.workflow_id}/resume", ResumeResponse, ResumeRequest(**message))


async def reset(bound, **message):
    await bound.world.post(f"/workflows/{bound.workflow_id}/reset_tasks", None, ResetRequest(**message))


async def stop(bound, user="me", **message):
    return await bound.world.post(
        f"/workflows/{bound.workflow_id}/stop", StopResponse, StopRequest(user=user, **message)
    )


async def with_a_running_task(world, count=3):
    bound = await world.bound(count)
    run = await bound.start()
    await run.register()
    await run.queue()
    first, *_ = (await run.launched(2)).task_instance_ids
    await run.sync(report(first, TI.RUNNING, host="node7", pid=42))
    return bound, run, first


# -- handing over ----------------------------------------------------------------------------------------------------


async def lead(bound, run, pid, former, former_start_time=1.0):
    request = LeadRequest(
        host="here",
        pid=pid,
        pid_start_time=2.0,
        former_pid=former,
        former_pid_start_time=former_start_time,
        next_report_increment=90.0,
    )
    return await bound.world.post(f"/workflow_runs/{run.id}/lead", RunResponse, request)


async def with_a_run_of(bound, pid, until=RUN.BOUND):
    return await bound.start(until=until, pid=pid, host="here")


async def leader_of(bound):
    (run,) = (await bound.world.get(f"/workflows/{bound.workflow_id}/active_runs", ActiveRunsResponse)).runs
    return run.pid


async def test_a_bound_run_is_handed_over_once_and_the_request_may_be_repeated(world):
    bound = await world.bound(1)
    run = await with_a_run_of(bound, 11)
    for _ in range(2):
        answer = await lead(bound, run, 22, former=11)
        assert (answer.workflow_run_id, answer.status) == (run.id, RUN.BOUND)
        assert [one.name for one in answer.clusters] == ["here"]
    with pytest.raises(Refused, match=r"409.*StaleRun.*another process leads it"):
        await lead(bound, run, 33, former=11)
    assert await leader_of(bound) == 22
    assert [row[0] for row in world.rows("SELECT action FROM audit WHERE action = 'hand over run'")] == [
        "hand over run"
    ]


async def test_a_run_that_is_under_way_or_over_is_not_handed_over(world):
    bound = await world.bound(1)
    run = await with_a_run_of(bound, 11, until=RUN.RUNNING)
    with pytest.raises(Refused, match=r"409.*StaleRun.*is RUNNING"):
        await lead(bound, run, 22, former=11)
    await run.move(RUN.ERROR)
    with pytest.raises(Refused, match=r"409.*StaleRun.*is ERROR"):
        await lead(bound, run, 22, former=11)


async def test_only_the_process_that_is_named_hands_over(world):
    bound = await world.bound(1)
    run = await with_a_run_of(bound, 11)
    for former, start_time in ((12, 1.0), (11, 3.0)):
        with pytest.raises(Refused, match=r"409.*StaleRun"):
            await lead(bound, run, 22, former=former, former_start_time=start_time)
    assert await leader_of(bound) == 11


# -- one after the other ---------------------------------------------------------------------------------------------


async def test_tasks_are_not_reset_under_a_run_that_another_client_created_meanwhile(world):
    bound = await world.bound(2)
    run = await bound.start(until=RUN.BOUND)
    with pytest.raises(Refused, match=rf"409.*WorkflowNotResumable.*Run {run.id}"):
        await reset(bound)


async def test_tasks_are_not_reset_while_their_attempts_may_run(world):
    bound, run, _ = await with_a_running_task(world)
    await run.move(RUN.ERROR)
    with pytest.raises(Refused, match=r"409.*2 attempts of workflow"):
        await reset(bound)
    await reset(bound, reset_if_running=False)


async def test_clients_that_resume_at_the_same_moment_queue_one_after_the_other(world):
    bound = await world.bound(4)
    await (await bound.start()).move(RUN.ERROR)

    terminated = RunStatusRequest(status=RUN.TERMINATED)

    async def make_room():
        for active in (await resume(bound)).active_runs:  # as its orchestrator would
            await world.post(f"/workflow_runs/{active.workflow_run_id}/status", None, terminated)

    async def take_over():
        for _ in range(20):
            run = None
            with contextlib.suppress(Refused):
                await make_room()
                await reset(bound)
                run = await bound.start(until=RUN.REGISTERED)
            if run is not None:
                break
        with contextlib.suppress(Refused):  # another may take over from here on: then this one ends
            for status in UNDER_WAY:
                await run.move(status)
            await run.queue()
        return run

    runs = await asyncio.gather(*(take_over() for _ in range(4)))
    may_queue = []
    for run in runs:
        with contextlib.suppress(Refused):
            await run.queue()
            may_queue.append(run)
    assert may_queue == [max(runs, key=lambda run: run.id)]
    for task_id in bound.task_ids:
        attempts = (await world.get(f"/tasks/{task_id}", TaskDetail)).attempts
        assert len([attempt for attempt in attempts if attempt.status not in "DE"]) <= 1


async def test_a_run_that_was_stopped_before_it_recorded_anything_does_not_move_the_workflow(world):
    bound = await world.bound(1)
    await (await bound.start()).move(RUN.ERROR)
    assert await bound.workflow_status() == WorkflowStatus.FAILED
    newer = await bound.start(until=RUN.REGISTERED)
    await newer.move(RUN.ABORTED)
    assert await bound.workflow_status() == WorkflowStatus.FAILED
    newest = await bound.start()
    assert await bound.workflow_status() == WorkflowStatus.RUNNING
    await newest.move(RUN.ERROR)
    assert await bound.workflow_status() == WorkflowStatus.FAILED


async def test_the_end_of_a_run_moves_its_workflow_though_a_newer_one_gave_up(world):
    bound = await world.bound(1)
    older = await bound.start()
    services = world.app.state.services
    # no client gets this far while another run is active: the row is put there by hand
    await services.writer.run(
        lambda tx: tx.insert(
            workflow_run,
            **{"workflow_id": bound.workflow_id, "request_key": "k", "user_name": "u", "host": "h", "pid": 1},
            **{"pid_start_time": 0.0, "version": "1", "created_at": 0, "report_by": 0, "status_at": 0},
            status=RUN.ABORTED.value,
        )
    )
    await older.move(RUN.ERROR)
    assert await bound.workflow_status() == WorkflowStatus.FAILED


# -- whose it is -----------------------------------------------------------------------------------------------------


async def test_what_an_older_run_left_is_ended_by_a_distributor_of_the_newest(world):
    bound, old, first = await with_a_running_task(world)
    await resume(bound, reset_running_jobs=False, gone_run_ids=[old.id])
    newest = await bound.start(until=RUN.BOUND, pid=2)  # its client dies before it has a distributor
    told = await resume(bound, gone_run_ids=[newest.id])
    assert (told.kill_self, told.newest_run_id) == (2, newest.id)
    assert [each.workflow_run_id for each in told.distributors] == [old.id]
    await newest.register()
    answer = await newest.sync()
    assert not answer.fenced
    assert first in answer.kill
    await newest.sync(*(report(attempt, TI.ERROR) for attempt in answer.kill))
    assert (await resume(bound)).is_resumable


async def test_a_workflow_of_somebody_else_is_not_taken_over_unless_one_says_so(world):
    bound, run, _ = await with_a_running_task(world)
    with pytest.raises(Refused, match=r"409.*InvalidRequest.*belongs to me, not to you.*--any-owner"):
        await resume(bound, user="you")
    with pytest.raises(Refused, match=r"409.*InvalidRequest.*belongs to me"):
        await stop(bound, user="you")
    assert await run.move(RUN.RUNNING) == RUN.RUNNING
    assert (await resume(bound, user="you", any_owner=True)).active_runs[0].status == RUN.COLD_RESUME


async def test_an_unknown_workflow_is_not_resumed(world):
    for route, message in (("resume", ResumeRequest()), ("stop", StopRequest(user="me")), ("reset_tasks", None)):
        with pytest.raises(Refused, match=r"404.*There is no workflow 77"):
            await world.post(f"/workflows/77/{route}", None, message)


async def test_a_workflow_that_is_not_recorded_completely_is_not_run(world):
    bound = await world.bound(1)
    await world.app.state.services.writer.run(lambda tx: tx.run(update(workflow).values(bound=False)))
    run = await bound.start(until=RUN.LINKING)
    with pytest.raises(Refused, match=r"409.*WorkflowNotResumable.*not completely recorded"):
        await run.move(RUN.BOUND)


# -- stop ------------------------------------------------------------------------------------------------------------


async def test_stop_ends_everything_and_says_so(world):
    bound, run, first = await with_a_running_task(world)
    answer = await stop(bound)
    assert (answer.run_ids, answer.ended, answer.to_kill, answer.left_running) == ([run.id], 1, 2, 0)
    assert answer.workflow_status == WorkflowStatus.FAILED
    told = await run.sync()
    assert (told.workflow_run_status, first in told.kill) == (RUN.STOPPED, True)
    again = await stop(bound)
    assert (again.run_ids, again.ended, again.to_kill) == ([], 0, 0)
    actions = await world.app.state.services.readers.run(
        lambda session: session.rows(select(audit.c.actor, audit.c.action).where(audit.c.action == "stop"))
    )
    assert actions == [("user", "stop")]


async def test_stop_with_drain_lets_what_runs_finish(world):
    bound, run, first = await with_a_running_task(world)
    answer = await stop(bound, kill=False)
    assert (answer.ended, answer.to_kill, answer.left_running) == (1, 0, 2)
    assert (await run.sync(report(first, TI.DONE))).kill == []
    assert (await bound.statuses())[bound.task_ids[0]] == TASK.DONE


async def test_force_cleanup_names_attempts_that_may_be_alive(world):
    bound, run, first = await with_a_running_task(world)
    await resume(bound, gone_run_ids=[run.id])
    answer = await world.post(f"/workflows/{bound.workflow_id}/force_cleanup", ForceCleanupResponse)
    assert answer.cleaned == 2
    assert answer.perhaps_alive == [f"attempt {first} of task t_0 on node7, pid 42"]
    # its worker is notified; its report is too late and does not change the task
    assert (await run.sync(report(first, TI.DONE))).late == [first]
    assert (await bound.statuses())[bound.task_ids[0]] == TASK.REGISTERING


async def test_an_attempt_that_wakes_up_after_it_was_given_up_is_told_to_stop(world):
    bound, run, first = await with_a_running_task(world)
    await resume(bound, gone_run_ids=[run.id])
    await world.post(f"/workflows/{bound.workflow_id}/force_cleanup", ForceCleanupResponse)
    told = await world.post("/worker/report", WorkerReportResponse, WorkerReportRequest(alive=[first]))
    assert told.kill == [first]
    assert (await run.sync(alive=[first])).kill == [first]


async def test_reset_takes_raised_requests_back_unless_they_are_to_be_kept(world):
    bound = await world.bound(1)
    run = await bound.start()
    await run.register()
    (task_id,) = bound.task_ids
    spec = ResourcesSpec(cluster_name="here", queue_name="q", requested={"memory": 9}, kind="adjusted")
    (raised,) = (await world.post("/task_resources", IdsResponse, ResourcesRequest(resources=[spec]))).ids
    for resources in (bound.resources_id, raised):
        batch = QueueBatch(
            array_id=bound.array_id, task_ids=[task_id], task_resources_id=resources, cluster_id=bound.cluster_id
        )
        await world.post(f"/workflow_runs/{run.id}/queue", QueueResponse, QueueRequest(batches=[batch]))
        (attempt,) = (await run.launched()).task_instance_ids
        await run.sync(report(attempt, TI.RESOURCE_ERROR))
    await run.move(RUN.ERROR)
    for keep, expected in ((True, raised), (False, bound.resources_id)):
        await reset(bound, keep_resources=keep)
        page = await world.get(f"/workflows/{bound.workflow_id}/tasks", TasksPage)
        assert page.task_resources_ids == [expected]
