"""Agents own what they claim, the same key gets the same answer, and nothing is lost when an agent dies."""

import asyncio

import pytest
from agent_world import Agent, ids_of
from server_world import CLUSTER, RUN, TI, ManualClock, Refused, open_world, report

from jobmon.core.constants import AgentStatus, Cause, TaskStatus
from jobmon.core.wire.binding import IdsResponse, ResourcesRequest, ResourcesSpec
from jobmon.core.wire.launching import LaunchProblem, SlotsWanted
from jobmon.core.wire.monitoring import TaskDetail, WorkflowExplanation
from jobmon.core.wire.run import (
    ConcurrencyRequest,
    ConcurrencyResponse,
    HeartbeatRequest,
    ResumeRequest,
    ResumeResponse,
    RunStatusResponse,
    TerminateResponse,
)
from jobmon.core.wire.swarm import QueueRequest, QueueResponse, TaskToArm
from jobmon.server.reaper import Reaper

TASK = TaskStatus
LONG_SECONDS = 280.0


@pytest.fixture
async def world(aged_world):
    return aged_world


async def started(world, count=3, **options):
    """A running workflow with all tasks queued, and an agent."""
    bound = await world.bound(count, **options)
    run = await bound.start()
    await run.queue()
    return bound, run, await Agent.register(run)


async def detail_of(bound, index=0):
    return await bound.world.get(f"/tasks/{bound.task_ids[index]}", TaskDetail)


async def task_status(bound, index=0):
    return (await bound.statuses())[bound.task_ids[index]]


async def do_pass(world):
    services = world.app.state.services
    await Reaper(services.writer, services.readers, services.settings, services.clock).do_pass()


def status_of(world, agent):
    return world.rows("SELECT status FROM agent WHERE id = :id", id=agent.id)[0][0]


# -- registering -----------------------------------------------------------------------------------------------------


async def test_the_same_key_registers_once(world):
    _, run, agent = await started(world)
    first = await Agent.register(run, key="k")
    again = await Agent.register(run, key="k")
    assert (again.id, again.answer) == (first.id, first.answer)
    assert first.id != agent.id
    assert first.answer.server_identity
    assert first.answer.working_directory == "/tmp"


async def test_only_the_newest_run_that_is_not_over_gets_agents(world):
    bound, run, _ = await started(world)
    await run.move(RUN.STOPPED)
    with pytest.raises(Refused, match="StaleRun"):
        await Agent.register(run)
    run = await bound.start(until=RUN.BOUND)
    await Agent.register(run)


@pytest.mark.parametrize(
    ("wrong", "kind"), [({"cluster": "nowhere"}, "NotFound"), ({"scope": "moon"}, "ValidationError")]
)
async def test_an_agent_that_asks_for_what_there_is_not_is_told_so(world, wrong, kind):
    _, run, _ = await started(world)
    with pytest.raises(Refused, match=kind):
        await Agent.register(run, **wrong)


async def test_predecessors_are_the_agents_of_this_host_that_have_not_left(world):
    _, run, first = await started(world)
    elsewhere = await Agent.register(run, host="other")
    left = await Agent.register(run)
    await left.sync(leaving=True)
    new = await Agent.register(run, pid=9)
    assert [one.agent_id for one in new.answer.predecessors] == [first.id]
    assert new.answer.predecessors[0].pid == 7
    assert not elsewhere.answer.predecessors


async def test_an_unknown_agent_is_not_found(world):
    _, _, agent = await started(world)
    agent.id = 99
    with pytest.raises(Refused, match="NotFound"):
        await agent.sync()


# -- claiming --------------------------------------------------------------------------------------------------------


async def test_what_is_claimed_belongs_to_the_agent_and_is_handed_out_once(world):
    bound, run, agent = await started(world)
    answer = await agent.sync(cores_free=2.0)
    launches = answer.launches
    assert launches.task_ids == bound.task_ids[:2]
    assert launches.commands == ["echo 0", "echo 1"]
    assert launches.attempts == [1, 1]
    assert [launches.requested_resources[one] for one in launches.requests] == [{"cores": 1}] * 2
    rows = world.rows("SELECT agent_id, status, report_by, batch_id FROM task_instance ORDER BY id")
    assert rows == [(agent.id, "I", None, None)] * 2 + [(None, "Q", None, None)]
    other = await Agent.register(run)
    assert len(await other.claim()) == 1
    assert await agent.claim() == []
    assert set((await bound.statuses()).values()) == {TASK.INSTANTIATING}


async def test_cores_are_counted_and_the_last_attempt_may_exceed_them(world):
    _, _, agent = await started(world, count=12)
    assert len(await agent.claim(0.0)) == 0
    assert len(await agent.claim(0.5)) == 1
    assert len(await agent.claim(2.5)) == 3
    assert len(ids_of(await agent.sync(cores_free=1.0, cores_ahead=2.0))) == 3


async def test_small_fractions_fill_the_cores(world):
    bound = await world.bound(50)
    specs = [ResourcesSpec(cluster_name=CLUSTER, queue_name="q", requested={"cores": 0.05}, kind="original")]
    bound.resources_id = (await world.post("/task_resources", IdsResponse, ResourcesRequest(resources=specs))).ids[0]
    run = await bound.start()
    await run.queue()
    agent = await Agent.register(run)
    assert len(await agent.claim(2.0)) == 40


async def test_the_same_key_gets_the_same_launches_until_they_have_started(world):
    _, _, agent = await started(world)
    first = await agent.sync(cores_free=2.0)
    again = await agent.sync(key=1, cores_free=2.0)
    assert again == first
    one, other = ids_of(first)
    await agent.sync(report(one, TI.RUNNING))
    assert ids_of(await agent.sync(key=1)) == [other]


async def test_a_request_that_was_overtaken_still_claims(world):
    _, _, agent = await started(world)
    assert len(await agent.claim(1.0)) == 1
    assert len(ids_of(await agent.sync(key=2, cores_free=1.0))) == 1
    assert len(ids_of(await agent.sync(key=1 + 2, cores_free=1.0))) == 1


async def test_an_inventory_brings_back_what_a_lost_answer_held(world):
    _, _, agent = await started(world)
    ids = await agent.claim(2.0)
    answer = await agent.sync(running=ids[:1], unstarted=[])
    assert ids_of(answer) == ids[1:]
    assert ids_of(await agent.sync(running=ids[:1], unstarted=ids[1:])) == []


async def test_limits_hold_that_were_changed_after_the_tasks_were_queued(world):
    bound, _, agent = await started(world, count=5)
    world.clock.seconds += 1
    route = f"/workflows/{bound.workflow_id}/concurrency"
    await world.call("PUT", route, ConcurrencyResponse, ConcurrencyRequest(max_concurrently_running=2))
    ids = await agent.claim()
    assert len(ids) == 2
    assert await agent.claim() == []
    await agent.sync(report(ids[0], TI.DONE, exit_code=0))
    assert len(await agent.claim()) == 1


async def test_nothing_is_claimed_by_a_draining_agent_nor_after_the_run(world):
    _, run, agent = await started(world, count=4)
    other = await Agent.register(run)
    assert await agent.claim(1.0)
    assert ids_of(await agent.sync(cores_free=2.0, drain=True)) == []
    assert await agent.claim() == []  # it does not come back
    assert status_of(world, agent) == AgentStatus.DRAINING
    await run.move(RUN.STOPPED)
    answer = await other.sync(cores_free=1.0)
    assert (answer.launches, answer.over) == (None, True)


async def test_an_open_poll_gets_work_in_the_transaction_that_queues_it(world):
    bound = await world.bound(2)
    run = await bound.start()
    agent = await Agent.register(run)
    poll = asyncio.create_task(agent.sync(cores_free=2.0, wait_seconds=20.0))
    await asyncio.sleep(0.01)
    await run.queue()
    answer = await asyncio.wait_for(poll, 5)
    assert answer.launches.task_ids == bound.task_ids


# -- ownership -------------------------------------------------------------------------------------------------------


async def test_only_the_owner_moves_an_attempt(world):
    bound, run, agent = await started(world)
    (attempt,) = await agent.claim(1.0)
    other = await Agent.register(run)
    done = report(attempt, TI.DONE, exit_code=0)
    refused = (await other.sync(done)).refused
    assert refused == {attempt: f"Attempt {attempt} belongs to agent {agent.id}: only its owner may report it."}
    await run.register()
    assert attempt in (await run.sync(done)).refused
    assert (await task_status(bound)) == TASK.INSTANTIATING
    assert (await agent.sync(done)).refused == {}
    assert (await task_status(bound)) == TASK.DONE


async def test_an_agent_does_not_report_what_a_distributor_launched(world):
    _, run, agent = await started(world)
    await run.register()
    attempt = (await run.launched(1)).task_instance_ids[0]
    refused = (await agent.sync(report(attempt, TI.DONE, exit_code=0))).refused
    assert refused == {attempt: f"Attempt {attempt} belongs to the distributor: only its owner may report it."}


async def test_a_distributor_is_told_nothing_of_an_agents_attempts(world):
    _, run, agent = await started(world)
    ids = await agent.claim(2.0)
    answer = await run.register()
    assert answer.attempts == []
    await world.post(f"/workflow_runs/{run.id}/terminate_task_instances", TerminateResponse)
    assert (await run.sync()).kill == []
    assert (await agent.sync()).kill == ids


async def test_reports_come_twice_and_of_unknown_attempts(world):
    _, _, agent = await started(world)
    (attempt,) = await agent.claim(1.0)
    done = report(attempt, TI.DONE, exit_code=0)
    await agent.sync(done)
    answer = await agent.sync(done, report(999, TI.DONE, exit_code=0))
    assert answer.unknown == [999]
    assert list(answer.refused) == [999]


# -- killing ---------------------------------------------------------------------------------------------------------


async def test_an_open_poll_hears_of_a_kill_once(world):
    bound, run, agent = await started(world)
    ids = await agent.claim(2.0)
    poll = asyncio.create_task(agent.sync(wait_seconds=20.0))
    await asyncio.sleep(0.01)
    await world.post(f"/workflow_runs/{run.id}/terminate_task_instances", TerminateResponse)
    assert (await asyncio.wait_for(poll, 5)).kill == ids
    killed = [report(one, TI.ERROR, cause=Cause.KILLED) for one in ids]
    await agent.sync(*killed)
    assert {one.cause for one in (await detail_of(bound)).attempts} == {Cause.KILLED}


async def test_a_cold_resume_orders_the_owner_and_waits_for_it(world):
    bound, run, agent = await started(world, count=1)
    ids = await agent.claim(1.0)
    message = ResumeRequest(reset_running_jobs=True, gone_run_ids=[run.id])
    answer = await world.post(f"/workflows/{bound.workflow_id}/resume", ResumeResponse, message)
    assert (answer.is_resumable, answer.kill_self, answer.kill_self_of_agents) == (False, 1, 1)
    assert [one.agent_id for one in answer.agents] == [agent.id]
    heard = await agent.sync(running=ids, unstarted=[], drain=True)
    assert (heard.kill, heard.over) == (ids, True)
    await agent.sync(report(ids[0], TI.ERROR, cause=Cause.KILLED), drain=True)
    answer = await world.get(f"/workflows/{bound.workflow_id}/resume", ResumeResponse)
    assert answer.is_resumable


async def test_after_a_hot_resume_the_old_agent_finishes_its_attempt(world):
    bound, run, agent = await started(world, count=2)
    (attempt,) = await agent.claim(1.0)
    await agent.sync(report(attempt, TI.RUNNING))
    message = ResumeRequest(reset_running_jobs=False, gone_run_ids=[run.id])
    await world.post(f"/workflows/{bound.workflow_id}/resume", ResumeResponse, message)
    new = await bound.start()
    successor = await Agent.register(new)
    assert [one.agent_id for one in successor.answer.predecessors] == [agent.id]
    assert (await agent.sync(drain=True)).over
    await agent.sync(report(attempt, TI.DONE, exit_code=0), drain=True, leaving=True)
    assert (await task_status(bound)) == TASK.DONE
    assert status_of(world, agent) == AgentStatus.CLOSED


# -- leaving and silence ---------------------------------------------------------------------------------------------


async def test_what_an_agent_leaves_behind_is_lost_and_not_charged(world):
    bound, _, agent = await started(world)
    ids = await agent.claim(3.0)
    await agent.sync(report(ids[0], TI.RUNNING))
    done = report(ids[1], TI.DONE, exit_code=0)
    answer = await agent.sync(done, leaving=True)
    assert answer.over
    details = [await detail_of(bound, index) for index in range(3)]
    assert [await task_status(bound, index) for index in range(3)] == [TASK.REGISTERING, TASK.DONE, TASK.REGISTERING]
    lost = details[0].attempts[0]
    assert (lost.status, lost.cause, lost.charged) == (TI.UNKNOWN_ERROR, Cause.WORKER_LOST, False)


async def test_a_silent_agent_is_lost_with_all_it_had_and_told_to_terminate_when_it_returns(world):
    bound, _, agent = await started(world, count=2)
    ids = await agent.claim(2.0)
    await agent.sync(report(ids[0], TI.RUNNING))
    world.clock.seconds += 279.0
    await do_pass(world)
    assert status_of(world, agent) == AgentStatus.ACTIVE
    world.clock.seconds += 2.0
    await do_pass(world)
    assert status_of(world, agent) == AgentStatus.LOST
    assert {await task_status(bound, index) for index in range(2)} == {TASK.REGISTERING}
    answer = await agent.sync(report(ids[1], TI.RUNNING), running=ids, unstarted=[], cores_free=2.0)
    assert (answer.kill, answer.over, answer.launches) == (ids, True, None)
    assert status_of(world, agent) == AgentStatus.LOST


async def test_heartbeats_keep_an_agent_and_its_attempts(world):
    bound, _, agent = await started(world, count=1)
    ids = await agent.claim(1.0)
    await agent.sync(report(ids[0], TI.RUNNING))
    for _ in range(5):
        world.clock.seconds += 90.0
        await agent.sync(running=ids, unstarted=[])
        await do_pass(world)
    assert (await task_status(bound)) == TASK.RUNNING


async def test_no_agent_is_lost_before_the_server_could_be_reached(tmp_path):
    clock = ManualClock()
    async with open_world(tmp_path, clock=clock) as world:
        _, _, agent = await started(world, count=1)
        await agent.claim(1.0)
    clock.seconds += 10_000.0
    async with open_world(tmp_path, clock=clock) as world:
        await do_pass(world)
        assert status_of(world, agent) == AgentStatus.ACTIVE
        clock.seconds += LONG_SECONDS
        await do_pass(world)
        assert status_of(world, agent) == AgentStatus.LOST


async def test_a_successor_speaks_for_a_dead_agent_and_closes_it(world):
    bound, run, dead = await started(world, count=2)
    ids = await dead.claim(2.0)
    successor = await Agent.register(run)
    assert [one.agent_id for one in successor.answer.predecessors] == [dead.id]
    journal = report(ids[0], TI.DONE, exit_code=0)
    await dead.sync(journal, leaving=True)
    assert [await task_status(bound, index) for index in range(2)] == [TASK.DONE, TASK.REGISTERING]


# -- cores, problems, explanations -----------------------------------------------------------------------------------


def wanted(agent, *, version, held, total=2.0):
    return SlotsWanted(pool="host:cluster", total=total, version=version, held=held, wanted=total, head=1.0)


async def test_an_agent_and_its_successor_share_the_cores(world):
    _, run, first = await started(world)
    second = await Agent.register(run)
    mine = (await first.sync(slots=wanted(first, version=0, held=0.0))).slots
    assert mine.cores == 2.0
    theirs = (await second.sync(slots=wanted(second, version=0, held=0.0))).slots
    assert theirs.cores == 0.0
    poll = asyncio.create_task(second.sync(slots=wanted(second, version=theirs.version, held=0.0), wait_seconds=20.0))
    await asyncio.sleep(0.01)
    await first.sync(leaving=True)
    assert (await asyncio.wait_for(poll, 5)).slots.cores == 2.0
    assert len(world.rows("SELECT 1 FROM slot_lease")) == 1


async def test_a_problem_is_shown_until_the_agent_says_that_it_is_over(world):
    _, _, agent = await started(world)
    problem = LaunchProblem(text="no folder", since_seconds=5.0, tried_seconds=1.0, next_seconds=2.0, waiting=1)
    await agent.sync(launch_problem=problem, has_problem=True)
    await agent.sync()
    assert world.rows("SELECT text FROM launch_problem") == [("no folder",)]
    await agent.sync(has_problem=True)
    assert world.rows("SELECT text FROM launch_problem") == []


async def test_a_distributor_of_the_same_workflow_does_not_touch_the_problems_of_agents(world):
    _, run, agent = await started(world)
    problem = LaunchProblem(text="no folder", since_seconds=5.0, tried_seconds=1.0, next_seconds=2.0, waiting=1)
    await agent.sync(launch_problem=problem, has_problem=True)
    await run.register()
    await run.sync(launch_problems={})
    assert world.rows("SELECT text FROM launch_problem") == [("no folder",)]
    await agent.sync(has_problem=True)
    await run.sync(launch_problems={CLUSTER: problem})
    await agent.sync(leaving=True)
    assert world.rows("SELECT text FROM launch_problem") == []


async def test_a_workflow_whose_agent_is_seen_is_not_said_to_have_no_distributor(world):
    bound, _, agent = await started(world)
    await agent.sync()
    found = await world.get(f"/workflows/{bound.workflow_id}/explanation", WorkflowExplanation)
    assert not [reason for reason in found.reasons if "distributor" in reason.text]


async def test_a_silent_distributor_is_noticed_though_an_agent_of_the_run_is_seen(world):
    bound, run, agent = await started(world)
    await run.register()
    beat = HeartbeatRequest(status=RUN.RUNNING.value, next_report_increment=2 * LONG_SECONDS)
    await world.post(f"/workflow_runs/{run.id}/heartbeat", RunStatusResponse, beat)
    world.clock.seconds += LONG_SECONDS
    await agent.sync()
    found = await world.get(f"/workflows/{bound.workflow_id}/explanation", WorkflowExplanation)
    assert [reason for reason in found.reasons if "distributor" in reason.text]
    await run.sync()
    found = await world.get(f"/workflows/{bound.workflow_id}/explanation", WorkflowExplanation)
    assert not [reason for reason in found.reasons if "distributor" in reason.text]


async def test_too_many_reports_are_refused(world):
    _, _, agent = await started(world)
    with pytest.raises(Refused, match="ValidationError"):
        await agent.sync(*[report(1, TI.DONE)] * 5001)
    with pytest.raises(Refused, match="ValidationError"):
        await agent.sync(running=[1] * 200_001, unstarted=[])


async def armed_successor(world):
    """A run with a queued task and an armed one behind it, and an agent that has claimed the first."""
    bound = await world.bound(2, edges={1: [0]})
    run = await bound.start()
    await run.queue(bound.task_ids[:1])
    armed = TaskToArm(
        task_id=bound.task_ids[1],
        task_resources_id=bound.resources_id,
        cluster_id=bound.cluster_id,
        missing=bound.task_ids[:1],
    )
    message = QueueRequest(batches=[], armed=[armed], seen=(await bound.changes()).time)
    await world.post(f"/workflow_runs/{run.id}/queue", QueueResponse, message)
    agent = await Agent.register(run)
    (attempt,) = await agent.claim(1.0)
    return bound, agent, report(attempt, TI.DONE, exit_code=0)


async def test_the_report_that_ends_the_last_upstream_brings_its_armed_successor(world):
    bound, agent, done = await armed_successor(world)
    answer = await agent.sync(done, cores_free=1.0)
    assert answer.launches.task_ids == bound.task_ids[1:]


async def test_a_draining_agents_report_fires_nothing(world):
    bound, agent, done = await armed_successor(world)
    await agent.sync(done, cores_free=1.0, drain=True)
    assert (await bound.statuses())[bound.task_ids[1]] == TASK.REGISTERING
