"""Elements of SQL that SQLAlchemy lacks, and how each is written for SQLite and PostgreSQL; `sql` uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.compiler import SQLCompiler


def _in(dialect: str, kind: type[FunctionElement[Any]]) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Return a decorator that registers how a construct is written for a database, given the texts of its parts."""

    def register(write: Callable[..., str]) -> Callable[..., str]:
        def compile_element(element: FunctionElement[Any], compiler: SQLCompiler, **options: Any) -> str:
            return write(*(compiler.process(part, **options) for part in element.clauses))

        compiles(kind, dialect)(compile_element)
        return write

    return register


class Listed(FunctionElement[Any]):
    """A list, passed as one parameter of any length, as a table with `value` and `key` (the position, from 0)."""

    name = "listed"
    inherit_cache = True


@_in("sqlite", Listed)
def _listed_in_sqlite(items: str) -> str:
    return f"(SELECT value, key FROM json_each({items}))"


@_in("postgresql", Listed)
def _listed_in_postgresql(items: str) -> str:
    return f"(SELECT value, key - 1 AS key FROM unnest({items}) WITH ORDINALITY AS items(value, key))"


class AnyOf(FunctionElement[bool]):
    """Whether a value is in a list that is passed as one parameter of any length."""

    name = "any_of"
    type = Boolean()
    inherit_cache = True


class NoneOf(FunctionElement[bool]):
    """Whether a value is not in a list that is passed as one parameter of any length."""

    name = "none_of"
    type = Boolean()
    inherit_cache = True


@_in("sqlite", AnyOf)
def _any_of_in_sqlite(value: str, items: str) -> str:
    return f"{value} IN (SELECT value FROM json_each({items}))"


@_in("sqlite", NoneOf)
def _none_of_in_sqlite(value: str, items: str) -> str:
    return f"{value} NOT IN (SELECT value FROM json_each({items}))"


@_in("postgresql", AnyOf)
def _any_of_in_postgresql(value: str, items: str) -> str:
    return f"{value} = ANY ({items})"


@_in("postgresql", NoneOf)
def _none_of_in_postgresql(value: str, items: str) -> str:
    return f"{value} <> ALL ({items})"


class Unindexed(FunctionElement[Any]):
    """A column for which SQLite must not use an index."""

    name = "unindexed"
    inherit_cache = True

    def __init__(self, of: ColumnElement[Any]) -> None:
        super().__init__(of)
        self.type = of.type


@_in("sqlite", Unindexed)
def _unindexed_in_sqlite(of: str) -> str:
    return f"+{of}"


@_in("postgresql", Unindexed)
def _unindexed_in_postgresql(of: str) -> str:
    return of


class Like(FunctionElement[bool]):
    """Whether a text matches a pattern, in any case of ASCII letters; `!` escapes."""

    name = "like_any_case"
    type = Boolean()
    inherit_cache = True


@_in("sqlite", Like)
def _like_in_sqlite(text: str, pattern: str) -> str:
    return f"{text} LIKE {pattern} ESCAPE '!'"  # ignores the case by itself; lower() would double the cost


@_in("postgresql", Like)
def _like_in_postgresql(text: str, pattern: str) -> str:
    return f"{text} ILIKE {pattern} ESCAPE '!'"


class Rows(FunctionElement[Any]):
    """Rows of parameters as a table, in SQLite."""

    name = "rows"
    inherit_cache = True

    def __init__(self, width: int, count: int) -> None:
        super().__init__(*(bindparam(None, None, unique=True) for _ in range(width * count)))
        self.width = width


@compiles(Rows, "sqlite")
def _rows_in_sqlite(element: Rows, compiler: SQLCompiler, **options: Any) -> str:
    parts = [compiler.process(part, **options) for part in element.clauses]
    rows = (", ".join(parts[start : start + element.width]) for start in range(0, len(parts), element.width))
    return f"(VALUES {', '.join(f'({row})' for row in rows)})"


class Columns(FunctionElement[Any]):
    """Several lists of the same length as the columns of a table."""

    name = "columns"
    inherit_cache = True


@_in("postgresql", Columns)
def _columns_in_postgresql(*lists: str) -> str:
    return f"unnest({', '.join(lists)})"
