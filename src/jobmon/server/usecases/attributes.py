"""Attributes of tasks, which may also be set while a task is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.core.constants import ATTRIBUTES_MAX, Actor
from jobmon.server.constructs import delete, select
from jobmon.server.models import task, task_attribute
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.sql import param, statement
from jobmon.server.usecases.definitions import argument_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Delete

    from jobmon.core.wire.run import TaskAttributesRequest
    from jobmon.server.transaction import Transaction

_COLUMNS: Final = ("task_id", "argument_id", "value")
_workflow_of_task = statement(lambda: select(task.c.workflow_id).where(task.c.id == param("id")))


@statement
def _delete_attribute() -> Delete:
    a = task_attribute.c
    return delete(task_attribute).where(a.task_id == param("task_id"), a.argument_id == param("argument_id"))


def set_task_attributes(tx: Transaction, attributes: Mapping[int, Mapping[str, str]]) -> None:
    """Set attributes by task ID; other attributes of a task are unchanged.

    Raises:
        InvalidValue: there are too many for one task.
    """
    if not attributes:
        return
    if max(map(len, attributes.values())) > ATTRIBUTES_MAX:
        raise InvalidValue(f"attributes: must be at most {ATTRIBUTES_MAX} for each task.")
    names = argument_ids(tx, {name for named in attributes.values() for name in named})
    rows = [(task_id, names[name], value) for task_id, named in attributes.items() for name, value in named.items()]
    tx.run_many(_delete_attribute, _COLUMNS[:2], [row[:2] for row in rows])
    tx.insert_many(task_attribute, _COLUMNS, rows)


def add_task_attributes(tx: Transaction, task_id: int, request: TaskAttributesRequest) -> None:
    """Set attributes of a task; its other attributes are unchanged.

    Raises:
        NotFound: the task does not exist.
        InvalidValue: there are too many, or one has an empty name.
    """
    workflow_id = tx.value(_workflow_of_task, id=task_id)
    if workflow_id is None:
        raise NotFound.of("task", task_id)
    if len(request.attributes) > ATTRIBUTES_MAX or not all(request.attributes):
        raise InvalidValue(f"attributes: must be at most {ATTRIBUTES_MAX}, each with a name.")
    set_task_attributes(tx, {task_id: request.attributes})
    if request.attributes:
        tx.audit_count(Actor.CLIENT, "set attributes", workflow_id, attributes=len(request.attributes))
