"""Where the output of tasks is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.wire.monitoring import OutputsResponse, TaskOutput
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.matching import Conditions
from jobmon.server.queries.presence import require

if TYPE_CHECKING:
    from jobmon.server.sql import Session

OUTPUTS_MAX: Final = 10_000
_OUTPUTS: Final = """
SELECT t.id, t.name, a.name, ti.id, ti.number, ti.status, ti.stdout, ti.stderr
FROM task t JOIN task_array a ON a.id = t.array_id
JOIN task_instance ti ON ti.task_id = t.id AND ti.number = t.attempt_count
WHERE {conditions} ORDER BY t.id LIMIT :most
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsQuery:
    """Of which tasks; no names: of all."""

    array: str = ""
    job: str = ""
    limit: int = 1_000


def task_outputs(session: Session, workflow_id: int, query: OutputsQuery) -> OutputsResponse:
    """Return where the output of the newest attempts is, by task."""
    if not 0 < query.limit <= OUTPUTS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {OUTPUTS_MAX}.")
    require(session, "workflow", workflow_id)
    conditions = Conditions("t.workflow_id = :workflow")
    conditions.add_name("a.name", query.array)
    conditions.add_name("t.name", query.job)
    rows = session.rows(
        _OUTPUTS.format(conditions=conditions), workflow=workflow_id, most=query.limit, **conditions.values
    )
    return OutputsResponse(
        outputs=[
            TaskOutput(
                task_id=row[0],
                name=row[1],
                array_name=row[2],
                task_instance_id=row[3],
                number=row[4],
                status=row[5],
                stdout=row[6],
                stderr=row[7],
            )
            for row in rows
        ]
    )
