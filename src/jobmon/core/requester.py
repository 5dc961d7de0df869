"""HTTP requests to the server: a synchronous and an asynchronous interface over the same retry rules.

If `http.service_url` is not set, the server is the embedded one: `core.access` finds or starts it, requests use its
Unix socket if there is one, and it is started again if it is found dead. If `http.service_url` has the addresses of a
server and its standbys, the next one is used whenever one does not respond or is not active.

Every request may safely be repeated, so every failure to get a response is retried, with growing pauses and jitter.

The token is sent over https only. On the Unix socket both sides compare user ids, and over plain HTTP the server has to
prove that it knows the token (decision 23).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from jobmon.agent import addresses
from jobmon.agent.http import HTTP_UNAVAILABLE
from jobmon.core import exceptions, wire
from jobmon.core.connections import Connection, Target, connection_to
from jobmon.core.descriptors import open_standard
from jobmon.core.exceptions import InvalidRequest, InvalidResponse, JobmonError, ServerUnavailable
from jobmon.core.hello import HTTP_UNAUTHORIZED, Refused
from jobmon.core.texts import SHOWN_CHARACTERS_MAX
from jobmon.core.wire.server import Problem

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import aiohttp

    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.http import HttpSession

    AnySession = HttpSession | aiohttp.ClientSession

_Reply = TypeVar("_Reply")

PAUSE_SECONDS_FIRST: Final = 0.05
#: Short enough that all clients have reconnected within 5 s after a server comes back.
PAUSE_SECONDS_MAX: Final = 4.5
_RETRIED_STATUSES: Final = frozenset({500, 502, 503, 504})
#: By these a proxy says that it does not reach the server, usually in HTML.
_GATEWAY_STATUSES: Final = frozenset({502, 503, 504})
#: From an embedded server these statuses mean that its token or address changed: it is looked up again.
_MOVED_STATUSES: Final = frozenset({HTTP_UNAUTHORIZED, 421})
#: A request that waits for the server is logged after this long, and then at regular intervals, seconds.
WARNING_SECONDS_FIRST: Final = 3.0
WARNING_SECONDS: Final = 30.0
#: Shortest time that a caller may allow for a response, seconds.
REQUEST_SECONDS_MIN: Final = 0.001
#: Overlapping a request with the preparation of the next one gains nothing if it is smaller than this.
OVERLAPPED_BYTES_MIN: Final = 64 * 1024
#: Name of the thread that looks for a server that does not respond.
FINDER_NAME: Final = "jobmon-find-server"
#: "Without limit" as a number: how long requests of the orchestrator and distributor are retried.
FOREVER: Final = float("inf")


class Requester:
    """Sends requests to one server.

    Args:
        service_url: the server's address, such as "http://host:port", or those of a server and its standbys, separated
            by spaces.
        retries_timeout: how long a request is retried, seconds; None: without limit.
        retries_attempts: how many times a request is attempted; None: without limit.
        request_timeout: longest wait for one response, seconds.
        token: bearer token.
        embedded: whether to use the embedded server of the data folder, which is found and started as needed.

    Raises:
        ConfigError: an address, the token or a number is invalid.
    """

    def __init__(
        self,
        service_url: str,
        retries_timeout: float | None = 300,
        retries_attempts: int | None = 10,
        request_timeout: float = 20,
        *,
        token: str = "",
        embedded: bool = False,
    ) -> None:
        open_standard()
        if not isinstance(service_url, str):
            raise exceptions.ConfigError(f"http.service_url must be the address of a server, not {service_url!r}.")
        self._addresses = [] if embedded else _checked(service_url, token)
        self._target = Target(next(iter(self._addresses), ""), token=token)
        self._embedded = embedded
        #: Whether address and token come from the settings, so that they can be read again.
        self._is_configured = False
        self.retries_timeout = None if retries_timeout is None else _number("retries_timeout", retries_timeout, 0)
        self.retries_attempts = None if retries_attempts is None else _attempts(retries_attempts)
        self.request_timeout = _number("request_timeout", request_timeout, REQUEST_SECONDS_MIN)
        self._local = threading.local()
        if embedded:
            self._find()

    @classmethod
    def from_defaults(cls, config: JobmonConfig | None = None) -> Requester:
        """Create a requester from the settings; without `http.service_url`, find or start the embedded server.

        Raises:
            ServerUnavailable: the embedded server did not start.
        """
        from jobmon.core.configuration import JobmonConfig

        config = config or JobmonConfig()
        url = str(config.get("http", "service_url") or "")
        requester = cls(
            url,
            config.get_float("http", "retries_timeout"),
            config.get_int("http", "retries_attempts"),
            config.get_float("http", "request_timeout"),
            token=config.token() if url else "",
            embedded=not url,
        )
        requester._is_configured = bool(url)
        return requester

    def without_limit(self) -> Requester:
        """Return a requester for the same server that retries every request until it gets a response."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.retries_timeout = copy.retries_attempts = None
        copy._local = threading.local()
        return copy

    def within(self, seconds: float) -> Requester:
        """Return a requester for the same server that gives up after about `seconds`, including the last try."""
        copy = self.without_limit()
        copy.retries_timeout = seconds / 2
        copy.request_timeout = min(self.request_timeout, seconds / 2)
        return copy

    @property
    def addresses(self) -> str:
        """All addresses, for other programs; the one that responded last comes first."""
        return " ".join(sorted(self._addresses, key=lambda one: one != self.url))

    @property
    def url(self) -> str:
        """The server's address."""
        return self._target.address

    @property
    def target(self) -> Target:
        """Where the server is now."""
        return self._target

    def send_request(
        self, app_route: str, message: object, request_type: str, tenacious: bool = True
    ) -> tuple[int, dict[str, Any]]:
        """Send one request and return status and content of the response.

        Args:
            app_route: the route below `/api/v1`, such as "/tools".
            message: a message or a dict; for "get" the query.
            request_type: "get", "post", "put" or "delete".
            tenacious: whether to retry if there is no response.

        Raises:
            ServerUnavailable: no response after all tries.
        """
        status, content = self._send(app_route, message, request_type, tenacious, self.request_timeout)
        return status, _content(status, content)

    async def send_request_async(
        self,
        session: AnySession,
        app_route: str,
        message: object,
        request_type: str,
        tenacious: bool = True,
    ) -> tuple[int, dict[str, Any]]:
        """Send one request through an asynchronous `session`, created by `open_session` or by aiohttp.

        `app_route`, `message`, `request_type` and `tenacious` are the same as for `send_request`.
        """
        status, content = await self._send_async(
            session, app_route, message, request_type, tenacious, self.request_timeout
        )
        return status, _content(status, content)

    def call(
        self,
        app_route: str,
        message: object,
        reply: type[_Reply],
        method: str = "post",
        *,
        request_timeout: float | None = None,
        tenacious: bool = True,
    ) -> _Reply:
        """Send one request and return the decoded response.

        Raises:
            JobmonError: the error that the server names in its `Problem`.
            ServerUnavailable: no response after all tries.
        """
        timeout = request_timeout or self.request_timeout
        return _decoded(app_route, reply, *self._send(app_route, message, method, tenacious, timeout))

    def call_each(self, requests: Iterable[tuple[str, object]], reply: type[_Reply]) -> Iterator[_Reply]:
        """Post requests, given as route and message, one after another; yield their responses as `call` returns them.

        The next large request is created while the server processes the previous one, so that both sides work at once.
        """
        overlap = _Overlap(lambda: connection_to(self._target, self.request_timeout))
        last: Callable[[], _Reply] | None = None
        try:
            for route, message in requests:
                path, body = _request_of(route, message, "post")
                before, last = last, None
                answers = [] if before is None else [before()]
                last = self._posted(overlap, route, message, path, body or b"", reply)
                yield from answers
            if last is not None:
                yield last()
        finally:
            overlap.close()

    async def call_async(
        self,
        session: AnySession,
        app_route: str,
        message: object,
        reply: type[_Reply],
        method: str = "post",
        *,
        request_timeout: float | None = None,
        tenacious: bool = True,
    ) -> _Reply:
        """Send one request through a session, like `send_request_async`; otherwise like `call`."""
        timeout = request_timeout or self.request_timeout
        return _decoded(
            app_route, reply, *await self._send_async(session, app_route, message, method, tenacious, timeout)
        )

    def open_session(self) -> HttpSession:
        """Open a session to this server, through its Unix socket if there is one."""
        from jobmon.core.http import HttpSession

        return HttpSession(self._target.address, self._target.socket, self._target.token)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    # -- synchronous and asynchronous interface -----------------------------------------------------------------

    def _send(self, route: str, message: object, method: str, tenacious: bool, timeout: float) -> tuple[int, bytes]:
        path, body = _request_of(route, message, method)
        failure: Exception | None = None
        warnings_due = _Warnings(self.url)
        for pause in self._pauses(tenacious):
            if pause:
                warnings_due.consider(failure)
                time.sleep(pause)
            used = self._target
            try:
                status, content = self._exchange(path, body, method.upper(), timeout)
            except OSError as error:
                self.close()
                failure = error
                self._turn_from(used)
                if self._embedded:
                    self._found_again().wait(self.retries_timeout)
                continue
            if self._is_last(status, tenacious):
                return status, content
            failure = _problem_of(route, status, content)
            if status in _MOVED_STATUSES:
                self.close()
                if self._embedded:
                    self._found_again().wait(self.retries_timeout)
            else:
                self._turn_from(used)
        raise self._unavailable(route, failure)

    def _is_last(self, status: int, tenacious: bool) -> bool:
        """Return whether to give this response to the caller rather than to retry.

        A rejected credential does not end a run: it may be replaced, so it is read again.
        """
        if not tenacious:
            return status != HTTP_UNAVAILABLE or len(self._addresses) < 2
        if status == HTTP_UNAUTHORIZED and not self._embedded:
            return not self._has_new_token() and self.retries_timeout is not None
        return status not in _RETRIED_STATUSES and not (self._embedded and status in _MOVED_STATUSES)

    def _has_new_token(self) -> bool:
        """Read the settings again; return whether they contain a different token for this server."""
        from jobmon.core.configuration import JobmonConfig

        if not self._is_configured:
            return False
        try:
            config = JobmonConfig()
            token = config.token()
        except JobmonError as error:  # another process may be writing the file
            logger.debug("The settings cannot be read: %s", error)
            return False
        is_same_server = addresses.split(str(config.get("http", "service_url") or "")) == self._addresses
        if not is_same_server or token in ("", self._target.token):
            return False
        self._target = replace(self._target, token=token)
        return True

    def _exchange(self, path: str, body: bytes | None, method: str, timeout: float) -> tuple[int, bytes]:
        connection = self._connection(timeout)
        try:
            connection.begin(method, path, body, self._target.headers)
        except Refused as refused:
            return refused.status, refused.content
        return connection.finish()

    def _connection(self, timeout: float) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None and self._local.address != self._target.address:
            self.close()
            connection = None
        if connection is None:
            connection = self._local.connection = connection_to(self._target, timeout)
            self._local.address = self._target.address
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection

    def _posted(
        self, overlap: _Overlap, route: str, message: object, path: str, body: bytes, reply: type[_Reply]
    ) -> Callable[[], _Reply]:
        """Send a request; return a function that waits for its response."""
        if len(body) < OVERLAPPED_BYTES_MIN:
            answer = self.call(route, message, reply)
            return lambda: answer
        overlap.begin(path, body, self._target.headers)

        def wait() -> _Reply:
            found = overlap.finish()
            if found is None or found[0] in _RETRIED_STATUSES:
                return self.call(route, message, reply)
            return _decoded(route, reply, *found)

        return wait

    async def _send_async(
        self, session: AnySession, route: str, message: object, method: str, tenacious: bool, timeout: float
    ) -> tuple[int, bytes]:
        import asyncio

        path, body = _request_of(route, message, method)
        failure: Exception | None = None
        warnings_due = _Warnings(self.url)
        try:
            for pause in self._pauses(tenacious):
                if pause:
                    warnings_due.consider(failure)
                    await asyncio.sleep(pause)
                used, exchange = self._target, self._exchange_of(session)
                try:
                    status, content = await exchange(method.upper(), path, body, used.headers, timeout)
                except OSError as error:
                    if session.closed:
                        raise
                    failure = error
                    self._turn_from(used)
                    await self._look_again()
                    self._aim(session)
                    continue
                if self._is_last(status, tenacious):
                    return status, content
                failure = _problem_of(route, status, content)
                if status in _MOVED_STATUSES:
                    await self._look_again()
                else:
                    self._turn_from(used)
                self._aim(session)
        except asyncio.CancelledError as cancelled:  # the caller that cancels learns why there was no response
            raise cancelled from failure
        raise self._unavailable(route, failure)

    def _exchange_of(self, session: AnySession) -> Callable[..., Awaitable[tuple[int, bytes]]]:
        """Return the function that sends one request through the session; failures to get a response are `OSError`s."""
        from jobmon.core.http import HttpSession

        if isinstance(session, HttpSession):
            return session.exchange
        return self._exchange_aside if self._target.must_prove_itself else _Foreign(session, self._target).exchange

    async def _exchange_aside(self, *request: Any) -> tuple[int, bytes]:
        """Send the request through a session of our own, because aiohttp's does not support the handshake."""
        async with self.open_session() as session:
            return await session.exchange(*request)

    # -- retrying -----------------------------------------------------------------------------------------------

    def _pauses(self, tenacious: bool) -> Iterator[float]:
        """Yield the pause before each try, seconds: none at first, then growing pauses with jitter."""
        yield 0.0
        several = max(1, len(self._addresses))
        attempts = several if not tenacious else self.retries_attempts
        deadline = time.monotonic() + (FOREVER if self.retries_timeout is None else self.retries_timeout)
        tried, pause = 1, PAUSE_SECONDS_FIRST
        while (attempts is None or tried < attempts) and time.monotonic() < deadline:
            # the first retry is immediate: the server may just have closed a kept-alive connection, or have a standby
            left = max(0.0, deadline - time.monotonic())
            yield 0.0 if tried <= several else min(pause * random.uniform(0.5, 1.0), left)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)
            tried += 1

    def _turn_from(self, used: Target) -> None:
        """Use the next address, unless another request has turned from this one already."""
        if len(self._addresses) > 1 and self._target.address == used.address:
            place = self._addresses.index(used.address) + 1
            self._target = replace(self._target, address=self._addresses[place % len(self._addresses)])

    def _find(self) -> None:
        from jobmon.core import access

        found = access.ensure_server()
        self._target = Target(found.address, access.usable_socket(found), found.token)

    def _found_again(self, then: Callable[[], object] = lambda: None) -> threading.Event:
        """Start the embedded server again if it is dead. If it does not start now, retrying continues.

        This happens in a daemon thread, so that a script that is told to terminate does not wait for a server.
        """
        ended = threading.Event()

        def find() -> None:
            try:
                self._find()
            except (JobmonError, OSError) as error:
                logger.debug("The Jobmon server was not found: %s", error)
            finally:
                ended.set()
                then()

        threading.Thread(target=find, name=FINDER_NAME, daemon=True).start()
        return ended

    async def _look_again(self) -> None:
        """Run `_found_again` and wait for it without blocking the event loop."""
        import asyncio

        if not self._embedded:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed because the caller no longer waits
                loop.call_soon_threadsafe(ended.set)

        self._found_again(tell)
        await ended.wait()

    def _aim(self, session: AnySession) -> None:
        """Point a session of our own to the current address of the server."""
        from jobmon.core.http import HttpSession

        if isinstance(session, HttpSession):
            session.aim(self._target.address, self._target.socket, self._target.token)

    def _unavailable(self, route: str, failure: Exception | None) -> JobmonError:
        if isinstance(failure, JobmonError):
            return failure
        reason = f"{type(failure).__name__}: {failure}" if failure is not None else "no response"
        remedy = (
            "See 'jobmon server status' and 'jobmon server logs'."
            if self._embedded
            else "Check http.service_url, and that the server is running."
        )
        return ServerUnavailable(f"The Jobmon server at {self.url} does not respond to {route} ({reason}). {remedy}")


class _Overlap:
    """A separate connection with one request in flight, so that the caller can do something else meanwhile."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    def begin(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a request. If that fails, `finish` returns None."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.begin("POST", path, body, headers)
        except OSError:
            self.close()

    def finish(self) -> tuple[int, bytes] | None:
        """Return status and content of the response, or None if there is none."""
        try:
            if self._connection is None:
                return None
            return self._connection.finish()
        except OSError:
            self.close()
            return None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Foreign:
    """A session of aiohttp that the caller provided."""

    def __init__(self, session: aiohttp.ClientSession, target: Target) -> None:
        self._session = session
        self._address = target.address

    async def exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """Send one request; see `Session.exchange`."""
        import aiohttp

        is_local = isinstance(self._session.connector, aiohttp.UnixConnector)
        url = ("http://localhost" if is_local else self._address) + path
        limit = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._session.request(method, url, data=body, headers=headers, timeout=limit) as response:
                return response.status, await response.read()
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error


class _Warnings:
    """Logs occasionally why a request is still waiting, so that users are not left wondering."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._due = time.monotonic() + WARNING_SECONDS_FIRST

    def consider(self, failure: Exception | None) -> None:
        """Log the reason if it is due."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + WARNING_SECONDS
            logger.warning("Still waiting for the Jobmon server at %s: %s", self._url, failure or "no answer")


def _checked(text: str, token: str) -> list[str]:
    """Return the addresses in a text; reject settings that can never work.

    Raises:
        ConfigError: it names the setting and the remedy.
    """
    if not all(32 < ord(one) < 127 for one in token):
        raise exceptions.ConfigError("http.token contains spaces or characters outside ASCII. Copy the token again.")
    try:
        found = addresses.split(text) or [text]
        for one in found:
            addresses.parse(one)
    except addresses.InvalidAddress as error:
        raise exceptions.ConfigError(f"http.service_url: {error}") from None
    return found


def _number(name: str, value: object, least: float) -> float:
    """Return a number; infinity means no limit.

    Raises:
        ConfigError: it is not a number, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= least:
        raise exceptions.ConfigError(f"{name} must be a number of at least {least:g}, not {value!r}.")
    return float(value)


def _attempts(value: object) -> int:
    number = _number("retries_attempts", value, 1)
    if not number.is_integer():
        raise exceptions.ConfigError(f"retries_attempts must be an integer of at least 1, not {value!r}.")
    return int(number)


def _request_of(route: str, message: object, method: str) -> tuple[str, bytes | None]:
    """Return the path of a request, with its query, and its body.

    Raises:
        InvalidRequest: a text contains bytes that are not UTF-8: Python reads such arguments as unpaired surrogates.
    """
    try:
        return _encoded(route, message, method)
    except UnicodeEncodeError as error:
        text = error.object[:SHOWN_CHARACTERS_MAX]
        raise InvalidRequest(f"{text!r} contains bytes that are not UTF-8; remove them.") from None


def _encoded(route: str, message: object, method: str) -> tuple[str, bytes | None]:
    path = wire.API_ROOT + route
    if method.lower() != "get":
        return path, wire.encode({} if message is None else message)
    query = msgspec.to_builtins(message) if isinstance(message, wire.Message) else message
    if isinstance(query, Mapping) and query:
        given = {key: value for key, value in query.items() if value is not None}
        path += "?" + urlencode(given, doseq=True)
    return path, None


def _content(status: int, content: bytes) -> dict[str, Any]:
    if not content:
        return {}
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise InvalidResponse(f"The body of the server's response (status {status}) is not a JSON object.") from None


def _decoded(route: str, reply: type[_Reply], status: int, content: bytes) -> _Reply:
    if not 200 <= status < 300:
        raise _problem_of(route, status, content)
    try:
        return wire.decode(reply, content or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidResponse(f"The server's response to {route} cannot be parsed: {error}") from None


def _problem_of(route: str, status: int, content: bytes) -> JobmonError:
    """Return the error that a response names; for an unknown kind: InvalidRequest or InvalidResponse."""
    try:
        problem = wire.decode(Problem, content)
    except (ValueError, RecursionError):
        error: JobmonError = InvalidResponse(_of_proxy(route, status, content))
        error.answer = status, None
    else:
        error = _named(route, status, problem)
        error.answer = status, msgspec.structs.asdict(problem)
    return error


def _of_proxy(route: str, status: int, content: bytes) -> str:
    """Return what a response means that the server did not write."""
    if status in _GATEWAY_STATUSES:
        return (
            f"The proxy in front of the server responded to {route} with status {status}: it does not reach the server."
            " If that lasts, ask the server's administrator whether the server runs."
        )
    return f"The server responded to {route} with status {status}: {content[:200].decode(errors='replace')}"


def _named(route: str, status: int, problem: Problem) -> JobmonError:
    kind = getattr(exceptions, problem.kind, None)
    if isinstance(kind, type) and issubclass(kind, JobmonError):
        error: JobmonError = kind(problem.message)
        error.details = problem.details
        return error
    if status in _RETRIED_STATUSES:
        return InvalidResponse(f"The server failed at {route}: {problem.message}")
    return InvalidRequest(problem.message)
