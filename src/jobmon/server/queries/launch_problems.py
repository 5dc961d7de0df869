"""Read the problems that prevent a distributor from launching; see `usecases.launch_problems`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobmon.server.constructs import select
from jobmon.server.models import cluster, launch_problem
from jobmon.server.sql import param, statement

if TYPE_CHECKING:
    from sqlalchemy import Select

    from jobmon.server.sql import Session


@dataclass(frozen=True, slots=True)
class KnownProblem:
    """A problem on one cluster. Times are microseconds since the epoch; `stamp`: its logical time."""

    cluster: str
    text: str
    since: int
    tried_at: int
    next_at: int
    waiting: int
    stamp: int


@statement
def _problems() -> Select[Any]:
    p = launch_problem.c
    return (
        select(cluster.c.name, p.text, p.since, p.tried_at, p.next_at, p.waiting, p.stamp)
        .join_from(launch_problem, cluster, cluster.c.id == p.cluster_id)
        .where(p.workflow_id == param("workflow"))
        .order_by(cluster.c.name)
    )


def of_workflow(session: Session, workflow_id: int) -> list[KnownProblem]:
    """Return the problems of a workflow's distributor, by name of the cluster."""
    return [KnownProblem(*row) for row in session.rows(_problems, workflow=workflow_id)]
