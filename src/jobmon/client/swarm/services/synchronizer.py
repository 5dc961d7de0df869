"""Learns from the server what changed, by a request that is held open until something does.

Every `full_interval` it asks for the status of all tasks instead: should a change ever have been missed, the workflow
is wedged no longer than that. When work is in flight and nothing was heard for a while it asks the server to look for
attempts that are overdue.

While many tasks are queued that nobody has taken yet, what has just been done cannot make anything start sooner. Then
it lets news gather for a moment before it asks again, which saves a request, its answer and their queries per batch.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from jobmon.client.swarm.state import StateUpdate
from jobmon.core.constants import TaskStatus
from jobmon.core.wire.swarm import LONG_POLL_SECONDS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.client.swarm.gateway import ServerGateway
    from jobmon.client.swarm.state import SwarmState

TRIAGE_INTERVAL_SECONDS: Final = 120.0
#: How long news gathers at most, and for which share of the time that the queued tasks will last.
GATHER_SECONDS_MAX: Final = 0.05
_GATHER_SHARE: Final = 0.2
#: With fewer tasks queued than this, nothing is let gather.
GATHER_QUEUED_MIN: Final = 32


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
        self._full_at = self._triaged_at = self._heard_at = now()
        #: Seconds per task that came to an end, as the last answer had it.
        self._pace = 0.0

    def expect_full(self) -> None:
        """Have the next poll ask for everything."""
        self._full_at = self._now() - self._full_interval

    async def poll(self, wait_seconds: float = LONG_POLL_SECONDS_MAX) -> StateUpdate:
        """Return what changed since the last time, as soon as something did, or nothing after `wait_seconds`."""
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
        if queued >= GATHER_QUEUED_MIN:
            await asyncio.sleep(min(GATHER_SECONDS_MAX, queued * self._pace * _GATHER_SHARE))

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
        )
        return statuses.merge(limits)

    async def _ask_for_triage(self) -> None:
        if self._state.in_flight and self._now() - self._triaged_at >= TRIAGE_INTERVAL_SECONDS:
            self._triaged_at = self._now()
            await self._gateway.request_triage()
