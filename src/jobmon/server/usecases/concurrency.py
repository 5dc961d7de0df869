"""Limit how many tasks run concurrently; the limit may change while they are running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING, Actor
from jobmon.core.exceptions import WorkflowVersionConflict
from jobmon.core.wire.run import ConcurrencyRequest, ConcurrencyResponse
from jobmon.server.constructs import func, select
from jobmon.server.models import task_array, workflow
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.sql import any_of, param, statement
from jobmon.server.usecases.binding import set_array_limit, set_workflow_limit
from jobmon.server.usecases.runs import require_workflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select

    from jobmon.server.transaction import Transaction

a, w = task_array.c, workflow.c


@statement
def _workflow_of_array() -> Select[Any]:
    return select(a.workflow_id).where(a.id == param("array"))


@statement
def _arrays_by_name() -> Select[Any]:
    return select(a.id).where(a.workflow_id == param("workflow"), a.name == param("name"))


def _checked(request: ConcurrencyRequest) -> int:
    if not 0 <= request.max_concurrently_running <= MAX_CONCURRENTLY_RUNNING:
        raise InvalidValue(f"max_concurrently_running: must be from 0 to {MAX_CONCURRENTLY_RUNNING}.")
    return request.max_concurrently_running


@statement
def _limit_of_workflow() -> Select[Any]:
    return select(w.max_concurrently_running).where(w.id == param("workflow"))


@statement
def _limit_of_arrays() -> Select[Any]:
    return select(func.max(a.max_concurrently_running)).where(any_of(a.id, "ids"))


def _require_expected(request: ConcurrencyRequest, present: int) -> None:
    """Reject a request that is based on another limit than the present one.

    Raises:
        WorkflowVersionConflict: the limit was changed in the meantime.
    """
    if request.expected is not None and request.expected != present:
        raise WorkflowVersionConflict(
            f"The limit was changed from {request.expected} to {present} in the meantime. Nothing was changed now."
        )


def _set_arrays(tx: Transaction, workflow_id: int, ids: Sequence[int], request: ConcurrencyRequest) -> None:
    limit = _checked(request)
    _require_expected(request, tx.value(_limit_of_arrays, ids=ids))
    for array_id in ids:
        set_array_limit(tx, workflow_id, array_id, limit)


def _note(tx: Transaction, workflow_id: int, request: ConcurrencyRequest, **what: object) -> None:
    actor = Actor.USER if request.user else Actor.CLIENT
    limit = request.max_concurrently_running
    tx.audit(actor, "concurrency", workflow_id, user=request.user, max_concurrently_running=limit, **what)


def limit_workflow(tx: Transaction, workflow_id: int, request: ConcurrencyRequest) -> ConcurrencyResponse:
    """Change the limit of a workflow."""
    require_workflow(tx, workflow_id)
    limit = _checked(request)
    _require_expected(request, tx.value(_limit_of_workflow, workflow=workflow_id))
    set_workflow_limit(tx, workflow_id, limit)
    _note(tx, workflow_id, request)
    return ConcurrencyResponse(max_concurrently_running=request.max_concurrently_running)


def limit_array(tx: Transaction, array_id: int, request: ConcurrencyRequest) -> ConcurrencyResponse:
    """Change the limit of an array."""
    workflow_id = tx.value(_workflow_of_array, array=array_id)
    if workflow_id is None:
        raise NotFound.of("array", array_id)
    _set_arrays(tx, workflow_id, [array_id], request)
    _note(tx, workflow_id, request, array=array_id)
    return ConcurrencyResponse(max_concurrently_running=request.max_concurrently_running)


def limit_arrays_by_name(
    tx: Transaction, workflow_id: int, name: str, request: ConcurrencyRequest
) -> ConcurrencyResponse:
    """Change the limit of all arrays of a template in a workflow."""
    ids = tx.column(_arrays_by_name, workflow=workflow_id, name=name)
    if not ids:
        raise NotFound.of(f"template of workflow {workflow_id} called", repr(name))
    _set_arrays(tx, workflow_id, ids, request)
    _note(tx, workflow_id, request, template=name)
    return ConcurrencyResponse(max_concurrently_running=request.max_concurrently_running)
