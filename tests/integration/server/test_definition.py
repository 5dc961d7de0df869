"""Read the recorded definition as columns: pages, sets in parts, and missing objects."""

from __future__ import annotations

import pytest
from server_world import Refused

from jobmon.core.wire.changes import (
    DefinitionPage,
    RecordedWorkflow,
    UpstreamsRequest,
    UpstreamsResponse,
)
from jobmon.server.queries import definition


async def pages(world, bound, **query):
    found, after = [], 0
    while not found or not found[-1].is_last:
        found.append(
            await world.get(f"/workflows/{bound.workflow_id}/definition", DefinitionPage, after=after, **query)
        )
        after = found[-1].task_ids[-1] if found[-1].task_ids else after
    return found


async def test_all_tasks_come_as_columns(world):
    bound = await world.bound(5, edges={3: [0, 1], 4: [0, 1]})
    [page] = await pages(world, bound)
    assert page.task_ids == bound.task_ids
    assert [template.command_template for template in page.templates] == ["echo {x} {y}"]
    assert page.node_args == [[value] for value in bound.tasks.node_args["x"]]
    assert page.task_args == [[value] for value in bound.tasks.task_args["y"]]
    assert page.commands == bound.tasks.commands
    assert page.set_ids[:3] == [0, 0, 0]
    assert all(page.set_ids[3:])
    assert page.attempts == {}


@pytest.mark.parametrize("count", [1, 2, 5, 100])
async def test_pages_are_complete(world, count):
    bound = await world.bound(5)
    assert [task_id for page in await pages(world, bound, count=count) for task_id in page.task_ids] == bound.task_ids


async def test_pages_of_long_commands_are_shorter(world, monkeypatch):
    monkeypatch.setattr(definition, "DEFINITION_CHARACTERS_MAX", 250)
    bound = await world.bound(5, commands=["x" * 100] * 5)
    assert [len(page.task_ids) for page in await pages(world, bound)] == [2, 2, 1]


@pytest.mark.parametrize("most", [1, 2, 3, 100])
async def test_sets_come_in_parts(world, monkeypatch, most):
    monkeypatch.setattr(definition, "UPSTREAMS_PER_ANSWER_MAX", most)
    bound = await world.bound(8, edges={5: [0, 1, 2, 3, 4], 6: [0], 7: [1, 2]})
    [page] = await pages(world, bound)
    found, left, after = {}, sorted(filter(None, page.set_ids)), 0
    while left:
        request = UpstreamsRequest(set_ids=left, after_task=after)
        answer = await world.post(f"/workflows/{bound.workflow_id}/upstreams", UpstreamsResponse, request)
        assert sum(map(len, answer.task_ids)) <= most
        for set_id, task_ids in zip(left, answer.task_ids, strict=False):
            found.setdefault(set_id, []).extend(task_ids)
        left, after = left[len(answer.task_ids) - bool(answer.last_task) :], answer.last_task
    wanted = {5: [0, 1, 2, 3, 4], 6: [0], 7: [1, 2]}
    for at, members in wanted.items():
        assert sorted(found[page.set_ids[at]]) == [bound.task_ids[member] for member in members]


async def test_a_workflow_is_found_by_its_arguments(world):
    bound = await world.bound(2)
    [(args_hash,)] = world.rows("SELECT workflow_args_hash FROM workflow")
    query = {"tool_name": "tool", "workflow_args_hash": args_hash}
    found = await world.get("/recorded_workflow", RecordedWorkflow, **query)
    assert found.workflow_id == bound.workflow_id
    assert found == await world.get(f"/workflows/{bound.workflow_id}/recorded", RecordedWorkflow)
    for other in ({"tool_name": "another"}, {"workflow_args_hash": "0" * 64}, {"tool_version_id": 99}):
        nothing = await world.get("/recorded_workflow", RecordedWorkflow, **query | other)
        assert nothing.workflow_id is None


async def test_what_does_not_exist_is_refused(world):
    for route in ("/workflows/99/definition", "/workflows/99/recorded"):
        with pytest.raises(Refused, match="99"):
            await world.get(route, DefinitionPage)
    bound = await world.bound(1)
    with pytest.raises(Refused, match="count: must be from 1 to"):
        await world.get(f"/workflows/{bound.workflow_id}/definition", DefinitionPage, count=0)
    many = UpstreamsRequest(set_ids=[1] * 5_001)
    with pytest.raises(Refused, match="set_ids: at most"):
        await world.post(f"/workflows/{bound.workflow_id}/upstreams", UpstreamsResponse, many)
