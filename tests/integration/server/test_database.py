"""The schema, its migrations, and many requests in one transaction."""

import asyncio
import sqlite3

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from server_world import Refused, open_world
from sqlalchemy import inspect, text

from jobmon.core.exceptions import ConfigError
from jobmon.core.wire.definition import ToolRequest, ToolResponse
from jobmon.server import migrations
from jobmon.server.database import open_engine
from jobmon.server.migrations.upgrading import alembic_config, known_revisions
from jobmon.server.models import metadata


@pytest.fixture
def engine(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path}/db.sqlite")
    yield engine
    engine.dispose()


def described(engine):
    """Everything about the tables that SQLite knows."""
    inspector = inspect(engine)
    return {
        table: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)],
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted(str(index["column_names"]) for index in inspector.get_indexes(table)),
            sorted(str(unique["column_names"]) for unique in inspector.get_unique_constraints(table)),
            sorted(str(key["constrained_columns"]) for key in inspector.get_foreign_keys(table)),
        )
        for table in inspector.get_table_names()
        if table != migrations.VERSION_TABLE
    }


def test_a_migrated_database_is_what_the_models_say(engine, tmp_path):
    command.upgrade(alembic_config(engine), "head")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrations.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        assert connection.scalar(text("SELECT stamp FROM logical_clock")) == 0
    created = open_engine(f"sqlite:///{tmp_path}/created.sqlite")
    migrations.upgrade(created)
    assert described(created) == described(engine)
    created.dispose()


def test_the_newest_revision_is_the_one_that_new_databases_get():
    scripts = ScriptDirectory.from_config(alembic_config())
    assert scripts.get_current_head() == migrations.HEAD
    assert known_revisions() == [script.revision for script in scripts.walk_revisions()][::-1]


def test_upgrading_again_changes_nothing(engine):
    migrations.upgrade(engine)
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT version_num FROM {migrations.VERSION_TABLE}")) == migrations.HEAD


def test_a_database_of_a_newer_version_is_refused_with_a_remedy(engine):
    migrations.upgrade(engine)
    with engine.connect() as connection:
        connection.execute(text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'"))
        connection.commit()
    with pytest.raises(ConfigError, match=r"9999.*Upgrade Jobmon"):
        migrations.upgrade(engine)


def test_a_uri_that_cannot_be_read_is_a_config_error():
    with pytest.raises(ConfigError, match="sqlalchemy_database_uri"):
        open_engine("nonsense")


async def test_requests_that_arrive_together_share_a_transaction_and_a_bad_one_fails_alone(tmp_path):
    async with open_world(tmp_path) as world:
        writer = world.app.state.services.writer

        def slow(tx):
            return [tx.value("SELECT 1") for _ in range(20_000)]

        def bad(tx):
            tx.insert("tool", name="never")
            raise ValueError("bad")

        held = asyncio.create_task(writer.run(slow))
        await asyncio.sleep(0)
        before = writer.transactions
        tools = [world.post("/tools", ToolResponse, ToolRequest(name=f"tool {i}")) for i in range(20)]
        answers, _ = await asyncio.gather(asyncio.gather(*tools), held)
        assert len({answer.tool_id for answer in answers}) == 20
        assert writer.transactions - before < 20

        failing = asyncio.create_task(writer.run(bad))
        names = ["a", "b"]
        good = [world.post("/tools", ToolResponse, ToolRequest(name=name)) for name in names]
        assert [answer.name for answer in await asyncio.gather(*good)] == names
        with pytest.raises(ValueError, match="bad"):
            await failing
        with sqlite3.connect(tmp_path / "jobmon.sqlite") as connection:
            assert connection.execute("SELECT COUNT(*) FROM tool WHERE name = 'never'").fetchone() == (0,)
        connection.close()


async def test_what_was_acknowledged_is_there_after_a_restart_and_time_goes_on(tmp_path):
    async with open_world(tmp_path) as world:
        bound = await world.bound(2)
        stamp = (await bound.changes()).time
        clock = world.clock
    clock.seconds -= 3600  # the clock of this machine was set back
    async with open_world(tmp_path, clock=clock) as world:
        bound.world = world
        assert (await bound.changes()).time == stamp
        run = await bound.start()
        await run.register()
        await run.queue()
        later = await bound.changes(since=stamp.isoformat())
        assert later.time > stamp
        assert [task_id for ids in later.tasks_by_status.values() for task_id in ids] == bound.task_ids


async def test_errors_say_what_is_wrong(tmp_path):
    async with open_world(tmp_path, request_bytes_max=1000) as world:
        with pytest.raises(Refused, match=r"413.*1000 bytes"):
            await world.post("/tools", None, {"name": "x" * 2000})
        with pytest.raises(Refused, match=r"422.*`\$.name`"):
            await world.post("/tools", None, {"name": 5})
        with pytest.raises(Refused, match=r"422.*wait_seconds"):
            await world.call("GET", "/workflows/1/changes", None, wait_seconds="soon")
        with pytest.raises(Refused, match=r"404.*no workflow 77"):
            await world.call("GET", "/workflows/77/changes")
        with pytest.raises(Refused, match=r"404.*/api/v1/nowhere"):
            await world.post("/nowhere")
        with pytest.raises(Refused, match="422"):
            await world.call("GET", f"/tasks/{2**70}")
        with pytest.raises(Refused, match="405"):
            await world.post("/health")
        for content in (b"{", b"", b'{"name": "\\ud800"}'):
            answer = await world.http.post("/api/v1/tools", content=content)
            assert (answer.status_code, answer.json()["kind"]) == (400, "ValidationError")


async def test_the_document_describes_every_route(tmp_path):
    async with open_world(tmp_path) as world:
        document = (await world.http.get("/api/v1/openapi.json")).json()
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) > 40
    assert "SyncRequest" in document["components"]["schemas"]
    changes = document["paths"]["/api/v1/workflows/{workflow_id}/changes"]["get"]["parameters"]
    assert [one["name"] for one in changes] == ["workflow_id", "since", "wait_seconds", "workflow_run_id"]
