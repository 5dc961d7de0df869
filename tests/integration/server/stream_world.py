"""Read the events of a stream as its readers do."""

from __future__ import annotations

import asyncio

from jobmon.core import wire
from jobmon.core.wire.failures import FailuresResponse
from jobmon.core.wire.monitoring import TaskSummariesResponse, WorkflowsResponse, WorkflowView

KINDS = {
    "workflow": WorkflowsResponse,
    "view": WorkflowView,
    "tasks": TaskSummariesResponse,
    "failures": FailuresResponse,
}
SECONDS_MAX = 30


class Events:
    """The events of an open stream."""

    def __init__(self, response):
        self.response = response
        self._lines = response.aiter_lines()
        self.id = ""

    async def next(self):
        """Return name and message of the next event, or None at the end."""
        found = {}
        async with asyncio.timeout(SECONDS_MAX):
            async for line in self._lines:
                if line.startswith(":"):
                    continue
                if line:
                    name, _, value = line.partition(": ")
                    found[name] = value
                elif found:
                    self.id = found["id"]
                    return found["event"], wire.decode(KINDS[found["event"]], found["data"].encode())
        return None

    async def whole(self):
        """Return the messages of the next events by name: one of each kind, in any order."""
        return dict([await self.next() for _ in KINDS])

    async def comment(self):
        """Wait for a comment, before which no event may come."""
        async with asyncio.timeout(SECONDS_MAX):
            async for line in self._lines:
                assert not line or line.startswith(":"), line
                if line:
                    return
        raise AssertionError("the stream ended")

    async def until(self, name, holds):
        """Return the first message of an event for which something holds."""
        while (event := await self.next()) is not None:
            if event[0] == name and holds(event[1]):
                return event[1]
        raise AssertionError("the stream ended")
