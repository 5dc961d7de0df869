"""How columns are stored: IDs with 64 bits; times as microseconds since 1970 in UTC."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Integer, MetaData, String, Text, text

from jobmon.core.constants import TaskKind

#: Key in the `info` of an index or foreign key that exists only in one dialect: the name of that dialect.
DIALECT: Final = "dialect"

#: The `info` of a reference that PostgreSQL checks by triggers, once per statement; see `migrations.references`.
BY_TRIGGER: Final = {DIALECT: "sqlite"}

#: SQLite generates IDs only in a column of type INTEGER, which has 64 bits there.
BigId: Final = BigInteger().with_variant(Integer(), "sqlite")

Hash: Final = String(64)
Name: Final = String(255)
Letter: Final = String(1)
LongText: Final = Text()
#: Microseconds since 1970 in UTC.
Time: Final = BigInteger()
#: The rows that an index of priorities contains; a query must have the same condition, without a parameter, to use it.
IS_PRIORITIZED: Final = text("priority <> 0")
#: The same for the tasks that expansions added, and for the expansions themselves.
IS_ADDED: Final = text("origin_id IS NOT NULL")
IS_EXPANSION: Final = text(f"kind = '{TaskKind.EXPANSION.value}'")

#: All tables. Constraints have names, so that migrations can change them in every database.
metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
