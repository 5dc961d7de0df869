"""Run the passes of `usecases.reaping` periodically, and detect when the server was suspended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from jobmon.core import paths
from jobmon.server.times import to_microseconds
from jobmon.server.usecases import reaping, timekeeping

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from jobmon.core.clock import Clock
    from jobmon.server.readers import Readers
    from jobmon.server.settings import Settings
    from jobmon.server.usecases.reaping import Reaped
    from jobmon.server.writer import Writer

#: Number of time checks within the shortest deadline.
LOOKS_PER_DEADLINE: Final = 4
#: A pass re-examines workflows of which a task changed during this many previous passes.
PASSES_LOOKED_BACK: Final = 3

logger = logging.getLogger(__name__)


def own_name() -> str:
    """Return the name of this process as the holder of a lease."""
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid}:{paths.process_start_time(pid) or 0.0:.2f}"


def is_gone(holder: str) -> bool:
    """Return whether the holder of a lease was a process of this machine that is gone, whatever its host name was."""
    _, _, rest = holder.partition(":")
    pid, _, start_time = rest.partition(":")
    if not start_time or not paths.has_seen_start(float(start_time)):
        return False
    return not paths.is_process_alive(int(pid), float(start_time))


class Reaper:
    """The reaper of one server process; the lease decides which reaper works.

    Args:
        writer: runs the passes.
        readers: find what there is to do.
        settings: intervals and deadlines.
        clock: the clock.
    """

    def __init__(self, writer: Writer, readers: Readers, settings: Settings, clock: Clock) -> None:
        self._writer = writer
        self._readers = readers
        self._interval = settings.reaper_interval_seconds
        shortest = min(settings.run_deadline_seconds, settings.attempt_deadline_seconds)
        self._look = min(self._interval, shortest / LOOKS_PER_DEADLINE)
        self._clock = clock
        self._holder = own_name()
        self._has_looked = False

    async def run(self) -> None:
        """Check the time and run passes until cancelled."""
        loop = asyncio.get_running_loop()
        looked_at, due = loop.time(), loop.time() + self._interval
        await self._guarded(self._writer.run(timekeeping.begin))
        while True:
            await asyncio.sleep(self._look)
            slept = loop.time() - looked_at - self._look
            looked_at = loop.time()
            if slept > timekeeping.JUMP_SECONDS:
                await self._guarded(self._writer.run(timekeeping.prolong, slept, "the server was suspended"))
            if looked_at >= due:
                due = looked_at + self._interval
                await self._guarded(self.do_pass())

    async def _guarded(self, work: Coroutine[object, object, object]) -> None:
        try:
            await work
        except Exception:
            logger.exception("the reaper failed; retrying in %g s", self._interval)

    async def do_pass(self) -> Reaped:
        """Run one pass."""
        now = to_microseconds(self._clock.now())
        since = now - int(PASSES_LOOKED_BACK * self._interval * 1e6) if self._has_looked else 0
        self._has_looked = True
        candidates = await self._readers.run(reaping.look, now, since)
        reaped = await self._writer.run(reaping.reap, self._holder, candidates, is_gone)
        for run_id in reaped.runs:
            logger.warning("closed workflow run %d: its client is lost", run_id, extra={"workflow_run_id": run_id})
        if reaped.attempts:
            logger.warning("closed %d attempts that no distributor monitors", reaped.attempts)
        return reaped
