"""The newest failures of a workflow in groups that are alike, kept in memory and updated by what has failed since.

A failed attempt does not change any more, so it is read once. New ones are found by their IDs: an attempt that had
ended at an earlier look cannot fail later, so only those from the oldest one that was live then are looked through.
After an action of a user all IDs are, because tasks may have been deleted. All failures are read again after some time,
because a task may move to another template, and earlier if the usage of ended attempts became known late, with the host
that measured it.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.failures import Failure, Groups
from jobmon.server.constructs import func, select
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, ATTEMPTS_WITH_TASKS, IS_FAILURE
from jobmon.server.models import task, task_array, task_instance, workflow_run
from jobmon.server.queries.blocked import newest_action
from jobmon.server.sql import any_of, param, statement, unindexed
from jobmon.server.times import to_datetime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select

    from jobmon.server.sql import Session

#: Only the newest failures are considered.
FAILURES_MAX: Final = 10_000
#: With fewer failures, they are read for each reader.
KEPT_FAILURES_MIN: Final = 200
ERROR_CHARACTERS: Final = 1_000
#: Failures are used for so long, and if something became known late.
AGE_SECONDS_MAX: Final = 600.0
OUTDATED_SECONDS_MAX: Final = 60.0
#: With more failures among the attempts that are looked through, at least, it is determined anew which ones have ended.
LISTED_MAX: Final = 100
#: Memory of a failure without its message.
FAILURE_BYTES: Final = 1_000

t, ti = task.c, task_instance.c


@statement
def _newest_failed() -> Select[Any]:
    """Select the newest failed attempts of a workflow after a certain one."""
    return (
        select(ti.id)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(
            workflow_run.c.workflow_id == param("workflow"),
            IS_FAILURE,
            unindexed(ti.status).in_(fsm.FAILED),
            ti.id > param("after"),
        )
        .order_by(ti.id.desc())
        .limit(param("most"))
    )


@statement
def _oldest_live() -> Select[Any]:
    of_workflow = workflow_run.c.workflow_id == param("workflow")
    oldest: ColumnElement[Any] = func.min(ti.id)
    return select(oldest).select_from(ATTEMPTS_OF_WORKFLOW).where(of_workflow, ti.status.in_(fsm.LIVE))


@statement
def _newest() -> Select[Any]:
    newest: ColumnElement[Any] = func.max(ti.id)
    return select(newest)


@statement
def _described() -> Select[Any]:
    """Select attempts with the columns that describe their failure; see `_failure`."""
    a = task_array.c
    return (
        select(
            *(ti.id, ti.task_id, t.name, a.name, ti.ended_at, ti.error, ti.cause, ti.exit_code, ti.exit_signal),
            ti.host,
        )
        .select_from(ATTEMPTS_WITH_TASKS.join(task_array, a.id == t.array_id))
        .where(any_of(ti.id, "ids"))
        .order_by(ti.id.desc())
    )


class Failed:
    """The failures (see the module docstring). Belongs to who holds its lock in `server.kept`."""

    def __init__(self, workflow_id: int) -> None:
        self._workflow_id = workflow_id
        self.groups = Groups()
        #: Whether something became known late.
        self.is_outdated = False
        self._began_at: float | None = None
        #: The attempts, as a heap from the oldest.
        self._ids: list[int] = []
        #: Attempts up to this one had ended when it was determined, and the newest action then.
        self._ended_until = 0
        self._listed_max = LISTED_MAX
        self._action: object = None

    @property
    def is_large(self) -> bool:
        """Whether they are worth keeping."""
        return len(self.groups.attempt_ids) >= KEPT_FAILURES_MIN

    @property
    def bytes(self) -> int:
        """Memory that they take, about."""
        return (FAILURE_BYTES + ERROR_CHARACTERS // 2) * len(self.groups.attempt_ids)

    def catch_up(self, session: Session, monotonic: float) -> None:
        """Read what has failed, up to the snapshot of the session."""
        age = None if self._began_at is None else monotonic - self._began_at
        if age is None or age >= (OUTDATED_SECONDS_MAX if self.is_outdated else AGE_SECONDS_MAX):
            self.groups, self.is_outdated, self._began_at = Groups(), False, monotonic
            self._ids, self._ended_until = [], 0
        action = newest_action(session, self._workflow_id)
        if action != self._action:
            self._ended_until, self._action = 0, action
        after, known = self._ended_until, self.groups.attempt_ids
        ids = session.column(_newest_failed, workflow=self._workflow_id, after=after, most=FAILURES_MAX)
        if not after:
            self._keep_only(set(ids))
        new = [attempt_id for attempt_id in ids if attempt_id not in known]
        for row in session.rows(_described, ids=new) if new else ():
            self.groups.add(_failure(row))
            heapq.heappush(self._ids, row[0])
        while len(known) > FAILURES_MAX:
            self.groups.discard(heapq.heappop(self._ids))
        if len(ids) > self._listed_max:
            oldest = session.value(_oldest_live, workflow=self._workflow_id)
            self._ended_until = (session.value(_newest) or 0) if oldest is None else oldest - 1
            # an attempt that is live for long keeps many after it from counting as ended
            self._listed_max = max(LISTED_MAX, 2 * sum(attempt_id > self._ended_until for attempt_id in ids))

    def _keep_only(self, ids: set[int]) -> None:
        """Discard the failures of other attempts: their tasks were purged, or there are too many newer ones."""
        for attempt_id in self.groups.attempt_ids - ids:
            self.groups.discard(attempt_id)
        self._ids = sorted(self.groups.attempt_ids)


def _failure(row: Sequence[Any]) -> Failure:
    return Failure(
        attempt_id=row[0],
        task_id=row[1],
        task_name=row[2],
        template=row[3],
        ended_at=to_datetime(row[4] or 0),
        message=(row[5] or "")[-ERROR_CHARACTERS:],
        cause=row[6] or "",
        exit_code=row[7],
        signal=row[8],
        host=row[9] or "",
    )
