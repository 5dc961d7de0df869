"""List the declared files of tasks, with how their newest attempts found them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.files import FILES_TASKS_MAX, DeclaredFile, DeclaredFiles, SeenFile
from jobmon.server.constructs import select
from jobmon.server.declared_files import declared_of, paths_of
from jobmon.server.joins import IS_IN_WORKFLOW
from jobmon.server.models import attempt_file, task, task_array, task_instance, task_template, task_template_version
from jobmon.server.problems import InvalidValue
from jobmon.server.queries.presence import require
from jobmon.server.sql import any_of, param, statement, statements, unindexed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Select

    from jobmon.core.files import Pattern
    from jobmon.server.sql import Session

#: Maximum number of characters of the paths in one response; the files of one task are never split.
CHARACTERS_MAX: Final = 5_000_000

t, a, ti, f = task.c, task_array.c, task_instance.c, attempt_file.c


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesQuery:
    """Which files to return.

    Args:
        after: only of tasks with IDs above it.
        count: of at most this many tasks.
        inputs: inputs instead of outputs.
        template: only of tasks of this template; "": of any.
        task_id: only of this task; 0: of any.
    """

    after: int = 0
    count: int = FILES_TASKS_MAX
    inputs: bool = False
    template: str = ""
    task_id: int = 0


@statements
def _tasks(of_template: bool, of_task: bool) -> Select[Any]:
    """Select the next tasks of arrays that declare files."""
    v, p = task_template_version.c, task_template.c
    found = (
        select(t.id, t.array_id, t.name, p.name, t.status)
        .join_from(task, task_array, a.id == t.array_id)
        .join(task_template_version, v.id == a.task_template_version_id)
        .join(task_template, p.id == v.task_template_id)
        .where(
            t.workflow_id == param("workflow"),
            t.id > param("after"),
            unindexed(a.files_id).is_not(None),
            IS_IN_WORKFLOW,
        )
    )
    if of_template:
        found = found.where(p.name == param("template"))
    if of_task:
        found = found.where(t.id == param("task"))
    return found.order_by(t.id).limit(param("most"))


@statement
def _found() -> Select[Any]:
    """Select how attempts found files; those of newer attempts come last."""
    return (
        select(ti.task_id, f.path, ti.id, f.matches, f.size_bytes, f.modified, f.is_output)
        .join_from(task_instance, attempt_file, f.task_instance_id == ti.id)
        .where(any_of(ti.task_id, "ids"))
        .order_by(ti.task_id, ti.number)
    )


def declared_files(session: Session, workflow_id: int, query: FilesQuery) -> DeclaredFiles:
    """Return the declared files of the next tasks of a workflow.

    Raises:
        NotFound: the workflow does not exist.
        InvalidValue: the count is out of range.
    """
    if not 0 < query.count <= FILES_TASKS_MAX:
        raise InvalidValue(f"count: must be from 1 to {FILES_TASKS_MAX}.")
    require(session, "workflow", workflow_id)
    values: dict[str, Any] = {"workflow": workflow_id, "after": query.after, "most": query.count}
    values |= {"template": query.template} if query.template else {}
    values |= {"task": query.task_id} if query.task_id else {}
    rows = session.rows(_tasks(bool(query.template), bool(query.task_id)), **values)
    if not rows:
        return DeclaredFiles(files=[], last_task=query.after, is_last=True)
    declared = declared_of(session, (row[1] for row in rows))
    paths = paths_of(session, (row[:2] for row in rows), declared)
    seen = {
        (row[0], row[1]): SeenFile(task_instance_id=row[2], matches=row[3], size_bytes=row[4], modified=row[5])
        for row in session.rows(_found, ids=list(paths))
        if bool(row[6]) is not query.inputs
    }
    files: list[DeclaredFile] = []
    characters = 0
    for row in rows:
        if row[0] in paths and row[1] in declared:
            own, patterns = paths[row[0]], declared[row[1]].files
            chosen = (own.inputs, patterns.inputs) if query.inputs else (own.outputs, patterns.outputs)
            files += _files(row, *chosen, seen)
            characters += sum(map(len, chosen[0]))
        last = int(row[0])
        if characters > CHARACTERS_MAX:
            break
    is_last = last == rows[-1][0] and len(rows) < query.count
    folder = next((one.folder for one in declared.values()), "")
    return DeclaredFiles(files=files, folder=folder, last_task=last, is_last=is_last)


def _files(
    row: Sequence[Any], paths: Sequence[str], patterns: Sequence[Pattern], seen: dict[tuple[int, str], SeenFile]
) -> Iterator[DeclaredFile]:
    task_id, _, name, template, status = row
    for path, pattern in zip(paths, patterns, strict=True):
        yield DeclaredFile(
            task_id=task_id,
            task_name=name,
            template=template,
            status=status,
            name=pattern.name,
            path=path,
            found=seen.get((task_id, path)),
        )
