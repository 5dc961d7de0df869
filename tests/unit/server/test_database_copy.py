"""Which database a starting server uses, and the copy with which another host can continue."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from jobmon.core import access, paths
from jobmon.core.exceptions import ConfigError
from jobmon.core.wire import replace
from jobmon.core.wire.server import AccessFile
from jobmon.server.database_copy import DatabaseCopy, claim
from jobmon.server.settings import DATABASE_NAME


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def hosts(tmp_path):
    """The local folders of two hosts."""
    folders = [tmp_path / name for name in ("login1", "login2")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    return folders


def _write(folder, *values):
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE IF NOT EXISTS t (a)")
        database.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        database.commit()


def _read(folder):
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [value for (value,) in database.execute("SELECT a FROM t")]


def _access(folder, incarnation, **changes):
    fields = {
        **{"host": "login1", "pid": 1, "pid_start_time": 1.0, "boot_id": "b", "socket": "", "address": ""},
        **{"token": "", "version": "1", "message_version": 1, "running": True, "started_at": ""},
        **{"database": f"sqlite:///{folder / DATABASE_NAME}", "incarnation": incarnation},
    }
    return AccessFile(**{**fields, **changes})


def test_a_database_in_the_data_folder_keeps_its_incarnation_until_it_is_taken_over(data):
    first = claim(data, data, None, take_over=False)
    former = _access(data, first)
    assert claim(data, data, former, take_over=False) == first
    assert claim(data, data, former, take_over=True) not in (first, "")
    assert claim(data, data, replace(former, incarnation=""), take_over=False)  # of an older version


def test_a_host_goes_on_with_its_own_database(data, hosts):
    incarnation = claim(data, hosts[0], None, take_over=False)
    _write(hosts[0], 1)
    assert claim(data, hosts[0], _access(hosts[0], incarnation), take_over=False) == incarnation
    assert claim(data, hosts[0], _access(hosts[0], incarnation), take_over=True) == incarnation
    assert _read(hosts[0]) == [1]


def test_another_host_goes_on_with_the_copy_when_the_server_ended_in_order(data, hosts):
    incarnation = claim(data, hosts[0], None, take_over=False)
    _write(hosts[0], 1, 2)
    assert DatabaseCopy(hosts[0] / DATABASE_NAME, data, lambda: 0).update()
    ended = _access(hosts[0], incarnation, running=False, is_copied=True)
    moved = claim(data, hosts[1], ended, take_over=False)
    assert moved != incarnation
    assert _read(hosts[1]) == [1, 2]
    _write(hosts[1], 3)
    assert DatabaseCopy(hosts[1] / DATABASE_NAME, data, lambda: 0).update()
    back = _access(hosts[1], moved, host="login2", running=False, is_copied=True)
    assert claim(data, hosts[0], back, take_over=False) != moved
    assert _read(hosts[0]) == [1, 2, 3]
    assert len(list(hosts[0].glob(f"{DATABASE_NAME}.left-*[0-9]"))) == 1, "what was left behind is kept"


def test_another_host_begins_nothing_while_the_newest_database_is_elsewhere(data, hosts):
    incarnation = claim(data, hosts[0], None, take_over=False)
    _write(hosts[0], 1)
    DatabaseCopy(hosts[0] / DATABASE_NAME, data, lambda: 0).update()
    lost = _access(hosts[0], incarnation)
    with pytest.raises(ConfigError, match=r"is on host login1 in .*login1/jobmon\.sqlite;.* start --take-over"):
        claim(data, hosts[1], lost, take_over=False)
    assert not list(hosts[1].iterdir())
    assert claim(data, hosts[1], lost, take_over=True) != incarnation
    assert _read(hosts[1]) == [1]


def test_without_a_copy_nothing_is_taken_over(data, hosts):
    incarnation = claim(data, hosts[0], None, take_over=False)
    with pytest.raises(ConfigError, match=rf"host login1 in {hosts[0]}.*There is no copy of it in {data}\."):
        claim(data, hosts[1], _access(hosts[0], incarnation), take_over=True)
    assert not list(hosts[1].iterdir())


def test_a_database_that_was_removed_here_is_taken_from_the_copy_or_begun_anew(data, hosts):
    incarnation = claim(data, hosts[0], None, take_over=False)
    here = _access(hosts[0], incarnation, boot_id=paths.boot_id())
    assert claim(data, hosts[0], here, take_over=False) != incarnation
    assert not (hosts[0] / DATABASE_NAME).exists()
    _write(hosts[0], 1)
    DatabaseCopy(hosts[0] / DATABASE_NAME, data, lambda: 0).update()
    (hosts[0] / DATABASE_NAME).unlink()
    claim(data, hosts[0], here, take_over=False)
    assert _read(hosts[0]) == [1]


def test_a_planted_copy_is_refused(data, hosts):
    incarnation = claim(data, hosts[0], None, take_over=False)
    _write(hosts[0], 1)
    access.copy_path(data).symlink_to(hosts[0] / DATABASE_NAME)
    with pytest.raises(ConfigError, match="symbolic link"):
        claim(data, hosts[1], _access(hosts[0], incarnation), take_over=True)


def test_the_copy_is_private_whole_and_made_only_when_something_changed(data, hosts):
    requests = [0]
    copy = DatabaseCopy(hosts[0] / DATABASE_NAME, data, lambda: requests[0])
    with closing(sqlite3.connect(hosts[0] / DATABASE_NAME)) as database:  # a writer that stays
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (1)")
        database.commit()
        assert copy.update()
        path = access.copy_path(data)
        assert path.stat().st_mode & 0o777 == 0o600
        first = path.stat().st_ino
        assert copy.update()
        assert path.stat().st_ino == first
        requests[0] += 1
        database.execute("INSERT INTO t VALUES (2)")
        database.commit()
        assert copy.update()
    assert path.stat().st_ino != first
    path.rename(data / DATABASE_NAME)
    assert _read(data) == [1, 2]
    assert {one.name for one in data.iterdir()} <= {DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm"}


def test_a_copy_that_fails_leaves_the_old_one_and_says_so(data, hosts, caplog):
    _write(hosts[0], 1)
    copy = DatabaseCopy(hosts[0] / DATABASE_NAME, data, lambda: 0)
    assert copy.update()
    before = access.copy_path(data).read_bytes()
    (hosts[0] / DATABASE_NAME).write_bytes(b"no database" * 1000)
    assert not copy.update()
    assert access.copy_path(data).read_bytes() == before
    assert [one.name for one in data.iterdir()] == [access.COPY_NAME]
    assert "cannot be copied" in caplog.text
