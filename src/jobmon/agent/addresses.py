"""Server addresses: one parser for the client, the distributor and workers.

Imports nothing because workers load it (`python -I -S`).
"""

from __future__ import annotations

PORTS = {"http": 80, "https": 443}
PORT_MAX = 65_535
#: Maximum number of addresses of one server and its standbys.
ADDRESSES_MAX = 8
_EXAMPLES = "such as http://host:8070 or https://host/jobmon"
_HEX = frozenset("0123456789abcdefABCDEF:.")
_NOT_IN_HOSTS = frozenset("/\\?#@[]<>^`{|}%\"',;&=+$!*()~:")


class InvalidAddress(ValueError):
    """An address cannot be used; the message names the address, the reason and the remedy."""


class Address:
    """The address at which a server listens.

    Args:
        scheme: "http" or "https".
        host: name or IP address, without brackets.
        port: TCP port.
        path: the prefix of every route, such as "/jobmon"; "" if no proxy adds one.
    """

    __slots__ = ("host", "path", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int, path: str = "") -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path

    @property
    def is_secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme == "https"

    @property
    def netloc(self) -> str:
        """Host and, unless it is the scheme's default, port, in the format of the Host header."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def split(text: str) -> list[str]:
    """Return the addresses in a text in which spaces or commas separate them.

    Raises:
        InvalidAddress: there are too many.
    """
    found = [one if one.endswith("//") else one.rstrip("/") for one in text.replace(",", " ").split()]
    if len(found) > ADDRESSES_MAX:
        raise InvalidAddress(f"{len(found)} server addresses are too many. Give at most {ADDRESSES_MAX}.")
    return found


def parse(url: str) -> Address:
    """Parse a server address.

    Args:
        url: an address such as "https://host", "http://[::1]:8070" or "http://host/jobmon".

    Raises:
        InvalidAddress: `url` is not a valid http or https address.
    """
    text = url.strip()
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in PORTS:
        raise _invalid(url, "it must begin with http:// or https://", f"Write an address {_EXAMPLES}.")
    if any(ord(one) <= 32 or ord(one) == 127 for one in text):
        raise _invalid(url, "it contains spaces or control characters", "Remove them.")
    if "?" in rest or "#" in rest:
        raise _invalid(url, "it has a query or fragment", "Remove '?' and '#' and what follows.")
    netloc, slash, path = rest.partition("/")
    if "@" in netloc:
        raise InvalidAddress(
            "The server address contains a user name or password. Remove it; set http.token if the server needs one."
        )
    host, port = _split(url, netloc, PORTS[scheme])
    return Address(scheme, host, port, _path(url, slash + path))


def is_loopback(host: str) -> bool:
    """Return whether the host of an address always denotes the local host."""
    return host == "localhost" or host.startswith("127.") or host in ("::1", "[::1]")


def _split(url: str, netloc: str, default_port: int) -> tuple[str, int]:
    if netloc.startswith("["):
        host, bracket, after = netloc[1:].partition("]")
        address, _, zone = host.partition("%")
        if not bracket or ":" not in address or not _HEX.issuperset(address) or "]" in zone:
            raise _invalid(url, "the IPv6 address is incomplete", "Write it in brackets, such as http://[::1]:8070.")
        if after and not after.startswith(":"):
            raise _invalid(url, "something follows the brackets", "Write only a port there, such as http://[::1]:8070.")
        colon, text = after[:1], after[1:]
    else:
        if netloc.count(":") > 1:
            raise _invalid(url, "an IPv6 address needs brackets", "Write it such as http://[::1]:8070.")
        host, colon, text = netloc.partition(":")
        host = _checked(url, host)
    return host, _port(url, text) if colon and text else default_port


def _checked(url: str, host: str) -> str:
    if not host:
        raise _invalid(url, "it names no host", f"Write an address {_EXAMPLES}.")
    if not _NOT_IN_HOSTS.isdisjoint(host):
        raise _invalid(url, f"{host!r} is not a host name", f"Write an address {_EXAMPLES}.")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise _invalid(url, f"{host!r} is not a host name", f"Write an address {_EXAMPLES}.") from None


def _port(url: str, text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 0 < port <= PORT_MAX:
        raise _invalid(url, f"{text!r} is not a port", f"Write a number from 1 to {PORT_MAX}.")
    return port


def _path(url: str, path: str) -> str:
    if not path.isascii():
        raise _invalid(url, "its path has characters outside ASCII", "Percent-encode them.")
    return path.rstrip("/")


def _invalid(url: str, why: str, remedy: str) -> InvalidAddress:
    return InvalidAddress(f"The server address {url!r} cannot be used: {why}. {remedy}")
