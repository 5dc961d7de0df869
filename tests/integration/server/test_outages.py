"""The database restarts, is gone, is full or cannot be written to: nothing is lost, and the answer says why."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

import httpx
import pytest
from server_world import RUN, TI, World, open_world, report
from tests.databases import PostgreSQLDatabases, administer, uri_of

from jobmon.core.clock import SystemClock
from jobmon.server.app import create_app
from jobmon.server.settings import Settings

#: What the file system of a database that is to become full holds: a new database, and a few rows more.
SMALL_BYTES = 64 * 2**20


@contextlib.asynccontextmanager
async def served_by(postgresql, folder, uri=None):
    """Yield a world whose database the test may break, with a running attempt."""
    uri = uri or PostgreSQLDatabases(postgresql.address).uri(folder)
    app = create_app(Settings(database_uri=uri))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server", timeout=None) as http,
    ):
        world = World(http, app, SystemClock())
        yield world, *await running(world)


async def running(world):
    bound = await world.bound(2)
    run = await bound.start()
    await run.register()
    await run.queue()
    attempts = (await run.launched()).task_instance_ids
    await run.sync(*(report(one, TI.RUNNING) for one in attempts))
    return bound, run, attempts


async def refused(world, run):
    """Send a report that must be refused for now; return the sentence."""
    answer = await world.http.post(
        f"/api/v1/workflow_runs/{run.id}/heartbeat", content=b'{"status": "R", "next_report_increment": 9}'
    )
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    return answer.json()["message"]


async def finish(run, bound, attempts):
    await run.sync(*(report(one, TI.DONE) for one in attempts))
    await run.move(RUN.DONE)
    assert set((await bound.statuses()).values()) == {"D"}


async def test_a_restart_of_the_database_is_not_noticed(own_postgresql, tmp_path):
    async with served_by(own_postgresql, tmp_path) as (world, bound, run, attempts):
        own_postgresql.stop()
        own_postgresql.start()
        await finish(run, bound, attempts)
        assert world.app.state.services.writer.work.reconnections >= 1


async def test_while_the_database_is_gone_requests_are_refused_with_a_reason(own_postgresql, tmp_path):
    async with served_by(own_postgresql, tmp_path) as (world, bound, run, attempts):
        own_postgresql.stop()
        for _ in range(3):
            assert "does not respond" in await refused(world, run)
            answer = await world.http.get(f"/api/v1/workflows/{bound.workflow_id}/progress")
            assert (answer.status_code, "does not respond" in answer.text) == (503, True)
            assert (await world.http.get("/api/v1/health")).status_code == 200
            assert (await world.http.get("/api/v1/ready")).status_code == 503
        own_postgresql.start()
        assert (await world.http.get("/api/v1/ready")).status_code == 200
        await finish(run, bound, attempts)


async def test_a_database_that_becomes_read_only_says_so_and_recovers(own_postgresql, tmp_path):
    def reload(value):
        administer(
            own_postgresql.address,
            f"ALTER SYSTEM SET default_transaction_read_only = {value}",
            "SELECT pg_reload_conf()",
            "SELECT pg_sleep(0.2)",
        )

    async with served_by(own_postgresql, tmp_path) as (world, bound, run, attempts):
        reload("on")
        assert "read-only now" in await refused(world, run)
        administer(own_postgresql.address, "SET default_transaction_read_only = off", "ALTER SYSTEM RESET ALL")
        administer(own_postgresql.address, "SELECT pg_reload_conf()", "SELECT pg_sleep(0.2)")
        await finish(run, bound, attempts)


async def test_a_user_of_the_database_who_is_removed_is_named_in_the_log_and_nothing_is_lost(
    own_postgresql, tmp_path, caplog
):
    administer(own_postgresql.address, "CREATE ROLE server SUPERUSER LOGIN", "CREATE ROLE other SUPERUSER LOGIN")
    uri = PostgreSQLDatabases(own_postgresql.address).uri(tmp_path).replace("//jobmon@", "//server@")
    async with served_by(own_postgresql, tmp_path, uri) as (world, bound, run, attempts):
        administer(own_postgresql.address, "ALTER ROLE server RENAME TO gone")
        own_postgresql.stop()
        own_postgresql.start()
        assert "rejects the server's connections" in await refused(world, run)
        answer = await world.http.get(f"/api/v1/workflows/{bound.workflow_id}/progress")
        assert (answer.status_code, "rejects the server's connections" in answer.text) == (503, True)
        assert 'role "server" does not exist' in caplog.text
        administer(own_postgresql.address, "ALTER ROLE gone RENAME TO server")
        await finish(run, bound, attempts)


@pytest.fixture
def small_file_system(own_postgresql):
    """Yield a folder on a file system of SMALL_BYTES that PostgreSQL's user owns."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder = own_postgresql.folder / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES},mode=700", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        shutil.chown(folder, "postgres")
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_full_file_system_of_postgresql_is_named_and_nothing_is_lost(
    own_postgresql, small_file_system, tmp_path
):
    address = own_postgresql.address
    administer(
        address,
        f"CREATE TABLESPACE small LOCATION '{small_file_system}'",
        "CREATE DATABASE small TEMPLATE schema_template TABLESPACE small",
    )
    async with served_by(own_postgresql, tmp_path, uri_of(address, "small")) as (world, bound, run, attempts):
        filler = small_file_system / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        sync = report(attempts[0], TI.DONE, log_tail="".join(map(chr, range(0x4E00, 0x4E00 + 9_000))))
        with pytest.raises(Exception, match="disk that holds the server's database is full"):
            await run.sync(sync)
        answer = await world.http.get(f"/api/v1/workflows/{bound.workflow_id}/progress")
        assert answer.status_code == 200, "reading needs no space"
        filler.unlink()
        await run.sync(sync)
        await finish(run, bound, attempts)


def _limit_pages(tx, *, is_full):
    pages = tx._cursor.execute("PRAGMA page_count").fetchone()[0]
    tx._cursor.execute(f"PRAGMA max_page_count = {pages if is_full else 1_000_000}")


def _forbid_writing(tx, *, is_full):
    tx._cursor.execute(f"PRAGMA query_only = {int(is_full)}")


@pytest.mark.sqlite_only(reason="a full PostgreSQL needs a file system of its own")
async def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path):
    async with open_world(tmp_path) as world:
        bound, run, attempts = await running(world)
        write = world.app.state.services.writer.run
        await write(lambda tx: _limit_pages(tx, is_full=True))
        text = "x" * 9_000
        sync = report(attempts[0], TI.DONE, log_tail=text)
        with pytest.raises(Exception, match="disk that holds the server's database is full"):
            await run.sync(sync)
        await write(lambda tx: _limit_pages(tx, is_full=False))
        await run.sync(sync)
        await finish(run, bound, attempts)
