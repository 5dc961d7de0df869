"""The asynchronous HTTP client, against a server that sends exactly the bytes of the test."""

import asyncio
import contextlib
import subprocess
import sys

import pytest
from aiohttp import ClientSession, UnixConnector

from jobmon.core.exceptions import ServerUnavailable
from jobmon.core.http import CONNECTIONS_MAX, HttpSession
from jobmon.core.requester import Requester

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Gives each request the next of its answers, the last one again and again; an answer may be None: it hangs up."""

    def __init__(self, *answers, last=False):
        self.answers = list(answers)
        self.hangs_up = last
        self.connections = 0
        self.open = 0
        self.open_most = 0
        self.requests = []

    async def __call__(self, reader, writer):
        self.connections += 1
        self.open += 1
        self.open_most = max(self.open, self.open_most)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self._answer(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1

    async def _answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
        self.requests.append(head + await reader.readexactly(int(length.split()[1])))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise ConnectionResetError
        for part in answer if isinstance(answer, list) else [answer]:
            await asyncio.sleep(0)
            writer.write(part)
            await writer.drain()
        if self.hangs_up:
            raise ConnectionResetError

    @contextlib.asynccontextmanager
    async def served(self, path):
        server = await asyncio.start_unix_server(self, path)
        async with HttpSession("http://localhost", str(path)) as session:
            yield session
        await self.is_left()
        server.close()
        await server.wait_closed()

    async def is_left(self):
        """Wait until all connections have ended."""
        while self.open:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


@pytest.fixture
def socket(tmp_path):
    return tmp_path / "s"


async def ask(session, body=b"", timeout_seconds=5.0):
    return await session.exchange("POST", "/a?b=1", body, {"x": "y"}, timeout_seconds)


async def test_requests_follow_each_other_on_one_connection(socket):
    server = Server(OK)
    async with server.served(socket) as session:
        assert [await ask(session, b"question") for _ in range(3)] == [(200, b"ok")] * 3
    assert server.connections == 1
    request = b"POST /a?b=1 HTTP/1.1\r\nhost: localhost\r\nx: y\r\ncontent-length: 8\r\n\r\nquestion"
    assert server.requests == [request] * 3


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b"ok")),
        ([b"HTTP/1.1 404 No", b"t Found\r\nContent-Length:", b" 3\r\n\r\nn", b"on"], (404, b"non")),
        (
            [
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nab",
                b"c\r\n1\r\nd\r\n0\r\ntrailer: 1\r\n\r\n",
            ],
            (200, b"abcd"),
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 3_000_000, (200, b"x" * 3_000_000)),
    ],
)
async def test_answers_are_understood_and_the_connection_goes_on(socket, answer, found):
    server = Server(answer, OK)
    async with server.served(socket) as session:
        assert await ask(session) == found
        assert await ask(session) == (200, b"ok")
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ],
)
async def test_an_answer_that_ends_its_connection(socket, answer):
    server = Server(answer, last=True)
    async with server.served(socket) as session:
        assert [await ask(session), await ask(session)] == [(200, b"ok")] * 2
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 huh\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2_000_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_an_os_error_and_the_next_request_has_a_new_connection(socket, answer):
    server = Server(answer, OK)
    async with server.served(socket) as session:
        with pytest.raises(OSError):
            await ask(session)
        assert await ask(session) == (200, b"ok")
    assert server.connections == 2


async def test_an_answer_cut_short_is_none(socket):
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", last=True)
    async with server.served(socket) as session:
        with pytest.raises(ConnectionError):
            await ask(session)


async def test_an_answer_that_does_not_come_is_a_timeout_and_hangs_up(socket):
    server = Server([])
    async with server.served(socket) as session:
        with pytest.raises(TimeoutError):
            await ask(session, timeout_seconds=0.05)
        await server.is_left()


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used(socket):
    server = Server(OK, last=True)
    async with server.served(socket) as session:
        for _ in range(2):
            assert await ask(session) == (200, b"ok")
            await server.is_left()
            for _ in range(3):  # turns of the loop until our side has heard of it
                await asyncio.sleep(0)
    assert server.connections == 2


async def test_connections_are_bounded(socket):
    server = Server(OK)
    async with server.served(socket) as session:
        answers = await asyncio.gather(*(ask(session) for _ in range(5 * CONNECTIONS_MAX)))
    assert answers == [(200, b"ok")] * (5 * CONNECTIONS_MAX)
    assert server.open_most <= CONNECTIONS_MAX


async def test_nothing_is_sent_through_a_closed_session(socket):
    server = Server(OK)
    async with server.served(socket) as session:
        await session.close()
        with pytest.raises(ConnectionError, match="closed"):
            await ask(session)


async def test_nobody_listens(socket):
    async with HttpSession("http://localhost", str(socket)) as session:
        with pytest.raises(FileNotFoundError):
            await ask(session)


async def test_over_tcp_with_a_path_before_all_routes():
    server = Server(OK)
    listener = await asyncio.start_server(server, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with HttpSession(f"http://127.0.0.1:{port}/jobmon/") as session:
        assert await ask(session) == (200, b"ok")
    await server.is_left()
    listener.close()
    await listener.wait_closed()
    assert server.requests[0].startswith(b"POST /jobmon/a?b=1 HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % port)


async def test_a_requester_takes_a_session_of_aiohttp_as_well(socket):
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", None)
    asked = asyncio.start_unix_server(server, socket)
    requester = Requester("http://localhost", retries_attempts=1)
    async with await asked, ClientSession(connector=UnixConnector(str(socket))) as session:
        assert await requester.send_request_async(session, "/x", {}, "post") == (200, {})
        with pytest.raises(ServerUnavailable):
            await requester.send_request_async(session, "/x", {}, "post")


def test_neither_client_nor_distributor_imports_aiohttp_to_speak_to_the_server():
    code = """
import asyncio, sys
import jobmon.client.swarm.run, jobmon.distributor.process
from jobmon.core.requester import Requester

requester = Requester("http://127.0.0.1:9", retries_attempts=1)

async def ask():
    async with requester.open_session() as session:
        await requester.send_request_async(session, "/time", None, "get")

try:
    asyncio.run(ask())
except Exception as error:
    assert "does not respond to" in str(error)
sys.exit("aiohttp" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
