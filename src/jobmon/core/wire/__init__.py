"""All messages between components, one module per conversation: frozen structs, sent as JSON (`encode`, `decode`).

All routes are below `/api/v1`; the docstring of each message class names its route. Messages about many items are
columnar: one list per field, all of equal length and in the same order. Times are aware UTC datetimes. An error
response has the HTTP status of its kind and a `Problem` as body.

Imports nothing of Jobmon except `core`. Start with `launching.py`, the most frequent conversation.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

API_ROOT = "/api/v1"

_Message = TypeVar("_Message")
_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


class _DataclassFields:
    """The fields of a message as `dataclasses` describes them, computed when they are asked for."""

    def __init__(self) -> None:
        self._found: dict[type, Any] = {}

    def __get__(self, instance: object, message: type[msgspec.Struct]) -> Any:
        if message not in self._found:
            from dataclasses import make_dataclass

            names = [(name, Any) for name in message.__struct_fields__]
            self._found[message] = vars(make_dataclass(message.__name__, names))["__dataclass_fields__"]
        return self._found[message]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all messages. Struct classes are created 30 times as fast as dataclasses, and there are some 200.

    Messages were dataclasses: `dataclasses.replace` and `dataclasses.fields` still accept them.
    """

    __dataclass_fields__ = _DataclassFields()  # not annotated, so that it is not a field


def replace(message: _Struct, **changes: Any) -> _Struct:
    """Return a copy of a message with some fields changed."""
    return msgspec.structs.replace(message, **changes)


def encode(message: object) -> bytes:
    """Encode a message (a dataclass, or plain lists and dicts of them) as JSON."""
    return _encoder.encode(message)


def decode(kind: type[_Message], content: bytes) -> _Message:
    """Decode JSON into a message. Unknown fields are ignored, so that newer components may send more.

    Raises:
        ValueError: the content is not a valid message of this kind; the text names the field.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder.decode(content)  # type: ignore[no-any-return]
