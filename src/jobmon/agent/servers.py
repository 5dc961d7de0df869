"""Where a program finds its server (`requests.py` connects to it).

`JOBMON_SERVICE_URL` gives the server's address, or those of a server and its standbys; without it, the access file in
the data folder does. That file is reread before every connection, because an embedded server may have been restarted. A
host that cannot read it uses the address at submission (`JOBMON_SERVER_ADDRESS`). `JOBMON_TOKEN` is the job's own
credential. A server's host may have several addresses. Some may be unreachable from here, and some may belong to
another host (such as that of a bridge). The first address at which the server proves its identity is used, unless it
answers that it is unavailable.
"""

from __future__ import annotations

import os

from jobmon.agent import addresses, fastjson, machine, trust
from jobmon.agent.addresses import ADDRESSES_MAX, Address, InvalidAddress
from jobmon.agent.http import HTTP_UNAVAILABLE

ACCESS_FILE = "server.json"
RECEIVE_BYTES = 262_144
#: How long each address but the last is tried at first; doubles, up to the maximum, each time that all fail.
PATIENCE_SECONDS_FIRST = 2.0
PATIENCE_SECONDS_MAX = 16.0
TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from _socket import socket
    from collections.abc import Mapping


class ServerAway(Exception):
    """The server did not answer."""


class InvalidServer(ServerAway):
    """The server's address cannot be used."""


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


def secured(line: socket, address: Address) -> ssl.SSLSocket:
    """Return a TLS connection that trusts the system's certificates (or `SSL_CERT_FILE`), before its handshake.

    Args:
        line: a connected socket, whose timeout is kept; the caller must not use it any more.
        address: address of the server; the certificate must match its host name.

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
            whole, server_hostname=address.host.partition("%")[0], do_handshake_on_connect=False
        )
    except (OSError, ValueError):
        whole.close()
        raise
