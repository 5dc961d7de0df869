"""The order in which people look at tasks: failed ones first, then held, running, waiting, done and skipped ones.

Each rank is a query of its own with a limit, so that a page of a large workflow reads few rows; ranks without tasks,
which the counts tell, are not queried. A filter by name reads all tasks, once.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from jobmon.core import fsm
from jobmon.core.constants import TaskStatus
from jobmon.server.constructs import and_, case, literal, not_
from jobmon.server.models import task

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement

t = task.c


class Rank(IntEnum):
    """Position in the order, the most important first."""

    FAILED = 0
    HELD = 1
    RUNNING = 2
    WAITING = 3
    DONE = 4
    SKIPPED = 5
    REMOVED = 6


_FIXED: Final[Mapping[TaskStatus, Rank]] = {
    TaskStatus.ERROR_FATAL: Rank.FAILED,
    TaskStatus.DONE: Rank.DONE,
    TaskStatus.SKIPPED: Rank.SKIPPED,
    TaskStatus.REMOVED: Rank.REMOVED,
}
#: Ranks with few tasks, as a rule, that no index has in order: they are sorted.
RARE: Final = (Rank.HELD, Rank.RUNNING)


def rank_of(status: str, *, held: bool) -> Rank:
    """Return the rank of a task."""
    fixed = _FIXED.get(TaskStatus(status))
    if fixed is not None:
        return fixed
    if held:
        return Rank.HELD
    return Rank.RUNNING if status in fsm.LAUNCHED_TASKS else Rank.WAITING


def statuses_of(rank: Rank) -> list[str]:
    """Return the statuses that tasks of a rank may have."""
    return [status.value for status in TaskStatus if any(rank_of(status, held=held) == rank for held in (False, True))]


def is_of(rank: Rank) -> ColumnElement[bool]:
    """Return the condition for tasks of a rank."""
    of_status = t.status.in_(statuses_of(rank))
    if rank is Rank.HELD:
        return and_(t.held, of_status)
    return and_(not_(t.held), of_status) if rank in (Rank.RUNNING, Rank.WAITING) else of_status


def rank_column() -> ColumnElement[int]:
    """Return the rank as an expression, for a filter that reads all tasks anyway."""
    return case(*((is_of(rank), literal(int(rank))) for rank in Rank), else_=literal(int(Rank.WAITING)))


def present(statuses: Collection[str], wanted: Collection[str], first: int) -> list[Rank]:
    """Return the ranks to query, in order.

    Args:
        statuses: statuses that tasks of the workflow have; REMOVED may be missing.
        wanted: only tasks with one of these; empty: all but removed ones.
        first: the rank with which to begin.
    """
    possible = set(statuses) & set(wanted) if wanted else set(statuses)
    if TaskStatus.REMOVED.value in wanted:
        possible.add(TaskStatus.REMOVED.value)
    return [rank for rank in Rank if rank >= first and possible.intersection(statuses_of(rank))]
