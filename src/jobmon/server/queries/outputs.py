"""Where the output of tasks is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.monitoring import OutputsResponse, TaskOutput
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.presence import require

if TYPE_CHECKING:
    from jobmon.server.sql import Session

OUTPUTS_MAX: Final = 10_000
_OUTPUTS: Final = """
SELECT t.id, t.name, a.name, ti.id, ti.number, ti.status, ti.stdout, ti.stderr
FROM task t JOIN task_array a ON a.id = t.array_id
JOIN task_instance ti ON ti.task_id = t.id AND ti.number = t.attempt_count
WHERE t.workflow_id = :workflow {conditions} ORDER BY t.id LIMIT :most
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
    conditions: list[str] = []
    values: dict[str, str] = {}
    for column, word in (("a.name", query.array), ("t.name", query.job)):
        if word:
            name = f"name_{len(values)}"
            conditions.append(_condition(column, name, word))
            values[name] = _pattern(word) if "*" in word else word
    rows: list[tuple[Any, ...]] = session.rows(
        _OUTPUTS.format(conditions=" ".join(conditions)), workflow=workflow_id, most=query.limit, **values
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


def _condition(column: str, name: str, word: str) -> str:
    return f"AND {column} LIKE :{name} ESCAPE '!'" if "*" in word else f"AND {column} = :{name}"


def _pattern(word: str) -> str:
    for special in "!%_":
        word = word.replace(special, f"!{special}")
    return word.replace("*", "%")
