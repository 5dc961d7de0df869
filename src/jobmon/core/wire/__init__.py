"""Every message between the parts, by conversation; frozen dataclasses, JSON on the wire (`encode`, `decode`).

All routes lie under `/api/v1`; each message class says in its docstring with which route it travels. Messages about
many things are columnar: one list per field, equal lengths, same order. Times are aware UTC datetimes. An error
answer has the status of its kind and a `Problem` as body.

Imports nothing of Jobmon but `core`. Start with `launching.py`: the hot conversation.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

API_ROOT = "/api/v1"

_Message = TypeVar("_Message")
_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def encode(message: object) -> bytes:
    """Encode a message (a dataclass, or plain lists and dicts of them) as JSON."""
    return _encoder.encode(message)


def decode(kind: type[_Message], content: bytes) -> _Message:
    """Decode JSON into a message; unknown fields are ignored, so newer parts may say more.

    Raises:
        ValueError: the content is not such a message; the text names the field.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder.decode(content)  # type: ignore[no-any-return]
