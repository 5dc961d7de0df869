"""Report the progress of a workflow: counts by template, and the time left (`core.forecast`)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import forecast, fsm
from jobmon.core.constants import TaskInstanceStatus, TaskStatus
from jobmon.core.wire.monitoring import ProgressResponse, TemplateProgress
from jobmon.server.constructs import BigInteger, cast, func, select
from jobmon.server.counting import counts_by_array
from jobmon.server.joins import TASKS_WITH_NEWEST_ATTEMPTS
from jobmon.server.models import (
    dag_node,
    slot_lease,
    status_count,
    task,
    task_array,
    task_instance,
    upstream_set,
    upstream_set_member,
    workflow,
)
from jobmon.server.problems import NotFound
from jobmon.server.queries.graph import blocked_nodes
from jobmon.server.sql import any_of, param, statement, statements, unindexed

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.kept import Kept
    from jobmon.server.queries.blocked import Blocked
    from jobmon.server.recent import Recent
    from jobmon.server.sql import Session

#: Number of completed tasks, newest first, from which durations and the number of concurrent tasks are estimated.
SAMPLES_MAX: Final = 1_000
WIDTH_SAMPLES_MAX: Final = 200
TEMPLATE_SAMPLES_MAX: Final = 200
#: With more tasks left, the longest path is not computed, because the number of tasks then determines the time.
GRAPH_TASKS_MAX: Final = 10_000
GRAPH_EDGES_MAX: Final = 100_000
#: Of so many tasks, what takes long is read ahead: see `server.kept`.
LARGE_TASKS_MIN: Final = 50_000
MICROSECONDS: Final = 1e6

t, ti = task.c, task_instance.c


@statement
def _workflow() -> Select[Any]:
    w = workflow.c
    return select(w.status, w.dag_id, w.max_concurrently_running).where(w.id == param("id"))


@statement
def _names() -> Select[Any]:
    a = task_array.c
    return select(a.id, a.name).where(a.workflow_id == param("id"))


@statement
def _removed() -> Select[Any]:
    c = status_count.c
    of_removed = c.workflow_id == param("workflow"), c.status == TaskStatus.REMOVED.value
    return select(cast(func.sum(c.number), BigInteger)).where(*of_removed)


def progress(session: Session, workflow_id: int, recent: Recent, kept: Kept) -> ProgressResponse:
    """Return the progress of a workflow and an estimate of the time left; the session has read nothing yet.

    Raises:
        NotFound: the workflow does not exist.
    """
    with kept.blocked(workflow_id) as blocked:
        return progress_with(session, workflow_id, recent, blocked, kept.monotonic(), may_search=True)


def progress_with(
    session: Session, workflow_id: int, recent: Recent, known: Blocked, monotonic: float, *, may_search: bool
) -> ProgressResponse:
    """Return the progress, given the blocked tasks that are known.

    The counts are those of now; durations of tasks and the longest path may be somewhat older, if they are expensive.
    Unless `may_search`, durations of templates that completed no task lately are unknown in a large workflow until
    `find_samples` has searched for them.

    Raises:
        NotFound: the workflow does not exist.
    """
    row = session.row(_workflow, id=workflow_id)
    if row is None:
        raise NotFound.of("workflow", workflow_id)
    status, dag_id, limit = row
    counts = counts_by_array(session, workflow_id)
    blocked = known.catch_up(session, dag_id, counts, monotonic)
    may_search = may_search or sum(sum(found.values()) for found in counts.values()) < LARGE_TASKS_MIN
    samples = _samples(session, workflow_id, counts, recent, may_search=may_search)
    left = {number: _left(found) - blocked.get(number, 0) for number, found in counts.items()}
    durations = {number: forecast.Durations.of([row[1] for row in samples.get(number, ())]) for number in counts}
    expected = None
    if limit > 0 and any(left.values()):
        path = recent.paced(("path", workflow_id), lambda: _path(session, workflow_id, dag_id, left, durations))
        expected = forecast.time_left(
            [
                forecast.Rest(
                    left=left[number],
                    running=found.get(TaskStatus.RUNNING.value, 0),
                    durations=durations[number],
                )
                for number, found in counts.items()
            ],
            path,
            *_widths(session, workflow_id, counts, samples, min(limit, sum(left.values()))),
        )
    names = dict(session.rows(_names, id=workflow_id))
    return ProgressResponse(
        workflow_id=workflow_id,
        status=status,
        templates=[
            TemplateProgress(name=names[number], counts=found, seconds=_median(samples.get(number, ())))
            for number, found in sorted(counts.items())
        ],
        left_from=None if expected is None else expected.low,
        left_to=None if expected is None else expected.high,
        unknown=0 if expected is None else expected.unknown,
        blocked=sum(blocked.values()),
        removed=session.value(_removed, workflow=workflow_id) or 0,
    )


def _left(counts: Mapping[str, int]) -> int:
    return sum(count for status, count in counts.items() if status not in fsm.FINAL_TASKS)


_Sample = tuple[float, float]
#: By array.
_Samples = Mapping[int, Sequence[_Sample]]


@statements
def _completed(*, of_array: bool) -> Select[Any]:
    """Select array, start and duration of the newest completed tasks of the workflow, or of one array."""
    conditions = [
        t.workflow_id == param("workflow"),
        t.status == TaskStatus.DONE.value,
        ti.status == TaskInstanceStatus.DONE.value,
        ti.wallclock_seconds.is_not(None),
        ti.started_at.is_not(None),
    ]
    if of_array:
        conditions.append(t.array_id == param("array"))
    return (
        select(t.array_id, ti.started_at, ti.wallclock_seconds)
        .select_from(TASKS_WITH_NEWEST_ATTEMPTS)
        .where(*conditions)
        .order_by((t.id if of_array else t.status_at).desc())
        .limit(param("most"))
    )


def _samples(
    session: Session,
    workflow_id: int,
    counts: Mapping[int, Mapping[str, int]],
    recent: Recent,
    *,
    may_search: bool,
) -> _Samples:
    """Return start and duration of completed tasks by array: the newest, plus those of arrays not among them.

    To find the latter may take long; those that were found before are still the best known.
    """
    kept, searched = ("samples", workflow_id), ("searched samples", workflow_id)
    found: dict[int, Sequence[_Sample]] = {}
    for key in (searched, kept):
        found |= recent.last(key, math.inf) or {}
    found |= recent.paced(
        ("newest samples", workflow_id),
        lambda: _grouped_samples(session.rows(_completed(of_array=False), workflow=workflow_id, most=SAMPLES_MAX)),
    )
    missing = [
        number
        for number, by_status in counts.items()
        if number not in found and by_status.get(TaskStatus.DONE.value) and _left(by_status)
    ]
    of_array = _completed(of_array=True)
    for number in missing if may_search else ():
        rows = session.rows(of_array, workflow=workflow_id, array=number, most=TEMPLATE_SAMPLES_MAX)
        found[number] = _grouped_samples(rows).get(number, ())
    recent.keep(searched if may_search else kept, found)
    return found


def _grouped_samples(rows: Sequence[tuple[int, int, float]]) -> _Samples:
    samples: dict[int, list[_Sample]] = defaultdict(list)
    for number, started_at, seconds in rows:
        samples[number].append((started_at / MICROSECONDS, float(seconds)))
    return samples


def has_searched(workflow_id: int, recent: Recent) -> bool:
    """Return whether `find_samples` was called, or need not be."""
    return recent.last(("searched samples", workflow_id), math.inf) is not None


def find_samples(session: Session, workflow_id: int, recent: Recent) -> None:
    """Search for the durations of templates that completed no task lately."""
    _samples(session, workflow_id, counts_by_array(session, workflow_id), recent, may_search=True)


def _median(samples: Sequence[_Sample]) -> float | None:
    ordered = sorted(seconds for _, seconds in samples)
    return ordered[len(ordered) // 2] if ordered else None


@statement
def _cores() -> Select[Any]:
    return select(func.min(slot_lease.c.total)).where(slot_lease.c.workflow_id == param("id"))


def _widths(
    session: Session,
    workflow_id: int,
    counts: Mapping[int, Mapping[str, int]],
    samples: Mapping[int, Sequence[_Sample]],
    limit: int,
) -> tuple[float, float]:
    """Return how many tasks run concurrently, and how many might: more than now only if none is waiting to start."""
    newest = sorted((one for found in samples.values() for one in found), reverse=True)[:WIDTH_SAMPLES_MAX]
    running = sum(found.get(TaskStatus.RUNNING.value, 0) for found in counts.values())
    width = max(forecast.width_of(newest), float(running))
    if any(found.get(status.value) for found in counts.values() for status in fsm.WAITING_TO_START):
        return width, width
    cores = session.value(_cores, id=workflow_id)
    return width, float(limit) if cores is None else min(float(limit), cores)


def _path(
    session: Session,
    workflow_id: int,
    dag_id: int,
    left: Mapping[int, int],
    durations: Mapping[int, forecast.Durations | None],
) -> tuple[float, float]:
    """Return the duration of the longest path through the remaining tasks, seconds, as the ends of a range.

    If there are too many tasks, each template counts as one task.
    """
    known = {number: found for number, found in durations.items() if found is not None and left[number]}
    if sum(left.values()) <= GRAPH_TASKS_MAX:
        graph = _graph(session, workflow_id, dag_id)
        if graph is not None:
            arrays, members, users = graph

            def longest(weights: Mapping[int, float]) -> float:
                return forecast.longest_path(
                    {node: weights.get(array, 0.0) for node, array in arrays.items()}, members, users
                )

            lows = {number: found.low for number, found in known.items()}
            return longest(lows), longest({number: found.high for number, found in known.items()})
    return max((one.low for one in known.values()), default=0.0), sum(one.high for one in known.values())


@statement
def _nodes_left() -> Select[Any]:
    """Select the nodes, with their arrays, of tasks that have not ended and are not blocked."""
    return select(t.node_id, t.array_id).where(
        t.workflow_id == param("workflow"),
        t.status.not_in(fsm.FINAL_TASKS),
        t.node_id.not_in(blocked_nodes()),
    )


@statement
def _users() -> Select[Any]:
    """Select the sets of a DAG that are the upstream sets of these nodes."""
    n, s = dag_node.c, upstream_set.c
    return (
        select(n.upstream_set_id, n.node_id)
        .join_from(dag_node, upstream_set, s.id == n.upstream_set_id)
        .where(any_of(n.node_id, "nodes"), unindexed(s.dag_id) == param("dag"))
        .limit(param("most"))
    )


@statement
def _members() -> Select[Any]:
    """Select which of these nodes are in which of these sets."""
    m = upstream_set_member.c
    conditions = any_of(m.node_id, "nodes"), any_of(unindexed(m.upstream_set_id), "sets")
    return select(m.upstream_set_id, m.node_id).where(*conditions).limit(param("most"))


def _graph(
    session: Session, workflow_id: int, dag_id: int
) -> tuple[dict[int, int], dict[int, list[int]], dict[int, list[int]]] | None:
    """Return the array of each remaining node, the members of its upstream sets, and the users of those sets.

    None: there are too many edges.
    """
    arrays = dict(session.rows(_nodes_left, workflow=workflow_id, dag=dag_id))
    nodes = list(arrays)
    users = _grouped(session.rows(_users, nodes=nodes, dag=dag_id, most=GRAPH_EDGES_MAX))
    members = session.rows(_members, nodes=nodes, sets=list(users), most=GRAPH_EDGES_MAX)
    return None if len(members) == GRAPH_EDGES_MAX else (arrays, _grouped(members), users)


def _grouped(rows: Sequence[tuple[Any, ...]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for number, node_id in rows:
        found[number].append(node_id)
    return dict(found)
