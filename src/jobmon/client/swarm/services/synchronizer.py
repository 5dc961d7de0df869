"""Fetches changes from the server with long polls.

Every `full_interval`, it fetches the status of all tasks instead: if a change was ever missed, the workflow is stuck
for no longer than that. If work is in flight and nothing has changed for a while, it asks the server to look for
overdue attempts.

While many queued tasks have not been claimed yet, a completion cannot make anything start sooner. The synchronizer
then lets changes accumulate for a moment before it polls again, which saves a request, a response and their queries per
batch. The same applies while the server queues the next tasks by itself because they are armed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from jobmon.client.swarm.gateway import steering_of
from jobmon.client.swarm.state import StateUpdate
from jobmon.core.constants import TaskStatus
from jobmon.core.wire.swarm import LONG_POLL_SECONDS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.client.swarm.gateway import ServerGateway
    from jobmon.client.swarm.state import SwarmState

TRIAGE_INTERVAL_SECONDS: Final = 120.0
#: Maximum time for changes to accumulate, and the share of the time that the queued tasks will last.
GATHER_SECONDS_MAX: Final = 0.05
_GATHER_SHARE: Final = 0.2
#: Minimum number of queued tasks to let changes accumulate.
GATHER_QUEUED_MIN: Final = 32


class Synchronizer:
    """Polls for changes.

    Args:
        state: has the time of the last synchronization.
        gateway: sends requests to the server.
        full_interval: seconds between two full synchronizations.
        now: returns the loop's time in seconds.
    """

    def __init__(
        self, state: SwarmState, gateway: ServerGateway, full_interval: float, now: Callable[[], float]
    ) -> None:
        self._state = state
        self._gateway = gateway
        self._full_interval = full_interval
        self._now = now
        self._full_at = self._triaged_at = self._heard_at = now()
        #: Seconds per completed task, measured by the last response.
        self._pace = 0.0

    def expect_full(self) -> None:
        """Make the next poll fetch the status of all tasks."""
        self._full_at = self._now() - self._full_interval

    async def poll(self, wait_seconds: float = LONG_POLL_SECONDS_MAX) -> StateUpdate:
        """Return the changes since the last poll as soon as there are any, or an empty update after `wait_seconds`."""
        if wait_seconds:
            await self._gather()
        left = self._full_at + self._full_interval - self._now()
        if left <= 0 or self._state.last_sync is None:
            return await self._ask(None)
        update = await self._ask(min(wait_seconds, left))
        if wait_seconds and not update.task_statuses:
            await self._ask_for_triage()
        return update

    async def _gather(self) -> None:
        queued = len(self._state.get_tasks_by_status(TaskStatus.QUEUED))
        supply = (queued if queued >= GATHER_QUEUED_MIN else 0) + self._armed_supply()
        if supply:
            await asyncio.sleep(min(GATHER_SECONDS_MAX, supply * self._pace * _GATHER_SHARE))

    def _armed_supply(self) -> int:
        """Return the number of tasks that the server queues by itself; 0 if polling should not be delayed."""
        state = self._state
        is_at_rest = not (state.has_waiting or state.armed.is_unreliable)
        return len(state.armed) if is_at_rest else 0

    async def _ask(self, wait_seconds: float | None) -> StateUpdate:
        since = None if wait_seconds is None else self._state.last_sync
        answer = await self._gateway.get_task_status_updates(since=since, wait_seconds=wait_seconds)
        now = self._now()
        if since is None:
            self._full_at = now
        self._pace = (now - self._heard_at) / max(1, len(answer.tasks_by_status.get(TaskStatus.DONE, ())))
        self._heard_at = now
        statuses = StateUpdate.from_task_status_response(answer.tasks_by_status, answer.time)
        limits = StateUpdate(
            max_concurrently_running=answer.max_concurrently_running,
            array_limits=answer.array_limits,
            workflow_run_status=answer.workflow_run_status,
            resource_errors=answer.resource_errors,
            launch_problems=answer.launch_problems,
            notices=answer.notices,
        )
        return statuses.merge(limits).merge(steering_of(answer))

    async def _ask_for_triage(self) -> None:
        if self._state.in_flight and self._now() - self._triaged_at >= TRIAGE_INTERVAL_SECONDS:
            self._triaged_at = self._now()
            await self._gateway.request_triage()
