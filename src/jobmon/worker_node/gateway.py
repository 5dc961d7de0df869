"""The worker's door to the server: a few HTTP/1.1 requests, written to a socket by hand (`http.client` imports a lot).

The server is where `JOBMON_SERVICE_URL` says (token: `JOBMON_TOKEN`), else where the access file in the data folder
says. That file is read anew before every connection, because an embedded server may have been started again. On a host
that cannot read it, the server is where it was when the job was submitted (`JOBMON_SERVER_ADDRESS`, `JOBMON_TOKEN`).
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM, gethostname, socket

from jobmon.worker_node import quick

ACCESS_FILE = "server.json"
API_ROOT = "/api/v1"
ANSWER_BYTES_MAX = 64 * 1024 * 1024
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class ServerAway(Exception):
    """No answer."""


class Place:
    """Where the server is."""

    def __init__(self, host: str, port: int, path: str, token: str) -> None:
        self.host = host
        self.port = port
        self.path = path
        self.token = token


def data_folder(environment: Mapping[str, str]) -> str:
    """Return the data folder by the same rule as `jobmon.core.configuration`."""
    if folder := environment.get("JOBMON_DATA_DIR"):
        return os.path.abspath(os.path.expanduser(folder))
    base = environment.get("XDG_DATA_HOME")
    return os.path.join(base, "jobmon") if base else os.path.expanduser("~/.local/share/jobmon")


def find_server(environment: Mapping[str, str]) -> Place:
    """Return where the server is now.

    Raises:
        ServerAway: there is neither an address nor a readable access file.
    """
    if url := environment.get("JOBMON_SERVICE_URL"):
        return _place(url, "", environment.get("JOBMON_TOKEN", ""))
    try:
        with open(os.path.join(data_folder(environment), ACCESS_FILE), encoding="utf-8") as file:
            access = quick.loads(file.read())
        is_here = access["host"] == gethostname()
        return _place(access["address"], access["socket"] if is_here else "", access["token"])
    except (OSError, ValueError, KeyError) as error:
        if url := environment.get("JOBMON_SERVER_ADDRESS"):
            return _place(url, "", environment.get("JOBMON_TOKEN", ""))
        raise ServerAway(f"no server is known here: {error}") from None


def _place(url: str, path: str, token: str) -> Place:
    address = url.removeprefix("http://").split("/", 1)[0]
    host, _, port = address.rpartition(":")
    return Place(host.strip("[]") or address, int(port) if host else 80, path, token)


class Gateway:
    """Sends requests over one connection, which is opened again when it broke."""

    #: The last address that was tried, and what went wrong there.
    where = "no address"
    failure = ""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._line: socket | None = None
        self._place: Place | None = None

    def post(self, route: str, message: Mapping[str, Any], timeout: float) -> tuple[int, dict[str, Any]]:
        """Send one message; return status and content of the answer.

        Raises:
            ServerAway: no answer within `timeout` seconds.
        """
        was_kept = self._line is not None
        try:
            return self._post(route, message, timeout)
        except (OSError, ValueError) as error:
            self.close()
            self.failure = str(error)
            if not was_kept:
                raise ServerAway(str(error)) from None
        try:  # a connection that was kept may have been closed meanwhile
            return self._post(route, message, timeout)
        except (OSError, ValueError) as error:
            self.close()
            self.failure = str(error)
            raise ServerAway(str(error)) from None

    def _post(self, route: str, message: Mapping[str, Any], timeout: float) -> tuple[int, dict[str, Any]]:
        line, place = self._connected(timeout)
        body = quick.dumps(message).encode()
        token = f"Authorization: Bearer {place.token}\r\n" if place.token else ""
        head = (
            f"POST {API_ROOT}{route} HTTP/1.1\r\nHost: {place.host}\r\n{token}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        line.sendall(head.encode() + body)
        status, content = _read_answer(line)
        return status, quick.loads(content.decode()) if content else {}

    def _connected(self, timeout: float) -> tuple[socket, Place]:
        if self._line is None or self._place is None:
            try:
                self._place = find_server(self._environment)
            except ServerAway as error:
                self.failure = str(error)
                raise
            self.where = f"http://{self._place.host}:{self._place.port}"
            self._line = _connect(self._place, timeout)
        self._line.settimeout(timeout)
        return self._line, self._place

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.close()
        self._line = None


def _connect(place: Place, timeout: float) -> socket:
    if place.path:
        line = socket(AF_UNIX, SOCK_STREAM)
        line.settimeout(timeout)
        try:
            line.connect(place.path)
        except OSError:
            line.close()
        else:
            return line
    return quick.connected(place.host, place.port, timeout)


def _read_answer(line: socket) -> tuple[int, bytes]:
    """Read one answer with a Content-Length; the server's answers to workers have one, and others have no content."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(line, received)
    head, _, content = received.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")
    length = 0
    for word in words[1:]:
        name, _, value = word.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    while len(content) < length:
        content += _more(line, content)
    return int(words[0].split(b" ")[1]), content[:length]


def _more(line: socket, received: bytes) -> bytes:
    data = line.recv(65536)
    if not data:
        raise ConnectionResetError("the server closed the connection")
    if len(received) > ANSWER_BYTES_MAX:
        raise ValueError("the answer is too long")
    return data
