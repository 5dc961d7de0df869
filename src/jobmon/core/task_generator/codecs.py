"""Convert values of a type to text and back without loss. Pure.

A codec packs a value into a tree of JSON types and unpacks it. The text is the tree itself if it is always a string (so
that a task's arguments are recorded as people write them: `US`, `2020-01-31`, `/data/in.csv`), otherwise compact JSON
(`5`, `true`, `[1,2]`, `{"year":2020}`). Types are matched exactly, because a value of a subclass would come back as
something else. There are two exceptions in which nothing is lost: an integer for a float, and scalars of NumPy.
"""

from __future__ import annotations

import json
import reprlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Tree = Any  # None, bool, int, float, str, list of trees, dict of trees by str

_KINDS: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
_SHOWN_CHARACTERS_MAX: Final = 120
_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHOWN_CHARACTERS_MAX


class Misfit(ValueError):
    """A value is not of the required type."""


def shown(value: object) -> str:
    """Return a value as messages show it: shortened, and without reading all of a long list."""
    try:
        text = _SHORT.repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr fails: {error}>"
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}..."


def kind_of(tree: Tree) -> str:
    """Return the JSON name of a tree's type."""
    return _KINDS[type(tree)]


def compact(tree: Tree) -> str:
    """Return a tree as JSON without spaces. Numbers that JSON lacks are written as NaN, Infinity and -Infinity."""
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """Return the Python value of a NumPy scalar, and everything else unchanged."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


class Codec:
    """Packs and unpacks values of one type.

    Args:
        description: the type as written in code, without modules (they differ between a script and its import).
        kinds: possible JSON types of the packed values.
    """

    def __init__(self, description: str, kinds: Iterable[str]) -> None:
        self.description = description
        self.kinds = frozenset(kinds)

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """Return the tree of a value; `lenient` also accepts values that can be converted without loss.

        Raises:
            Misfit: it is of a different type.
        """
        raise self.misfit(value)

    def unpack(self, tree: Tree) -> Any:
        """Return the value of a tree.

        Raises:
            Misfit: it is not the tree of such a value.
        """
        raise self.misfit(tree)

    def text(self, value: Any) -> str:
        """Return a value as text.

        Raises:
            Misfit: it is of a different type.
        """
        tree = self.pack(value)
        return tree if self._is_text else compact(tree)

    def value(self, text: str) -> Any:
        """Return the value of a text.

        Raises:
            ValueError: it is not the text of such a value.
        """
        return self.unpack(text if self._is_text else json.loads(text))

    @property
    def _is_text(self) -> bool:
        return self.kinds == {"string"}

    def misfit(self, value: object) -> Misfit:
        """Return an error that names the value and the type."""
        return Misfit(f"{shown(value)} is of type {type(value).__name__}, not {self.description}")


class Plain(Codec):
    """Values of JSON's own types."""

    def __init__(self, plain_type: type) -> None:
        name = "None" if plain_type is type(None) else plain_type.__name__
        super().__init__(name, [_KINDS[plain_type]])
        self._type = plain_type

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """See `Codec`."""
        found = plain(value)
        if type(found) is self._type:
            return found
        if lenient and self._type is float and type(found) is int:
            return self._float(found)
        raise self.misfit(value)

    def _float(self, number: int) -> float:
        try:
            if float(number) == number:
                return float(number)
        except OverflowError:
            pass
        raise Misfit(f"{shown(number)} is an int that has no exact float value")

    def unpack(self, tree: Tree) -> Any:
        """See `Codec`."""
        if type(tree) is not self._type:
            raise self.misfit(tree)
        return tree


class Text(Codec):
    """Values of a class with its own text representation."""

    def __init__(
        self, kept: Any, description: str, to_text: Callable[[Any], str], from_text: Callable[[str], Any], exact: bool
    ) -> None:
        super().__init__(description, ["string"])
        self._type = kept
        self._to_text = to_text
        self._from_text = from_text
        self._exact = exact

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """See `Codec`."""
        if not self._fits(value, lenient):
            raise self.misfit(value)
        text = self._to_text(value)
        if not isinstance(text, str):
            raise ValueError(f"the serializer of {self.description} returned {shown(text)}, which is not a string")
        return str(text)

    def _fits(self, value: Any, lenient: bool) -> bool:
        if type(value) is self._type or not isinstance(self._type, type):
            return True
        return lenient and not self._exact and isinstance(value, self._type)

    def unpack(self, tree: Tree) -> Any:
        """See `Codec`."""
        if type(tree) is not str:
            raise self.misfit(tree)
        return self._from_text(tree)


class Members(Codec):
    """Members of an enumeration by name; of a Flag by number, because combinations have no name of their own."""

    def __init__(self, enumeration: Any, by_number: bool) -> None:
        super().__init__(enumeration.__name__, ["integer" if by_number else "string"])
        self._type = enumeration
        self._by_number = by_number

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """See `Codec`."""
        if not isinstance(value, self._type):
            raise self.misfit(value)
        return int(value.value) if self._by_number else value.name

    def unpack(self, tree: Tree) -> Any:
        """See `Codec`."""
        try:
            return self._type(tree) if self._by_number else self._type[tree]
        except (KeyError, ValueError):
            raise self.misfit(tree) from None


class Choice(Codec):
    """Values of a Literal."""

    def __init__(self, values: Sequence[Any]) -> None:
        super().__init__(f"Literal[{', '.join(map(repr, values))}]", [kind_of(value) for value in values])
        self._values = {(type(value), value) for value in values}

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """See `Codec`."""
        if type(value) not in _KINDS or type(value) in (list, dict) or (type(value), value) not in self._values:
            raise Misfit(f"{shown(value)} is not one of {self.description}")
        return value

    def unpack(self, tree: Tree) -> Any:
        """See `Codec`."""
        return self.pack(tree)


class Items(Codec):
    """Collections with items of one type; sets are ordered by the text of their items, so that equal sets agree."""

    def __init__(self, collection: type[Any], item: Codec) -> None:
        ellipsis = ", ..." if collection is tuple else ""
        super().__init__(f"{collection.__name__}[{item.description}{ellipsis}]", ["array"])
        self._type = collection
        self._item = item

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """See `Codec`."""
        if type(value) is not self._type:
            raise self.misfit(value)
        trees = [self._item.pack(item, lenient) for item in value]
        return sorted(trees, key=compact) if self._type in (set, frozenset) else trees

    def unpack(self, tree: Tree) -> Any:
        """See `Codec`."""
        if type(tree) is not list:
            raise self.misfit(tree)
        return self._type(self._item.unpack(item) for item in tree)


class FixedTuple(Codec):
    """Tuples with a type for each position."""

    def __init__(self, items: Sequence[Codec]) -> None:
        super().__init__(f"tuple[{', '.join(item.description for item in items) or '()'}]", ["array"])
        self._items = items

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """See `Codec`."""
        if type(value) is not tuple or len(value) != len(self._items):
            raise self.misfit(value)
        return [codec.pack(item, lenient) for codec, item in zip(self._items, value, strict=True)]

    def unpack(self, tree: Tree) -> Any:
        """See `Codec`."""
        if type(tree) is not list or len(tree) != len(self._items):
            raise self.misfit(tree)
        return tuple(codec.unpack(item) for codec, item in zip(self._items, tree, strict=True))


class Pairs(Codec):
    """Dictionaries in their order: an object if the keys are strings, otherwise an array of pairs."""

    def __init__(self, key: Codec, item: Codec) -> None:
        self._by_text = key.kinds == {"string"}
        super().__init__(f"dict[{key.description}, {item.description}]", ["object" if self._by_text else "array"])
        self._key = key
        self._item = item

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """See `Codec`."""
        if type(value) is not dict:
            raise self.misfit(value)
        pairs = [[self._key.pack(key, lenient), self._item.pack(item, lenient)] for key, item in value.items()]
        if not self._by_text:
            return pairs
        tree = dict(pairs)
        if len(tree) < len(pairs):
            raise ValueError(f"two keys of {shown(value)} are serialized to the same string")
        return tree

    def unpack(self, tree: Tree) -> Any:
        """See `Codec`."""
        if type(tree) is not (dict if self._by_text else list):
            raise self.misfit(tree)
        pairs = tree.items() if isinstance(tree, dict) else tree
        return {self._key.unpack(key): self._item.unpack(item) for key, item in pairs}


class Either(Codec):
    """Unions: packed like the matching member if the JSON types distinguish the members, otherwise `{"type": ...}`."""

    def __init__(self, members: Sequence[Codec]) -> None:
        kinds = [kind for member in members for kind in member.kinds]
        self._is_tagged = len(kinds) > len({*kinds})
        super().__init__(" | ".join(member.description for member in members), ["object"] if self._is_tagged else kinds)
        self._members = {
            (f"{member.description}#{place}" if self._is_doubled(member, members) else member.description): member
            for place, member in enumerate(members)
        }

    @staticmethod
    def _is_doubled(member: Codec, members: Sequence[Codec]) -> bool:
        return sum(other.description == member.description for other in members) > 1

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """See `Codec`. A member that the value fits exactly takes precedence over one it can be converted to."""
        for mode in (False, True) if lenient else (False,):
            for tag, member in self._members.items():
                try:
                    tree = member.pack(value, mode)
                except Misfit:
                    continue
                return {tag: tree} if self._is_tagged else tree
        raise self.misfit(value)

    def unpack(self, tree: Tree) -> Any:
        """See `Codec`."""
        if not self._is_tagged:
            kind = kind_of(tree)
            for member in self._members.values():
                if kind in member.kinds:
                    return member.unpack(tree)
        elif type(tree) is dict and len(tree) == 1 and (tag := next(iter(tree))) in self._members:
            return self._members[tag].unpack(tree[tag])
        raise self.misfit(tree)


class Record(Codec):
    """Dataclasses by their fields. `fields` is filled after construction, because a field may hold its own class."""

    def __init__(self, record: type) -> None:
        super().__init__(record.__name__, ["object"])
        self._type = record
        self.fields: dict[str, Codec] = {}
        #: Fields that the class's `__init__` accepts.
        self.given: frozenset[str] = frozenset()

    def pack(self, value: Any, lenient: bool = True) -> Tree:
        """See `Codec`."""
        if type(value) is not self._type:
            raise self.misfit(value)
        return {name: self._pack_field(name, codec, value, lenient) for name, codec in self.fields.items()}

    def _pack_field(self, name: str, codec: Codec, value: Any, lenient: bool) -> Tree:
        try:
            return codec.pack(getattr(value, name), lenient)
        except Misfit as error:
            raise Misfit(f"{self.description}.{name}: {error}") from None

    def unpack(self, tree: Tree) -> Any:
        """See `Codec`. Fields are set again after `__init__`, which may have changed them."""
        if type(tree) is not dict or not tree.keys() <= self.fields.keys():
            raise self.misfit(tree)
        values = {name: self.fields[name].unpack(item) for name, item in tree.items()}
        record = self._type(**{name: value for name, value in values.items() if name in self.given})
        for name, value in values.items():
            object.__setattr__(record, name, value)
        return record
