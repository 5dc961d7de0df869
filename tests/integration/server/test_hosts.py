"""Commands that run on the machine of their distributor: when another machine takes the workflow over, that one alone
sees to them, and does nothing else."""

import asyncio
from dataclasses import replace

import pytest
from server_world import CLUSTER, RUN, TI, Refused, report

from jobmon.core.constants import Cause, TaskStatus
from jobmon.core.wire.monitoring import TaskDetail
from jobmon.core.wire.run import ResumeRequest, ResumeResponse, TriageResponse
from jobmon.server.reaper import Reaper

TASK = TaskStatus


@pytest.fixture
async def world(aged_world):
    return aged_world


async def running_on(world, host, count=3, running=2, local=(CLUSTER,)):
    """A workflow of which a distributor of this host took all tasks, and some run."""
    bound = await world.bound(count)
    run = await bound.start(host=host)
    await run.register()
    await run.queue()
    (batch,) = (await run.sync(capacity={CLUSTER: count}, local=list(local))).launches
    ids = batch.task_instance_ids
    await run.sync(*(report(attempt, TI.RUNNING) for attempt in ids[:running]))
    return bound, run, ids


async def resume(bound, *, cold=False, gone=()):
    message = ResumeRequest(reset_running_jobs=cold, gone_run_ids=list(gone))
    return await bound.world.post(f"/workflows/{bound.workflow_id}/resume", ResumeResponse, message)


async def taken_over(bound, old, host, *, cold=False):
    """Resume from a host; return the new run, whose distributor has registered, and what it was told."""
    await resume(bound, cold=cold)
    await old.move(RUN.TERMINATED)
    new = await bound.start(host=host, until=RUN.REGISTERED if cold else RUN.RUNNING)
    return new, await new.register()


async def attempt_of(bound, attempt_id):
    details = [await bound.world.get(f"/tasks/{task_id}", TaskDetail) for task_id in bound.task_ids]
    return next(one for detail in details for one in detail.attempts if one.task_instance_id == attempt_id)


async def test_what_runs_on_another_host_is_not_handed_to_the_new_distributor(world):
    bound, old, _ = await running_on(world, "a")
    _, told = await taken_over(bound, old, "b")
    assert told.attempts == []
    assert not told.retired


async def test_what_any_host_can_see_is(world):
    bound, old, ids = await running_on(world, "a", local=())
    _, told = await taken_over(bound, old, "b")
    assert [one.task_instance_id for one in told.attempts] == ids
    assert (await old.sync()).fenced


async def test_a_replaced_distributor_stays_until_its_commands_have_ended(world):
    bound, old, ids = await running_on(world, "a")
    new, _ = await taken_over(bound, old, "b")
    answer = await old.sync(report(ids[0], TI.DONE), capacity={CLUSTER: 5}, local=[CLUSTER])
    assert (answer.retired, answer.fenced, answer.launches) == (True, False, [])
    assert (await bound.statuses())[bound.task_ids[0]] == TASK.DONE
    given_back = report(ids[2], TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST)
    assert (await old.sync(given_back)).retired
    assert (await old.sync(report(ids[1], TI.DONE))).retired
    assert (await old.sync()).fenced
    await new.queue()
    (batch,) = (await new.sync(capacity={CLUSTER: 5}, local=[CLUSTER])).launches
    assert batch.task_ids == [bound.task_ids[2]]


async def test_its_open_poll_tells_it_once(world):
    bound, old, _ = await running_on(world, "a")
    poll = asyncio.create_task(old.sync(wait_seconds=20.0, known_status=None))
    await asyncio.sleep(0)
    await resume(bound)
    await old.move(RUN.TERMINATED)
    await bound.start(host="b", until=RUN.REGISTERED)
    assert (await asyncio.wait_for(poll, 5)).workflow_run_status in (RUN.HOT_RESUME, RUN.TERMINATED)
    assert (await old.sync(wait_seconds=20.0)).retired
    again = asyncio.create_task(old.sync(wait_seconds=20.0, retired=True))
    done, _ = await asyncio.wait([again], timeout=0.3)
    assert not done
    again.cancel()


async def test_only_the_host_that_runs_it_is_told_to_end_an_attempt(world):
    bound, old, ids = await running_on(world, "a", count=2, running=2)
    new, _ = await taken_over(bound, old, "b", cold=True)
    assert (await new.sync()).kill == []
    assert (await old.sync()).kill == ids
    assert (await bound.world.get(f"/workflows/{bound.workflow_id}/resume", ResumeResponse)).kill_self == 2
    await old.sync(*(report(one, TI.ERROR, cause=Cause.KILLED_FOR_RESUME) for one in ids))
    await new.move(RUN.LINKING)
    assert await new.move(RUN.BOUND) == RUN.BOUND


async def test_it_may_register_again_and_gets_what_is_its_own(world):
    bound, old, ids = await running_on(world, "a")
    await taken_over(bound, old, "b")
    told = await old.register(epoch=old.epoch)
    assert told.retired
    assert told.epoch == 1
    assert [one.task_instance_id for one in told.attempts] == ids


async def test_whoever_was_not_the_last_of_its_host_may_not(world):
    bound, old, _ = await running_on(world, "a")
    first = replace(old)
    await old.register()
    await taken_over(bound, old, "b")
    with pytest.raises(Refused, match="StaleRun"):
        await first.register(epoch=first.epoch)
    assert (await first.sync()).fenced
    assert (await old.sync()).retired


async def test_its_own_host_takes_over_again(world):
    bound, old, ids = await running_on(world, "a")
    between, _ = await taken_over(bound, old, "b")
    newest, told = await taken_over(bound, between, "a")
    assert [one.task_instance_id for one in told.attempts] == ids
    assert (await old.sync()).fenced
    assert (await between.sync()).fenced
    assert not (await newest.sync()).retired


async def test_a_host_that_is_silent_loses_its_attempts_while_the_new_one_goes_on(world):
    bound, old, ids = await running_on(world, "a")
    new, _ = await taken_over(bound, old, "b")
    world.clock.seconds += 200
    await new.sync(alive=[])
    await old.sync(alive=ids[:1])
    world.clock.seconds += 200
    await new.sync()
    found = await bound.world.post(f"/workflow_runs/{new.id}/triage", TriageResponse)
    assert found.triaging == 2  # its distributor was heard of: it shall look
    assert (await attempt_of(bound, ids[0])).status == TI.RUNNING
    world.clock.seconds += 300
    await new.sync()
    await bound.world.post(f"/workflow_runs/{new.id}/triage", TriageResponse)
    ended = [await attempt_of(bound, one) for one in ids]
    assert [(one.status, one.cause, one.charged) for one in ended] == [(TI.UNKNOWN_ERROR, Cause.WORKER_LOST, False)] * 3
    assert set((await bound.statuses()).values()) == {TASK.REGISTERING}


async def test_a_run_does_not_give_up_its_own_host(world):
    """After a failure of the network its client may be heard of before its distributor."""
    bound, run, ids = await running_on(world, "a")
    world.clock.seconds += 400
    found = await bound.world.post(f"/workflow_runs/{run.id}/triage", TriageResponse)
    assert found.triaging == 3
    assert (await run.sync()).triage == ids


async def test_a_resume_from_elsewhere_has_orphans_ended_when_they_are_due(world):
    bound, old, _ = await running_on(world, "a")
    await resume(bound, cold=True, gone=[old.id])
    world.clock.seconds += 270
    await bound.world.post(f"/workflow_runs/{old.id}/triage", TriageResponse)
    assert (await bound.world.get(f"/workflows/{bound.workflow_id}/resume", ResumeResponse)).kill_self == 3
    world.clock.seconds += 20
    await bound.world.post(f"/workflow_runs/{old.id}/triage", TriageResponse)
    assert (await bound.world.get(f"/workflows/{bound.workflow_id}/resume", ResumeResponse)).is_resumable


async def test_the_reaper_judges_each_host_by_itself(world):
    bound, old, ids = await running_on(world, "a")
    new, _ = await taken_over(bound, old, "b")
    services = world.app.state.services
    reaper = Reaper(services.writer, services.readers, services.settings, services.clock)
    world.clock.seconds += 400
    await new.sync()
    assert (await reaper.do_pass()).attempts == len(ids)
