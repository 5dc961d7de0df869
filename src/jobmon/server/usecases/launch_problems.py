"""Why a distributor cannot launch on a cluster now, as reported by the distributor; kept until it launches again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, select, update

from jobmon.server.lookups import find_clusters
from jobmon.server.models import launch_problem
from jobmon.server.problems import InvalidValue
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import Audience

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import Delete, Select, Update

    from jobmon.core.wire.launching import LaunchProblem
    from jobmon.server.transaction import Transaction

PROBLEMS_MAX: Final = 1_000
PROBLEM_CHARACTERS_MAX: Final = 2_000
#: Maximum age of a problem, and maximum time until its next retry, seconds.
SECONDS_MAX: Final = 1e8

p = launch_problem.c


@statement
def _known() -> Select[Any]:
    return select(p.cluster_id).where(p.workflow_id == param("workflow"))


@statement
def _delete() -> Delete:
    return delete(launch_problem).where(p.workflow_id == param("workflow"), any_of(p.cluster_id, "clusters"))


@statement
def _delete_all() -> Delete:
    return delete(launch_problem).where(p.workflow_id == param("workflow"))


@statement
def _change() -> Update:
    changes = {name: param(name) for name in ("text", "since", "tried_at", "next_at", "waiting")}
    return (
        update(launch_problem)
        .values(changes)
        .where(p.workflow_id == param("workflow"), p.cluster_id == param("cluster"))
    )


def note(
    tx: Transaction,
    workflow_id: int,
    problems: Mapping[str, LaunchProblem] | None,
    clusters: Collection[int] | None = None,
) -> None:
    """Record the problems of a workflow's distributor or agent.

    Args:
        tx: the transaction.
        workflow_id: ID of the workflow.
        problems: all current problems, by name of the cluster; None: unchanged.
        clusters: IDs of the clusters whose problems only this reporter knows; None: all clusters.
    """
    if problems is None:
        return
    if len(problems) > PROBLEMS_MAX:
        raise InvalidValue(f"launch_problems: at most {PROBLEMS_MAX} in one request.")
    known = set(tx.column(_known, workflow=workflow_id))
    if clusters is not None:
        known &= set(clusters)
    ids = find_clusters(tx, problems)
    gone, new = known.difference(ids.values()), set(ids.values()) - known
    if gone:
        tx.run(_delete, workflow=workflow_id, clusters=gone)
    for name, cluster_id in ids.items():
        values = _values(tx, problems[name])
        if cluster_id in new:
            tx.insert(launch_problem, workflow_id=workflow_id, cluster_id=cluster_id, stamp=tx.stamp, **values)
        else:
            tx.run(_change, workflow=workflow_id, cluster=cluster_id, **values)
    if gone or new:
        tx.wake(Audience.ORCHESTRATOR, workflow_id)


def _values(tx: Transaction, found: LaunchProblem) -> dict[str, Any]:
    since, tried, following = (
        int(max(0.0, min(seconds, SECONDS_MAX)) * 1e6)
        for seconds in (found.since_seconds, found.tried_seconds, found.next_seconds)
    )
    return {
        "text": found.text[:PROBLEM_CHARACTERS_MAX],
        "since": tx.now - since,
        "tried_at": tx.now - tried,
        "next_at": tx.now + following,
        "waiting": found.waiting,
    }


def forget(tx: Transaction, workflow_id: int) -> None:
    """Delete all problems of a workflow: the next distributor reports its own."""
    tx.run(_delete_all, workflow=workflow_id)
