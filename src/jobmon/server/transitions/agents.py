"""Move agents, and settle the attempts of agents that are gone. `agent_states` defines the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import AgentStatus, Cause, TaskInstanceStatus
from jobmon.server.constructs import select, update
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW
from jobmon.server.models import agent, task_instance, workflow_run
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transitions.attempts import AttemptMoves, attempt_deadline

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Select, Update

    from jobmon.server.sql import Session
    from jobmon.server.transaction import Transaction

TI = TaskInstanceStatus
#: Precision, seconds, with which an agent's last contact is recorded; not every request updates it.
SEEN_SECONDS: Final = 5.0

a, ti = agent.c, task_instance.c


@statement
def _attempts_of_agent() -> Select[Any]:
    """Select the attempts of an agent in some states, by the runs of its workflow."""
    return (
        select(ti.id, ti.status)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(
            workflow_run.c.workflow_id == param("workflow"),
            any_of(ti.status, "statuses"),
            ti.agent_id == param("agent"),
        )
        .order_by(ti.id)
    )


def attempts_of_agent(
    session: Session, workflow_id: int, agent_id: int, statuses: tuple[TI, ...] = fsm.TAKEN
) -> list[tuple[int, str]]:
    """Return the attempts of an agent that are in one of these states, with their status."""
    return session.rows(_attempts_of_agent, workflow=workflow_id, agent=agent_id, statuses=statuses)


@statement
def _orders() -> Select[Any]:
    of_agents = any_of(workflow_run.c.workflow_id, "workflows"), any_of(ti.agent_id, "agents")
    found = select(ti.agent_id, ti.id).select_from(ATTEMPTS_OF_WORKFLOW)
    return found.where(*of_agents, ti.status == param("status")).order_by(ti.id)


def orders_by_agent(session: Session, workflows: Collection[int], agents: Collection[int]) -> dict[int, list[int]]:
    """Return the attempts of agents of these workflows that are to be terminated, by agent, if it has any."""
    values = {"workflows": workflows, "agents": agents, "status": TI.KILL_SELF.value}
    found: dict[int, list[int]] = {}
    for agent_id, attempt_id in session.rows(_orders, **values):
        found.setdefault(agent_id, []).append(attempt_id)
    return found


@statement
def _note_request() -> Update:
    values = {name: param(name) for name in ("status", "seen_at", "report_by", "last_key")}
    return update(agent).values(values).where(a.id == param("id"))


def note_request(tx: Transaction, agent_id: int, status: AgentStatus, last_key: int) -> None:
    """Record an agent's contact, its status, and the key of its newest request that claimed attempts."""
    deadline = attempt_deadline(tx)
    tx.run(_note_request, id=agent_id, status=status.value, seen_at=tx.now, report_by=deadline, last_key=last_key)


@statement
def _set_status() -> Update:
    return update(agent).values(status=param("status")).where(a.id == param("id"))


def end_agent(tx: Transaction, workflow_id: int, agent_id: int, status: AgentStatus) -> int:
    """Move an agent to a final status and its remaining attempts to lost, uncharged; return their number."""
    tx.run(_set_status, id=agent_id, status=status.value)
    left = attempts_of_agent(tx, workflow_id, agent_id)
    moves = AttemptMoves(tx, [attempt_id for attempt_id, _ in left])
    for attempt_id, _ in left:
        moves.move(attempt_id, TI.UNKNOWN_ERROR, cause=Cause.WORKER_LOST)  # for KILL_SELF the table makes this ERROR
    return moves.write()
