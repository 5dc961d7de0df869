"""The status of every task of a workflow as one byte, kept in memory and updated by what has changed.

Tasks are in the order of their IDs. They are read in pages, the first time; what changes meanwhile is applied when all
are read, and from then on for each reader. If tasks were removed or moved to another array, all are read again.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobmon.core.constants import TaskStatus
from jobmon.server.constructs import BigInteger, select, tuple_
from jobmon.server.joins import IS_IN_WORKFLOW
from jobmon.server.models import task
from jobmon.server.sql import param, statement
from jobmon.server.transaction import last_stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Select

    from jobmon.server.sql import Session

#: Number of tasks that one statement reads, at first or of those that changed: about a tenth of a second.
READ_MAX: Final = 50_000
#: With fewer tasks, they are read for each reader.
KEPT_TASKS_MIN: Final = 20_000
#: Memory of a run of tasks.
RUN_BYTES: Final = 32
_REMOVED: Final = TaskStatus.REMOVED.value

t = task.c


class Run(NamedTuple):
    """Tasks of one array with consecutive IDs."""

    array_id: int
    first: int
    number: int


@statement
def _page() -> Select[Any]:
    wanted = t.workflow_id == param("workflow"), t.id > param("after"), IS_IN_WORKFLOW
    return select(t.id, t.array_id, t.status).where(*wanted).order_by(t.id).limit(param("most"))


@statement
def _changes() -> Select[Any]:
    """Select the tasks that changed after a task at a time, including removed ones, in the order of the changes."""
    since = tuple_(param("since", BigInteger), param("after", BigInteger))
    wanted = t.workflow_id == param("workflow"), tuple_(t.status_at, t.id) > since
    found = select(t.id, t.array_id, t.status, t.status_at).where(*wanted)
    return found.order_by(t.status_at, t.id).limit(param("most"))


class Letters:
    """The statuses (see the module docstring). Belongs to who holds the lock of `server.kept`."""

    def __init__(self, workflow_id: int) -> None:
        self._workflow_id = workflow_id
        self._clear()

    def _clear(self) -> None:
        #: Logical time up to which all changes are known.
        self.snapshot = 0
        #: Whether all tasks have been read.
        self.is_whole = False
        self._letters = bytearray()
        self._arrays, self._firsts = array("q"), array("q")
        #: Where the letters of a run begin, and at last where they end.
        self._starts = array("q", [0])

    def __len__(self) -> int:
        return len(self._letters)

    @property
    def is_large(self) -> bool:
        """Whether they are worth keeping."""
        return len(self) >= KEPT_TASKS_MIN

    @property
    def bytes(self) -> int:
        """Memory that they take, about."""
        return len(self) + RUN_BYTES * len(self._arrays)

    @property
    def last(self) -> int:
        """ID of the last task; 0: there is none."""
        return self._firsts[-1] + self._starts[-1] - self._starts[-2] - 1 if self._firsts else 0

    def catch_up(self, session: Session, has_time: Callable[[], bool]) -> None:
        """Read what is missing, up to the snapshot of the session, or as long as there is time; see `is_whole`."""
        stamp = session.value(last_stamp)
        self.snapshot = self.snapshot or stamp
        while not self.is_whole:
            rows = session.rows(_page, workflow=self._workflow_id, after=self.last, most=READ_MAX)
            self._append(rows)
            self.is_whole = len(rows) < READ_MAX
            if not self.is_whole and not has_time():
                return
        if self.snapshot < stamp and not self._follow(session, stamp):
            self._clear()
            self.catch_up(session, has_time)

    def _follow(self, session: Session, stamp: int) -> bool:
        """Apply the changes up to the snapshot of the session; return False if all must be read again."""
        since, after = self.snapshot, 2**63 - 1
        while True:
            rows = session.rows(_changes, workflow=self._workflow_id, since=since, after=after, most=READ_MAX)
            if not all(self._apply(row) for row in sorted(rows)):
                return False
            if len(rows) < READ_MAX:
                self.snapshot = stamp
                return True
            after, since = rows[-1][0], rows[-1][3]

    def _apply(self, row: Sequence[Any]) -> bool:
        task_id, array_id, letter, _ = row
        if task_id > self.last:
            if letter != _REMOVED:
                self._append([(task_id, array_id, letter)])
            return True
        at = bisect_right(self._firsts, task_id) - 1
        place = self._starts[at] + task_id - self._firsts[at]
        if at < 0 or place >= self._starts[at + 1]:
            return bool(letter == _REMOVED)
        if letter == _REMOVED or self._arrays[at] != array_id:
            return False
        self._letters[place] = ord(letter)
        return True

    def _append(self, rows: Iterable[Sequence[Any]]) -> None:
        """Append tasks, in the order of their IDs."""
        rows = list(rows)
        ends, total = self._starts, len(self._letters)
        array_id, following = (self._arrays[-1], self.last + 1) if self._arrays else (0, 0)
        for found_id, found_array, _ in rows:
            if found_id != following or found_array != array_id:
                self._arrays.append(found_array)
                self._firsts.append(found_id)
                ends.append(total)
                array_id = found_array
            following = found_id + 1
            total += 1
            ends[-1] = total
        self._letters += "".join([row[2] for row in rows]).encode()

    def page(self, after: int, tasks_max: int, runs_max: int) -> tuple[list[Run], str, bool]:
        """Return the runs and letters of the next tasks, and whether there are more that have been read."""
        at = max(0, bisect_right(self._firsts, after) - 1)
        runs: list[Run] = []
        total = 0
        begin = None
        while at < len(self._firsts) and len(runs) < runs_max and total < tasks_max:
            skipped = max(0, after + 1 - self._firsts[at])
            start, count = self._starts[at] + skipped, self._starts[at + 1] - self._starts[at] - skipped
            if count > 0:
                begin = start if begin is None else begin
                count = min(count, tasks_max - total)
                runs.append(Run(self._arrays[at], self._firsts[at] + skipped, count))
                total += count
            at += 1
        begin = begin or 0
        letters = self._letters[begin : begin + total].decode()
        return runs, letters, begin + total < len(self._letters) if runs else False
