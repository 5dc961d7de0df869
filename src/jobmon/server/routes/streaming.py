"""GET /workflows/{workflow_id}/stream: what an open page shows of a workflow, as server-sent events.

An event carries the whole answer of a route that could be polled as well (see `parts` in `routes.table`): `event` names
it, `data` is its JSON. So a reader can always poll instead, which the page does where a proxy holds a stream back or
cuts it. Readers who may see the same share one look per second, and the answers of `server.answers` with readers who
poll: ten pages cost little more than one.

An event is sent only if its answer differs from the last one. Its `id` consists of the tags of the answers sent so far:
a reader that reconnects with `Last-Event-ID` receives only what has changed since, also from another server process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect

from jobmon.agent import handshake
from jobmon.core.credentials import Right, sees_secrets
from jobmon.core.exceptions import InvalidRequest
from jobmon.server.auth import NOT_GUESSED, NOT_STORED, bearer_token
from jobmon.server.connections import STATE_KEY
from jobmon.server.routes.endpoint import BODYLESS_BYTES_MAX, EVENTS, Call, Endpoint, open_request, read_body

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from jobmon.server.answers import Answer
    from jobmon.server.services import Services

#: Interval between two looks, which are at the multiples of it.
LOOK_SECONDS: Final = 1.0
#: A look waits so long for its parts; those that take longer are sent when they are there.
PARTS_SECONDS_MAX: Final = 0.2
#: A part that is larger at first is not sent: events are not compressed.
EVENT_BYTES_MAX: Final = 64 * 1024
#: Maximum age of an answer that another reader has received already.
SHARED_SECONDS_MAX: Final = 0.5
#: After this long without an event a comment is sent: readers know that the stream works.
QUIET_SECONDS_MAX: Final = 3.0
#: A reader that does not accept an event within this time is disconnected.
SEND_SECONDS_MAX: Final = 10.0
_MAC: Final = handshake.MAC_HEADER.lower().encode()
_HEADERS: Final = (
    (b"content-type", EVENTS.encode()),
    *(NOT_STORED, NOT_GUESSED),
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
        with _joined(self, call, readable) as looks:
            while not services.feed.is_closed and clock.monotonic() < until and _is_still_admitted(call, readable):
                if looks.has_failed:
                    return  # the route itself reports that to the reader, who now polls
                seen, changed = looks.number, looks.news(sent)
                now = clock.monotonic()
                if changed or now - quiet_since >= QUIET_SECONDS_MAX:
                    quiet_since = now
                    yield changed or _COMMENT
                await looks.after(seen)

    def _known(self, event_id: bytes) -> dict[str, bytes]:
        """Return the tags of the answers that a reader has; none if it names no event of ours."""
        tags = event_id.split(b".")
        return dict(zip(self.parts, tags, strict=True)) if len(tags) == len(self.parts) else {}


class _Looks:
    """What all readers of one stream who may see the same receive: one look at each part per second, for all of them.

    A part that takes long does not delay the others. Belongs to the event loop.
    """

    def __init__(self, parts: Mapping[str, Part], services: Services, readable: frozenset[str] | None) -> None:
        self._parts = parts
        self._services = services
        self._readable = readable
        self.readers: list[Call] = []
        #: How often something was published.
        self.number = 0
        #: Whether a part could not be read.
        self.has_failed = False
        self._newest: dict[str, Answer] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._is_waiting = self._is_warm = False
        self._published = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def news(self, sent: dict[str, bytes]) -> bytes:
        """Return events with the answers whose tags are not those in `sent`, and note these tags there."""
        events = b""
        for name in self._parts:
            answer = self._newest.get(name)
            if answer is None or (len(answer.content) > EVENT_BYTES_MAX and not sent.get(name)):
                continue  # whoever never receives a part polls it, compressed
            if sent.get(name) != (tag := answer.tag.strip(b'"')):
                sent[name] = tag
                number = b".".join(sent.get(one, b"") for one in self._parts)
                events += b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), number, answer.content)
        return events

    async def after(self, number: int) -> None:
        """Wait until more is published than so often."""
        while self.number == number:
            await self._published.wait()

    def stop(self) -> None:
        """Look no more."""
        for task in (self._task, *self._running.values()):
            task.cancel()

    async def _run(self) -> None:
        feed, clock = self._services.feed, self._services.clock
        try:
            while not feed.is_closed and not self.has_failed:
                reader = next((one for one in self.readers if _is_still_admitted(one, self._readable)), None)
                if reader is not None:
                    await self._look(reader)
                self._publish()
                if reader is not None and not self._is_warm:
                    self._is_warm = True
                    self._services.warmer.start(*reader.ids)  # after the figures, which it would delay
                await feed.pause(LOOK_SECONDS - clock.monotonic() % LOOK_SECONDS)
        finally:
            self.has_failed = True
            self._publish()

    async def _look(self, reader: Call) -> None:
        """Read the parts one after the other, so that what people look at first comes first, or else side by side."""
        clock = self._services.clock
        until = clock.monotonic() + PARTS_SECONDS_MAX
        self._is_waiting = True
        for name, part in self._parts.items():
            if name not in self._running:
                self._running[name] = asyncio.create_task(self._read(name, part, reader))
                await asyncio.wait([self._running[name]], timeout=max(0.0, until - clock.monotonic()))
        self._is_waiting = False

    async def _read(self, name: str, part: Part, reader: Call) -> None:
        try:
            self._newest[name] = await part.answer(reader)
        except Exception:
            self.has_failed = True
        finally:
            del self._running[name]
        if not self._is_waiting:
            self._publish()

    def _publish(self) -> None:
        self.number += 1
        self._published.set()
        self._published = asyncio.Event()


@contextlib.contextmanager
def _joined(stream: Stream, call: Call, readable: frozenset[str] | None) -> Iterator[_Looks]:
    """Return the looks of a stream that a reader shares with others who may see the same."""
    shared = call.services.streams.looks
    key = stream.path, call.ids, sees_secrets(call.principal), readable
    looks: _Looks | None = shared.get(key)
    if looks is None or looks.has_failed:
        looks = shared[key] = _Looks(stream.parts, call.services, readable)
    looks.readers.append(call)
    try:
        yield looks
    finally:
        looks.readers.remove(call)
        if not looks.readers:
            looks.stop()
            if shared.get(key) is looks:
                del shared[key]


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
