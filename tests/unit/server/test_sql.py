"""SQL as it is written, and as each database gets it."""

import sqlite3

import pytest

from jobmon.server.sql import _TRANSLATIONS, ROWS_PER_INSERT, Session


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("sqlite", "SELECT a FROM t WHERE id IN (SELECT value FROM json_each(:ids)) AND b = :b"),
        ("postgresql", "SELECT a FROM t WHERE id IN (SELECT unnest(%(ids)s)) AND b = %(b)s FOR UPDATE"),
        (
            "mysql",
            "SELECT a FROM t WHERE id IN (SELECT item FROM JSON_TABLE(%(ids)s, '$[*]' COLUMNS "
            "(item VARCHAR(255) PATH '$')) AS listed) AND b = %(b)s FOR UPDATE",
        ),
    ],
)
def test_lists_names_and_locks_are_translated(dialect, expected):
    assert _TRANSLATIONS[dialect]("SELECT a FROM t WHERE id IN (:ids...) AND b = :b FOR UPDATE") == expected


def test_mysql_ignores_what_is_there_in_its_own_words():
    sql = "INSERT INTO t (a) VALUES (?) ON CONFLICT DO NOTHING"
    assert _TRANSLATIONS["mysql"](sql) == "INSERT IGNORE INTO t (a) VALUES (%s) "
    assert _TRANSLATIONS["postgresql"](sql) == "INSERT INTO t (a) VALUES (%s) ON CONFLICT DO NOTHING"


@pytest.fixture
def session():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b INTEGER)")
    session = Session(connection, "sqlite")
    yield session
    session.close()


def test_rows_come_and_go(session):
    session.begin(writing=True)
    assert session.insert("t", a="one") == 1
    session.run_many("INSERT INTO t (a) VALUES (?)", [("two",), ("three",)])
    session.commit()
    assert session.rows("SELECT id, a FROM t WHERE a IN (:names...) ORDER BY id", names={"one", "three"}) == [
        (1, "one"),
        (3, "three"),
    ]
    assert session.column("SELECT id FROM t WHERE id IN (:ids...)", ids=[]) == []
    assert session.run("UPDATE t SET a = :a WHERE id IN (:ids...)", a="x", ids=(1, 2)) == 2
    assert session.value("SELECT a FROM t WHERE id = :id", id=9) is None


@pytest.mark.parametrize("count", [0, 1, ROWS_PER_INSERT - 1, ROWS_PER_INSERT, 2 * ROWS_PER_INSERT + 3])
def test_many_rows_are_inserted_in_order_and_numbered_in_a_row(session, count):
    session.run("INSERT INTO t (id, a) VALUES (41, 'before')")
    sql = "INSERT INTO t (a, b) VALUES (?, 7)"
    rows = [(f"row {number}",) for number in range(count)]
    session.begin(writing=True)
    ids = session.insert_many(sql, rows)
    assert ids == range(42, 42 + count)
    session.commit()
    assert session.rows("SELECT id, a, b FROM t WHERE id > 41 ORDER BY id") == [
        (row_id, *row, 7) for row_id, row in zip(ids, rows, strict=True)
    ]


def test_ids_are_not_told_where_some_rows_were_there(session):
    session.run("CREATE UNIQUE INDEX u ON t (a)")
    session.insert("t", a="row 70")
    rows = [(f"row {number}",) for number in range(100)]
    assert session.insert_many("INSERT INTO t (a) VALUES (?) ON CONFLICT DO NOTHING", rows) is None
    assert session.value("SELECT COUNT(*) FROM t") == 100


def test_a_rollback_forgets(session):
    session.begin(writing=True)
    session.insert("t", a="one")
    session.rollback()
    assert session.row("SELECT 1 FROM t") is None
