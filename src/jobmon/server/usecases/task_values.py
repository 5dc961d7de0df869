"""What the definition of a task sets in its row: the script's values, and those that a user has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.server.constructs import case
from jobmon.server.models import task
from jobmon.server.revisions import EDITABLE, after_edits
from jobmon.server.sql import param
from jobmon.server.transaction import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.core.wire.binding import SupersededEdit, TaskColumns
    from jobmon.server.transaction import Transaction

t = task.c

#: Columns of a task that its definition sets.
DEFINED: Final = (
    *("name", "command", "max_attempts", "task_resources_id", "scales", "fallback_queues", "hash"),
    "defined_priority",
)


def _stored_or_none(values: Sequence[Any]) -> list[str | None]:
    return [to_json(value) if value else None for value in values]


def defined_columns(request: TaskColumns) -> tuple[Sequence[Any], ...]:
    """Return the columns of `DEFINED`."""
    scales, fallbacks = _stored_or_none(request.scales), _stored_or_none(request.fallback_queues)
    priorities = [0] * len(request.names)
    for at, priority in request.priorities.items():
        priorities[at] = priority
    return (
        request.names,
        request.commands,
        request.max_attempts,
        request.task_resources_ids,
        [scales[index] for index in request.scales_index],
        [fallbacks[index] for index in request.fallback_index],
        request.task_hashes,
        priorities,
    )


def definitions_of(request: TaskColumns) -> list[tuple[Any, ...]]:
    """Return the values of `DEFINED`, per task."""
    return list(zip(*defined_columns(request), strict=True))


def defined_values() -> dict[str, Any]:
    """Return the assignments of `DEFINED`. A user's priority remains unless the script's own priority has changed."""
    wanted = param("defined_priority")
    kept = case((t.defined_priority == wanted, t.priority), else_=wanted)
    return {name: param(name) for name in DEFINED} | {"priority": kept}


_EDITABLE_AT: Final = tuple(map(DEFINED.index, EDITABLE))


def with_edits(
    tx: Transaction, workflow_id: int, rows: Sequence[tuple[Any, ...]]
) -> tuple[list[tuple[Any, ...]], list[SupersededEdit]]:
    """Return rows of `DEFINED` and a task ID with the edits of users that remain, and those that are superseded."""
    wanted = {row[-1]: tuple(row[at] for at in _EDITABLE_AT) for row in rows}
    values, superseded = after_edits(tx, workflow_id, wanted)
    if not values:
        return list(rows), superseded
    edited = []
    for row in rows:
        columns = list(row)
        for at, value in zip(_EDITABLE_AT, values.get(row[-1], ()), strict=False):
            columns[at] = value
        edited.append(tuple(columns))
    return edited, superseded
