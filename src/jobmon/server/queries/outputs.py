"""Find the output files of tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.monitoring import OutputsResponse, TaskOutput
from jobmon.server.constructs import select
from jobmon.server.joins import IS_NEWEST_ATTEMPT
from jobmon.server.models import task, task_array, task_instance
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.matching import name_matches
from jobmon.server.queries.presence import require

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.sql import Session

OUTPUTS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsQuery:
    """Whose output to return.

    Args:
        array: search word for the name of the template; "": any.
        job: search word for the name of the task; "": any.
        limit: maximum number of tasks to return.
    """

    array: str = ""
    job: str = ""
    limit: int = 1_000


def _outputs(workflow_id: int, query: OutputsQuery) -> Select[Any]:
    t, a, ti = task.c, task_array.c, task_instance.c
    return (
        select(t.id, t.name, a.name, ti.id, ti.number, ti.status, ti.stdout, ti.stderr)
        .select_from(task.join(task_array, a.id == t.array_id).join(task_instance, IS_NEWEST_ATTEMPT))
        .where(t.workflow_id == workflow_id, name_matches(a.name, query.array), name_matches(t.name, query.job))
        .order_by(t.id)
        .limit(query.limit)
    )


def task_outputs(session: Session, workflow_id: int, query: OutputsQuery) -> OutputsResponse:
    """Return the output files of the newest attempt of each task, in the order of the task IDs."""
    if not 0 < query.limit <= OUTPUTS_MAX:
        raise InvalidValue(f"limit: must be from 1 to {OUTPUTS_MAX}.")
    require(session, "workflow", workflow_id)
    rows = session.rows(_outputs(workflow_id, query))
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
