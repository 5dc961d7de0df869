"""Look up an agent together with the state that decides what it may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobmon.server.constructs import select
from jobmon.server.fair_share import Holder
from jobmon.server.joins import newest_run
from jobmon.server.models import agent, cluster, workflow_run
from jobmon.server.problems import NotFound
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transitions import agent_states

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Select

    from jobmon.server.sql import Session


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent as recorded, with its run. `newest_run_id` is the newest run of its workflow."""

    id: int
    workflow_id: int
    run_id: int
    cluster_id: int
    cluster_name: str
    status: str
    last_key: int
    seen_at: int
    run_status: str
    newest_run_id: int

    @property
    def holder(self) -> Holder:
        """The holder under which the agent leases cores."""
        return Holder(self.workflow_id, self.id)

    @property
    def is_over(self) -> bool:
        """Whether the agent will receive no more work."""
        return agent_states.is_over(self.status, self.run_status, is_newest=self._is_newest)

    @property
    def may_claim(self) -> bool:
        """Whether attempts may be given to the agent now."""
        return agent_states.may_claim(self.status, self.run_status, is_newest=self._is_newest)

    @property
    def _is_newest(self) -> bool:
        return self.run_id == self.newest_run_id


def _agents() -> Select[Any]:
    """Select agents with the columns of `AgentRow`."""
    a, r, c = agent.c, workflow_run.c, cluster.c
    return select(
        *(a.id, a.workflow_id, a.workflow_run_id, a.cluster_id, c.name, a.status, a.last_key, a.seen_at),
        *(r.status, newest_run(a.workflow_id)),
    ).select_from(agent.join(workflow_run, r.id == a.workflow_run_id).join(cluster, c.id == a.cluster_id))


@statement
def _agent_row() -> Select[Any]:
    return _agents().where(agent.c.id == param("id"))


@statement
def _agent_rows() -> Select[Any]:
    return _agents().where(any_of(agent.c.id, "ids"))


def require_agent(session: Session, agent_id: int) -> AgentRow:
    """Return an agent.

    Raises:
        NotFound: no agent has this ID.
    """
    row = session.row(_agent_row, id=agent_id)
    if row is None:
        raise NotFound.of("agent", agent_id)
    return AgentRow(*row)


def agents_by_id(session: Session, ids: Collection[int]) -> dict[int, AgentRow]:
    """Return those of these agents that exist."""
    return {row[0]: AgentRow(*row) for row in session.rows(_agent_rows, ids=ids)}


@statement
def _live_agents() -> Select[Any]:
    a = agent.c
    return (
        select(a.id, a.host, a.boot_id, a.pid, a.pid_start_time, a.seen_at)
        .where(a.workflow_id == param("workflow"), any_of(a.status, "live"))
        .order_by(a.id)
    )


def live_agents(session: Session, workflow_id: int) -> list[tuple[Any, ...]]:
    """Return the agents of a workflow that are still live: ID, host, boot ID, PID, process start time, last contact."""
    return session.rows(_live_agents, workflow=workflow_id, live=agent_states.LIVE_AGENTS)
