"""Over real sockets: who the proxy says it is, and what that user may do."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from server_world import World
from test_sockets import served
from tests.databases import change

from jobmon.core.clock import SystemClock
from jobmon.core.credentials import Owner
from jobmon.core.wire import credentials as messages
from jobmon.server.app import create_app
from jobmon.server.roles import Members, Proxy, Roles
from jobmon.server.settings import Settings

TOKEN = "administrator-token"
SECRET = "a-secret-of-the-proxy"
ROLES = Roles(
    administrators=Members.of(["root"]), users=Members.of(["ada", "@biology"]), readers=Members.of(["@auditors"])
)


def named(user, groups="", secret=SECRET):
    return {"X-Remote-User": user, "X-Remote-Groups": groups, "X-Jobmon-Proxy-Secret": secret}


def app_of(folder, databases, **proxy):
    settings = Settings(
        database_uri=databases.uri(folder), roles=ROLES, proxy=Proxy(user_header=b"x-remote-user", **proxy)
    )
    return create_app(settings, token=TOKEN)


@pytest.fixture
async def http(tmp_path, databases):
    """A client of a server with a workflow of ada."""
    app = app_of(tmp_path, databases, groups_header=b"x-remote-groups", secret=SECRET)
    async with served(app, host="127.0.0.1", port=0) as server:
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        json = {"Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=address, headers=json | {"Authorization": f"Bearer {TOKEN}"}) as owner:
            world = World(owner, app, SystemClock())
            bound = await world.bound(1)
            assert bound.workflow_id == 1
            change(world.database_uri, "UPDATE workflow SET user_name = 'ada'")
            async with httpx.AsyncClient(base_url=address, headers=json) as client:
                client.world = world
                yield client


STOP = "/api/v1/workflows/1/stop"


async def status(http, headers, method="GET", route="/api/v1/workflows", content=None):
    return (await http.request(method, route, headers=headers, content=content)).status_code


async def test_a_user_of_the_proxy_has_its_role(http):
    stop = {"method": "POST", "route": STOP, "content": b'{"user": ""}'}
    assert await status(http, {}) == 401
    assert await status(http, named("eve")) == 403, "no role"
    for user, groups, may_stop, may_administer in (
        ("ada", "", 200, 403),
        ("bob", "biology", 403, 403),
        ("bob", "auditors", 403, 403),
        ("root", "", 200, 204),
    ):
        assert await status(http, named(user, groups)) == 200
        assert await status(http, named(user, groups), **stop) == may_stop, user
        assert await status(http, named(user, groups), "DELETE", "/api/v1/page/links") == may_administer, user


async def test_the_audit_trail_names_the_administrator(http):
    assert await status(http, named("root"), "DELETE", "/api/v1/page/links") == 204
    assert http.world.rows("SELECT principal FROM audit WHERE action = 'revoke links'") == [("administrator root",)]


@pytest.mark.parametrize("credential", [{}, {"Authorization": f"Bearer {TOKEN}"}])
async def test_a_header_that_is_not_of_the_proxy_is_an_error_whoever_sends_it(http, credential):
    for secret in ("", "guessed"):
        answer = await http.get("/api/v1/workflows", headers=named("root", secret=secret) | credential)
        assert answer.status_code == 400
        assert "only the proxy" in answer.json()["message"]
        assert SECRET not in answer.text
    twice = [*named("ada").items(), ("X-Remote-User", "root")]
    answer = await http.get("/api/v1/workflows", headers=twice)
    assert (answer.status_code, "must replace" in answer.json()["message"]) == (400, True)


async def test_a_token_passes_a_proxy_that_names_nobody(http):
    assert await status(http, named("") | {"Authorization": f"Bearer {TOKEN}"}) == 200
    assert await status(http, named("")) == 401


async def test_a_personal_token_has_the_role_of_its_user(http):
    for user, code in (("root", 204), ("ada", 403), ("eve", 401)):
        request = messages.TokenRequest(user=user, label="", days=1.0)
        secret = (await http.world.post("/tokens", messages.TokenResponse, request)).secret
        mine = {"Authorization": f"Bearer {secret}"}
        assert await status(http, mine, "DELETE", "/api/v1/page/links") == code, user


async def test_an_administrator_proves_a_personal_token_without_sending_it(http):
    request = messages.TokenRequest(user="root", label="", days=1.0)
    created = await http.world.post("/tokens", messages.TokenResponse, request)
    authority = http.world.app.state.services.authority
    identity = created.secret.rpartition(".")[0]
    assert authority.principal(identity) == Owner("root")
    assert authority.verifier(identity) is not None


async def test_on_the_socket_of_a_shared_server_nobody_is_the_owner_and_the_proxy_names_users(tmp_path, databases):
    path = str(tmp_path / "s")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(served(app_of(tmp_path, databases), uds=path, knows_own_user=False))
        transport = httpx.AsyncHTTPTransport(uds=path)
        http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://server"))
        assert await status(http, {}) == 401
        assert await status(http, {"X-Remote-User": "ada"}) == 200
        assert await status(http, {"X-Remote-User": "eve"}) == 403
        assert await status(http, {"X-Remote-User": "ada"}, "DELETE", "/api/v1/page/links") == 403
