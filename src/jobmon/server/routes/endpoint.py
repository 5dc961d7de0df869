"""One route as an ASGI application: read, decode, call, encode. Nothing on the way blocks the loop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
from starlette.requests import ClientDisconnect, Request

from jobmon.core import wire
from jobmon.server.problems import InvalidValue, Malformed, TooLarge, problem_of
from jobmon.server.services import Services

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


logger = logging.getLogger(__name__)

HTTP_NO_CONTENT: Final = 204
_JSON: Final = (b"content-type", b"application/json")


class _Request(Request):
    """A request that is asked cheaply whether its caller is gone."""

    async def is_disconnected(self) -> bool:
        """Say whether the caller is gone: whether there is a message, for there would be no other one.

        Begins to receive and gives up where that would wait; the framework cancels it, which costs a quarter of a
        millisecond.
        """
        if not self._is_disconnected:
            receiving = self._receive().__await__()
            try:
                next(receiving)
            except StopIteration as received:
                self._is_disconnected = received.value["type"] == "http.disconnect"
            else:
                receiving.close()
        return self._is_disconnected


@dataclass(frozen=True, slots=True)
class Call:
    """A request: the ids of its path in order, its decoded message, and a way to ask whether the caller is gone."""

    services: Services
    ids: tuple[Any, ...]
    message: Any
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A route. `body` or `query` is the message it takes, `reply` the one it gives (None: `{}`)."""

    method: str
    path: str
    handle: Callable[[Call], Awaitable[Any]]
    body: type | None = None
    query: type | None = None
    reply: type | None = None
    status: int = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = _Request(scope, receive)
        try:
            status, content = await self._answer(request)
        except Exception as error:
            status, problem = problem_of(error)
            if status == 500:
                logger.exception("%s %s failed", self.method, scope["path"])
            content = wire.encode(problem)
        headers = [_JSON, (b"content-length", b"%d" % len(content))] if content else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, request: Request) -> tuple[int, bytes]:
        services: Services = request.app.state.services
        message = await self._message(request, services.settings.request_bytes_max)
        reply = await self.handle(Call(services, tuple(request.path_params.values()), message, request))
        if self.status == HTTP_NO_CONTENT:
            return self.status, b""
        return self.status, b"{}" if reply is None else wire.encode(reply)

    async def _message(self, request: Request, bytes_max: int) -> Any:
        if self.query is not None:
            return _decode_query(self.query, request.scope["query_string"])
        content = await _content(request.receive, bytes_max)
        return None if self.body is None else _decode_body(self.body, content)


async def _content(receive: Receive, bytes_max: int) -> bytes:
    """Read the body, but never more than allowed."""
    parts: list[bytes] = []
    size = 0
    is_more = True
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise TooLarge(f"The request has more than {bytes_max} bytes; send less at once.")
        parts.append(part)
        is_more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decode_body(kind: type, content: bytes) -> Any:
    try:
        return wire.decode(kind, content)
    except msgspec.ValidationError as error:
        raise InvalidValue(str(error)) from error
    except ValueError as error:
        raise Malformed(f"The body is no JSON: {error}.") from error


def _decode_query(kind: type, query_string: bytes) -> Any:
    """Values of a query are text; a field that is a list may be given several times."""
    given = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
    lists = {name for name, annotation in kind.__annotations__.items() if str(annotation).startswith("list")}
    values = {name: found if name in lists else found[-1] for name, found in given.items()}
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidValue(str(error)) from error
