"""Statements compiled for each database, and a session on SQLite."""

import sqlite3

import pytest
from sqlalchemy import Boolean, Column, Integer, MetaData, String, Table, UniqueConstraint, func, select, update

from jobmon.server.sql import (
    ROWS_PER_INSERT,
    Session,
    any_of,
    listed,
    none_of,
    param,
    statement,
    statements,
    unindexed,
)

t = Table(
    "t",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("a", String(9)),
    Column("b", Integer),
    Column("c", Boolean),
    UniqueConstraint("a"),
)


@statement
def some():
    """Some rows."""
    return select(t.c.id).where(any_of(t.c.a, "names"), none_of(t.c.id, "ids"), unindexed(t.c.b) == param("b"), ~t.c.c)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (
            "sqlite",
            "SELECT t.id FROM t WHERE t.a IN (SELECT value FROM json_each(?)) AND t.id NOT IN"
            " (SELECT value FROM json_each(?)) AND +t.b = ? AND NOT t.c",
        ),
        (
            "postgresql",
            "SELECT t.id FROM t WHERE t.a = ANY ($1::TEXT[]) AND t.id <> ALL ($2::INTEGER[]) AND t.b = $3::INTEGER"
            " AND NOT t.c",
        ),
    ],
)
def test_a_statement_is_written_for_each_database(dialect, expected):
    compiled = some.compiled(dialect)
    assert " ".join(compiled.text.split()) == expected
    assert compiled.names == ("names", "ids", "b")
    assert some.compiled(dialect) is compiled


def test_a_family_has_one_statement_for_each_set_of_arguments():
    @statements
    def one(descending):
        return select(t.c.id).order_by(t.c.id.desc() if descending else t.c.id)

    assert one(True) is one(True)
    assert one(True) is not one(False)


@pytest.fixture
def session():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b INTEGER, c BOOLEAN)")
    session = Session(connection, "sqlite")
    yield session
    session.close()


def test_rows_come_and_go(session):
    session.begin(writing=True)
    assert session.insert(t, a="one") == 1
    session.insert_many(t, ("a",), [("two",), ("three",)])
    session.commit()
    named = select(t.c.id, t.c.a).where(any_of(t.c.a, "names")).order_by(t.c.id)
    assert session.rows(named, names={"one", "three"}) == [(1, "one"), (3, "three")]
    assert session.column(named, names=iter([])) == []
    assert session.changed(update(t).values(b=param("b")).where(any_of(t.c.id, "ids")), b=7, ids=(1, 2)) == 2
    assert session.value(select(t.c.a).where(t.c.id == param("id")), id=9) is None
    positions = listed("ids", Integer)
    assert session.rows(select(positions.c.key, positions.c.value), ids=[5, 7]) == [(0, 5), (1, 7)]


def test_rows_of_values_are_given_in_any_order_to_a_statement_with_constants_of_its_own(session):
    session.insert_many(t, ("a", "b"), [("one", 1), ("two", 2)])

    @statement
    def add():
        return update(t).values(b=t.c.b + 10, c=param("c")).where(t.c.id == param("id"), t.c.b == param("b"))

    session.run_many(add, ("b", "id", "c"), [(1, 1, True), (3, 2, True)])
    assert session.rows(select(t.c.b, t.c.c).order_by(t.c.id)) == [(11, 1), (2, None)]
    session.run_many(add, ("b", "id", "c"), [])
    assert session.value(select(func.count()).select_from(t)) == 2


@pytest.mark.parametrize("count", [1, ROWS_PER_INSERT - 1, ROWS_PER_INSERT, 2 * ROWS_PER_INSERT + 3])
def test_many_rows_are_inserted_in_order_and_numbered_in_a_row(session, count):
    session.insert(t, id=41, a="before")
    rows = [(number, f"row {number}") for number in range(count)]
    session.begin(writing=True)
    ids = session.insert_many(t, ("b", "a"), rows)
    assert ids == range(42, 42 + count)
    session.commit()
    assert session.rows(select(t.c.id, t.c.b, t.c.a).where(t.c.id > 41).order_by(t.c.id)) == [
        (row_id, *row) for row_id, row in zip(ids, rows, strict=True)
    ]
    assert session.insert_many(t, ("b", "a"), []) is None


def test_ids_are_not_told_where_some_rows_were_there(session):
    session.insert(t, a="row 70")
    rows = [(f"row {number}",) for number in range(100)]
    assert session.insert_many(t, ("a",), rows, ignore=True) is None
    assert session.value(select(func.count()).select_from(t)) == 100


def test_a_rollback_discards(session):
    session.begin(writing=True)
    session.insert(t, a="one")
    session.rollback()
    assert session.row(select(t.c.id)) is None


def test_a_value_that_is_not_given_is_named(session):
    with pytest.raises(KeyError, match="ids"):
        session.rows(some, names=[], b=1)
