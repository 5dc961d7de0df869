"""No row refers to a row that does not exist: by foreign keys, or by triggers where those cost too much."""

import pytest
from server_world import open_world
from sqlalchemy import inspect, text

from jobmon.server.database import open_engine, refers_to_nothing
from jobmon.server.models.tables import metadata
from jobmon.server.models.types import DIALECT

NOBODY = 999_999_999
#: The references that PostgreSQL checks by triggers: table, column, and the table that it refers to.
BY_TRIGGER = sorted(
    (table.name, key.parent.name, key.column.table.name)
    for table in metadata.sorted_tables
    for key in table.foreign_keys
    if key.info.get(DIALECT)
)
PARENTS = sorted({parent for *_, parent in BY_TRIGGER})


@pytest.fixture
async def engine(tmp_path):
    """A database with a workflow of two tasks, which no server uses any more."""
    async with open_world(tmp_path) as world:
        bound = await world.bound(2)
        run = await bound.start()
        await run.queue()
        uri = world.database_uri
    engine = open_engine(uri)
    yield engine
    engine.dispose()


def refused(engine, *statements):
    """Return whether the database refuses the last of these statements because a reference would point nowhere."""
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    except Exception as error:
        if not refers_to_nothing(error):
            raise
        return True
    return False


def copied(engine, table, **changed):
    """Return a statement that inserts a copy of a row with other values in some columns."""
    names = [one["name"] for one in inspect(engine).get_columns(table) if one["name"] != "id"]
    values = ", ".join(str(changed.get(name, name)) for name in names)
    return f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} LIMIT 1"


def with_values_of_its_own(engine, table):
    """Return what a copy of a row needs besides the changed reference so that no unique key is violated."""
    if table != "task":
        return {}
    with engine.begin() as connection:
        connection.execute(text(copied(engine, "node", hash=f"'{'f' * 64}'")))
        return {"node_id": connection.scalar(text("SELECT max(id) FROM node"))}


@pytest.mark.parametrize(("table", "column", "parent"), BY_TRIGGER)
async def test_no_row_is_added_that_refers_to_nothing(engine, table, column, parent):
    own = with_values_of_its_own(engine, table)
    assert refused(engine, copied(engine, table, **own, **{column: NOBODY}))
    if own:
        assert not refused(engine, copied(engine, table, **own)), "the same row is accepted with its reference"


@pytest.mark.parametrize(("table", "column", "parent"), BY_TRIGGER)
async def test_no_row_is_changed_to_refer_to_nothing(engine, table, column, parent):
    assert refused(engine, f"UPDATE {table} SET {column} = {NOBODY}")
    assert not refused(engine, f"UPDATE {table} SET {column} = {column}")


@pytest.mark.parametrize(("table", "column", "parent"), BY_TRIGGER)
async def test_no_row_is_deleted_to_which_another_refers(engine, table, column, parent):
    keys = inspect(engine).get_multi_foreign_keys()
    others = [
        f"ALTER TABLE {name} DROP CONSTRAINT {key['name']}"
        for (_, name), found in keys.items()
        for key in found
        if key["referred_table"] == parent and engine.dialect.name == "postgresql"
    ]
    assert refused(engine, *others, f"DELETE FROM {parent} WHERE id IN (SELECT {column} FROM {table})")


@pytest.mark.parametrize("parent", PARENTS)
async def test_no_row_to_which_others_refer_is_renumbered(engine, parent):
    assert refused(engine, f"UPDATE {parent} SET id = id + {NOBODY}")


async def test_every_reference_is_checked_by_a_key_or_a_trigger(engine):
    keys = {
        (name, key["constrained_columns"][0], key["referred_table"])
        for (_, name), found in inspect(engine).get_multi_foreign_keys().items()
        for key in found
    }
    wanted = {
        (table.name, key.parent.name, key.column.table.name)
        for table in metadata.sorted_tables
        for key in table.foreign_keys
    }
    assert keys == (wanted - set(BY_TRIGGER) if engine.dialect.name == "postgresql" else wanted)
