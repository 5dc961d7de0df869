"""Whether there is what a request names: an unknown id is refused, not answered with nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.server.problems import NotFound

if TYPE_CHECKING:
    from jobmon.server.sql import Session


def require(session: Session, table: str, identity: int) -> None:
    """Raise NotFound unless there is such a row; `table` is a word of ours, never of a request."""
    if session.value(f"SELECT id FROM {table} WHERE id = :id", id=identity) is None:
        raise NotFound.of(table.replace("_", " "), identity)
