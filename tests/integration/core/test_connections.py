"""A listener where a server should be can neither keep a program waiting nor fill its memory."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from jobmon.agent.handshake import Unproven
from jobmon.agent.http import HANDSHAKE_BYTES_MAX
from jobmon.core import connections
from jobmon.core.connections import Target, connection_to
from jobmon.core.exceptions import InvalidResponse
from jobmon.core.requester import Requester

TIMEOUT_SECONDS = 0.3
PAUSE_SECONDS = 0.02


@contextlib.contextmanager
def listening(first: bytes, again: bytes = b"", pause: float = 0.0):
    """Listen on a port and answer every connection with `first`, then with `again` for as long as it is open."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer(line):
            with line, contextlib.suppress(OSError):
                line.recv(65_536)
                line.sendall(first)
                while again:
                    line.sendall(again)
                    time.sleep(pause)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(door.accept()[0],), daemon=True).start()

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        door.shutdown(socket.SHUT_RDWR)
        serving.join()


def ask(target: Target, timeout: float = TIMEOUT_SECONDS) -> tuple[int, bytes]:
    connection = connection_to(target, timeout)
    with contextlib.closing(connection):
        connection.begin("GET", "/api/v1/time", None, {})
        return connection.finish()


@pytest.mark.parametrize("token", ["", "the-token-of-the-victim"])
@pytest.mark.parametrize(
    ("first", "again", "pause"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b"x", PAUSE_SECONDS),
        (b"HTTP/1.1 200 OK\r\n", b"x", PAUSE_SECONDS),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50, 0.0),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536, 0.0),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n", 0.0),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", b"x" * 65_536, 0.0),
    ],
    ids=["slow body", "slow head", "interim", "endless body", "endless chunks", "long body"],
)
def test_an_answer_without_an_end_is_given_up(monkeypatch, token, first, again, pause):
    monkeypatch.setattr(connections, "ANSWER_BYTES_MAX", 10 * HANDSHAKE_BYTES_MAX)
    with listening(first, again, pause) as address, pytest.raises(OSError):
        ask(Target(address, token=token))


def test_a_long_answer_may_take_longer_than_the_timeout_while_it_arrives(monkeypatch):
    monkeypatch.setattr(connections, "BYTES_PER_SECOND_MIN", 1_000)
    body = b"x" * 2_000
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    with listening(head, body[:100], PAUSE_SECONDS) as address:
        assert ask(Target(address)) == (200, body)


@pytest.mark.parametrize("inside", [b"[", b'{"a":'])
def test_deep_json_is_no_failure_of_ours(inside):
    deep = inside * 20_000
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(deep) + deep
    with listening(answer) as address:
        with pytest.raises(InvalidResponse):
            Requester(address, retries_attempts=1).send_request("/time", {}, "get")
        with pytest.raises((Unproven, ConnectionError)):
            ask(Target(address, token="the-token-of-the-victim"), 20.0)
