"""Tells the server on a timer of its own that the run lives, and learns whether it was told to end."""

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
        state: takes in what the server says of the run's status.
        gateway: the door to the server.
        interval: seconds between two beats.
        report_by_buffer: after how many intervals the run counts as overdue.
        on_status_change: called when the server's answer changed the run's status.
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
        """Beat until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(self._interval)
