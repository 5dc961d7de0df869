"""A workflow is forgotten for good, what others share with it stays, and an interrupted purge is taken up again."""

from __future__ import annotations

import itertools

import pytest
from server_world import RUN, TI, Refused, open_world, report
from sqlalchemy import inspect, text
from tests import databases

from jobmon.core.wire.launching import FoundFile
from jobmon.core.wire.monitoring import ExportPage, WorkflowsResponse
from jobmon.core.wire.steering import PurgeRequest, PurgeResponse
from jobmon.core.wire.swarm import WorkflowMetadata
from jobmon.server.database import open_engine
from jobmon.server.usecases import purging

REQUEST = PurgeRequest(user="me")
EDGES = {1: [0], 2: [0, 1]}
SHARED = {"node", "node_arg", "task_resources", "argument", "audit", "lease"}


def counts(folder) -> dict[str, int]:
    """Rows by table, of those that belong to workflows."""
    engine = open_engine(databases.current().uri(folder))
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        found = {table: connection.scalar(text(f"SELECT COUNT(*) FROM {table}")) for table in tables}
        if engine.dialect.name == databases.SQLITE:  # others check at every statement
            assert connection.execute(text("PRAGMA foreign_key_check")).fetchall() == []
    engine.dispose()
    return {table: count for table, count in found.items() if table not in SHARED}


def own(found: dict[str, int]) -> dict[str, int]:
    """Rows that a workflow has for itself."""
    names = ("task", "task_instance", "log_tail", "upstream_set_member", "dag_node", "dag", "workflow", "task_array")
    return {name: found[name] for name in names}


FOUND = FoundFile(is_output=True, path="/out", matches=1, size_bytes=1, modified=1)


async def ended(world):
    """Return a workflow of three tasks, one of which failed once, whose run is over."""
    bound = await world.bound(3, edges=EDGES)
    run = await bound.start()
    await run.register()
    for number, task_id in enumerate(bound.task_ids):
        for status in ([TI.ERROR] if number == 0 else []) + [TI.DONE]:
            await run.queue([task_id])
            (attempt,) = (await run.launched()).task_instance_ids
            await run.sync(report(attempt, TI.RUNNING))
            error = "why" if status is TI.ERROR else None
            await run.sync(report(attempt, status, error=error, log_tail="said", files=[FOUND]))
    await run.move(RUN.DONE)
    return bound


async def purge(world, bound, **changes):
    request = PurgeRequest(**({"user": "me"} | changes))
    return (await world.post(f"/workflows/{bound.workflow_id}/purge", PurgeResponse, request)).tasks


async def test_nothing_is_left_of_a_purged_workflow_and_others_are_whole(tmp_path):
    async with open_world(tmp_path) as world:
        goes = await ended(world)
        before = counts(tmp_path)
        stays = await ended(world)
        for table in ("log_tail", "attempt_file"):
            assert counts(tmp_path)[table] == 2 * before[table] > 0
        assert await purge(world, goes) == 3
        assert counts(tmp_path) == before
        if world.app.state.services.health.database == databases.SQLITE:  # others never use a number again
            with pytest.raises(Refused, match=r"409.*highest IDs"):
                await purge(world, stays)
        with pytest.raises(Refused, match="404"):
            await world.get(f"/workflows/{goes.workflow_id}/metadata", WorkflowMetadata)
        with pytest.raises(Refused, match="404"):
            await purge(world, goes)
        page = await world.get(f"/workflows/{stays.workflow_id}/export", ExportPage)
    assert [len(task.attempts) for task in page.tasks] == [2, 1, 1]
    waits = [sorted(up for number in task.upstream_sets for up in page.sets[number]) for task in page.tasks]
    assert waits == [[], stays.task_ids[:1], stays.task_ids[:2]]
    assert page.tasks[1].node_args == {"x": "1"}
    assert page.tasks[1].task_args == {"y": "same"}


async def test_what_is_alive_or_of_others_stays(tmp_path):
    async with open_world(tmp_path) as world:
        bound = await world.bound(3, edges=EDGES)
        with pytest.raises(Refused, match=r"409.*belongs to me, not to you"):
            await purge(world, bound, user="you")
        run = await bound.start()
        await run.register()
        await run.queue()
        with pytest.raises(Refused, match=r"409.*is being run by process 1 on host"):
            await purge(world, bound)
        await run.launched()
        await run.move(RUN.STOPPED)
        with pytest.raises(Refused, match=r"409.*may still run"):
            await purge(world, bound)
        assert (await world.get("/workflows", WorkflowsResponse)).workflows[0].task_count == 3


async def test_an_interrupted_purge_is_taken_up_and_the_same_workflow_can_be_recorded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(purging, "ROWS_PER_TRANSACTION", 1)
    async with open_world(tmp_path) as world:
        bound = await ended(world)
        empty = counts(tmp_path)
        await ended(world)
        run = world.app.state.services.writer.run
        await run(purging.start_purge, bound.workflow_id, REQUEST)
        assert await run(purging.purge_tasks, bound.workflow_id) == 1
    async with open_world(tmp_path) as world:
        assert (await world.get("/workflows", WorkflowsResponse)).workflows[1].counts == {"D": 2}
        run = world.app.state.services.writer.run
        while await run(purging.purge_tasks, bound.workflow_id):
            pass
        await run(purging.purge_rest, bound.workflow_id, REQUEST)
        assert await run(purging.purge_dags)  # and here the server ends
    async with open_world(tmp_path) as world:
        again = await world.bound(3, edges=EDGES)  # the same hashes
        page = await world.get(f"/workflows/{again.workflow_id}/export", ExportPage)
        assert sorted(len(task.upstream_sets) for task in page.tasks) == [0, 1, 1]
        world.counter = itertools.count(10)
        await ended(world)
        await ended(world)
        assert await purge(world, again) == 3
        assert {name: 3 * count for name, count in own(empty).items()} == own(counts(tmp_path))


async def test_workflows_are_found_by_status_and_age(tmp_path):
    async with open_world(tmp_path) as world:
        done = await ended(world)
        world.clock.seconds += 100
        fresh = await world.bound(1)

        async def found(**query):
            return [one.workflow_id for one in (await world.get("/workflows", WorkflowsResponse, **query)).workflows]

        assert await found(status="D") == [done.workflow_id]
        assert await found(status=["D", "G"]) == [fresh.workflow_id, done.workflow_id]
        moment = world.clock.now().isoformat()
        assert await found(unchanged_since=moment) == [fresh.workflow_id, done.workflow_id]
        world.clock.seconds -= 50
        assert await found(unchanged_since=world.clock.now().isoformat()) == [done.workflow_id]
        with pytest.raises(Refused, match="422"):
            await found(unchanged_since="yesterday")
