"""What users edited, and the superseded definitions of a task."""

from tests.databases import change

from jobmon.core.wire.changes import EditsResponse, RevisionsResponse
from jobmon.core.wire.steering import AdjustRequest, EditPlan, EditPlanRequest, EditRequest, EditResponse


async def edits(flow):
    return await flow.world.get(f"/workflows/{flow.workflow_id}/edited_tasks", EditsResponse)


async def revisions(flow, number):
    return await flow.world.get(f"/tasks/{flow.task_ids[number]}/revisions", RevisionsResponse)


async def edit(flow, number, **message):
    task_ids = [flow.task_ids[number]]
    route = f"/workflows/{flow.workflow_id}/edits"
    plan = await flow.world.post(f"{route}/plan", EditPlan, EditPlanRequest(task_ids=task_ids))
    request = EditRequest(task_ids=task_ids, revisions=plan.revisions, user="me", **message)
    return await flow.world.post(route, EditResponse, request)


async def test_edits_are_listed_with_what_the_script_defined(world):
    flow = await world.bound(3, commands=["echo 0", "echo 1", "echo 2"])
    assert (await edits(flow)).edits == []
    await edit(flow, 0, command="echo other")
    request = AdjustRequest(task_ids=flow.task_ids[1:2], memory="2G", max_attempts=9, user="me")
    await world.post(f"/workflows/{flow.workflow_id}/adjustments", EditResponse, request)
    second, first = (await edits(flow)).edits
    assert (first.name, first.user, first.was, first.now) == (
        "t_0",
        "me",
        {"command": "echo 0"},
        {"command": "echo other"},
    )
    assert (second.was, second.now) == (
        {"resources": {"cores": 1}, "max_attempts": 3},
        {"resources": {"cores": 1, "memory": 2}, "max_attempts": 9},
    )
    await edit(flow, 0, reset=True)
    assert [one.name for one in (await edits(flow)).edits] == ["t_1"]


async def test_each_revision_names_the_attempts_that_ran_it(world):
    flow = await world.bound(1, commands=["echo first"])
    run = await flow.start()
    await run.register()
    await run.queue()
    (attempt,) = (await run.launched()).task_instance_ids
    change(world.database_uri, f"UPDATE task_instance SET status = 'E', ended_at = 5 WHERE id = {attempt}")
    await edit(flow, 0, command="echo second")
    found = await revisions(flow, 0)
    assert [(one.number, one.command, one.attempts) for one in found.revisions] == [
        (2, "echo second", []),
        (1, "echo first", [1]),
    ]
    assert found.edited_by == "me"
    assert found.edited_at is not None


async def test_a_task_that_never_changed_has_one_definition(world):
    flow = await world.bound(1, commands=["echo it"])
    found = await revisions(flow, 0)
    assert [(one.number, one.command) for one in found.revisions] == [(1, "echo it")]
    assert (found.edited_by, found.edited_at) == ("", None)
