"""The open requests of a distributor at the server.

*Polls* wait there for work, kills and attempts to check; *the report* carries accumulated reports, one request at a
time. A *registration* replaces both: a lost response may have contained work, so a distributor that misses a response
drops its requests and asks which attempts the server believes it has. The gateway first retries with the same key.
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


class OpenRequests:
    """Manage all open requests.

    Args:
        gateway: interface to the server.
        wake: event that is set when a request is answered.
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
        """Whether a registration is open; no other request is open then."""
        return self._registration is not None

    @property
    def is_reporting(self) -> bool:
        """Whether a report is open."""
        return self._report is not None

    # -- requests ----------------------------------------------------------------------------------------------

    def unasked(self, capacity: Mapping[str, int]) -> dict[str, int]:
        """Return the part of a capacity that no open poll requests."""
        left = dict(capacity)
        for asked in self._polls.values():
            for name, count in asked.items():
                left[name] = left.get(name, 0) - count
        return {name: count for name, count in left.items() if count > 0}

    def is_poll_wanted(self, unasked: Mapping[str, int]) -> bool:
        """Return whether to open a poll: one is always open, another only if it requests as much again."""
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
        """Send reports; no other report may be open."""
        self._report = self._send(request)

    def _send(self, request: SyncRequest) -> asyncio.Task[SyncResponse]:
        task = asyncio.create_task(self._gateway.sync(request))
        task.add_done_callback(self._answered)
        return task

    def register(self, request: DistributorRequest) -> bool:
        """Drop open requests and register, with a growing delay; return whether a report was dropped."""
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
            task.exception()  # retrieve the exception even if the task was dropped meanwhile
        self._wake.set()

    # -- responses ---------------------------------------------------------------------------------------------

    def take_registration(self) -> asyncio.Task[DistributorResponse] | None:
        """Return the registration if it was answered."""
        task = self._registration
        if task is None or not task.done():
            return None
        self._registration = None
        return task

    def take_poll(self) -> asyncio.Task[SyncResponse] | None:
        """Return a poll that was answered, or None."""
        task = next((task for task in self._polls if task.done()), None)
        if task is not None:
            del self._polls[task]
        return task

    def take_report(self) -> asyncio.Task[SyncResponse] | None:
        """Return the report if it was answered."""
        task = self._report
        if task is None or not task.done():
            return None
        self._report = None
        return task

    def answered_well(self) -> None:
        """Reset the delay of the next registration, because the server responds."""
        self._pause = 0.0

    async def hang_up(self) -> None:
        """Cancel all requests."""
        tasks = [task for task in (*self._polls, self._report, self._registration) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._polls.clear()
        self._report = self._registration = None
