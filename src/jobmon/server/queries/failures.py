"""The failures of a workflow, grouped by what they have in common (`core.failures`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import failures as judging
from jobmon.core import fsm
from jobmon.core.constants import TaskStatus
from jobmon.core.outcomes import uncharged_text
from jobmon.core.wire.failures import FailureConcentration, FailureGroup, FailuresResponse
from jobmon.server.constructs import BigInteger, func, select
from jobmon.server.counting import counts_by_array
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, ATTEMPTS_WITH_TASKS, IS_FAILURE, IS_FATAL
from jobmon.server.models import argument, node_arg, task, task_arg, task_array, task_instance, workflow_run
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.presence import require
from jobmon.server.sql import any_of, param, statement, statements, unindexed
from jobmon.server.times import to_datetime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select, Table

    from jobmon.server.recent import Recent
    from jobmon.server.sql import Session

#: Only the newest failures are considered, and attempts only if they are among the newest of the whole server.
FAILURES_MAX: Final = 10_000
ATTEMPTS_MAX: Final = 100_000
GROUPS_MAX: Final = 1_000
#: Maximum age of what is reused in a large workflow: texts of known failures, and what failures share.
REUSED_SECONDS_MAX: Final = 60.0
ERROR_CHARACTERS: Final = 1_000
#: Number of argument values, those with the most failures, that are compared with all tasks.
VALUES_MAX: Final = 10
#: Minimum number of failures for a concentration.
FAILED_MIN: Final = 3
CONCENTRATIONS_MAX: Final = 5

t, ti = task.c, task_instance.c
#: By table of argument values: the column of their owner, and the column of `task` with the same ID.
_OWNERS: Final = {node_arg: (node_arg.c.node_id, t.node_id), task_arg: (task_arg.c.task_id, t.id)}


@statement
def _newest_failed() -> Select[Any]:
    """Select the newest failed attempts of a workflow."""
    return (
        select(ti.id)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(workflow_run.c.workflow_id == param("workflow"), IS_FAILURE, unindexed(ti.status).in_(fsm.FAILED))
        .order_by(ti.id.desc())
        .limit(param("most"))
    )


@statement
def _uncharged() -> Select[Any]:
    """Select the causes of a workflow's newest attempts that do not count as failures, and whether they had started."""
    return (
        select(ti.cause, ti.started_at.is_not(None))
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(workflow_run.c.workflow_id == param("workflow"), ti.status.in_(fsm.FAILED), ~ti.charged)
        .order_by(ti.id.desc())
        .limit(param("most"))
    )


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


@statement
def _hosts() -> Select[Any]:
    """Select failed and ended attempts of a workflow by host, among the newest attempts of the server."""
    r = workflow_run.c
    newest = (
        select(func.max(ti.id))
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(r.workflow_id == param("workflow"))
        .correlate(None)
        .scalar_subquery()
    )
    runs = select(r.id).where(r.workflow_id == param("workflow"))
    return (
        select(ti.host, func.count().filter(ti.status.in_(fsm.FAILED)), func.count())
        .where(
            ti.id > newest - param("most", BigInteger),
            unindexed(ti.workflow_run_id).in_(runs),
            ti.status.in_(fsm.ENDED),
            ti.host.is_not(None),
        )
        .group_by(ti.host)
    )


@statement
def _fatal_tasks() -> Select[Any]:
    """Select the newest failed tasks. SQLite sorts these few instead of reading all tasks in order."""
    return (
        select(t.id, t.node_id)
        .where(t.workflow_id == param("workflow"), IS_FATAL)
        .order_by(unindexed(t.id).desc())
        .limit(param("most"))
    )


@statements
def _values(table: Table) -> Select[Any]:
    """Select the argument values of tasks or nodes, the most frequent first."""
    x, (owner, _) = table.c, _OWNERS[table]
    return (
        select(x.argument_id, argument.c.name, x.value, func.count())
        .join_from(table, argument, argument.c.id == x.argument_id)
        .where(any_of(owner, "owners"))
        .group_by(x.argument_id, argument.c.name, x.value)
        .order_by(func.count().desc(), x.argument_id, x.value)
    )


@statements
def _ended_with_value(table: Table) -> Select[Any]:
    """Select the number of ended tasks of a workflow with an argument value."""
    x, (owner, of_task) = table.c, _OWNERS[table]
    return (
        select(func.count())
        .join_from(table, task, owner == of_task)
        .where(
            x.argument_id == param("argument"),
            x.value == param("value"),
            t.workflow_id == param("workflow"),
            t.status.in_(fsm.CONCLUDED),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresQuery:
    """Maximum number of groups to return."""

    limit: int = 100


def workflow_failures(session: Session, workflow_id: int, query: FailuresQuery, recent: Recent) -> FailuresResponse:
    """Group the failures of a workflow by what they have in common.

    The groups are those of now. What the failures of a large workflow share, and the attempts that do not count, are
    determined less often.

    Raises:
        NotFound: there is no such workflow.
        InvalidValue: the limit is out of range.
    """
    if not 0 < query.limit <= GROUPS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {GROUPS_MAX}.")
    require(session, "workflow", workflow_id)
    failures = _failures(session, workflow_id, recent)
    groups = judging.grouped(failures)
    return FailuresResponse(
        workflow_id=workflow_id,
        failures=len(failures),
        is_cut=len(failures) == FAILURES_MAX,
        group_count=len(groups),
        groups=[_group(group, len(failures)) for group in groups[: query.limit]],
        concentrations=recent.paced(
            ("concentrations", workflow_id), lambda: _concentrations(session, workflow_id), REUSED_SECONDS_MAX
        )
        if len(failures) >= FAILED_MIN
        else [],
        uncharged=recent.paced(
            ("uncharged", workflow_id), lambda: _uncharged_counts(session, workflow_id), REUSED_SECONDS_MAX
        ),
    )


def _uncharged_counts(session: Session, workflow_id: int) -> dict[str, int]:
    rows = session.rows(_uncharged, workflow=workflow_id, most=FAILURES_MAX)
    counts = Counter(uncharged_text(cause, was_started=bool(was_started)) for cause, was_started in rows)
    return dict(counts.most_common())


def _failures(session: Session, workflow_id: int, recent: Recent) -> list[judging.Failure]:
    """Return the newest failures of a workflow; those that were read a short time ago are not read again."""
    ids = session.column(_newest_failed, workflow=workflow_id, most=FAILURES_MAX)
    known = recent.paced(("failed", workflow_id), lambda: _read_failures(session, ids), REUSED_SECONDS_MAX)
    found = known | _read_failures(session, [number for number in ids if number not in known])
    return [found[number] for number in ids]


def _read_failures(session: Session, ids: Sequence[int]) -> dict[int, judging.Failure]:
    return {row[0]: _failure(row) for row in (session.rows(_described, ids=ids) if ids else ())}


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
    """Judge hosts by attempts and argument values by tasks, with one correction for multiple comparisons."""
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
    rows = session.rows(_hosts, workflow=workflow_id, most=ATTEMPTS_MAX)
    return [judging.Share(what="host", value=host, failed=failed, count=count) for host, failed, count in rows]


def _task_counts(session: Session, workflow_id: int) -> tuple[int, int]:
    """Return the number of tasks that failed permanently, and of all that ended."""
    by_array = counts_by_array(session, workflow_id).values()
    counts = {status: sum(found.get(status, 0) for found in by_array) for status in fsm.CONCLUDED}
    return counts.get(TaskStatus.ERROR_FATAL, 0), sum(counts.values())


def _value_shares(session: Session, workflow_id: int) -> tuple[list[judging.Share], int]:
    """Return the argument values that most failed tasks share, and the number of values compared."""
    rows = session.rows(_fatal_tasks, workflow=workflow_id, most=FAILURES_MAX)
    if not FAILED_MIN <= len(rows) < FAILURES_MAX:
        return [], 0
    nodes = session.rows(_values(node_arg), owners=[row[1] for row in rows])
    tasks = session.rows(_values(task_arg), owners=[row[0] for row in rows])
    named = [(node_arg, row) for row in nodes] + [(task_arg, row) for row in tasks]
    chosen = sorted(named, key=lambda one: -one[1][3])[:VALUES_MAX]
    shares = [_value_share(session, workflow_id, table, row) for table, row in chosen if row[3] >= FAILED_MIN]
    return shares, len(named)


def _value_share(session: Session, workflow_id: int, table: Table, row: Sequence[Any]) -> judging.Share:
    argument_id, name, value, failed = row
    count = session.value(_ended_with_value(table), workflow=workflow_id, argument=argument_id, value=value)
    return judging.Share(what=name, value=value, failed=failed, count=count)
