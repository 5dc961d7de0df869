"""The copy of an embedded server's database in its data folder, and the choice of the database at startup.

If the data folder is on a network file system, the database is on the local disk of the server's host. If that host is
gone, a server on another host continues with the copy. Both folders record the server's *incarnation*, which changes
whenever the record moves: a database whose incarnation differs from that of the access file is outdated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from jobmon.agent import trust
from jobmon.core import access, paths
from jobmon.core.exceptions import ConfigError
from jobmon.server.settings import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jobmon.core.wire.server import AccessFile

COPY_INTERVAL_SECONDS: Final = 300.0
INCARNATION_NAME: Final = "incarnation"
_INCARNATION_BYTES: Final = 8
#: SQLite keeps pages that are not yet in the database in files next to it.
_SUFFIXES: Final = ("", "-wal", "-shm")

logger = logging.getLogger("jobmon.server")


def claim(data: Path, folder: Path, former: AccessFile | None, *, take_over: bool) -> str:
    """Ensure that the database in `folder` is the newest one; return the incarnation of the server that will use it.

    Args:
        data: the data folder.
        folder: the folder of the database on this host.
        former: the previous access file.
        take_over: replace the former server, even if it may be running on another host.

    Raises:
        ConfigError: the newest database is on another host, and there is no copy that may be used instead.
    """
    last = former.incarnation if former is not None else ""
    if folder == data:
        return _new_incarnation() if take_over or not last else last
    mine = _read_incarnation(folder)
    if not last or mine == last:
        return mine or _write_incarnation(folder)
    assert former is not None, "it has the last incarnation"
    if access.is_here(former):  # the database on this host was removed
        if access.copy_path(data).exists():
            _restore(data, folder, former)
    elif take_over or former.is_copied:
        _restore(data, folder, former)
    else:
        raise ConfigError(f"{_left(former)} If {former.host} is gone for good: jobmon server start --take-over")
    return _write_incarnation(folder)


def _left(former: AccessFile) -> str:
    path = former.database.removeprefix("sqlite:///")
    return f"The database is on host {former.host} in {path}; start the server there."


def _restore(data: Path, folder: Path, former: AccessFile) -> None:
    """Replace the outdated database here by the copy; the old one is kept under another name."""
    copy, database = access.copy_path(data), folder / DATABASE_NAME
    if not copy.exists():
        raise ConfigError(f"{_left(former)} There is no copy of it in {data}.")
    logger.warning("the database is restored from the copy of %s", time.ctime(copy.stat().st_mtime))
    fresh = folder / f"{DATABASE_NAME}.new"
    _copy_file(copy, fresh)
    aside = f"{DATABASE_NAME}.left-{time.strftime('%Y%m%dT%H%M%S')}"
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            (folder / f"{DATABASE_NAME}{suffix}").rename(folder / f"{aside}{suffix}")
    fresh.replace(database)


def _copy_file(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with (
        paths.trusting(),
        open(trust.open_file(str(source)), "rb") as old,
        open(trust.open_file(str(target), os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as new,
    ):
        shutil.copyfileobj(old, new)
        new.flush()
        os.fsync(new.fileno())


def _read_incarnation(folder: Path) -> str:
    if not (folder / DATABASE_NAME).exists():
        return ""
    try:
        with paths.trusting():
            return trust.read_file(str(folder / INCARNATION_NAME)).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _write_incarnation(folder: Path) -> str:
    word = _new_incarnation()
    temporary = folder / f".{INCARNATION_NAME}"
    with paths.trusting():
        file = trust.open_file(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(file, "w", encoding="ascii") as stream:
        stream.write(word)
    temporary.replace(folder / INCARNATION_NAME)
    return word


def _new_incarnation() -> str:
    return secrets.token_hex(_INCARNATION_BYTES)


class DatabaseCopy:
    """Keeps the copy of the database up to date.

    Args:
        database: the database's file.
        data: the data folder.
        requests: returns the number of requests so far: without a request, nothing worth copying was recorded.
    """

    def __init__(self, database: Path, data: Path, requests: Callable[[], int]) -> None:
        self._database = database
        self._path = access.copy_path(data)
        self._requests = requests
        self._copied: object = None

    async def keep(self) -> None:
        """Copy the database every few minutes if anything changed, until cancelled."""
        while True:
            await asyncio.sleep(COPY_INTERVAL_SECONDS)
            await asyncio.to_thread(self.update)

    def update(self) -> bool:
        """Copy the database if anything changed; return whether the copy is up to date. A failure is logged."""
        state = (self._requests(), self._size())
        if state == self._copied:
            return True
        try:
            self._write()
        except (OSError, sqlite3.Error) as error:
            logger.error("the database cannot be copied to %s: %s", self._path, error)
            return False
        self._copied = state
        return True

    def _size(self) -> list[tuple[int, int]]:
        found = []
        for suffix in _SUFFIXES[:2]:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(f"{self._database}{suffix}")
                found.append((status.st_size, status.st_mtime_ns))
        return found

    def _write(self) -> None:
        write_copy(self._database, self._path)


def write_copy(database: Path, path: Path) -> None:
    """Copy a database that its server may be writing; replace an older copy atomically.

    Raises:
        OSError: the copy cannot be written.
        sqlite3.Error: the database cannot be read.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with paths.trusting():
        os.close(trust.open_file(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        # no other process opens the copy; locks and journals do not work on every network file system
        with (
            contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(f"{temporary.as_uri()}?nolock=1", uri=True)) as target,
        ):
            target.execute("PRAGMA journal_mode=OFF")
            target.execute("PRAGMA synchronous=OFF")
            source.backup(target)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
