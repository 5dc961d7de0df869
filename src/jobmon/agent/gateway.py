"""The worker's connection to the server: a few HTTP/1.1 requests over a blocking socket (`requests.py` never blocks).

`JOBMON_SERVICE_URL` gives the server's address, or those of a server and its standbys; without it, the access file in
the data folder does. That file is reread before every connection, because an embedded server may have been restarted. A
host that cannot read it uses the address at submission (`JOBMON_SERVER_ADDRESS`). `JOBMON_TOKEN` is the job's own
credential. A server's host may have several addresses. Some may be unreachable from here, and some may belong to
another host (such as that of a bridge). The first address at which the server proves its identity is used, unless it
answers that it is unavailable.
"""

from __future__ import annotations

import os
import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from jobmon.agent import addresses, fastjson, machine, peers, trust
from jobmon.agent.addresses import ADDRESSES_MAX, Address, InvalidAddress
from jobmon.agent.http import HTTP_UNAUTHORIZED, HTTP_UNAVAILABLE, Answer, Conversation, Reader

ACCESS_FILE = "server.json"
RECEIVE_BYTES = 262_144
#: How long each address but the last is tried at first; doubles, up to the maximum, each time that all fail.
PATIENCE_SECONDS_FIRST = 2.0
PATIENCE_SECONDS_MAX = 16.0
#: Minimum timeout of a socket: 0 would make the socket non-blocking.
MOMENT_SECONDS = 0.01
#: The `Problem` that a server with another token would send; used for one that cannot prove that it knows our token.
OTHER_TOKEN = {"kind": "Unauthorized", "message": "the server there has a different token"}
TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from typing import Any


class ServerAway(Exception):
    """The server did not answer."""


class Place:
    """One location of the server: its address, its Unix socket and the token to use."""

    def __init__(self, address: Address, path: str, token: str) -> None:
        self.address = address
        self.path = path
        self.token = token


def data_folder(environment: Mapping[str, str]) -> str:
    """Return the data folder, determined by the same rule as in `jobmon.core.configuration`."""
    if folder := environment.get("JOBMON_DATA_DIR"):
        return os.path.abspath(os.path.expanduser(folder))
    base = environment.get("XDG_DATA_HOME")
    return os.path.join(base, "jobmon") if base else os.path.expanduser("~/.local/share/jobmon")


def own_server_folder(environment: Mapping[str, str]) -> str:
    """Return the data folder whose embedded server is used; "": another server is used."""
    return "" if environment.get("JOBMON_SERVICE_URL") else data_folder(environment)


def find_servers(environment: Mapping[str, str]) -> list[Place]:
    """Return the locations at which the server may be reached now, the most likely first.

    Raises:
        ServerAway: no address is known and the access file is unreadable, or its server is not open to other hosts.
        InvalidAddress: the address in the environment cannot be used.
    """
    token = environment.get("JOBMON_TOKEN", "")
    if urls := addresses.split(environment.get("JOBMON_SERVICE_URL", "")):
        return [_place(url, "", token) for url in urls]
    try:
        content = trust.read_file(os.path.join(data_folder(environment), ACCESS_FILE), is_secret=True)
        access = fastjson.loads(content.decode())
        is_here = access["boot_id"] == machine.boot_id() != ""
        if is_here:
            return [_place(access["address"], access["socket"], token or access["token"])]
        urls = access.get("addresses") or [access["address"]]
        places = [_place(url, "", token or access["token"]) for url in urls[:ADDRESSES_MAX]]
        if addresses.is_loopback(places[0].address.host):
            where = f"{places[0].address.url} on host {access['host']}"
            raise ServerAway(f"the server at {where} does not accept connections from other hosts")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if urls := environment.get("JOBMON_SERVER_ADDRESS", "").split():
            return [_place(url, "", token) for url in urls[:ADDRESSES_MAX]]
        raise ServerAway(f"no server is known here: {error}") from None
    return places


class Choice:
    """The order in which addresses of the server are tried, and for how long each is tried."""

    def __init__(self) -> None:
        self._best = ""
        self._worst = ""
        self._patience = PATIENCE_SECONDS_FIRST

    def ordered(self, places: list[Place]) -> list[Place]:
        """Return the locations with the one that was reached last in front, and one that was unavailable at the end."""
        return sorted(places, key=lambda place: (place.address.url == self._worst, place.address.url != self._best))

    def reached(self, place: Place) -> None:
        """Record that the server proved its identity at a location."""
        self._best, self._patience = place.address.url, PATIENCE_SECONDS_FIRST

    def answered(self, place: Place | None, status: int) -> bool:
        """Record the status of an answer; return False if other locations, such as a standby, should be tried first."""
        is_available = status != HTTP_UNAVAILABLE
        self._worst = "" if is_available or place is None else place.address.url
        return is_available

    def deadline(self, now: float, until: float, *, is_last: bool) -> float:
        """Return until when to try one location.

        Args:
            now: monotonic time, seconds.
            until: the deadline for all locations, monotonic seconds.
            is_last: whether no other location is left to try.
        """
        return until if is_last else min(until, now + self._patience)

    def failed(self) -> None:
        """Record that no location was reached."""
        self._patience = min(2 * self._patience, PATIENCE_SECONDS_MAX)


def _place(url: str, path: str, token: str) -> Place:
    if not all(32 < ord(one) < 127 for one in token):
        raise InvalidAddress("JOBMON_TOKEN contains spaces or characters outside ASCII. Correct http.token.")
    return Place(addresses.parse(url), path, token)


class Gateway:
    """Send requests over one connection, which is reopened after a failure."""

    #: The addresses that were tried last, and the last error.
    where = "no address"
    failure = ""
    #: The delay requested by the last answer (Retry-After), seconds.
    retry_after = 0.0

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._choice = Choice()
        self._place: Place | None = None
        self._line: socket | None = None
        self._conversation: Conversation | None = None

    def post(self, route: str, message: Mapping[str, Any], timeout: float) -> tuple[int, Any]:
        """Send one message; return status and decoded content of the answer (None: not valid JSON).

        If the token is rejected before the message is sent, the answer is status 401.

        Raises:
            ServerAway: no answer within `timeout` seconds.
            InvalidAddress: the server's address cannot be used.
        """
        was_kept = self._line is not None
        try:
            return self._post(route, message, timeout)
        except InvalidAddress:
            raise
        except (OSError, ValueError) as error:
            self._note_failure(error)
            if not was_kept:
                raise ServerAway(self.failure) from None
        try:  # the server may have closed a reused connection meanwhile
            return self._post(route, message, timeout)
        except InvalidAddress:
            raise
        except (OSError, ValueError) as error:
            self._note_failure(error)
            raise ServerAway(self.failure) from None

    def _note_failure(self, error: Exception) -> None:
        self.close()
        self.failure = str(error) or type(error).__name__

    def _post(self, route: str, message: Mapping[str, Any], timeout: float) -> tuple[int, Any]:
        deadline = time.monotonic() + timeout
        if self._line is None and (refusal := self._open(deadline)) is not None:
            return refusal
        line, conversation = self._line, self._conversation
        assert line is not None
        assert conversation is not None
        line.settimeout(max(MOMENT_SECONDS, deadline - time.monotonic()))
        line.sendall(conversation.request(route, fastjson.dumps(message).encode()))
        answer = _read_answer(line, deadline)
        conversation.check(answer)
        self.retry_after = answer.retry_after
        if not self._choice.answered(self._place, answer.status) or not answer.keeps_open:
            self.close()
        return answer.status, answer.content

    def _open(self, deadline: float) -> tuple[int, Any] | None:
        """Connect to the first address at which the server proves itself; if all reject us, return the rejection."""
        try:
            places = self._choice.ordered(find_servers(self._environment))
        except ServerAway as error:
            self.failure = str(error)
            raise
        self.where = ", ".join(place.address.url for place in places)
        refusal: tuple[int, Any] | None = None
        failure: Exception | None = None
        for place in places:
            until = self._choice.deadline(time.monotonic(), deadline, is_last=place is places[-1])
            try:
                refusal = self._open_at(place, until)
            except (OSError, ValueError) as error:
                failure = error
            else:
                if refusal is None:
                    self._place = place
                    self._choice.reached(place)
                    return None
            self.close()
        self._choice.failed()
        if failure is not None:
            raise failure
        return refusal

    def _open_at(self, place: Place, deadline: float) -> tuple[int, Any] | None:
        """Connect to one address and check the server's proof; return its rejection, or None."""
        timeout = max(MOMENT_SECONDS, deadline - time.monotonic())
        line = self._line = _connect(place, timeout)
        line.settimeout(timeout)
        conversation = Conversation(place.address, place.token, is_local=line.family == AF_UNIX)
        self._conversation = conversation
        if conversation.is_open:
            return None
        line.sendall(conversation.opening())
        opened = _read_answer(line, deadline)
        if conversation.accept(opened):
            return None
        return HTTP_UNAUTHORIZED, opened.content if opened.status == HTTP_UNAUTHORIZED else OTHER_TOKEN

    def close(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._line.close()
        self._line = None


def _connect(place: Place, timeout: float) -> socket:
    if place.path:
        line = socket(AF_UNIX, SOCK_STREAM)
        line.settimeout(timeout)
        try:
            trust.require_socket(place.path)
            line.connect(place.path)
            if peers.is_ours(line):
                return line
        except OSError:
            pass
        line.close()
    line = fastjson.connected(place.address.host, place.address.port, timeout)
    return secured(line, place.address) if place.address.is_secure else line


def secured(line: socket, address: Address, *, at_once: bool = True) -> ssl.SSLSocket:
    """Return a TLS connection that trusts the system's certificates (or `SSL_CERT_FILE`).

    Args:
        line: a connected socket, whose timeout is kept; the caller must not use it any more.
        address: address of the server; the certificate must match its host name.
        at_once: whether to do the TLS handshake now; otherwise the caller does it.

    Raises:
        OSError: the TLS connection cannot be set up, e.g. because the certificate is not trusted.
    """
    import socket as sockets
    import ssl

    timeout = line.gettimeout()
    whole = sockets.socket(fileno=line.detach())
    whole.settimeout(timeout)
    try:
        return ssl.create_default_context().wrap_socket(
            whole, server_hostname=address.host.partition("%")[0], do_handshake_on_connect=at_once
        )
    except (OSError, ValueError):
        whole.close()
        raise


def _read_answer(line: socket, deadline: float) -> Answer:
    reader = Reader()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no response in time")
        line.settimeout(left)
        if (answer := reader.feed(line.recv(RECEIVE_BYTES))) is not None:
            return answer
