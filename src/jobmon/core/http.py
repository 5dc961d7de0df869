"""The asynchronous HTTP client: HTTP/1.1 over kept-alive connections, one request at a time on each.

It parses responses as workers and agents do (`jobmon.agent.http`). Every failure is an `OSError`; the requester decides
how to handle it. Decision 14 explains why Jobmon has its own client.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from jobmon.agent import addresses, handshake, loopback, peers
from jobmon.agent.http import HANDSHAKE_BYTES_MAX, Reader
from jobmon.core import wire
from jobmon.core.connections import ANSWER_BYTES_MAX, RECEIVE_BYTES, head_of
from jobmon.core.hello import JSON, Refused, accept

if TYPE_CHECKING:
    from types import TracebackType

    from jobmon.agent.http import Answer

CONNECTIONS_MAX: Final = 8


class HttpSession:
    """Connections to one server; belongs to the event loop in which it is first used.

    Args:
        address: address of the server, such as "https://host:port".
        socket: path of its Unix socket, if it has one.
        token: the token that the server has to prove to know if it is reached over plain HTTP.
    """

    def __init__(self, address: str, socket: str = "", token: str = "") -> None:
        self._idle: list[_Connection] = []
        self._aimed_at = ("", "", "")
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)
        self.closed = False
        self.aim(address, socket, token)

    def aim(self, address: str, socket: str = "", token: str = "") -> None:
        """Use this address or socket from the next connection on; the arguments are those of the class."""
        if self._idle and (address, socket, token) != self._aimed_at:
            while self._idle:
                self._idle.pop().close()
        self._aimed_at = (address, socket, token)
        self._socket = socket
        self._address = addresses.parse(address)
        self._ssl = ssl.create_default_context() if self._address.is_secure and not socket else None
        self._token = "" if socket or self._address.is_secure else token
        self._prefix = "" if socket else self._address.path

    async def __aenter__(self) -> HttpSession:
        """Return the session; connections are opened as needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session."""
        await self.close()

    async def close(self) -> None:
        """Close all connections and send nothing more."""
        self.closed = True
        while self._idle:
            self._idle.pop().close()

    async def exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_seconds: float
    ) -> tuple[int, bytes]:
        """Send one request; return status and content of the response.

        Raises:
            OSError: there is no response, none in time, or one that is not HTTP.
        """
        content = body or b""
        async with asyncio.timeout(timeout_seconds), self._free:
            try:
                connection = await self._connection()
            except Refused as refused:
                return refused.status, refused.content
            try:
                sealed = connection.seal(method, path, content)
                answer = await connection.exchange(self._request(method, path, headers | sealed, content))
                connection.check(answer)
            except ValueError as error:
                connection.close()
                raise ConnectionError(str(error)) from error
            except BaseException:
                connection.close()
                raise
        if answer.keeps_open and not self.closed:
            self._idle.append(connection)
        else:
            connection.close()
        return answer.status, answer.body

    async def _connection(self) -> _Connection:
        if self.closed:
            raise ConnectionError("The session is closed.")
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        if self._socket:
            connection = _Connection(*await asyncio.open_unix_connection(self._socket, limit=RECEIVE_BYTES))
            if not connection.is_ours:
                connection.close()
                raise handshake.Unproven(f"{self._socket} belongs to another user")
            return connection
        return await self._connection_over_tcp()

    async def _connection_over_tcp(self) -> _Connection:
        host, port = self._address.host, self._address.port
        connection = _Connection(*await asyncio.open_connection(host, port, ssl=self._ssl, limit=RECEIVE_BYTES))
        try:
            if self._token:
                await self._shake_hands(connection)
            elif self._ssl is None:
                connection.require_ours()
        except BaseException:
            connection.close()
            raise
        return connection

    async def _shake_hands(self, connection: _Connection) -> None:
        """Have the server prove its identity.

        Raises:
            Refused: it does not accept the token.
            Unproven: it does not prove its identity.
        """
        client = handshake.Client(self._token, self._address.endpoint)
        request = self._request("POST", wire.API_ROOT + handshake.ROUTE, JSON, wire.encode(client.hello))
        answer = await connection.exchange(request, HANDSHAKE_BYTES_MAX)
        accept(client, answer.status, answer.body)
        connection.client = client

    def _request(self, method: str, path: str, headers: dict[str, str], content: bytes) -> bytes:
        return head_of(method, self._prefix + path, self._address.netloc, headers, len(content)) + content


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        #: Set if the server had to prove its identity.
        self.client: handshake.Client | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the process at the other end of a Unix socket belongs to our own user."""
        return peers.is_ours(self._writer.get_extra_info("socket"))

    def require_ours(self) -> None:
        """Check the user at the other end of a connection within this host; see `loopback.require_ours`."""
        loopback.require_ours(self._writer.get_extra_info("socket"))

    def seal(self, method: str, path: str, content: bytes) -> dict[str, str]:
        """Return the headers that protect the next request."""
        return {} if self.client is None else self.client.seal(method, path, content)

    def check(self, answer: Answer) -> None:
        """Check that the server wrote a response; raises `Unproven`."""
        if self.client is not None:
            self.client.check(answer.status, answer.sealed, answer.body)

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed the connection, as far as known."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def exchange(self, request: bytes, bytes_max: int = ANSWER_BYTES_MAX) -> Answer:
        """Send a request and wait for its response, of at most `bytes_max` bytes."""
        self._writer.write(request)
        parser = Reader(bytes_max)
        while (answer := parser.feed(await self._reader.read(RECEIVE_BYTES))) is None:
            pass
        return answer
