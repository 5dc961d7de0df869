"""How the columns are stored: 64-bit ids; times as microseconds since 1970 in UTC.

A time is an integer in every database, because integers compare, index and add the same everywhere (the logical clock
adds one microsecond), and cost a tenth of a text to read. In Python the declarative models show aware datetimes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

from sqlalchemy import BigInteger, Integer, MetaData, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, mapped_column

if TYPE_CHECKING:
    from sqlalchemy import Dialect

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_microseconds(time: datetime) -> int:
    """Return the stored form of an aware time."""
    return (time - EPOCH) // _MICROSECOND


def to_datetime(microseconds: int) -> datetime:
    """Return the aware time of a stored one."""
    return EPOCH + timedelta(microseconds=microseconds)


class UtcMicroseconds(TypeDecorator[datetime]):
    """An aware datetime, stored as a 64-bit count of microseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To the database."""
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else to_datetime(value)


#: SQLite counts rows by itself only in a column that is called INTEGER; there it has 64 bits too.
BigId: Final = BigInteger().with_variant(Integer(), "sqlite")

Key = Annotated[int, mapped_column(BigId, primary_key=True, autoincrement=True)]
Hash = Annotated[str, mapped_column(String(64))]
Name = Annotated[str, mapped_column(String(255))]
Letter = Annotated[str, mapped_column(String(1))]
LongText = Annotated[str, mapped_column(Text)]
Time = Annotated[datetime, mapped_column(UtcMicroseconds)]


class Base(DeclarativeBase):
    """All tables. Constraints have names, so that migrations can change them in every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
