"""Determine whether an open poll of an agent has to be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.core.constants import TaskInstanceStatus
from jobmon.server.agent_rows import AgentRow, require_agent
from jobmon.server.queries.fair_share import has_other_grant
from jobmon.server.queries.launching import is_work_queued
from jobmon.server.transitions import attempts_of_agent

if TYPE_CHECKING:
    from jobmon.core.wire.agents import AgentSyncRequest
    from jobmon.server.sql import Session


def has_news(session: Session, agent_id: int, request: AgentSyncRequest) -> bool:
    """Return whether there is work, something new to kill, another grant, or an end unknown to the agent."""
    row = require_agent(session, agent_id)
    return (
        (row.is_over and not request.drain)
        or _has_work(session, row, request)
        or _has_orders(session, row, request)
        or (request.slots is not None and has_other_grant(session, row.holder, request.slots))
    )


def _has_work(session: Session, row: AgentRow, request: AgentSyncRequest) -> bool:
    wants_work = request.cores_free + request.cores_ahead > 0 and not request.drain
    return wants_work and row.may_claim and is_work_queued(session, row.run_id, [row.cluster_name])


def _has_orders(session: Session, row: AgentRow, request: AgentSyncRequest) -> bool:
    orders = attempts_of_agent(session, row.workflow_id, row.id, (TaskInstanceStatus.KILL_SELF,))
    known = set(request.known_to_kill)
    return any(attempt_id not in known for attempt_id, _ in orders)
