"""Logging in through an OpenID Connect provider: a real one on loopback, well-behaved and not."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from server_world import World
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from test_sockets import served
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider

from jobmon.core.clock import SystemClock
from jobmon.core.wire.login import Purpose
from jobmon.server import login, oidc
from jobmon.server.app import create_app
from jobmon.server.oidc import OidcSettings
from jobmon.server.roles import Members, Roles
from jobmon.server.settings import Settings

TOKEN = "the-administrators-own-token"
ROLES = Roles(administrators=Members.of(["@admins"]), users=Members.of(["@biology"]), readers=Members.of(["@auditors"]))
USERS = {"ada": ["biology", "staff"], "root": ["admins"], "kim": ["auditors"], "eve": ["physics"]}
SECRET = "what only this caller knows"
CHALLENGE = hashlib.sha256(SECRET.encode()).hexdigest()
PAGE = "http://127.0.0.1:1/jobmon/"


@contextlib.asynccontextmanager
async def listening(app):
    async with served(app, host="127.0.0.1", port=0) as server:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


class Provided:
    """A server, its provider, and a client without a credential."""

    def __init__(self, app, provider, http):
        self.app, self.provider, self.http = app, provider, http

    async def post(self, route, message=None, key=""):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return await self.http.post(route, json=message or {}, headers=headers)

    async def status(self, key, method="GET", route="/workflows"):
        headers = {"Authorization": f"Bearer {key}"}
        return (
            await self.http.request(method, route, headers=headers, json=None if method == "GET" else {})
        ).status_code

    async def started(self, purpose="page", user="ada"):
        """Start a login, and log in at the provider; return what it tells the page."""
        started = await self.post("/login/start", {"purpose": purpose, "challenge": CHALLENGE})
        assert started.status_code == 200, started.text
        async with httpx.AsyncClient() as browser:
            answer = await browser.get(f"{started.json()['url']}&user={user}")
        assert answer.headers["location"].startswith(PAGE)
        found = parse_qs(urlsplit(answer.headers["location"]).query)
        assert found["state"] == [started.json()["state"]]
        return {"state": found["state"][0], "code": found["code"][0], "secret": SECRET}

    async def finished(self, purpose="page", user="ada"):
        return await self.post(f"/login/{purpose}", await self.started(purpose, user))

    async def session(self, user="ada"):
        answer = await self.finished("page", user)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def token(self, user="ada"):
        answer = await self.finished("token", user)
        assert answer.status_code == 200, answer.text
        return answer.json()["secret"]


@contextlib.asynccontextmanager
async def running(uri, provider, **more):
    settings = OidcSettings(
        issuer=provider.issuer, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, redirect_uri=PAGE, **more
    )
    app = create_app(Settings(database_uri=uri, roles=ROLES, oidc=settings), token=TOKEN)
    once = httpx.Limits(max_keepalive_connections=0)  # the server closes idle connections of strangers soon
    async with listening(app) as address, httpx.AsyncClient(base_url=f"{address}/api/v1", limits=once) as http:
        yield Provided(app, provider, http)


@pytest.fixture
def provider():
    provider = OidcProvider(dict(USERS))
    provider.redirect_uri = PAGE
    with provider.serving():
        yield provider


@pytest.fixture
async def there(tmp_path, databases, provider, monkeypatch):
    monkeypatch.setattr(oidc, "REFETCH_SECONDS_MIN", 0.0)
    async with running(databases.uri(tmp_path), provider) as provided:
        yield provided


# --- what a login gives -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "can_steer", "principal"),
    [("ada", True, "user ada"), ("root", True, "owner"), ("kim", False, "reader kim")],
)
async def test_a_login_opens_a_page_with_the_role_of_the_user(there, user, can_steer, principal):
    session = await there.session(user)
    assert (session["user"], session["can_steer"], session["can_resume"]) == (user, can_steer, False)
    key = session["key"]
    assert await there.status(key) == 200
    assert there.app.state.services.authority.bearer(key).name.startswith(principal)
    for route in ("/tokens", "/tools", "/page/links"):
        assert await there.status(key, "POST", route) == 403


async def test_a_login_gives_the_command_line_a_token_with_the_role_of_the_user(there):
    for user, may_write, may_administer in (("ada", True, False), ("root", True, True), ("kim", False, False)):
        token = await there.token(user)
        assert await there.status(token) == 200
        assert await there.status(token, "GET", "/tokens") == (200 if may_write else 403)
        assert await there.status(token, "DELETE", "/page/links") == (204 if may_administer else 403)
    rows = World(there.http, there.app, SystemClock()).rows(
        "SELECT action, principal FROM audit WHERE action = 'create token' ORDER BY id"
    )
    assert rows == [("create token", name) for name in ("user ada (login)", "administrator root (login)", "reader kim")]


async def test_the_device_flow_ends_in_a_token(there):
    device = (await there.post("/login/device")).json()
    assert device["expires_in_seconds"] == 120
    asked = {"handle": device["handle"], "label": "laptop"}
    assert (await there.post("/login/device/token", asked)).json() == {"token": None, "slow_down": False}
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(f"{device['verification_uri_complete']}&user=ada")).status_code == 200
    found = (await there.post("/login/device/token", asked)).json()["token"]
    assert (found["token"]["user"], found["token"]["label"]) == ("ada", "laptop")
    assert found["token"]["groups"] == ["biology", "staff"]
    assert await there.status(found["secret"], "GET", "/tokens") == 200
    assert (await there.post("/login/device/token", asked)).status_code == 403


async def test_a_device_login_that_is_declined_gives_nothing(there):
    device = (await there.post("/login/device")).json()
    async with httpx.AsyncClient() as browser:
        await browser.get(f"{device['verification_uri_complete']}&user=")
    answer = await there.post("/login/device/token", {"handle": device["handle"]})
    assert (answer.status_code, "access_denied" in answer.json()["message"]) == (403, True)


async def test_a_provider_without_a_device_flow_says_so(there):
    there.provider.has_device_flow = False
    assert (await there.post("/login/device")).json()["handle"] == ""


async def test_the_newest_login_decides_the_groups_of_all_tokens(there):
    token = await there.token("root")
    assert await there.status(token, "DELETE", "/page/links") == 204
    there.provider.users["root"] = ["biology"]
    await there.session("root")
    assert await there.status(token, "DELETE", "/page/links") == 403
    there.provider.users["root"] = []
    assert (await there.finished("page", "root")).status_code == 403
    assert await there.status(token, "GET", "/tokens") == 200, "a login that failed changes nothing"


async def test_who_has_no_role_does_not_get_in(there):
    for purpose in ("page", "token"):
        answer = await there.finished(purpose, "eve")
        assert (answer.status_code, "eve has no role" in answer.json()["message"]) == (403, True)


async def test_claims_may_be_in_the_userinfo_only(there):
    there.provider.is_brief = True
    assert (await there.session("root"))["user"] == "root"
    assert there.app.state.services.authority.groups_of("root") == {"admins"}


async def test_health_says_that_there_is_a_login(there, tmp_path, databases):
    assert (await there.http.get("/health")).json()["login"] == "oidc"


async def test_a_server_without_a_provider_lets_nobody_log_in(tmp_path, databases):
    app = create_app(Settings(database_uri=databases.uri(tmp_path)), token=TOKEN)
    async with listening(app) as address, httpx.AsyncClient(base_url=f"{address}/api/v1") as http:
        there = Provided(app, None, http)
        message = {"purpose": "page", "challenge": CHALLENGE}
        assert (await there.post("/login/start", message)).status_code == 401
        answer = await there.post("/login/start", message, TOKEN)
        assert (answer.status_code, "no login provider" in answer.json()["message"]) == (409, True)
        assert (await http.get("/health")).json()["login"] == ""


# --- who may finish it ------------------------------------------------------------------------------------------------


async def test_only_the_caller_who_started_a_login_finishes_it(there):
    given = await there.started("page")
    for change in ({"secret": "guessed"}, {"secret": ""}, {"state": given["state"][:-1] + "0"}, {"state": ""}):
        answer = await there.post("/login/page", given | change)
        assert answer.status_code == 403, change
    assert (await there.post("/login/token", given)).status_code == 403, "it was not for a token"
    assert "/token" not in there.provider.requests, "nothing of that reaches the provider"
    assert (await there.post("/login/page", given)).status_code == 200
    assert (await there.post("/login/page", given)).status_code == 403, "a code counts once"


async def test_a_code_of_another_login_is_refused(there):
    given, other = await there.started("page"), await there.started("page", "root")
    answer = await there.post("/login/page", given | {"code": other["code"]})
    assert (answer.status_code, "PKCE" in answer.json()["message"]) == (403, True)


async def test_a_login_takes_ten_minutes_at_most(there):
    given = await there.started("page")
    key = there.app.state.services.authority.login_key
    until = int(given["state"].split(".")[1])
    assert login.finish(key, Purpose.PAGE, given["state"], SECRET, until - 1).nonce
    with pytest.raises(login.LoginRefused, match="too long"):
        login.finish(key, Purpose.PAGE, given["state"], SECRET, until)


async def test_a_device_code_of_elsewhere_is_not_passed_on(there):
    handle = (await there.post("/login/device")).json()["handle"]
    for wrong in ("", "x", handle[:-1], f"x{handle}", f"device.99999999999.code.{'0' * 64}"):
        assert (await there.post("/login/device/token", {"handle": wrong})).status_code == 403
    state = (await there.started("token"))["state"]
    assert (await there.post("/login/device/token", {"handle": state})).status_code == 403


async def test_revoking_all_links_ends_logins_in_progress(there):
    given = await there.started("page")
    assert await there.status(TOKEN, "DELETE", "/page/links") == 204
    assert (await there.post("/login/page", given)).status_code == 403


async def test_a_page_of_another_origin_does_not_log_in(there):
    message = {"purpose": "page", "challenge": CHALLENGE}
    answer = await there.http.post("/login/start", json=message, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("route", "content", "status"),
    [
        ("/login/start", b"{}", 422),
        ("/login/start", b"{", 400),
        ("/login/start", b'{"purpose": "root", "challenge": ""}', 422),
        ("/login/start", b'{"purpose": "page", "challenge": "xyz"}', 403),
        ("/login/start", b'{"purpose": "page", "challenge": "' + b"0" * 65 + b'"}', 422),
        ("/login/page", b'{"state": "' + b"x" * 5_000 + b'", "code": "", "secret": ""}', 422),
        ("/login/page", b" " * 20_000, 413),
        ("/login/page", '{"state": "é", "code": "", "secret": ""}'.encode(), 403),
        ("/login/device", b" " * 20_000, 413),
        ("/login/device/token", b"[" * 15_000, 422),
    ],
)
async def test_requests_of_strangers_are_small_and_checked(there, route, content, status):
    answer = await there.http.post(route, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["message"]


# --- a provider that does not work ------------------------------------------------------------------------------------

HTML = HTMLResponse("<h1>Service maintenance</h1>", 200)
BROKEN = HTMLResponse("<h1>Internal error</h1>", 500)


def _faults():
    """Return what the provider does wrong, the status of a login then, and a word of the message."""
    return {
        "discovery-html": ({"faults": {"/.well-known/openid-configuration": HTML}}, 502, "JSON"),
        "discovery-500": ({"faults": {"/.well-known/openid-configuration": JSONResponse({}, 500)}}, 502, "status 500"),
        "discovery-list": ({"faults": {"/.well-known/openid-configuration": JSONResponse([1])}}, 502, "JSON"),
        "discovery-deep": (
            {"faults": {"/.well-known/openid-configuration": PlainTextResponse("[" * 99_999)}},
            502,
            "JSON",
        ),
        "discovery-large": (
            {"faults": {"/.well-known/openid-configuration": PlainTextResponse("x" * 2_000_000)}},
            502,
            "bytes",
        ),
        "redirect": (
            {"faults": {"/.well-known/openid-configuration": RedirectResponse("https://evil.example")}},
            502,
            "JSON",
        ),
        "another-issuer": ({"metadata": {"issuer": "https://evil.example"}}, 502, "calls itself"),
        "no-endpoint": ({"metadata": {"token_endpoint": None}}, 502, "token_endpoint"),
        "endpoint-number": ({"metadata": {"jwks_uri": 7}}, 502, "jwks_uri"),
        "plain-http": ({"metadata": {"token_endpoint": "http://login.example.org/t"}}, 502, "https"),
        "token-html": ({"faults": {"/token": HTML}}, 502, "JSON"),
        "token-500": ({"faults": {"/token": BROKEN}}, 502, "JSON"),
        "token-503": ({"faults": {"/token": JSONResponse({"error": "x"}, 503)}}, 502, "503"),
        "token-empty": ({"faults": {"/token": JSONResponse({})}}, 502, "no ID token"),
        "token-number": ({"faults": {"/token": JSONResponse({"id_token": 7})}}, 502, "no ID token"),
        "token-junk": ({"faults": {"/token": JSONResponse({"id_token": "a.b.c"})}}, 403, "not valid"),
        "client": ({"faults": {"/token": JSONResponse({"error": "invalid_client"}, 401)}}, 502, "client_id"),
        "strange-error": ({"faults": {"/token": JSONResponse({"error": ["x"]}, 400)}}, 502, "400"),
        "keys-html": ({"faults": {"/jwks": HTML}}, 502, "JSON"),
        "keys-empty": ({"faults": {"/jwks": JSONResponse({"keys": []})}}, 502, "no usable keys"),
        "keys-junk": ({"faults": {"/jwks": JSONResponse({"keys": [{"kty": "RSA"}, 7, None]})}}, 502, "no usable keys"),
        "hmac": ({"signs_with": "HS256"}, 403, "not allowed"),
        **{
            f"claim-{name}": ({"claims": {claim: value}}, 403, word)
            for name, claim, value, word in (
                ("issuer", "iss", "https://evil.example", "iss"),
                ("audience", "aud", "another", "aud"),
                ("audiences", "aud", ["another"], "aud"),
                ("party", "aud", [CLIENT_ID, "another"], "another application"),
                ("no-audience", "aud", None, "aud"),
                ("nonce", "nonce", "replayed", "nonce"),
                ("no-nonce", "nonce", None, "nonce"),
                ("expired", "exp", 1_000, "expired"),
                ("exp-text", "exp", "never", "exp"),
                ("no-exp", "exp", None, "exp"),
                ("future", "iat", 9_999_999_999, "future"),
                ("no-subject", "sub", None, "sub"),
                ("no-user", "preferred_username", "", "who you are"),
                ("user-number", "preferred_username", 7, "who you are"),
                ("user-control", "preferred_username", "a\x1b[31m", "not usable"),
                ("user-space", "preferred_username", " root", "not usable"),
                ("user-long", "preferred_username", "a" * 241, "not usable"),
            )
        },
    }


FAULTS = _faults()


async def test_a_provider_that_misbehaves_lets_nobody_in_and_throws_nobody_out(there, monkeypatch):
    session, token = (await there.session())["key"], await there.token()
    for limit in ("CACHE_SECONDS", "STALE_SECONDS_MAX"):
        monkeypatch.setattr(oidc, limit, 0.0)
    ordinary, wrong = OidcProvider({}), {}
    for name, (changes, status, word) in FAULTS.items():
        for attribute, value in changes.items():
            setattr(there.provider, attribute, value)
        answer = await there.post("/login/start", {"purpose": "page", "challenge": CHALLENGE})
        if answer.status_code == 200:
            answer = await there.finished()
        if answer.status_code != status or word not in answer.json()["message"] or CLIENT_SECRET in answer.text:
            wrong[name] = answer.text
        assert [await there.status(key) for key in (session, token)] == [200, 200], name
        for attribute in changes:
            setattr(there.provider, attribute, getattr(ordinary, attribute))
        assert (await there.finished()).status_code == 200, name
    assert wrong == {}


async def test_what_is_known_of_a_provider_stays_in_use(there, monkeypatch):
    await there.session()
    monkeypatch.setattr(oidc, "CACHE_SECONDS", 0.0)
    there.provider.faults = {"/.well-known/openid-configuration": HTML, "/jwks": HTML}
    assert (await there.session())["user"] == "ada"
    assert there.provider.requests.count("/.well-known/openid-configuration") > 1


@pytest.mark.parametrize(
    "found",
    [
        JSONResponse({"device_code": "x"}),
        JSONResponse({"error": "unauthorized_client"}, 400),
        JSONResponse({"device_code": "x", "user_code": "y", "verification_uri": "http://evil.example"}),
        HTML,
    ],
)
async def test_a_device_flow_that_does_not_work_is_a_clear_error(there, found):
    there.provider.faults = {"/device_authorization": found}
    answer = await there.post("/login/device")
    assert answer.status_code == 502
    assert "login provider" in answer.json()["message"] or "verification_uri" in answer.json()["message"]


async def test_a_provider_that_goes_down_prevents_only_logins(tmp_path, databases):
    provider = OidcProvider(dict(USERS))
    provider.redirect_uri = PAGE
    with contextlib.ExitStack() as up:
        up.enter_context(provider.serving())
        async with running(databases.uri(tmp_path), provider) as there:
            session, token = (await there.session())["key"], await there.token()
            given = await there.started("page")
            up.close()
            answer = await there.post("/login/page", given)
            assert (answer.status_code, "does not respond" in answer.json()["message"]) == (503, True)
            assert answer.headers["retry-after"]
            assert [await there.status(key) for key in (session, token)] == [200, 200]


async def test_a_server_starts_without_its_provider_and_uses_it_later(tmp_path, databases, monkeypatch):
    monkeypatch.setattr(oidc, "REFETCH_SECONDS_MIN", 0.0)
    provider = OidcProvider(dict(USERS))
    provider.redirect_uri = PAGE
    with provider.serving():
        port = int(provider.issuer.rpartition(":")[2])
    async with running(databases.uri(tmp_path), provider) as there:
        for route, message in (("start", {"purpose": "page", "challenge": CHALLENGE}), ("device", {})):
            answer = await there.post(f"/login/{route}", message)
            assert (answer.status_code, "does not respond" in answer.json()["message"]) == (503, True)
        assert await there.status(TOKEN) == 200
        with provider.serving(port):
            assert (await there.session())["user"] == "ada"


async def test_keys_that_the_provider_rotates_are_fetched(there):
    await there.session()
    fetched = there.provider.requests.count("/jwks")
    await there.session()
    assert there.provider.requests.count("/jwks") == fetched, "they are cached"
    there.provider.rotate()
    assert (await there.session())["user"] == "ada"
    assert there.provider.requests.count("/jwks") == fetched + 1
    assert there.provider.requests.count("/.well-known/openid-configuration") == 1


async def test_a_forged_key_makes_the_server_fetch_keys_only_now_and_then(there, monkeypatch):
    monkeypatch.setattr(oidc, "REFETCH_SECONDS_MIN", 1_000.0)
    await there.session()
    published = there.provider.key
    before = there.provider.requests.count("/jwks")
    there.provider.faults = {"/jwks": JSONResponse({"keys": [published.as_dict(private=False)]})}
    there.provider.rotate()
    for _ in range(3):
        answer = await there.finished()
        assert (answer.status_code, "not valid" in answer.json()["message"]) == (403, True)
    assert there.provider.requests.count("/jwks") == before


async def test_requests_to_the_provider_are_bounded(there, monkeypatch):
    monkeypatch.setattr(oidc, "REQUESTS_MAX", 0)
    answer = await there.post("/login/start", {"purpose": "page", "challenge": CHALLENGE})
    assert (answer.status_code, "Too many" in answer.json()["message"]) == (503, True)


async def test_an_email_names_a_user_only_if_it_is_verified(tmp_path, databases, provider):
    async with running(databases.uri(tmp_path), provider, user_claim="email") as there:
        for verified, status in ((None, 403), (False, 403), ("true", 403), (True, 200)):
            provider.claims = {"email": "ada@example.org", "email_verified": verified}
            assert (await there.finished()).status_code == status
        assert there.app.state.services.authority.groups_of("ada@example.org") == {"biology", "staff"}


@pytest.mark.parametrize(
    ("claim", "groups"),
    [
        ("biology", {"biology"}),
        (["biology", 7, None, "", "x" * 256, "a\nb"], {"biology"}),
        (["biology", *(f"a{number}" for number in range(600))], None),
    ],
)
async def test_groups_that_cannot_be_stored_give_no_rights(there, claim, groups):
    there.provider.claims = {"groups": claim}
    answer = await there.finished("page", "root")
    if groups is None:
        assert answer.status_code == 403, "the first 500 do not contain it"
    else:
        assert there.app.state.services.authority.groups_of("root") == groups


async def test_many_people_log_in_at_once(there):
    found = await asyncio.gather(*(there.finished("token", user) for user in ("ada", "root", "kim") * 5))
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.json()["secret"] for answer in found}) == 15
