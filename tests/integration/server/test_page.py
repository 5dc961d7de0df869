"""The web page's files over real sockets: content, access, and headers."""

import asyncio
import hashlib
import re

import httpx
import pytest
from server_world import open_world
from test_sockets import served

from jobmon.server.app import create_app
from jobmon.server.routes import page
from jobmon.server.settings import Settings

TOKEN = "secret"


@pytest.fixture
async def http(tmp_path, databases):
    app = create_app(Settings(database_uri=databases.uri(tmp_path)), token=TOKEN)
    async with served(app, host="127.0.0.1", port=0) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client


async def test_the_files_are_given_to_everybody_each_with_its_type(http):
    for path, start in (("/", "text/html"), *((f"/static/{name}", kind.decode()) for name, kind in page.TYPES.items())):
        answer = await http.get(path)
        assert (answer.status_code, answer.headers["content-type"].startswith(start)) == (200, True)
        assert answer.content
    assert (await http.get("/")).content == (page.FOLDER / page.START).read_bytes()


async def test_the_page_holds_all_that_it_refers_to(http):
    text = (await http.get("/")).text
    found = re.findall(r'(?:href|src)="([^"]+)"', text)
    assert found
    assert {name.removeprefix("static/") for name in found} <= set(page.TYPES)


async def test_browsers_are_told_to_run_nothing_but_the_page_itself(http):
    headers = (await http.get("/")).headers
    policy = dict(word.strip().split(" ", 1) for word in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


async def test_a_file_that_is_known_is_not_sent_again(http):
    first = await http.get("/static/page.js")
    tag = first.headers["etag"]
    assert tag == f'"{hashlib.sha256(first.content).hexdigest()[:16]}"'
    assert first.headers["cache-control"] == "no-cache"
    for known in (tag, f'W/{tag}, "other"'):
        again = await http.get("/static/page.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    changed = await http.get("/static/page.js", headers={"If-None-Match": '"other"'})
    assert (changed.status_code, changed.content) == (200, first.content)


async def test_head_has_the_headers_and_no_content(http):
    got, asked = await http.get("/static/page.css"), await http.head("/static/page.css")
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers == got.headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/other.js",
        "/static/",
        "/static/..",
        "/static/../static/page.js",
        "/static/%2e%2e/auth.py",
        "/static/..%2fauth.py",
        "/static//etc/passwd",
        "/static/page.js/",
        "/index.html",
    ],
)
async def test_there_are_no_other_files(http, path):
    # Not through httpx, which makes `/static/../x` into `/x` before it asks.
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.split()[1] in (b"401", b"404", b"307")
    assert b"import" not in answer


async def test_the_page_takes_nothing(http):
    assert (await http.post("/")).status_code == 405


async def test_without_a_token_only_requests_that_were_meant_for_this_host_are_answered(tmp_path, databases):
    app = create_app(Settings(database_uri=databases.uri(tmp_path)))
    async with served(app, host="127.0.0.1", port=0) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            for host, status in (
                (f"127.0.0.1:{port}", 200),
                (f"localhost:{port}", 200),
                ("LOCALHOST", 200),
                (f"evil.example:{port}", 421),
                ("127.0.0.1.evil.example", 421),
                ("localhost@evil.example", 421),
            ):
                answer = await http.get("/api/v1/workflows", headers={"Host": host})
                assert (host, answer.status_code) == (host, status)
            refused = await http.post("/api/v1/clusters", headers={"Host": "evil.example"}, json={})
            assert (refused.status_code, "127.0.0.1" in refused.json()["message"]) == (421, True)


async def test_who_only_fetches_the_page_does_not_keep_the_server(tmp_path):
    async with open_world(tmp_path) as world:
        await world.app.state.is_idle()
        await world.http.get("/")
        await world.http.get("/static/page.js")
        assert await world.app.state.is_idle()
        await world.http.get("/api/v1/workflows")
        assert not await world.app.state.is_idle()
