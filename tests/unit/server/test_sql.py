"""SQL as it is written, and as each database gets it."""

import sqlite3

import pytest

from jobmon.server.sql import _TRANSLATIONS, Session


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
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
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


def test_a_rollback_forgets(session):
    session.begin(writing=True)
    session.insert("t", a="one")
    session.rollback()
    assert session.row("SELECT 1 FROM t") is None
