"""Reject requests that name an unknown ID, instead of returning an empty response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.server.constructs import select
from jobmon.server.models import TABLES
from jobmon.server.problems import NotFound
from jobmon.server.sql import param, statements

if TYPE_CHECKING:
    from sqlalchemy import Select, Table

    from jobmon.server.sql import Session


@statements
def _row_of(table: Table) -> Select[Any]:
    return select(table.c.id).where(table.c.id == param("id"))


def require(session: Session, table: str, identity: int) -> None:
    """Raise NotFound unless the table of that name has a row with that ID."""
    if session.value(_row_of(TABLES[table]), id=identity) is None:
        raise NotFound.of(table.replace("_", " "), identity)
