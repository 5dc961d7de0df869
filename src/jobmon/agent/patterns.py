"""Match the names of files with patterns in which `*` stands for any number of characters. Pure.

As in a shell, `*` matches neither "/" nor the dot at the beginning of a hidden file.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

WILDCARD = "*"


def shown(path: str, folder: str) -> str:
    """Return a path for messages: relative if it is in the working folder.

    >>> shown("/data/out/a.csv", "/data"), shown("/ref/a.csv", "/data"), shown("/a.csv", "/")
    ('out/a.csv', '/ref/a.csv', 'a.csv')
    """
    return path.removeprefix(folder if folder.endswith("/") else f"{folder}/")


def matches(name: str, pattern: str) -> bool:
    """Return whether a name, without a folder, matches a pattern.

    >>> matches("a.csv", "*.csv"), matches(".a.csv", "*.csv"), matches("b12", "b*2*")
    (True, False, True)
    """
    first, *others = pattern.split(WILDCARD)
    if not others:
        return name == pattern
    if name.startswith(".") and not first.startswith("."):
        return False
    *inner, last = others
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in inner:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def overlap(one: str, other: str) -> bool:
    """Return whether there is a name that matches both patterns.

    >>> overlap("a*", "*.csv"), overlap("a*", "b*"), overlap("x", "*")
    (True, False, True)
    """
    if WILDCARD not in one:
        return matches(one, other)
    if WILDCARD not in other:
        return matches(other, one)
    if (one[0] == ".") != (other[0] == "."):  # a wildcard at the beginning matches no dot
        return False
    return _common_beginning(one, other) and _common_beginning(one[::-1], other[::-1])


def _common_beginning(one: str, other: str) -> bool:
    """Return whether two patterns agree up to the first wildcard of either of them."""
    length = min(one.index(WILDCARD), other.index(WILDCARD))
    return one[:length] == other[:length]
