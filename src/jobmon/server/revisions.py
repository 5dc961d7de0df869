"""Revisions of tasks: their superseded definitions, and the choice between users' edits and the script.

A script that is run again keeps an edit as long as its own definition is unchanged; otherwise it wins. This is decided
value by value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import Actor
from jobmon.core.wire.binding import SupersededEdit
from jobmon.server.constructs import select, update
from jobmon.server.models import argument, task, task_arg, task_edit
from jobmon.server.sql import any_of, param, statement, unindexed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select, Update

    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

#: Maximum number of tasks listed in one entry of the audit trail.
TASKS_NAMED_MAX: Final = 20
#: What can be edited; also the names of the columns, in `task` and in `task_edit`.
EDITABLE: Final = ("command", "task_resources_id", "max_attempts")
#: The columns of `task_revision`.
REVISION: Final = ("task_id", "revision", "task_template_version_id", "command", "task_args", "upstreams")

t, e = task.c, task_edit.c


@statement
def _named_args() -> Select[Any]:
    a = task_arg.c
    named = select(a.task_id, argument.c.name, a.value).join_from(task_arg, argument, argument.c.id == a.argument_id)
    return named.where(any_of(a.task_id, "ids")).order_by(argument.c.name)


def named_args(session: Session, task_ids: Sequence[int]) -> dict[int, dict[str, str]]:
    """Return the task args of tasks, by task and name."""
    found: dict[int, dict[str, str]] = {}
    for task_id, name, value in session.rows(_named_args, ids=task_ids):
        found.setdefault(task_id, {})[name] = value
    return found


@statement
def _edits() -> Select[Any]:
    now, edited = ([columns[name] for name in EDITABLE] for columns in (t, e))
    some = e.command.is_not(None) | e.task_resources_id.is_not(None) | e.max_attempts.is_not(None)
    return (
        select(t.id, e.user_name, *now, *edited)
        .join_from(task_edit, task, t.id == e.task_id)
        .where(e.workflow_id == param("workflow"), some, any_of(unindexed(e.task_id), "ids"))
    )


@statement
def _clear_edit() -> Update:
    return update(task_edit).values({name: param(name) for name in EDITABLE}).where(e.task_id == param("id"))


def after_edits(
    tx: Transaction, workflow_id: int, wanted: dict[int, tuple[Any, ...]]
) -> tuple[dict[int, tuple[Any, ...]], list[SupersededEdit]]:
    """Decide between the script and the edits of users; note what a script supersedes.

    Args:
        tx: the transaction.
        workflow_id: the workflow.
        wanted: what the script defines, as values of `EDITABLE` by task.

    Returns:
        The values of the edited tasks among them, and the edits that the script supersedes.
    """
    values: dict[int, tuple[Any, ...]] = {}
    superseded = []
    cleared = []
    size = len(EDITABLE)
    for task_id, user, *columns in tx.rows(_edits, workflow=workflow_id, ids=list(wanted)):
        now, edited = columns[:size], columns[size:]
        keeps = [was is not None and was == new for was, new in zip(edited, wanted[task_id], strict=True)]
        triples = zip(keeps, now, wanted[task_id], strict=True)
        values[task_id] = tuple(mine if kept else new for kept, mine, new in triples)
        if any(was is not None and not kept for kept, was in zip(keeps, edited, strict=True)):
            superseded.append(SupersededEdit(task_id=task_id, user=user))
            cleared.append((*(was if kept else None for kept, was in zip(keeps, edited, strict=True)), task_id))
    if cleared:
        tx.run_many(_clear_edit, (*EDITABLE, "id"), cleared)
        ids = [one.task_id for one in superseded]
        tx.audit(Actor.CLIENT, "supersede edits", workflow_id, tasks=ids[:TASKS_NAMED_MAX], changed=len(ids))
    return values, superseded
