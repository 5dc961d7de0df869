"""Where a packed job runs: time, signals, connections to the server, commands. A simulation has another one."""

from __future__ import annotations

import os
import select
import signal
import time

from jobmon.worker_node.child import Bell, Child
from jobmon.worker_node.lane import Lane
from jobmon.worker_node.oom import OomKills

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Site:
    """This process on this machine.

    Args:
        environment: says where the server is.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._bell = Bell()
        self._oom_kills = OomKills()

    def time(self) -> float:
        """Return the time of day, seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return time.monotonic()

    def random_bytes(self, count: int) -> bytes:
        """Return bytes that nobody can foresee."""
        return os.urandom(count)

    def lane(self) -> Lane:
        """Return a connection to the server."""
        return Lane(self._environment)

    def heed_signals(self, note: Callable[[int, object], None]) -> None:
        """Have signals that ask this process to end noted."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)

    def oom_kills(self) -> int:
        """Return how often the kernel killed something here for want of memory."""
        return self._oom_kills.count()

    def start(
        self,
        words: list[str],
        environment: Mapping[str, str],
        outputs: tuple[str, str],
        directory: str,
        umask: int,
    ) -> Child:
        """Start a command; raises OSError or ValueError where that cannot be."""
        return Child(words, environment, outputs, directory, umask, self._bell)

    def wait(self, lanes: Sequence[Lane], seconds: float) -> None:
        """Wait until a command ended, a signal or an answer came, at most so long."""
        poll = select.poll()
        poll.register(self._bell.fileno(), select.POLLIN)
        for lane in lanes:
            found = lane.watched()
            if found is not None:
                poll.register(*found)
        poll.poll(max(0.0, seconds * 1000))
        self._bell.silence()
