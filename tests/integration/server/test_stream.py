"""What an open page reads of a workflow as a stream, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import replace

import httpx
import pytest
from server_world import TI, World, report
from stream_world import KINDS, SECONDS_MAX, Events
from test_sockets import served

from jobmon.core import wire
from jobmon.core.clock import SystemClock
from jobmon.core.constants import Cause, TaskStatus
from jobmon.core.wire.credentials import LinkRequest, LinkResponse, PageSession
from jobmon.core.wire.failures import FailuresResponse
from jobmon.core.wire.monitoring import TaskSummariesResponse, WorkflowView
from jobmon.server.app import create_app
from jobmon.server.queries.failures import workflow_failures
from jobmon.server.routes import handlers, streaming, table
from jobmon.server.routes.endpoint import EVENTS
from jobmon.server.services import STREAMS_MAX
from jobmon.server.settings import Settings

TOKEN = "secret"


@pytest.fixture
async def world(tmp_path, databases):
    app = create_app(Settings(database_uri=databases.uri(tmp_path)), token=TOKEN, is_embedded=True)
    async with served(app, host="127.0.0.1", port=0) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=SECONDS_MAX) as http:
            yield World(http, app, SystemClock())


@contextlib.asynccontextmanager
async def stream(world, workflow_id, **headers):
    """Open a stream."""
    async with world.http.stream("GET", f"/api/v1/workflows/{workflow_id}/stream", headers=headers) as response:
        yield Events(response)


def counts(view):
    return view.progress.templates[0].counts


async def test_a_stream_begins_with_everything_and_goes_on_with_changes(world):
    flow = await world.bound(3)
    async with stream(world, flow.workflow_id) as events:
        assert events.response.headers["content-type"] == EVENTS
        first = await events.whole()
        assert first["workflow"].workflows[0].workflow_id == flow.workflow_id
        assert counts(first["view"]) == {"G": 3}
        run = await flow.start()
        await run.queue()
        queued = await events.until("view", lambda view: counts(view) == {"Q": 3})
        assert queued.snapshot > first["view"].snapshot
        polled = await world.get(f"/workflows/{flow.workflow_id}/view", WorkflowView)
        assert polled.progress == queued.progress


async def test_tasks_and_failures_are_those_that_a_page_asks_for(world):
    flow = await world.bound(3, max_attempts=1)
    run = await flow.start()
    await run.register()
    route = f"/workflows/{flow.workflow_id}"
    async with stream(world, flow.workflow_id) as events:
        first = await events.whole()
        assert (first["failures"].failures, first["tasks"].total, len(first["tasks"].tasks)) == (0, 3, 3)
        await run.queue()
        (attempt, *_) = (await run.launched(3)).task_instance_ids
        await run.sync(report(attempt, TI.ERROR_FATAL, cause=Cause.EXIT_CODE, exit_code=3))
        shown = dict(first)
        while not (shown["failures"].failures and shown["tasks"].tasks[0].status == TaskStatus.ERROR_FATAL):
            shown |= [await events.next()]
        assert shown["failures"] == await world.get(f"{route}/failures", FailuresResponse, limit=10)
        query = {"order": "importance", "limit": 50, "total": "true"}
        assert shown["tasks"] == await world.get(f"{route}/task_summaries", TaskSummariesResponse, **query)


async def test_a_part_that_takes_long_does_not_delay_the_others(world, monkeypatch):
    may_answer = threading.Event()

    def slow(*arguments):
        may_answer.wait(SECONDS_MAX)
        return workflow_failures(*arguments)

    endpoint = table._STREAM.parts["failures"].endpoint
    part = replace(
        table._STREAM.parts["failures"], endpoint=replace(endpoint, handle=handlers.recall_kept(slow, large=True))
    )
    monkeypatch.setitem(table._STREAM.parts, "failures", part)
    flow = await world.bound(3)
    async with stream(world, flow.workflow_id) as events:
        assert {(await events.next())[0] for _ in range(3)} == {"workflow", "view", "tasks"}
        run = await flow.start()
        await run.queue()
        await events.until("view", lambda view: counts(view) == {"Q": 3})
        may_answer.set()
        assert (await events.until("failures", lambda found: True)).failures == 0


async def test_a_part_that_is_too_large_for_events_is_left_to_those_who_poll(world, monkeypatch):
    flow = await world.bound(30)
    monkeypatch.setattr(streaming, "EVENT_BYTES_MAX", 3_000)
    async with stream(world, flow.workflow_id) as events:
        assert {(await events.next())[0] for _ in range(3)} == {"workflow", "view", "failures"}
        run = await flow.start()
        await run.queue()
        await events.until("view", lambda view: counts(view) == {"Q": 30})
        monkeypatch.setattr(streaming, "EVENT_BYTES_MAX", 70_000)
        await events.until("tasks", lambda found: found.total == 30)
        monkeypatch.setattr(streaming, "EVENT_BYTES_MAX", 0)
        await run.register()
        await run.launched(30)
        await events.until("tasks", lambda found: found.tasks[0].status == "I")  # it goes on


async def test_a_reader_that_reconnects_receives_only_what_has_changed(world):
    flow = await world.bound(3)
    async with stream(world, flow.workflow_id) as events:
        await events.whole()
        run = await flow.start()
        await run.queue()
        await events.until("view", lambda view: counts(view) == {"Q": 3})
        newest = events.id
    async with stream(world, flow.workflow_id, **{"Last-Event-ID": newest}) as events:
        await run.register()
        await run.launched()
        found = [await events.next()]
        while not (found[-1][0] == "view" and counts(found[-1][1]) == {"I": 3}):
            found.append(await events.next())
        names = [name for name, _ in found]
        assert (names.count("view"), set(names) - {"view", "tasks"}) == (1, set())  # nothing was sent again
    async with stream(world, flow.workflow_id, **{"Last-Event-ID": "of.another.program"}) as events:
        assert (await events.next())[0] == "workflow"


async def test_many_readers_cost_as_much_as_a_few(world):
    flow = await world.bound(3)
    answers = world.app.state.services.answers
    async with contextlib.AsyncExitStack() as opened:
        readers = [await opened.enter_async_context(stream(world, flow.workflow_id)) for _ in range(20)]
        for reader in readers:
            await reader.until("view", lambda view: counts(view) == {"G": 3})
        before = answers.computed
        run = await flow.start()
        await run.queue()
        await asyncio.gather(*(one.until("view", lambda view: counts(view) == {"Q": 3}) for one in readers))
        looks = 1 + SECONDS_MAX / streaming.LOOK_SECONDS
        assert answers.computed - before <= len(KINDS) * looks  # and not 20 times as many
        assert len(world.app.state.services.streams.looks) == 1
    async with asyncio.timeout(SECONDS_MAX):
        while world.app.state.services.streams.looks:  # noqa: ASYNC110 - the server notices that the readers left
            await asyncio.sleep(0.01)


@pytest.fixture
def brief_intervals(monkeypatch):
    """Shorten the intervals of streams."""
    monkeypatch.setattr(streaming, "QUIET_SECONDS_MAX", 0.2)
    monkeypatch.setattr(streaming, "LOOK_SECONDS", 0.1)


@pytest.mark.usefixtures("brief_intervals")
async def test_a_stream_without_news_shows_that_it_works(world):
    flow = await world.bound(1)
    async with stream(world, flow.workflow_id) as events:
        await events.whole()
        await events.comment()


@pytest.mark.usefixtures("brief_intervals")
async def test_there_are_only_so_many_streams(world):
    flow = await world.bound(1)
    streams = world.app.state.services.streams
    async with stream(world, flow.workflow_id) as events:
        await events.next()
        assert streams.count == 1
        streams.count += STREAMS_MAX - 1
        answer = await world.http.get(f"/api/v1/workflows/{flow.workflow_id}/stream")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "poll instead" in answer.json()["message"]
        streams.count -= STREAMS_MAX - 1
    async with asyncio.timeout(SECONDS_MAX):
        while streams.count:  # noqa: ASYNC110 - the server notices on its own that the reader left
            await asyncio.sleep(0.01)


async def test_a_stream_of_nothing_is_refused_like_any_other_request(world):
    assert (await world.http.get("/api/v1/workflows/77/stream", headers={"Authorization": ""})).status_code == 401
    async with stream(world, 77) as events:
        assert await events.next() is None  # the reader polls, and learns the reason there
    flow, other = await world.bound(1), await world.bound(1)
    link = await world.post("/page/links", LinkResponse, LinkRequest(workflow_id=flow.workflow_id, days=1.0))
    headers = {"Authorization": f"Bearer {link.key}"}
    refused = await world.http.get(f"/api/v1/workflows/{other.workflow_id}/stream", headers=headers)
    assert refused.status_code == 403
    async with stream(world, flow.workflow_id, **headers) as events:
        assert await events.next() is not None


async def test_a_stream_ends_when_its_session_is_closed_or_the_server_stops(world):
    flow = await world.bound(1)
    code = (await world.post("/page/codes", LinkResponse)).key
    answer = await world.http.post("/api/v1/page/session", headers={"Authorization": f"Bearer {code}"}, json={})
    key = wire.decode(PageSession, answer.content).key
    own = {"Authorization": f"Bearer {key}"}
    async with stream(world, flow.workflow_id, **own) as mine, stream(world, flow.workflow_id) as other:
        for events in (mine, other):
            await events.whole()
        await world.http.delete("/api/v1/page/links")
        while await mine.next() is not None:
            pass
        world.app.state.begin_stop()
        while await other.next() is not None:
            pass
