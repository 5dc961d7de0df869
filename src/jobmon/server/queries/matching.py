"""Search for names: `*` matches any text; without it, the whole name must be equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.server.constructs import true
from jobmon.server.sql import like

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement


def name_matches(name: ColumnElement[Any], word: str) -> ColumnElement[bool]:
    """Return the condition that a name matches a search word; every name matches an empty one.

    Args:
        name: the column.
        word: the search word; it is case-sensitive only if it has no `*`.
    """
    if not word:
        return true()
    return like(name, _pattern(word)) if "*" in word else name == word


def _pattern(word: str) -> str:
    for special in "!%_":
        word = word.replace(special, f"!{special}")
    return word.replace("*", "%")
