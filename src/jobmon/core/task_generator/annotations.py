"""Map an annotation to the codec of its values. Pure functions.

Modules whose classes may be annotated (`datetime`, `pathlib`, `enum`, `dataclasses`) are not imported here: code that
uses one in an annotation has imported it already.
"""

from __future__ import annotations

import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Final, Literal, Union

from jobmon.core.task_generator import codecs

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

    from jobmon.core.task_generator.codecs import Codec

_PLAIN: Final = (str, int, float, bool, type(None))
_COLLECTIONS: Final = {list: "list[int]", tuple: "tuple[int, ...]", set: "set[int]", frozenset: "frozenset[int]"}
_BARE: Final = {**_COLLECTIONS, dict: "dict[str, int]"}


class Unsupported(ValueError):
    """Values of this type cannot be written; the message says why and what to do."""


def checked_serializers(serializers: object) -> dict[Any, Any]:
    """Return a copy of {type: (to_string, from_string)}.

    Raises:
        ValueError: the argument has a different form; the message says where.
    """
    if serializers is None:
        return {}
    if not hasattr(serializers, "items"):
        raise ValueError(f"serializers must be a dict {{type: (to_string, from_string)}}, not {serializers!r}.")
    checked = dict(serializers.items())
    for key, pair in checked.items():
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if not is_pair or not all(map(callable, pair)):
            raise ValueError(
                f"The serializer of {_name(key)} must be a pair (to_string, from_string) of functions, not {pair!r}."
            )
        if isinstance(key, str) or not (isinstance(key, type) or typing.get_origin(key) is not None):
            raise ValueError(f"serializers must be a dict by type; {key!r} is not a type.")
    return checked


class CodecFactory:
    """Creates codecs. A function's own serializers take precedence over all others."""

    def __init__(self, serializers: Mapping[Any, Any]) -> None:
        self._serializers = serializers
        self._records: dict[type, codecs.Record] = {}

    def of(self, annotation: Any) -> Codec:
        """Return the codec of an annotation.

        Raises:
            Unsupported: there is no codec for it.
        """
        own = self._own(annotation)
        if own is not None:
            return own
        inner = _unwrapped(annotation)
        if inner is not annotation:
            return self.of(inner)
        origin = typing.get_origin(annotation)
        if origin is not None:
            return self._of_generic(annotation, origin, typing.get_args(annotation))
        return self._of_class(type(None) if annotation is None else annotation)

    def _own(self, annotation: Any) -> Codec | None:
        try:
            pair = self._serializers.get(annotation)
        except TypeError:  # not hashable, so not a key either
            return None
        return None if pair is None else codecs.Text(annotation, _name(annotation), pair[0], pair[1], exact=False)

    # -- generic types ------------------------------------------------------------------------------------------

    def _of_generic(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Codec:
        if origin is Union or origin is types.UnionType:
            return codecs.Either([self.of(arg) for arg in args])
        if origin is Literal:
            return self._of_literal(annotation, args)
        if origin is tuple and args[-1:] != (Ellipsis,):
            return codecs.FixedTuple([self.of(arg) for arg in args])
        if origin in _COLLECTIONS:
            return codecs.Items(origin, self.of(args[0]))
        if origin is dict:
            return codecs.Pairs(self.of(args[0]), self.of(args[1]))
        raise _unsupported(annotation)

    def _of_literal(self, annotation: Any, args: tuple[Any, ...]) -> Codec:
        if not all(type(arg) in (str, int, bool, type(None)) for arg in args):
            raise Unsupported(f"{_name(annotation)} has values other than strings, integers, booleans and None")
        return codecs.Choice(args)

    # -- classes ------------------------------------------------------------------------------------------------

    def _of_class(self, kept: Any) -> Codec:
        if kept in _PLAIN:
            return codecs.Plain(kept)
        if kept in _BARE:
            raise Unsupported(f"{_name(kept)} does not declare the type of its items; write e.g. {_BARE[kept]}")
        if not isinstance(kept, type):
            raise _unsupported(kept)
        codec = _of_standard_class(kept)
        if codec is not None:
            return codec
        if hasattr(kept, "__dataclass_fields__"):
            return self._of_dataclass(kept)
        raise _unsupported(kept)

    def _of_dataclass(self, kept: type) -> Codec:
        if kept in self._records:
            return self._records[kept]
        import dataclasses

        record = self._records[kept] = codecs.Record(kept)
        fields = dataclasses.fields(kept)
        hidden = set(kept.__dataclass_fields__) - {field.name for field in fields}  # type: ignore[attr-defined]
        hints = typing.get_type_hints(kept)
        if wrong := sorted(name for name in hidden if isinstance(hints.get(name), dataclasses.InitVar)):
            raise Unsupported(f"{_name(kept)} does not keep its InitVar {wrong[0]!r}; give it a serializer")
        for field in fields:
            try:
                record.fields[field.name] = self.of(hints[field.name])
            except Unsupported as error:
                raise Unsupported(f"field {field.name!r} of {_name(kept)}: {error}") from None
        record.given = frozenset(field.name for field in fields if field.init)
        return record


def _unwrapped(annotation: Any) -> Any:
    """Return the type behind a NewType, an Annotated or a type alias."""
    if typing.get_origin(annotation) is typing.Annotated:
        return annotation.__origin__
    if isinstance(annotation, typing.NewType):
        return annotation.__supertype__
    if type(annotation).__name__ == "TypeAliasType":  # `type Name = ...` of Python 3.12
        return annotation.__value__
    return annotation


def _of_standard_class(kept: Any) -> Codec | None:
    if _is_a(kept, "enum", "Enum"):
        return codecs.Members(kept, by_number=_is_a(kept, "enum", "Flag"))
    if _is_a(kept, "pathlib", "PurePath"):
        made = type(kept())  # Path creates a PosixPath
        return codecs.Text(made, kept.__name__, str, kept, exact=True)
    if kept.__module__ == "datetime" and kept.__name__ == "date":
        return codecs.Text(kept, "date", kept.isoformat, kept.fromisoformat, exact=True)
    if kept.__module__ == "datetime" and kept.__name__ == "datetime":
        return codecs.Text(kept, "datetime", _moment_text, _moment, exact=True)
    return None


def _is_a(kept: type, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and issubclass(kept, getattr(loaded, name))


def _moment_text(moment: datetime.datetime) -> str:
    """Return a datetime as text: ISO 8601, `[zone]` if it has one, `[fold]` for the later of two ambiguous hours."""
    fold = "[fold]" if moment.fold else ""
    zone = moment.tzinfo
    kind = (type(zone).__module__, type(zone).__name__)
    if zone is None or kind == ("datetime", "timezone"):
        return moment.isoformat() + fold
    key = getattr(zone, "key", None)
    if kind[0] != "zoneinfo" or not key:
        raise ValueError(f"the time zone {zone!r} cannot be serialized; use datetime.timezone or zoneinfo.ZoneInfo")
    return f"{moment.replace(tzinfo=None).isoformat()}[{key}]{fold}"


def _moment(text: str) -> datetime.datetime:
    import datetime

    first, *marks = text.replace("]", "").split("[")
    moment = datetime.datetime.fromisoformat(first)
    for mark in marks:
        if mark == "fold":
            moment = moment.replace(fold=1)
        else:
            import zoneinfo

            moment = moment.replace(tzinfo=zoneinfo.ZoneInfo(mark))
    return moment


def _name(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")


def _unsupported(annotation: Any) -> Unsupported:
    return Unsupported(
        f"{_name(annotation)} is not a type whose values can be serialized; give it a serializer, e.g."
        f" serializers={{{_name(annotation)}: (to_string, from_string)}}"
    )
