"""The database of a server: connections, the lock of the only active server, and what database errors mean.

A database has one active server at a time, because the single writer of that server isolates transactions from each
other. On PostgreSQL the writer's own connection holds an advisory lock. A server that loses this connection also loses
the lock, and cannot write until it has both again. On SQLite the lock is a file next to the database.

Each activation on PostgreSQL increments `logical_clock.epoch`, and every transaction that writes checks it
(`Transaction.stamp`). A server that finds a later epoch has been deposed: what it has in memory is outdated (decision
45).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select as selecting
import socket
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import locks
from jobmon.core.exceptions import ConfigError
from jobmon.core.installing import how_to_install
from jobmon.server.constructs import select, update
from jobmon.server.models import logical_clock, server_identity
from jobmon.server.sql import Session, statement
from jobmon.server.transaction import Deposed, Surroundings, Transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import ModuleType

    from sqlalchemy import URL, Engine, Select, Update

SQLITE_BUSY_SECONDS: Final = 30.0
SQLITE_CACHE_KIBIBYTES: Final = 32 * 1024
#: Number of pages (4 KiB each) that accumulate in the write-ahead log before a checkpoint. A checkpoint takes two syncs
#: and writes each page once, however often it changed: larger checkpoints write less and make the writer wait less
#: often.
SQLITE_LOG_PAGES: Final = 8 * 1024
#: Required for `RETURNING`, with which work is claimed.
SQLITE_VERSION_MIN: Final = (3, 35, 0)
_SQLITE_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA wal_autocheckpoint={SQLITE_LOG_PAGES}",
    f"PRAGMA cache_size=-{SQLITE_CACHE_KIBIBYTES}",
    "PRAGMA temp_store=MEMORY",
)
_SQLITE_OPTIONS: Final = {"timeout": SQLITE_BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}
_SQLITE_PREFIX: Final = "sqlite:///"
_DRIVERS: Final = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
_DRIVER_MISSING: Final = "The driver for PostgreSQL is missing ({error}). Install it, {install}"

ACTIVATION_PAUSE_SECONDS: Final = 0.2
#: The key of the PostgreSQL advisory lock that the active server holds; such locks belong to one database.
_ADVISORY_LOCK: Final = int.from_bytes(b"server", "big")
#: A connection to a database whose host vanished counts as lost after about 25 s.
_POSTGRESQL_OPTIONS: Final = {
    "client_encoding": "utf8",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
#: Of the writer's session. If the host of the active server vanishes, PostgreSQL ends the session, and with it the
#: lock, after about 15 s; by default after two hours (no effect on a Unix socket).
#:
#: The writer finds rows by indexes, whatever the statistics say: while tables grow, they are outdated. A plan for the
#: values of one execution would read whole workflows or templates for a long list of IDs, and tables that were small.
#: Without sequential scans, what needs one looks so expensive that PostgreSQL would compile it.
_WRITER_OPTIONS: Final = """
SELECT set_config('tcp_keepalives_idle', '6', false), set_config('tcp_keepalives_interval', '3', false),
set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '15000', false),
set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
set_config('jit', 'off', false)
"""
_HOLDER: Final = """
SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (l.classid::bigint << 32 | l.objid::bigint) = %s
"""


_DROP_NODE_INDEX: Final = "DROP INDEX CONCURRENTLY IF EXISTS ix_task_node_for_purge"
_CREATE_NODE_INDEX: Final = "CREATE INDEX CONCURRENTLY ix_task_node_for_purge ON task (node_id)"


def _url(uri: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"db.sqlalchemy_database_uri cannot be read: {error}.") from error
    backend = url.get_backend_name()
    if backend not in _DRIVERS:
        raise ConfigError(
            f"Jobmon keeps its records in SQLite or PostgreSQL, not in {backend!r}: set db.sqlalchemy_database_uri to"
            " sqlite:////path/to/file or postgresql://user@host/database."
        )
    if backend == "sqlite" and (not url.database or ":memory:" in url.database or url.query.get("mode") == "memory"):
        raise ConfigError(
            "Jobmon's records must survive its server, so SQLite needs a file: set db.sqlalchemy_database_uri to"
            " sqlite:////path/to/file."
        )
    return url.set(drivername=_DRIVERS[backend])


def open_engine(uri: str) -> Engine:
    """Open a database. Sessions hold their own connections, so the engine does not pool them.

    Raises:
        ConfigError: the address is invalid, it is that of another kind of database, or the driver is missing.
    """
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    url = _url(uri)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, poolclass=NullPool, connect_args=_SQLITE_OPTIONS, module=_sqlite())
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    named = {"application_name": f"jobmon server {socket.gethostname()} process {os.getpid()}"}
    options = {key: value for key, value in {**_POSTGRESQL_OPTIONS, **named}.items() if key not in url.query}
    try:
        # the driver ends the transaction of a closed connection; a rollback of a lost one would only log a traceback
        return create_engine(url, poolclass=NullPool, connect_args=options, pool_reset_on_return=None)
    except ImportError as error:
        raise ConfigError(_DRIVER_MISSING.format(error=error, install=how_to_install("postgres"))) from error


def _sqlite() -> ModuleType:
    """Return a driver with a sufficiently new SQLite; the standard library's uses the system's SQLite."""
    if sqlite3.sqlite_version_info >= SQLITE_VERSION_MIN:
        return sqlite3
    try:
        import pysqlite3
    except ImportError as error:
        raise ConfigError(
            f"The SQLite of this Python is {sqlite3.sqlite_version}; Jobmon needs"
            f" {'.'.join(map(str, SQLITE_VERSION_MIN))} or newer. Install it separately: pip install pysqlite3-binary."
        ) from error
    return pysqlite3  # type: ignore[no-any-return]


def _prepare_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


@statement
def _identity() -> Select[Any]:
    return select(server_identity.c.word)


@statement
def _epoch() -> Select[Any]:
    return select(logical_clock.c.epoch)


@statement
def _next_epoch() -> Update:
    return update(logical_clock).values(epoch=logical_clock.c.epoch + 1)


def _plain_path(uri: str) -> str | None:
    """Return the file that the address of an SQLite database names; None: only `open_engine` can tell."""
    path = uri.removeprefix(_SQLITE_PREFIX)
    if path in ("", uri) or "?" in path or ":memory:" in path:
        return None
    return os.path.abspath(path)


class Database:
    """The database of one server process. A file of SQLite is opened without SQLAlchemy.

    Args:
        uri: its address.

    Raises:
        ConfigError: the address is invalid, it is that of another kind of database, or the driver is missing.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._engine: Engine | None = None
        #: The file of an SQLite database; None if it has none.
        self.path = _plain_path(uri)
        self._is_file = self.path is not None
        self.dialect = "sqlite" if self._is_file else self.engine.dialect.name
        if self.dialect == "sqlite" and not self._is_file:
            self.path = self.engine.url.database
        self._lock_file: locks.FileLock | None = None
        #: The connection that holds the PostgreSQL lock, until the writer takes it over.
        self._locked: Any = None
        #: The connection that asks for the PostgreSQL lock again.
        self._asking: Any = None
        #: The writer's connection.
        self._writing: Any = None
        #: Which activation of a server on this database is ours; 0: none yet.
        self._epoch = 0

    def activate(self, wait_seconds: float, *, stand_by: bool = False) -> None:
        """Become the active server of this database.

        Args:
            wait_seconds: how long to wait for a database that does not respond yet, or for another server to release
                it.
            stand_by: whether to return as soon as the database responds, even if another server is active.

        Raises:
            ConfigError: another server is active and does not release it.
            Exception: the database cannot be opened (see `explained`).
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            is_last = time.monotonic() >= deadline
            try:
                holder = self.try_to_activate()
            except Exception as error:
                if not is_lost(error) or is_refusal(error) or is_last:
                    raise
            else:
                if holder is None or stand_by:
                    return
                if is_last:
                    raise ConfigError(
                        f"Another server is active on this database ({holder}). Use that one, stop it, or set"
                        " db.sqlalchemy_database_uri to another database."
                    )
            time.sleep(ACTIVATION_PAUSE_SECONDS)

    def try_to_activate(self) -> str | None:
        """Become the active server of this database if there is none; otherwise return the active one."""
        return self._lock_on_postgresql() if self.dialect == "postgresql" else self._lock_beside_file()

    def identity(self) -> str:
        """Return the unique identity of the server's database."""
        session = self.open_session()
        try:
            return str(session.value(_identity))
        finally:
            session.close()

    @property
    def engine(self) -> Engine:
        """The database for SQLAlchemy's own interface."""
        if self._engine is None:
            self._engine = open_engine(self._uri)
        return self._engine

    @contextlib.asynccontextmanager
    async def nodes_indexed(self) -> AsyncIterator[None]:
        """Have an index of tasks by node on PostgreSQL, which would search all tasks for each node that is deleted.

        It is built without blocking writers, and dropped afterwards, because it would slow binding down. One that a
        killed server left is rebuilt, because it may be invalid.
        """
        if self.dialect != "postgresql":
            yield
            return
        await asyncio.to_thread(self._run_apart, _DROP_NODE_INDEX, _CREATE_NODE_INDEX)
        try:
            yield
        finally:
            await asyncio.to_thread(self._run_apart, _DROP_NODE_INDEX)

    def _run_apart(self, *texts: str) -> None:
        """Run statements on a connection of their own, outside a transaction."""
        connection = self.connect()
        try:
            for text in texts:
                connection.cursor().execute(text)
        finally:
            connection.close()

    def open_session(self) -> Session:
        """Open a session for reading."""
        return Session(self.connect(), self.dialect)

    def open_transaction(self, surroundings: Surroundings) -> Transaction:
        """Open the writer's session on the connection that holds the lock.

        Raises:
            Deposed: another server is active on this database, or was since the last session.
        """
        if self.dialect != "postgresql":
            return Transaction(self.connect(), self.dialect, surroundings)
        if self._locked is None and (holder := self.try_to_activate()) is not None:
            raise Deposed(f"Another server is active on this database now ({holder}).")
        self._writing, self._locked = self._locked, None
        transaction = Transaction(self._writing, self.dialect, surroundings)
        try:
            self._join_epoch(transaction)
        except BaseException:
            transaction.close()
            raise
        return transaction

    def _join_epoch(self, transaction: Transaction) -> None:
        """Begin an epoch, or check that the last one is still ours."""
        if not self._epoch:
            transaction.run(_next_epoch)
        found = transaction.value(_epoch)
        if self._epoch not in (0, found):
            raise Deposed("Another server was active on this database meanwhile.")
        self._epoch = transaction.epoch = found

    def has_lost_lock(self) -> bool:
        """Return whether the connection that holds the PostgreSQL lock is closed; may be called from any thread."""
        if self.dialect != "postgresql" or self._locked is not None:
            return False
        poll = selecting.poll()
        try:  # a session that was ended has sent an error message, so the end of the stream cannot be read
            poll.register(self._writing.fileno(), getattr(selecting, "POLLRDHUP", 0))
        except Exception:  # the driver's: it is closed
            return True
        return bool(poll.poll(0))

    def close(self) -> None:
        """Release the lock."""
        for connection in filter(None, (self._locked, self._asking)):
            connection.close()
        self._locked = self._asking = None
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None
        if self._engine is not None:
            self._engine.dispose()

    def connect(self) -> Any:
        """Open a connection of the driver."""
        if self._is_file:
            connection = _sqlite().connect(self.path, **_SQLITE_OPTIONS)
            try:
                _prepare_sqlite(connection, None)
            except BaseException:
                connection.close()
                raise
            return connection
        connection = self.engine.raw_connection()
        if self.dialect == "postgresql":
            driver: Any = connection.driver_connection
            driver.autocommit = True  # sessions send BEGIN themselves
        return connection

    def _lock_on_postgresql(self) -> str | None:
        """Take the lock, or ask for its holder. No statement waits for it: its snapshot would hold up every vacuum."""
        if self._locked is not None:
            return None
        connection, self._asking = self._asking or self.connect(), None
        try:
            cursor = connection.cursor()
            if cursor.execute("SELECT pg_try_advisory_lock(%s)", (_ADVISORY_LOCK,)).fetchone()[0]:
                cursor.execute(_WRITER_OPTIONS)
                cursor.close()
                self._locked = connection
                return None
            found = cursor.execute(_HOLDER, (_ADVISORY_LOCK,)).fetchone()
        except BaseException:
            connection.close()
            raise
        self._asking = connection
        return str(found[0]) if found else "unknown"

    def _lock_beside_file(self) -> str | None:
        path = self.path
        if self._lock_file is not None or not path or path == ":memory:":
            return None
        lock = locks.FileLock(Path(f"{path}.lock"), f"The database {path} needs a lock next to it")
        if not lock.take():
            lock.close()
            return f"it holds {path}.lock"
        self._lock_file = lock
        return None


# --- what errors mean -------------------------------------------------------------------------------------------------

#: SQLSTATEs of PostgreSQL: the transaction conflicted with another one; a retry succeeds.
_CONFLICTS: Final = frozenset({"40001", "40P01"})
#: Prefixes of the SQLSTATEs after which the connection is unusable: it is lost, or its server is stopping or starting.
_LOST: Final = ("08", "57P")
_MEANINGS: Final = {
    "53100": "The disk that holds the server's database is full. Free some space on it.",
    "53300": "The server's database has no connection left. Raise its max_connections, or stop other programs.",
    "53": "The server's database is short of memory or another resource.",
    "25006": "The server's database is read-only now.",
    "58": "The disk that holds the server's database failed.",
    "55P03": "The server's database is locked by another program.",
    "57014": "The server's database cancelled a statement that took too long.",
}
#: SQLite messages for errors that may be temporary.
_SQLITE_MEANINGS: Final = {
    "database or disk is full": _MEANINGS["53100"],
    "disk I/O error": _MEANINGS["58"],
    "readonly database": "The server's database cannot be written to. Check the permissions of its folder.",
    "unable to open database file": "The server's database cannot be opened. Check its folder.",
    "database is locked": _MEANINGS["55P03"],
}
_LOST_MEANING: Final = "The server's database does not respond; the server reconnects as soon as it does."
_REFUSED_MEANING: Final = (
    "The server's database rejects the server's connections; its administrator finds the reason in the server's log."
)


def _of_driver(error: BaseException) -> BaseException:
    """Return the driver's exception that SQLAlchemy wrapped."""
    return getattr(error, "orig", None) or error


def is_conflict(error: BaseException) -> bool:
    """Return whether a transaction failed only because it conflicted with another one: a retry succeeds."""
    return getattr(_of_driver(error), "sqlstate", None) in _CONFLICTS


def is_lost(error: BaseException) -> bool:
    """Return whether an error means that the connection to the database is lost or could not be established."""
    found = _of_driver(error)
    if not type(found).__module__.startswith("psycopg"):
        return False
    state = getattr(found, "sqlstate", None)
    if state is None:  # the error comes from the driver itself
        return type(found).__name__ in ("OperationalError", "InterfaceError")
    return bool(state.startswith(_LOST)) and state != "57014"


def refers_to_nothing(error: BaseException) -> bool:
    """Return whether a database rejected a row because it references one that does not exist."""
    found = _of_driver(error)
    return getattr(found, "sqlstate", None) == "23503" or "FOREIGN KEY constraint failed" in str(found)


def is_value_refused(error: BaseException) -> bool:
    """Return whether a database rejected a value: a number out of range, a text that is too long or contains NUL."""
    found = _of_driver(error)
    state = getattr(found, "sqlstate", None)
    if state is None:  # the driver itself cannot send the value
        return type(found).__module__.startswith("psycopg") and type(found).__name__ == "DataError"
    return bool(state.startswith("22"))


def meaning(error: BaseException) -> str | None:
    """Return what a possibly temporary database error means, and what to do; None for all other errors."""
    found = _of_driver(error)
    if is_lost(found):
        return _REFUSED_MEANING if is_refusal(found) else _LOST_MEANING
    if is_conflict(found):
        return "The server's database is busy."
    state = getattr(found, "sqlstate", None)
    if state is not None:
        return _MEANINGS.get(state) or _MEANINGS.get(state[:2])
    if isinstance(found, sqlite3.Error) or type(found).__module__.startswith("pysqlite3"):
        text = str(found)
        return next((said for sign, said in _SQLITE_MEANINGS.items() if sign in text), None)
    return None


def is_refusal(error: BaseException) -> bool:
    """Return whether a database server rejected the connection: no such database, user or password."""
    text = str(_of_driver(error))
    return "FATAL:" in text and "the database system is" not in text  # starting up, shutting down, in recovery


def first_line(error: BaseException) -> str:
    """Return the first line of the driver's message."""
    return next(iter(str(_of_driver(error)).strip().splitlines()), type(error).__name__)


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Convert database errors into a message that names the database.

    Raises:
        ConfigError: the database cannot be opened, read or written.
    """
    try:
        yield
    except Exception as error:
        said = meaning(error)
        if said is None:
            raise
        from sqlalchemy import make_url

        shown = make_url(uri).render_as_string(hide_password=True)
        if is_lost(error):
            raise ConfigError(f"The database {shown} cannot be opened: {first_line(error)}.") from error
        raise ConfigError(f"{said} Database: {shown} ({first_line(error)}).") from error
