"""Statements that readers repeat with the same query are built and compiled once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from jobmon.server.sql import Statement

#: Number of statements that are kept.
STATEMENTS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: str
    build: Callable[[], Any] = field(compare=False)


def repeated(key: str, build: Callable[[], Any]) -> Statement:
    """Return what `build` returns as a statement; equal keys mean equal statements."""
    return _built(_Wanted(key, build))


@functools.lru_cache(maxsize=STATEMENTS_MAX)
def _built(wanted: _Wanted) -> Statement:
    return Statement(wanted.build)
