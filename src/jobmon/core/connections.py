"""Blocking connections to a server, as `core.requester` uses them; `core.http` has the asynchronous ones."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.agent import addresses, handshake, loopback, peers
from jobmon.agent.http import HANDSHAKE_BYTES_MAX, HEAD_BYTES_MAX, Reader
from jobmon.core import wire
from jobmon.core.hello import JSON, accept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.agent.http import Answer

#: Longest response without its head.
ANSWER_BYTES_MAX: Final = 1024 * 1024 * 1024
#: A response that takes longer than the timeout must arrive at this rate at least, bytes per second.
BYTES_PER_SECOND_MIN: Final = 64 * 1024
#: How much of a response is read at once.
RECEIVE_BYTES: Final = 1024 * 1024
#: A longer body is not copied to be sent together with its head.
JOINED_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is: an address, optionally a Unix socket on this host, optionally a token."""

    address: str
    socket: str = ""
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request. They include the token if a certificate proves the server's identity."""
        headers = {"content-type": "application/json"}
        if self.token and not self.socket and not self.must_prove_itself:
            headers["authorization"] = f"Bearer {self.token}"
        return headers

    @property
    def must_prove_itself(self) -> bool:
        """Whether the server has to prove that it knows the token, which is then not sent to it."""
        return bool(self.token) and not self.socket and self.address.lower().startswith("http://")


class Connection:
    """A connection with at most one request in flight, which is opened by its first request.

    A response may take `timeout` seconds, and longer only while it arrives fast enough: no listener can make a program
    wait, or fill its memory, without end.

    Args:
        address: address of the server.
        timeout: longest wait for a connection, and for a response, seconds.
    """

    def __init__(self, address: addresses.Address, timeout: float) -> None:
        self.sock: socket.socket | None = None
        self.timeout = timeout
        self._address = address

    def __del__(self) -> None:
        """Close a connection that was kept for a thread that has ended."""
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def _connect(self) -> socket.socket:
        """Return a connected socket."""
        line = socket.create_connection((self._address.host, self._address.port), self.timeout)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return line

    def _open(self) -> socket.socket:
        if self.sock is None:
            self.sock = self._connect()
        self.sock.settimeout(self.timeout)
        return self.sock

    def begin(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        """Send a request."""
        line, content = self._open(), body or b""
        head = head_of(method, self._address.path + path, self._address.netloc, headers, len(content))
        for part in (head, content) if len(content) > JOINED_BYTES_MAX else (head + content,):
            line.sendall(part)

    def finish(self) -> tuple[int, bytes]:
        """Return status and content of the response.

        Raises:
            OSError: there is none, none in time, or one that is not HTTP.
        """
        answer = self._answer(ANSWER_BYTES_MAX)
        return answer.status, answer.body

    def _answer(self, bytes_max: int) -> Answer:
        if self.sock is None:
            raise ConnectionResetError("the connection was closed")
        reader, received = Reader(bytes_max), 0
        began = time.monotonic()
        try:
            answer = None
            while answer is None:
                left = began + self.timeout + received / BYTES_PER_SECOND_MIN - time.monotonic()
                if left <= 0 or received > bytes_max + HEAD_BYTES_MAX:
                    raise TimeoutError("the response is too slow or too long")
                self.sock.settimeout(left)
                data = self.sock.recv(RECEIVE_BYTES)
                received += len(data)
                answer = reader.feed(data)
        except ValueError as error:
            raise ConnectionError(str(error)) from error
        if not answer.keeps_open:
            self.close()
        return answer


class TlsConnection(Connection):
    """A connection whose server proves its identity by a certificate."""

    def _connect(self) -> socket.socket:
        line = super()._connect()
        try:
            return ssl.create_default_context().wrap_socket(line, server_hostname=self._address.host.partition("%")[0])
        except BaseException:
            line.close()
            raise


class OpenConnection(Connection):
    """A connection without a credential: within this host only to a server of our own user."""

    def _connect(self) -> socket.socket:
        line = super()._connect()
        try:
            loopback.require_ours(line)
        except BaseException:
            line.close()
            raise
        return line


class ProvenConnection(Connection):
    """A connection on which the server first proves its identity; afterwards every message has a MAC."""

    def __init__(self, address: addresses.Address, token: str, timeout: float) -> None:
        super().__init__(address, timeout)
        self._token = token

    def _open(self) -> socket.socket:
        if self.sock is not None:
            return super()._open()
        line = super()._open()
        self._client = handshake.Client(self._token, self._address.endpoint)
        try:
            super().begin("POST", wire.API_ROOT + handshake.ROUTE, wire.encode(self._client.hello), JSON)
            answer = self._answer(HANDSHAKE_BYTES_MAX)
            accept(self._client, answer.status, answer.body)
        except BaseException:
            self.close()
            raise
        return line

    def begin(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        """Send a request, and before the first one have the server prove its identity."""
        self._open()
        super().begin(method, path, body, {**headers, **self._client.seal(method, path, body or b"")})

    def finish(self) -> tuple[int, bytes]:
        """Return status and content of the response; see `Connection.finish`."""
        answer = self._answer(ANSWER_BYTES_MAX)
        self._client.check(answer.status, answer.sealed, answer.body)
        return answer.status, answer.body


class UnixConnection(Connection):
    """A connection to a Unix socket of our own user."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(_LOCAL, timeout)
        self._path = path

    def _connect(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.settimeout(self.timeout)
            line.connect(self._path)
            if not peers.is_ours(line):
                raise handshake.Unproven(f"{self._path} belongs to another user")
        except BaseException:
            line.close()
            raise
        return line


_LOCAL: Final = addresses.parse("http://localhost")


def head_of(method: str, target: str, netloc: str, headers: Mapping[str, str], length: int) -> bytes:
    """Return the head of a request.

    Args:
        method: the HTTP method in capitals.
        target: path and query.
        netloc: host and port of the server, as in its address.
        headers: further headers.
        length: length of the body, bytes.
    """
    given = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = f"{method} {target} HTTP/1.1\r\nhost: {netloc}\r\n{given}content-length: {length}\r\n\r\n"
    return head.encode("latin-1")


def connection_to(target: Target, timeout: float) -> Connection:
    """Return a connection to a server, which is opened by its first request."""
    if target.socket:
        return UnixConnection(target.socket, timeout)
    address = addresses.parse(target.address)
    if target.must_prove_itself:
        return ProvenConnection(address, target.token, timeout)
    return (TlsConnection if address.is_secure else OpenConnection)(address, timeout)
