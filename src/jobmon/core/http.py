"""The asynchronous HTTP client: HTTP/1.1 over kept-alive connections, one request at a time on each.

It understands only what the server and a proxy in front of it send: responses with a length, in chunks, or up to the
end of the connection. Every failure is an `OSError`; the requester decides how to handle it. Decision 14 explains why
Jobmon has its own client.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.agent import addresses, handshake, peers
from jobmon.core import wire
from jobmon.core.hello import JSON, Refused, accept

if TYPE_CHECKING:
    from types import TracebackType

CONNECTIONS_MAX: Final = 8
#: Longest head of a response, and how much of a body is buffered.
BUFFER_BYTES: Final = 1024 * 1024
_NO_CONTENT: Final = (204, 304)
_MAC: Final = handshake.MAC_HEADER.lower().encode()
_LINE_END: Final = b"\r\n"


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
        self._host_line = f"host: {self._address.netloc}\r\n"

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
            except (EOFError, ValueError, asyncio.LimitOverrunError) as error:
                connection.close()
                raise ConnectionError(str(error) or "The server closed the connection.") from error
            except BaseException:
                connection.close()
                raise
        if answer.may_go_on and not self.closed:
            self._idle.append(connection)
        else:
            connection.close()
        return answer.status, answer.content

    async def _connection(self) -> _Connection:
        if self.closed:
            raise ConnectionError("The session is closed.")
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        if self._socket:
            connection = _Connection(*await asyncio.open_unix_connection(self._socket, limit=BUFFER_BYTES))
            if not connection.is_ours:
                connection.close()
                raise handshake.Unproven(f"{self._socket} belongs to another user")
            return connection
        host, port = self._address.host, self._address.port
        connection = _Connection(*await asyncio.open_connection(host, port, ssl=self._ssl, limit=BUFFER_BYTES))
        if self._token:
            try:
                await self._shake_hands(connection)
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
        answer = await connection.exchange(request)
        accept(client, answer.status, answer.content)
        connection.client = client

    def _request(self, method: str, path: str, headers: dict[str, str], content: bytes) -> bytes:
        given = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._host_line}{given}content-length: {len(content)}"
        return f"{head}\r\n\r\n".encode("latin-1") + content


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: bytes
    may_go_on: bool
    sealed: str


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

    def seal(self, method: str, path: str, content: bytes) -> dict[str, str]:
        """Return the headers that protect the next request."""
        return {} if self.client is None else self.client.seal(method, path, content)

    def check(self, answer: _Answer) -> None:
        """Check that the server wrote a response; raises `Unproven`."""
        if self.client is not None:
            self.client.check(answer.status, answer.sealed, answer.content)

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed the connection, as far as known."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def exchange(self, request: bytes) -> _Answer:
        """Send a request and wait for its response."""
        self._writer.write(request)
        status = 0
        while status < 200:  # skip informational responses, which precede the response itself
            version, status, headers = _read_head(await self._reader.readuntil(_LINE_END * 2))
        is_last = headers.get(b"connection", b"").lower() == b"close" or version != b"HTTP/1.1"
        sealed = headers.get(_MAC, b"").decode("latin-1")
        if status in _NO_CONTENT:
            return _Answer(status, b"", not is_last, sealed)
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
            return _Answer(status, await self._chunks(), not is_last, sealed)
        length = headers.get(b"content-length")
        if length is None:
            return _Answer(status, await self._reader.read(), False, sealed)
        return _Answer(status, await self._reader.readexactly(int(length)), not is_last, sealed)

    async def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while size := int((await self._reader.readuntil(_LINE_END)).partition(b";")[0], 16):
            parts.append((await self._reader.readexactly(size + len(_LINE_END)))[:size])
        while await self._reader.readuntil(_LINE_END) != _LINE_END:
            pass  # a trailer
        return b"".join(parts)


def _read_head(head: bytes) -> tuple[bytes, int, dict[bytes, bytes]]:
    """Return version, status and headers.

    Raises:
        ValueError: it is not HTTP.
    """
    first, *lines = head[: -2 * len(_LINE_END)].split(_LINE_END)
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError(f"The response is not HTTP: {first[:80]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    return version, int(rest[:3]), headers
