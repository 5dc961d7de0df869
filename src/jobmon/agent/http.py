"""HTTP for workers, without sockets: build the bytes of requests, and parse answers from bytes as they arrive.

Used instead of `http.client`, which imports a lot. Supports what the server and a proxy in front of it send: answers
with a length, in chunks, or up to the end of the connection.
"""

from __future__ import annotations

from jobmon.agent import fastjson, handshake

API_ROOT = "/api/v1"
ANSWER_BYTES_MAX = 64 * 1024 * 1024
HEAD_BYTES_MAX = 64 * 1024
#: Longest answer of a server that has not proved its identity yet, without its head.
HANDSHAKE_BYTES_MAX = 64 * 1024
#: Maximum number of interim responses (1xx) before an answer.
INTERIM_MAX = 100
_LINE_END = b"\r\n"
_MAC = handshake.MAC_HEADER.lower().encode()
_NO_CONTENT = (204, 304)
HTTP_OK = 200
HTTP_UNAUTHORIZED = 401
HTTP_UNAVAILABLE = 503
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jobmon.agent.addresses import Address


class Answer:
    """One complete answer. `sealed` is its MAC, or "" if it has none."""

    def __init__(self, status: int, body: bytes, keeps_open: bool, retry_after: float, sealed: str) -> None:
        self.status = status
        self.body = body
        self.sealed = sealed
        self.keeps_open = keeps_open
        self.retry_after = retry_after

    @property
    def content(self) -> Any:
        """The decoded JSON; None: the body is empty or not valid JSON."""
        return decoded(self.body)


class Conversation:
    """The messages of one connection; the server's proof comes first if the token must not be sent (decision 23).

    Args:
        address: the server's address.
        token: the credential; "": none.
        is_local: whether the connection is a Unix socket, whose peer is known.
    """

    def __init__(self, address: Address, token: str, *, is_local: bool) -> None:
        self._address = address
        must_prove = token and not is_local and not address.is_secure
        self._client = handshake.Client(token, address.endpoint) if must_prove else None
        self._headers = {"Authorization": f"Bearer {token}"} if token and address.is_secure and not is_local else {}
        #: Whether the server can be recognized: it has to prove its identity, or a certificate does.
        self.recognizes_server = bool(token) or address.is_secure
        #: Whether requests may be sent.
        self.is_open = self._client is None

    def opening(self) -> bytes:
        """Return the bytes of the request that the server answers with its proof."""
        assert self._client is not None
        return self._bytes(handshake.ROUTE, fastjson.dumps(self._client.hello).encode(), {})

    def accept(self, answer: Answer) -> bool:
        """Check the answer to the opening request; return False if its sender does not know our credential.

        Raises:
            Unproven: the answer contains no proof.
        """
        assert self._client is not None
        if answer.status == HTTP_UNAUTHORIZED:
            return False
        try:
            self._client.accept(answer.content if answer.status == HTTP_OK else None)
        except handshake.Mismatch:
            return False
        self.is_open = True
        return True

    def request(self, route: str, body: bytes) -> bytes:
        """Return the bytes of a POST request."""
        sealed = {} if self._client is None else self._client.seal("POST", API_ROOT + route, body)
        return self._bytes(route, body, {**self._headers, **sealed})

    def check(self, answer: Answer) -> None:
        """Check that the server wrote an answer.

        Raises:
            Unproven: the server did not write this answer.
        """
        if self._client is not None:
            self._client.check(answer.status, answer.sealed, answer.body)

    def _bytes(self, route: str, body: bytes, headers: dict[str, str]) -> bytes:
        given = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = (
            f"POST {self._address.path}{API_ROOT}{route} HTTP/1.1\r\nHost: {self._address.netloc}\r\n{given}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1") + body


def decoded(content: bytes) -> Any:
    """Return decoded JSON; None if the content is not valid JSON, e.g. empty or the page of a proxy."""
    try:
        return fastjson.loads(content.decode())
    except (ValueError, RecursionError):
        return None


class Reader:
    """An incremental parser of one answer, of at most `bytes_max` bytes without its head."""

    def __init__(self, bytes_max: int = ANSWER_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._rest = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._status = 0
        self._interim_count = 0
        self._headers: dict[bytes, bytes] = {}
        self._keeps_open = True
        self._left: int | None = None  # bytes left in the body or chunk; None: until the connection ends
        self._is_chunked = False
        self._is_trailer = False

    def feed(self, data: bytes) -> Answer | None:
        """Add received bytes (b"": the connection ended); return the answer once it is complete.

        Raises:
            ConnectionError: the connection ended before the answer was complete.
            ValueError: the answer is not HTTP, or is too long.
        """
        self._rest += data
        while not self._status:
            if _LINE_END * 2 not in self._rest:
                if len(self._rest) > HEAD_BYTES_MAX:
                    raise ValueError("the head of the response is too long")
                self._require(data)
                return None
            head, _, self._rest = self._rest.partition(_LINE_END * 2)
            self._take_head(head)
        is_complete = self._take_chunks() if self._is_chunked else self._take_body(data)
        if is_complete:
            return self._answer()
        self._require(data)
        return None

    @staticmethod
    def _require(data: bytes) -> None:
        if not data:
            raise ConnectionResetError("the server closed the connection")

    def _take_head(self, head: bytes) -> None:
        first, *lines = head.split(_LINE_END)
        version, _, rest = first.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ValueError(f"the response is not HTTP: {first[:80]!r}")
        status = int(rest[:3])
        if status < 200:
            self._interim_count += 1
            if self._interim_count > INTERIM_MAX:
                raise ValueError("the response does not begin")
            return
        for line in lines:
            name, _, value = line.partition(b":")
            self._headers[name.strip().lower()] = value.strip()
        self._keeps_open = version == b"HTTP/1.1" and self._headers.get(b"connection", b"").lower() != b"close"
        self._is_chunked = b"chunked" in self._headers.get(b"transfer-encoding", b"").lower()
        if status in _NO_CONTENT:
            self._left = 0
        elif not self._is_chunked:
            length = self._headers.get(b"content-length")
            self._left = None if length is None else _size(length, 10)
            self._keeps_open = self._keeps_open and length is not None
        self._status = status

    def _take_body(self, data: bytes) -> bool:
        taken, self._rest = (self._rest, b"") if self._left is None else self._cut(self._left)
        self._keep(taken)
        if self._left is None:
            return not data
        self._left -= len(taken)
        return self._left == 0

    def _cut(self, length: int) -> tuple[bytes, bytes]:
        return self._rest[:length], self._rest[length:]

    def _keep(self, taken: bytes) -> None:
        self._size += len(taken)
        if self._size > self._bytes_max or (self._left or 0) > self._bytes_max:
            raise ValueError(f"the response has more than {self._bytes_max} bytes")
        self._parts.append(taken)

    def _take_chunks(self) -> bool:
        """Parse all complete chunks and the lines between them; return whether the body is complete."""
        while True:
            if self._left:
                taken, self._rest = self._cut(self._left)
                self._left -= len(taken)
                self._keep(taken)
                if self._left:
                    return False
            line, end, rest = self._rest.partition(_LINE_END)
            if not end:
                if len(line) > HEAD_BYTES_MAX:
                    raise ValueError("a line between chunks is too long")
                return False
            self._rest = rest
            if self._take_line(line):
                return True

    def _take_line(self, line: bytes) -> bool:
        """Parse a line: the end of a chunk, the size of the next, or a trailer; return whether it is the last."""
        if self._is_trailer:
            return not line
        if line:
            self._left = _size(line.partition(b";")[0].strip(), 16)
            self._is_trailer = self._left == 0
        return False

    def _answer(self) -> Answer:
        after = self._headers.get(b"retry-after", b"")
        retry_after = float(after) if after.isdigit() and len(after) < 10 else 0.0
        sealed = self._headers.get(_MAC, b"").decode("latin-1")
        return Answer(self._status, b"".join(self._parts), self._keeps_open, retry_after, sealed)


def _size(text: bytes, base: int) -> int:
    if not text.isalnum():
        raise ValueError(f"the response has no valid length: {text[:20]!r}")
    return int(text, base)
