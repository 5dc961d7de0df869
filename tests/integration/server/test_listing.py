"""The page's lists: workflows by name, tasks by template and name, in pages."""

import pytest
from server_world import Refused, open_world

from jobmon.core.wire import monitoring


async def test_workflows_by_name_and_in_portions(tmp_path):
    async with open_world(tmp_path) as world:
        bound = [await world.bound(1) for _ in range(3)]
        ids = [one.workflow_id for one in bound]
        names = [one.request.name for one in bound]

        async def found(**query):
            answer = await world.http.get("/api/v1/workflows", params=query)
            return [one["workflow_id"] for one in answer.json()["workflows"]]

        assert await found() == ids[::-1]
        assert await found(name=names[1]) == ids[1:2]
        assert await found(name=f"*{names[1][1:]}") == ids[1:2]
        assert await found(name="w*") == ids[::-1]
        assert await found(name="%") == await found(name="*_*") == []
        assert await found(limit=2) == ids[:0:-1]
        assert await found(before=ids[1]) == ids[:1]
        assert await found(before=ids[0]) == []


async def test_tasks_by_template_and_name_and_in_portions(tmp_path):
    async with open_world(tmp_path) as world:
        bound = await world.bound(7)

        async def found(**query):
            answer = await world.http.get(f"/api/v1/workflows/{bound.workflow_id}/task_summaries", params=query)
            return [one["task_id"] for one in answer.json()["tasks"]]

        everything = await found()
        assert everything == sorted(bound.task_ids)
        assert await found(after=everything[2], limit=2) == everything[3:5]
        assert await found(after=everything[-1]) == []
        summaries = (await world.http.get(f"/api/v1/workflows/{bound.workflow_id}/task_summaries")).json()["tasks"]
        one = monitoring.TaskSummary(**summaries[3])
        assert await found(name=one.name) == [one.task_id]
        assert await found(name=f"*{one.name[1:]}") == [one.task_id]
        assert await found(name="_" * len(one.name)) == []
        assert await found(array=one.array_name, after=everything[3]) == everything[4:]
        assert await found(array="other") == []


@pytest.mark.parametrize("route", ["/workflows", "/workflows/1/task_summaries"])
@pytest.mark.parametrize("status", ["BOGUS", "", "d"])
async def test_a_status_that_does_not_exist_is_an_error_and_not_an_empty_list(world, route, status):
    await world.bound(1)
    with pytest.raises(Refused, match=r"422.*status: .* is not one of "):
        await world.get(route, dict, status=["D", status])
    assert await world.get(route, dict, status=["D"])
