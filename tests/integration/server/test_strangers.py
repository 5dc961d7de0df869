"""Unauthenticated clients get little of the server's memory, time, descriptors and log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource

import httpx
import pytest
from test_sockets import served

from jobmon.server import connections, gathering
from jobmon.server.app import create_app
from jobmon.server.settings import Settings

HEAD = b"GET /api/v1/workflows HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
async def door(tmp_path, databases):
    """A server on a Unix socket and on TCP: the path and the port."""
    app = create_app(Settings(database_uri=databases.uri(tmp_path)), token="the-owners-own-token")
    path = str(tmp_path / "s")
    async with served(app, uds=path) as server:
        make = server.config.http_protocol_class
        listening = await asyncio.get_running_loop().create_server(
            lambda: make(config=server.config, server_state=server.server_state, app_state=server.lifespan.state),
            "127.0.0.1",
            0,
        )
        yield path, listening.sockets[0].getsockname()[1]
        listening.close()


async def opened(port: int, *sent: bytes):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in sent:
        writer.write(part)
        await writer.drain()
    return reader, writer


async def status(reader) -> int:
    """Return the status of the answer; 0: the connection was closed without one."""
    try:
        line = await asyncio.wait_for(reader.readline(), 20)
    except ConnectionError:
        return 0
    return int(line.split()[1]) if line else 0


async def owner_is_answered(path: str) -> bool:
    transport = httpx.AsyncHTTPTransport(uds=path)
    async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=20) as http:
        return (await http.get("/api/v1/workflows")).status_code == 200


@pytest.mark.parametrize("parts", [1, 50], ids=["at once", "bit by bit"])
async def test_a_long_head_is_refused(door, parts):
    path, port = door
    long = b"x: " + b"a" * (connections.HEAD_BYTES_MAX // parts) + b"\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        writer.write(HEAD)
        for _ in range(parts + 1):
            writer.write(long)
            await writer.drain()
        writer.write(b"\r\n")
        await writer.drain()
    assert await status(reader) in (431, 0)
    writer.close()
    assert await owner_is_answered(path)


async def test_a_head_of_the_largest_size_and_a_large_body_behind_it_are_taken(door):
    _, port = door
    head = HEAD.replace(b"GET", b"POST") + b"x: " + b"a" * (connections.HEAD_BYTES_MAX - 500) + b"\r\n"
    body = b" " * 1_000_000
    reader, writer = await opened(port, head + b"content-length: %d\r\n\r\n" % len(body) + body)
    assert await status(reader) == 401
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, b"GET /api/v1/health HTTP/1.1\r\nhost: x\r\n\r\n"])
async def test_a_stranger_who_says_nothing_more_is_cut_off(door, monkeypatch, sent):
    monkeypatch.setattr(gathering, "HEAD_SECONDS_MAX", 0.1)
    _, port = door
    reader, writer = await opened(port, sent)
    await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_a_client_that_was_let_in_is_not(door, monkeypatch):
    monkeypatch.setattr(gathering, "HEAD_SECONDS_MAX", 0.05)
    _, port = door
    asked = HEAD + b"authorization: Bearer the-owners-own-token\r\n\r\n"
    reader, writer = await opened(port, asked)
    answer = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    await asyncio.sleep(0.2)
    writer.write(asked)
    assert await status(reader) == 200
    writer.close()


async def test_of_many_strangers_the_oldest_go_and_the_owner_is_answered(door, monkeypatch):
    monkeypatch.setattr(connections, "STRANGERS_MAX", 3)
    path, port = door
    crowd = [await opened(port, HEAD) for _ in range(12)]
    gone = await asyncio.gather(*(asyncio.wait_for(reader.read(), 10) for reader, _ in crowd[:9]))
    assert gone == [b""] * 9
    assert await owner_is_answered(path)
    late_reader, late_writer = await opened(port, HEAD + b"authorization: Bearer the-owners-own-token\r\n\r\n")
    assert await status(late_reader) == 200
    for _, writer in [*crowd, (late_reader, late_writer)]:
        writer.close()


async def test_an_open_route_is_answered_before_a_body_is_read(door):
    _, port = door
    reader, writer = await opened(port, b"GET /api/v1/health HTTP/1.1\r\nhost: x\r\ncontent-length: 30000000\r\n\r\n")
    assert await status(reader) == 200
    writer.close()


async def test_a_route_without_a_body_takes_none(door):
    path, _ = door
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path), base_url="http://server") as http:
        answer = await http.post("/api/v1/workflows/1/bound", content=b" " * 2_000)
        assert answer.status_code == 413


def test_one_line_of_each_kind_is_logged_per_minute():
    now = 0.0
    once = connections.OncePerMinute(lambda: now)

    def passes(text: str, level: int = logging.WARNING) -> bool:
        return once.filter(logging.LogRecord("uvicorn.error", level, "", 0, text, None, None))

    assert [passes("bad"), passes("bad"), passes("other"), passes("bad", logging.ERROR)] == [True, False, True, True]
    now = 61.0
    assert passes("bad")


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        wanted = min(hard, connections.DESCRIPTORS_MAX)
        assert connections.raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == wanted
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class FakeTransport:
    """An accepted TCP connection."""

    def get_extra_info(self, name: str):
        return ("127.0.0.1", 1) if name == "sockname" else None


def test_tcp_leaves_descriptors_to_the_owner():
    closed = []
    limited = connections.Connections(connections.DESCRIPTORS_RESERVED + 2)
    made = [limited.opened(FakeTransport(), lambda number=number: closed.append(number)) for number in range(2)]
    for connection in made:
        connection.recognise()
    limited.opened(FakeTransport(), lambda: closed.append("a stranger"))
    assert closed == ["a stranger"]
    limited.closed(made[0])
    limited.opened(FakeTransport(), lambda: closed.append("another one"))
    assert closed == ["a stranger"]
