"""Another client takes over a workflow: cold and hot, from a live and from a dead client."""

import pytest
from server_world import CLUSTER, RUN, TI, Refused, open_world, report

from jobmon.core.constants import Cause, TaskStatus, WorkflowStatus
from jobmon.core.wire.monitoring import TaskDetail
from jobmon.core.wire.run import (
    ActiveRunsResponse,
    ForceCleanupResponse,
    ResetRequest,
    ResumeRequest,
    ResumeResponse,
    TerminateResponse,
)
from jobmon.server.transaction import Audience

TASK = TaskStatus


async def resume(bound, *, cold=True, gone=()):
    message = ResumeRequest(reset_running_jobs=cold, gone_run_ids=list(gone))
    return await bound.world.post(f"/workflows/{bound.workflow_id}/resume", ResumeResponse, message)


async def state(bound):
    return await bound.world.get(f"/workflows/{bound.workflow_id}/resume", ResumeResponse)


async def reset(bound, *, running):
    message = ResetRequest(reset_if_running=running)
    await bound.world.post(f"/workflows/{bound.workflow_id}/reset_tasks", None, message)


async def half_way(world):
    """Four tasks: done, running, instantiated, queued."""
    bound = await world.bound(4)
    run = await bound.start()
    await run.register()
    await run.queue()
    done, running, taken = (await run.launched(3)).task_instance_ids
    await run.sync(report(done, TI.DONE), report(running, TI.RUNNING))
    return bound, run, running, taken


async def test_cold_resume_from_a_living_client(world):
    bound, old, running, taken = await half_way(world)
    answer = await resume(bound)
    assert [run.status for run in answer.active_runs] == [RUN.COLD_RESUME]
    assert (answer.is_resumable, answer.kill_self, answer.kill_self_of_agents) == (False, 2, 0)
    assert await resume(bound) == answer
    with pytest.raises(Refused, match=r"409.*StaleRun"):
        await old.queue()
    with pytest.raises(Refused, match=r"409.*WorkflowNotResumable"):
        await bound.start()

    assert await old.move(RUN.TERMINATED) == RUN.TERMINATED
    assert await bound.workflow_status() == WorkflowStatus.HALTED
    assert sorted((await old.sync()).kill) == [running, taken]
    await old.sync(report(running, TI.ERROR, cause=Cause.SIGNAL, signal=9), report(taken, TI.UNKNOWN_ERROR))
    assert (await state(bound)).is_resumable
    await reset(bound, running=True)
    first, *others = bound.task_ids
    assert await bound.statuses() == {first: TASK.DONE, **dict.fromkeys(others, TASK.REGISTERING)}
    (killed,) = (await world.get(f"/tasks/{bound.task_ids[1]}", TaskDetail)).attempts
    assert (killed.status, killed.cause, killed.charged) == (TI.ERROR, Cause.KILLED_FOR_RESUME, False)

    new = await bound.start()
    assert await bound.workflow_status() == WorkflowStatus.RUNNING
    await new.register()
    assert await new.queue() == {TASK.DONE: [first], TASK.QUEUED: others}
    assert (await new.launched()).attempts == [2, 2, 2]


async def test_hot_resume_hands_living_attempts_to_the_new_run(world):
    bound, old, running, taken = await half_way(world)
    answer = await resume(bound, cold=False)
    assert [run.status for run in answer.active_runs] == [RUN.HOT_RESUME]
    await old.move(RUN.TERMINATED)
    assert (await state(bound)).is_resumable
    await reset(bound, running=False)
    statuses = await bound.statuses()
    kept = [TASK.DONE, TASK.RUNNING, TASK.INSTANTIATING, TASK.REGISTERING]
    assert [statuses[task_id] for task_id in bound.task_ids] == kept
    new = await bound.start()
    adopted = await new.register()
    assert [one.task_instance_id for one in adopted.attempts] == [running, taken]
    assert (await old.sync(report(running, TI.DONE), capacity={CLUSTER: 9})).fenced
    await new.sync(report(taken, TI.DONE))
    (shown,) = (await world.get(f"/tasks/{bound.task_ids[2]}", TaskDetail)).attempts
    assert shown.workflow_run_id == new.id
    assert (await bound.statuses())[bound.task_ids[1]] == TASK.DONE


async def test_resume_from_a_client_that_is_gone_closes_its_run_at_once(world):
    bound, old, *_ = await half_way(world)
    answer = await resume(bound, gone=[old.id])
    assert answer.active_runs == []
    assert answer.kill_self == 2
    assert [one.host for one in answer.distributors] == ["host"]
    assert await bound.workflow_status() == WorkflowStatus.FAILED

    new = await bound.start(until=RUN.LINKING)
    with pytest.raises(Refused, match=r"409.*2 attempts of workflow"):
        await new.move(RUN.BOUND)
    assert len((await new.register()).attempts) == 2
    cleaned = await world.post(f"/workflows/{bound.workflow_id}/force_cleanup", ForceCleanupResponse)
    assert cleaned.cleaned == 2
    assert await new.move(RUN.BOUND) == RUN.BOUND


async def test_an_overdue_run_is_closed_but_not_within_the_grace_after_a_start(tmp_path):
    async with open_world(tmp_path) as world:
        bound, old, *_ = await half_way(world)
        clock = world.clock
        clock.seconds = 1000
    async with open_world(tmp_path, clock=clock) as world:
        bound.world = world
        runs = (await world.get(f"/workflows/{bound.workflow_id}/active_runs", ActiveRunsResponse)).runs
        assert [(run.workflow_run_id, run.heartbeat_overdue) for run in runs] == [(old.id, False)]
        clock.seconds += 94
        assert (await resume(bound)).active_runs == []
        assert await bound.workflow_status() == WorkflowStatus.FAILED


async def test_the_reaper_closes_lost_runs(tmp_path):
    async with open_world(tmp_path, reaper_interval_seconds=0.01) as world:
        bound = await world.bound(1)
        run = await bound.start()
        await run.register()
        await run.queue()
        (attempt,) = (await run.launched()).task_instance_ids
        await run.sync(report(attempt, TI.DONE))
        with world.app.state.services.feed.waiter((Audience.ORCHESTRATOR, bound.workflow_id)) as waiter:
            world.clock.seconds = 200
            assert await waiter.wait(10)
        assert (await world.get(f"/workflows/{bound.workflow_id}/active_runs", ActiveRunsResponse)).runs == []
        assert await bound.workflow_status() == WorkflowStatus.DONE


async def test_stopping_a_run_ends_what_is_queued_and_kills_what_runs(world):
    bound, run, running, taken = await half_way(world)
    answer = await world.post(f"/workflow_runs/{run.id}/terminate_task_instances", TerminateResponse)
    assert (answer.ended, answer.to_kill) == (1, 2)
    again = await world.post(f"/workflow_runs/{run.id}/terminate_task_instances", TerminateResponse)
    assert (again.ended, again.to_kill) == (0, 0)
    # one had finished before the signal reached it: finished work counts
    await run.sync(report(running, TI.DONE), report(taken, TI.ERROR))
    assert sorted((await bound.statuses()).values()) == [TASK.DONE, TASK.DONE, TASK.REGISTERING, TASK.REGISTERING]


async def test_when_a_run_is_over_nothing_of_it_stays_queued(world):
    bound, run, *_ = await half_way(world)
    await run.move(RUN.ERROR)
    assert (await bound.statuses())[bound.task_ids[3]] == TASK.REGISTERING
    assert await bound.workflow_status() == WorkflowStatus.FAILED


async def test_tasks_are_not_reset_under_a_running_run(world):
    bound, run, *_ = await half_way(world)
    with pytest.raises(Refused, match=f"409.*Run {run.id}"):
        await reset(bound, running=True)


async def test_a_complete_workflow_is_not_resumed(world):
    bound = await world.bound(1)
    run = await bound.start()
    await run.move(RUN.DONE)
    with pytest.raises(Refused, match=r"409.*WorkflowAlreadyComplete"):
        await resume(bound)
