"""Return the space of deleted rows to the file system: rewrite an SQLite database without its unused pages.

The writer does nothing else meanwhile, so nothing may run, and it takes at most `SECONDS_MAX`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Actor
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire.server import CompactResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.core.wire.server import CompactRequest
    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

#: Longest time for rewriting the database, seconds.
SECONDS_MAX: Final = 120.0
#: It is rewritten after a purge if at least this share of it is unused.
FREE_SHARE_MIN: Final = 0.1
#: While it is rewritten, there are three copies: the database, a temporary one, and the write-ahead log.
COPIES: Final = 2
GIB: Final = 1024**3


def compact(
    session: Session, request: CompactRequest, path: str | None, is_anything_alive: Callable[[Session], bool]
) -> CompactResponse:
    """Rewrite the database if it is an SQLite database.

    Args:
        session: the writer's session, outside a transaction.
        request: whether to do it in any case.
        path: the file of an SQLite database.
        is_anything_alive: returns whether a run or an attempt is alive.

    Raises:
        InvalidRequest: something is running, there is no space for the copies, or it takes too long.
    """
    before, free = session.database_bytes(), session.free_bytes()
    if before is None or free is None:
        return CompactResponse(database=session.dialect)
    unchanged = CompactResponse(database=session.dialect, bytes_before=before, bytes_after=before)
    if request.only_if_useful and free < FREE_SHARE_MIN * before:
        return unchanged
    if is_anything_alive(session):
        raise InvalidRequest(
            "A workflow is running, and the server cannot serve it while it compacts its database. Once nothing runs:"
            " jobmon db compact"
        )
    _require_space(path, COPIES * (before - free))
    if not session.vacuum(SECONDS_MAX):
        raise InvalidRequest(
            f"The database has {before / GIB:.1f} GiB, and rewriting it takes longer than {SECONDS_MAX:g} s: it is"
            f" unchanged. Stop the server (jobmon server stop), then: sqlite3 {path} VACUUM"
        )
    return CompactResponse(database=session.dialect, bytes_before=before, bytes_after=session.database_bytes())


def record(tx: Transaction, response: CompactResponse) -> None:
    """Record in the audit trail that the database was rewritten."""
    if response.bytes_after != response.bytes_before:
        tx.audit(Actor.USER, "compact", None, before=response.bytes_before, after=response.bytes_after)


def _require_space(path: str | None, needed: int) -> None:
    free = needed if path is None else shutil.disk_usage(Path(path).parent).free
    if free < needed:
        raise InvalidRequest(
            f"Rewriting the database needs {needed / GIB:.1f} GiB next to {path}, where {free / GIB:.1f} GiB are free."
            " Free some space there, then: jobmon db compact"
        )
