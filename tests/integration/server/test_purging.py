"""A purge deletes a workflow completely, keeps what others share, and resumes after an interruption."""

from __future__ import annotations

import itertools

import pytest
from server_world import RUN, TI, Refused, open_world, report
from sqlalchemy import inspect, text
from tests import databases

from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire import replace
from jobmon.core.wire.binding import TasksResponse
from jobmon.core.wire.launching import FoundFile
from jobmon.core.wire.monitoring import ExportPage, WorkflowsResponse
from jobmon.core.wire.server import CompactRequest, CompactResponse
from jobmon.core.wire.steering import PurgeRequest, PurgeResponse
from jobmon.core.wire.swarm import WorkflowMetadata
from jobmon.server import models, sql
from jobmon.server.database import open_engine
from jobmon.server.usecases import compacting, purging

REQUEST = PurgeRequest(user="me")
#: Tables whose rows belong to no workflow.
DEFINED = {
    *("tool", "tool_version", "task_template", "task_template_version", "cluster", "queue", "server_identity"),
    *("migration", "logical_clock", "signing_key"),
}
EDGES = {1: [0], 2: [0, 1]}
SHARED = {"task_resources", "argument", "audit", "lease"}


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


NUMBERED = ("workflow", "task", "workflow_run", "task_instance")


def highest_ids(world) -> list[int]:
    return [world.rows(f"SELECT MAX(id) FROM {table}")[0][0] or 0 for table in NUMBERED]


async def test_the_highest_ids_are_deleted_and_never_reused(tmp_path):
    async with open_world(tmp_path) as world:
        await ended(world)
        highest = highest_ids(world)
        newest = await ended(world)
        deleted = highest_ids(world)
        assert await purge(world, newest) == 3
        assert highest_ids(world) == highest
    async with open_world(tmp_path) as world:  # after a restart of the server
        world.counter = itertools.count(10)
        again = await ended(world)
        assert again.workflow_id == deleted[0] + 1
        assert sorted(again.task_ids)[0] > deleted[1]
        expected = {"workflow": 1, "task": 3, "workflow_run": 1, "task_instance": 4}
        for table, before in zip(NUMBERED, deleted, strict=True):
            assert len(world.rows(f"SELECT id FROM {table} WHERE id > {before}")) == expected[table]
        page = await world.get(f"/workflows/{again.workflow_id}/export", ExportPage)
        assert [len(task.attempts) for task in page.tasks] == [2, 1, 1]


async def test_ids_are_not_reused_after_a_purge_that_was_interrupted_and_a_request_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(purging, "ROWS_PER_TRANSACTION", 2)
    async with open_world(tmp_path) as world:
        bound = await ended(world)
        deleted = highest_ids(world)
        run = world.app.state.services.writer.run
        await run(purging.start_purge, bound.workflow_id, REQUEST)
        while await run(purging.purge_tasks, bound.workflow_id):
            pass
    async with open_world(tmp_path) as world:
        world.counter = itertools.count(10)

        def queue_and_fail(tx):
            assert tx.first_id(models.task) == (deleted[1] + 1 if tx.reuses_ids else None)
            raise InvalidRequest("rolled back")

        for _ in range(2):
            with pytest.raises(InvalidRequest):
                await world.app.state.services.writer.run(queue_and_fail)
        later = await ended(world)
        assert min(later.task_ids) > deleted[1]
        assert await world.app.state.services.writer.run(lambda tx: tx.first_id(models.task)) is None
        assert (await ended(world)).task_ids[0] == max(later.task_ids) + 1


async def test_nodes_go_with_their_last_task(tmp_path, monkeypatch):
    monkeypatch.setattr(purging, "NODES_PER_TRANSACTION", 2)
    async with open_world(tmp_path) as world:
        first = await ended(world)
        other = await world.bound(1)
        shared = replace(first.tasks, array_id=other.array_id)
        await world.post(f"/workflows/{other.workflow_id}/tasks", TasksResponse, shared)
        assert counts(tmp_path)["node"] == 4
        await purge(world, first)
        found = counts(tmp_path)
        assert (found["node"], found["node_arg"]) == (4, 4)
        page = await world.get(f"/workflows/{other.workflow_id}/export", ExportPage)
        assert [task.node_args for task in page.tasks] == [{"x": "0"}, {"x": "0"}, {"x": "1"}, {"x": "2"}]
        assert await purge(world, other) == 4
        found = counts(tmp_path)
        assert {name for name in found if found[name]} <= DEFINED


async def test_a_database_is_compacted_once_nothing_runs(tmp_path):
    request = CompactRequest()
    async with open_world(tmp_path) as world:
        is_sqlite = world.app.state.services.health.database == databases.SQLITE
        busy = await world.bound(1)
        run = await busy.start()
        goes = await world.bound(2_000)
        await purge(world, goes)
        if is_sqlite:
            with pytest.raises(Refused, match=r"409.*A workflow is running"):
                await world.post("/database/compact", CompactResponse, request)
        await run.move(RUN.STOPPED)
        found = await world.post("/database/compact", CompactResponse, request)
        if not is_sqlite:
            assert (found.database, found.bytes_before) == ("postgresql", None)
            return
        assert found.bytes_after < found.bytes_before / 2
        assert (tmp_path / "jobmon.sqlite").stat().st_size == found.bytes_after
        again = await world.post("/database/compact", CompactResponse, CompactRequest(only_if_useful=True))
        assert again.bytes_before == again.bytes_after == found.bytes_after
        actions = [action for (action,) in world.rows("SELECT action FROM audit ORDER BY id")]
        assert actions.count("compact") == 1
    assert counts(tmp_path)["workflow"] == 1


@pytest.mark.sqlite_only(reason="PostgreSQL compacts itself")
async def test_a_database_that_takes_too_long_to_compact_is_unchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(compacting, "SECONDS_MAX", 0.0)
    monkeypatch.setattr(sql, "INSTRUCTIONS_PER_CHECK", 1)
    async with open_world(tmp_path) as world:
        bound = await ended(world)
        before = counts(tmp_path)
        await purge(world, await world.bound(500))
        with pytest.raises(Refused, match=r"409.*takes longer than 0 s: it is unchanged"):
            await world.post("/database/compact", CompactResponse, CompactRequest())
        assert counts(tmp_path) == before
        assert bound.workflow_id == 1


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
