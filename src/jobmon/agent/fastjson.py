"""The parts of `json` that a worker needs, taken from its C module alone.

Importing `json`, `socket` and `signal` in full costs more than everything else that a worker does, and a cluster starts
thousands of workers. Those modules are themselves built on the C modules `_json`, `_socket` and `_signal`. A Python
without a suitable `_json` uses the full module. A test compares both.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Rules:
    """Options of the JSON scanner."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - older scanners require it


def _whole() -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    import json

    return json.loads, json.dumps


def _parts() -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    import _json

    scan = _json.make_scanner(_Rules)  # type: ignore[arg-type]  # any object with these attributes works
    encode = _json.make_encoder(None, _refuse, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True)

    def loads(text: str) -> Any:
        stripped = text.strip(" \t\r\n")
        try:
            value, end = scan(stripped, 0)
        except StopIteration as error:
            raise ValueError(f"invalid JSON at character {error.value}") from None
        if end != len(stripped):
            raise ValueError(f"text after the JSON value, at character {end}")
        return value

    return loads, lambda value: "".join(encode(value, 0))


def _refuse(value: object) -> Any:
    raise TypeError(f"{value!r} cannot be encoded as JSON")


def _made() -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    try:
        loads, dumps = _parts()
        loads(dumps([{"": [None, True, 1, 0.5, "\n"]}]))
    except (ImportError, AttributeError, TypeError, ValueError):
        return _whole()
    return loads, dumps


#: The same as in `json`, but for text only.
loads, dumps = _made()
