"""The constructs of SQLAlchemy that statements are written with, recorded until one is evaluated (`recording`).

Importing SQLAlchemy takes longer than everything else that a server does before it is ready. Modules of the server
import its constructs from here, and its types only for annotations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import (
        BigInteger,
        Boolean,
        Integer,
        Text,
        and_,
        case,
        cast,
        delete,
        false,
        func,
        insert,
        literal,
        literal_column,
        not_,
        null,
        or_,
        select,
        text,
        true,
        tuple_,
        union,
        union_all,
        update,
    )
    from sqlalchemy.dialects.postgresql import insert as upsert
else:
    from jobmon.server.recording import named

    BigInteger = named("sqlalchemy", "BigInteger")
    Boolean = named("sqlalchemy", "Boolean")
    Integer = named("sqlalchemy", "Integer")
    Text = named("sqlalchemy", "Text")
    and_ = named("sqlalchemy", "and_")
    case = named("sqlalchemy", "case")
    cast = named("sqlalchemy", "cast")
    delete = named("sqlalchemy", "delete")
    false = named("sqlalchemy", "false")
    func = named("sqlalchemy", "func")
    insert = named("sqlalchemy", "insert")
    literal = named("sqlalchemy", "literal")
    literal_column = named("sqlalchemy", "literal_column")
    not_ = named("sqlalchemy", "not_")
    null = named("sqlalchemy", "null")
    or_ = named("sqlalchemy", "or_")
    select = named("sqlalchemy", "select")
    text = named("sqlalchemy", "text")
    true = named("sqlalchemy", "true")
    tuple_ = named("sqlalchemy", "tuple_")
    union = named("sqlalchemy", "union")
    union_all = named("sqlalchemy", "union_all")
    update = named("sqlalchemy", "update")
    #: An INSERT with `on_conflict_do_nothing` and `on_conflict_do_update`, which both databases write alike.
    upsert = named("sqlalchemy.dialects.postgresql", "insert")

__all__ = [
    "BigInteger",
    "Boolean",
    "Integer",
    "Text",
    "and_",
    "case",
    "cast",
    "delete",
    "false",
    "func",
    "insert",
    "literal",
    "literal_column",
    "not_",
    "null",
    "or_",
    "select",
    "text",
    "true",
    "tuple_",
    "union",
    "union_all",
    "update",
    "upsert",
]
