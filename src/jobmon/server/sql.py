"""The SQL layer: statements in SQLAlchemy Core, compiled once per database and run through a raw cursor.

A module writes its statements as functions that return a Core construct and marks them with `statement`:

    @statement
    def _tasks_of() -> Select[Any]:
        return select(task.c.id, task.c.status).where(any_of(task.c.id, "ids"), task.c.workflow_id == param("workflow"))

    session.rows(_tasks_of, ids=[1, 2], workflow=3)

Nothing is built before its first use, and nothing is compiled twice. SQLAlchemy generates the text for SQLite and
PostgreSQL; its execution layer, which costs more than the databases themselves, is bypassed. Most texts for SQLite are
generated in advance (`server/texts.py`), so that a server need not load SQLAlchemy. A construct that depends on values
(a search with optional conditions) is passed as it is and compiled each time.

Only this module and `elements` know which databases are supported.
"""

from __future__ import annotations

import contextlib
import functools
import time
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, ParamSpec, cast

import msgspec

from jobmon.server import texts
from jobmon.server.constructs import BigInteger, Text, func, select
from jobmon.server.recording import digest, named, real

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Table
    from sqlalchemy.sql.base import Executable

    from jobmon.server.elements import any_of, like, listed, none_of, param, unindexed
else:
    _ELEMENTS = "jobmon.server.elements"
    any_of = named(_ELEMENTS, "any_of")
    like = named(_ELEMENTS, "like")
    listed = named(_ELEMENTS, "listed")
    none_of = named(_ELEMENTS, "none_of")
    param = named(_ELEMENTS, "param")
    unindexed = named(_ELEMENTS, "unindexed")

__all__ = [
    "Session",
    "Statement",
    "any_of",
    "like",
    "listed",
    "none_of",
    "param",
    "statement",
    "statements",
    "unindexed",
]

#: Rows per INSERT in SQLite: each step from Python into SQLite costs a third of the insert itself.
ROWS_PER_INSERT: Final = 50
#: From so many rows on, PostgreSQL receives them by COPY, which takes two round trips more than an INSERT.
ROWS_PER_COPY: Final = 200
#: The SQLSTATE of a row that exists already.
_EXISTS: Final = "23505"
#: Number of SQLite's instructions between two checks whether a `VACUUM` has taken too long.
INSTRUCTIONS_PER_CHECK: Final = 100_000

_P = ParamSpec("_P")
_encoder: Final = msgspec.json.Encoder()
_insert_one: Final = named("jobmon.server.elements", "insert_one")
_insert_listed: Final = named("jobmon.server.elements", "insert_listed")

# --- statements -------------------------------------------------------------------------------------------------------


class _Compiled:
    """The text of a statement for one database, and how its parameters are passed."""

    __slots__ = ("_constants", "_lists", "_orders", "is_writing", "names", "text")

    def __init__(self, construct: Executable, dialect: str, names: Sequence[str] | None = None) -> None:
        found = _text(construct, dialect, names)
        self.text = found.text
        self.names = found.names
        self.is_writing = found.is_writing
        self._constants = found.constants
        #: PostgreSQL takes a list like any other parameter, but does not accept a set or a tuple.
        self._lists = found.lists
        self._orders: dict[tuple[str, ...], Callable[[Sequence[Any]], Sequence[Any]] | None] = {}

    def values(self, given: dict[str, Any], encode: Callable[[Iterable[Any]], Any]) -> list[Any]:
        """Return the parameters in the order of the statement."""
        for name in self._lists:
            given[name] = encode(given[name])
        if self._constants:
            given |= self._constants
        return [given[name] for name in self.names]

    def order(self, names: tuple[str, ...]) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
        """Return a function that puts a row of values of these names into order; None if it is in order already."""
        if names not in self._orders:
            self._orders[names] = self._order(names)
        return self._orders[names]

    def _order(self, names: tuple[str, ...]) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
        if names == self.names:
            return None
        constants = tuple(self._constants.values())
        at = {name: index for index, name in enumerate((*names, *self._constants))}
        pick = itemgetter(*(at[name] for name in self.names))
        if len(self.names) == 1:
            return lambda row: (pick((*row, *constants)),)
        return (lambda row: pick((*row, *constants))) if constants else pick


def _text(construct: Executable, dialect: str, names: Sequence[str] | None) -> texts.Text:
    """Return the text of a statement: the one that was generated in advance, otherwise that of SQLAlchemy."""
    known = texts.known(dialect)
    if known and (key := digest(construct, names)) is not None and (found := known.get(key)) is not None:
        return found
    from jobmon.server import elements  # SQLAlchemy

    return elements.compiled(real(construct), dialect, names)


class Statement:
    """A Core construct that is built and compiled at its first use, once per database."""

    __slots__ = ("_bulk", "_compiled", "build", "names")

    def __init__(self, build: Callable[[], Executable], names: Sequence[str] | None = None) -> None:
        self.build = build
        self.names = names
        self._compiled: dict[str, _Compiled] = {}
        self._bulk: dict[tuple[str, ...], Statement | None] = {}

    def construct(self) -> Executable:
        """Return SQLAlchemy's construct."""
        return cast("Executable", real(self.build()))

    def compiled(self, dialect: str) -> _Compiled:
        """Return the compiled text for a database."""
        found = self._compiled.get(dialect)
        if found is None:
            found = self._compiled[dialect] = _Compiled(self.build(), dialect, self.names)
        return found

    def in_bulk(self, names: tuple[str, ...]) -> Statement | None:
        """Return an UPDATE of many rows that takes each of these parameters as a list; None: it cannot be made."""
        if names not in self._bulk:
            from jobmon.server import elements  # SQLAlchemy

            many = elements.in_bulk(self.construct(), names)
            self._bulk[names] = None if many is None else Statement(lambda: many)
        return self._bulk[names]


def statement(build: Callable[[], Executable]) -> Statement:
    """Mark a function that returns a Core construct as a statement; its name and docstring describe its purpose."""
    return Statement(build)


def statements(build: Callable[_P, Executable]) -> Callable[_P, Statement]:
    """Mark a function with hashable arguments as a family of statements: one for each combination of arguments."""

    @functools.cache
    @functools.wraps(build)
    def choose(*arguments: _P.args, **options: _P.kwargs) -> Statement:
        return Statement(functools.partial(build, *arguments, **options))

    vars(choose)["family"] = build  # what all of them are generated from, see `docs/statements.py`
    return cast("Callable[_P, Statement]", choose)


@functools.cache
def _insert(table: Table, names: tuple[str, ...], *, is_returning: bool = False) -> Statement:
    """Return an INSERT of one row on PostgreSQL; it may return the first column of the primary key."""
    return Statement(lambda: _insert_one(table, is_returning=is_returning), names)


@functools.cache
def _insert_many(table: Table, names: tuple[str, ...], *, ignore: bool) -> Statement:
    """Return an INSERT on PostgreSQL that takes each column as a list."""
    return Statement(lambda: _insert_listed(table, names, ignore=ignore))


@functools.cache
def _insert_text(
    table: str, names: tuple[str, ...], *, ignore: bool = False, rows: int = 1, constants: tuple[str, ...] = ()
) -> str:
    """Return an INSERT of that many rows on SQLite; the parameters of each row follow those of the previous one.

    Those of the constants, which have the same value in all rows, come first; with them, no row can be ignored.
    """
    columns = ", ".join(f'"{name}"' for name in (*names, *constants))
    row = f"({', '.join('?' * len(names))})"
    values = f"VALUES {', '.join([row] * rows)}"
    if constants:
        chosen = (*(f"column{at + 1}" for at in range(len(names))), *("?" * len(constants)))
        values = f"SELECT {', '.join(chosen)} FROM ({values})"
    end = " ON CONFLICT DO NOTHING" if ignore else ""
    return f'INSERT INTO "{table}" ({columns}) {values}{end}'


@statement
def _reserve_ids() -> Executable:
    """Advance the sequence of a table's IDs by a number of rows; only the writer uses it."""
    sequence = func.pg_get_serial_sequence(param("table", Text()), "id")
    return select(func.setval(sequence, func.nextval(sequence) + param("count", BigInteger()) - 1))


# --- sessions ---------------------------------------------------------------------------------------------------------


class Session:
    """A connection that one thread uses at a time. `connection` is a DBAPI connection; `dialect` SQLAlchemy's name.

    PostgreSQL receives a change together with the next statement whose result is needed, at the latest together with
    `COMMIT`: an error of a change may be raised there.
    """

    def __init__(self, connection: Any, dialect: str) -> None:
        self._connection = connection
        self._cursor = connection.cursor() if dialect == "sqlite" else _pipeline(connection)
        #: Runs a statement whose result nobody needs.
        self._send = self._cursor.execute if dialect == "sqlite" else self._cursor.send
        self._encode: Callable[[Iterable[Any]], Any] = _as_json if dialect == "sqlite" else list
        #: Whether the current transaction may have changed rows.
        self._has_written = False
        self._checks_references = True
        self.dialect = dialect

    def _run(self, execute: Callable[..., Any], statement: Statement | Executable, values: dict[str, Any]) -> None:
        if isinstance(statement, Statement):
            compiled = statement.compiled(self.dialect)
        else:
            compiled = _Compiled(statement, self.dialect)
            if self.dialect != "sqlite":
                execute = functools.partial(execute, prepare=False)
        self._has_written = self._has_written or compiled.is_writing
        execute(compiled.text, compiled.values(values, self._encode))

    def begin(self, *, writing: bool) -> None:
        """Start a transaction.

        A writing transaction takes SQLite's lock at once, so that it never has to be given up later. A reading one sees
        a single state of the database from its first statement to its last.
        """
        self._has_written = False
        self._send(_BEGIN[self.dialect, writing])

    def commit(self) -> None:
        """Make everything durable."""
        if self.dialect == "sqlite":
            self._cursor.execute("COMMIT")
        else:
            self._cursor.commit()

    def end_reading(self) -> None:
        """End a transaction that only reads."""
        self._send("COMMIT")
        if self.dialect != "sqlite":
            self._cursor.finish()

    def rollback(self) -> None:
        """Discard everything since `begin`."""
        if self.dialect == "sqlite":
            self._connection.rollback()
        else:
            self._cursor.rollback()

    def rows(self, statement: Statement | Executable, /, **values: Any) -> list[tuple[Any, ...]]:
        """Return all rows."""
        self._run(self._cursor.execute, statement, values)
        return self._cursor.fetchall()  # type: ignore[no-any-return]

    def row(self, statement: Statement | Executable, /, **values: Any) -> tuple[Any, ...] | None:
        """Return the first row, or None. All rows are fetched: a statement left open would hold its snapshot."""
        found = self.rows(statement, **values)
        return found[0] if found else None

    def value(self, statement: Statement | Executable, /, **values: Any) -> Any:
        """Return the first column of the first row, or None."""
        found = self.row(statement, **values)
        return None if found is None else found[0]

    def column(self, statement: Statement | Executable, /, **values: Any) -> list[Any]:
        """Return the first column of all rows."""
        return [found[0] for found in self.rows(statement, **values)]

    def run(self, statement: Statement | Executable, /, **values: Any) -> None:
        """Change rows."""
        self._run(self._send, statement, values)

    def changed(self, statement: Statement | Executable, /, **values: Any) -> int:
        """Change rows; return their number."""
        self._run(self._cursor.execute, statement, values)
        return int(self._cursor.rowcount)

    def run_many(self, statement: Statement, names: tuple[str, ...], rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of many rows of values.

        Args:
            statement: an UPDATE or DELETE.
            names: names of the parameters, in the order of the values in a row.
            rows: the values.
        """
        rows = list(rows)
        if not rows:
            return
        if self.dialect != "sqlite" and (bulk := _bulk_of(statement, names, rows)) is not None:
            columns = zip(names, map(list, zip(*rows, strict=True)), strict=True)
            self.run(bulk, **dict(columns))
            return
        compiled = statement.compiled(self.dialect)
        order = compiled.order(names)
        self._has_written = True
        self._cursor.executemany(compiled.text, rows if order is None else list(map(order, rows)))

    def first_id(self, table: Table) -> int | None:
        """Return the ID that the next row of a table must have; None: the database chooses it."""
        return None

    def insert(self, table: Table, **values: Any) -> int:
        """Insert one row; return the first column of its primary key."""
        if (first := self.first_id(table)) is not None:
            values["id"] = first
        if self.dialect != "sqlite":
            return int(self.value(_insert(table, tuple(values), is_returning=True), **values))
        self._insert_row(table, values)
        return int(self._cursor.lastrowid)

    def add(self, table: Table, **values: Any) -> None:
        """Insert one row whose ID nobody needs."""
        if (first := self.first_id(table)) is not None:
            values["id"] = first
        if self.dialect != "sqlite":
            self.run(_insert(table, tuple(values)), **values)
            return
        self._insert_row(table, values)

    def _insert_row(self, table: Table, values: dict[str, Any]) -> None:
        self._has_written = True
        self._cursor.execute(_insert_text(table.name, tuple(values)), list(values.values()))

    def insert_many(
        self,
        table: Table,
        names: tuple[str, ...],
        rows: Sequence[Sequence[Any]],
        *,
        ignore: bool = False,
        constants: Mapping[str, Any] | None = None,
        numbered: bool = True,
    ) -> range | None:
        """Insert rows; return their IDs if all rows are new and their IDs are known to be consecutive, else None.

        The IDs are in the order of the rows.

        Args:
            table: the table.
            names: names of the columns, in the order of the values in a row.
            rows: the values.
            ignore: skip rows that exist already.
            constants: values of further columns, the same for all rows; not together with `ignore`.
            numbered: whether the caller needs the IDs, for which PostgreSQL takes another round trip.
        """
        if not rows:
            return None
        self._has_written = True
        constants = constants or {}
        if (first := self.first_id(table)) is not None:
            names, rows = ("id", *names), [(first + index, *row) for index, row in enumerate(rows)]
        if self.dialect != "sqlite":
            same = tuple(constants.values())
            rows = [(*row, *same) for row in rows] if same else rows
            names = (*names, *constants)
            return self._insert_in_postgresql(table, names, rows, ignore=ignore, numbered=numbered)
        if self._insert_in_sqlite(table, names, rows, constants, ignore=ignore) != len(rows):
            return None
        last = self._cursor.execute("SELECT last_insert_rowid()").fetchone()[0]
        return range(last - len(rows) + 1, last + 1)

    def _insert_in_postgresql(
        self, table: Table, names: tuple[str, ...], rows: Sequence[Sequence[Any]], *, ignore: bool, numbered: bool
    ) -> range | None:
        """Insert rows with IDs that are reserved first: nothing says in which order `RETURNING` would return them."""
        ids = None
        if numbered and real(table).autoincrement_column is not None and "id" not in names:
            last = self.value(_reserve_ids, table=table.name, count=len(rows))
            ids = range(last - len(rows) + 1, last + 1)
            names, rows = ("id", *names), [(row_id, *row) for row_id, row in zip(ids, rows, strict=True)]
        if len(rows) >= ROWS_PER_COPY and self._copy(table, names, rows, may_exist=ignore):
            return ids
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        into = _insert_many(table, names, ignore=ignore)
        if ids is None or not ignore:
            self.run(into, **columns)
            return ids
        return ids if self.changed(into, **columns) == len(rows) else None

    def _copy(self, table: Table, names: tuple[str, ...], rows: Sequence[Sequence[Any]], *, may_exist: bool) -> bool:
        """Insert rows with COPY, for a third of the cost; return whether that was possible: none of them existed."""
        into = f"{table.name} ({', '.join(names)})"
        if not may_exist:
            self._cursor.copy(into, rows)
            return True
        self._send("SAVEPOINT copied")
        try:
            self._cursor.copy(into, rows)
        except Exception as error:
            if getattr(error, "sqlstate", None) != _EXISTS:
                raise
            self._send("ROLLBACK TO SAVEPOINT copied")
            return False
        self._send("RELEASE SAVEPOINT copied")
        return True

    def _insert_in_sqlite(
        self,
        table: Table,
        names: tuple[str, ...],
        rows: Sequence[Sequence[Any]],
        constants: Mapping[str, Any],
        *,
        ignore: bool,
    ) -> int:
        changed, same = 0, tuple(constants.values())
        whole = len(rows) - len(rows) % ROWS_PER_INSERT
        if whole:
            several = _insert_text(table.name, names, ignore=ignore, rows=ROWS_PER_INSERT, constants=tuple(constants))
            for start in range(0, whole, ROWS_PER_INSERT):
                values = chain.from_iterable(rows[start : start + ROWS_PER_INSERT])
                self._cursor.execute(several, [*same, *values])
                changed += self._cursor.rowcount
        if whole < len(rows):
            left = [(*row, *same) for row in rows[whole:]] if same else rows[whole:]
            self._cursor.executemany(_insert_text(table.name, (*names, *constants), ignore=ignore), left)
            changed += self._cursor.rowcount
        return changed

    @property
    def reuses_ids(self) -> bool:
        """Whether the highest IDs are reused after their rows were deleted."""
        return self.dialect == "sqlite"

    def database_bytes(self) -> int:
        """Return the size of the database in bytes."""
        if self.dialect != "sqlite":
            return int(self._cursor.execute("SELECT pg_database_size(current_database())").fetchall()[0][0])
        return self._pages("page_count")

    def free_bytes(self) -> int | None:
        """Return how much of the database's file is unused, in bytes; None unless it is an SQLite database."""
        return None if self.dialect != "sqlite" else self._pages("freelist_count")

    def _pages(self, name: str) -> int:
        count, size = (self._cursor.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in (name, "page_size"))
        return int(count * size)

    def check_references(self, *, wanted: bool) -> None:
        """Have SQLite check references, or not, from the next transaction on; PostgreSQL always does.

        A check of each reference of each row is a fifth of the cost of recording tasks.
        """
        if self.dialect == "sqlite" and wanted is not self._checks_references:
            self._cursor.execute(f"PRAGMA foreign_keys={'ON' if wanted else 'OFF'}")
            self._checks_references = wanted

    @contextlib.contextmanager
    def unchecked(self) -> Iterator[None]:
        """Begin and commit a transaction in which SQLite does not check references; PostgreSQL always does.

        For deletions of rows to which another table refers by a column without an index: SQLite would search the whole
        table for each deleted row.
        """
        self.check_references(wanted=False)
        try:
            self.begin(writing=True)
            try:
                yield
                self.commit()
            except BaseException:
                self.rollback()
                raise
        finally:
            self.check_references(wanted=True)

    def vacuum(self, seconds_max: float) -> bool:
        """Rewrite an SQLite database without its unused pages, outside a transaction, and truncate its files.

        Args:
            seconds_max: after this time it is abandoned, which changes nothing.

        Returns:
            Whether it was completed in time.
        """
        deadline = time.monotonic() + seconds_max
        driver = self._connection
        self._cursor.execute("PRAGMA temp_store=FILE")  # the copy may not fit into memory
        driver.set_progress_handler(lambda: time.monotonic() > deadline, INSTRUCTIONS_PER_CHECK)
        try:
            self._cursor.execute("VACUUM")
        except Exception:
            if time.monotonic() > deadline:
                return False
            raise
        finally:
            driver.set_progress_handler(None, 0)
            self._cursor.execute("PRAGMA temp_store=MEMORY")
        self._cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return True

    def close(self) -> None:
        """Close the connection."""
        self._cursor.close()
        self._connection.close()


_BEGIN: Final = {
    ("sqlite", True): "BEGIN IMMEDIATE",
    ("sqlite", False): "BEGIN",
    ("postgresql", True): "BEGIN",
    ("postgresql", False): "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
}


def _pipeline(connection: Any) -> Any:
    from jobmon.server.pipeline import Pipeline  # only with PostgreSQL's driver

    return Pipeline(connection.driver_connection)


def _bulk_of(statement: Statement, names: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> Statement | None:
    """Return a statement that changes all rows at once; None: there is none, or an ID occurs twice."""
    bulk = statement.in_bulk(names) if len(rows) > 1 else None
    if bulk is None:
        return None
    at = names.index("id")
    return bulk if len({row[at] for row in rows}) == len(rows) else None


def _as_json(items: Iterable[Any]) -> str:
    return _encoder.encode(items if isinstance(items, list | tuple | set | frozenset) else list(items)).decode()
