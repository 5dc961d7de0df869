"""Notifications reach a real receiver over HTTP, and a receiver that fails touches no workflow."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import io
import json
import logging
import threading
import time

import pytest
from server_world import CLUSTER, RUN, TI, open_world, report

from jobmon.server import log_format
from jobmon.server.notifications import Event, Message, Notifying
from jobmon.server.notifier import send
from jobmon.server.reaper import Reaper

pytest.importorskip("apprise")
#: One of the services that Apprise loads imports it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
ALL = frozenset(Event)
SECRET = "pa55phrase"


class Inbox(http.server.ThreadingHTTPServer):
    """Keeps what is posted to it; `answers`: the statuses of the next answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.messages: list[dict] = []
        self.answers: list[int] = []
        self.requests = 0

    @property
    def address(self) -> str:
        return f"json://{SECRET}:{SECRET}@127.0.0.1:{self.server_port}/{SECRET}"

    async def wait(self, count: int) -> list[dict]:
        """Wait for so many messages, and return them."""
        deadline = time.monotonic() + 20
        while len(self.messages) < count:
            assert time.monotonic() < deadline, self.messages
            await asyncio.sleep(0.01)
        return self.messages


class _Post(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests += 1
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.send_response(status)
        self.end_headers()
        if status == 200:
            self.server.messages.append(json.loads(content))

    def log_message(self, *ignored: object) -> None:
        """Be silent."""


@pytest.fixture
def inbox():
    with contextlib.closing(Inbox()) as server:
        server.close = server.server_close
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextlib.asynccontextmanager
async def notified(folder, *urls, events=ALL, **settings):
    notifying = Notifying(urls=urls, events=events, public_url="https://jobmon.example.org", **settings)
    async with open_world(folder, notifying=notifying) as world:
        yield world


async def running(world, count=2, **options):
    bound = await world.bound(count, max_attempts=1)
    run = await bound.start(**options)
    await run.register()
    await run.queue()
    return bound, run, (await run.launched()).task_instance_ids


async def end(run, attempts, *failed):
    for number, attempt in enumerate(attempts):
        status = TI.ERROR_FATAL if number in failed else TI.DONE
        await run.sync(report(attempt, TI.RUNNING), report(attempt, status, error="why" if number in failed else None))


async def test_the_end_of_a_run_is_told_with_numbers_and_a_link(tmp_path, inbox):
    async with notified(tmp_path, inbox.address) as world:
        bound, run, attempts = await running(world)
        await end(run, attempts)
        await run.move(RUN.DONE)
        (message,) = await inbox.wait(1)
        services = world.app.state.services
        while services.notifier.pending:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert services.notifier.counts == {"sent": 1, "failed": 0, "dropped": 0}
        assert 'jobmon_notifications_total{outcome="sent"} 1.0' in (await world.http.get("/metrics")).text
    assert message["title"] == f"DONE: workflow {bound.workflow_id} w0"
    assert message["type"] == "success"
    assert message["message"].splitlines() == [
        "2 of 2 tasks done.",
        f"Run {run.id} of tool tool for me, 0 s.",
        f"https://jobmon.example.org/#/workflows/{bound.workflow_id}",
    ]


async def test_the_first_failure_is_told_once_and_the_end_once_more(tmp_path, inbox):
    async with notified(tmp_path, inbox.address) as world:
        bound, run, attempts = await running(world, 3)
        await end(run, attempts, 0, 1)
        await inbox.wait(1)
        await run.move(RUN.ERROR)
        messages = await inbox.wait(2)
    assert [one["title"].partition(":")[0] for one in messages] == ["First failure", "FAILED"]
    assert [one["type"] for one in messages] == ["warning", "failure"]
    assert messages[1]["message"].startswith("1 of 3 tasks done, 2 failed.\n")
    assert f"Details: jobmon workflow errors -w {bound.workflow_id}" in messages[1]["message"]


async def test_only_chosen_events_are_told_and_no_inner_workflow(tmp_path, inbox):
    async with notified(tmp_path, inbox.address, events=frozenset({Event.FAILED})) as world:
        _, outer, attempts = await running(world, 1)
        await outer.sync(report(attempts[0], TI.RUNNING))
        identity = world.app.state.services.name.identity
        named = {"parent_task_instance_id": attempts[0], "parent_server_identity": identity}
        _, inner, of_inner = await running(world, 1, **named)
        await end(inner, of_inner, 0)
        await inner.move(RUN.ERROR)
        _, done, of_done = await running(world, 1)
        await end(done, of_done)
        await done.move(RUN.DONE)
        await end(outer, attempts, 0)
        await outer.move(RUN.ERROR)
        messages = await inbox.wait(1)
    assert [one["title"] for one in messages] == ["FAILED: workflow 1 w0"]


async def test_a_run_whose_client_is_lost_is_told_and_one_that_makes_way_is_not(tmp_path, inbox):
    async with notified(tmp_path, inbox.address, events=frozenset({Event.FAILED, Event.STOPPED})) as world:
        services = world.app.state.services
        await running(world, 1)
        world.clock.seconds += 10_000
        await Reaper(services.writer, services.readers, services.settings, world.clock).do_pass()
        (message,) = await inbox.wait(1)
    assert message["title"].startswith("INTERRUPTED: workflow")


async def test_a_stalled_run_is_told_once_until_something_changes(tmp_path, inbox):
    async with notified(tmp_path, inbox.address, events=frozenset({Event.STALLED}), stalled_seconds=0.2) as world:
        _, run, attempts = await running(world, 2)
        world.clock.seconds += 5  # its clock stands still, the interval between two searches is real
        (message,) = await inbox.wait(1)
        assert message["title"].startswith("Stalled: workflow")
        await asyncio.sleep(0.3)
        assert len(inbox.messages) == 1
        await run.sync(report(attempts[0], TI.RUNNING))
        world.clock.seconds += 5
        await asyncio.sleep(0.3)
        assert len(inbox.messages) == 1, "a task is running"
        await run.sync(report(attempts[0], TI.DONE))
        world.clock.seconds += 5
        await inbox.wait(2)


@pytest.fixture
def log():
    """The server's log, with everything that the libraries say."""
    written = io.StringIO()
    handler = log_format.handler_of("json", written)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.setLevel(before)
    root.removeHandler(handler)


async def test_a_receiver_that_recovers_gets_the_message_and_secrets_stay_secret(tmp_path, inbox, log):
    inbox.answers = [500]
    async with notified(tmp_path, inbox.address) as world:
        _, run, attempts = await running(world, 1)
        await end(run, attempts)
        await run.move(RUN.DONE)
        await inbox.wait(1)
    assert inbox.requests == 2
    assert SECRET not in log.getvalue()


async def test_the_reason_of_a_refusal_is_told_without_secrets(inbox):
    inbox.answers = [401]
    assert "401" in await asyncio.to_thread(send, inbox.address, Message(user="me", title="t", body="b"))
    gone = inbox.address.replace(f":{inbox.server_port}/", ":9/")
    reason = await asyncio.to_thread(send, gone, Message(user="me", title="t", body="b"))
    assert reason
    assert SECRET not in reason


async def test_a_receiver_that_is_gone_touches_no_workflow(tmp_path, log):
    gone = f"json://{SECRET}@127.0.0.1:9/{SECRET}"
    async with notified(tmp_path, gone, f"nonsense://{SECRET}", f"slack://{SECRET}") as world:
        bound, run, attempts = await running(world)
        began = time.monotonic()
        await end(run, attempts)
        await run.move(RUN.DONE)
        assert (await run.sync(capacity={CLUSTER: 1})).launches == []
        assert time.monotonic() - began < 5
        assert set((await bound.statuses()).values()) == {"D"}
        await asyncio.sleep(0.5)
    told = log.getvalue()
    assert "notify.urls 2 (nonsense://***) is not an address that Apprise knows" in told
    assert "could not be delivered to notify.urls 1 (json://***)" in told
    assert SECRET not in told


async def test_nobody_to_notify_costs_nothing(world):
    assert world.app.state.services.notifier is None
