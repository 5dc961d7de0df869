"""What statements are made of besides SQLAlchemy's own constructs, and how they are compiled.

Only this module and the models need SQLAlchemy to be loaded; a server whose statements are all known by their texts
never imports it (`server/texts.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy
from sqlalchemy import ARRAY, BigInteger, BindParameter, Boolean, Update, bindparam, column, insert, literal, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, String

from jobmon.server.texts import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Dialect, Table
    from sqlalchemy.sql.base import Executable
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import TableValuedAlias


def _dialects() -> dict[str, Dialect]:
    """Return the SQLAlchemy dialects; parameters are positional because tuples are the cheapest for both drivers."""
    for_sqlite = sqlite.dialect(paramstyle="qmark")
    for_sqlite.supports_native_boolean = True  # supported since 3.23; otherwise conditions are compared with 1
    for_postgresql = psycopg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
    return {"sqlite": for_sqlite, "postgresql": for_postgresql}


DIALECTS: Final = _dialects()

# --- building blocks of statements, besides SQLAlchemy's own constructs -----------------------------------------------


def param(name: str, type_: Any = None) -> BindParameter[Any]:
    """Return a parameter; its type follows from what it is compared with or assigned to, unless given."""
    return bindparam(name, None, type_=type_)


def _in(dialect: str, kind: type[FunctionElement[Any]]) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Return a decorator that registers how a construct is written for a database, given the texts of its parts."""

    def register(write: Callable[..., str]) -> Callable[..., str]:
        def compile_element(element: FunctionElement[Any], compiler: SQLCompiler, **options: Any) -> str:
            return write(*(compiler.process(part, **options) for part in element.clauses))

        compiles(kind, dialect)(compile_element)
        return write

    return register


class _Listed(FunctionElement[Any]):
    """A list, passed as one parameter of any length, as a table with `value` and `key` (the position, from 0)."""

    name = "listed"
    inherit_cache = True


@_in("sqlite", _Listed)
def _listed_in_sqlite(items: str) -> str:
    return f"(SELECT value, key FROM json_each({items}))"


@_in("postgresql", _Listed)
def _listed_in_postgresql(items: str) -> str:
    return f"(SELECT value, key - 1 AS key FROM unnest({items}) WITH ORDINALITY AS items(value, key))"


class _AnyOf(FunctionElement[bool]):
    """Whether a value is in a list that is passed as one parameter of any length."""

    name = "any_of"
    type = Boolean()
    inherit_cache = True


class _NoneOf(FunctionElement[bool]):
    """Whether a value is not in a list that is passed as one parameter of any length."""

    name = "none_of"
    type = Boolean()
    inherit_cache = True


@_in("sqlite", _AnyOf)
def _any_of_in_sqlite(value: str, items: str) -> str:
    return f"{value} IN (SELECT value FROM json_each({items}))"


@_in("sqlite", _NoneOf)
def _none_of_in_sqlite(value: str, items: str) -> str:
    return f"{value} NOT IN (SELECT value FROM json_each({items}))"


@_in("postgresql", _AnyOf)
def _any_of_in_postgresql(value: str, items: str) -> str:
    return f"{value} = ANY ({items})"


@_in("postgresql", _NoneOf)
def _none_of_in_postgresql(value: str, items: str) -> str:
    return f"{value} <> ALL ({items})"


class _Unindexed(FunctionElement[Any]):
    """A column for which SQLite must not use an index."""

    name = "unindexed"
    inherit_cache = True

    def __init__(self, of: ColumnElement[Any]) -> None:
        super().__init__(of)
        self.type = of.type


@_in("sqlite", _Unindexed)
def _unindexed_in_sqlite(of: str) -> str:
    return f"+{of}"


@_in("postgresql", _Unindexed)
def _unindexed_in_postgresql(of: str) -> str:
    return of


class _Like(FunctionElement[bool]):
    """Whether a text matches a pattern, in any case of ASCII letters; `!` escapes."""

    name = "like_any_case"
    type = Boolean()
    inherit_cache = True


@_in("sqlite", _Like)
def _like_in_sqlite(text: str, pattern: str) -> str:
    return f"{text} LIKE {pattern} ESCAPE '!'"  # ignores the case by itself; lower() would double the cost


@_in("postgresql", _Like)
def _like_in_postgresql(text: str, pattern: str) -> str:
    return f"{text} ILIKE {pattern} ESCAPE '!'"


def _list(name: str, type_: Any) -> BindParameter[Any]:
    """Return a parameter that holds a list. Strings are text: a cast to VARCHAR(n) would cut them silently."""
    return bindparam(name, None, type_=ARRAY(sqlalchemy.Text() if isinstance(type_, String) else type_))


def any_of(value: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return whether a value is in the list parameter of that name (any iterable, of any length)."""
    return _AnyOf(value, _list(name, value.type))


def like(text: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """Return whether a text matches a pattern, in any case of ASCII letters; `!` escapes."""
    return _Like(text, literal(pattern, sqlalchemy.Text()))


def none_of(value: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return whether a value is not in the list parameter of that name."""
    return _NoneOf(value, _list(name, value.type))


def listed(name: str, type_: Any = BigInteger) -> TableValuedAlias:
    """Return the list parameter of that name as a table with the columns `value` and `key` (the position, from 0)."""
    return _Listed(_list(name, type_() if isinstance(type_, type) else type_)).table_valued(
        column("value", type_), column("key", BigInteger), name=name
    )


def unindexed(of: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column for a condition in which SQLite's planner must not choose that column's index."""
    return _Unindexed(of)


class _Columns(FunctionElement[Any]):
    """Several lists of the same length as the columns of a table."""

    name = "columns"
    inherit_cache = True


@_in("postgresql", _Columns)
def _columns_in_postgresql(*lists: str) -> str:
    return f"unnest({', '.join(lists)})"


def _rows_of_lists(names: Sequence[str], types: Sequence[Any]) -> TableValuedAlias:
    """Return several list parameters of the same length as the columns of a table."""
    lists = _Columns(*(_list(name, type_) for name, type_ in zip(names, types, strict=True)))
    return lists.table_valued(*(column(name) for name in names), name="items").render_derived()


def in_bulk(construct: Any, names: Sequence[str]) -> Executable | None:
    """Replace the parameters of an UPDATE of the row with a certain `id` by the columns of a table of rows.

    Args:
        construct: the statement.
        names: its parameters, each of which becomes a list.

    Returns:
        The statement for many rows; None: it cannot be made.
    """
    if not isinstance(construct, Update) or "id" not in names:
        return None
    columns: Any = construct.table.c
    types = {name: columns[name].type for name in names if name in columns}
    for found in visitors.iterate(construct):
        if isinstance(found, BindParameter) and found.key in names and found.key not in types:
            types[found.key] = found.type
    if any(name not in types or isinstance(types[name], NullType) for name in names):
        return None
    items = _rows_of_lists(names, [types[name] for name in names])

    def replaced(element: Any, **options: Any) -> Any:
        return items.c[element.key] if isinstance(element, BindParameter) and element.key in names else None

    return cast("Executable", visitors.replacement_traverse(construct, {}, replaced))


def insert_one(table: Table, *, is_returning: bool) -> Executable:
    """Return an INSERT of one row, which may return the first column of the primary key."""
    into = insert(table)
    return into.returning(next(iter(table.primary_key.columns))) if is_returning else into


def insert_listed(table: Table, names: Sequence[str], *, ignore: bool) -> Executable:
    """Return an INSERT that takes each column as a list; it may skip rows that exist."""
    into = insert_or_ignore(table).on_conflict_do_nothing() if ignore else insert(table)
    rows = _rows_of_lists(names, [table.c[name].type for name in names])
    return into.from_select(list(names), select(*(rows.c[name] for name in names)))


def compiled(construct: Any, dialect: str, names: Sequence[str] | None) -> Text:
    """Compile a statement.

    Args:
        construct: the statement.
        dialect: the database, by SQLAlchemy's name.
        names: of the columns of an INSERT.
    """
    made: Any = construct.compile(
        dialect=DIALECTS[dialect],
        column_keys=None if names is None else list(names),
        compile_kwargs={"render_postcompile": True},
    )
    used = tuple(made.positiontup or ())
    given = {name for name, bind in made.binds.items() if not bind.unique}
    return Text(
        text=made.text if hasattr(made, "text") else str(made),
        names=used,
        is_writing=construct.is_dml,
        constants={name: made.params[name] for name in used if name not in given},
        lists=tuple(name for name in dict.fromkeys(used) if name in given and isinstance(made.binds[name].type, ARRAY)),
    )
