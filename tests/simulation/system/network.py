"""The network between the parts and the server: it delays, loses and repeats requests or answers, and disconnects.

`SimulatedRequester` is the real requester with simulated sessions instead of sockets, and a random generator derived
from the seed. It calls the server application directly. Each request is a task that belongs to the server and dies with
it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
from tests.simulation.system.scenario import Weather

from jobmon.core.requester import PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX, Requester

if TYPE_CHECKING:
    import random
    from types import TracebackType

    from tests.simulation.system.bridge import Bridge
    from tests.simulation.system.loop import SimulationLoop

LATENCY_SECONDS_MAX: Final = 0.01
SLOW_SECONDS_MAX: Final = 25.0
#: Requests that programs repeat by themselves, and the number of them kept for a much later redelivery.
MAY_COME_AGAIN: Final = ("/queue", "/sync", "/distributors", "/tasks", "/report", "/start", "/take")
REMEMBERED_MAX: Final = 100
#: Requests with reports, which a proxy in front of the server may reject.
MAY_BE_REFUSED: Final = ("/sync", "/report", "/start", "/take")
REFUSALS: Final = (
    (400, b"<html>Bad request</html>"),
    (401, b'{"message": "no"}'),
    (403, b"<html>Forbidden</html>"),
    (404, b"<html>Not found</html>"),
    (413, b"<html>Too large</html>"),
    (422, b"{}"),
    (429, b""),
    (200, b"<html>Please log in</html>"),
    (200, b'{"status": "ok"}'),
)
ADDRESS: Final = "http://simulated"
#: Delay of requests that never arrive, e.g. of a disconnected part, seconds.
_FOREVER: Final = 1e9

Watcher = Callable[[str, bytes, int, bytes], None]
Serve = Callable[[str, str, bytes, bytes, asyncio.Event], Awaitable[tuple[int, bytes]]]


class Part:
    """The network's view of a process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.cut_off_until = 0.0
        #: The number of its messages that were lost.
        self.lost_count = 0


class Network:
    """The network that carries requests and answers.

    Args:
        loop: the virtual-time loop.
        dice: random generator derived from the seed.
        serve: calls the server; raises `aiohttp.ClientConnectionError` while no server is running.
        watch: called for every answer that reaches the requesting part: path, body, status, content.
    """

    def __init__(self, loop: SimulationLoop, dice: random.Random, serve: Serve, watch: Watcher) -> None:
        self.loop = loop
        self.weather = Weather()
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self._remembered: deque[tuple[str, str, bytes, bytes]] = deque(maxlen=REMEMBERED_MAX)
        self._dice = dice
        self._serve = serve
        self._watch = watch

    async def exchange(self, part: Part, method: str, url: str, body: bytes) -> tuple[int, bytes]:
        """Carry one request and its answer."""
        parts = urlsplit(url)
        self.requests += 1
        await self._travel(part, self.weather.lost_before, "request lost")
        if parts.path.endswith(MAY_BE_REFUSED) and self._happens(self.weather.refused, "request refused by a proxy"):
            part.lost_count += 1
            return self._dice.choice(REFUSALS)
        if parts.path.endswith(MAY_COME_AGAIN):
            self._remembered.append((method, parts.path, parts.query.encode(), body))
        arrived = self._arrive(part, method, parts.path, parts.query.encode(), body)
        if self._happens(self.weather.repeated, "request repeated"):
            self._repeat(part, method, parts.path, parts.query.encode(), body)
        status, content = await arrived
        await self._travel(part, self.weather.lost_after, "answer lost")
        self._watch(parts.path, body, status, content)
        return status, content

    async def _travel(self, part: Part, loss: float, what: str) -> None:
        """Carry a message in one direction."""
        seconds = self._dice.uniform(0.0002, LATENCY_SECONDS_MAX)
        if self._happens(self.weather.slow, "message slow"):
            seconds += self._dice.uniform(0.1, SLOW_SECONDS_MAX)
        await asyncio.sleep(seconds)
        self.require_alive(part)
        if self.loop.time() < part.cut_off_until:
            await asyncio.sleep(_FOREVER)
        if self._happens(loss, what):
            part.lost_count += 1
            if self._dice.random() < 0.5:
                await asyncio.sleep(_FOREVER)  # until the request times out
            raise aiohttp.ServerDisconnectedError

    @staticmethod
    def require_alive(part: Part) -> None:
        """Raise `CancelledError` in a dead process, so that it does nothing, not even in its `finally`."""
        if part.is_dead:
            raise asyncio.CancelledError

    async def _arrive(self, part: Part, method: str, path: str, query: bytes, body: bytes) -> tuple[int, bytes]:
        gone = asyncio.Event()
        work = self.loop.spawn("server", self._answered(method, path, query, body, gone))
        try:
            status, content = await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():  # the server died
                raise aiohttp.ServerDisconnectedError from None
            self.loop.call_in("server", gone.set)
            raise
        if status < 0:
            raise aiohttp.ClientConnectionError(content.decode())
        return status, content

    async def _answered(
        self, method: str, path: str, query: bytes, body: bytes, gone: asyncio.Event, after_seconds: float = 0.0
    ) -> tuple[int, bytes]:
        """Answer a request; return a missing server as a value, because an exception might never be retrieved."""
        if after_seconds:
            await asyncio.sleep(after_seconds)
        try:
            return await self._serve(method, path, query, body, gone)
        except aiohttp.ClientConnectionError as error:
            return -1, str(error).encode()

    def _repeat(self, part: Part, method: str, path: str, query: bytes, body: bytes) -> None:
        """Deliver the same request again later; discard the answer."""

        seconds = self._dice.uniform(0.0, SLOW_SECONDS_MAX)
        self.loop.spawn("server", self._answered(method, path, query, body, asyncio.Event(), seconds))

    def deliver_again(self) -> str:
        """Deliver a random earlier request again, even if its sender is dead; discard the answer."""
        if not self._remembered:
            return ""
        method, path, query, body = self._dice.choice(self._remembered)
        self.loop.spawn("server", self._answered(method, path, query, body, asyncio.Event()))
        return path

    def _happens(self, probability: float, what: str) -> bool:
        happens = probability > 0 and self._dice.random() < probability
        if happens:
            self.faults[what] += 1
        return happens


class SimulatedRequester(Requester):
    """The requester of one part.

    Args:
        network: the network.
        part: the part that sends the requests.
        dice: random generator derived from the seed.
        bridge: the bridge for synchronous code; None: this part has no synchronous code.
    """

    def __init__(self, network: Network, part: Part, dice: random.Random, bridge: Bridge | None = None) -> None:
        super().__init__(ADDRESS)
        self._network = network
        self._part = part
        self._dice = dice
        self._bridge = bridge

    def open_session(self) -> Any:
        """Open a simulated session."""
        return _Session(self._network, self._part)

    def close(self) -> None:
        """Do nothing, because there is nothing to close."""

    def _send(self, route: str, message: object, method: str, tenacious: bool, timeout: float) -> tuple[int, bytes]:
        assert self._bridge is not None, "synchronous requests need a bridge"
        session = self.open_session()
        return self._bridge.wait_for(self._send_async(session, route, message, method, tenacious, timeout))

    def _pauses(self, tenacious: bool) -> Iterator[float]:
        """Yield pauses like the real requester, but with the loop's virtual time and this random generator."""
        yield 0.0
        now = self._network.loop.time
        attempts = 1 if not tenacious else self.retries_attempts
        deadline = now() + (_FOREVER if self.retries_timeout is None else self.retries_timeout)
        tried, pause = 1, PAUSE_SECONDS_FIRST
        while (attempts is None or tried < attempts) and now() < deadline:
            yield 0.0 if tried == 1 else pause * self._dice.uniform(0.5, 1.0)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)
            tried += 1


class _Session:
    """The part of `aiohttp.ClientSession` that `Requester` needs."""

    connector: object = None

    def __init__(self, network: Network, part: Part) -> None:
        self._network = network
        self._part = part
        self.closed = False

    def request(self, method: str, url: str, *, data: bytes | None, headers: object, timeout: Any) -> _Exchange:
        """Send one request."""
        return _Exchange(self._network, self._part, method, url, data or b"", timeout.total)

    async def close(self) -> None:
        """Close the session."""
        self.closed = True


class _Exchange:
    """The part of a response that `Requester` needs."""

    def __init__(self, network: Network, part: Part, method: str, url: str, body: bytes, timeout: float) -> None:
        self._network, self._part = network, part
        self._request = method, url, body
        self._timeout = timeout
        self.status = 0
        self._content = b""

    async def __aenter__(self) -> _Exchange:
        self._network.require_alive(self._part)
        async with asyncio.timeout(self._timeout):
            self.status, self._content = await self._network.exchange(self._part, *self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing, because nothing is open."""

    async def read(self) -> bytes:
        """Return the content."""
        return self._content
