"""Statements that wait for each other on a connection to PostgreSQL, and what becomes of errors."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.databases import POSTGRESQL, administer

from jobmon.server.database import is_lost, is_value_refused, open_engine
from jobmon.server.sql import ROWS_PER_COPY, Session

#: More than both ends of a socket take while nobody reads.
LARGE = 3_000_000


@pytest.fixture(scope="module")
def session(databases, tmp_path_factory):
    if databases.dialect != POSTGRESQL:
        pytest.skip("needs --database postgresql")
    engine = open_engine(databases.uri(tmp_path_factory.mktemp("pipeline")))
    connection = engine.raw_connection()
    connection.driver_connection.autocommit = True
    session = Session(connection, "postgresql")
    session._cursor.execute("CREATE TEMPORARY TABLE number (n BIGINT PRIMARY KEY, word TEXT)")
    yield session
    session.close()
    engine.dispose()


@pytest.fixture
def pipeline(session):
    session._cursor.execute("DELETE FROM number")
    yield session._cursor
    session.rollback()


def numbers(pipeline):
    return [n for (n,) in pipeline.execute("SELECT n FROM number ORDER BY n").fetchall()]


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@given(
    number=st.none() | INTEGERS,
    text=st.none() | TEXTS,
    real=st.none() | st.floats(allow_nan=False),
    truth=st.none() | st.booleans(),
    numbers=st.lists(st.none() | INTEGERS) | st.lists(INTEGERS),
    texts=st.lists(st.none() | TEXTS | st.sampled_from(["NULL", "", "{}", '"', "\\", ","])),
    truths=st.lists(st.none() | st.booleans()),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_come_back_as_they_were(session, number, text, real, truth, numbers, texts, truths):
    values = (number, text, real, truth, numbers, texts, truths)
    select = "SELECT $1::BIGINT, $2::TEXT, $3::FLOAT8, $4::BOOLEAN, $5::BIGINT[], $6::TEXT[], $7::BOOLEAN[]"
    for prepare in (True, False):
        assert session._cursor.execute(select, values, prepare=prepare).fetchall() == [values]


@given(rows=st.lists(TEXTS | st.none(), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_that_are_copied_come_back_as_they_were(session, rows):
    pipeline = session._cursor
    pipeline.send("DELETE FROM number")
    assert pipeline.copy("number (n, word)", list(enumerate(rows))) == len(rows)
    assert pipeline.execute("SELECT n, word FROM number ORDER BY n").fetchall() == list(enumerate(rows))


def test_queued_statements_run_before_the_one_that_waits(pipeline):
    pipeline.send("BEGIN")
    for n in (1, 2, 3):
        pipeline.send("INSERT INTO number VALUES ($1)", [n])
    assert numbers(pipeline) == [1, 2, 3]
    assert pipeline.execute("DELETE FROM number WHERE n > $1", [1]).rowcount == 2
    pipeline.commit()
    assert numbers(pipeline) == [1]


def test_the_error_of_a_queued_statement_is_raised_by_the_next_one_that_waits(pipeline):
    pipeline.send("BEGIN")
    pipeline.send("INSERT INTO number VALUES (1)")
    pipeline.send("INSERT INTO number VALUES (1)")
    pipeline.send("INSERT INTO number VALUES (22)")  # skipped, so not prepared either
    with pytest.raises(Exception, match="number_pkey") as raised:
        numbers(pipeline)
    assert raised.value.sqlstate == "23505"
    pipeline.rollback()
    assert numbers(pipeline) == []
    pipeline.send("INSERT INTO number VALUES (22)")
    assert numbers(pipeline) == [22]


def test_nothing_is_committed_after_a_queued_statement_failed(pipeline):
    pipeline.send("BEGIN")
    pipeline.send("INSERT INTO number VALUES (1)")
    pipeline.send("INSERT INTO number VALUES (1 / 0)")
    with pytest.raises(Exception, match="division by zero"):
        pipeline.commit()
    pipeline.rollback()
    assert numbers(pipeline) == []


def test_a_commit_of_a_failed_transaction_is_an_error(pipeline):
    pipeline.send("BEGIN")
    with pytest.raises(Exception, match="division by zero"):
        pipeline.execute("SELECT 1 / 0")
    with pytest.raises(Exception, match="ROLLBACK"):
        pipeline.commit()


def test_what_is_queued_is_rolled_back_too(pipeline):
    pipeline.send("BEGIN")
    pipeline.send("INSERT INTO number VALUES (1)")
    pipeline.rollback()
    assert numbers(pipeline) == []


def test_large_values_and_large_results_do_not_wait_for_each_other(pipeline):
    for _ in range(20):
        pipeline.send("SELECT $1::TEXT", ["x" * LARGE])
    assert pipeline.execute("SELECT 1").fetchall() == [(1,)]


def test_a_value_that_postgresql_cannot_store_is_refused(pipeline):
    for values in (["a\0b"], [["a\0b"]]):
        with pytest.raises(Exception, match="NUL") as raised:
            pipeline.send("SELECT $1::TEXT", values)
        assert is_value_refused(raised.value)
    with pytest.raises(Exception, match="out of range") as raised:
        pipeline.execute("SELECT $1::INTEGER", [2**31])
    assert is_value_refused(raised.value)


@pytest.mark.parametrize("existing", [0, ROWS_PER_COPY - 1])
def test_many_rows_of_which_some_may_exist(session, pipeline, existing):
    from sqlalchemy import BigInteger, Column, MetaData, Table, Text

    table = Table(
        "number", MetaData(), Column("n", BigInteger, primary_key=True, autoincrement=False), Column("word", Text)
    )
    session.insert_many(table, ("n", "word"), [(existing, "first")])
    session.begin(writing=True)
    session.insert_many(table, ("n", "word"), [(n, "later") for n in range(ROWS_PER_COPY)], ignore=True)
    session.commit()
    found = session._cursor.execute("SELECT n, word FROM number ORDER BY n").fetchall()
    assert found == [(n, "first" if n == existing else "later") for n in range(ROWS_PER_COPY)]


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_a_lost_connection_is_recognized_wherever_it_is_noticed(databases, tmp_path, sent):
    if databases.dialect != POSTGRESQL:
        pytest.skip("needs --database postgresql")
    engine = open_engine(databases.uri(tmp_path))
    connection = engine.raw_connection()
    connection.driver_connection.autocommit = True
    session = Session(connection, "postgresql")
    session.begin(writing=True)
    ((pid,),) = session._cursor.execute("SELECT pg_backend_pid()").fetchall()
    for _ in range(sent):
        session._cursor.send("SELECT 1")
    administer(databases.address, f"SELECT pg_terminate_backend({pid}, 10000)")
    for _ in range(2):
        with pytest.raises(Exception) as raised:
            session._cursor.execute("SELECT 2")
        assert is_lost(raised.value)
    session.close()
    engine.dispose()
