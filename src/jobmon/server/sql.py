"""A session: one database connection that runs SQL as written, with as little as possible in between.

SQL is written once, for SQLite, with `:name` parameters (or `?` for many rows at once), and translated for others:

* `IN (:ids...)` takes a list of any length as one parameter;
* `FOR UPDATE` locks rows where the database knows that (SQLite's single writer needs none).
"""

from __future__ import annotations

import functools
import re
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_encoder: Final = msgspec.json.Encoder()
_LIST: Final = re.compile(r"\(:(\w+)\.\.\.\)")
_NAMED: Final = re.compile(r"(?<![:\w]):(\w+)")
_ROW: Final = re.compile(r"(?<=\bVALUES )\((?:\?|\d)(?:, (?:\?|\d))*\)")
#: So many rows one INSERT of SQLite takes: a step from Python into SQLite for each costs a third of the insert itself.
ROWS_PER_INSERT: Final = 50
_INSERT_OR_IGNORE: Final = re.compile(r"^\s*INSERT INTO(.*)ON CONFLICT DO NOTHING\s*$", re.DOTALL)


@functools.cache
def _several(sql: str) -> str:
    """Return an INSERT of one row as one of ROWS_PER_INSERT rows."""
    return _ROW.sub(lambda row: ", ".join([row[0]] * ROWS_PER_INSERT), sql)


def _for_sqlite(sql: str) -> str:
    return _LIST.sub(r"(SELECT value FROM json_each(:\1))", sql).replace(" FOR UPDATE", "")


def _for_postgresql(sql: str) -> str:
    sql = _LIST.sub(r"(SELECT unnest(:\1))", sql)
    return _NAMED.sub(r"%(\1)s", sql).replace("?", "%s")


def _for_mysql(sql: str) -> str:
    sql = _LIST.sub(r"(SELECT item FROM JSON_TABLE(:\1, '$[*]' COLUMNS (item VARCHAR(255) PATH '$')) AS listed)", sql)
    sql = _INSERT_OR_IGNORE.sub(r"INSERT IGNORE INTO\1", sql)
    return _NAMED.sub(r"%(\1)s", sql).replace("?", "%s")


_TRANSLATIONS: Final = {"sqlite": _for_sqlite, "postgresql": _for_postgresql, "mysql": _for_mysql}


class Session:
    """One connection, used by one thread at a time. `connection` is a DBAPI connection; `dialect` SQLAlchemy's name."""

    def __init__(self, connection: Any, dialect: str) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._translate = _TRANSLATIONS[dialect]
        self._translated: dict[str, str] = {}
        self.dialect = dialect

    def _sql(self, sql: str) -> str:
        translated = self._translated.get(sql)
        if translated is None:
            translated = self._translated[sql] = self._translate(sql)
        return translated

    def _values(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.dialect == "postgresql":
            return values
        return {
            name: _encoder.encode(value).decode() if isinstance(value, list | tuple | set | frozenset) else value
            for name, value in values.items()
        }

    def begin(self, *, writing: bool) -> None:
        """Start a transaction; a writing one takes SQLite's lock at once, so that it never has to be given up later."""
        if self.dialect == "sqlite":
            self._cursor.execute("BEGIN IMMEDIATE" if writing else "BEGIN")

    def commit(self) -> None:
        """Make everything durable."""
        self._connection.commit()

    def rollback(self) -> None:
        """Forget everything since `begin`."""
        self._connection.rollback()

    def rows(self, sql: str, /, **values: Any) -> list[tuple[Any, ...]]:
        """Return all rows."""
        self._cursor.execute(self._sql(sql), self._values(values))
        return self._cursor.fetchall()  # type: ignore[no-any-return]

    def row(self, sql: str, /, **values: Any) -> tuple[Any, ...] | None:
        """Return the first row, or None. All are fetched: a statement left open would hold its snapshot."""
        found = self.rows(sql, **values)
        return found[0] if found else None

    def value(self, sql: str, /, **values: Any) -> Any:
        """Return the first column of the first row, or None."""
        found = self.row(sql, **values)
        return None if found is None else found[0]

    def column(self, sql: str, /, **values: Any) -> list[Any]:
        """Return the first column of all rows."""
        return [found[0] for found in self.rows(sql, **values)]

    def run(self, sql: str, /, **values: Any) -> int:
        """Change rows; return how many."""
        self._cursor.execute(self._sql(sql), self._values(values))
        return int(self._cursor.rowcount)

    def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run one statement with `?` parameters for each of many rows; return how many it changed."""
        changed = 0
        if self.dialect == "sqlite" and len(rows) >= ROWS_PER_INSERT and _ROW.search(sql):
            whole = len(rows) - len(rows) % ROWS_PER_INSERT
            several = self._sql(_several(sql))
            for start in range(0, whole, ROWS_PER_INSERT):
                values = list(chain.from_iterable(rows[start : start + ROWS_PER_INSERT]))
                self._cursor.execute(several, values)
                changed += self._cursor.rowcount
            rows = rows[whole:]
        if rows:
            self._cursor.executemany(self._sql(sql), rows)
            changed += self._cursor.rowcount
        return changed

    def insert_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> range | None:
        """Insert rows; return their ids if all are new and their numbers follow one another for certain, else None."""
        if self.run_many(sql, rows) != len(rows) or self.dialect != "sqlite":
            return None  # of other databases several writers may be at work
        last = self.value("SELECT last_insert_rowid()")
        return range(last - len(rows) + 1, last + 1)

    def insert(self, table: str, **values: Any) -> int:
        """Insert one row; return its id."""
        sql = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})"
        if self.dialect == "postgresql":
            return int(self.value(sql + " RETURNING id", **values))
        self._cursor.execute(self._sql(sql), self._values(values))
        return int(self._cursor.lastrowid)

    def close(self) -> None:
        """Give the connection back."""
        self._cursor.close()
        self._connection.close()
