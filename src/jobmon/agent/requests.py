"""A non-blocking connection to the server with at most one request in flight, whose answer is polled for.

Programs do other work meanwhile. `servers.py` finds the server.
"""

from __future__ import annotations

import errno
import os
import select
import time
from _socket import AF_UNIX, IPPROTO_TCP, SO_ERROR, SOCK_STREAM, SOL_SOCKET, TCP_NODELAY, getaddrinfo, socket

from jobmon.agent import fastjson, peers, trust
from jobmon.agent.addresses import InvalidAddress
from jobmon.agent.http import HANDSHAKE_BYTES_MAX, HTTP_UNAUTHORIZED, Answer, Conversation, Reader
from jobmon.agent.servers import RECEIVE_BYTES, Choice, InvalidServer, ServerAway, find_servers, secured

#: Maximum number of addresses of one host name that are tried in turn.
ADDRESSES_MAX = 8
TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from typing import Any

    from jobmon.agent.servers import Place


class PolledConnection:
    """Send a request, and poll for its answer.

    Args:
        environment: the variables that determine where the server is found.
    """

    #: The delay requested by the last answer (Retry-After), seconds.
    retry_after = 0.0
    #: The addresses that were tried last.
    where = "no address"

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._line: socket | ssl.SSLSocket | None = None
        self._place: Place | None = None
        self._choice = Choice()
        self._places: list[Place] = []  # locations not tried yet
        self._others: list[tuple[Any, ...]] = []  # addresses of the current location not tried yet
        self._is_connected = False
        self._is_secured = True
        self._wants_to_write = True
        self._was_kept = False
        self._unsent = b""
        self._request = ("", b"")  # route and body
        self._conversation: Conversation | None = None
        self._reader = Reader()
        self._has_received = False
        self._until = 0.0  # the deadline of the request
        self.deadline = 0.0  # when to act if no answer has arrived
        self.is_busy = False

    @property
    def _is_proven(self) -> bool:
        return self._is_connected and self._conversation is not None and self._conversation.is_open

    def send(self, route: str, message: Mapping[str, Any], timeout: float) -> None:
        """Begin a request that must be answered within `timeout` seconds.

        Raises:
            ServerAway: the server's address is unknown, or no connection to it can be opened.
        """
        body = fastjson.dumps(message).encode()
        self._until = self.deadline = time.monotonic() + timeout
        self._was_kept = self._line is not None
        self._connect()
        self._begin(route, body)
        try:
            self._advance()
        except OSError as error:
            self._broken(error)

    def _begin(self, route: str, body: bytes) -> None:
        assert self._conversation is not None
        self._request = route, body
        is_open = self._conversation.is_open
        self._unsent = self._conversation.request(route, body) if is_open else self._conversation.opening()
        self._reader = Reader() if is_open else Reader(HANDSHAKE_BYTES_MAX)
        self._has_received, self.is_busy = False, True

    def watched(self) -> tuple[int, int] | None:
        """Return the descriptor and events (as for `poll`) that this connection waits for, or None."""
        if self._line is None or not self.is_busy:
            return None
        return self._line.fileno(), select.POLLIN | select.POLLOUT if self._wants_to_write else select.POLLIN

    def answer(self) -> tuple[int, Any] | None:
        """Return status and decoded content (None: not valid JSON) of the answer; None: it has not arrived yet.

        Raises:
            ServerAway: the request failed or timed out.
        """
        if not self.is_busy:
            return None
        try:
            found = self._pull() if self._advance() else None
            if found is not None and not self._is_final(found):
                found = self._pull() if self._advance() else None
        except (OSError, ValueError) as error:
            self._broken(error)
            return None
        if found is None:
            self._check_time()
            return None
        self.is_busy = False
        self.retry_after = found.retry_after
        is_refused = self._conversation is None or not self._conversation.is_open
        if is_refused and self._places:
            self._broken(ConnectionError("the server there has a different token"))
            return None
        if not self._choice.answered(self._place, found.status) or is_refused or not found.keeps_open:
            self.close()
        return (HTTP_UNAUTHORIZED, None) if is_refused else (found.status, found.content)

    def _check_time(self) -> None:
        """Give up the request if it has timed out, or an address that has not answered in time."""
        now = time.monotonic()
        if now >= self._until:
            self._choice.failed()
            self.close()
            raise ServerAway("no response in time")
        if now >= self.deadline and not self._is_proven:
            self._broken(TimeoutError("no response in time"))

    def _is_final(self, found: Answer) -> bool:
        """Return False for the server's proof, and then send the request. Raises `Unproven`."""
        assert self._conversation is not None
        if self._conversation.is_open:
            self._conversation.check(found)
            return True
        if not self._conversation.accept(found):
            return True
        self.deadline = self._until
        if self._place is not None:
            self._choice.reached(self._place)
        self._begin(*self._request)
        return False

    def _broken(self, error: Exception) -> None:
        """Retry at another address of the server, or on a new connection if a reused one was closed."""
        route, body = self._request
        others = [] if self._is_connected else self._others
        places = [] if self._is_proven else self._places
        may_repeat = bool(others or places) or (self._was_kept and not self._has_received)
        self.close()
        if not may_repeat:
            self._choice.failed()
            raise ServerAway(str(error) or type(error).__name__)
        self._was_kept = False
        self._connect(others, places)
        self._begin(route, body)

    # -- connecting --------------------------------------------------------------------------------------------

    def _connect(self, others: list[tuple[Any, ...]] | None = None, places: list[Place] | None = None) -> None:
        """Begin to connect.

        Args:
            others: the remaining addresses of the current location.
            places: the remaining locations; without either, the server is looked up.
        """
        if self._line is not None:
            return
        if not others:
            try:
                self._places = places or self._choice.ordered(find_servers(self._environment))
            except InvalidAddress as error:
                raise InvalidServer(str(error)) from None
            self.where = ", ".join(place.address.url for place in self._places)
        while True:
            try:
                self._connect_to(others or [])
                return
            except OSError as error:
                self.close()
                if not self._places:
                    raise ServerAway(str(error) or type(error).__name__) from None
                others = None

    def _connect_to(self, others: list[tuple[Any, ...]]) -> None:
        """Begin to connect to the next location, or to the given addresses of this one. Raises OSError."""
        place = self._place
        if not others or place is None:
            place = self._place = self._places.pop(0)
        now = time.monotonic()
        self.deadline = self._choice.deadline(now, self._until, is_last=not (self._places or others[1:]))
        self._is_connected, self._is_secured, self._wants_to_write = False, not place.address.is_secure, True
        if place.path and not others and (line := _local(place.path)) is not None:
            self._line, self._is_connected, self._is_secured = line, True, True
            self.deadline = self._until
            self._conversation = Conversation(place.address, place.token, is_local=True)
            return
        self._conversation = Conversation(place.address, place.token, is_local=False)
        self._others = others or _addresses(place)
        self._connect_to_next()

    def _connect_to_next(self) -> None:
        """Begin to connect to the first address that does not fail immediately. Raises OSError."""
        while True:
            family, kind, protocol, _, address = self._others.pop(0)
            line = socket(family, kind, protocol)
            line.setblocking(False)
            code = line.connect_ex(address)
            if code in (0, errno.EINPROGRESS):
                self._line = line
                return
            line.close()
            if not self._others:
                raise OSError(code, os.strerror(code))

    def _advance(self) -> bool:
        """Connect, do the TLS handshake and send, without blocking; return whether all is sent. Raises OSError."""
        assert self._line is not None
        if not self._is_connected:
            if not select.select([], [self._line], [], 0)[1]:
                return False
            code = self._line.getsockopt(SOL_SOCKET, SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            self._is_connected = True
            if self._is_proven:
                self.deadline = self._until
            if self._line.family != AF_UNIX:
                self._line.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
                if self._conversation is not None and not self._conversation.recognizes_server:
                    from jobmon.agent import loopback  # rarely needed

                    loopback.require_ours(self._line)
        return (self._is_secured or self._secure()) and self._push()

    def _secure(self) -> bool:
        assert self._line is not None
        assert self._place is not None
        if not hasattr(self._line, "do_handshake"):
            line, self._line = self._line, None
            self._line = secured(line, self._place.address)
        self._is_secured = self._tried(self._line.do_handshake) is not None
        return self._is_secured

    def _tried(self, act: Callable[[], Any]) -> Any:
        """Return the result of a call, True if it returns nothing, or None if it must wait for the socket."""
        self._wants_to_write = False
        try:
            result = act()
        except BlockingIOError:
            self._wants_to_write = bool(self._unsent)
            return None
        except OSError as error:
            if type(error).__name__ not in ("SSLWantReadError", "SSLWantWriteError"):  # `ssl` may not be imported
                raise
            self._wants_to_write = type(error).__name__ == "SSLWantWriteError"
            return None
        return True if result is None else result

    def _push(self) -> bool:
        line = self._line
        assert line is not None
        while self._unsent:
            sent = self._tried(lambda: line.send(self._unsent))
            if sent is None:
                return False
            self._unsent = self._unsent[sent:]
        self._wants_to_write = False
        return True

    def _pull(self) -> Answer | None:
        """Receive available data; return the answer once it is complete. Raises OSError, ValueError."""
        line = self._line
        assert line is not None
        while (data := self._tried(lambda: line.recv(RECEIVE_BYTES))) is not None:
            self._has_received = self._has_received or bool(data)
            if (found := self._reader.feed(data)) is not None:
                return found
        return None

    def close(self) -> None:
        """Close the connection and discard a request in flight."""
        if self._line is not None:
            self._line.close()
        self._line, self.is_busy, self._unsent = None, False, b""


def _addresses(place: Place) -> list[tuple[Any, ...]]:
    host = place.address.host
    name = host.encode() if host.isascii() else host  # text would import the IDNA codec
    found = getaddrinfo(name, place.address.port, 0, SOCK_STREAM)
    return list(found[:ADDRESSES_MAX])


def _local(path: str) -> socket | None:
    line = socket(AF_UNIX, SOCK_STREAM)
    line.setblocking(False)
    try:
        trust.require_socket(path)
        line.connect(path)
        if peers.is_ours(line):
            return line
    except OSError:
        pass
    line.close()
    return None
