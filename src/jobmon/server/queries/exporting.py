"""A workflow as a whole, page by page: tasks, what they wait for, and all their attempts."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.monitoring import ExportedTask, ExportPage
from jobmon.server.models.types import to_datetime
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.monitoring import attempts_of
from jobmon.server.queries.presence import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.server.sql import Session

EXPORTED_TASKS_MAX: Final = 2_000

_TASKS: Final = """
SELECT t.id, t.name, a.name, t.status, t.status_at, t.command, t.max_attempts, t.num_attempts, t.node_id, r.requested
FROM task t JOIN task_array a ON a.id = t.array_id LEFT JOIN task_resources r ON r.id = t.task_resources_id
WHERE t.workflow_id = :workflow AND t.id > :after ORDER BY t.id LIMIT :most
"""
_ARGS: Final = """
SELECT x.{key}, g.name, x.value FROM {table} x JOIN argument g ON g.id = x.argument_id
WHERE x.{key} IN (:owners...) ORDER BY g.name
"""
_SETS: Final = """
SELECT n.node_id, n.upstream_set_id FROM dag_node n JOIN upstream_set s ON s.id = n.upstream_set_id
WHERE n.node_id IN (:nodes...) AND +s.dag_id = (SELECT dag_id FROM workflow WHERE id = :workflow)
ORDER BY n.upstream_set_id
"""
# Begins with the few sets: CROSS, or SQLite, without statistics, may begin with all tasks.
_MEMBERS: Final = """
SELECT m.upstream_set_id, t.id FROM upstream_set_member m CROSS JOIN task t
WHERE m.upstream_set_id IN (:sets...) AND t.workflow_id = :workflow AND t.node_id = m.node_id ORDER BY t.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportQuery:
    """Which page."""

    after: int = 0
    limit: int = 1_000


def export_page(session: Session, workflow_id: int, query: ExportQuery) -> ExportPage:
    """Return the next tasks by id, and the sets that they wait for."""
    if not 0 < query.limit <= EXPORTED_TASKS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {EXPORTED_TASKS_MAX}.")
    require(session, "workflow", workflow_id)
    rows = session.rows(_TASKS, workflow=workflow_id, after=query.after, most=query.limit)
    task_ids, nodes = [row[0] for row in rows], [row[8] for row in rows]
    node_args, task_args = _args(session, "node_arg", "node_id", nodes), _args(session, "task_arg", "task_id", task_ids)
    sets: dict[int, list[int]] = defaultdict(list)
    for node_id, set_id in session.rows(_SETS, nodes=nodes, workflow=workflow_id):
        sets[node_id].append(set_id)
    attempts = attempts_of(session, task_ids)
    return ExportPage(
        tasks=[
            ExportedTask(
                task_id=row[0],
                name=row[1],
                template=row[2],
                status=row[3],
                status_at=to_datetime(row[4]),
                command=row[5],
                max_attempts=row[6],
                num_attempts=row[7],
                node_args=node_args[row[8]],
                task_args=task_args[row[0]],
                requested_resources=json.loads(row[9]) if row[9] else {},
                upstream_sets=sets[row[8]],
                attempts=attempts[row[0]],
            )
            for row in rows
        ],
        sets=_members(session, workflow_id, {number for numbers in sets.values() for number in numbers}),
    )


def _args(session: Session, table: str, key: str, owners: Sequence[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = defaultdict(dict)
    rows: list[tuple[Any, ...]] = session.rows(_ARGS.format(table=table, key=key), owners=owners)
    for owner, name, value in rows:
        found[owner][name] = value
    return found


def _members(session: Session, workflow_id: int, sets: Iterable[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for set_id, task_id in session.rows(_MEMBERS, sets=sorted(sets), workflow=workflow_id):
        found[set_id].append(task_id)
    return dict(found)
