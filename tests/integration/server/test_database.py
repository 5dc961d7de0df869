"""The schema, its migrations, and many requests in one transaction."""

import asyncio
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from server_world import Refused, open_world
from sqlalchemy import inspect, text
from tests.databases import SQLITE

from jobmon.core.exceptions import ConfigError
from jobmon.core.wire.definition import ToolRequest, ToolResponse
from jobmon.server import migrations
from jobmon.server.database import Database, open_engine
from jobmon.server.migrations import upgrading
from jobmon.server.migrations.upgrading import alembic_config, known_revisions
from jobmon.server.models import tool
from jobmon.server.models.tables import metadata
from jobmon.server.transaction import last_stamp

UPGRADE = """
import sys
from jobmon.server.database import open_engine
from jobmon.server.migrations import upgrade

upgrade(open_engine(sys.argv[1]))
"""

TRIGGERS = """
SELECT relname, pg_get_triggerdef(t.oid), prosrc
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal ORDER BY relname, tgname
"""


@pytest.fixture
def engine(tmp_path, databases):
    engine = open_engine(databases.uri(tmp_path, "empty", empty=True))
    yield engine
    engine.dispose()


def triggers_of(engine):
    """The triggers of each table and the texts of their functions."""
    found = {}
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            for table, trigger, function in connection.execute(text(TRIGGERS)):
                found.setdefault(table, []).append((trigger, function))
    return found


def described(engine):
    """Everything that the database says about its tables."""
    inspector = inspect(engine)
    columns, keys = inspector.get_multi_columns(), inspector.get_multi_pk_constraint()
    indexes, uniques = inspector.get_multi_indexes(), inspector.get_multi_unique_constraints()
    foreign, triggers = inspector.get_multi_foreign_keys(), triggers_of(engine)
    return {
        table: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in columns[table]],
            keys[table]["constrained_columns"],
            sorted(str((index["name"], index["column_names"])) for index in indexes[table]),
            sorted(str(unique["column_names"]) for unique in uniques[table]),
            sorted(str(key["constrained_columns"]) for key in foreign[table]),
            triggers.get(table[1], []),
        )
        for table in columns
        if table[1] != migrations.VERSION_TABLE
    }


def differences(engine):
    """Return the differences between the models and the database."""
    with engine.connect() as connection:
        options = {
            "version_table": migrations.VERSION_TABLE,
            "compare_type": True,
            "include_object": upgrading.only_of(engine.dialect.name),
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


@pytest.fixture
def created(tmp_path, databases):
    """A database that was made from the models."""
    created = open_engine(databases.uri(tmp_path, "created", empty=True))
    migrations.upgrade(created)
    yield created
    created.dispose()


def test_migrations_lead_to_the_models_and_back_from_every_revision(engine, created):
    config = alembic_config(engine)
    newest_first = known_revisions()[::-1]
    command.upgrade(config, "head")
    assert differences(engine) == []
    assert described(created) == described(engine)
    shapes = {}
    for revision in newest_first:
        shapes[revision] = described(engine)
        command.downgrade(config, "-1")
    assert described(engine) == {}
    for revision in reversed(newest_first):
        command.upgrade(config, revision)
        assert described(engine) == shapes[revision], revision
    assert differences(engine) == []
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT stamp FROM logical_clock")) == 0


@pytest.mark.sqlite_only(reason="on PostgreSQL the tables are created by SQLAlchemy")
def test_the_schema_that_was_generated_in_advance_is_that_of_the_migrations(tmp_path, created):
    opened = Database(f"sqlite:///{tmp_path / 'generated.sqlite'}")
    assert migrations.ensure_from_texts(opened)
    assert migrations.ensure_from_texts(opened), "it is current now"
    of_master = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"
    with created.connect() as connection:
        expected = [tuple(row) for row in connection.execute(text(of_master))]
    connection = opened.connect()
    assert [tuple(row) for row in connection.execute(of_master)] == expected
    assert connection.execute("SELECT id, stamp, epoch FROM logical_clock").fetchall() == [(1, 0, 0)]
    connection.close()
    opened.close()


def test_a_database_whose_schema_was_taken_back_is_made_anew(engine, created):
    command.upgrade(alembic_config(engine), "head")
    command.downgrade(alembic_config(engine), "base")
    migrations.upgrade(engine)
    assert described(engine) == described(created)


def test_servers_that_start_at_once_on_an_empty_database_all_find_the_schema(tmp_path, databases, created):
    uri = databases.uri(tmp_path, "shared", empty=True)
    barrier = threading.Barrier(4)

    def start():
        engine = open_engine(uri)
        barrier.wait()
        migrations.upgrade(engine)
        engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(start) for _ in range(4)]:
            future.result(timeout=60)
    engine = open_engine(uri)
    assert described(engine) == described(created)
    engine.dispose()


def test_servers_that_upgrade_at_once_do_it_once(tmp_path, databases, created):
    uri = databases.uri(tmp_path, "shared", empty=True)
    engine = open_engine(uri)
    command.upgrade(alembic_config(engine), known_revisions()[0])
    processes = [
        subprocess.Popen([sys.executable, "-P", "-c", UPGRADE, uri], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [("", 0)] * 2
    assert described(engine) == described(created)
    engine.dispose()


def test_a_server_does_not_wait_for_ever_for_one_that_upgrades(engine, databases):
    if databases.dialect == SQLITE:
        pytest.skip("SQLite waits for the writer")
    with upgrading._alone(engine, 10), pytest.raises(ConfigError, match=r"more than 0.2 s. Wait until it has finished"):
        migrations.upgrade(engine, lock_seconds_max=0.2)
    migrations.upgrade(engine)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        (
            "sqlite:////dev/null/folder/db.sqlite",
            r"\S+\.lock cannot be written: .*\. The database \S+ needs a lock next to it\.",
        ),
        ("postgresql://me:hidden@127.0.0.1:1/none", r"The database \S+ cannot be opened: .*"),
    ],
)
def test_a_database_that_cannot_be_opened_ends_a_server_with_a_sentence(uri, sentence, tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jobmon.server", "--db", uri],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "JOBMON__DB__STARTUP_TIMEOUT": "0.3"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"jobmon server: {sentence}\n", done.stderr), done.stderr
    assert "hidden" not in done.stderr


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


def test_a_database_with_tables_of_another_program_is_refused_and_not_changed(engine):
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE task (title VARCHAR)"))
        connection.commit()
    with pytest.raises(ConfigError, match=r"another program, such as 'task'.*an empty database"):
        migrations.upgrade(engine)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["task"]


def test_a_uri_that_cannot_be_read_is_a_config_error():
    with pytest.raises(ConfigError, match="sqlalchemy_database_uri"):
        open_engine("nonsense")


async def test_requests_that_arrive_together_share_a_transaction_and_a_bad_one_fails_alone(tmp_path):
    async with open_world(tmp_path) as world:
        writer = world.app.state.services.writer

        def slow(tx):
            return [tx.value(last_stamp) for _ in range(20_000)]

        def bad(tx):
            tx.insert(tool, name="never")
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
        assert world.rows("SELECT COUNT(*) FROM tool WHERE name = 'never'") == [(0,)]


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
    assert [one["name"] for one in changes] == ["workflow_id", "since", "wait_seconds", "workflow_run_id", "steering"]
