"""A job's access to its machine: time, signals, connections to the server, commands. Simulations replace it."""

from __future__ import annotations

import _signal
import os
import select
import sys
import time

from jobmon.agent.processes import Bell
from jobmon.agent.requests import PolledConnection
from jobmon.worker_node import guarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobmon.agent.commands import Commands


class JobHost:
    """This process on this machine.

    Args:
        environment: the variables that determine where the server is found.
        name: the cluster's ID of this job, which identifies its messages in a file that several jobs share.
    """

    def __init__(self, environment: Mapping[str, str], name: str = "") -> None:
        self._environment = environment
        self._heading = f"jobmon worker {name}" if name else "jobmon worker"
        self._bell = Bell()

    def say(self, text: str) -> None:
        """Print a message to the output that the cluster keeps for its jobs."""
        sys.stderr.write(f"{self._heading}: {text}\n")

    def time(self) -> float:
        """Return the time of day, seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the monotonic time, seconds."""
        return time.monotonic()

    def jitter(self) -> float:
        """Return a random factor from 0.5 to 1, so that jobs do not retry at the same time."""
        return 0.5 + os.urandom(1)[0] / 512

    def random_bytes(self, count: int) -> bytes:
        """Return unpredictable random bytes."""
        return os.urandom(count)

    def connection(self) -> PolledConnection:
        """Return a new connection to the server."""
        return PolledConnection(self._environment)

    def heed_signals(self, note: Callable[[int], None]) -> None:
        """Call `note` for each signal that asks this process to exit."""
        for number in guarding.signals(self._environment):
            _signal.signal(number, lambda received, _: note(guarding.passed_on(received)))

    def commands(self, grace_seconds: float) -> Commands:
        """Return the object that runs commands here; the cluster enforces the job's memory limit.

        Args:
            grace_seconds: time between SIGINT and SIGKILL for a command that exceeds its runtime.
        """
        from jobmon.agent.commands import Commands  # not needed for the first request, and not loaded before it
        from jobmon.agent.files import latency_wait_seconds
        from jobmon.agent.memory import Memory

        commands = Commands(Memory(job_width=1), grace_seconds=grace_seconds)
        commands.searches.latency_wait_seconds = latency_wait_seconds(self._environment)
        return commands

    def wait(self, connections: Sequence[PolledConnection], seconds: float) -> None:
        """Wait until a command exits, or a signal or an answer arrives, at most `seconds`."""
        poll = select.poll()
        poll.register(self._bell.fileno(), select.POLLIN)
        for connection in connections:
            found = connection.watched()
            if found is not None:
                poll.register(*found)
        poll.poll(max(0.0, seconds * 1000))
        self._bell.silence()
