"""An embedded server dies and is replaced while jobs run on hosts that cannot read its data folder."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "server"))

from server_world import World

from jobmon.core import access, paths
from jobmon.core.clock import SystemClock
from jobmon.core.requester import Requester
from jobmon.core.wire.server import ServerAddress
from jobmon.worker_node import process

JOBS = 3
TRIES_MAX = 3_000


async def until(is_so) -> None:
    for _ in range(TRIES_MAX):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not so after {TRIES_MAX} looks")


def statuses(folder: Path) -> str:
    with sqlite3.connect(folder / "jobmon.sqlite") as database:
        return "".join(row[0] for row in database.execute("SELECT status FROM task_instance ORDER BY id"))


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    monkeypatch.setenv("JOBMON_DATA_DIR", str(folder))
    yield folder
    access.stop_server()


@pytest.mark.sqlite_only(reason="kills the embedded server")
async def test_all_outcomes_are_recorded_by_the_next_server(data, tmp_path):
    requester = Requester.from_defaults()
    address = requester.call("/server/open_to_other_hosts", None, ServerAddress).address
    former = access.find_server()
    async with httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=former.socket), base_url="http://server", timeout=30
    ) as http:
        bound = await World(http, None, SystemClock()).bound(
            JOBS,
            commands=[f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit {number}" for number in range(JOBS)],
        )
        run = await bound.start()
        token = (await run.register()).agent_token
        await run.queue()
        launched = await run.launched()
    environment = {
        **os.environ,
        "JOBMON_DATA_DIR": str(tmp_path / "not-on-this-host"),
        "JOBMON_SERVER_ADDRESS": address,
        "JOBMON_TOKEN": token,
        "JOB": "j",
    }
    workers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", process.__file__, "--cluster-name", "here"),
            *("--task-instance-id", str(attempt), "--distributor-id-variable", "JOB"),
            env=environment,
        )
        for attempt in launched.task_instance_ids
    ]
    await until(lambda: statuses(data) == "R" * JOBS)
    os.kill(former.pid, signal.SIGKILL)
    await until(lambda: not paths.is_process_alive(former.pid, former.pid_start_time))
    (tmp_path / "go").touch()
    next_one = await asyncio.to_thread(access.ensure_server)
    assert (next_one.address, next_one.token != former.token) == (address, True)
    await until(lambda: statuses(data) == "DEE")
    assert [await asyncio.wait_for(worker.wait(), 60) for worker in workers] == [0] * JOBS
    requester.close()
