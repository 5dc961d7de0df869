"""The status of every task of a workflow as one byte, kept in memory and updated by what has changed.

Tasks are in the order of their IDs. They are read in pages, the first time; what changes meanwhile is applied when all
are read, and from then on for each reader. If tasks were removed or moved to another array, all are read again.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobmon.core.constants import TaskStatus
from jobmon.server.constructs import BigInteger, Text, cast, func, select, tuple_
from jobmon.server.joins import IS_IN_WORKFLOW
from jobmon.server.models import task
from jobmon.server.sql import param, statement
from jobmon.server.transaction import last_stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Select

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
    """Select the next tasks as three texts: a row for each would cost four times as much, most of it for Python."""
    wanted = t.workflow_id == param("workflow"), t.id > param("after"), IS_IN_WORKFLOW
    page = select(t.id, t.array_id, t.status).where(*wanted).order_by(t.id).limit(param("most")).subquery("page").c
    numbers = [cast(page.id, Text), cast(page.array_id, Text)]
    texts: list[ColumnElement[Any]] = [func.aggregate_strings(column, ",") for column in numbers]
    return select(*texts, func.aggregate_strings(page.status, ""))


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
            row = session.row(_page, workflow=self._workflow_id, after=self.last, most=READ_MAX)
            self.is_whole = self._append_texts(*(text or "" for text in row or ("", "", ""))) < READ_MAX
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
                self._append(array_id, task_id, letter)
            return True
        at = bisect_right(self._firsts, task_id) - 1
        place = self._starts[at] + task_id - self._firsts[at]
        if at < 0 or place >= self._starts[at + 1]:
            return bool(letter == _REMOVED)
        if letter == _REMOVED or self._arrays[at] != array_id:
            return False
        self._letters[place] = ord(letter)
        return True

    def _append_texts(self, id_text: str, array_text: str, letters: str) -> int:
        """Append tasks whose columns are given as texts; return their number."""
        if not letters:
            return 0
        ids, arrays = list(map(int, id_text.split(","))), list(map(int, array_text.split(",")))
        if ids[-1] - ids[0] + 1 == len(ids) and ids == sorted(ids):
            first = ids[0]
            for array_id, group in groupby(arrays):
                number = len(list(group))
                self._append(array_id, first, letters[first - ids[0] : first - ids[0] + number])
                first += number
        else:  # a database may add up texts in any order, but all in the same one
            for task_id, array_id, letter in sorted(zip(ids, arrays, letters, strict=True)):
                self._append(array_id, task_id, letter)
        return len(ids)

    def _append(self, array_id: int, first: int, letters: str) -> None:
        """Append tasks of one array with consecutive IDs, all of which are higher than those before."""
        if self._arrays and self._arrays[-1] == array_id and first == self.last + 1:
            self._starts[-1] += len(letters)
        else:
            self._arrays.append(array_id)
            self._firsts.append(first)
            self._starts.append(self._starts[-1] + len(letters))
        self._letters += letters.encode()

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
