"""Priorities: what is queued is handed out in their order, live, and what was claimed in advance makes way."""

import pytest
from agent_world import Agent, ids_of
from server_world import TI, Refused, report, tasks_request, workflow_request
from tests.databases import change

from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING, TaskStatus
from jobmon.core.wire.binding import ArraySpec, ArraysRequest, IdsResponse, TasksResponse, WorkflowResponse
from jobmon.core.wire.launching import SlotsWanted
from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse
from jobmon.core.wire.steering import HistoryResponse, PriorityRequest, PriorityResponse
from jobmon.server.usecases import prioritizing

TASK = TaskStatus


async def prioritize(bound, priority, *task_ids, user="me", **message):
    request = PriorityRequest(priority=priority, task_ids=list(task_ids), user=user, **message)
    return await bound.world.post(f"/workflows/{bound.workflow_id}/priorities", PriorityResponse, request)


def tasks_of(world, attempts):
    rows = dict(world.rows("SELECT id, task_id FROM task_instance"))
    return [rows[attempt] for attempt in attempts]


async def test_attempts_are_handed_out_by_priority_then_age(world):
    bound = await world.bound(6)
    run = await bound.start()
    first, second, third, fourth, fifth, sixth = bound.task_ids
    assert (await prioritize(bound, 5, fourth, second)).changed == 2
    await run.queue()
    assert (await prioritize(bound, -3, first)).changed == 1
    assert (await prioritize(bound, 7, sixth)).changed == 1
    assert (await prioritize(bound, 7, sixth)).changed == 0
    agent = await Agent.register(run)
    claimed = [ids_of(await agent.sync(cores_free=1))[0] for _ in range(6)]
    assert tasks_of(world, claimed) == [sixth, second, fourth, third, fifth, first]


async def test_a_distributor_takes_them_in_the_same_order(world):
    bound = await world.bound(4)
    run = await bound.start()
    await run.register()
    await run.queue()
    first, second, third, fourth = bound.task_ids
    await prioritize(bound, -1, first)
    await prioritize(bound, 9, fourth)
    taken = [(await run.launched(1)).task_ids[0] for _ in range(4)]
    assert taken == [fourth, second, third, first]


@pytest.mark.parametrize("look", [1, 3, 100])
async def test_all_are_handed_out_however_many_at_once(world, look):
    bound = await world.bound(40)
    run = await bound.start()
    await run.queue()
    ids = bound.task_ids
    await prioritize(bound, 4, *ids[30:])
    await prioritize(bound, -4, *ids[:10])
    await prioritize(bound, 5, ids[20])
    agent = await Agent.register(run)
    claimed = []
    while new := ids_of(await agent.sync(cores_free=look)):
        claimed += new
    assert tasks_of(world, claimed) == [ids[20], *ids[30:], *ids[10:20], *ids[21:30], *ids[:10]]


async def test_the_priority_of_a_template_is_added_and_all_of_it_is_told(world):
    bound = await world.bound(3)
    run = await bound.start()
    before = (await bound.changes()).time.isoformat()
    first, second, _ = bound.task_ids
    assert (await prioritize(bound, 10, template="t", preview=True)).changed == 3
    assert (await bound.changes(since=before)).array_priorities is None
    assert (await prioritize(bound, 10, template="t")).changed == 3
    assert (await prioritize(bound, 10, template="t")).changed == 0
    await prioritize(bound, -2, second)
    told = await bound.changes(since=before)
    assert (told.priorities, told.array_priorities) == ({second: -2}, {bound.array_id: 10})
    await run.queue()
    priorities = dict(world.rows("SELECT task_id, priority FROM task_instance"))
    assert priorities == {task_id: 8 if task_id == second else 10 for task_id in bound.task_ids}
    await prioritize(bound, 0, template="t")
    assert dict(world.rows("SELECT task_id, priority FROM task_instance"))[first] == 0
    later = await bound.changes(since=told.time.isoformat())
    assert (later.priorities, later.array_priorities) == ({second: -2}, {})
    end_of_time = "9999-12-31T23:59:59+00:00"
    assert (await bound.changes(since=end_of_time)).priorities is None
    assert (await bound.changes(since=end_of_time, steering=True)).priorities == {second: -2}


async def test_what_an_agent_claimed_in_advance_is_recalled_for_something_more_urgent(world):
    bound = await world.bound(4)
    run = await bound.start()
    await run.queue()
    agent = await Agent.register(run)
    running, ahead = ids_of(await agent.sync(cores_free=2))
    await agent.sync(report(running, TI.RUNNING))
    answer = await prioritize(bound, 3, bound.task_ids[3])
    assert (answer.changed, answer.recalled) == (1, 1)
    assert (await agent.sync()).kill == [ahead]
    await agent.sync(report(ahead, TI.ERROR, cause="killed"))
    assert tasks_of(world, ids_of(await agent.sync(cores_free=1))) == [bound.task_ids[3]]
    assert (await bound.statuses())[bound.task_ids[1]] == TASK.REGISTERING
    assert world.rows("SELECT SUM(num_attempts) FROM task") == [(0,)]
    assert (await prioritize(bound, 3, bound.task_ids[3])).recalled == 0


async def test_what_was_claimed_in_advance_is_recalled_for_an_urgent_task_that_becomes_ready_later(world):
    bound = await world.bound(5, edges={4: [0]})
    run = await bound.start()
    first, *_, last = bound.task_ids
    await prioritize(bound, 3, last)
    await run.queue([first])
    agent = await Agent.register(run)
    [running] = ids_of(await agent.sync(cores_free=1))
    await agent.sync(report(running, TI.RUNNING))
    await run.queue(bound.task_ids[1:4])
    ahead = ids_of(await agent.sync(cores_free=2))
    assert len(ahead) == 2
    await agent.sync(report(running, TI.DONE))
    await run.queue([last], may_overtake=True)
    answer = await agent.sync()
    assert sorted(answer.kill) == sorted(ahead)
    await agent.sync(*[report(one, TI.ERROR, cause="killed") for one in ahead])
    assert tasks_of(world, ids_of(await agent.sync(cores_free=1))) == [last]
    assert world.rows("SELECT SUM(num_attempts) FROM task WHERE id != :id", id=first) == [(0,)]


async def test_queued_attempts_make_way_if_a_limit_keeps_urgent_tasks_from_being_queued(world):
    bound = await world.bound(4)
    run = await bound.start()
    first, second, third, fourth = bound.task_ids
    limit = ConcurrencyRequest(max_concurrently_running=2, user="me")
    await world.call("PUT", f"/workflows/{bound.workflow_id}/concurrency", ConcurrencyResponse, limit)
    await run.queue([first, second])
    assert (await prioritize(bound, 1, fourth)).recalled == 1
    statuses = await bound.statuses()
    assert (statuses[first], statuses[second]) == (TASK.QUEUED, TASK.REGISTERING)
    assert (await prioritize(bound, 1, third)).recalled == 0  # now there is room


@pytest.mark.parametrize("what", ["held = true", "kind = 'E'"])
async def test_nothing_makes_way_for_tasks_that_are_not_queued_anyway(world, what):
    bound = await world.bound(3)
    run = await bound.start()
    first, second, third = bound.task_ids
    limit = ConcurrencyRequest(max_concurrently_running=2, user="me")
    await world.call("PUT", f"/workflows/{bound.workflow_id}/concurrency", ConcurrencyResponse, limit)
    await run.queue([first, second])
    change(world.database_uri, f"UPDATE task SET {what} WHERE id = {third}")
    assert (await prioritize(bound, 1, third)).recalled == 0
    assert (await prioritize(bound, 2, third)).changed == 1


async def test_cores_of_a_pool_go_to_the_workflow_of_the_highest_priority(world):
    wanted = SlotsWanted(pool="host:pool", total=4, held=0, wanted=4, head=1, version=0)
    agents = []
    for _ in range(2):
        bound = await world.bound(1)
        agents.append((bound, await Agent.register(await bound.start())))
    (low, one), (high, other) = agents
    assert (await one.sync(slots=wanted)).slots.cores == 4
    assert (await other.sync(slots=wanted)).slots.cores < 4
    assert (await prioritize(high, 5)).changed == 1
    assert (await prioritize(high, 5)).changed == 0
    lowered = (await one.sync(slots=wanted)).slots
    assert lowered.cores == 0
    version = lowered.version
    await one.sync(slots=SlotsWanted(pool="host:pool", total=4, held=0, wanted=4, head=1, version=version))
    assert (await other.sync(slots=wanted)).slots.cores == 4
    entries = (await world.get(f"/workflows/{high.workflow_id}/history", HistoryResponse)).entries
    assert [one.details for one in entries if one.action == "priority"] == [{"priority": 5, "changed": 1}]
    assert low.workflow_id != high.workflow_id


async def test_a_script_that_is_run_again_changes_only_what_it_changed_itself(world):
    version, template, _, resources = await world.define()
    request = workflow_request(version, "w", 2, priority=1)
    workflow_id = (await world.post("/workflows", WorkflowResponse, request)).workflow_id

    async def record(workflow, array, tasks):
        await world.post("/workflows", WorkflowResponse, workflow_request(version, "w", 2, priority=workflow))
        spec = ArraySpec(
            task_template_version_id=template,
            name="t",
            max_concurrently_running=MAX_CONCURRENTLY_RUNNING,
            priority=array,
        )
        arrays = ArraysRequest(arrays=[spec])
        array_id = (await world.post(f"/workflows/{workflow_id}/arrays", IdsResponse, arrays)).ids[0]
        request = tasks_request(array_id, template, "w", 2, resources)
        request.priorities.update(tasks)
        found = await world.post(f"/workflows/{workflow_id}/tasks", TasksResponse, request)
        return found.task_ids

    def recorded():
        tables = ("workflow", "task_array", "task")
        return [row[0] for table in tables for row in world.rows(f"SELECT priority FROM {table} ORDER BY id")]

    ids = await record(1, 2, {1: 3})
    assert recorded() == [1, 2, 0, 3]
    route = f"/workflows/{workflow_id}/priorities"
    for message in ({}, {"template": "t"}, {"task_ids": ids}):
        await world.post(route, PriorityResponse, PriorityRequest(priority=50, user="me", **message))
    await record(1, 2, {1: 3})
    assert recorded() == [50, 50, 50, 50]
    await record(1, 2, {1: 4})
    assert recorded() == [50, 50, 50, 4]
    await record(-1, -2, {})
    assert recorded() == [-1, -2, 50, 0]


async def test_bad_requests_are_refused(world):
    bound = await world.bound(1)
    for message, status in (
        ({"task_ids": bound.task_ids, "template": "t"}, 422),
        ({"task_ids": [10**9]}, 404),
        ({"template": "no such"}, 404),
        ({"task_ids": bound.task_ids, "user": "somebody"}, 409),
        ({"user": "somebody"}, 409),
    ):
        task_ids = message.pop("task_ids", [])
        with pytest.raises(Refused) as refused:
            await prioritize(bound, 1, *task_ids, **message)
        assert refused.value.status == status
    for priority in (1001, -1001):
        with pytest.raises(Refused) as refused:
            await prioritize(bound, priority, *bound.task_ids)
        assert refused.value.status == 422


async def test_more_queued_attempts_than_one_request_moves_are_moved_by_the_next(world, monkeypatch):
    monkeypatch.setattr(prioritizing, "ATTEMPTS_PER_REQUEST_MAX", 2)
    bound = await world.bound(5)
    run = await bound.start()
    await run.queue()
    first = await prioritize(bound, 6, template="t")
    assert (first.changed, first.is_complete) == (5, False)
    second = await prioritize(bound, 6, template="t")
    assert (second.changed, second.is_complete) == (0, False)
    assert (await prioritize(bound, 6, template="t")).is_complete
    assert world.rows("SELECT DISTINCT priority FROM task_instance") == [(6,)]


@pytest.mark.parametrize("template", ["t", ""])
async def test_a_priority_is_not_set_if_it_is_another_one_than_expected(world, template):
    bound = await world.bound(2)
    previewed = await prioritize(bound, 4, template=template, preview=True)
    assert (previewed.changed, previewed.former) == (2, 0)
    assert (await prioritize(bound, 9, template=template)).former == 0
    with pytest.raises(Refused, match="changed from 0 to 9 in the meantime"):
        await prioritize(bound, 4, template=template, expected=0)
    assert (await prioritize(bound, 4, template=template, expected=9)).former == 9
    assert (await prioritize(bound, 4, template=template, preview=True)).changed == 0
