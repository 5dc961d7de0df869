"""Determine which values can identify something: those whose text is the same whenever the script runs. Pure.

Tasks, workflows and attributes are recorded by the text of their values. A resumed script must produce the same texts;
otherwise its tasks are different tasks. A value is therefore refused if its text depends on memory addresses or on
display settings, or if it is not text at all. A set is written in sorted order. `float("nan")` is accepted: its text
is always "nan".
"""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

#: The types of nearly all values; their text is stable.
PLAIN: Final = frozenset({str, int, float, bool, type(None)})
#: What `with_sorted_sets` sorts, and in which other containers.
_SETS: Final = frozenset({set, frozenset})
_REBUILT: Final = frozenset({list, tuple, dict})
#: Maximum depth to which nested containers are examined.
_NESTING_MAX: Final = 32
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_SHOWN_CHARACTERS_MAX: Final = 80
_REFUSED: Final = (
    ((bytes, bytearray, memoryview), "bytes are not text", "Decode it, for instance with .decode()."),
    ((set, frozenset), "a set inside such an object has no fixed order", "Pass a string of its sorted values."),
    ((Iterator,), "the string of an iterator does not contain its values", "Pass its values, for instance as a list."),
)


class _Unstable(NamedTuple):
    """Why a value has no stable text, and what to pass instead."""

    value: object
    reason: str
    remedy: str


def stable_text(value: Any, what: Callable[[], str]) -> str:
    """Return the text by which a value is recorded.

    Args:
        value: any value.
        what: returns the name of the value for an error, such as "Argument 'x' of template 'y'".

    Raises:
        ValueError: its text could differ in the next run of the script; the message names value, type and remedy.
    """
    check_stable(value, what)
    return text_of(value)


def text_of(value: Any) -> str:
    """Return the text of a value that `check_stable` accepts."""
    return str(value if type(value) in PLAIN else with_sorted_sets(value))


class _SortedSet(frozenset[Any]):
    """A set that is written in sorted order: `{1, 2}`."""

    def __repr__(self) -> str:
        texts = [repr(value) for value in self._sorted()]
        return f"{{{', '.join(texts)}}}" if texts else "set()"

    def _sorted(self) -> list[Any]:
        """Return texts and integers in their order, everything else by its text."""
        is_ordered = any(all(isinstance(value, kind) for value in self) for kind in (str, int))
        return sorted(self) if is_ordered else sorted(self, key=repr)


def with_sorted_sets(value: Any) -> Any:
    """Return a value in which sets, also in lists, tuples and dicts, are written in sorted order.

    Args:
        value: a value that `check_stable` accepts.
    """
    kind = type(value)
    if kind in _SETS:
        return _SortedSet(map(with_sorted_sets, value))
    if kind is list or kind is tuple:
        return kind(map(with_sorted_sets, value))
    if kind is dict:
        return {with_sorted_sets(key): with_sorted_sets(one) for key, one in value.items()}
    return value


def check_stable(value: Any, what: Callable[[], str]) -> None:
    """Check that a value has a stable text; see `stable_text`."""
    if type(value) in PLAIN:
        return
    try:
        found = _unstable(value, 0)
    except Exception as error:  # raised by the user's own __str__ or __repr__
        raise ValueError(
            f"{what()} has a value of type {_type_name(value)!r} that cannot be converted to a string"
            f" ({type(error).__name__}: {error}). Pass a string, number or path."
        ) from error
    if found is None:
        return
    inside = "" if found.value is value else f"is a {_type_name(value)} that "
    raise ValueError(
        f"{what()} {inside}{'contains' if inside else 'has'} a value of type {_type_name(found.value)!r},"
        f" {shown(found.value)}, which has no stable string: {found.reason}. {found.remedy}"
    )


def _unstable(value: Any, depth: int, *, sorts_sets: bool = True) -> _Unstable | None:
    """Return the part of a value that makes its text unstable, or None.

    Args:
        value: the value, or a part of it.
        depth: the number of containers around it.
        sorts_sets: whether `with_sorted_sets` reaches it.
    """
    if type(value) in PLAIN:
        return None
    is_sorted = sorts_sets and type(value) in _SETS
    for kinds, reason, remedy in _REFUSED:
        if isinstance(value, kinds) and not is_sorted:
            return _Unstable(value, reason, remedy)
    if _is_array(value):
        return _Unstable(value, "the string of an array depends on print settings", "Pass its values or a file's path.")
    if _has_own_text(value):
        return None
    parts = _parts(value)
    if parts is None:
        return _without_own_text(value)
    return _unstable_part(value, parts, depth + 1, sorts_sets=is_sorted or (sorts_sets and type(value) in _REBUILT))


def _is_array(value: Any) -> bool:
    dimensions = getattr(value, "ndim", 0)
    return isinstance(dimensions, int) and dimensions > 0


def _has_own_text(value: Any) -> bool:
    """Return whether the value is a number, or its class defines its text."""
    inherited: Any = object.__str__
    return isinstance(value, int | float | complex) or type(value).__str__ is not inherited


def _unstable_part(value: Any, parts: list[Any], depth: int, *, sorts_sets: bool) -> _Unstable | None:
    if depth > _NESTING_MAX:
        return _Unstable(value, "it is nested too deeply", "Pass a string or a file's path.")
    found = (_unstable(part, depth, sorts_sets=sorts_sets) for part in parts)
    return next((one for one in found if one is not None), None)


def _without_own_text(value: Any) -> _Unstable | None:
    """Check a value whose text is only what `repr` returns."""
    if callable(value):
        return _Unstable(value, "functions and classes have no string of their own", "Pass its name as a string.")
    inherited: Any = object.__repr__
    if type(value).__repr__ is not inherited and not _ADDRESS.search(str(value)):
        return None
    return _Unstable(
        value, "its string is a memory address", "Pass a string, number or path, or give its class a __str__ method."
    )


def _parts(value: Any) -> list[Any] | None:
    """Return the parts of a container that make up its text; None if the value is not a container."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | deque | set | frozenset):
        return [*value]
    is_generated = dataclasses.is_dataclass(value) and hasattr(type(value).__repr__, "__wrapped__")
    if is_generated and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value) if field.repr]
    return None


def _type_name(value: object) -> str:
    return type(value).__qualname__


def shown(value: object) -> str:
    """Return a value for a message: one line, cut."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # raised by the user's own class; the type must suffice
        text = "no text"
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[: _SHOWN_CHARACTERS_MAX - 3]}..."
