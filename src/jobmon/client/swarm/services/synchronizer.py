"""Learns from the server what changed, by a request that is held open until something does.

Every `full_interval` it asks for the status of all tasks instead: should a change ever have been missed, the workflow
is wedged no longer than that. When work is in flight and nothing was heard for a while it asks the server to look for
attempts that are overdue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobmon.client.swarm.state import StateUpdate
from jobmon.core.wire.swarm import LONG_POLL_SECONDS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.client.swarm.gateway import ServerGateway
    from jobmon.client.swarm.state import SwarmState

TRIAGE_INTERVAL_SECONDS: Final = 120.0


class Synchronizer:
    """Asks for changes.

    Args:
        state: says since when.
        gateway: the door to the server.
        full_interval: seconds between two questions for everything.
        now: the loop's time.
    """

    def __init__(
        self, state: SwarmState, gateway: ServerGateway, full_interval: float, now: Callable[[], float]
    ) -> None:
        self._state = state
        self._gateway = gateway
        self._full_interval = full_interval
        self._now = now
        self._full_at = self._triaged_at = now()

    def expect_full(self) -> None:
        """Have the next poll ask for everything."""
        self._full_at = self._now() - self._full_interval

    async def poll(self, wait_seconds: float = LONG_POLL_SECONDS_MAX) -> StateUpdate:
        """Return what changed since the last time, as soon as something did, or nothing after `wait_seconds`."""
        left = self._full_at + self._full_interval - self._now()
        if left <= 0 or self._state.last_sync is None:
            return await self._ask(None)
        update = await self._ask(min(wait_seconds, left))
        if wait_seconds and not update.task_statuses:
            await self._ask_for_triage()
        return update

    async def _ask(self, wait_seconds: float | None) -> StateUpdate:
        since = None if wait_seconds is None else self._state.last_sync
        answer = await self._gateway.get_task_status_updates(since=since, wait_seconds=wait_seconds)
        if since is None:
            self._full_at = self._now()
        statuses = StateUpdate.from_task_status_response(answer.tasks_by_status, answer.time)
        limits = StateUpdate(
            max_concurrently_running=answer.max_concurrently_running,
            array_limits=answer.array_limits,
            workflow_run_status=answer.workflow_run_status,
        )
        return statuses.merge(limits)

    async def _ask_for_triage(self) -> None:
        if self._state.in_flight and self._now() - self._triaged_at >= TRIAGE_INTERVAL_SECONDS:
            self._triaged_at = self._now()
            await self._gateway.request_triage()
