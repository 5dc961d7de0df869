"""The tasks of a workflow, the most important ones first."""

import random
from contextlib import closing
from itertools import product

import pytest
from server_world import TI, report
from tests.databases import change

from jobmon.core.constants import TaskStatus
from jobmon.core.wire.monitoring import TaskSummariesResponse
from jobmon.core.wire.steering import TaskUpdateResponse
from jobmon.server.kept import Kept
from jobmon.server.queries import importance, monitoring
from jobmon.server.queries.importance import Rank

STATUSES = "DGRFSEOQ"
WAITING = importance.statuses_of(Rank.WAITING)


async def page(flow, **query):
    wanted = {"order": "importance", "total": True, **query}
    return await flow.world.get(f"/workflows/{flow.workflow_id}/task_summaries", TaskSummariesResponse, **wanted)


async def mixed(world):
    """Return a workflow with a task of each status, the retried one of which is held."""
    flow = await world.bound(len(STATUSES))
    run = await flow.start()
    await run.register()
    await run.queue()
    await run.launched(len(STATUSES))  # an attempt of each task is live
    change(world.database_uri, "DELETE FROM status_count WHERE status <> 'G'")
    for task_id, status in zip(flow.task_ids, STATUSES, strict=True):
        change(world.database_uri, f"UPDATE task SET status = '{status}', held = {status == 'E'} WHERE id = {task_id}")
        change(
            world.database_uri,
            f"INSERT INTO status_count SELECT workflow_id, array_id, '{status}', 1 FROM status_count"
            f" WHERE status = 'G' AND '{status}' <> 'G'",
        )
    change(world.database_uri, "UPDATE status_count SET number = 1 WHERE status = 'G'")
    return flow


async def test_failed_held_running_and_waiting_tasks_come_before_done_ones(world):
    flow = await mixed(world)
    found = await page(flow)
    assert "".join(one.status for one in found.tasks) == "FEROGQDS"
    assert (found.total, found.rank) == (8, Rank.SKIPPED)


@pytest.mark.parametrize("name", ["", "t_*"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
async def test_pages_join_without_a_gap_or_an_overlap(world, limit, name):
    flow = await mixed(world)
    whole = [one.task_id for one in (await page(flow)).tasks]
    seen, rank, after = [], 0, 0
    for _ in range(len(whole)):
        part = await page(flow, limit=limit, rank=rank, after=after, name=name)
        if not part.tasks:
            break
        assert part.total == len(whole)
        seen += [one.task_id for one in part.tasks]
        rank, after = part.rank, seen[-1]
    assert seen == whole


async def test_filters_apply_within_the_order(world):
    flow = await mixed(world)
    found = await page(flow, status="D")
    assert ([one.status for one in found.tasks], found.total) == (["D"], 1)
    assert [one.name for one in (await page(flow, name="t_3")).tasks] == ["t_3"]
    assert (await page(flow, array="other")).total == 0


async def test_the_priority_of_a_task_includes_that_of_its_template(world):
    flow = await world.bound(2)
    change(world.database_uri, "UPDATE task_array SET priority = 10")
    change(world.database_uri, f"UPDATE task SET priority = 5 WHERE id = {flow.task_ids[0]}")
    assert [one.priority for one in (await page(flow)).tasks] == [15, 10]


def test_each_task_has_exactly_one_rank():
    for status, held in product(TaskStatus, (False, True)):
        rank = importance.rank_of(status, held=held)
        assert [one for one in Rank if status in importance.statuses_of(one) and one == rank] == [rank]
    assert {rank for status in TaskStatus for rank in [importance.rank_of(status, held=False)]} == {*Rank} - {Rank.HELD}


async def test_tasks_that_wait_are_those_of_the_database_after_every_change(world):
    chance = random.Random(2)
    flow = await world.bound(12)
    run = await flow.start()
    await run.register()

    async def shown():
        found = [one.task_id for one in (await page(flow, limit=5)).tasks if one.status in WAITING]
        with closing(world.app.state.services.database.open_session()) as session:
            session.begin(writing=False)
            query = monitoring.TasksQuery(order="importance", limit=5)
            fresh = monitoring.task_summaries(session, flow.workflow_id, query, Kept())
        assert found == [one.task_id for one in fresh.tasks if one.status in WAITING]
        return found

    waiting = list(flow.task_ids)
    while waiting:
        chosen = chance.sample(waiting[:6], min(len(waiting), 2))
        await run.queue(chosen)
        assert await shown()
        attempts = (await run.launched(2)).task_instance_ids
        endings = [chance.choice((TI.DONE, TI.DONE, TI.ERROR)) for _ in attempts]
        await run.sync(*(report(one, TI.RUNNING) for one in attempts))
        await shown()
        await run.sync(*(report(one, end) for one, end in zip(attempts, endings, strict=True)))
        statuses = await flow.statuses()
        waiting = [task_id for task_id in flow.task_ids if statuses[task_id] in WAITING]
        assert await shown() == waiting[:5][: len(waiting)]
    message = {"task_ids": [flow.task_ids[3]], "status": "G", "user": "me", "force": True}
    await world.post(f"/workflows/{flow.workflow_id}/task_updates", TaskUpdateResponse, message)
    assert await shown() == [flow.task_ids[3]]
