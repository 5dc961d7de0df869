"""Edits: the next attempt runs them, the script wins only if it changed, and nothing is half applied."""

import pytest
from agent_world import Agent, ids_of
from server_world import TI, Refused, report

from jobmon.core.constants import TaskStatus
from jobmon.core.wire.binding import IdsResponse, ResourcesRequest, ResourcesSpec, TasksResponse
from jobmon.core.wire.changes import DefinitionPage
from jobmon.core.wire.definition import Cluster, ClusterRequest, QueueSpec
from jobmon.core.wire.steering import (
    EditPlan,
    EditPlanRequest,
    EditRequest,
    EditResponse,
    HistoryResponse,
    TaskUpdateRequest,
    TaskUpdateResponse,
)

TASK = TaskStatus


async def plan(bound, *task_ids):
    question = EditPlanRequest(task_ids=list(task_ids))
    return await bound.world.post(f"/workflows/{bound.workflow_id}/edits/plan", EditPlan, question)


async def edit(bound, *task_ids, user="me", revisions=None, **message):
    if revisions is None:
        revisions = (await plan(bound, *task_ids)).revisions
    request = EditRequest(task_ids=list(task_ids), revisions=revisions, user=user, **message)
    return await bound.world.post(f"/workflows/{bound.workflow_id}/edits", EditResponse, request)


async def resources(world, cluster="here", **requested):
    spec = ResourcesSpec(cluster_name=cluster, queue_name="q", requested=requested, kind="validated")
    return (await world.post("/task_resources", IdsResponse, ResourcesRequest(resources=[spec]))).ids[0]


async def bind_again(bound, **changes):
    """Record the tasks again, as a script that is run again does."""
    from jobmon.core.wire import replace

    request = replace(bound.tasks, **changes)
    return await bound.world.post(f"/workflows/{bound.workflow_id}/tasks", TasksResponse, request)


def recorded(world, task_id):
    return world.rows(f"SELECT command, task_resources_id, max_attempts, revision FROM task WHERE id = {task_id}")[0]


async def test_the_next_attempt_runs_the_edit_and_one_that_has_not_started_is_recalled(world):
    bound = await world.bound(3)
    run = await bound.start()
    running, claimed, queued = bound.task_ids
    await run.queue()
    agent = await Agent.register(run)
    attempts = ids_of(await agent.sync(cores_free=2))
    await agent.sync(report(attempts[0], TI.RUNNING))
    before = (await bound.changes()).time.isoformat()
    answer = await edit(bound, *bound.task_ids, command="echo new", max_attempts=7)
    assert (answer.changed, answer.recalled) == (3, 2)
    assert (await agent.sync()).kill == [attempts[1]]
    await agent.sync(report(attempts[1], TI.ERROR, cause="killed"))
    told = await bound.changes(since=before)
    assert told.edited == dict.fromkeys(bound.task_ids, 2)
    await agent.sync(report(attempts[0], TI.ERROR, exit_code=1))  # retried, with the new command
    await run.queue()
    launches = (await agent.sync(cores_free=9)).launches
    assert launches.task_ids == [running, claimed, queued]
    assert launches.commands == ["echo new"] * 3
    rows = world.rows("SELECT revision, charged FROM task_instance ORDER BY id")
    assert [row[0] for row in rows] == [1, 1, 1, 2, 2, 2]
    assert world.rows("SELECT SUM(num_attempts) FROM task") == [(1,)]
    entries = (await world.get(f"/workflows/{bound.workflow_id}/history", HistoryResponse)).entries
    (entry,) = [one for one in entries if one.action == "edit"]
    details = {"tasks": bound.task_ids, "changed": 3, "command": "echo new", "max_attempts": 7, "recalled": 2}
    assert (entry.user, entry.details) == ("me", details)


async def test_a_request_to_queue_that_does_not_know_of_the_edit_queues_nothing(world):
    bound = await world.bound(1)
    run = await bound.start()
    seen = (await bound.changes()).time
    await edit(bound, *bound.task_ids, max_attempts=9)
    assert await run.queue(seen=seen) == {TASK.REGISTERING: bound.task_ids}
    assert await run.queue(seen=(await bound.changes()).time) == {TASK.QUEUED: bound.task_ids}


async def test_an_edit_survives_the_script_until_the_script_changes_that_value(world):
    bound = await world.bound(2)
    first, second = bound.task_ids
    more = await resources(world, cores=4)
    await edit(bound, first, command="echo mine", task_resources_ids=[more])
    await edit(bound, second, max_attempts=9)
    assert (await bind_again(bound)).superseded == []
    assert recorded(world, first) == ("echo mine", more, 3, 2)
    assert recorded(world, second) == ("echo 1", bound.resources_id, 9, 2)
    found = await bind_again(bound, commands=["echo fixed", "echo other"])
    assert [(one.task_id, one.user) for one in found.superseded] == [(first, "me")]
    assert recorded(world, first) == ("echo fixed", more, 3, 2)  # its resources are still the user's
    assert recorded(world, second) == ("echo other", bound.resources_id, 9, 2)
    found = await bind_again(bound, commands=["echo fixed", "echo other"])
    assert found.superseded == []
    entries = (await world.get(f"/workflows/{bound.workflow_id}/history", HistoryResponse)).entries
    assert [one.details["tasks"] for one in entries if one.action == "supersede edits"] == [[first]]


async def test_a_reset_restores_what_the_script_defined(world):
    bound = await world.bound(2)
    first, second = bound.task_ids
    more = await resources(world, cores=4)
    await edit(bound, first, command="echo mine", task_resources_ids=[more], max_attempts=9)
    await edit(bound, first, command="echo again")
    assert (await plan(bound, first, second)).edited == [True, False]
    assert (await edit(bound, first, second, reset=True)).changed == 1
    assert recorded(world, first) == ("echo 0", bound.resources_id, 3, 4)
    assert (await plan(bound, first)).edited == [False]
    assert (await edit(bound, first, reset=True)).changed == 0


async def test_a_reset_restores_what_was_requested_before_a_failure_raised_it(world):
    bound = await world.bound(1)
    run = await bound.start()
    (task_id,) = bound.task_ids
    agent = await Agent.register(run)
    await run.queue()
    (attempt,) = await agent.claim()
    await agent.sync(report(attempt, TI.RESOURCE_ERROR))
    spec = ResourcesSpec(cluster_name="here", queue_name="q", requested={"cores": 2}, kind="adjusted")
    (raised,) = (await world.post("/task_resources", IdsResponse, ResourcesRequest(resources=[spec]))).ids
    raising = type(bound)(**{**vars(bound), "resources_id": raised})
    await type(run)(raising, run.id).queue()
    (attempt,) = await agent.claim()
    await agent.sync(report(attempt, TI.ERROR, exit_code=1))
    assert recorded(world, task_id)[1] == raised
    await edit(bound, task_id, task_resources_ids=[await resources(world, cores=8)])
    await edit(bound, task_id, reset=True)
    assert recorded(world, task_id)[1] == bound.resources_id


async def test_of_two_clients_at_once_the_second_is_refused_and_told_by_whom(world):
    bound = await world.bound(2)
    based_on = (await plan(bound, *bound.task_ids)).revisions
    await edit(bound, bound.task_ids[1], command="echo theirs")
    with pytest.raises(Refused, match=f"Task {bound.task_ids[1]} was changed by me in the meantime") as refused:
        await edit(bound, *bound.task_ids, revisions=based_on, command="echo mine")
    assert refused.value.status == 409
    assert [recorded(world, each)[0] for each in bound.task_ids] == ["echo 0", "echo theirs"]


async def test_done_and_removed_tasks_are_refused_and_nothing_is_changed(world):
    bound = await world.bound(3)
    run = await bound.start()
    done, removed, waiting = bound.task_ids
    await run.queue([done])
    agent = await Agent.register(run)
    (attempt,) = await agent.claim()
    await agent.sync(report(attempt, TI.DONE, exit_code=0))
    with pytest.raises(Refused, match=f"Task {done} is done. To run it with this edit: jobmon task rerun {done}"):
        await edit(bound, waiting, done, command="echo new")
    services = world.app.state.services
    await services.writer.run(_remove, bound.workflow_id, removed)
    no_longer = f"Task {removed} is no longer part of workflow {bound.workflow_id}"
    for asked in (
        lambda: edit(bound, waiting, removed, revisions=[1, 1], command="echo new"),
        lambda: plan(bound, removed),
        lambda: world.post(
            f"/workflows/{bound.workflow_id}/task_updates",
            TaskUpdateResponse,
            TaskUpdateRequest(task_ids=[waiting, removed], status=TASK.SKIPPED, user="me", force=True),
        ),
    ):
        with pytest.raises(Refused, match=no_longer):
            await asked()
    assert recorded(world, waiting) == ("echo 2", bound.resources_id, 3, 1)
    assert (await bound.statuses())[waiting] == TASK.REGISTERING


def _remove(tx, workflow_id, task_id):
    from jobmon.core.changes import StatusChange
    from jobmon.server import transitions

    transitions.change_statuses(tx, workflow_id, [task_id], StatusChange.REMOVE)


async def test_a_done_task_is_edited_and_reopened_in_one_step(world):
    bound = await world.bound(2, edges={1: [0]})
    run = await bound.start()
    first, second = bound.task_ids
    agent = await Agent.register(run)
    await run.queue([first])
    (attempt,) = await agent.claim()
    await agent.sync(report(attempt, TI.DONE, exit_code=0))
    seen = (await bound.changes()).time
    await edit(bound, first, command="echo new", rerun=True)
    assert await run.queue([second], seen=seen) == {TASK.REGISTERING: [second]}
    await run.queue([first])
    assert (await agent.sync(cores_free=1)).launches.commands == ["echo new"]


async def test_the_definition_tells_what_ran_and_what_the_script_defined(world):
    bound = await world.bound(1)
    run = await bound.start()
    agent = await Agent.register(run)
    await run.queue()
    (attempt,) = await agent.claim()
    await agent.sync(report(attempt, TI.RUNNING))
    await agent.sync(report(attempt, TI.ERROR, exit_code=1))
    await edit(bound, *bound.task_ids, max_attempts=4)
    await edit(bound, *bound.task_ids, command="echo new")
    page = await world.get(f"/workflows/{bound.workflow_id}/definition", DefinitionPage)
    assert page.commands == ["echo new"]
    assert (page.edits[0].user, page.edits[0].command) == ("me", "echo 0")
    assert (page.ran[0].command, page.ran[0].upstreams) == ("echo 0", "")


async def test_bad_requests_are_refused(world):
    bound = await world.bound(1)
    other = ClusterRequest(name="other", plugin="dummy", queues=[QueueSpec(queue_name="q")])
    await world.post("/clusters", Cluster, other)
    (task_id,) = bound.task_ids
    elsewhere = await resources(world, "other", cores=1)
    for message, status in (
        ({}, 422),
        ({"command": " "}, 422),
        ({"command": "x", "reset": True}, 422),
        ({"max_attempts": 0}, 422),
        ({"command": "x", "revisions": []}, 422),
        ({"task_resources_ids": [bound.resources_id, 1]}, 422),
        ({"task_resources_ids": [10**9]}, 422),
        ({"task_resources_ids": [elsewhere]}, 422),
        ({"command": "x", "user": "somebody"}, 409),
    ):
        with pytest.raises(Refused) as refused:
            await edit(bound, task_id, **message)
        assert refused.value.status == status, message
    with pytest.raises(Refused) as refused:
        await edit(bound, 10**9, revisions=[1], command="x")
    assert refused.value.status == 404
    with pytest.raises(Refused) as refused:
        await edit(bound, task_id, task_id, revisions=[1, 1], command="x")
    assert refused.value.status == 422
    assert recorded(world, task_id) == ("echo 0", bound.resources_id, 3, 1)
