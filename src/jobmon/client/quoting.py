"""Values in a command template: `{name:q}` quotes a value for the shell; find values that need quoting. Pure."""

from __future__ import annotations

import re
import shlex
import string
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

QUOTE: Final = "q"
#: Characters that a shell does not take literally: outside quotation marks, and inside each kind.
_SPECIAL: Final = {
    "": re.compile(r"[\s|&;<>()$`\\\"'*?\[\]{}]|^[#~]"),
    '"': re.compile(r'["$`\\]'),
    "'": re.compile(r"'"),
}
#: Matches every text in which one of them does, several times as fast as the first of them.
_PERHAPS_SPECIAL: Final = re.compile(r"[\s|&;<>()$`\\\"'*?\[\]{}#~]")


class _Formatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == QUOTE:
            return shlex.quote(str(value))
        return str(super().format_field(value, format_spec))


_FORMATTER: Final = _Formatter()


def has_quotes(command_template: str) -> bool:
    """Return whether a template quotes a value."""
    return any(spec == QUOTE for _, field, spec, _ in string.Formatter().parse(command_template) if field)


def formatted(command_template: str, args: Mapping[str, Any]) -> str:
    """Return the command of a template that quotes values; otherwise the same as `str.format`.

    >>> formatted("wc -l {file:q} > {i}.n", {"file": "a b.csv", "i": 1})
    "wc -l 'a b.csv' > 1.n"
    """
    return _FORMATTER.vformat(command_template, (), args)


def writer(command_template: str, names: Sequence[str]) -> Callable[[Sequence[str]], str] | None:
    """Return a function that creates the command from the texts of all values, for a fraction of the cost of `format`.

    Args:
        command_template: the template.
        names: the names of the values, in the order of their texts.

    Returns:
        The function; None if the template inserts anything but whole values, as they are or quoted.

    >>> writer("wc -l {file:q} > {i}.n", ["file", "i"])(["a b.csv", "1"])
    "wc -l 'a b.csv' > 1.n"
    """
    pattern, places, quoted = "", [], []
    for literal, field, spec, conversion in string.Formatter().parse(command_template):
        pattern += literal.replace("%", "%%")
        if field is None:
            continue
        if conversion or spec not in ("", QUOTE) or field not in names:
            return None
        pattern += "%s"
        places.append(names.index(field))
        quoted.append(spec == QUOTE)
    if any(quoted):
        parts = list(zip(places, quoted, strict=True))
        return lambda texts: pattern % tuple([shlex.quote(texts[at]) if quote else texts[at] for at, quote in parts])
    if places == list(range(len(names))):
        return lambda texts: pattern % tuple(texts)
    return lambda texts: pattern % tuple([texts[at] for at in places])


def unquoted(command_template: str, names: Container[str]) -> tuple[tuple[str, str], ...]:
    r"""Return the fields that a template inserts without quoting, each with the quotation mark around it.

    A field at the very beginning is the command itself, and is omitted.

    >>> unquoted("cat {a} '{b}' \"{c}\" {d:q} {e}", {"a", "b", "c", "d"})
    (('a', ''), ('b', "'"), ('c', '"'))
    """
    found = []
    mark, is_first = "", True
    for literal, field, spec, _ in string.Formatter().parse(command_template):
        mark = _mark_after(literal, mark)
        is_first = is_first and not literal.strip()
        if field is not None and spec == "" and field in names and not is_first:
            found.append((field, mark))
        is_first = False
    return tuple(found)


def _mark_after(literal: str, mark: str) -> str:
    """Return the quotation mark that is open after a piece of shell text."""
    is_escaped = False
    for character in literal:
        if is_escaped:
            is_escaped = False
        elif character == "\\" and mark != "'":
            is_escaped = True
        elif mark:
            mark = "" if character == mark else mark
        elif character in "\"'":
            mark = character
    return mark


def first_special(fields: Sequence[tuple[str, str]], args: Mapping[str, Any]) -> str | None:
    """Return the first field of `unquoted` whose value the shell would not take literally, or None."""
    for name, mark in fields:
        value = args[name]
        if type(value) is not int and _PERHAPS_SPECIAL.search(text := str(value)) and _SPECIAL[mark].search(text):
            return name
    return None
