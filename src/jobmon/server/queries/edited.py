"""What users edited in a workflow, and the superseded definitions of a task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.wire.changes import EditedTask, EditsResponse, RevisionsResponse, TaskRevision
from jobmon.server.constructs import or_, select
from jobmon.server.models import task, task_edit, task_instance, task_resources, task_revision
from jobmon.server.problems import NotFound
from jobmon.server.queries.presence import require
from jobmon.server.revisions import EDITABLE, named_args
from jobmon.server.sql import any_of, param, statement
from jobmon.server.times import to_datetime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Select

    from jobmon.server.sql import Session

#: Maximum number of edited tasks in a response, and of revisions of a task; the newest ones.
EDITS_MAX: Final = 500
REVISIONS_MAX: Final = 50

t, e, v, ti = task.c, task_edit.c, task_revision.c, task_instance.c


@statement
def _edits() -> Select[Any]:
    was, now = ([columns[name] for name in EDITABLE] for columns in (e, t))
    return (
        select(t.id, t.name, e.user_name, e.edited_at, *was, *now)
        .join_from(task_edit, task, t.id == e.task_id)
        .where(e.workflow_id == param("workflow"), or_(*(column.is_not(None) for column in was)))
        .order_by(e.edited_at.desc())
        .limit(param("most"))
    )


@statement
def _requests() -> Select[Any]:
    return select(task_resources.c.id, task_resources.c.requested).where(any_of(task_resources.c.id, "ids"))


def edits(session: Session, workflow_id: int) -> EditsResponse:
    """Return the tasks that differ from what their script defined, because users edited them; the newest first.

    Raises:
        NotFound: the workflow does not exist.
    """
    require(session, "workflow", workflow_id)
    rows = session.rows(_edits, workflow=workflow_id, most=EDITS_MAX + 1)
    at = 4 + EDITABLE.index("task_resources_id")
    ids = {row[number] for row in rows for number in (at, at + len(EDITABLE)) if row[at] is not None}
    requests = {row[0]: json.loads(row[1]) for row in session.rows(_requests, ids=ids - {None})} if ids else {}
    return EditsResponse(edits=[_edit(row, requests) for row in rows[:EDITS_MAX]], is_cut=len(rows) > EDITS_MAX)


def _edit(row: tuple[Any, ...], requests: Mapping[int, dict[str, Any]]) -> EditedTask:
    """Return what was edited; values that were not edited are missing on both sides."""
    task_id, name, user, edited_at, *values = row
    was, now = (_readable(part, requests) for part in (values[: len(EDITABLE)], values[len(EDITABLE) :]))
    edited = {key for key, value in was.items() if value is not None}
    return EditedTask(
        task_id=task_id,
        name=name,
        user=user,
        edited_at=to_datetime(edited_at),
        was={key: was[key] for key in was if key in edited},
        now={key: now[key] for key in now if key in edited},
    )


def _readable(values: list[Any], requests: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    command, resources_id, max_attempts = values
    return {"command": command, "resources": requests.get(resources_id), "max_attempts": max_attempts}


@statement
def _now() -> Select[Any]:
    return (
        select(t.revision, t.command, e.user_name, e.edited_at)
        .join_from(task, task_edit, e.task_id == t.id, isouter=True)
        .where(t.id == param("id"))
    )


@statement
def _superseded() -> Select[Any]:
    return (
        select(v.revision, v.command, v.task_args)
        .where(v.task_id == param("id"))
        .order_by(v.revision.desc())
        .limit(param("most"))
    )


@statement
def _attempts() -> Select[Any]:
    return select(ti.revision, ti.number).where(ti.task_id == param("id")).order_by(ti.number)


def revisions(session: Session, task_id: int) -> RevisionsResponse:
    """Return the definitions of a task, the current one first.

    Raises:
        NotFound: the task does not exist.
    """
    row = session.row(_now, id=task_id)
    if row is None:
        raise NotFound.of("task", task_id)
    present, command, user, edited_at = row
    attempts: dict[int, list[int]] = {}
    for revision, number in session.rows(_attempts, id=task_id):
        attempts.setdefault(revision, []).append(number)
    superseded = session.rows(_superseded, id=task_id, most=REVISIONS_MAX)
    definitions = [
        (present, command, named_args(session, [task_id]).get(task_id, {})),
        *((number, text, json.loads(args)) for number, text, args in superseded),
    ]
    return RevisionsResponse(
        revisions=[
            TaskRevision(number=number, command=text, task_args=args, attempts=attempts.get(number, []))
            for number, text, args in definitions
        ],
        edited_by=user or "",
        edited_at=None if edited_at is None else to_datetime(edited_at),
    )
