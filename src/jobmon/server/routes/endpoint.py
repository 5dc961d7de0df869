"""One route as an ASGI application: read, decode, call, encode. No step blocks the loop."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
from starlette.requests import ClientDisconnect, Request

from jobmon.core import wire
from jobmon.core.credentials import Owner, Principal, Reader, Right, sees_secrets
from jobmon.core.redaction import redacted
from jobmon.core.wire import replace
from jobmon.core.wire.launching import FromServer
from jobmon.core.wire.login import LOGIN_BYTES_MAX
from jobmon.server import scope
from jobmon.server.answers import Answer, PartialContent, age_seconds_of
from jobmon.server.auth import NOT_GUESSED, NOT_STORED, PRINCIPAL_KEY
from jobmon.server.connections import HEAD_SECONDS_MAX
from jobmon.server.log_format import RECORD_FIELDS
from jobmon.server.problems import InvalidValue, Malformed, TooLarge, problem_of
from jobmon.server.routes import values
from jobmon.server.services import Name, Services
from jobmon.server.transaction import acting_for

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from jobmon.core.wire.server import Problem


logger = logging.getLogger(__name__)

#: Maximum size of a body where none is needed: clients send `{}`.
BODYLESS_BYTES_MAX: Final = 1_024
#: The principal of a request to an open route without a credential.
STRANGER: Final = Reader(until=0)
#: Media type of all answers except those of `Endpoint.media_type`.
JSON: Final = "application/json"
#: Media type of server-sent events; see `routes.streaming`.
EVENTS: Final = "text/event-stream"
HTTP_NO_CONTENT: Final = 204
HTTP_NOT_MODIFIED: Final = 304
HTTP_UNAVAILABLE: Final = 503
RETRY_AFTER_SECONDS: Final = 1
HTTP_FAILED: Final = 500
_REQUEST_ID: Final = b"x-request-id"
#: What a proxy may send as the ID of a request; anything else is replaced.
_REQUEST_ID_FORM: Final = re.compile(rb"[\w.:-]{1,64}", re.ASCII)
_JSON: Final = (b"content-type", JSON.encode())
_RETRY_AFTER: Final = (b"retry-after", b"%d" % RETRY_AFTER_SECONDS)


class _Request(Request):
    """A request with a cheap check whether its client has disconnected."""

    async def is_disconnected(self) -> bool:
        """Return whether the client has disconnected: whether there is a message, for no other message could follow.

        It begins to receive and gives up if that would wait; the framework would cancel the wait, which costs a quarter
        of a millisecond.
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


def open_request(given: Scope, receive: Receive) -> Request:
    """Return a request."""
    return _Request(given, receive)


@dataclass(frozen=True, slots=True)
class Call:
    """A request: its principal, the IDs of its path in order, its decoded message, and its connection state."""

    services: Services
    ids: tuple[Any, ...]
    message: Any
    request: Request
    principal: Principal

    async def write(self, use_case: Callable[..., Any], *arguments: Any, is_checked: bool = False) -> Any:
        """Run a use case of the writer on behalf of the principal; `is_checked`: see `Writer.run`."""
        writer = self.services.writer
        return await writer.run(acting_for, self.principal.name, use_case, *arguments, is_checked=is_checked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A route. `body` or `query` is the type of its request, `reply` that of its response (None: `{}`).

    `right`: the right that it requires. If the path or the message names a workflow, the principal must be allowed to
    access it (`scope`). `unchanged_seconds`: how long an answer stays valid while nothing is written; 0: answers are
    not shared. `media_type`: of the reply; if it is not JSON, `handle` returns text. `root`: precedes the path.
    """

    right: Right
    method: str
    path: str
    handle: Callable[[Call], Awaitable[Any]]
    body: type | None = None
    query: type | None = None
    reply: type | None = None
    status: int = 200
    unchanged_seconds: float = 0.0
    media_type: str = JSON
    root: str = wire.API_ROOT

    @property
    def address(self) -> str:
        """The whole path."""
        return self.root + self.path

    async def __call__(self, given: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = open_request(given, receive)
        more: list[tuple[bytes, bytes]] = []
        kind = _JSON if self.media_type == JSON else (b"content-type", self.media_type.encode())
        try:
            status, content, more = await self._answer(request)
        except ClientDisconnect:
            return  # nothing would read the answer
        except Exception as error:
            await self.refuse(given, send, error)
            return
        size = (kind, (b"content-length", b"%d" % len(content))) if content else ()
        headers = [*size, NOT_GUESSED, *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def refuse(self, given: Scope, send: Send, error: Exception) -> None:
        """Answer a request that failed."""
        status, problem = problem_of(error)
        more: list[tuple[bytes, bytes]] = []
        if status == HTTP_FAILED:
            problem, more = self._logged(given, problem)
        if status == HTTP_UNAVAILABLE:
            more.append(_RETRY_AFTER)
        name: Name = given["app"].state.services.name
        content = wire.encode(replace(problem, server_identity=name.identity))
        headers = [_JSON, (b"content-length", b"%d" % len(content)), NOT_GUESSED, NOT_STORED, *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _logged(self, given: Scope, problem: Problem) -> tuple[Problem, list[tuple[bytes, bytes]]]:
        """Log the exception of a request; return the problem and a header with the ID by which the log names it."""
        found = dict(given["headers"]).get(_REQUEST_ID, b"")
        request_id = found.decode() if _REQUEST_ID_FORM.fullmatch(found) else os.urandom(8).hex()
        principal: Principal | None = given.get(PRINCIPAL_KEY)
        about = {
            **given.get("path_params", {}),
            **{"method": self.method, "path": given["path"], "request_id": request_id},
            "principal": None if principal is None else principal.name,
        }
        about = {f"about_{key}" if key in RECORD_FIELDS else key: value for key, value in about.items()}
        logger.exception("%s %s failed (request %s)", self.method, given["path"], request_id, extra=about)
        details = {**problem.details, "request_id": request_id}
        return replace(problem, details=details), [(_REQUEST_ID, request_id.encode())]

    async def _answer(self, request: Request) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        """Return the status, the content and headers besides those that every answer has."""
        call = await self.admitted(request)
        if not self.unchanged_seconds:
            return self.status, await self._content(call), [NOT_STORED]
        headers = dict(request.scope["headers"])
        age_seconds = age_seconds_of(headers.get(b"cache-control", b""))
        answer = await self.shared_answer(call, request.scope["query_string"], age_seconds)
        return self._shared(answer, headers)

    async def shared_answer(self, call: Call, query_string: bytes, age_seconds: float) -> Answer:
        """Return an answer that is shared by readers with one query who may read the same; see `server.answers`."""
        return await call.services.answers.answer(
            (self.path, call.ids, query_string, sees_secrets(call.principal), self._readable(call)),
            lambda: self._content(call),
            age_seconds=age_seconds,
            unchanged_seconds=self.unchanged_seconds,
        )

    async def admitted(self, request: Request) -> Call:
        """Return what a request asks for, once its principal is known to be allowed to.

        Raises:
            JobmonError: it is not, or the request is invalid.
        """
        services: Services = request.app.state.services
        principal: Principal | None = request.scope.get(PRINCIPAL_KEY)
        ids = tuple(request.path_params.values())
        values.check_path(ids)
        if principal is None:
            principal = STRANGER
        scope.require_right(principal, self.right)
        message = await self._message(request, services.settings.request_bytes_max)
        if not isinstance(principal, Owner):
            scope.require_own_name(principal, self.right, message)
            await scope.require_own(services, principal, self.right, request.path_params, message)
        return Call(services, ids, message, request, principal)

    def _readable(self, call: Call) -> frozenset[str] | None:
        """Return the users whose workflows a list may contain, which distinguishes answers; None: no matter."""
        return None if call.ids else call.services.authority.readable_users(call.principal)

    async def _content(self, call: Call) -> bytes:
        """Handle a request and encode the reply."""
        reply = await self.handle(call)
        if self.status == HTTP_NO_CONTENT:
            return b""
        if isinstance(reply, FromServer):
            reply.name_server(call.services.name.identity, call.services.name.incarnation)
        if self.media_type != JSON:
            return str(reply).encode()
        if reply is None:
            return b"{}"
        is_partial = getattr(reply, "is_partial", False)
        if not sees_secrets(call.principal) and values.has_free_form(type(reply)):
            reply = redacted(msgspec.to_builtins(reply))
        return PartialContent(wire.encode(reply)) if is_partial else wire.encode(reply)

    def _shared(self, answer: Answer, headers: dict[bytes, bytes]) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        """Return an answer for its reader: empty if the reader has it already, compressed if the reader accepts it."""
        more = [(b"etag", answer.tag), (b"cache-control", b"private, no-cache"), (b"vary", b"accept-encoding")]
        if headers.get(b"if-none-match") == answer.tag:
            return HTTP_NOT_MODIFIED, b"", more
        if b"gzip" in headers.get(b"accept-encoding", b"") and answer.compressed:
            return self.status, answer.compressed, [*more, (b"content-encoding", b"gzip")]
        return self.status, answer.content, more

    async def _message(self, request: Request, bytes_max: int) -> Any:
        if self.right is not Right.OPEN or self.query is not None:
            given = _given_query(request.scope["query_string"])
            values.require_known({} if self.query is None else self.query.__annotations__, given)
            if self.query is not None:
                return _decode_query(self.query, given)
        if self.method == "GET":
            return None
        if self.right is Right.OPEN:
            async with asyncio.timeout(HEAD_SECONDS_MAX):
                content = await read_body(request.receive, LOGIN_BYTES_MAX)
        else:
            content = await read_body(request.receive, BODYLESS_BYTES_MAX if self.body is None else bytes_max)
        return None if self.body is None else _decode_body(self.body, content)


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """Read the body, but never more than `bytes_max`."""
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
    values.check_text(content)
    try:
        message: Any = wire.decode(kind, content)
    except msgspec.ValidationError as error:
        raise InvalidValue(str(error)) from error
    except ValueError as error:
        raise Malformed(f"The body is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise InvalidValue("The body is nested too deeply.") from error
    values.check_message(message)
    return message


def _given_query(query_string: bytes) -> dict[str, list[str]]:
    """Return the values of each field of a query string."""
    if not query_string:
        return {}
    try:
        return parse_qs(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=values.QUERY_FIELDS_MAX)
    except ValueError as error:
        raise InvalidValue(f"The query has more than {values.QUERY_FIELDS_MAX} fields.") from error


def _decode_query(kind: type, given: dict[str, list[str]]) -> Any:
    """Decode a query. Values are text; a field that is a list may be given several times."""
    lists = {name for name, annotation in kind.__annotations__.items() if str(annotation).startswith("list")}
    fields = {name: found if name in lists else found[-1] for name, found in given.items()}
    try:
        message: Any = msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidValue(str(error)) from error
    values.check_query(message, given)
    return message
