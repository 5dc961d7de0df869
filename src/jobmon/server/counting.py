"""Count the tasks of each array by status. The writer maintains the counts, so that no reader counts tasks.

Every change of a task's status or array is noted in `Transaction.counts`; the transaction adds the differences to the
table `status_count` right before it commits.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskStatus
from jobmon.server.constructs import func, select, update, upsert
from jobmon.server.models import status_count, task
from jobmon.server.sql import param, statement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, Insert, Select, Update

    from jobmon.server.sql import Session

c = status_count.c
#: Counts that the writer knows to be stored; beyond this number it forgets them all and starts again.
STORED_MAX: Final = 100_000
_COLUMNS: Final = ("workflow_id", "array_id", "status", "number")


@statement
def _add() -> Insert:
    added = upsert(status_count).values({name: param(name) for name in _COLUMNS})
    changes = {"number": c.number + added.excluded.number}
    return added.on_conflict_do_update(index_elements=[c.workflow_id, c.array_id, c.status], set_=changes)


@statement
def _change() -> Update:
    """Change a stored count: half the cost of `_add`."""
    key = c.workflow_id == param("workflow_id"), c.array_id == param("array_id"), c.status == param("status")
    return update(status_count).values(number=c.number + param("number", c.number.type)).where(*key)


class StatusCounts:
    """The differences made by one transaction."""

    __slots__ = ("_differences", "_new", "_stored")

    def __init__(self) -> None:
        self._differences: dict[tuple[int, int, str], int] = {}
        #: Counts that are known to be stored, and those that will be once this transaction is committed.
        self._stored: set[tuple[int, int, str]] = set()
        self._new: list[tuple[int, int, str]] = []

    def add(self, workflow_id: int, array_id: int, status: str, number: int) -> None:
        """Add a number of tasks to a count; subtract if `number` is negative."""
        key = workflow_id, array_id, status
        self._differences[key] = self._differences.get(key, 0) + number

    def move(self, workflow_id: int, array_id: int, source: str, target: str, number: int = 1) -> None:
        """Note that tasks changed their status."""
        differences = self._differences
        before, after = (workflow_id, array_id, source), (workflow_id, array_id, target)
        differences[before] = differences.get(before, 0) - number
        differences[after] = differences.get(after, 0) + number

    def move_each(self, workflow_id: int, arrays: Iterable[int], source: str, target: str) -> None:
        """Note that tasks changed their status; `arrays` has one entry per task."""
        for array_id, number in Counter(arrays).items():
            self.move(workflow_id, array_id, source, target, number)

    def move_found(self, found: Iterable[tuple[int, int, str, int]], target: str) -> None:
        """Note that all tasks counted by `grouped` changed to one status."""
        for workflow_id, array_id, source, number in found:
            self.move(workflow_id, array_id, source, target, number)

    def failing(self) -> list[int]:
        """Return the workflows of which more tasks have failed after this transaction than before it."""
        more: dict[int, int] = {}
        for (workflow_id, _, status), number in self._differences.items():
            if status == TaskStatus.ERROR_FATAL:
                more[workflow_id] = more.get(workflow_id, 0) + number
        return [workflow_id for workflow_id, number in more.items() if number > 0]

    def write(self, session: Session) -> None:
        """Add the differences to the stored counts."""
        if not self._differences:
            return
        known = self._stored
        rows = [(*key, number) for key, number in self._differences.items() if number and key in known]
        self._new = [key for key, number in self._differences.items() if number and key not in known]
        session.run_many(_change, _COLUMNS, rows)
        session.run_many(_add, _COLUMNS, [(*key, self._differences[key]) for key in sorted(self._new)])
        self._differences.clear()

    def settle(self) -> None:
        """Note that the written counts are committed."""
        if self._new:
            if len(self._stored) > STORED_MAX:
                self._stored.clear()
            self._stored.update(self._new)
            self._new = []

    def clear(self) -> None:
        """Discard the differences: a transaction begins, or is rolled back."""
        self._differences.clear()
        self._new = []

    def forget_stored(self) -> None:
        """Forget which counts are stored, because some were deleted."""
        self._stored.clear()


def grouped(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Count the tasks that match these conditions by workflow, array and status, before an update changes them."""
    t = task.c
    by = t.workflow_id, t.array_id, t.status
    return select(*by, func.count()).where(*conditions).group_by(*by)


@statement
def _of_workflow() -> Select[Any]:
    is_part = c.status != TaskStatus.REMOVED.value, c.number > 0
    return select(c.array_id, c.status, c.number).where(c.workflow_id == param("workflow"), *is_part)


def counts_by_array(session: Session, workflow_id: int) -> dict[int, dict[str, int]]:
    """Return the number of tasks of a workflow by array and status; removed tasks do not count."""
    counts: dict[int, dict[str, int]] = {}
    for array_id, status, number in session.rows(_of_workflow, workflow=workflow_id):
        counts.setdefault(array_id, {})[status] = number
    return counts
