"""The asynchronous line to the server: HTTP/1.1 over kept-alive connections, one request at a time on each.

Only what the server and a proxy before it send is understood: answers with a length, in chunks, or up to the end of the
connection. Whatever goes wrong is an `OSError`; the requester decides what then. Decision 14 says why this is our own.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

CONNECTIONS_MAX: Final = 8
#: Longest head of an answer, and how much of a body is read ahead.
BUFFER_BYTES: Final = 1024 * 1024
HTTP_PORT: Final = 80
HTTPS_PORT: Final = 443
_NO_CONTENT: Final = (204, 304)
_LINE_END: Final = b"\r\n"


class Session:
    """Connections to one server; belongs to the event loop in which it is first used.

    Args:
        address: of the server, such as "https://host:port".
        socket: path of its Unix socket, where it has one.
    """

    def __init__(self, address: str, socket: str = "") -> None:
        parts = urlsplit(address)
        self._socket = socket
        self._host, self._port = parts.hostname or "localhost", parts.port
        self._ssl = ssl.create_default_context() if parts.scheme == "https" and not socket else None
        self._prefix = parts.path.rstrip("/")
        self._host_line = f"host: {parts.netloc or 'localhost'}\r\n"
        self._idle: list[_Connection] = []
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)
        self.closed = False

    async def __aenter__(self) -> Session:
        """Return itself; connections are opened as they are needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close all connections; send no more."""
        self.closed = True
        while self._idle:
            self._idle.pop().close()

    async def exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_seconds: float
    ) -> tuple[int, bytes]:
        """Send one request; return status and content of the answer.

        Raises:
            OSError: there is no answer, none in time, or one that is not HTTP.
        """
        given = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._host_line}{given}content-length: {len(body or b'')}"
        async with asyncio.timeout(timeout_seconds), self._free:
            connection = await self._connection()
            try:
                answer = await connection.exchange(f"{head}\r\n\r\n".encode("latin-1") + (body or b""))
            except (EOFError, ValueError, asyncio.LimitOverrunError) as error:
                connection.close()
                raise ConnectionError(str(error) or "The connection ended.") from error
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
            return _Connection(*await asyncio.open_unix_connection(self._socket, limit=BUFFER_BYTES))
        port = self._port or (HTTP_PORT if self._ssl is None else HTTPS_PORT)
        return _Connection(*await asyncio.open_connection(self._host, port, ssl=self._ssl, limit=BUFFER_BYTES))


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: bytes
    may_go_on: bool


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def is_open(self) -> bool:
        """Whether neither side has hung up, as far as is known."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def exchange(self, request: bytes) -> _Answer:
        """Send a request, wait for its answer."""
        self._writer.write(request)
        status = 0
        while status < 200:  # what comes before is about the request only
            version, status, headers = _read_head(await self._reader.readuntil(_LINE_END * 2))
        is_last = headers.get(b"connection", b"").lower() == b"close" or version != b"HTTP/1.1"
        if status in _NO_CONTENT:
            return _Answer(status, b"", not is_last)
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
            return _Answer(status, await self._chunks(), not is_last)
        length = headers.get(b"content-length")
        if length is None:
            return _Answer(status, await self._reader.read(), may_go_on=False)
        return _Answer(status, await self._reader.readexactly(int(length)), not is_last)

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
        ValueError: it is no HTTP.
    """
    first, *lines = head[: -2 * len(_LINE_END)].split(_LINE_END)
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError(f"The answer is no HTTP: {first[:80]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    return version, int(rest[:3]), headers
