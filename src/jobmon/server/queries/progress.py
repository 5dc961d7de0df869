"""How a workflow goes on: counts by template, and how long it still takes (`core.forecast`)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import forecast, fsm
from jobmon.core.constants import TaskInstanceStatus, TaskStatus
from jobmon.core.fsm import Machine
from jobmon.core.wire.monitoring import ProgressResponse, TemplateProgress
from jobmon.server.problems import NotFound
from jobmon.server.queries.explaining import BLOCKED_SETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.server.sql import Session

#: The newest that are done tell how long tasks take, and how many run at once.
SAMPLES_MAX: Final = 1_000
WIDTH_SAMPLES_MAX: Final = 200
TEMPLATE_SAMPLES_MAX: Final = 200
#: Of more tasks that are left the longest chain is not looked for: then it is their number that takes the time.
GRAPH_TASKS_MAX: Final = 10_000
GRAPH_EDGES_MAX: Final = 100_000
MICROSECONDS: Final = 1e6
_ENDED: Final = frozenset(fsm.TERMINAL[Machine.TASK])
_WAITING_FOR_ROOM: Final = (TaskStatus.QUEUED, TaskStatus.INSTANTIATING, TaskStatus.LAUNCHED)

_SAMPLES: Final = """
SELECT t.array_id, ti.started_at, ti.wallclock_seconds
FROM task t JOIN task_instance ti ON ti.task_id = t.id AND ti.number = t.attempt_count
WHERE t.workflow_id = :workflow AND t.status = :task_done AND ti.status = :attempt_done
  AND ti.wallclock_seconds IS NOT NULL AND ti.started_at IS NOT NULL {condition}
ORDER BY {order} DESC LIMIT :most
"""
_BEHIND_FAILURES: Final = "(SELECT n.node_id FROM dag_node n WHERE n.upstream_set_id IN (SELECT set_id FROM blocked))"
_BLOCKED: Final = f"""
{BLOCKED_SETS}
SELECT t.array_id, COUNT(*) FROM task t
WHERE t.workflow_id = :workflow AND t.status NOT IN (:ended...) AND t.node_id IN {_BEHIND_FAILURES}
GROUP BY t.array_id
"""
_LEFT: Final = f"""
{BLOCKED_SETS}
SELECT t.node_id, t.array_id FROM task t
WHERE t.workflow_id = :workflow AND t.status NOT IN (:ended...) AND t.node_id NOT IN {_BEHIND_FAILURES}
"""
_USERS: Final = """
SELECT n.upstream_set_id, n.node_id FROM dag_node n JOIN upstream_set s ON s.id = n.upstream_set_id
WHERE n.node_id IN (:nodes...) AND +s.dag_id = :dag LIMIT :most
"""
_MEMBERS: Final = """
SELECT m.upstream_set_id, m.node_id FROM upstream_set_member m
WHERE m.node_id IN (:nodes...) AND +m.upstream_set_id IN (:sets...) LIMIT :most
"""


def progress(session: Session, workflow_id: int) -> ProgressResponse:
    """Return how a workflow stands and what is to be expected."""
    row = session.row("SELECT status, dag_id, max_concurrently_running FROM workflow WHERE id = :id", id=workflow_id)
    if row is None:
        raise NotFound.of("workflow", workflow_id)
    status, dag_id, limit = row
    counts = _counts(session, workflow_id)
    blocked = _blocked(session, workflow_id, dag_id, counts)
    samples = _samples(session, workflow_id, counts)
    left = {number: _left(found) - blocked.get(number, 0) for number, found in counts.items()}
    durations = {number: forecast.Durations.of([row[1] for row in samples.get(number, ())]) for number in counts}
    expected = None
    if limit > 0 and any(left.values()):
        path = _path(session, workflow_id, dag_id, left, durations)
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
    names = dict(session.rows("SELECT id, name FROM task_array WHERE workflow_id = :id", id=workflow_id))
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
    )


def _counts(session: Session, workflow_id: int) -> dict[int, dict[str, int]]:
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for array_id, status, count in session.rows(
        "SELECT array_id, status, COUNT(*) FROM task WHERE workflow_id = :id GROUP BY array_id, status", id=workflow_id
    ):
        counts[array_id][status] = count
    return dict(counts)


def _left(counts: Mapping[str, int]) -> int:
    return sum(count for status, count in counts.items() if status not in _ENDED)


def _blocked(
    session: Session, workflow_id: int, dag_id: int, counts: Mapping[int, Mapping[str, int]]
) -> dict[int, int]:
    """Count by array what will never run."""
    if not any(found.get(TaskStatus.ERROR_FATAL.value) for found in counts.values()):
        return {}
    fatal, ended = TaskStatus.ERROR_FATAL.value, sorted(_ENDED)
    return dict(session.rows(_BLOCKED, workflow=workflow_id, dag=dag_id, fatal=fatal, ended=ended))


_Sample = tuple[float, float]


def _samples(session: Session, workflow_id: int, counts: Mapping[int, Mapping[str, int]]) -> dict[int, list[_Sample]]:
    """Return start and seconds by array: of the newest that are done, and of arrays that are not among them."""
    done = {
        "workflow": workflow_id,
        "task_done": TaskStatus.DONE.value,
        "attempt_done": TaskInstanceStatus.DONE.value,
    }
    rows = session.rows(_SAMPLES.format(condition="", order="t.status_at"), **done, most=SAMPLES_MAX)
    seen = {row[0] for row in rows}
    for number, found in counts.items():
        if number not in seen and found.get(TaskStatus.DONE.value) and _left(found):
            sql = _SAMPLES.format(condition="AND t.array_id = :array", order="t.id")
            rows += session.rows(sql, **done, array=number, most=TEMPLATE_SAMPLES_MAX)
    samples: dict[int, list[_Sample]] = defaultdict(list)
    for number, started_at, seconds in rows:
        samples[number].append((started_at / MICROSECONDS, float(seconds)))
    return samples


def _median(samples: Sequence[_Sample]) -> float | None:
    ordered = sorted(seconds for _, seconds in samples)
    return ordered[len(ordered) // 2] if ordered else None


def _widths(
    session: Session,
    workflow_id: int,
    counts: Mapping[int, Mapping[str, int]],
    samples: Mapping[int, Sequence[_Sample]],
    limit: int,
) -> tuple[float, float]:
    """Return how many run at once, and how many might: more than now only if nothing waits for room."""
    newest = sorted((one for found in samples.values() for one in found), reverse=True)[:WIDTH_SAMPLES_MAX]
    running = sum(found.get(TaskStatus.RUNNING.value, 0) for found in counts.values())
    width = max(forecast.width_of(newest), float(running))
    if any(found.get(status.value) for found in counts.values() for status in _WAITING_FOR_ROOM):
        return width, width
    cores = session.value("SELECT MIN(total) FROM slot_lease WHERE workflow_id = :id", id=workflow_id)
    return width, float(limit) if cores is None else min(float(limit), cores)


def _path(
    session: Session,
    workflow_id: int,
    dag_id: int,
    left: Mapping[int, int],
    durations: Mapping[int, forecast.Durations | None],
) -> tuple[float, float]:
    """Return the longest chain of what is left, from and to; where that is too much, of one task per template."""
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


def _graph(
    session: Session, workflow_id: int, dag_id: int
) -> tuple[dict[int, int], dict[int, list[int]], dict[int, list[int]]] | None:
    """Return the array of each node that is left, and the sets among them; None: too many."""
    fatal = TaskStatus.ERROR_FATAL.value
    arrays = dict(session.rows(_LEFT, workflow=workflow_id, dag=dag_id, fatal=fatal, ended=sorted(_ENDED)))
    nodes = list(arrays)
    users = _grouped(session.rows(_USERS, nodes=nodes, dag=dag_id, most=GRAPH_EDGES_MAX))
    members = session.rows(_MEMBERS, nodes=nodes, sets=list(users), most=GRAPH_EDGES_MAX)
    return None if len(members) == GRAPH_EDGES_MAX else (arrays, _grouped(members), users)


def _grouped(rows: Sequence[tuple[Any, ...]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for number, node_id in rows:
        found[number].append(node_id)
    return dict(found)
