"""Create and upgrade the schema, in one process at a time, because several servers may start concurrently."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import ConfigError
from jobmon.core.installing import how_to_install
from jobmon.server import texts
from jobmon.server.migrations import references

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.config import Config
    from sqlalchemy import Connection, Engine

    from jobmon.server.database import Database

#: The newest revision in `versions/`; checked by a test.
HEAD: Final = "0026"
VERSION_TABLE: Final = "migration"
IDENTITY_BYTES: Final = 5
#: PostgreSQL's advisory locks are numbers: this one is held by the process that creates or upgrades the schema.
_LOCK: Final = 0x6A6F626D6F6E
#: Maximum wait for another server's upgrade, seconds; adding a column to many million rows takes seconds.
LOCK_SECONDS_MAX: Final = 300.0
_LOCK_NOT_AVAILABLE: Final = "55P03"


def revision_of(engine: Engine) -> str | None:
    """Return the revision of a database; None: it is empty.

    Raises:
        ConfigError: the database cannot be opened.
    """
    with _opened(engine) as connection:
        return _version(connection)


def known_revisions() -> list[str]:
    """Return all revisions, oldest first; the names of the files begin with them."""
    files = (Path(__file__).parent / "versions").glob("[0-9]*_*.py")
    return sorted(file.name.partition("_")[0] for file in files)


def upgrade(engine: Engine, *, lock_seconds_max: float = LOCK_SECONDS_MAX) -> Path | None:
    """Create or upgrade the schema of a database.

    Args:
        engine: the database.
        lock_seconds_max: how long to wait for another process that does the same, seconds.

    Returns:
        The backup of an SQLite database that was made before the upgrade, or None.

    Raises:
        ConfigError: the database cannot be opened, was written by a newer version of Jobmon, is being upgraded by
            another process for too long, or there is no space for the backup.
    """
    with _alone(engine, lock_seconds_max):
        with _opened(engine) as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # two servers may start concurrently; one sync suffices
            found = _version(connection)
            if found is None:
                _require_empty(connection)
                _create(connection)
            connection.commit()
        return None if found in (None, HEAD) else _migrate(engine, str(found))


def ensure(database: Database) -> None:
    """Create or upgrade the schema of a server's database, without SQLAlchemy if it is current or a new SQLite file.

    Raises:
        ConfigError: see `upgrade`.
    """
    if database.dialect != texts.DIALECT or not ensure_from_texts(database):
        upgrade(database.engine)


def ensure_from_texts(database: Database) -> bool:
    """Create the schema of an empty SQLite database from its text; return whether it has the newest schema now."""
    try:
        connection = database.connect()
    except sqlite3.Error:
        return False
    with closing(connection):
        cursor = connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")  # two servers may start concurrently; one sync suffices
        tables = {name for (name,) in cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if VERSION_TABLE in tables:
            return bool(cursor.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() == (HEAD,))
        schema = texts.schema()
        if tables or not schema:
            return False
        for statement in (*schema, *_first_rows()):
            cursor.execute(statement)
        cursor.execute("COMMIT")
    return True


@contextmanager
def _opened(engine: Engine) -> Iterator[Connection]:
    """Open a connection, or raise a ConfigError that says why that is impossible."""
    from sqlalchemy.exc import DBAPIError

    try:
        connection = engine.connect()
    except DBAPIError as error:
        why = str(error.orig).strip().splitlines()[0] if error.orig is not None else str(error)
        place = engine.url.render_as_string(hide_password=True)
        raise ConfigError(
            f"The database {place} cannot be opened: {why.rstrip('.')}. "
            "Check the address (db.sqlalchemy_database_uri) and that the database exists and accepts connections."
        ) from error
    with connection:
        yield connection


@contextmanager
def _alone(engine: Engine, seconds_max: float) -> Iterator[None]:
    """Hold PostgreSQL's lock for the schema. SQLite locks the whole database while it changes, so it needs none."""
    if engine.dialect.name != "postgresql":
        yield
        return
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    with _opened(engine) as connection:
        milliseconds = str(max(1, round(seconds_max * 1000)))
        connection.execute(text("SELECT set_config('lock_timeout', :most, false)"), {"most": milliseconds})
        try:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            raise ConfigError(
                f"Another process has been upgrading this database for more than {seconds_max:g} s. "
                "Wait until it has finished, then retry."
            ) from error
        connection.commit()  # the lock belongs to the session, not to the transaction
        yield


def _version(connection: Connection) -> str | None:
    """Return the revision of a database; None: it is empty."""
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return None if found is None else str(found)


def _require_empty(connection: Connection) -> None:
    from sqlalchemy import inspect

    from jobmon.server.models.tables import metadata

    taken = sorted(set(inspect(connection).get_table_names()).intersection(metadata.tables))
    if taken:
        place = connection.engine.url.render_as_string(hide_password=True)
        raise ConfigError(
            f"The database {place} has tables of another program, such as {taken[0]!r}. "
            "Set db.sqlalchemy_database_uri to an empty database."
        )


def _create(connection: Connection) -> None:
    from jobmon.server.models.tables import metadata

    metadata.create_all(connection, checkfirst=False)
    if connection.dialect.name == "postgresql":
        for statement in references.creation(references.of_models()):
            connection.exec_driver_sql(statement)
    for statement in _first_rows():
        connection.exec_driver_sql(statement)


def _first_rows() -> tuple[str, ...]:
    """Return the statements that follow those which create the tables."""
    return (
        f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
        f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')",
        "INSERT INTO logical_clock (id, stamp) VALUES (1, 0)",
        f"INSERT INTO server_identity (id, word) VALUES (1, '{random_identity()}')",
    )


def random_identity() -> str:
    """Return a unique word for a server."""
    return secrets.token_hex(IDENTITY_BYTES)


def alembic_config(engine: Engine | None = None) -> Config:
    """Return the configuration for Alembic's commands."""

    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["engine"] = engine
    return config


def only_of(dialect: str) -> Callable[..., bool]:
    """Return a filter for Alembic: which of the models' indexes and references to compare with a database."""

    from jobmon.server.models.types import DIALECT

    def is_included(item: Any, name: str, kind: str, is_reflected: bool, other: object) -> bool:
        if kind == "foreign_key_constraint":
            return all(one.info.get(DIALECT, dialect) == dialect for one in item.elements)
        return kind != "index" or item.info.get(DIALECT, dialect) == dialect

    return is_included


def _migrate(engine: Engine, found: str) -> Path | None:
    from alembic import command

    config: Any = alembic_config(engine)
    if found not in known_revisions():
        raise ConfigError(
            f"The database has version {found}, which this version of Jobmon does not know: a newer one wrote it. "
            f"Upgrade Jobmon ({how_to_install()}), or set db.sqlalchemy_database_uri to another database."
        )
    copy = _back_up(engine, found)
    command.upgrade(config, "head")
    return copy


def _back_up(engine: Engine, found: str) -> Path | None:
    """Copy an SQLite database to a file next to it; one copy per revision. Other databases have their own tools."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path or path == ":memory:":
        return None
    copy = Path(f"{path}.before-{HEAD}-was-{found}")
    try:
        copy.touch(mode=0o600)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except (sqlite3.Error, OSError) as error:
        copy.unlink(missing_ok=True)
        raise ConfigError(
            f"The database must be upgraded, but cannot be copied to {copy} first: {error}. Free some space there."
        ) from error
    return copy
