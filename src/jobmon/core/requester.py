"""Sending requests to the server: one sync and one async face over the same rules of retrying.

Where no `http.service_url` is set the server is the embedded one: found or started by `core.access`, spoken to through
its Unix socket where there is one, and started again when it is found dead. All requests may be repeated safely, so
every failure to get an answer is retried, with growing pauses and jitter.
"""

from __future__ import annotations

import http.client
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from jobmon.core import exceptions, wire
from jobmon.core.exceptions import InvalidRequest, InvalidResponse, JobmonError, ServerUnavailable
from jobmon.core.wire.server import Problem

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import aiohttp

    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.line import Session

    AnySession = Session | aiohttp.ClientSession

_Reply = TypeVar("_Reply")

PAUSE_SECONDS_FIRST: Final = 0.05
#: A server that comes back has everybody connected within 5 s.
PAUSE_SECONDS_MAX: Final = 4.5
_RETRIED_STATUSES: Final = frozenset({500, 502, 503, 504})
#: Waiting for the server is said after this long, and then again and again, seconds.
COMPLAINT_SECONDS_FIRST: Final = 3.0
COMPLAINT_SECONDS: Final = 30.0
#: Of a smaller request nothing is gained by making the next one while it is answered.
OVERLAPPED_BYTES_MIN: Final = 64 * 1024
#: The thread that looks for a server that does not answer.
FINDER_NAME: Final = "jobmon-find-server"
#: Without limit, said as a number: a request of the orchestrator or distributor is tried this long.
FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is: an address, perhaps a Unix socket on this host, perhaps a token."""

    address: str
    socket: str = ""
    token: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        headers = {"content-type": "application/json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        return headers


class _ClosesItself:
    """A connection is kept per thread and goes with it: that is in order, not a leak to be warned of."""

    def __del__(self) -> None:
        self.close()  # type: ignore[attr-defined]


class _TcpConnection(_ClosesItself, http.client.HTTPConnection):
    pass


class _TlsConnection(_ClosesItself, http.client.HTTPSConnection):
    pass


class _UnixConnection(_ClosesItself, http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Requester:
    """Sends requests to one server.

    Args:
        service_url: the server's address, such as "http://host:port".
        retries_timeout: how long a request is tried, seconds; None: without limit.
        retries_attempts: how often a request is tried; None: without limit.
        request_timeout: longest wait for one answer, seconds.
        token: bearer token.
        embedded: whether it is the embedded server of the data folder, to be found and started as needed.
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
        if not embedded and urlsplit(service_url).scheme not in ("http", "https"):
            raise exceptions.ConfigError(f"http.service_url {service_url!r} must begin with http:// or https://.")
        self._target = Target(service_url.rstrip("/"), token=token)
        self._embedded = embedded
        self.retries_timeout = retries_timeout
        self.retries_attempts = retries_attempts
        self.request_timeout = request_timeout
        self._local = threading.local()
        if embedded:
            self._find()

    @classmethod
    def from_defaults(cls, config: JobmonConfig | None = None) -> Requester:
        """Make one from the settings; without `http.service_url` find or start the embedded server.

        Raises:
            ServerUnavailable: the embedded server did not start.
        """
        from jobmon.core.configuration import JobmonConfig

        config = config or JobmonConfig()
        url = str(config.get("http", "service_url") or "")
        return cls(
            url,
            config.get_float("http", "retries_timeout"),
            config.get_int("http", "retries_attempts"),
            config.get_float("http", "request_timeout"),
            token=str(config.get("http", "token") or ""),
            embedded=not url,
        )

    def without_limit(self) -> Requester:
        """Return one for the same server that tries every request until it is answered."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.retries_timeout = copy.retries_attempts = None
        copy._local = threading.local()
        return copy

    def within(self, seconds: float) -> Requester:
        """Return one for the same server that gives up after about so many seconds, the last try among them."""
        copy = self.without_limit()
        copy.retries_timeout = seconds / 2
        copy.request_timeout = min(self.request_timeout, seconds / 2)
        return copy

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
        """Send one request and return status and content of the answer.

        Args:
            app_route: the route below `/api/v1`, such as "/tools".
            message: a message or a dict; for "get" the query.
            request_type: "get", "post", "put" or "delete".
            tenacious: whether to try again when there is no answer.

        Raises:
            ServerUnavailable: no answer after all tries.
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
        """Send one request through a session of `open_session`, or one of aiohttp; otherwise as `send_request`."""
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
        """Send one request and return the decoded answer.

        Raises:
            JobmonError: the one that the server names in its `Problem`.
            ServerUnavailable: no answer after all tries.
        """
        timeout = request_timeout or self.request_timeout
        return _decoded(app_route, reply, *self._send(app_route, message, method, tenacious, timeout))

    def call_each(self, requests: Iterable[tuple[str, object]], reply: type[_Reply]) -> Iterator[_Reply]:
        """Post requests, given as route and message, one after another; yield their answers as `call` returns them.

        The next of large ones is made while the server answers the last, so that both sides work at once.
        """
        overlap = _Overlap(lambda: _connection_to(self._target, self.request_timeout))
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
        """Send one request through a session, as `send_request_async`; otherwise as `call`."""
        timeout = request_timeout or self.request_timeout
        return _decoded(
            app_route, reply, *await self._send_async(session, app_route, message, method, tenacious, timeout)
        )

    def open_session(self) -> Session:
        """Open a session that speaks to this server, through its Unix socket where there is one."""
        from jobmon.core.line import Session

        return Session(self._target.address, self._target.socket)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    # -- the two faces ------------------------------------------------------------------------------------------

    def _send(self, route: str, message: object, method: str, tenacious: bool, timeout: float) -> tuple[int, bytes]:
        path, body = _request_of(route, message, method)
        failure: Exception | None = None
        complaints = _Complaints(self.url)
        for pause in self._pauses(tenacious):
            if pause:
                complaints.consider(failure)
                time.sleep(pause)
            try:
                status, content = self._exchange(path, body, method.upper(), timeout)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                failure = error
                if self._embedded:
                    self._found_again().wait(self.retries_timeout)
                continue
            if status not in _RETRIED_STATUSES or not tenacious:
                return status, content
            failure = _problem_of(route, status, content)
        raise self._unavailable(route, failure)

    def _exchange(self, path: str, body: bytes | None, method: str, timeout: float) -> tuple[int, bytes]:
        connection = self._connection(timeout)
        connection.request(method, path, body=body, headers=self._target.headers)
        response = connection.getresponse()
        return response.status, response.read()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connection_to(self._target, timeout)
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection

    def _posted(
        self, overlap: _Overlap, route: str, message: object, path: str, body: bytes, reply: type[_Reply]
    ) -> Callable[[], _Reply]:
        """Send a request; return what waits for its answer."""
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
        exchange = self._exchange_of(session)
        failure: Exception | None = None
        complaints = _Complaints(self.url)
        try:
            for pause in self._pauses(tenacious):
                if pause:
                    complaints.consider(failure)
                    await asyncio.sleep(pause)
                try:
                    status, content = await exchange(method.upper(), path, body, self._target.headers, timeout)
                except OSError as error:
                    if session.closed:
                        raise
                    failure = error
                    await self._look_again()
                    continue
                if status not in _RETRIED_STATUSES or not tenacious:
                    return status, content
                failure = _problem_of(route, status, content)
        except asyncio.CancelledError as cancelled:  # whoever waits no longer learns why there was no answer
            raise cancelled from failure
        raise self._unavailable(route, failure)

    def _exchange_of(self, session: AnySession) -> Callable[..., Awaitable[tuple[int, bytes]]]:
        """Return what sends one request through that session; failures to get an answer are `OSError`s."""
        from jobmon.core.line import Session

        return session.exchange if isinstance(session, Session) else _Foreign(session, self._target.address).exchange

    # -- trying again -------------------------------------------------------------------------------------------

    def _pauses(self, tenacious: bool) -> Iterator[float]:
        """Yield the pause before each try, seconds: none, then growing ones with jitter."""
        yield 0.0
        attempts = 1 if not tenacious else self.retries_attempts
        deadline = time.monotonic() + (FOREVER if self.retries_timeout is None else self.retries_timeout)
        tried, pause = 1, PAUSE_SECONDS_FIRST
        while (attempts is None or tried < attempts) and time.monotonic() < deadline:
            # the first repeat comes at once: a kept-alive connection may just have been closed by the server
            left = max(0.0, deadline - time.monotonic())
            yield 0.0 if tried == 1 else min(pause * random.uniform(0.5, 1.0), left)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)
            tried += 1

    def _find(self) -> None:
        from jobmon.core import access

        found = access.ensure_server()
        self._target = Target(found.address, found.socket, found.token)

    def _found_again(self, then: Callable[[], object] = lambda: None) -> threading.Event:
        """Start the embedded server again if it is dead; that it does not start now is no reason to stop trying.

        It takes a thread that nobody needs to wait for: a script that is told to end does not wait for a server.
        """
        ended = threading.Event()

        def find() -> None:
            try:
                self._find()
            except (JobmonError, OSError) as error:
                logger.debug("The Jobmon server is not found: %s", error)
            finally:
                ended.set()
                then()

        threading.Thread(target=find, name=FINDER_NAME, daemon=True).start()
        return ended

    async def _look_again(self) -> None:
        """Do as `_found_again` and wait, but hold nothing up."""
        import asyncio

        if not self._embedded:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop has ended, as nobody waits any more
                loop.call_soon_threadsafe(ended.set)

        self._found_again(tell)
        await ended.wait()

    def _unavailable(self, route: str, failure: Exception | None) -> JobmonError:
        if isinstance(failure, JobmonError):
            return failure
        reason = f"{type(failure).__name__}: {failure}" if failure is not None else "no answer"
        remedy = (
            "See 'jobmon server status' and 'jobmon server logs'."
            if self._embedded
            else "Check http.service_url and that the server runs."
        )
        return ServerUnavailable(f"The Jobmon server at {self.url} does not answer {route} ({reason}). {remedy}")


class _Overlap:
    """A connection of its own on which one request is under way, so that the caller can do something else meanwhile."""

    def __init__(self, connect: Callable[[], http.client.HTTPConnection]) -> None:
        self._connect = connect
        self._connection: http.client.HTTPConnection | None = None

    def begin(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a request. Should that fail, `finish` tells."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request("POST", path, body=body, headers=dict(headers))
        except (OSError, http.client.HTTPException):
            self.close()

    def finish(self) -> tuple[int, bytes] | None:
        """Return status and content of the answer, or None: there is none."""
        try:
            if self._connection is None:
                return None
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return None

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Foreign:
    """A session of aiohttp that was handed in."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """As `Session.exchange`."""
        import aiohttp

        is_local = isinstance(self._session.connector, aiohttp.UnixConnector)
        url = ("http://localhost" if is_local else self._address) + path
        limit = aiohttp.ClientTimeout(total=timeout)
        try:
            async with self._session.request(method, url, data=body, headers=headers, timeout=limit) as response:
                return response.status, await response.read()
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error


class _Complaints:
    """Says now and then why a request still waits, so that nobody wonders."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._due = time.monotonic() + COMPLAINT_SECONDS_FIRST

    def consider(self, failure: Exception | None) -> None:
        """Log the reason if it is time to."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + COMPLAINT_SECONDS
            logger.warning("Still waiting for the Jobmon server at %s: %s", self._url, failure or "no answer")


def _connection_to(target: Target, timeout: float) -> http.client.HTTPConnection:
    if target.socket:
        return _UnixConnection(target.socket, timeout)
    parts = urlsplit(target.address)
    kind = _TlsConnection if parts.scheme == "https" else _TcpConnection
    return kind(parts.hostname or "localhost", parts.port, timeout=timeout)


def _request_of(route: str, message: object, method: str) -> tuple[str, bytes | None]:
    path = wire.API_ROOT + route
    if method.lower() != "get":
        return path, wire.encode({} if message is None else message)
    query = msgspec.to_builtins(message) if is_dataclass(message) else message
    if isinstance(query, Mapping) and query:
        given = {key: value for key, value in query.items() if value is not None}
        path += "?" + urlencode(given, doseq=True)
    return path, None


def _content(status: int, content: bytes) -> dict[str, Any]:
    if not content:
        return {}
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except ValueError:
        raise InvalidResponse(f"The server answered {status} with something that is not a JSON object.") from None


def _decoded(route: str, reply: type[_Reply], status: int, content: bytes) -> _Reply:
    if not 200 <= status < 300:
        raise _problem_of(route, status, content)
    try:
        return wire.decode(reply, content or b"{}")
    except ValueError as error:
        raise InvalidResponse(f"The server's answer to {route} cannot be understood: {error}") from None


def _problem_of(route: str, status: int, content: bytes) -> JobmonError:
    """Return the error that an answer names; of a kind that we do not know: InvalidRequest or InvalidResponse."""
    try:
        problem = wire.decode(Problem, content)
    except ValueError:
        return InvalidResponse(f"The server answered {status} to {route}: {content[:200].decode(errors='replace')}")
    kind = getattr(exceptions, problem.kind, None)
    if isinstance(kind, type) and issubclass(kind, JobmonError):
        return kind(problem.message)
    if status in _RETRIED_STATUSES:
        return InvalidResponse(f"The server failed at {route}: {problem.message}")
    return InvalidRequest(problem.message)
