"""Access over real sockets, and a long poll whose client has disconnected."""

import asyncio
import contextlib
from functools import partial

import httpx
import pytest
import uvicorn
from server_world import CLUSTER, World, open_world

from jobmon.core.clock import SystemClock
from jobmon.core.constants import MESSAGE_VERSION
from jobmon.server.app import create_app
from jobmon.server.connections import DESCRIPTORS_MAX, Connections
from jobmon.server.gathering import BoundedProtocol
from jobmon.server.settings import Settings


@contextlib.asynccontextmanager
async def served(app, *, knows_own_user=True, **address):
    kind = partial(BoundedProtocol, Connections(DESCRIPTORS_MAX, knows_own_user=knows_own_user))
    config = uvicorn.Config(
        app, http=kind, log_config=None, lifespan="on", ws="none", timeout_graceful_shutdown=2, **address
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.001)
    try:
        yield server
    finally:
        app.state.begin_stop()
        server.should_exit = True
        await serving


@pytest.fixture
def app(tmp_path, databases):
    return create_app(Settings(database_uri=databases.uri(tmp_path)), token="secret")


async def test_the_unix_socket_needs_no_token(app, tmp_path):
    path = str(tmp_path / "s")
    async with (
        served(app, uds=path),
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path), base_url="http://server") as http,
    ):
        assert (await http.get("/api/v1/clusters")).status_code == 200


async def test_tcp_needs_the_token_but_for_health(app, databases):
    async with served(app, host="127.0.0.1", port=0) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1") as http:
            told = (await http.get("/health")).json()
            assert told == {**dict.fromkeys(told, ""), "message_version": MESSAGE_VERSION, "pid": 0}, "not who this is"
            mine = {"Authorization": "Bearer secret"}
            assert (await http.get("/health", headers=mine)).json()["database"] == databases.dialect
            assert (await http.get("/clusters")).status_code == 401
            assert (await http.get("/clusters", headers={"Authorization": "Bearer wrong"})).status_code == 401
            answer = await http.get("/clusters", headers={"Authorization": "Bearer secret"})
            assert (answer.status_code, answer.json()) == (200, {"clusters": []})


async def test_work_is_not_given_to_a_caller_who_has_gone_away(app, tmp_path):
    path = str(tmp_path / "s")
    async with served(app, uds=path):
        feed = app.state.services.feed
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path), base_url="http://x") as http:
            world = World(http, app, SystemClock())
            bound = await world.bound(1)
            run = await bound.start()
            await run.register()
            poll = asyncio.create_task(run.sync(capacity={CLUSTER: 5}, wait_seconds=20))
            while not feed.open_polls:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            poll.cancel()
            with pytest.raises(asyncio.CancelledError):
                await poll
            await run.queue()
            while feed.open_polls:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert len((await run.launched()).task_ids) == 1


async def test_in_process_without_a_token_everybody_is_let_in(tmp_path):
    async with open_world(tmp_path) as world:
        assert (await world.http.get("/api/v1/clusters")).status_code == 200
