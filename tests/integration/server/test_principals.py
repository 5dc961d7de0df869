"""The rights of each principal, over real sockets: handshake, personal tokens, agents, links."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
import typing

import httpx
import pytest
from server_world import CLUSTER, World, workflow_request
from sqlalchemy import text
from test_sockets import served

from jobmon.agent import handshake
from jobmon.core import credentials, wire
from jobmon.core.clock import SystemClock
from jobmon.core.connections import Target
from jobmon.core.credentials import Agent, PageUser, Part, Reader, Right
from jobmon.core.exceptions import InvalidRequest, JobmonError
from jobmon.core.http import HttpSession
from jobmon.core.requester import Requester
from jobmon.core.wire import credentials as messages
from jobmon.core.wire import replace
from jobmon.core.wire.agents import AgentRequest, AgentResponse, AgentSyncRequest, AgentSyncResponse
from jobmon.core.wire.binding import WorkflowResponse
from jobmon.core.wire.changes import StagedStatuses, VersionRequest
from jobmon.core.wire.fields import Id
from jobmon.core.wire.launching import Report, WorkerReportRequest
from jobmon.core.wire.steering import HistoryResponse
from jobmon.core.wire.watching import ViewRequest, ViewResponse, WatchRequest, WatchResponse
from jobmon.server import scope
from jobmon.server.app import create_app
from jobmon.server.authority import Authority
from jobmon.server.database import open_engine
from jobmon.server.routes.table import ENDPOINTS
from jobmon.server.settings import Settings

ADMINISTRATOR = "the-administrators-own-token"


class Caller:
    """Sends requests with one token, which never travels: the server proves itself first."""

    def __init__(self, address: str, token: str) -> None:
        self.target = Target(address, token=token)
        self.session = HttpSession(address, token=token)

    async def send(self, method: str, route: str, message: object = None) -> tuple[int, bytes]:
        content = None if method == "GET" else wire.encode({} if message is None else message)
        return await self.session.exchange(method, wire.API_ROOT + route, content, self.target.headers, 10)

    async def status(self, method: str, route: str, message: object = None) -> int:
        return (await self.send(method, route, message))[0]

    async def call(self, method: str, route: str, reply: type, message: object = None):
        status, content = await self.send(method, route, message)
        assert status == 200, content
        return wire.decode(reply, content)


class Shared:
    """A server for several users."""

    def __init__(self, app, address: str, http: httpx.AsyncClient) -> None:
        self.app, self.address = app, address
        self.world = World(http, app, SystemClock())
        self.callers: list[Caller] = []

    def caller(self, token: str) -> Caller:
        self.callers.append(Caller(self.address, token))
        return self.callers[-1]

    async def user(self, name: str, days: float = 1.0) -> Caller:
        request = messages.TokenRequest(user=name, label="test", days=days)
        created = await self.caller(ADMINISTRATOR).call("POST", "/tokens", messages.TokenResponse, request)
        return self.caller(created.secret)

    def agent(self, workflow_id: int) -> Caller:
        return self.caller(self.app.state.services.authority.agent_token(Agent(workflow_id)))

    async def running(self, owner: str):
        """Return a workflow of that user with an attempt under way."""
        bound = await self.world.bound(1)
        execute(self.world, f"UPDATE workflow SET user_name = '{owner}' WHERE id = {bound.workflow_id}")
        run = await bound.start()
        await run.register()
        await run.queue()
        return bound, run, await run.launched()


def execute(world: World, sql: str) -> None:
    engine = open_engine(world.database_uri)
    with engine.begin() as connection:
        connection.execute(text(sql))
    engine.dispose()


@contextlib.asynccontextmanager
async def shared_server(settings: Settings):
    """Run a server whose owner's token is `ADMINISTRATOR`."""
    app = create_app(settings, token=ADMINISTRATOR)
    async with served(app, host="127.0.0.1", port=0) as server:
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        headers = {"Authorization": f"Bearer {ADMINISTRATOR}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=address, headers=headers) as http:
            made = Shared(app, address, http)
            yield made
            for caller in made.callers:
                await caller.session.close()


@pytest.fixture
async def shared(tmp_path, databases):
    async with shared_server(Settings(database_uri=databases.uri(tmp_path))) as made:
        yield made


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_route_names_the_right_it_requires():
    assert all(isinstance(endpoint.right, Right) for endpoint in ENDPOINTS)
    open_routes = [endpoint.path for endpoint in ENDPOINTS if endpoint.right is Right.OPEN]
    logins = [f"/login/{name}" for name in ("start", "page", "token", "device", "device/token")]
    assert open_routes == ["/health", "/ready", *logins], "each of them checks by itself who may go on"


def test_nothing_is_changed_by_the_right_to_read():
    reading_by_post = {
        endpoint.path for endpoint in ENDPOINTS if endpoint.right <= Right.READ and endpoint.method != "GET"
    }
    assert {path.rpartition("/")[2] for path in reading_by_post} == {
        *("plan", "upstreams", "downstream", "resource_usage", "sizing", "session", "codes"),
        *("start", "page", "token", "device"),
    }


def test_every_id_in_a_path_or_message_is_known_to_belong_to_a_workflow_or_to_all():
    known = set(scope.OWNED) | scope.SHARED
    for endpoint in ENDPOINTS:
        names = {part.partition(":")[0].strip("{}") for part in endpoint.path.split("/") if part.startswith("{")}
        assert names <= known, endpoint.path
        if endpoint.right in (Right.STEER, Right.WRITE, Right.AGENT) and endpoint.body is not None:
            assert ids_of(endpoint.body) <= known, endpoint.path


def ids_of(kind: type) -> set[str]:
    """Return the names of a message's fields that hold ids of rows."""
    found = set()
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        for part in (hint, *typing.get_args(hint)):
            if part == Id or any(inner == Id for inner in typing.get_args(part)):
                found.add(name)
            if isinstance(part, type) and issubclass(part, wire.Message):
                found |= ids_of(part)
    return found


# --- credentials ------------------------------------------------------------------------------------------------------


async def test_a_personal_token_names_its_user_until_it_is_revoked(shared):
    ada = await shared.user("ada")
    found = await ada.call("GET", "/tokens", messages.TokensResponse)
    assert [(token.user, token.revoked_at) for token in found.tokens] == [("ada", None)]
    other = await shared.user("bob")
    assert await other.status("DELETE", f"/tokens/{found.tokens[0].id}") == 403
    assert await ada.status("DELETE", f"/tokens/{found.tokens[0].id}") == 204
    assert await ada.status("GET", "/tokens") == 401
    assert await other.status("GET", "/tokens") == 200


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_token_that_a_connection_has_shown_is_refused_from_its_end_on(shared, monkeypatch, end):
    headers = {"Authorization": f"Bearer {(await shared.user('ada')).target.token}"}
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=f"{shared.address}/api/v1", limits=limits, headers=headers) as http:
        assert [(await http.get("/tokens")).status_code for _ in range(3)] == [200] * 3
        if end == "revoked":
            assert await shared.caller(ADMINISTRATOR).status("DELETE", "/tokens/1") == 204
        else:
            monkeypatch.setattr(shared.app.state.services.authority, "_now", lambda: time.time() + 86_400)
        assert (await http.get("/tokens")).status_code == 401


async def test_what_is_stored_of_a_token_is_not_enough_to_use_it(shared):
    await shared.user("ada")
    (row,) = shared.world.rows("SELECT stored_key, server_key FROM personal_token")
    for stolen in row:
        assert await shared.caller(f"jobmon-user.1.{stolen}").status("GET", "/tokens") == 401


async def test_an_expired_token_is_not_taken(shared):
    late = await shared.user("ada", days=1e-7)
    await asyncio.sleep(0.02)
    assert await late.status("GET", "/tokens") == 401


async def test_a_users_token_makes_tokens_for_that_user_only(shared):
    ada = await shared.user("ada")
    status, content = await ada.send("POST", "/tokens", messages.TokenRequest(user="bob", label="mine?"))
    assert (status, b"belongs to ada and cannot act for bob" in content) == (403, True)
    assert {token.user for token in (await ada.call("GET", "/tokens", messages.TokensResponse)).tokens} == {"ada"}
    created = await ada.call("POST", "/tokens", messages.TokenResponse, messages.TokenRequest(label="mine"))
    assert created.token.user == "ada"


async def test_a_link_reads_and_its_session_ends_when_links_are_revoked(shared):
    owner = shared.caller(ADMINISTRATOR)
    link = await owner.call("POST", "/page/links", messages.LinkResponse, messages.LinkRequest())
    reader = shared.caller(link.key)
    session = (await reader.call("POST", "/page/session", messages.PageSession)).key
    async with httpx.AsyncClient(base_url=f"{shared.address}/api/v1") as http:

        async def status(key: str, method: str = "GET", route: str = "/workflows") -> int:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            return (await http.request(method, route, headers=headers)).status_code

        assert [await status(key) for key in (link.key, session, f"{session}0", "-")] == [200, 200, 401, 401]
        for method, route in (("POST", "/tools"), ("DELETE", "/clusters/x"), ("PUT", "/workflows/1/concurrency")):
            assert await status(session, method, route) == 403
        assert await status(session, "POST", "/page/links") == 403
        assert await owner.status("DELETE", "/page/links") == 204
        assert [await status(key) for key in (link.key, session)] == [401, 401]


async def test_a_link_to_one_workflow_shows_no_other(shared):
    first, second = await shared.world.bound(1), await shared.world.bound(1)
    request = messages.LinkRequest(workflow_id=first.workflow_id)
    link = await shared.caller(ADMINISTRATOR).call("POST", "/page/links", messages.LinkResponse, request)
    reader = shared.caller(link.key)
    assert await reader.status("GET", f"/workflows/{first.workflow_id}/progress") == 200
    assert await reader.status("GET", f"/tasks/{first.task_ids[0]}") == 200
    assert await reader.status("GET", f"/workflows?workflow_id={first.workflow_id}") == 200
    for route in (
        f"/workflows/{second.workflow_id}/progress",
        f"/tasks/{second.task_ids[0]}",
        f"/workflows?workflow_id={first.workflow_id}&workflow_id={second.workflow_id}",
        f"/workflows/{first.workflow_id}/files?task_id={second.task_ids[0]}",
        "/workflows",
        "/metrics",
    ):
        assert await reader.status("GET", route) == 403


async def test_a_link_shows_no_value_of_env(shared):
    bound = await shared.world.bound(1)
    execute(shared.world, """UPDATE task_resources SET requested = '{"cores": 1, "env": {"DB_PASSWORD": "hunter2"}}'""")
    run = await bound.start()
    await run.register()
    await run.queue()
    owner = shared.caller(ADMINISTRATOR)
    link = await owner.call("POST", "/page/links", messages.LinkResponse, messages.LinkRequest())
    route = f"/tasks/{bound.task_ids[0]}"
    assert b"hunter2" in (await owner.send("GET", route))[1]
    status, content = await shared.caller(link.key).send("GET", route)
    assert (status, b"hunter2" in content, b"DB_PASSWORD" in content) == (200, False, True)


# --- the session of a page --------------------------------------------------------------------------------------------


class Browser:
    """Sends requests as a browser does: with an origin and a bearer token."""

    def __init__(self, shared: Shared, token: str, origin: str | None = None) -> None:
        self.shared, self.token, self.origin = shared, token, shared.address if origin is None else origin

    async def send(self, method: str, route: str, message: object = None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", "Origin": self.origin}
        async with httpx.AsyncClient(base_url=f"{self.shared.address}/api/v1") as http:
            content = None if method == "GET" else wire.encode({} if message is None else message)
            answer = await http.request(method, route, headers=headers, content=content)
            return answer.status_code, answer.content

    async def status(self, method: str, route: str, message: object = None) -> int:
        return (await self.send(method, route, message))[0]


async def opened(shared: Shared, caller: Caller) -> Browser:
    """Return the session of a page, in exchange for a code."""
    code = (await caller.call("POST", "/page/codes", messages.LinkResponse)).key
    status, content = await Browser(shared, code).send("POST", "/page/session")
    assert status == 200, content
    session = wire.decode(messages.PageSession, content)
    assert session.can_steer
    return Browser(shared, session.key)


HOLD = {"template": "t", "held": True}


async def test_a_code_is_exchanged_once_and_only_reads_until_then(shared):
    bound, *_ = await shared.running("ada")
    code = (await shared.caller(ADMINISTRATOR).call("POST", "/page/codes", messages.LinkResponse)).key
    browser = Browser(shared, code)
    assert [await browser.status("GET", route) for route in ("/workflows", "/tokens")] == [200, 403]
    assert await browser.status("POST", f"/workflows/{bound.workflow_id}/holds", HOLD) == 403
    assert await browser.status("POST", "/page/codes") == 403
    exchanged = await asyncio.gather(*(browser.status("POST", "/page/session") for _ in range(5)))
    assert sorted(exchanged) == [200, 401, 401, 401, 401]
    assert await browser.status("GET", "/workflows") == 401


def test_a_code_expires(monkeypatch):
    monkeypatch.setattr(credentials, "CODE_SECONDS", -1)
    authority = Authority("a" * 32, lambda: 1_000.0)
    code, _ = authority.page_code(PageUser())
    assert authority.bearer(code) is None


async def test_a_page_steers_but_defines_runs_and_administers_nothing(shared):
    bound, *_ = await shared.running("ada")
    page = await opened(shared, shared.caller(ADMINISTRATOR))
    of_workflow = f"/workflows/{bound.workflow_id}"
    assert await page.status("GET", f"{of_workflow}/view") == 200
    assert await page.status("POST", f"{of_workflow}/holds", HOLD) == 200
    assert await page.status("PUT", f"{of_workflow}/concurrency", {"max_concurrently_running": 3}) == 200
    for endpoint in ENDPOINTS:
        if endpoint.right in (Right.AGENT, Right.WRITE, Right.ADMINISTER):
            route = re.sub(r"\{[^}]*\}", "1", endpoint.path)
            assert await page.status(endpoint.method, route) == 403, endpoint.path
    found = await shared.caller(ADMINISTRATOR).call("GET", f"{of_workflow}/history", HistoryResponse)
    by_page = {(entry.action, entry.principal) for entry in found.entries if entry.action in ("hold", "concurrency")}
    assert by_page == {("hold", "owner (page)"), ("concurrency", "owner (page)")}


async def test_the_page_of_a_user_steers_only_that_users_workflows_and_only_in_that_name(shared):
    hers, *_ = await shared.running("ada")
    his, *_ = await shared.running("bob")
    page = await opened(shared, await shared.user("ada"))
    assert await page.status("GET", f"/workflows/{his.workflow_id}/progress") == 200
    for action, message in (("holds", HOLD), ("stop", {"user": ""}), ("stop", {"user": "", "any_owner": True})):
        assert await page.status("POST", f"/workflows/{his.workflow_id}/{action}", message) == 403
    message = {"task_ids": [his.task_ids[0]], "held": True}
    assert await page.status("POST", f"/workflows/{hers.workflow_id}/holds", message) == 403
    assert await page.status("POST", f"/workflows/{hers.workflow_id}/holds", {**HOLD, "user": "bob"}) == 403
    assert await page.status("POST", f"/workflows/{hers.workflow_id}/holds", {**HOLD, "user": "ada"}) == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
async def test_a_foreign_origin_steers_nothing_even_with_the_key(shared, origin):
    bound, *_ = await shared.running("ada")
    page = await opened(shared, shared.caller(ADMINISTRATOR))
    foreign = Browser(shared, page.token, origin)
    assert await foreign.status("POST", f"/workflows/{bound.workflow_id}/holds", HOLD) == 403
    assert await foreign.status("POST", "/page/session") == 403
    assert shared.world.rows("SELECT COUNT(*) FROM task WHERE held") == [(0,)]


async def test_a_shared_link_stays_read_only(shared):
    bound, *_ = await shared.running("ada")
    for request in (messages.LinkRequest(), messages.LinkRequest(workflow_id=bound.workflow_id)):
        link = await shared.caller(ADMINISTRATOR).call("POST", "/page/links", messages.LinkResponse, request)
        status, content = await Browser(shared, link.key).send("POST", "/page/session")
        session = wire.decode(messages.PageSession, content)
        assert (status, session.can_steer, session.can_resume) == (200, False, False)
        reader = Browser(shared, session.key)
        assert await reader.status("GET", f"/workflows/{bound.workflow_id}/view") == 200
        assert await reader.status("POST", f"/workflows/{bound.workflow_id}/holds", HOLD) == 403
        assert await reader.status("POST", f"/workflows/{bound.workflow_id}/stop", {"user": ""}) == 403
        assert await reader.status("POST", "/page/codes") == 403


async def test_a_link_to_one_workflow_reads_only_that_one_by_a_query_too(shared):
    own, other = [(await shared.running("ada"))[0] for _ in range(2)]
    request = messages.LinkRequest(workflow_id=own.workflow_id)
    link = await shared.caller(ADMINISTRATOR).call("POST", "/page/links", messages.LinkResponse, request)
    reader = Browser(shared, link.key)
    for ids, expected in (([own], 200), ([other], 403), ([own, other], 403), ([], 403)):
        query = "&".join(f"workflow_id={bound.workflow_id}" for bound in ids)
        assert await reader.status("GET", f"/workflows?{query}") == expected
    for bound, expected in ((own, 200), (other, 403)):
        files = f"/workflows/{own.workflow_id}/files?task_id={bound.task_ids[0]}"
        assert await reader.status("GET", files) == expected


async def test_a_page_sees_no_value_of_env(shared):
    bound = await shared.world.bound(1)
    execute(shared.world, """UPDATE task_resources SET requested = '{"cores": 1, "env": {"DB_PASSWORD": "hunter2"}}'""")
    run = await bound.start()
    await run.register()
    await run.queue()
    owner = shared.caller(ADMINISTRATOR)
    code = (await owner.call("POST", "/page/codes", messages.LinkResponse)).key
    for page in (Browser(shared, code), await opened(shared, owner)):
        status, content = await page.send("GET", f"/tasks/{bound.task_ids[0]}")
        assert (status, b"hunter2" in content, b"DB_PASSWORD" in content) == (200, False, True)


async def test_a_page_is_closed_with_its_users_token_and_when_links_are_revoked(shared):
    ada, owner = await shared.user("ada"), shared.caller(ADMINISTRATOR)
    hers, other = await opened(shared, ada), await opened(shared, owner)
    (token,) = (await ada.call("GET", "/tokens", messages.TokensResponse)).tokens
    assert await owner.status("DELETE", f"/tokens/{token.id}") == 204
    assert (await hers.status("GET", "/workflows"), await other.status("GET", "/workflows")) == (401, 200)
    code = (await owner.call("POST", "/page/codes", messages.LinkResponse)).key
    assert await owner.status("DELETE", "/page/links") == 204
    assert await other.status("GET", "/workflows") == 401
    assert await Browser(shared, code).status("POST", "/page/session") == 401


# --- whose workflow it is ---------------------------------------------------------------------------------------------


async def test_a_stranger_changes_nothing_of_a_workflow(shared):
    bound, run, _ = await shared.running("ada")
    ada, bob = await shared.user("ada"), await shared.user("bob")
    of_workflow = f"/workflows/{bound.workflow_id}"
    version = VersionRequest(
        key="k",
        base=1,
        dag_hash="0" * 64,
        task_hash="0" * 64,
        task_count=1,
        task_counts={},
        user="bob",
        host="h",
        summary=[],
    )
    agent = AgentRequest(
        workflow_run_id=run.id, cluster=CLUSTER, host="h", boot_id="b", pid=7, pid_start_time=1.5, key="k"
    )
    staged = StagedStatuses(key="k", position=0, change="reset", task_ids=bound.task_ids)
    writes = [
        ("POST", f"{of_workflow}/stop", {"user": "bob", "kill": True, "any_owner": True}),
        ("POST", f"{of_workflow}/tasks", bound.tasks),
        ("POST", f"{of_workflow}/force_cleanup", None),
        ("POST", f"{of_workflow}/versions", version),
        ("POST", f"{of_workflow}/versions/1/statuses", staged),
        ("POST", f"{of_workflow}/versions/1/seal", {"key": "k", "parts": 0}),
        ("POST", f"{of_workflow}/complete_version", None),
        ("POST", f"{of_workflow}/drop_version", {"user": "bob", "any_owner": True}),
        ("POST", "/agents", agent),
        ("POST", f"{of_workflow}/purge", {"user": "bob", "any_owner": True}),
        ("PUT", f"{of_workflow}/concurrency", {"max_concurrently_running": 1, "user": "bob"}),
        ("POST", f"/workflow_runs/{run.id}/heartbeat", {"status": "R", "next_report_increment": 10}),
        ("POST", f"/tasks/{bound.task_ids[0]}/attributes", {"attributes": {"a": "b"}}),
        ("POST", "/worker/report", WorkerReportRequest(reports=[Report(task_instance_id=1, status="D")])),
    ]
    for method, route, message in writes:
        assert await bob.status(method, route, message) == 403, route
    assert shared.world.rows("SELECT status FROM task_instance") == [("I",)]
    for user, status in (("bob", 403), ("ada", 200), ("", 200)):
        message = {"max_concurrently_running": 1, "user": user}
        assert await ada.status("PUT", f"{of_workflow}/concurrency", message) == status


async def test_a_user_can_neither_pass_for_another_nor_reuse_his_workflow(shared):
    version, *_ = await shared.world.define()
    ada, bob = await shared.user("ada"), await shared.user("bob")
    request = workflow_request(version, "w", 0, user="ada")
    assert await ada.status("POST", "/workflows", replace(request, user="bob")) == 403
    mine = await ada.call("POST", "/workflows", WorkflowResponse, request)
    assert shared.world.rows("SELECT user_name FROM workflow") == [("ada",)]
    changed = replace(request, max_concurrently_running=1, user="bob")
    assert await bob.status("POST", "/workflows", changed) == 403
    assert shared.world.rows("SELECT id, max_concurrently_running FROM workflow") == [(mine.workflow_id, 1000)]


async def test_a_user_does_not_change_what_everybodys_jobs_start(shared):
    ada = await shared.user("ada")
    queues = [{"queue_name": "q", "parameters": {}}]
    evil = {"name": "multiprocess", "plugin": "multiprocess", "queues": queues, "connection": {"python": "/tmp/evil"}}
    assert await ada.status("POST", "/clusters", evil) == 403
    assert await ada.status("POST", "/clusters", {**evil, "connection": {}}) == 200
    assert await ada.status("POST", "/clusters", evil) == 403
    assert await ada.status("POST", "/clusters", {**evil, "connection": {}, "queues": []}) == 403
    assert await ada.status("DELETE", "/clusters/multiprocess") == 403
    more = [*queues, {"queue_name": "other", "parameters": {}}]
    assert await ada.status("POST", "/clusters", {**evil, "connection": {}, "queues": more}) == 200


async def test_a_user_does_not_write_the_view_of_a_cluster_for_another(shared):
    """A view says which jobs have ended."""
    await shared.world.define()
    ada, eve = await shared.user("ada"), await shared.user("eve")
    watching = {"interval": 0.0, "silence": 3_600.0, "since": 1_000.0, "scope": "1000"}

    async def watch(caller, holder):
        request = WatchRequest(**watching, holder=holder)
        return await caller.call("POST", f"/clusters/{CLUSTER}/watch", WatchResponse, request)

    async def view(caller, holder, text):
        request = ViewRequest(holder=holder, since=1_000.0, scope="1000", view=text)
        return (await caller.call("POST", f"/clusters/{CLUSTER}/view", ViewResponse, request)).number

    assert (await watch(eve, "eve")).look
    assert (await watch(ada, "ada")).look, "nobody else delays her by not responding"
    assert (await view(eve, "ada", "forged"), await view(eve, "eve", "forged")) == (0, 1)
    other = await watch(ada, "ada, another run")
    assert (other.look, other.view) == (False, None)
    assert await view(ada, "ada", "true") == 1
    found = await ada.call(
        "POST",
        f"/clusters/{CLUSTER}/watch",
        WatchResponse,
        WatchRequest(**{**watching, "interval": 3_600.0}, holder="ada, another run"),
    )
    assert found.view == "true", "her own distributors share it"


async def test_an_agent_reports_on_its_own_workflow_and_does_nothing_else(shared):
    bound, _, launched = await shared.running("ada")
    other, *_ = await shared.running("ada")
    attempt = launched.task_instance_ids[0]
    report = WorkerReportRequest(reports=[Report(task_instance_id=attempt, status="R")])
    mine, stranger = shared.agent(bound.workflow_id), shared.agent(other.workflow_id)
    assert await stranger.status("POST", "/worker/report", report) == 403
    assert await mine.status("POST", "/worker/report", report) == 200
    for method, route in (
        ("GET", "/workflows"),
        ("POST", f"/workflows/{bound.workflow_id}/stop"),
        ("GET", "/clusters"),
    ):
        assert await mine.status(method, route, {"user": "ada"}) == 403


async def test_an_agents_credential_is_for_that_agent_and_dead_ones_of_its_host(shared):
    bound, run, _ = await shared.running("ada")
    ada = await shared.user("ada")

    async def registered(key: str, host: str):
        given = {
            "workflow_run_id": run.id,
            "cluster": CLUSTER,
            "boot_id": f"of {host}",
            "pid": 7,
            "pid_start_time": 1.5,
        }
        found = await ada.call("POST", "/agents", AgentResponse, AgentRequest(**given, key=key, host=host))
        return found.agent_id, shared.caller(found.token)

    (former, _), (elsewhere, _), (number, mine) = [
        await registered(key, host) for key, host in (("1", "here"), ("2", "there"), ("3", "here"))
    ]
    leaving = AgentSyncRequest(key=0, leaving=True)
    assert await mine.status("POST", f"/agents/{elsewhere}/sync", leaving) == 403
    report = WorkerReportRequest(reports=[Report(task_instance_id=1, status="D")])
    assert await mine.status("POST", "/worker/report", report) == 403, "that attempt is the distributor's"
    later, _ = await registered("4", "here")
    assert await mine.status("POST", f"/agents/{later}/sync", leaving) == 403
    assert await mine.status("POST", f"/agents/{former}/sync", leaving) == 200
    assert (await mine.call("POST", f"/agents/{number}/sync", AgentSyncResponse, leaving)).over
    beat = AgentSyncRequest(key=1, cores_free=4.0, reports=[Report(task_instance_id=1, status="D")])
    told = await mine.call("POST", f"/agents/{number}/sync", AgentSyncResponse, beat)
    assert (told.over, told.launches, set(told.refused)) == (True, None, {1}), "it is closed, and only learns that"
    assert await mine.status("POST", f"/agents/{former}/sync", leaving) == 403
    assert shared.world.rows("SELECT status FROM task_instance") == [("I",)]
    assert bound.workflow_id == 1


async def test_a_batchs_credential_is_for_its_attempts(shared):
    bound, run, first = await shared.running("ada")
    execute(shared.world, "UPDATE task SET status = 'G'")
    execute(shared.world, "UPDATE task_instance SET status = 'F'")
    await run.queue()
    second = await run.launched()
    assert first.batch_number != second.batch_number

    def caller(batch) -> Caller:
        principal = Agent.of(Part.BATCH, bound.workflow_id, batch.batch_number)
        return shared.caller(shared.app.state.services.authority.agent_token(principal))

    def start(batch, **named):
        return {"host": "h", "pid": 1, "started_at": "2026-01-01T00:00:00Z", **named}

    mine, stranger = caller(second), caller(first)
    (attempt,) = second.task_instance_ids
    step = {"array_id": second.array_id, "batch_number": second.batch_number, "array_step_id": 0}
    report = WorkerReportRequest(reports=[Report(task_instance_id=attempt, status="D")], alive=[attempt])
    for route, message in (
        ("/worker/start", start(second, task_instance_id=attempt)),
        ("/worker/start", start(second, **step)),
        ("/worker/take", {"distributor_id": "7", **step}),
        ("/worker/report", report),
        ("/worker/report", {"pending": {str(attempt): "why"}}),
    ):
        assert await stranger.status("POST", route, message) == 403, route
    assert shared.world.rows(f"SELECT status FROM task_instance WHERE id = {attempt}") == [("I",)]
    assert await mine.status("POST", "/agents/1/sync", {"key": 0}) == 403
    assert await mine.status("POST", "/worker/start", start(second, **step)) == 200
    assert await mine.status("POST", "/worker/report", report) == 200
    assert shared.world.rows(f"SELECT status FROM task_instance WHERE id = {attempt}") == [("D",)]
    over = await mine.send("POST", "/worker/start", start(second, task_instance_id=attempt))
    assert (over[0], b"AttemptOver" in over[1], b"command" in over[1]) == (409, True, False)


async def test_what_a_connection_has_shown_counts_for_requests_that_look_the_same_only(shared):
    ada = await shared.user("ada")
    agent = shared.app.state.services.authority.agent_token(Agent(1))
    good = {"Authorization": f"Bearer {ADMINISTRATOR}", "Content-Type": "application/json"}
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=f"{shared.address}/api/v1", limits=limits) as http:

        async def status(**headers: str) -> int:
            given = {**good, **{name.replace("_", "-"): value for name, value in headers.items()}}
            return (await http.post("/tools", headers=given, json={"name": "t" * (1 + len(headers))})).status_code

        for headers, expected in (
            ({}, 200),
            ({"Origin": "http://evil.example"}, 403),
            ({"Authorization": ""}, 401),
            ({"Authorization": f"Bearer {ADMINISTRATOR}x"}, 401),
            ({"Content_Type": "text/plain"}, 415),
            ({"Jobmon_Mac": "00"}, 401),
            ({"Authorization": f"Bearer {agent}"}, 403),
            ({}, 200),
        ):
            assert [await status(**headers) for _ in range(2)] == [expected] * 2, headers
    assert await ada.status("GET", "/tokens") == 200


async def test_a_server_without_a_token_is_for_the_user_who_runs_it(tmp_path, databases, monkeypatch):
    app = create_app(Settings(database_uri=databases.uri(tmp_path)))
    async with served(app, host="127.0.0.1", port=0) as server:
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/api/v1"
        async with httpx.AsyncClient(base_url=address) as http:
            assert (await http.get("/clusters")).status_code == 200
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        async with httpx.AsyncClient(base_url=address) as http:
            refused = await http.get("/clusters")
            assert (refused.status_code, "serves only the user who runs it" in refused.text) == (401, True)
            assert (await http.get("/health")).status_code == 200


async def test_an_agents_credential_outlives_the_server(tmp_path, databases):
    uri, tokens, words = databases.uri(tmp_path), set(), set()
    for _ in range(2):
        app = create_app(Settings(database_uri=uri), token=ADMINISTRATOR)
        async with app.router.lifespan_context(app):
            authority = app.state.services.authority
            tokens.add(authority.agent_token(Agent(7, "b3")))
            words.add(authority.open_page(Reader(2**31)))
    assert len(tokens) == 1
    assert len(words) == 2


async def test_the_audit_trail_names_the_principal(shared):
    bound, *_ = await shared.running("ada")
    ada = await shared.user("ada")
    route = f"/workflows/{bound.workflow_id}"
    assert await ada.status("PUT", f"{route}/concurrency", {"max_concurrently_running": 3, "user": "ada"}) == 200
    history = await ada.call("GET", f"{route}/history", HistoryResponse)
    assert (history.entries[0].user, history.entries[0].principal) == ("ada", "user ada")


# --- the handshake ----------------------------------------------------------------------------------------------------


async def test_nobody_else_on_the_connection_can_add_a_request(shared):
    host, _, port = shared.address.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    client = handshake.Client(ADMINISTRATOR, f"{host}:{port}")
    client.accept(wire.decode(dict, (await raw(reader, writer, "POST", "/handshake", client.hello))[1]))
    sealed = client.seal("GET", "/api/v1/workflows", b"")
    assert (await raw(reader, writer, "GET", "/workflows", None, sealed))[0] == 200
    for headers in (sealed, {}, {**sealed, handshake.MAC_HEADER: "00"}):
        assert (await raw(reader, writer, "GET", "/workflows", None, headers))[0] == 401
    writer.close()


async def test_a_handshake_that_is_none_is_refused(shared):
    async with httpx.AsyncClient(base_url=f"{shared.address}/api/v1") as http:
        for content, status in ((b"{", 400), (b"{}", 400), (b"[" * 5000, 400), (b'{"nonce": "' + b"0" * 5000, 400)):
            assert (await http.post("/handshake", content=content)).status_code == status
        hello = {"identity": "jobmon-user.99", "address": "x", "nonce": "0"}
        assert (await http.post("/handshake", json=hello)).status_code == 401


async def test_an_embedded_server_refuses_a_handshake_that_was_meant_for_another_address(tmp_path):
    app = create_app(Settings(database_uri=f"sqlite:///{tmp_path}/d"), token=ADMINISTRATOR, is_embedded=True)
    async with served(app, host="127.0.0.1", port=0) as server:
        endpoint = f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=f"http://{endpoint}/api/v1") as http:
            for address, status in ((endpoint, 200), ("127.0.0.1:1", 401), ("10.0.0.1:8070", 401)):
                hello = handshake.Client(ADMINISTRATOR, address).hello
                assert (await http.post("/handshake", json=hello)).status_code == status


async def raw(reader, writer, method, route, message, headers=None):
    """Send one request; return status and body."""
    body = b"" if message is None else wire.encode(message)
    given = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"{method} /api/v1{route} HTTP/1.1\r\nhost: x\r\n{given}content-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(answer.lower().partition("content-length: ")[2].partition("\r\n")[0])
    return int(answer.split()[1]), await reader.readexactly(length)


# --- rotation ---------------------------------------------------------------------------------------------------------


async def test_a_run_waits_until_there_is_a_token_that_is_taken(shared, tmp_path, monkeypatch):
    """Revoking a token terminates nothing; requests succeed once the settings contain another token."""
    file = tmp_path / "settings.yaml"
    monkeypatch.setenv("JOBMON_CONFIG_FILE", str(file))

    def keep(token: str) -> None:
        file.touch(mode=0o600)
        file.write_text(f"http: {{service_url: '{shared.address}', token: {token}}}\n")

    first, second = await shared.user("ada"), await shared.user("ada")
    keep(first.target.token)
    requester = Requester.from_defaults()
    patient = requester.without_limit()
    async with patient.open_session() as session:
        assert len((await patient.call_async(session, "/tokens", {}, messages.TokensResponse, "get")).tokens) == 2
        assert await second.status("DELETE", "/tokens/1") == 204
        waiting = asyncio.create_task(patient.call_async(session, "/tokens", {}, messages.TokensResponse, "get"))
        with pytest.raises(InvalidRequest, match="token"):
            await asyncio.to_thread(requester.call, "/tokens", {}, messages.TokensResponse, "get")
        assert not waiting.done()
        keep(second.target.token)
        found = await asyncio.wait_for(waiting, 20)
    assert [token.revoked_at is None for token in found.tokens] == [False, True]
    await asyncio.to_thread(requester.close)


async def test_a_listener_in_the_place_of_the_server_gets_no_token(tmp_path):
    """Whatever it answers: nothing of the token arrives there, and no answer of its counts."""
    heard, handlers = [], []

    async def listen(reader, writer):
        handlers.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                heard.append(head + await reader.readexactly(length))
                body = answers[len(heard) % len(answers)]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    answers = [b"{}", b'{"tokens": []}', b'{"nonce": "00", "proof": "' + b"0" * 64 + b'"}', b"<html>"]
    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        requester = Requester(address, retries_attempts=2, token="the-secret-of-mine")
        for _ in range(len(answers)):
            with pytest.raises(JobmonError):
                await asyncio.to_thread(requester.call, "/tokens", {}, messages.TokensResponse, "get")
            async with requester.open_session() as session:
                with pytest.raises(JobmonError):
                    await requester.call_async(session, "/tokens", {}, messages.TokensResponse, "get")
        await asyncio.gather(*handlers)
    assert len(heard) >= 2 * len(answers)
    assert all(b"the-secret-of-mine" not in one and b"/handshake " in one for one in heard)
