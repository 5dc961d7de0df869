"""Held tasks are not queued, their unstarted attempts are recalled, and both are reported."""

import pytest
from agent_world import Agent, ids_of
from server_world import RUN, TI, Refused, report

from jobmon.core.constants import TaskStatus
from jobmon.core.wire.monitoring import TaskExplanation, WorkflowExplanation
from jobmon.core.wire.steering import (
    HistoryResponse,
    HoldRequest,
    HoldResponse,
    TaskUpdateRequest,
    TaskUpdateResponse,
)
from jobmon.core.wire.swarm import ArraysResponse, QueueBatch, QueueRequest, QueueResponse, TaskToArm

TASK = TaskStatus


async def hold(bound, *task_ids, held=True, user="me", **message):
    request = HoldRequest(task_ids=list(task_ids), held=held, user=user, **message)
    return await bound.world.post(f"/workflows/{bound.workflow_id}/holds", HoldResponse, request)


async def queue(run, task_ids, **message):
    batch = QueueBatch(
        array_id=run.bound.array_id,
        task_ids=task_ids,
        task_resources_id=run.bound.resources_id,
        cluster_id=run.bound.cluster_id,
    )
    request = QueueRequest(batches=[batch] if task_ids else [], **message)
    return await run.bound.world.post(f"/workflow_runs/{run.id}/queue", QueueResponse, request)


async def test_a_held_task_is_not_queued_until_it_is_released(world):
    bound = await world.bound(3)
    run = await bound.start()
    first, second, third = bound.task_ids
    before = (await bound.changes()).time
    assert (await bound.changes(since=before.isoformat())).held is None
    assert (await hold(bound, second)).changed == 1
    assert (await hold(bound, second)).unchanged == 1
    assert (await bound.changes(since=before.isoformat())).held == [second]
    answer = await queue(run, bound.task_ids)
    assert answer.tasks_by_status == {TASK.QUEUED: [first, third], TASK.REGISTERING: [second]}
    assert answer.held == [second]
    assert (await hold(bound, second, held=False)).changed == 1
    assert (await bound.changes()).held == []
    assert (await queue(run, [second])).tasks_by_status == {TASK.QUEUED: [second]}


async def test_what_has_not_started_is_recalled_uncharged_and_what_runs_finishes(world):
    bound = await world.bound(3)
    run = await bound.start()
    await queue(run, bound.task_ids)
    agent = await Agent.register(run)
    launched = ids_of(await agent.sync(cores_free=2))
    await agent.sync(report(launched[0], TI.RUNNING))
    answer = await hold(bound, *bound.task_ids)
    assert (answer.changed, answer.recalled) == (3, 2)
    assert (await agent.sync()).kill == [launched[1]]
    await agent.sync(report(launched[1], TI.ERROR, cause="killed"))
    await agent.sync(report(launched[0], TI.DONE, exit_code=0))
    statuses = await bound.statuses()
    assert [statuses[each] for each in bound.task_ids] == [TASK.DONE, TASK.REGISTERING, TASK.REGISTERING]
    assert not ids_of(await agent.sync(cores_free=2))
    found = await world.get(f"/tasks/{bound.task_ids[1]}/explanation", TaskExplanation)
    assert found.num_attempts == 0
    assert found.reasons[0].kind == "held"
    assert f"jobmon task release {bound.task_ids[1]}" in found.reasons[0].text
    workflow = await world.get(f"/workflows/{bound.workflow_id}/explanation", WorkflowExplanation)
    assert "2 tasks are held. To release: jobmon task release ID" in [reason.text for reason in workflow.reasons]


async def test_an_armed_task_that_is_held_is_not_queued_when_its_upstream_task_is_done(world):
    bound = await world.bound(2)
    run = await bound.start()
    await run.register()
    first, second = bound.task_ids
    await queue(run, [first])
    (attempt,) = (await run.launched()).task_instance_ids
    armed = TaskToArm(
        task_id=second, task_resources_id=bound.resources_id, cluster_id=bound.cluster_id, missing=[first]
    )
    seen = (await bound.changes()).time
    assert (await queue(run, [], armed=[armed], seen=seen)).armed == [second]
    await hold(bound, second)
    await run.sync(report(attempt, TI.DONE, exit_code=0), capacity={"cluster": 5})
    assert (await bound.statuses())[second] == TASK.REGISTERING


async def test_a_template_is_held_as_a_whole_and_done_tasks_are_left_alone(world):
    bound = await world.bound(3)
    run = await bound.start()
    await run.register()
    await queue(run, bound.task_ids[:1])
    (attempt,) = (await run.launched()).task_instance_ids
    await run.sync(report(attempt, TI.DONE, exit_code=0))
    name = (await world.get(f"/workflows/{bound.workflow_id}/arrays", ArraysResponse)).arrays[0].name
    assert (await hold(bound, template=name, preview=True)).changed == 2
    assert (await bound.changes()).held == []
    assert (await hold(bound, template=name)).changed == 2
    assert (await hold(bound, template=name)).changed == 0
    assert sorted((await bound.changes()).held) == bound.task_ids[1:]
    assert (await hold(bound, template=name, held=False)).changed == 2
    entries = (await world.get(f"/workflows/{bound.workflow_id}/history", HistoryResponse)).entries
    assert [entry.action for entry in entries][:2] == ["release", "hold"]
    assert entries[1].details == {"tasks": bound.task_ids[1:], "changed": 2, "template": name}


async def test_bad_requests_are_refused(world):
    bound = await world.bound(1)
    for message, status in (
        ({"task_ids": []}, 422),
        ({"task_ids": bound.task_ids, "template": "x"}, 422),
        ({"task_ids": [10**9]}, 404),
        ({"template": "no such"}, 404),
        ({"task_ids": bound.task_ids, "user": "somebody"}, 409),
    ):
        task_ids = message.pop("task_ids", [])
        with pytest.raises(Refused) as refused:
            await hold(bound, *task_ids, **message)
        assert refused.value.status == status
    assert (await hold(bound, *bound.task_ids, user="somebody", any_owner=True)).changed == 1


async def test_a_done_task_is_reopened_while_its_workflow_runs(world):
    bound = await world.bound(2)
    run = await bound.start()
    await run.register()
    await queue(run, bound.task_ids)
    attempts = (await run.launched()).task_instance_ids
    await run.sync(*(report(each, TI.DONE, exit_code=0) for each in attempts))
    first = bound.task_ids[0]
    route = f"/workflows/{bound.workflow_id}/task_updates"
    asked = TaskUpdateRequest(task_ids=[first], status=TASK.REGISTERING, user="me", force=True)
    assert (await world.post(route, TaskUpdateResponse, asked)).changed == 1
    assert await run.move(RUN.DONE) == RUN.RUNNING  # the orchestrator did not know
    assert (await queue(run, [first])).tasks_by_status == {TASK.QUEUED: [first]}
    (attempt,) = (await run.launched()).task_instance_ids
    await run.sync(report(attempt, TI.DONE, exit_code=0))
    assert await run.move(RUN.DONE) == RUN.DONE


async def test_a_request_that_does_not_know_of_a_reopened_upstream_task_queues_nothing(world):
    bound = await world.bound(2, edges={1: [0]})
    run = await bound.start()
    await run.register()
    first, second = bound.task_ids
    await queue(run, [first])
    (attempt,) = (await run.launched()).task_instance_ids
    await run.sync(report(attempt, TI.DONE, exit_code=0))
    seen = (await bound.changes()).time
    asked = TaskUpdateRequest(task_ids=[first], status=TASK.REGISTERING, user="me", force=True)
    await world.post(f"/workflows/{bound.workflow_id}/task_updates", TaskUpdateResponse, asked)
    assert (await queue(run, [second], seen=seen)).tasks_by_status == {TASK.REGISTERING: [second]}
    assert (await bound.changes(since=seen.isoformat())).tasks_by_status == {TASK.REGISTERING: [first, second]}


async def test_an_attempt_that_finishes_although_it_was_stopped_for_a_rerun_leaves_its_task_to_be_rerun(world):
    bound = await world.bound(2, edges={1: [0]})
    run = await bound.start()
    await run.register()
    first, second = bound.task_ids
    await queue(run, [first])
    (attempt,) = (await run.launched()).task_instance_ids
    await run.sync(report(attempt, TI.RUNNING))
    asked = TaskUpdateRequest(task_ids=[first], status=TASK.REGISTERING, user="me", force=True)
    answer = await world.post(f"/workflows/{bound.workflow_id}/task_updates", TaskUpdateResponse, asked)
    assert answer.to_kill == 1
    await run.sync(report(attempt, TI.DONE, exit_code=0))
    assert await bound.statuses() == {first: TASK.REGISTERING, second: TASK.REGISTERING}
    assert (await queue(run, [first])).tasks_by_status == {TASK.QUEUED: [first]}
    (attempt,) = (await run.launched()).task_instance_ids
    await run.sync(report(attempt, TI.DONE, exit_code=0))
    assert await bound.statuses() == {first: TASK.DONE, second: TASK.REGISTERING}
