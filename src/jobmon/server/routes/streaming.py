"""GET /workflows/{workflow_id}/stream: what an open page shows of a workflow, as server-sent events.

An event carries the whole answer of a route that could be polled as well (see `parts` in `routes.table`): `event` names
it, `data` is its JSON. So a reader can always poll instead, which the page does where a proxy holds a stream back or
cuts it. All streams look at the same moment of each second, and share the answers of `server.answers` with each other
and with readers who poll and may read the same: ten pages cost little more than one.

An event is sent only if its answer differs from the last one. Its `id` consists of the tags of the answers sent so far:
a reader that reconnects with `Last-Event-ID` receives only what has changed since, also from another server process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect

from jobmon.agent import handshake
from jobmon.core.credentials import Right
from jobmon.core.exceptions import InvalidRequest
from jobmon.server.auth import bearer_token
from jobmon.server.connections import STATE_KEY
from jobmon.server.routes.endpoint import BODYLESS_BYTES_MAX, EVENTS, Call, Endpoint, open_request, read_body

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from jobmon.server.answers import Answer

#: Interval between two looks. All streams look at the multiples of it.
LOOK_SECONDS: Final = 1.0
#: Maximum age of an answer that another reader has received already.
SHARED_SECONDS_MAX: Final = 0.5
#: After this long without an event a comment is sent: readers know that the stream works.
QUIET_SECONDS_MAX: Final = 3.0
#: A reader that does not accept an event within this time is disconnected.
SEND_SECONDS_MAX: Final = 10.0
_MAC: Final = handshake.MAC_HEADER.lower().encode()
_HEADERS: Final = (
    (b"content-type", EVENTS.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events otherwise
)
_COMMENT: Final = b":\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a stream repeats: a route of shared answers, asked about the workflow of the stream.

    Args:
        endpoint: the route.
        ids: returns the IDs in its path.
        message: returns its decoded query.
        query_string: returns the query as a reader who polls writes it, so that both share answers.
    """

    endpoint: Endpoint
    ids: Callable[[int], tuple[Any, ...]]
    message: Callable[[int], Any]
    query_string: Callable[[int], bytes]

    async def answer(self, call: Call) -> Answer:
        """Return its newest answer."""
        (workflow_id,) = call.ids
        own = replace(call, ids=self.ids(workflow_id), message=self.message(workflow_id))
        return await self.endpoint.shared_answer(own, self.query_string(workflow_id), SHARED_SECONDS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Endpoint):
    """A route that sends events until its reader leaves. `parts`: by the name of their events."""

    parts: Mapping[str, Part]

    async def __call__(self, given: Scope, receive: Receive, send: Send) -> None:
        """Send events."""
        request = open_request(given, receive)
        try:
            call = await self.admitted(request)
            await read_body(request.receive, BODYLESS_BYTES_MAX)  # then a message can only mean that the reader left
            if any(name == _MAC for name, _ in given["headers"]):
                raise InvalidRequest("A stream has no end, so no MAC can be added to it; poll instead.")
            counted = contextlib.ExitStack()
            counted.enter_context(call.services.streams.opened())
        except ClientDisconnect:
            return
        except Exception as error:
            await self.refuse(given, send, error)
            return
        with counted:
            call.services.warmer.start(*call.ids)
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            try:
                async with contextlib.aclosing(self._events(call)) as events:
                    async for event in events:
                        async with asyncio.timeout(SEND_SECONDS_MAX):
                            await send({"type": "http.response.body", "body": event, "more_body": True})
                        if await request.is_disconnected():
                            return
            except TimeoutError:
                connection = given.get("state", {}).get(STATE_KEY)
                if connection is not None:
                    connection.close()
                return
        await send({"type": "http.response.body", "body": b""})

    async def _events(self, call: Call) -> AsyncGenerator[bytes, None]:
        """Yield events and comments until the stream is to end."""
        services, clock = call.services, call.services.clock
        sent = self._known(dict(call.request.scope["headers"]).get(b"last-event-id", b""))
        readable = services.authority.readable_users(call.principal)
        until = clock.monotonic() + services.settings.stream_seconds_max
        yield _COMMENT  # a reader who receives it knows that no proxy collects the stream
        quiet_since = clock.monotonic()
        while not services.feed.is_closed and clock.monotonic() < until and _is_still_admitted(call, readable):
            changed = b""
            for name, part in self.parts.items():
                try:
                    answer = await part.answer(call)
                except Exception:
                    return  # the route itself reports that to the reader, who now polls
                tag = answer.tag.strip(b'"')
                if sent.get(name) != tag:
                    sent[name] = tag
                    changed += b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), self._id(sent), answer.content)
            now = clock.monotonic()
            if changed or now - quiet_since >= QUIET_SECONDS_MAX:
                quiet_since = now
                yield changed or _COMMENT
            await services.feed.pause(LOOK_SECONDS - clock.monotonic() % LOOK_SECONDS)

    def _id(self, sent: Mapping[str, bytes]) -> bytes:
        return b".".join(sent.get(name, b"") for name in self.parts)

    def _known(self, event_id: bytes) -> dict[str, bytes]:
        """Return the tags of the answers that a reader has; none if it names no event of ours."""
        tags = event_id.split(b".")
        return dict(zip(self.parts, tags, strict=True)) if len(tags) == len(self.parts) else {}


def _is_still_admitted(call: Call, readable: frozenset[str] | None) -> bool:
    """Return whether a request would be admitted now: pages can be closed, and users can leave groups.

    Args:
        call: the request.
        readable: the users whose workflows its principal was allowed to read.
    """
    authority = call.services.authority
    token = bearer_token(dict(call.request.scope["headers"]))
    principal = authority.bearer(token) if token else call.principal
    return principal is not None and principal == call.principal and authority.readable_users(principal) == readable


def stream(path: str, parts: Mapping[str, Part]) -> Stream:
    """Return the route of a stream about the workflow in its path."""
    return Stream(right=Right.READ, method="GET", path=path, handle=_nothing, media_type=EVENTS, parts=parts)


async def _nothing(call: Call) -> None:
    """Answer nothing: a stream sends events instead."""
