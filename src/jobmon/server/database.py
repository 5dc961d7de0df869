"""Opening the database: one connection that writes, a bounded number that read, and the schema as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from jobmon.core.exceptions import ConfigError
from jobmon.server.sql import Session
from jobmon.server.transaction import Surroundings, Transaction

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

SQLITE_BUSY_SECONDS: Final = 30.0
SQLITE_CACHE_KIBIBYTES: Final = 32 * 1024
#: So many pages (of 4 KiB) gather in the log before they are brought into the file. That takes two syncs and writes a
#: page once, however often it was changed: more at a time is less to write, and the writer waits for it less often.
SQLITE_LOG_PAGES: Final = 8 * 1024
_SQLITE_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA wal_autocheckpoint={SQLITE_LOG_PAGES}",
    f"PRAGMA cache_size=-{SQLITE_CACHE_KIBIBYTES}",
    "PRAGMA temp_store=MEMORY",
)
_DRIVERS: Final = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}


def _url(uri: str) -> URL:
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"db.sqlalchemy_database_uri cannot be read: {error}.") from error
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def open_engine(uri: str) -> Engine:
    """Open a database. Connections are held by those who use them, so the engine pools none.

    Raises:
        ConfigError: the address cannot be read, or the driver for it is missing.
    """
    url = _url(uri)
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        arguments = {"timeout": SQLITE_BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}
    try:
        engine = create_engine(url, poolclass=NullPool, connect_args=arguments)
    except ImportError as error:
        raise ConfigError(f"The driver of {url.drivername} is missing: {error}. Install an extra of jobmon.") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def dialect_of(engine: Engine) -> str:
    """Return "sqlite", "postgresql" or "mysql"."""
    name = engine.dialect.name
    return "mysql" if name == "mariadb" else name


def open_session(engine: Engine) -> Session:
    """Open a session for reading."""
    return Session(engine.raw_connection(), dialect_of(engine))


def open_transaction(engine: Engine, surroundings: Surroundings) -> Transaction:
    """Open the session of the writer."""
    return Transaction(engine.raw_connection(), dialect_of(engine), surroundings)
