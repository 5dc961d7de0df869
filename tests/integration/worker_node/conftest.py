"""A real server over TCP, and real jobs that take tasks from it."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import pytest
import uvicorn

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "server"))

from pack_world import make_pack
from server_world import World, open_world

from jobmon.core.clock import SystemClock
from jobmon.worker_node import process

TRIED_MAX = 2_000


class Jobs:
    """Starts packed jobs and waits for conditions."""

    def __init__(self, folder):
        self.folder = folder
        self.url = ""
        self.started = []

    async def start(self, pack, name="j1", **environment):
        values = {
            **os.environ,
            "JOBMON_SERVICE_URL": self.url,
            "JOBMON_DATA_DIR": str(self.folder),
            "JOB": name,
            "JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT": "0.3",
            "JOBMON_PILOT_IDLE_SECONDS": "0.2",
            **environment,
        }
        words = ["--cluster-name", "c", "--array-id", str(pack.bound.array_id), "--packed", "yes"]
        words += ["--batch-number", str(pack.batch.batch_number), "--distributor-id-variable", "JOB"]
        job = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", process.__file__, *words, env=values, stderr=asyncio.subprocess.PIPE
        )
        self.started.append(job)
        return job

    async def run(self, pack, name="j1", **environment):
        """Start a job and return its exit code."""
        job = await self.start(pack, name, **environment)
        _, errors = await asyncio.wait_for(job.communicate(), 20)
        assert not errors, errors
        return job.returncode

    async def until(self, is_so):
        for _ in range(TRIED_MAX):
            if is_so():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("it never came to that")

    def log(self, attempt):
        (path,) = self.folder.glob(f"logs/*/0/*.{attempt}.log")
        return path.read_text()

    def undelivered(self):
        return sorted(path.name for path in self.folder.glob("reports/*/*"))


@contextlib.asynccontextmanager
async def _served(world, port=0):
    config = uvicorn.Config(
        world.app, log_config=None, lifespan="off", ws="none", host="127.0.0.1", port=port, timeout_graceful_shutdown=0
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.001)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
def served():
    """Return a context manager that serves a world's application over TCP."""
    return _served


@pytest.fixture
async def jobs(tmp_path):
    jobs = Jobs(tmp_path / "data")
    yield jobs
    for job in jobs.started:
        if job.returncode is None:
            job.kill()
        await job.communicate()


@pytest.fixture
async def world(tmp_path, jobs):
    settings = {"clock": SystemClock(), "task_instance_interval_seconds": 0.2}
    async with open_world(tmp_path, **settings) as opened, _served(opened) as port:
        jobs.url = f"http://127.0.0.1:{port}"
        yield opened


@pytest.fixture
def packed(world: World):
    """Return a function that queues and launches commands."""

    async def make(*commands, requested=None, submitted=("j1",), **more):
        return await make_pack(
            world, len(commands), requested or {"pack": 2}, submitted=submitted, commands=list(commands), **more
        )

    return make
