"""Texts of statements for SQLite that were generated in advance, so that a server need not load SQLAlchemy for them.

The file `texts.jsonl` has one line for each statement, found by the hash of what was recorded of it (`recording`): a
statement that was changed since has another hash, so it is compiled by SQLAlchemy. `make docs` writes the file, and a
test compares it. The texts also depend on the tables and on the elements, so they are not used at all if one of these
modules differs from that of which they were generated.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

FILE_NAME: Final = "texts.jsonl"
DIALECT: Final = "sqlite"
_FOLDER: Final = Path(__file__).parent
#: What a text depends on besides what is recorded of its statement, and the schema depends on.
_SOURCES: Final = ("elements.py", "models/*.py", "migrations/upgrading.py", "../core/constants.py")


class Text(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A compiled statement.

    `names`: of its parameters, in order. `constants`: the values of those that the statement itself contains.
    `lists`: the parameters that are lists.
    """

    text: str
    names: tuple[str, ...] = ()
    is_writing: bool = False
    constants: dict[str, Any] = {}
    lists: tuple[str, ...] = ()


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the file: a statement, by its digest; or in the first line, what the whole file was generated from."""

    of: str
    digest: str
    text: Text | None = None
    schema: list[str] = []


def sources_digest() -> str:
    """Return a checksum of the modules that all texts depend on."""
    sum_ = 0
    for pattern in _SOURCES:
        for path in sorted(_FOLDER.glob(pattern)):
            sum_ = zlib.crc32(path.read_bytes(), sum_)
    return f"{sum_:08x}"


@cache
def _lines() -> list[Line]:
    """Return the lines of the file; none if it was generated from other sources."""
    try:
        content = (_FOLDER / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return []
    lines = msgspec.json.Decoder(Line).decode_lines(content)
    return lines if lines and lines[0].digest == sources_digest() else []


@cache
def _known() -> dict[str, Text]:
    return {line.digest: line.text for line in _lines() if line.text is not None}


def known(dialect: str) -> dict[str, Text]:
    """Return the texts for a database by the digests of their statements."""
    return _known() if dialect == DIALECT else {}


def schema() -> list[str]:
    """Return the statements that create the tables of an SQLite database; none if they are not known."""
    lines = _lines()
    return lines[0].schema if lines else []
