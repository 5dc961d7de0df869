"""Bringing a database to the version of this program."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect, text

from jobmon.core.exceptions import ConfigError
from jobmon.server.models import metadata

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

#: The newest revision in `versions/`; a test compares.
HEAD: Final = "0008"
VERSION_TABLE: Final = "migration"
IDENTITY_BYTES: Final = 5


def revision_of(engine: Engine) -> str | None:
    """Return the revision of a database; None: there is nothing in it yet."""
    with engine.connect() as connection:
        return _version(connection)


def known_revisions() -> list[str]:
    """Return all revisions, oldest first: the files begin with them."""
    files = (Path(__file__).parent / "versions").glob("[0-9]*_*.py")
    return sorted(file.name.partition("_")[0] for file in files)


def upgrade(engine: Engine) -> Path | None:
    """Create or upgrade the schema; return the copy that was made of an SQLite database before it was changed.

    Raises:
        ConfigError: the database was written by a newer version of Jobmon, or there is no room for the copy.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # two servers may start at once; and one sync is enough
        found = _version(connection)
        if found is None:
            _create(connection)
        connection.commit()
    return None if found in (None, HEAD) else _migrate(engine, str(found))


def _version(connection: Connection) -> str | None:
    """Return the revision of a database; None: it is empty."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))


def _create(connection: Connection) -> None:
    metadata.create_all(connection, checkfirst=False)
    connection.execute(text(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES (:head)"), {"head": HEAD})
    connection.execute(text("INSERT INTO logical_clock (id, stamp) VALUES (1, 0)"))
    connection.execute(text("INSERT INTO server_identity (id, word) VALUES (1, :word)"), {"word": random_identity()})


def random_identity() -> str:
    """Return a word that no other server has."""
    return secrets.token_hex(IDENTITY_BYTES)


def alembic_config(engine: Engine | None = None) -> Config:
    """Return the configuration for Alembic's commands."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["engine"] = engine
    return config


def _migrate(engine: Engine, found: str) -> Path | None:
    from alembic import command

    config: Any = alembic_config(engine)
    if found not in known_revisions():
        raise ConfigError(
            f"The database has version {found}, which this Jobmon does not know: a newer one wrote it. "
            "Upgrade Jobmon (pip install --upgrade jobmon), or name another database in db.sqlalchemy_database_uri."
        )
    copy = _back_up(engine, found)
    command.upgrade(config, "head")
    return copy


def _back_up(engine: Engine, found: str) -> Path | None:
    """Copy an SQLite database, beside it; one copy for each revision. Others have their own ways."""
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
            f"The database must be upgraded, but cannot be copied to {copy} before: {error}. Make room there."
        ) from error
    return copy
