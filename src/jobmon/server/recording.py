"""Expressions that are recorded instead of evaluated, so that SQLAlchemy need not be loaded to name a statement.

Statements are written with SQLAlchemy's own constructs. A `Recorded` notes what is done with such a name: which
attribute is read, what it is called with, what it is compared with. The record describes the statement completely, so
its text can be looked up by it (`server/texts.py`). A record without a text is evaluated: `real` does with SQLAlchemy
what was recorded, each step once, as if it had been done at once.
"""

from __future__ import annotations

import hashlib
import importlib
import threading
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Two threads must not evaluate one record: a table's alias would become two aliases.
_LOCK: Final = threading.RLock()
_NOT_YET: Final = object()
_DIGEST_BYTES: Final = 12
_PLAIN: Final = (str, int, float, bytes, type(None))


class Recorded:
    """What was done with a name of SQLAlchemy or of the models.

    Args:
        how: the name of the step, which `_STEPS` evaluates.
        parts: what the step was done with, each recorded itself or an ordinary value.
    """

    __slots__ = ("_attributes", "_how", "_parts", "_real")
    #: SQLAlchemy's own constructs ask for it, and then for `__clause_element__`.
    is_clause_element: Final = False

    def __init__(self, how: str, *parts: Any) -> None:
        self._how = how
        self._parts = parts
        self._real: Any = _NOT_YET
        self._attributes: dict[str, Recorded] | None = None

    def __getattr__(self, name: str) -> Recorded:
        """Record that an attribute is read. The same one is the same record: families keep statements by arguments."""
        if name.startswith("__"):
            raise AttributeError(name)
        if self._attributes is None:
            self._attributes = {}
        found = self._attributes.get(name)
        if found is None:
            found = self._attributes[name] = Recorded("attribute", self, name)
        return found

    def __call__(self, *arguments: Any, **options: Any) -> Recorded:
        """Record a call."""
        return Recorded("call", self, arguments, options)

    def __getitem__(self, key: Any) -> Recorded:
        """Record that an item is read."""
        return Recorded("item", self, key)

    def __invert__(self) -> Recorded:
        """Record a negation."""
        return Recorded("~", self)

    def __neg__(self) -> Recorded:
        """Record that a sign is changed."""
        return Recorded("negative", self)

    def __iter__(self) -> Iterator[Any]:
        """Evaluate: how many items there are is not known otherwise."""
        return iter(real(self))

    def __bool__(self) -> bool:
        """Refuse, as SQLAlchemy does: a condition in SQL has no value in Python, except whether two are the same."""
        if self._how == "==":
            return self._parts[0] is self._parts[1]
        raise TypeError("The value of a recorded expression is not known.")

    def __hash__(self) -> int:
        """Return the hash of its identity; comparisons are recorded."""
        return id(self)

    def __clause_element__(self) -> Any:
        """Return what SQLAlchemy's own constructs take instead."""
        return real(self)

    def __str__(self) -> str:
        """Refuse: nothing that decides on a text may take the description for it."""
        raise TypeError("A recorded expression has no text before it is compiled.")

    def __repr__(self) -> str:
        """Return the description."""
        return describe(self) or f"<{self._how}>"


def _operator(sign: str) -> Callable[[Any, Any], Recorded]:
    return lambda left, right: Recorded(sign, left, right)


def _reflected(sign: str) -> Callable[[Any, Any], Recorded]:
    return lambda right, left: Recorded(sign, left, right)


_OPERATORS: Final[dict[str, tuple[str, Callable[[Any, Any], Any]]]] = {
    "eq": ("==", lambda a, b: a == b),
    "ne": ("!=", lambda a, b: a != b),
    "lt": ("<", lambda a, b: a < b),
    "le": ("<=", lambda a, b: a <= b),
    "gt": (">", lambda a, b: a > b),
    "ge": (">=", lambda a, b: a >= b),
    "add": ("+", lambda a, b: a + b),
    "sub": ("-", lambda a, b: a - b),
    "mul": ("*", lambda a, b: a * b),
    "truediv": ("/", lambda a, b: a / b),
    "floordiv": ("//", lambda a, b: a // b),
    "mod": ("%", lambda a, b: a % b),
    "and": ("&", lambda a, b: a & b),
    "or": ("|", lambda a, b: a | b),
}
_COMPARISONS: Final = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})  # Python itself swaps their sides

for _name, (_sign, _) in _OPERATORS.items():
    setattr(Recorded, f"__{_name}__", _operator(_sign))
    if _name not in _COMPARISONS:
        setattr(Recorded, f"__r{_name}__", _reflected(_sign))


class RecordedTable(Recorded):
    """A table of the models, whose name is known."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__("name", "jobmon.server.models.tables", name)
        self.name = name


def named(module: str, name: str) -> Any:
    """Return a name of a module, which is imported when it is evaluated."""
    return Recorded("name", module, name)


# --- evaluation -------------------------------------------------------------------------------------------------------

_STEPS: Final[dict[str, Callable[..., Any]]] = {
    "name": lambda module, name: getattr(importlib.import_module(module), name),
    "attribute": getattr,
    "call": lambda function, arguments, options: function(*arguments, **options),
    "item": lambda collection, key: collection[key],
    "~": lambda value: ~value,
    "negative": lambda value: -value,
    **dict(_OPERATORS.values()),
}


def real(found: Any) -> Any:
    """Return what a record, or a collection that contains records, stands for."""
    if isinstance(found, Recorded):
        if found._real is _NOT_YET:
            with _LOCK:
                if found._real is _NOT_YET:
                    found._real = _STEPS[found._how](*map(real, found._parts))
        return found._real
    kind = type(found)
    if kind in (tuple, list):
        return kind(map(real, found))
    if kind is dict:
        return {real(key): real(value) for key, value in found.items()}
    if kind in (set, frozenset):
        return sorted(found)  # the text must not depend on the order of this process
    return found


# --- description ------------------------------------------------------------------------------------------------------


class _Unknown(Exception):
    """Something has no description: it is not recorded and no plain value."""


def describe(found: Any) -> str | None:
    """Return a text that is equal for two records only if both are evaluated to the same; None: it has none."""
    words: list[str] = []
    try:
        _describe(found, words.append, {})
    except _Unknown:
        return None
    return " ".join(words)


def digest(*parts: Any) -> str | None:
    """Return the hash of a description; None: something in it has none."""
    text = describe(parts)
    return None if text is None else hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _describe(found: Any, say: Callable[[str], None], seen: dict[int, int]) -> None:
    if isinstance(found, Recorded):
        _describe_record(found, say, seen)
    elif isinstance(found, Enum):
        say(repr(found.value))
    elif isinstance(found, _PLAIN):
        say(repr(found))
    elif type(found) in (set, frozenset):
        _describe(sorted(found), say, seen)
    elif type(found) in (tuple, list, dict):
        say("[")
        for part in found.items() if type(found) is dict else found:
            _describe(part, say, seen)
        say("]")
    else:
        raise _Unknown


def _describe_record(found: Recorded, say: Callable[[str], None], seen: dict[int, int]) -> None:
    number = seen.get(id(found))
    if number is not None:  # which also tells one alias that is used twice from two aliases
        say(f"#{number}")
        return
    seen[id(found)] = len(seen)
    say(f"{found._how}(")
    for part in found._parts:
        _describe(part, say, seen)
    say(")")
