"""Sends the heartbeats of a run on their own timer, and applies the run's status from the responses."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from jobmon.client.swarm.state import StateUpdate

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.client.swarm.gateway import ServerGateway
    from jobmon.client.swarm.state import SwarmState

logger = logging.getLogger(__name__)


class HeartbeatService:
    """Heartbeats of one run.

    Args:
        state: receives the run's status from the server's responses.
        gateway: sends requests to the server.
        interval: seconds between two heartbeats.
        report_by_buffer: number of intervals after which the run counts as overdue.
        on_status_change: called when a response changed the run's status.
    """

    def __init__(
        self,
        state: SwarmState,
        gateway: ServerGateway,
        interval: float,
        report_by_buffer: float,
        *,
        on_status_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._gateway = gateway
        self._interval = interval
        self._increment = interval * report_by_buffer
        self._on_status_change = on_status_change

    async def beat(self) -> None:
        """Send one heartbeat."""
        response = await self._gateway.log_heartbeat(status=self._state.status, next_report_increment=self._increment)
        before = self._state.status
        self._state.apply_update(StateUpdate(workflow_run_status=response.status))
        if self._state.status is not before:
            logger.info("Run %s is now %s.", self._state.workflow_run_id, self._state.status.name)
            self._on_status_change()

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(self._interval)
