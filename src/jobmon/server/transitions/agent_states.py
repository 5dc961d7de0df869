"""The rules about agents and their attempts. Pure: values in, values out.

An agent is ACTIVE until it reports that it drains or leaves. It becomes LOST after too long without contact. CLOSED and
LOST are final: an agent that comes back learns that it is over, and terminates what it is still running.
"""

from __future__ import annotations

from typing import Final

from jobmon.core import fsm
from jobmon.core.constants import AgentStatus
from jobmon.core.fsm import QUEUING_RUNS, Machine

#: Agents that may have attempts; heartbeats are expected from them.
LIVE_AGENTS: Final = (AgentStatus.ACTIVE, AgentStatus.DRAINING)


def after(status: str, *, drain: bool, leaving: bool) -> AgentStatus:
    """Return the status of an agent after a request from it."""
    known = AgentStatus(status)
    if known not in LIVE_AGENTS:
        return known
    if leaving:
        return AgentStatus.CLOSED
    return AgentStatus.DRAINING if drain else known


def is_over(status: str, run_status: str, *, is_newest: bool) -> bool:
    """Return whether an agent will receive no more work."""
    is_final = fsm.is_terminal(Machine.WORKFLOW_RUN, run_status)
    return AgentStatus(status) not in LIVE_AGENTS or is_final or not is_newest


def may_claim(status: str, run_status: str, *, is_newest: bool) -> bool:
    """Return whether attempts may be given to an agent now."""
    return status == AgentStatus.ACTIVE and run_status in QUEUING_RUNS and is_newest


def may_report(owner: int | None, reporter: int | None) -> bool:
    """Return whether a reporter may move an attempt.

    Args:
        owner: the agent that claimed the attempt; None: it belongs to the distributor of its workflow.
        reporter: the agent that reports, or that its successor reports for; None: a distributor or its workers.
    """
    return owner == reporter
