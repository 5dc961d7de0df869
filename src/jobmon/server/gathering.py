"""Head and body of an answer in one write: uvicorn makes two of them, and each wakes whoever waits for the answer."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_HEAD: Final = b"HTTP/1.1 "


class GatheringTransport:
    """A transport that keeps the head of an answer until its body comes, or the loop is through with what is due."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._kept = b""

    def write(self, data: bytes) -> None:
        """Write, together with what is kept."""
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

    def close(self) -> None:
        """Write what is kept, then close."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's affair."""
        return getattr(self._transport, name)


class GatheringProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol with such a transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self.transport = cast(
            "asyncio.Transport", GatheringTransport(cast("asyncio.Transport", transport), asyncio.get_running_loop())
        )
