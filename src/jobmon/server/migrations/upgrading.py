"""Bringing a database to the version of this program."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect, text

from jobmon.core.exceptions import ConfigError
from jobmon.server.models import metadata

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

#: The newest revision in `versions/`; a test compares.
HEAD: Final = "0006"
VERSION_TABLE: Final = "migration"
IDENTITY_BYTES: Final = 5


def upgrade(engine: Engine) -> None:
    """Create or upgrade the schema.

    Raises:
        ConfigError: the database was written by a newer version of Jobmon.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # two servers may start at once; and one sync is enough
        found = _version(connection)
        if found is None:
            _create(connection)
        connection.commit()
    if found not in (None, HEAD):
        _migrate(engine, str(found))


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


def _migrate(engine: Engine, found: str) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config: Any = alembic_config(engine)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found not in known:
        raise ConfigError(
            f"The database has version {found}, which this Jobmon does not know: a newer one wrote it. "
            "Upgrade Jobmon (pip install --upgrade jobmon), or name another database in db.sqlalchemy_database_uri."
        )
    command.upgrade(config, "head")
