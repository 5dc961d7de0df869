"""The failures of a workflow, brought together by what they have in common (`core.failures`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import failures as judging
from jobmon.core import fsm
from jobmon.core.constants import TaskInstanceStatus, TaskStatus
from jobmon.core.fsm import Machine
from jobmon.core.wire.failures import FailureConcentration, FailureGroup, FailuresResponse
from jobmon.server.models.types import to_datetime
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.presence import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.server.sql import Session

#: Of more failures only the newest count; and of the attempts only those that are among the newest of the server.
FAILURES_MAX: Final = 10_000
ATTEMPTS_MAX: Final = 100_000
GROUPS_MAX: Final = 1_000
ERROR_CHARACTERS: Final = 1_000
#: So many values of arguments, those with most failures, are compared with all tasks.
VALUES_MAX: Final = 10
#: Fewer failures than this concentrate on nothing.
FAILED_MIN: Final = 3
CONCENTRATIONS_MAX: Final = 5
_FAILED: Final = sorted(fsm.TERMINAL[Machine.TASK_INSTANCE] - {TaskInstanceStatus.DONE})
_ENDED: Final = sorted(fsm.TERMINAL[Machine.TASK_INSTANCE])
_ENDED_TASKS: Final = [TaskStatus.DONE.value, TaskStatus.ERROR_FATAL.value]

_NEWEST: Final = """
SELECT ti.id, ti.task_id, t.name, a.name, ti.ended_at, ti.error, ti.cause, ti.exit_code, ti.exit_signal, ti.host
FROM task_instance ti JOIN task t ON t.id = ti.task_id JOIN task_array a ON a.id = t.array_id
WHERE ti.id IN (:ids...) ORDER BY ti.id DESC
"""
_HOSTS: Final = """
SELECT host, SUM(CASE WHEN status IN (:failed...) THEN 1 ELSE 0 END), COUNT(*) FROM task_instance
WHERE id > (
    SELECT MAX(ti.id) FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
    WHERE r.workflow_id = :workflow) - :most
AND +workflow_run_id IN (SELECT id FROM workflow_run WHERE workflow_id = :workflow)
AND status IN (:ended...) AND host IS NOT NULL GROUP BY host
"""
_VALUES: Final = """
SELECT x.argument_id, g.name, x.value, COUNT(*) FROM {table} x JOIN argument g ON g.id = x.argument_id
WHERE x.{key} IN (:owners...) GROUP BY x.argument_id, g.name, x.value ORDER BY COUNT(*) DESC, x.argument_id
"""
_COUNT_OF_NODE_ARG: Final = """
SELECT COUNT(*) FROM node_arg x JOIN task t ON t.node_id = x.node_id AND t.workflow_id = :workflow
WHERE x.argument_id = :argument AND x.value = :value AND t.status IN (:ended...)
"""
_COUNT_OF_TASK_ARG: Final = """
SELECT COUNT(*) FROM task_arg x JOIN task t ON t.id = x.task_id
WHERE x.argument_id = :argument AND x.value = :value AND t.workflow_id = :workflow AND t.status IN (:ended...)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresQuery:
    """How many groups."""

    limit: int = 100


def workflow_failures(session: Session, workflow_id: int, query: FailuresQuery) -> FailuresResponse:
    """Return what the failures of a workflow have in common."""
    if not 0 < query.limit <= GROUPS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {GROUPS_MAX}.")
    require(session, "workflow", workflow_id)
    failures = _failures(session, workflow_id)
    groups = judging.grouped(failures)
    return FailuresResponse(
        workflow_id=workflow_id,
        failures=len(failures),
        is_cut=len(failures) == FAILURES_MAX,
        group_count=len(groups),
        groups=[_group(group, len(failures)) for group in groups[: query.limit]],
        concentrations=_concentrations(session, workflow_id) if len(failures) >= FAILED_MIN else [],
    )


def _failures(session: Session, workflow_id: int) -> list[judging.Failure]:
    ids = session.column(
        """
        SELECT ti.id FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        WHERE r.workflow_id = :workflow AND ti.status IN (:failed...) ORDER BY ti.id DESC LIMIT :most
        """,
        workflow=workflow_id,
        failed=_FAILED,
        most=FAILURES_MAX,
    )
    return [_failure(row) for row in session.rows(_NEWEST, ids=ids)]


def _failure(row: Sequence[Any]) -> judging.Failure:
    return judging.Failure(
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


def _group(group: judging.Group, failures: int) -> FailureGroup:
    return FailureGroup(
        template=group.template,
        ending=group.ending,
        cause=group.cause,
        message=group.message,
        count=group.count,
        share=group.count / failures,
        first_at=group.first_at,
        last_at=group.last_at,
        hosts=dict(group.hosts),
        task_id=group.example.task_id,
        task_name=group.example.task_name,
        task_instance_id=group.example.attempt_id,
        example=group.example.message,
    )


def _concentrations(session: Session, workflow_id: int) -> list[FailureConcentration]:
    """Judge hosts by attempts and values by tasks; the correction is for both together."""
    hosts = _host_shares(session, workflow_id)
    values, value_count = _value_shares(session, workflow_id)
    tried = sum(1 for share in hosts if share.failed) + value_count
    attempts_failed, attempts = sum(share.failed for share in hosts), sum(share.count for share in hosts)
    failed, ended = _task_counts(session, workflow_id)
    found = [
        *judging.concentrations(hosts, attempts_failed, attempts, tried),
        *judging.concentrations(values, failed, ended, tried),
    ]
    found.sort(key=lambda one: one.chance)
    return [_concentration(one) for one in found[:CONCENTRATIONS_MAX]]


def _concentration(found: judging.Concentration) -> FailureConcentration:
    return FailureConcentration(
        what=found.share.what,
        value=found.share.value,
        failed=found.share.failed,
        failures=found.failures,
        count=found.share.count,
        total=found.total,
        chance=found.chance,
    )


def _host_shares(session: Session, workflow_id: int) -> list[judging.Share]:
    rows = session.rows(_HOSTS, workflow=workflow_id, failed=_FAILED, ended=_ENDED, most=ATTEMPTS_MAX)
    return [judging.Share(what="host", value=host, failed=int(failed), count=count) for host, failed, count in rows]


def _task_counts(session: Session, workflow_id: int) -> tuple[int, int]:
    """Return how many tasks failed for good, and how many ended."""
    counts = dict(
        session.rows(
            "SELECT status, COUNT(*) FROM task WHERE workflow_id = :id AND status IN (:ended...) GROUP BY status",
            id=workflow_id,
            ended=_ENDED_TASKS,
        )
    )
    return counts.get(TaskStatus.ERROR_FATAL.value, 0), sum(counts.values())


def _value_shares(session: Session, workflow_id: int) -> tuple[list[judging.Share], int]:
    """Return the values that most failed tasks have, and how many values there were to choose from."""
    rows = session.rows(
        # `+`: the few that failed are sorted, instead of all tasks being read in order
        "SELECT id, node_id FROM task WHERE workflow_id = :id AND status = :fatal ORDER BY +id DESC LIMIT :most",
        id=workflow_id,
        fatal=TaskStatus.ERROR_FATAL.value,
        most=FAILURES_MAX,
    )
    if not FAILED_MIN <= len(rows) < FAILURES_MAX:
        return [], 0
    nodes = session.rows(_VALUES.format(table="node_arg", key="node_id"), owners=[row[1] for row in rows])
    tasks = session.rows(_VALUES.format(table="task_arg", key="task_id"), owners=[row[0] for row in rows])
    named = [(_COUNT_OF_NODE_ARG, row) for row in nodes] + [(_COUNT_OF_TASK_ARG, row) for row in tasks]
    chosen = sorted(named, key=lambda one: -one[1][3])[:VALUES_MAX]
    shares = [_value_share(session, workflow_id, sql, row) for sql, row in chosen if row[3] >= FAILED_MIN]
    return shares, len(named)


def _value_share(session: Session, workflow_id: int, sql: str, row: Sequence[Any]) -> judging.Share:
    argument_id, name, value, failed = row
    count = session.value(sql, workflow=workflow_id, argument=argument_id, value=value, ended=_ENDED_TASKS)
    return judging.Share(what=name, value=value, failed=failed, count=int(count))
