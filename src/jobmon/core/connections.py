"""Blocking connections to a server, as `core.requester` uses them; `core.http` has the asynchronous ones."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobmon.agent import addresses, handshake, peers
from jobmon.core import wire
from jobmon.core.hello import JSON, accept

if TYPE_CHECKING:
    from collections.abc import Mapping


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


class Connection(http.client.HTTPConnection):
    """A connection that is kept per thread and closed with it, which is intended and not a leak to warn about."""

    #: Precedes every path: the prefix under which a proxy serves the server.
    prefix = ""

    def __del__(self) -> None:
        self.close()

    def begin(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        """Send a request."""
        self.request(method, self.prefix + path, body=body, headers=dict(headers))

    def finish(self) -> tuple[int, bytes]:
        """Return status and content of the response."""
        response = self.getresponse()
        return response.status, response.read()


class TlsConnection(Connection, http.client.HTTPSConnection):
    pass


class ProvenConnection(Connection):
    """A connection on which the server first proves its identity; afterwards every message has a MAC."""

    def __init__(self, address: addresses.Address, token: str, timeout: float) -> None:
        super().__init__(address.host, address.port, timeout=timeout)
        self._address = address
        self._token = token

    def connect(self) -> None:
        super().connect()
        self._client = handshake.Client(self._token, self._address.endpoint)
        try:
            super().begin("POST", wire.API_ROOT + handshake.ROUTE, wire.encode(self._client.hello), JSON)
            accept(self._client, *super().finish())
        except BaseException:
            self.close()
            raise

    def begin(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        if self.sock is None:
            self.connect()
        super().begin(method, path, body, {**headers, **self._client.seal(method, path, body or b"")})

    def finish(self) -> tuple[int, bytes]:
        response = self.getresponse()
        content = response.read()
        self._client.check(response.status, response.getheader(handshake.MAC_HEADER, ""), content)
        return response.status, content


class UnixConnection(Connection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        if not peers.is_ours(self.sock):
            self.close()
            raise handshake.Unproven(f"{self._path} belongs to another user")


def connection_to(target: Target, timeout: float) -> Connection:
    """Return a connection to a server, which is opened by its first request."""
    if target.socket:
        return UnixConnection(target.socket, timeout)
    address = addresses.parse(target.address)
    if target.must_prove_itself:
        connection: Connection = ProvenConnection(address, target.token, timeout)
    else:
        kind = TlsConnection if address.is_secure else Connection
        connection = kind(address.host, address.port, timeout=timeout)
    connection.prefix = address.path
    return connection
