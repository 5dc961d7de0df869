"""Deadlines are times of day in the database; they must not pass because a clock was set or the server was asleep.

When the clock jumps, all deadlines jump with it; when the server could hear nobody, they wait as long.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from jobmon.server import transitions

if TYPE_CHECKING:
    from jobmon.server.transaction import Transaction

#: Less than this is no jump: clocks are corrected a little now and then.
JUMP_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


def shift(tx: Transaction, seconds: float) -> None:
    """The clock was set: move all deadlines, and what is compared with them."""
    logger.warning("the clock was set: deadlines move by %+.1f s", seconds)
    _move_deadlines(tx, int(seconds * 1e6))
    tx.run(
        "UPDATE cluster_watch SET began_at = began_at + :delta, looked_at = looked_at + :delta, "
        "problem_at = problem_at + :delta",
        delta=int(seconds * 1e6),
    )


def prolong(tx: Transaction, seconds: float) -> None:
    """The server was asleep: move all deadlines. What was seen of a cluster before has grown old all the same."""
    logger.warning("the server was asleep: deadlines move by %+.1f s", seconds)
    _move_deadlines(tx, int(seconds * 1e6))


def _move_deadlines(tx: Transaction, microseconds: int) -> None:
    tx.started_at += microseconds
    tx.run(
        "UPDATE workflow_run SET report_by = report_by + :delta WHERE status NOT IN (:final...)",
        delta=microseconds,
        final=transitions.FINAL_RUNS,
    )
    tx.run(
        """
        UPDATE task_instance SET report_by = report_by + :delta WHERE id IN (
            SELECT ti.id FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
            WHERE ti.status IN (:taken...))
        """,
        delta=microseconds,
        taken=transitions.TAKEN,
    )
    tx.run("UPDATE distributor SET seen_at = seen_at + :delta", delta=microseconds)
    tx.run("UPDATE lease SET expires_at = expires_at + :delta", delta=microseconds)
    tx.run("UPDATE cluster_watch SET expires_at = expires_at + :delta", delta=microseconds)


def begin(tx: Transaction) -> None:
    """At the start: where the last stamp lies ahead, the clock was set back while no server ran."""
    ahead = (int(tx.value("SELECT stamp FROM logical_clock WHERE id = 1")) - tx.now) / 1e6
    if ahead > JUMP_SECONDS:
        shift(tx, -ahead)
        tx.started_at = tx.now
