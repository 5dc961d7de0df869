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
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, IS_FAILURE, IS_FATAL
from jobmon.server.models import argument, node_arg, task, task_arg, task_instance, workflow_run
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.failed import FAILURES_MAX
from jobmon.server.queries.presence import require
from jobmon.server.sql import any_of, param, statement, statements, unindexed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select, Table

    from jobmon.server.kept import Kept
    from jobmon.server.recent import Recent
    from jobmon.server.sql import Session

#: Attempts are considered only if they are among the newest of the whole server.
ATTEMPTS_MAX: Final = 100_000
GROUPS_MAX: Final = 1_000
#: Maximum age of what the failures of a large workflow share.
REUSED_SECONDS_MAX: Final = 60.0
#: Number of argument values, those with the most failures, that are compared with all tasks.
VALUES_MAX: Final = 10
#: Minimum number of failures for a concentration.
FAILED_MIN: Final = 3
CONCENTRATIONS_MAX: Final = 5

t, ti = task.c, task_instance.c
#: By table of argument values: the column of their owner, and the column of `task` with the same ID.
_OWNERS: Final = {node_arg: (node_arg.c.node_id, t.node_id), task_arg: (task_arg.c.task_id, t.id)}


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


@statements
def _failed_count(charged: bool) -> Select[Any]:
    """Count the failed attempts of a workflow, or those that are charged; from an index each."""
    is_counted = IS_FAILURE if charged else ti.status.in_(fsm.FAILED)
    of_workflow = workflow_run.c.workflow_id == param("workflow")
    return select(func.count()).select_from(ATTEMPTS_OF_WORKFLOW).where(of_workflow, is_counted)


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


def workflow_failures(
    session: Session, workflow_id: int, query: FailuresQuery, recent: Recent, kept: Kept
) -> FailuresResponse:
    """Group the failures of a workflow by what they have in common.

    The groups are those of now. What the failures of a large workflow share, and the attempts that do not count, are
    determined less often.

    Args:
        session: the session to read with; it has read nothing yet.
        workflow_id: ID of the workflow.
        query: how many groups to return.
        recent: results of queries.
        kept: failures that are known.

    Raises:
        NotFound: the workflow does not exist.
        InvalidValue: the limit is out of range.
    """
    if not 0 < query.limit <= GROUPS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {GROUPS_MAX}.")
    with kept.failed(workflow_id) as failed:
        require(session, "workflow", workflow_id)
        failed.catch_up(session, kept.monotonic())
        groups = failed.groups
        count, group_count, largest = len(groups.attempt_ids), len(groups), groups.largest(query.limit)
    return FailuresResponse(
        workflow_id=workflow_id,
        failures=count,
        is_cut=count == FAILURES_MAX,
        group_count=group_count,
        groups=[_group(group, count) for group in largest],
        concentrations=recent.paced(
            ("concentrations", workflow_id), lambda: _concentrations(session, workflow_id), REUSED_SECONDS_MAX
        )
        if count >= FAILED_MIN
        else [],
        uncharged=recent.paced(
            ("uncharged", workflow_id), lambda: _uncharged_counts(session, workflow_id), REUSED_SECONDS_MAX
        ),
    )


def _uncharged_counts(session: Session, workflow_id: int) -> dict[str, int]:
    failed, charged = (session.value(_failed_count(which), workflow=workflow_id) for which in (False, True))
    rows = session.rows(_uncharged, workflow=workflow_id, most=FAILURES_MAX) if failed > charged else []
    counts = Counter(uncharged_text(cause, was_started=bool(was_started)) for cause, was_started in rows)
    return dict(counts.most_common())


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
