"""uvicorn's protocol with limits on unauthenticated clients, and with head and body of an answer in one write.

uvicorn sends an answer in two writes, and each wakes the receiver. It limits neither the length of a head nor the time
that one may take.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from jobmon.server.connections import HEAD_BYTES_MAX, HEAD_SECONDS_MAX, STATE_KEY, Connection, Connections

_HEAD: Final = b"HTTP/1.1 "
#: uvicorn's other protocol (h11, used without httptools) has its own limits on heads.
_TELLS_OF_HEADS: Final = hasattr(AutoHTTPProtocol, "on_headers_complete")
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

logger = logging.getLogger("uvicorn.error")


class GatheringTransport:
    """A transport that holds the head of an answer until its body arrives, or until the next iteration of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._kept = b""

    def write(self, data: bytes) -> None:
        """Write the data, together with a held head."""
        if self._kept:
            data, self._kept = self._kept + data, b""
            self._transport.write(data)
        elif data.startswith(_HEAD):
            self._kept = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        if self._kept:
            self.write(b"")

    def is_closing(self) -> bool:
        """Whether the transport is closed or being closed."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Write the held head, then close."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the transport."""
        return getattr(self._transport, name)


class BoundedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol with a gathering transport and with limits.

    Args:
        known: all connections of this process.
        given: the arguments that uvicorn passes to its protocol.
    """

    def __init__(self, known: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._known = known
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # of a head that is not complete yet
        self._is_in_head = _TELLS_OF_HEADS
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection."""
        super().connection_made(transport)
        gathering = GatheringTransport(cast("asyncio.Transport", transport), asyncio.get_running_loop())
        self.transport = cast("asyncio.Transport", gathering)
        self._connection = self._known.opened(transport, transport.close)
        self.app_state: dict[str, Any] = {**self.app_state, STATE_KEY: self._connection}
        if not self._connection.is_known:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the connection."""
        self._expect_nothing()
        if self._connection is not None:
            self._known.closed(self._connection)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process received data, but no head that is too long or too slow."""
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes:
            self._bound_head()

    def _bound_head(self) -> None:
        """Refuse a head that is already too long, and start a timer for the rest of an incomplete one."""
        if self._is_refused or self.transport.is_closing():
            return
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse_head()
        elif self._timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Note that a head is complete, and refuse an oversized one that arrived in one piece."""
        if self._timer is not None:
            self._expect_nothing()
        self._is_in_head, length, self._head_bytes = False, self._head_bytes, 0
        if length > HEAD_BYTES_MAX:  # a body may follow in the same data
            length = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if length > HEAD_BYTES_MAX:
            self._refuse_head()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Process a part of a body, unless the request was refused."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the next data is another head."""
        self._is_in_head = True
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Limit the wait for the next request of an unauthenticated client more strictly than for others."""
        super().on_response_complete()
        if self._timer is not None:
            self._expect_nothing()
        if self._connection is not None and not self._connection.is_known:
            self._expect_head()

    def _expect_head(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS_MAX, self._give_up)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering and not self.transport.is_closing():
            self.transport.close()

    def _refuse_head(self) -> None:
        self._is_refused = True
        logger.warning("Rejected a request whose head has more than %d bytes.", HEAD_BYTES_MAX)
        self.transport.write(_TOO_LARGE)
        self.transport.close()
