"""From which task on a workflow has tasks that wait, kept in memory and updated by what has changed since.

Tasks that wait are listed in the order of their IDs. In a large workflow there are hundreds of thousands of others
before them, which would be read for each reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.server.constructs import func, select
from jobmon.server.models import task
from jobmon.server.queries.importance import Rank, statuses_of
from jobmon.server.sql import param, statement
from jobmon.server.transaction import last_stamp

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

    from jobmon.server.sql import Session

#: Later than any task: none waits.
NEVER: Final = 2**62
BYTES: Final = 500

t = task.c
_WAITS: Final = t.status.in_(statuses_of(Rank.WAITING))


@statement
def _first_from() -> Select[Any]:
    wanted = t.workflow_id == param("workflow"), t.id >= param("first"), _WAITS
    return select(t.id).where(*wanted).order_by(t.id).limit(1)


@statement
def _first_of_changed() -> Select[Any]:
    """Select the first of the tasks that wait since some time, from an index."""
    first: ColumnElement[Any] = func.min(t.id)
    return select(first).where(t.workflow_id == param("workflow"), t.status_at > param("since"), _WAITS)


class Waiting:
    """The first task that waits, held or not (see the module docstring). Belongs to who holds its lock."""

    #: It is worth keeping.
    is_large = True
    bytes = BYTES

    def __init__(self, workflow_id: int) -> None:
        self._workflow_id = workflow_id
        self._first = self._stamp = 0

    def first(self, session: Session) -> int:
        """Return the ID of the first task that waits, in the snapshot of the session, or a later one: none does."""
        stamp: int = session.value(last_stamp)
        if stamp < self._stamp:
            self._first = 0
        elif self._stamp:
            again = session.value(_first_of_changed, workflow=self._workflow_id, since=self._stamp)
            self._first = min(self._first, NEVER if again is None else again)
        found = session.value(_first_from, workflow=self._workflow_id, first=self._first)
        self._first, self._stamp = NEVER if found is None else found, stamp
        return self._first
