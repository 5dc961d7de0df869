"""Actions on sets of tasks: what a preview says, and that an action based on an outdated preview changes nothing."""

from __future__ import annotations

import json

import pytest
from server_world import CLUSTER, TI, Refused, report
from tests.databases import change

from jobmon.core.constants import SetAction, TaskStatus
from jobmon.core.wire import replace
from jobmon.core.wire.definition import Cluster, ClusterRequest, QueueSpec
from jobmon.core.wire.monitoring import TaskSummariesResponse
from jobmon.core.wire.run import ActiveRunsResponse, ConcurrencyRequest, ConcurrencyResponse, StopRequest, StopResponse
from jobmon.core.wire.steering import (
    AdjustRequest,
    EditResponse,
    HoldRequest,
    HoldResponse,
    PriorityRequest,
    PriorityResponse,
    TaskSetPlan,
    TaskSetRequest,
    TaskUpdateRequest,
    TaskUpdateResponse,
)
from jobmon.server.queries import task_sets

CONFLICT = 409, "WorkflowVersionConflict"


async def plan(flow, action, **wanted) -> TaskSetPlan:
    request = TaskSetRequest(action=action, **wanted)
    return await flow.world.post(f"/workflows/{flow.workflow_id}/task_sets/plan", TaskSetPlan, request)


async def hold(flow, found, *, held=True):
    request = HoldRequest(task_ids=found.task_ids, held=held, user="me", unchanged_since=found.snapshot)
    return await flow.world.post(f"/workflows/{flow.workflow_id}/holds", HoldResponse, request)


async def rerun(flow, found):
    request = TaskUpdateRequest(
        task_ids=found.task_ids, status="G", user="me", force=True, unchanged_since=found.snapshot
    )
    return await flow.world.post(f"/workflows/{flow.workflow_id}/task_updates", TaskUpdateResponse, request)


async def running(world, count=4, **options):
    """Return a workflow whose first task is done, whose second one runs, and whose last ones are not queued."""
    flow = await world.bound(count, **options)
    run = await flow.start()
    await run.register()
    await run.queue(flow.task_ids[:2])
    attempts = (await run.launched()).task_instance_ids
    await run.sync(report(attempts[0], TI.DONE), report(attempts[1], TI.RUNNING))
    return flow, run, attempts


async def test_a_filter_selects_tasks_and_the_preview_says_which_of_them_change(world):
    flow, *_ = await running(world)
    _, second, third, fourth = flow.task_ids
    found = await plan(flow, "hold")
    assert (found.task_ids, found.selected, found.unchanged, found.added) == ([second, third, fourth], 4, 1, 0)
    assert (found.counts, found.live, found.is_active) == ({"G": 2, "R": 1}, 1, True)
    assert (await plan(flow, "hold", name="t_2")).task_ids == [third]
    assert (await plan(flow, "hold", status=["R"], array="t")).task_ids == [second]
    assert (await plan(flow, "hold", array="other")).selected == 0
    assert (await plan(flow, "release", task_ids=[third])).task_ids == []
    assert (await hold(flow, found)).changed == 3
    assert (await plan(flow, "release", task_ids=[third])).task_ids == [third]


async def test_a_rerun_includes_what_is_downstream(world):
    flow, *_ = await running(world, edges={0: [], 1: [], 2: [0], 3: [2]})
    found = await plan(flow, "rerun", task_ids=[flow.task_ids[0]])
    # tasks downstream that have not run yet will run anyway
    assert (found.task_ids, found.selected, found.added) == ([flow.task_ids[0]], 1, 0)
    change(world.database_uri, f"UPDATE task SET status = 'F' WHERE id = {flow.task_ids[3]}")
    change(world.database_uri, "UPDATE status_count SET number = number - 1 WHERE status = 'G'")
    change(
        world.database_uri,
        "INSERT INTO status_count SELECT workflow_id, array_id, 'F', 1 FROM status_count WHERE status = 'G'",
    )
    found = await plan(flow, "rerun", task_ids=[flow.task_ids[0]])
    assert (found.task_ids, found.counts, found.added) == ([flow.task_ids[0], flow.task_ids[3]], {"D": 1, "F": 1}, 1)


async def test_a_set_of_nothing_changes_nothing(world):
    flow = await world.bound(2)
    for action in SetAction:
        found = await plan(flow, action, name="nothing like it")
        assert (found.task_ids, found.selected, found.counts) == ([], 0, {})


@pytest.mark.parametrize(
    ("message", "status", "words"),
    [
        (
            {"action": "delete"},
            422,
            "action: must be one of hold, release, rerun, skip, mark done, priority, edit, not 'delete'",
        ),
        ({"action": "hold", "task_ids": [4711]}, 404, "4711"),
    ],
)
async def test_what_cannot_be_previewed_is_named(world, message, status, words):
    flow = await world.bound(1)
    with pytest.raises(Refused) as refused:
        await plan(flow, **message)
    assert (refused.value.status, words in refused.value.message) == (status, True)


async def test_more_tasks_than_an_action_takes_are_refused_with_a_remedy(world, monkeypatch):
    flow = await world.bound(3)
    monkeypatch.setitem(task_sets.TASKS_MAX, SetAction.HOLD, 2)
    for wanted in ({}, {"task_ids": flow.task_ids}):
        with pytest.raises(Refused) as refused:
            await plan(flow, "hold", **wanted)
        assert refused.value.status == 422
    assert (await plan(flow, "release")).selected == 3
    assert (await plan(flow, "hold", task_ids=flow.task_ids[:2])).selected == 2


async def test_removed_tasks_are_not_part_of_a_set(world):
    flow = await world.bound(2)
    first, second = flow.task_ids
    change(world.database_uri, f"UPDATE task SET status = 'X' WHERE id = {second}")
    change(world.database_uri, "UPDATE status_count SET number = 1")
    change(world.database_uri, "INSERT INTO status_count SELECT workflow_id, array_id, 'X', 1 FROM status_count")
    for wanted in ({}, {"task_ids": [first, second]}):
        assert (await plan(flow, "hold", **wanted)).task_ids == [first]
    for action in ("hold", "rerun"):
        assert (await plan(flow, action, status=["X"])).selected == 0


async def test_one_preview_is_held_in_several_requests_unless_somebody_else_steers_in_between(world):
    flow = await world.bound(6)
    found = await plan(flow, "hold")
    first = await hold(flow, replace(found, task_ids=flow.task_ids[:2]))
    assert (first.changed, first.snapshot > found.snapshot) == (2, True)
    with pytest.raises(Refused):
        await hold(flow, replace(found, task_ids=flow.task_ids[2:4]))  # not the next one of the first
    second = await hold(flow, replace(found, task_ids=flow.task_ids[2:4], snapshot=first.snapshot))
    assert second.changed == 2
    again = await hold(flow, replace(found, task_ids=flow.task_ids[2:4], snapshot=second.snapshot))
    assert (again.changed, again.unchanged, again.snapshot) == (0, 2, second.snapshot)
    await hold(flow, await plan(flow, "release", task_ids=flow.task_ids[:1]), held=False)
    with pytest.raises(Refused) as refused:
        await hold(flow, replace(found, task_ids=flow.task_ids[4:], snapshot=again.snapshot))
    assert (refused.value.status, refused.value.kind) == CONFLICT
    assert (await plan(flow, "release")).task_ids == flow.task_ids[1:4]


async def test_a_hold_after_somebody_else_steered_changes_nothing(world):
    flow = await world.bound(3)
    mine, theirs = await plan(flow, "hold"), await plan(flow, "hold", task_ids=flow.task_ids[:1])
    assert (await hold(flow, theirs)).changed == 1
    with pytest.raises(Refused) as refused:
        await hold(flow, mine)
    assert (refused.value.status, refused.value.kind) == CONFLICT
    assert "Nothing was changed now" in refused.value.message
    assert (await plan(flow, "release")).task_ids == flow.task_ids[:1]
    assert (await hold(flow, await plan(flow, "hold"))).changed == 2


async def test_a_hold_is_not_hindered_by_tasks_that_go_on_meanwhile(world):
    flow, run, attempts = await running(world)
    found = await plan(flow, "hold")
    await run.sync(report(attempts[1], TI.DONE))
    assert (await hold(flow, found)).changed == 2


async def test_a_rerun_of_tasks_whose_status_changed_meanwhile_changes_nothing(world):
    flow, run, attempts = await running(world)
    found = await plan(flow, "rerun", task_ids=flow.task_ids[:2])
    assert (found.counts, found.live) == ({"D": 1, "R": 1}, 1)
    await run.sync(report(attempts[1], TI.DONE))
    with pytest.raises(Refused) as refused:
        await rerun(flow, found)
    assert (refused.value.status, refused.value.kind) == CONFLICT
    assert "The status of 1 task changed since the preview" in refused.value.message
    assert (await flow.statuses())[flow.task_ids[0]] == TaskStatus.DONE
    found = await plan(flow, "rerun", task_ids=flow.task_ids[:2])
    assert (await rerun(flow, found)).changed == 2


async def test_only_the_run_of_the_preview_is_stopped(world):
    flow, run, _ = await running(world)
    route = f"/workflows/{flow.workflow_id}"
    (active,) = (await world.get(f"{route}/active_runs", ActiveRunsResponse)).runs
    assert active.workflow_run_id == run.id
    with pytest.raises(Refused) as refused:
        await world.post(f"{route}/stop", StopResponse, StopRequest(user="me", workflow_run_id=run.id + 1))
    assert (refused.value.status, refused.value.kind) == CONFLICT
    stopped = await world.post(
        f"{route}/stop", StopResponse, StopRequest(user="me", kill=False, workflow_run_id=run.id)
    )
    assert (stopped.run_ids, stopped.left_running) == ([run.id], 1)
    with pytest.raises(Refused):
        await world.post(f"{route}/stop", StopResponse, StopRequest(user="me", workflow_run_id=run.id))


@pytest.mark.parametrize("part", ["", "/arrays/t"])
async def test_a_limit_is_changed_only_from_the_one_of_the_preview(world, part):
    flow = await world.bound(1)
    route = f"/workflows/{flow.workflow_id}{part}/concurrency"
    now = (await world.get(route, ConcurrencyResponse)).max_concurrently_running

    async def limit(to, expected):
        request = ConcurrencyRequest(max_concurrently_running=to, user="me", expected=expected)
        return (await world.call("PUT", route, ConcurrencyResponse, request)).max_concurrently_running

    assert await limit(5, now) == 5
    with pytest.raises(Refused) as refused:
        await limit(7, now)
    assert (refused.value.status, refused.value.kind) == CONFLICT
    assert f"from {now} to 5" in refused.value.message
    assert (await world.get(route, ConcurrencyResponse)).max_concurrently_running == 5


async def send(flow, route, message, reply):
    return await flow.world.post(f"/workflows/{flow.workflow_id}/{route}", reply, message)


async def update(flow, found, status):
    request = TaskUpdateRequest(
        task_ids=found.task_ids, status=status, user="me", force=True, unchanged_since=found.snapshot
    )
    return await send(flow, "task_updates", request, TaskUpdateResponse)


@pytest.mark.parametrize(("action", "status"), [("skip", "S"), ("mark done", "D")])
async def test_tasks_that_are_in_progress_are_neither_skipped_nor_marked_as_done(world, action, status):
    flow, *_ = await running(world)
    done, in_progress, third, fourth = flow.task_ids
    found = await plan(flow, action)
    assert (found.task_ids, found.selected, found.unchanged) == ([third, fourth], 4, 2)
    assert (await update(flow, found, status)).changed == 2
    statuses = await flow.statuses()
    assert [statuses[task_id] for task_id in (done, in_progress, third, fourth)] == ["D", "R", status, status]
    assert (await plan(flow, action)).task_ids == []


async def test_what_was_skipped_can_be_marked_as_done_or_rerun(world):
    flow = await world.bound(2)
    await update(flow, await plan(flow, "skip"), "S")
    assert (await plan(flow, "mark done")).task_ids == flow.task_ids
    assert (await plan(flow, "rerun", task_ids=flow.task_ids)).task_ids == flow.task_ids


async def prioritize(flow, found, priority):
    request = PriorityRequest(task_ids=found.task_ids, priority=priority, user="me", unchanged_since=found.snapshot)
    return await send(flow, "priorities", request, PriorityResponse)


async def test_a_priority_is_previewed_with_the_one_that_it_replaces(world):
    flow, *_ = await running(world)
    _, second, third, fourth = flow.task_ids
    found = await plan(flow, "priority", priority=5)
    assert (found.task_ids, found.unchanged, found.priority) == ([second, third, fourth], 1, 0)
    assert (await prioritize(flow, await plan(flow, "priority", priority=5, task_ids=[third]), 5)).changed == 1
    with pytest.raises(Refused) as refused:
        await prioritize(flow, found, 5)
    assert (refused.value.status, refused.value.kind) == CONFLICT
    found = await plan(flow, "priority", priority=7)
    assert (found.task_ids, found.priority) == ([second, third, fourth], None)
    assert (await plan(flow, "priority", priority=5)).task_ids == [second, fourth]


async def adjust(flow, found, **changes):
    request = AdjustRequest(task_ids=found.task_ids, user="me", unchanged_since=found.snapshot, **changes)
    return await send(flow, "adjustments", request, EditResponse)


def requests(flow):
    joined = "task_resources JOIN task ON task.task_resources_id = task_resources.id"
    rows = flow.world.rows(f"SELECT task.id, requested, max_attempts, command FROM {joined} ORDER BY task.id")
    return {row[0]: (json.loads(row[1]), *row[2:]) for row in rows}


async def test_an_adjustment_merges_amounts_and_is_taken_back(world):
    flow = await world.bound(3, max_attempts=2)
    before = requests(flow)
    found = await plan(flow, "edit", task_ids=flow.task_ids[:2])
    assert (await adjust(flow, found, memory="2G", runtime="1h", max_attempts=7)).changed == 2
    now = requests(flow)
    for task_id in flow.task_ids[:2]:
        assert now[task_id] == ({**before[task_id][0], "memory": 2, "runtime": 3600}, 7, before[task_id][2])
    assert now[flow.task_ids[2]] == before[flow.task_ids[2]]
    with pytest.raises(Refused) as refused:
        await adjust(flow, found, max_attempts=9)
    assert (refused.value.status, refused.value.kind) == CONFLICT
    assert (await adjust(flow, await plan(flow, "edit", task_ids=flow.task_ids[:2]), reset=True)).changed == 2
    assert requests(flow) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory": "much"}, "'much'"),
        ({"cores": "-1"}, "above 0"),
        ({"runtime": "soon"}, "'soon'"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"cores": "100000"}, "above the maximum"),
        ({}, "reset"),
        ({"reset": True, "max_attempts": 2}, "reset"),
    ],
)
async def test_an_adjustment_that_cannot_be_made_changes_nothing(world, changes, words):
    flow = await world.bound(1)
    limited = QueueSpec(queue_name="q", parameters={"max_cores": 8})
    await world.post("/clusters", Cluster, ClusterRequest(name=CLUSTER, plugin="dummy", queues=[limited]))
    before = requests(flow)
    with pytest.raises(Refused) as refused:
        await adjust(flow, await plan(flow, "edit"), **changes)
    assert (refused.value.status, words in refused.value.message) == (422, True), refused.value.message
    assert requests(flow) == before


async def test_a_done_task_is_not_edited(world):
    flow, *_ = await running(world)
    found = await plan(flow, "edit")
    assert flow.task_ids[0] not in found.task_ids
    with pytest.raises(Refused) as refused:
        await adjust(flow, replace(found, task_ids=flow.task_ids[:1]), max_attempts=9)
    assert refused.value.status == 409


async def test_the_tasks_of_a_host_are_those_whose_newest_attempt_was_there(world):
    flow = await world.bound(4)
    run = await flow.start()
    await run.register()
    await run.queue()
    batch = await run.launched()
    hosts = ["bad", "bad", "good", "bad"]
    await run.sync(
        *(report(one, TI.RUNNING, host=host) for one, host in zip(batch.task_instance_ids, hosts, strict=True))
    )
    first, second, third, fourth = batch.task_instance_ids
    await run.sync(
        *(report(one, TI.ERROR_FATAL) for one in (first, second, third)),
        report(fourth, TI.ERROR),  # it is retried on another host
    )
    await run.queue([batch.task_ids[3]])
    (again,) = (await run.launched()).task_instance_ids
    await run.sync(report(again, TI.RUNNING, host="good"))
    found = await plan(flow, SetAction.RERUN, status=["F"], host="bad")
    assert (found.task_ids, found.added) == (sorted(batch.task_ids[:2]), 0)
    query = {"host": "good", "total": True, "order": "importance"}
    shown = await world.get(f"/workflows/{flow.workflow_id}/task_summaries", TaskSummariesResponse, **query)
    assert ({one.task_id for one in shown.tasks}, shown.total) == (set(batch.task_ids[2:]), 2)
    assert (await plan(flow, SetAction.HOLD, host="ba")).task_ids == []
