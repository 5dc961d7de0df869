"""`jobmon db`: manage the database: revision, upgrade, backup, purge, compact, export.

Upgrade, revision and backup open the database of `db.sqlalchemy_database_uri`. Without it, revision asks the server of
`http.service_url`, and without that, they open the database of the data folder. The others use the server.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli import exporting, purging
from jobmon.cli.groups import Group
from jobmon.cli.main import EXIT_FAILED
from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import YES, make_sure
from jobmon.core.exceptions import ConfigError
from jobmon.core.installing import how_to_install

if TYPE_CHECKING:
    from sqlalchemy import Engine

_STATES: Final = {
    "none": "There is no database yet; the first server creates it.",
    "current": "It is up to date.",
    "older": "It is older than this program. Upgrade it: jobmon db upgrade (a server does so when it starts).",
    "newer": f"It was written by a newer version of Jobmon, and this one cannot read it. Upgrade, {how_to_install()}",
}


@click.group(cls=Group)
def db() -> None:
    """Manage the database: upgrade it, back it up, delete old workflows, export workflows."""


db.add_command(purging.purge)
db.add_command(purging.compact)
db.add_command(exporting.export)


@db.command(epilog="Example: jobmon db revision")
@OUTPUT
def revision(output: str) -> None:
    """Show the revision of the database and whether this program can work with it. Exit code 1 if it cannot."""
    from jobmon.cli import rendering

    found = _state()
    if output == "json":
        rendering.show_json(found)
    else:
        rendering.show_pairs({key: found[key] for key in ("database", "revision", "newest")})
        click.echo(_STATES[found["state"]])
    if found["state"] in ("older", "newer"):
        raise click.exceptions.Exit(EXIT_FAILED)


def _state() -> dict[str, Any]:
    """Return the state of the database in use: `known_to` is the shared server that has it, or None."""
    from jobmon.cli.lookups import about, shared_server
    from jobmon.core.configuration import JobmonConfig
    from jobmon.server.migrations import HEAD

    if JobmonConfig().get("db", "sqlalchemy_database_uri") or (shared := shared_server()) is None:
        return _state_here()
    health, metrics = about(shared)
    return {
        "database": f"{health.database} of the server at {shared.url}",
        "revision": metrics.migration,
        "newest": HEAD,
        "state": _state_of(metrics.migration),
        "known_to": shared.url,
    }


def _state_of(revision: str | None) -> str:
    from jobmon.server.migrations import HEAD
    from jobmon.server.migrations.upgrading import known_revisions

    if revision is None:
        return "none"
    if revision == HEAD:
        return "current"
    return "older" if revision in known_revisions() else "newer"


def _state_here() -> dict[str, Any]:
    from jobmon.server.migrations import HEAD
    from jobmon.server.migrations.upgrading import revision_of

    uri, path = _place()
    found = None
    if path is None or path.exists():
        engine = _opened(uri)
        found = revision_of(engine)
        engine.dispose()
    state = _state_of(found)
    return {"database": _shown(uri), "revision": found, "newest": HEAD, "state": state, "known_to": None}


def _place() -> tuple[str, Path | None]:
    """Return the address of the database, and its file if it is the one of the data folder."""
    from jobmon.core import paths
    from jobmon.core.configuration import JobmonConfig, data_directory
    from jobmon.server.settings import DATABASE_NAME

    if uri := str(JobmonConfig().get("db", "sqlalchemy_database_uri") or ""):
        return uri, None
    path = paths.database_directory(data_directory()) / DATABASE_NAME
    return f"sqlite:///{path}", path


def _opened(uri: str) -> Engine:
    """Open the database; if it does not respond, fail with a one-line error."""
    from sqlalchemy.exc import SQLAlchemyError

    from jobmon.server.database import open_engine

    engine = open_engine(uri)
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        engine.dispose()
        raise click.ClickException(f"{_shown(uri)} cannot be opened: {str(error).splitlines()[0]}") from None
    return engine


def _shown(uri: str) -> str:
    from jobmon.cli import rendering

    hidden = {"db": {"uri": uri}}
    rendering.hide_secret(hidden, "uri")
    return str(hidden["db"]["uri"])


@db.command(epilog="Example: jobmon db upgrade")
@YES
def upgrade(yes: bool) -> None:
    """Upgrade the database to the revision of this program, or create it. An SQLite database is copied first.

    No server may use it during the upgrade: stop yours with `jobmon server stop`.
    """
    found = _state()
    if found["state"] == "current":
        click.echo(f"{found['database']} is at revision {found['revision']}: nothing to do.")
        return
    if found["state"] == "newer":
        raise ConfigError(f"{found['database']} is at revision {found['revision']}. {_STATES['newer']}")
    if found["known_to"] is not None:
        raise ConfigError(
            f"The server at {found['known_to']} upgrades its database when its own version of Jobmon is upgraded and it"
            " is restarted."
        )
    uri, path = _place()
    if path is None:
        make_sure(f"{_what_happens(found)} Stop every server that uses it, and back it up.", is_sure=yes)
        copy = _upgraded(uri)
    else:
        copy = _upgraded_alone(uri, path, _what_happens(found), is_sure=yes)
    click.echo(f"{found['database']} is at revision {found['newest']}.")
    if copy is not None:
        click.echo(f"Copy of the previous database: {copy}")


@db.command(epilog="Example: jobmon db backup /backup/jobmon.sqlite")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(file: Path) -> None:
    """Copy an SQLite database to FILE while its server is running. FILE is replaced once the copy is complete."""
    from jobmon.server.database_copy import write_copy

    target = exporting.target_of(file)
    if target.exists() and not target.is_file():
        raise click.UsageError(f"{file} is not a regular file.")
    _require_own_database()
    uri, path = _place()
    if not uri.startswith("sqlite"):
        raise ConfigError(f"{_shown(uri)} is not an SQLite database: back it up with pg_dump --format=custom.")
    source = path or Path(uri.partition("///")[2])
    if not source.is_file():
        raise ConfigError(f"There is no database at {source}.")
    if file.exists() and file.samefile(source):
        raise click.UsageError("FILE is the database itself.")
    try:
        write_copy(source, target.absolute())
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"{source} cannot be copied to {file}: {error}") from None
    click.echo(f"Copied {source} to {file}.")


def _require_own_database() -> None:
    from jobmon.core.configuration import JobmonConfig

    config = JobmonConfig()
    url = config.get("http", "service_url")
    if url and not config.get("db", "sqlalchemy_database_uri"):
        raise ConfigError(
            f"The database is that of the server at {url}: back it up on its host, PostgreSQL with pg_dump"
            " --format=custom."
        )


def _what_happens(found: dict[str, Any]) -> str:
    before = "will be created" if found["revision"] is None else f"will be upgraded from revision {found['revision']}"
    return f"{found['database']} {before} at revision {found['newest']}."


def _upgraded_alone(uri: str, path: Path, what: str, *, is_sure: bool) -> Path | None:
    """Upgrade the data folder's database while a lock prevents its server from running."""
    from jobmon.core import locks, paths
    from jobmon.core.access import SERVER_LOCK_NAME
    from jobmon.core.configuration import data_directory

    paths.make_private(data_directory())
    folder = paths.make_private(path.parent)
    with locks.FileLock(folder / SERVER_LOCK_NAME) as lock:
        if not lock.take():
            raise click.ClickException("The server of this data folder is running. Stop it first: jobmon server stop")
        make_sure(what, is_sure=is_sure)
        return _upgraded(uri)


def _upgraded(uri: str) -> Path | None:
    from sqlalchemy.exc import SQLAlchemyError

    from jobmon.server import migrations

    engine = _opened(uri)
    try:
        return migrations.upgrade(engine)
    except SQLAlchemyError as error:
        raise click.ClickException(f"The upgrade failed: {str(error).splitlines()[0]}") from error
    finally:
        engine.dispose()
