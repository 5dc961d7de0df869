"""Adjust deadlines, which are times of day in the database, when the clock was set or reports could not be recorded.

When the clock jumps, all deadlines move with it. When the server was suspended or its database did not respond, they
move by the time it missed: nobody is late whom the server did not hear.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from jobmon.server import transitions
from jobmon.server.constructs import select, update
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, IS_ACTIVE_RUN
from jobmon.server.models import agent, cluster_watch, distributor, lease, task_instance, workflow_run
from jobmon.server.sql import param, statement, statements
from jobmon.server.transaction import last_stamp

if TYPE_CHECKING:
    from sqlalchemy import Column, Update

    from jobmon.server.transaction import Transaction

#: A smaller difference is no jump: clocks are regularly corrected by small amounts.
JUMP_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)

w = cluster_watch.c


def _later(*times: Column[int]) -> dict[str, Any]:
    return {time.name: time + param("delta") for time in times}


@statements
def _shift_all(*times: Column[int]) -> Update:
    """Move times (columns of one table) in all rows; a time that is not set stays unset."""
    return update(times[0].table).values(_later(*times))


@statement
def _shift_runs() -> Update:
    """Move the deadlines of active runs."""
    return update(workflow_run).values(_later(workflow_run.c.report_by)).where(IS_ACTIVE_RUN)


@statement
def _shift_attempts() -> Update:
    """Move the deadlines of attempts that may be running."""
    ti = task_instance.c
    taken = select(ti.id).select_from(ATTEMPTS_OF_WORKFLOW).where(ti.status.in_(transitions.TAKEN)).correlate(None)
    return update(task_instance).values(_later(ti.report_by)).where(ti.id.in_(taken))


def shift(tx: Transaction, seconds: float) -> None:
    """Move all deadlines, and the times compared with them, after the clock was set."""
    logger.warning("the clock was set: deadlines are shifted by %+.1f s", seconds)
    _move_deadlines(tx, int(seconds * 1e6))
    tx.run(_shift_all(w.began_at, w.looked_at, w.problem_at), delta=int(seconds * 1e6))


def prolong(tx: Transaction, seconds: float, cause: str) -> None:
    """Move all deadlines by a time in which nothing was recorded. Earlier views of a cluster do not become newer."""
    logger.warning("%s: deadlines are shifted by %+.1f s", cause, seconds)
    _move_deadlines(tx, int(seconds * 1e6))


def _move_deadlines(tx: Transaction, microseconds: int) -> None:
    tx.started_at += microseconds
    tx.run(_shift_runs, delta=microseconds)
    tx.run(_shift_attempts, delta=microseconds)
    for time in (distributor.c.seen_at, agent.c.seen_at, agent.c.report_by, lease.c.expires_at, w.expires_at):
        tx.run(_shift_all(time), delta=microseconds)


def begin(tx: Transaction) -> None:
    """At startup, move all deadlines back if the clock was set back while no server ran (the last stamp is ahead)."""
    ahead = (int(tx.value(last_stamp)) - tx.now) / 1e6
    if ahead > JUMP_SECONDS:
        shift(tx, -ahead)
        tx.started_at = tx.now
