"""Look-ups shared by several use cases and queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.core import fsm
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import InvalidRequest
from jobmon.server.constructs import select
from jobmon.server.joins import newest_run
from jobmon.server.models import cluster, task_instance, workflow, workflow_run
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transitions import LIVE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Select

    from jobmon.server.sql import Session


@statement
def _newest_run() -> Select[Any]:
    r = workflow_run.c
    return select(r.id, r.status).where(r.id == newest_run(param("workflow")))


def find_newest_run(session: Session, workflow_id: int) -> tuple[int, str] | None:
    """Return ID and status of the newest run of a workflow; None if the workflow has no run."""
    row = session.row(_newest_run, workflow=workflow_id)
    return None if row is None else (row[0], row[1])


def newest_run_of(session: Session, workflow_id: int) -> tuple[int, str]:
    """Return ID and status of the newest run of a workflow that has launched something."""
    found = find_newest_run(session, workflow_id)
    assert found is not None, "a workflow that has launched something has a run"
    return found


@statement
def _cluster_id() -> Select[Any]:
    return select(cluster.c.id).where(cluster.c.name == param("name"))


@statement
def _offered_cluster_id() -> Select[Any]:
    return select(cluster.c.id).where(cluster.c.name == param("name"), ~cluster.c.removed)


@statement
def _cluster_ids() -> Select[Any]:
    return select(cluster.c.name, cluster.c.id).where(any_of(cluster.c.name, "names"))


def find_cluster(session: Session, name: str, *, offered: bool = False) -> int | None:
    """Return the ID of a cluster.

    Args:
        session: the session.
        name: of the cluster.
        offered: find the cluster only if it has not been removed; by default a removed cluster is found, too.

    Returns:
        The ID; None if the cluster does not exist.
    """
    found = session.value(_offered_cluster_id if offered else _cluster_id, name=name)
    return None if found is None else int(found)


def find_clusters(session: Session, names: Collection[str]) -> dict[str, int]:
    """Return the IDs of clusters by name, including removed ones; names without a cluster are omitted."""
    return dict(session.rows(_cluster_ids, names=names)) if names else {}


@statement
def _folder() -> Select[Any]:
    return select(workflow.c.working_directory, workflow.c.umask).where(workflow.c.id == param("id"))


def folder_of(session: Session, workflow_id: int) -> tuple[str, int]:
    """Return the working directory and the umask of a workflow's commands."""
    found = session.row(_folder, id=workflow_id)
    assert found is not None
    return found[0], found[1]


@statement
def _ended_of() -> Select[Any]:
    return select(task_instance.c.id).where(any_of(task_instance.c.id, "ids"), task_instance.c.status.not_in(LIVE))


def ended_of(session: Session, running: Sequence[int]) -> list[int]:
    """Return the running attempts that have already ended in the record: they must stop, as tasks may be retried."""
    return session.column(_ended_of, ids=running) if running else []


def require_not_removed(workflow_id: int, rows: Iterable[Sequence[Any]]) -> None:
    """Refuse to steer tasks that the current version of their workflow does not contain.

    Args:
        workflow_id: the workflow.
        rows: tasks as rows that begin with ID and status.

    Raises:
        InvalidRequest: one of them is removed.
    """
    for row in rows:
        if row[1] == TaskStatus.REMOVED:
            raise InvalidRequest(
                f"Task {row[0]} is no longer part of workflow {workflow_id}: a later version removed it. Nothing was"
                " changed."
            )


def require_skippable(rows: Iterable[Sequence[Any]]) -> None:
    """Refuse to skip tasks that are done or in progress.

    Args:
        rows: tasks as rows that begin with ID, status, and the newest attempt if it is live.

    Raises:
        InvalidRequest: one of them is.
    """
    for task_id, status, live, *_ in rows:
        if status == TaskStatus.DONE:
            raise InvalidRequest(f"Task {task_id} is done; only unfinished tasks can be skipped. Nothing was changed.")
        if live is not None or status in fsm.IN_FLIGHT:
            raise InvalidRequest(
                f"Task {task_id} is queued or running. Nothing was changed. Hold it (jobmon task hold {task_id}), and"
                " skip it once its attempt has ended."
            )
