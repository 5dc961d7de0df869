"""One connection to the server that never blocks: at most one request is under way, its answer is fetched when there.

For a worker that has other things to do meanwhile. `gateway.py` says where the server is.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import time

from jobmon.worker_node.gateway import ANSWER_BYTES_MAX, API_ROOT, ServerAway, find_server

RECEIVE_BYTES = 262_144
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jobmon.worker_node.gateway import Place


class Lane:
    """Sends a request, then gives its answer.

    Args:
        environment: where the server is found.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._line: socket.socket | None = None
        self._place: Place | None = None
        self._is_connected = False
        self._was_kept = False
        self._unsent = b""
        self._request = b""
        self._received = b""
        self.deadline = 0.0
        self.is_busy = False

    def send(self, route: str, message: Mapping[str, Any], timeout: float) -> None:
        """Begin a request; its answer is expected within `timeout` seconds.

        Raises:
            ServerAway: it is not known where the server is, or nothing listens there.
        """
        body = json.dumps(message).encode()
        self.deadline = time.monotonic() + timeout
        self._was_kept = self._line is not None
        self._connect()
        place = self._place
        assert place is not None
        token = f"Authorization: Bearer {place.token}\r\n" if place.token else ""
        head = (
            f"POST {API_ROOT}{route} HTTP/1.1\r\nHost: {place.host}\r\n{token}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = self._unsent = head.encode() + body
        self._received = b""
        self.is_busy = True
        try:
            self._push()
        except OSError as error:
            self._broken(error)

    def watched(self) -> tuple[int, int] | None:
        """Return descriptor and events (as for `poll`) that this waits for, or None."""
        if self._line is None or not self.is_busy:
            return None
        events = select.POLLIN if self._is_connected and not self._unsent else select.POLLIN | select.POLLOUT
        return self._line.fileno(), events

    def answer(self) -> tuple[int, dict[str, Any]] | None:
        """Return status and content of the answer once it is there.

        Raises:
            ServerAway: there will be none.
        """
        if not self.is_busy:
            return None
        try:
            self._push()
            found = None if self._unsent else self._pull()
        except (OSError, ValueError) as error:
            self._broken(error)
            return None
        if found is None and time.monotonic() >= self.deadline:
            self.close()
            raise ServerAway("no answer in time")
        if found is not None:
            self.is_busy = False
        return found

    def _broken(self, error: Exception) -> None:
        """A connection that was kept may have been closed meanwhile: once more, on a new one."""
        was_kept = self._was_kept and not self._received
        request, deadline = self._request, self.deadline
        self.close()
        if not was_kept:
            raise ServerAway(str(error))
        self._was_kept = False
        self._connect()
        self._request = self._unsent = request
        self._received, self.deadline, self.is_busy = b"", deadline, True

    def _connect(self) -> None:
        if self._line is not None:
            return
        self._place = place = find_server(self._environment)
        self._is_connected = False
        try:
            if place.path and (line := _local(place.path)) is not None:
                self._line, self._is_connected = line, True
                return
            family, kind, protocol, _, address = socket.getaddrinfo(place.host, place.port, 0, socket.SOCK_STREAM)[0]
            self._line = socket.socket(family, kind, protocol)
            self._line.setblocking(False)
            code = self._line.connect_ex(address)
        except OSError as error:
            self.close()
            raise ServerAway(str(error)) from None
        if code not in (0, errno.EINPROGRESS):
            self.close()
            raise ServerAway(f"{place.host}:{place.port}: {errno.errorcode.get(code, code)}")

    def _push(self) -> None:
        """Send what can be sent now; raises OSError."""
        assert self._line is not None
        if not self._is_connected:
            if not select.select([], [self._line], [], 0)[1]:
                return
            code = self._line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, errno.errorcode.get(code, str(code)))
            self._is_connected = True
            if self._line.family != socket.AF_UNIX:
                self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while self._unsent:
                self._unsent = self._unsent[self._line.send(self._unsent) :]
        except BlockingIOError:
            return

    def _pull(self) -> tuple[int, dict[str, Any]] | None:
        """Receive what is there; return the answer when it is complete. Raises OSError, ValueError."""
        assert self._line is not None
        try:
            data = self._line.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._received += data
        if len(self._received) > ANSWER_BYTES_MAX:
            raise ValueError("the answer is too long")
        return complete_answer(self._received)

    def close(self) -> None:
        """Hang up; a request under way is forgotten."""
        if self._line is not None:
            self._line.close()
        self._line, self.is_busy, self._unsent = None, False, b""


def _local(path: str) -> socket.socket | None:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.setblocking(False)
    try:
        line.connect(path)
    except OSError:
        line.close()
        return None
    return line


def complete_answer(received: bytes) -> tuple[int, dict[str, Any]] | None:
    """Return status and content of an answer with a Content-Length, or None while some of it is missing.

    Raises:
        ValueError: it is no such answer.
    """
    head, separator, content = received.partition(b"\r\n\r\n")
    if not separator:
        return None
    words = head.split(b"\r\n")
    length = 0
    for word in words[1:]:
        name, _, value = word.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    if len(content) < length:
        return None
    status = int(words[0].split(b" ")[1])
    return status, json.loads(content) if content else {}
