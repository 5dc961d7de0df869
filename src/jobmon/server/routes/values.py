"""Reject values that no database can store, before anything else processes them.

Lengths and ranges of fields are defined in `core.wire.fields`; this module checks what types cannot express: text that
PostgreSQL rejects, IDs and numbers of more than 64 bits in paths and queries, and free-form JSON that is too deep or
too large.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from starlette.convertors import Convertor, register_url_convertor

from jobmon.core.texts import NAME_CHARACTERS_MAX
from jobmon.core.wire import Message
from jobmon.core.wire.fields import INT64_MAX, check_free_form
from jobmon.server.problems import InvalidValue

#: A longer number in a path is not parsed; it is too large in any case.
_DIGITS_MAX: Final = 40
#: Maximum number of fields in a query, including repeated ones.
QUERY_FIELDS_MAX: Final = 1_000
#: Maximum length of an unknown field's name in a message.
SHOWN_CHARACTERS_MAX: Final = 64
_NUL: Final = "\0"
_NUL_ESCAPE: Final = b"\\u0000"
_BACKSLASH: Final = ord("\\")


class _IdConvertor(Convertor[int]):
    """A number in a path, of any length; `check_path` rejects those beyond 64 bits."""

    regex = "[0-9]+"

    def convert(self, value: str) -> int:
        return int(value) if len(value) <= _DIGITS_MAX else 10**_DIGITS_MAX

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", _IdConvertor())


def check_path(values: Iterable[Any]) -> None:
    """Reject IDs and names in a path that no row can have.

    Raises:
        InvalidValue: an ID has more than 64 bits, or a name is too long or contains a NUL character.
    """
    for value in values:
        if isinstance(value, int):
            if value > INT64_MAX:
                raise InvalidValue(f"The ID in the path is larger than {INT64_MAX}.")
        elif _NUL in value:
            raise InvalidValue("The name in the path contains a NUL character.")
        elif len(value) > NAME_CHARACTERS_MAX:
            raise InvalidValue(f"The name in the path has {len(value)} characters; at most {NAME_CHARACTERS_MAX}.")


def require_known(known: Iterable[str], given: Iterable[str]) -> None:
    """Reject a query with fields that its route does not have: a misspelled filter would select everything.

    Raises:
        InvalidValue: it has one; the message names it and the fields of the route.
    """
    names = list(known)
    for name in given:
        if name not in names:
            shown = "".join(one if one.isprintable() else "?" for one in name[:SHOWN_CHARACTERS_MAX])
            offered = f"fields: {', '.join(names)}" if names else "it has none"
            raise InvalidValue(f"The query of this route has no field {shown!r} ({offered}).")


def check_query(message: Any, given: Iterable[str]) -> None:
    """Reject values of a query that no row can have.

    Raises:
        InvalidValue: a text contains a NUL character, a number is not finite or has more than 64 bits, or a time has no
            UTC offset.
    """
    for name in given:
        value = getattr(message, name, None)
        for one in value if isinstance(value, list) else (value,):
            if problem := _problem(one):
                raise InvalidValue(f"{name}: {problem}.")


def _problem(value: Any) -> str:
    if isinstance(value, str):
        return "contains a NUL character" if _NUL in value else ""
    if isinstance(value, int):
        return "" if -INT64_MAX <= value <= INT64_MAX else f"is larger than {INT64_MAX}"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "is not a finite number"
    if isinstance(value, datetime) and value.tzinfo is None:
        return "has no UTC offset; write for example 2026-01-31T12:00:00Z"
    return ""


def check_text(content: bytes) -> None:
    """Reject JSON with a NUL character in any string: PostgreSQL cannot store it, and many tools truncate text there.

    Raises:
        InvalidValue: a string contains one.
    """
    if b"\\" not in content:  # searching for one byte is 40 times as fast as for six
        return
    at = content.find(_NUL_ESCAPE)
    while at >= 0:
        before = at
        while before > 0 and content[before - 1] == _BACKSLASH:
            before -= 1
        if (at - before) % 2 == 0:  # otherwise the backslash is itself escaped, and this is literal text
            raise InvalidValue(f"A string contains a NUL character (\\u0000, at byte {at} of the body).")
        at = content.find(_NUL_ESCAPE, at + 1)


def check_message(message: Any) -> None:
    """Reject free-form JSON in a message that is too deep or too large.

    Raises:
        InvalidValue: it is; the message names the field and the limit.
    """
    for name, find in _free_form(type(message)):
        try:
            for value in find(message):
                check_free_form(name, value)
        except ValueError as error:
            raise InvalidValue(str(error)) from None


def has_free_form(kind: type) -> bool:
    """Return whether messages of a type contain free-form JSON anywhere."""
    return bool(_free_form(kind))


_Finder = Callable[[Any], Iterable[Any]]


_known: Final[dict[Any, tuple[tuple[str, _Finder], ...]]] = {}


def _free_form(kind: Any) -> tuple[tuple[str, _Finder], ...]:
    """Return the fields of a message with free-form JSON, each with a function that finds its values."""
    if kind not in _known:
        _known[kind] = tuple(
            (inner, functools.partial(_within, name, find))
            for name, hint in typing.get_type_hints(kind).items()
            for inner, find in _finders(name, hint)
        )
    return _known[kind]


def _within(name: str, find: _Finder, message: Any) -> Iterable[Any]:
    return find(getattr(message, name))


def _itself(value: Any) -> Iterable[Any]:
    return (value,)


def _of_each(find: _Finder, values: Iterable[Any]) -> Iterable[Any]:
    return (one for value in values for one in find(value))


def _of_given(find: _Finder, value: Any) -> Iterable[Any]:
    return () if value is None else find(value)


def _finders(name: str, hint: Any) -> list[tuple[str, _Finder]]:
    """Return functions that find free-form JSON in values of a type."""
    arguments = typing.get_args(hint)
    if hint is Any or (typing.get_origin(hint) is dict and arguments[1] is Any):
        return [(name, _itself)]
    if typing.get_origin(hint) is list:
        return [(inner, functools.partial(_of_each, find)) for inner, find in _finders(name, arguments[0])]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return [
            (inner, functools.partial(_of_given, find))
            for argument in arguments
            for inner, find in _finders(name, argument)
        ]
    if isinstance(hint, type) and issubclass(hint, Message):
        return list(_free_form(hint))
    return []
