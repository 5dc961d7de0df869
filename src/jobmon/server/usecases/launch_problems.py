"""Why a distributor or agent cannot launch on a cluster now, as it reported; kept until it launches again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.server.constructs import delete, select, update
from jobmon.server.lookups import find_clusters
from jobmon.server.models import agent, launch_problem
from jobmon.server.problems import InvalidValue
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import Audience
from jobmon.server.transitions import LIVE_AGENTS

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
def _known_to_distributor() -> Select[Any]:
    """Select the clusters with problems that have no live agent, which reports its own."""
    a = agent.c
    served = select(a.cluster_id).where(a.workflow_id == param("workflow"), any_of(a.status, "live"))
    return select(p.cluster_id).where(p.workflow_id == param("workflow"), p.cluster_id.not_in(served))


@statement
def _delete() -> Delete:
    return delete(launch_problem).where(p.workflow_id == param("workflow"), any_of(p.cluster_id, "clusters"))


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
        clusters: IDs of the clusters that the reporting agent serves; None: a distributor reports, which serves all
            clusters without an agent.
    """
    if problems is None:
        return
    if len(problems) > PROBLEMS_MAX:
        raise InvalidValue(f"launch_problems: at most {PROBLEMS_MAX} in one request.")
    if clusters is None:
        known = _of_distributor(tx, workflow_id)
    else:
        known = set(clusters).intersection(tx.column(_known, workflow=workflow_id))
    ids = find_clusters(tx, problems)
    gone, new = known.difference(ids.values()), set(ids.values()) - known
    if gone:
        tx.run(_delete, workflow=workflow_id, clusters=gone)
    for name, cluster_id in ids.items():
        values = _values(tx, problems[name])
        if cluster_id in new:
            tx.add(launch_problem, workflow_id=workflow_id, cluster_id=cluster_id, stamp=tx.stamp, **values)
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
    """Delete the problems that a workflow's distributor reported: the next distributor reports its own."""
    if clusters := _of_distributor(tx, workflow_id):
        tx.run(_delete, workflow=workflow_id, clusters=clusters)


def _of_distributor(tx: Transaction, workflow_id: int) -> set[int]:
    return set(tx.column(_known_to_distributor, workflow=workflow_id, live=LIVE_AGENTS))
