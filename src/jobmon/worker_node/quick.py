"""What a worker needs of `json` and `socket`, from their C parts alone.

Importing the whole of `json`, `socket` and `signal` costs more than all else that a worker does, and a cluster starts
thousands. The C parts (`_json`, `_socket`, `_signal`) are what those modules themselves rest on; a Python without such
a `_json` gets the whole module. A test compares both.
"""

from __future__ import annotations

from _socket import SOCK_STREAM, getaddrinfo, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Rules:
    """How the scanner reads what it finds."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - older scanners look for it


def _whole() -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    import json

    return json.loads, json.dumps


def _parts() -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    import _json

    scan = _json.make_scanner(_Rules)  # type: ignore[arg-type]  # any object with these attributes will do
    encode = _json.make_encoder(None, _refuse, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True)

    def loads(text: str) -> Any:
        stripped = text.strip(" \t\r\n")
        try:
            value, end = scan(stripped, 0)
        except StopIteration as error:
            raise ValueError(f"no JSON at character {error.value}") from None
        if end != len(stripped):
            raise ValueError(f"more than JSON from character {end} on")
        return value

    return loads, lambda value: "".join(encode(value, 0))


def _refuse(value: object) -> Any:
    raise TypeError(f"{value!r} cannot be JSON")


def _made() -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    try:
        loads, dumps = _parts()
        loads(dumps([{"": [None, True, 1, 0.5, "\n"]}]))
    except (ImportError, AttributeError, TypeError, ValueError):
        return _whole()
    return loads, dumps


#: As those of `json`; both work on text only.
loads, dumps = _made()


def connected(host: str, port: int, timeout: float) -> socket:
    """Return a socket that is connected; tries one address after the other.

    Raises:
        OSError: none of them answers.
    """
    failure: OSError | None = None
    name = host.encode() if host.isascii() else host  # as text it would have the codec of foreign names imported
    for family, kind, protocol, _, address in getaddrinfo(name, port, 0, SOCK_STREAM):
        line = socket(family, kind, protocol)
        line.settimeout(timeout)
        try:
            line.connect(address)
        except OSError as error:
            line.close()
            failure = error
        else:
            return line
    raise failure or OSError(f"{host} has no address")
