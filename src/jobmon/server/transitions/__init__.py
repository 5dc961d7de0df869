"""The only package that changes status columns. `core.fsm` and `core.retry` make the decisions.

`attempts` moves attempts and their tasks, `runs` moves runs and their workflows, `agents` closes agents, `bulk` moves
thousands of rows at once. Every write carries the transaction's stamp. LATE changes are ignored and counted; ILLEGAL
ones are rejected individually (attempts) or raise an exception (runs). It may import `server.models`, `server.joins`
and `core`.
Start with `attempts`.
"""

from __future__ import annotations

from jobmon.core.fsm import FINAL_RUNS, LIVE, QUEUING_RUNS, TAKEN
from jobmon.server.transitions.agent_states import LIVE_AGENTS
from jobmon.server.transitions.agents import (
    SEEN_SECONDS,
    attempts_of_agent,
    end_agent,
    note_request,
    orders_by_agent,
)
from jobmon.server.transitions.attempts import (
    AttemptMoves,
    attempt_deadline,
    end_queued,
    end_untaken,
    kill_taken,
    live_attempts,
    move_all,
)
from jobmon.server.transitions.bulk import (
    change_statuses,
    claim,
    launch,
    queue_tasks,
    reset_tasks,
    set_tasks,
    settable_status,
    submit_packed,
)
from jobmon.server.transitions.expansions import call_expansion, move_expansion
from jobmon.server.transitions.runs import RunRow, move_run, move_workflow, run_row

__all__ = [
    "FINAL_RUNS",
    "LIVE",
    "LIVE_AGENTS",
    "QUEUING_RUNS",
    "SEEN_SECONDS",
    "TAKEN",
    "AttemptMoves",
    "RunRow",
    "attempt_deadline",
    "attempts_of_agent",
    "call_expansion",
    "change_statuses",
    "claim",
    "end_agent",
    "end_queued",
    "end_untaken",
    "kill_taken",
    "launch",
    "live_attempts",
    "move_all",
    "move_expansion",
    "move_run",
    "move_workflow",
    "note_request",
    "orders_by_agent",
    "queue_tasks",
    "reset_tasks",
    "run_row",
    "set_tasks",
    "settable_status",
    "submit_packed",
]
