"""The requests of a distributor that are open at the server.

*Polls* wait there for work, kills and doubts; *the report* carries what accumulated, one at a time. A *registration*
takes the place of both: an answer that was lost may have held work, so whoever does not get one drops its requests and
asks what the server thinks that it has. The gateway sends a request again under the same key before that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobmon.core.wire.launching import DistributorRequest, DistributorResponse, SyncRequest, SyncResponse
    from jobmon.distributor.gateway import Gateway

POLLS_MAX: Final = 4
PAUSE_SECONDS_FIRST: Final = 0.05
PAUSE_SECONDS_MAX: Final = 5.0


class Lanes:
    """All of them.

    Args:
        gateway: the door to the server.
        wake: is set when one was answered.
    """

    def __init__(self, gateway: Gateway, wake: asyncio.Event) -> None:
        self._gateway = gateway
        self._wake = wake
        self._polls: dict[asyncio.Task[SyncResponse], Mapping[str, int]] = {}
        self._report: asyncio.Task[SyncResponse] | None = None
        self._registration: asyncio.Task[DistributorResponse] | None = None
        self._pause = 0.0

    @property
    def is_registering(self) -> bool:
        """Whether a registration is open, and nothing else."""
        return self._registration is not None

    @property
    def is_reporting(self) -> bool:
        """Whether a report is open."""
        return self._report is not None

    # -- asking ------------------------------------------------------------------------------------------------

    def unasked(self, capacity: Mapping[str, int]) -> dict[str, int]:
        """Return the part of a capacity that no open poll asks for."""
        left = dict(capacity)
        for asked in self._polls.values():
            for name, count in asked.items():
                left[name] = left.get(name, 0) - count
        return {name: count for name, count in left.items() if count > 0}

    def is_poll_wanted(self, unasked: Mapping[str, int]) -> bool:
        """One is always open; another when it would ask for as much again (so that there are never many)."""
        if not self._polls:
            return True
        if self._report is not None or len(self._polls) >= POLLS_MAX:
            return False  # the report's answer may bring work
        for name, count in unasked.items():
            if count >= max(1, sum(asked.get(name, 0) for asked in self._polls.values())):
                return True
        return False

    def poll(self, request: SyncRequest) -> None:
        """Open a poll."""
        self._polls[self._send(request)] = request.capacity

    def report(self, request: SyncRequest) -> None:
        """Send reports; none may be open."""
        self._report = self._send(request)

    def _send(self, request: SyncRequest) -> asyncio.Task[SyncResponse]:
        task = asyncio.create_task(self._gateway.sync(request))
        task.add_done_callback(self._answered)
        return task

    def register(self, request: DistributorRequest) -> bool:
        """Drop what is open and register, a while after the last time; return whether a report was dropped."""
        for task in (*self._polls, self._report):
            if task is not None:
                task.cancel()
        self._polls.clear()
        was_reporting, self._report = self._report is not None, None
        self._registration = asyncio.create_task(self._register(request, self._pause))
        self._registration.add_done_callback(self._answered)
        self._pause = min(PAUSE_SECONDS_MAX, max(PAUSE_SECONDS_FIRST, self._pause * 2))
        return was_reporting

    async def _register(self, request: DistributorRequest, pause: float) -> DistributorResponse:
        await asyncio.sleep(pause)
        return await self._gateway.register(request)

    def _answered(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # seen here also when the task was dropped meanwhile
        self._wake.set()

    # -- answers -----------------------------------------------------------------------------------------------

    def take_registration(self) -> asyncio.Task[DistributorResponse] | None:
        """Return the registration that was answered."""
        task = self._registration
        if task is None or not task.done():
            return None
        self._registration = None
        return task

    def take_poll(self) -> asyncio.Task[SyncResponse] | None:
        """Return a poll that was answered."""
        task = next((task for task in self._polls if task.done()), None)
        if task is not None:
            del self._polls[task]
        return task

    def take_report(self) -> asyncio.Task[SyncResponse] | None:
        """Return the report that was answered."""
        task = self._report
        if task is None or not task.done():
            return None
        self._report = None
        return task

    def answered_well(self) -> None:
        """The server can be spoken to: the next registration need not wait."""
        self._pause = 0.0

    async def hang_up(self) -> None:
        """Drop all."""
        tasks = [task for task in (*self._polls, self._report, self._registration) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._polls.clear()
        self._report = self._registration = None
