"""The waiting attempts of an agent, the use of its cores, and how much more work it can use. Pure.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

#: Work is prefetched for this many seconds, up to this multiple of the cores.
AHEAD_SECONDS = 0.25
AHEAD_FACTOR_MAX = 64.0
#: The assumed runtime of commands before any has completed, seconds.
SECONDS_ASSUMED = 0.1
SECONDS_MIN = AHEAD_SECONDS / AHEAD_FACTOR_MAX
#: Prefetched work is no longer started when the server has been silent for this long.
AHEAD_EXPIRY_SECONDS_MAX = 30.0
_NEWEST_SHARE = 0.1
FRACTION = 1e-9
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Collection, Iterable

    from jobmon.agent.starting import Launch
else:
    from _collections import deque  # `collections` imports a lot


def ahead_expiry(heartbeat_interval: float, report_by_buffer: float) -> float:
    """Return the silence of the server after which prefetched work is no longer started, seconds.

    It ends before the server may declare the agent lost and have the work run elsewhere, also if the agent was
    suspended in between. The server counts from its receipt of a request, the agent from the answer.

    >>> ahead_expiry(90.0, 3.1), round(ahead_expiry(2.0, 3.1), 3), ahead_expiry(2.0, 1.5)
    (30.0, 4.2, 1.5)
    """
    return min(AHEAD_EXPIRY_SECONDS_MAX, heartbeat_interval * max(report_by_buffer - 1, report_by_buffer / 2))


class Work:
    """The attempts that wait to be started, and the cores and memory of those that run.

    Args:
        cores: the cores of this machine for all workflows.
        memory_gib: the memory of this machine for all workflows, GiB.
        granted: cores that may be used now.
        seconds_assumed: the assumed runtime of commands before any has completed.
    """

    def __init__(
        self, cores: float, memory_gib: float, granted: float, seconds_assumed: float = SECONDS_ASSUMED
    ) -> None:
        self.cores = cores
        self.memory_gib = memory_gib
        self.granted = granted
        self.waiting: deque[Launch] = deque()
        self._waiting_cores = 0.0
        self._used: dict[int, tuple[float, float]] = {}  # attempt -> cores, memory
        self.cores_used = 0.0
        self._memory_used = 0.0
        self.mean_seconds = seconds_assumed

    @property
    def running_count(self) -> int:
        """The number of attempts that count as running."""
        return len(self._used)

    def take(self, launches: Iterable[Launch]) -> None:
        """Append attempts to the waiting ones."""
        for launch in launches:
            self.waiting.append(launch)
            self._waiting_cores += launch.cores

    def put_back(self, launch: Launch) -> None:
        """Put an attempt that could not be started back in front of the waiting ones."""
        self.waiting.appendleft(launch)
        self._waiting_cores += launch.cores

    def remove(self, identities: Collection[int]) -> list[Launch]:
        """Remove the given attempts from the waiting ones; return those removed."""
        removed = [launch for launch in self.waiting if launch.identity in identities]
        if removed:
            self.waiting = deque(launch for launch in self.waiting if launch.identity not in identities)
            self._waiting_cores -= sum(launch.cores for launch in removed)
        return removed

    def drop_all(self) -> list[Launch]:
        """Remove and return all waiting attempts."""
        dropped, self.waiting, self._waiting_cores = list(self.waiting), deque(), 0.0
        return dropped

    def next(self, blocked: Collection[int] = ()) -> Launch | None:
        """Return the oldest waiting attempt if it fits next to the running ones, else None.

        An attempt that requests more memory than the machine has runs alone.

        Args:
            blocked: attempts to skip because their devices are in use.
        """
        launch = next((one for one in self.waiting if one.identity not in blocked), None)
        if launch is None or self.cores_used + launch.cores > self.granted + FRACTION:
            return None
        if self._used and self._memory_used + launch.memory > self.memory_gib + FRACTION:
            return None
        return launch

    def begin(self, launch: Launch) -> None:
        """Count a waiting attempt as running."""
        self.waiting.remove(launch)
        self._waiting_cores -= launch.cores
        self._used[launch.identity] = launch.cores, launch.memory
        self.cores_used += launch.cores
        self._memory_used += launch.memory

    def end(self, identity: int, seconds: float | None) -> None:
        """Stop counting an attempt as running.

        Args:
            identity: ID of the attempt.
            seconds: how long its command ran; None: it was not started.
        """
        cores, memory = self._used.pop(identity)
        self.cores_used = self.cores_used - cores if self._used else 0.0
        self._memory_used = self._memory_used - memory if self._used else 0.0
        if seconds is not None:
            self.mean_seconds += _NEWEST_SHARE * (seconds - self.mean_seconds)

    @property
    def ahead(self) -> float:
        """The cores' worth of work that should wait here."""
        return self.cores * AHEAD_SECONDS / max(self.mean_seconds, SECONDS_MIN)

    def wanted(self) -> tuple[float, float]:
        """Return the cores that are free even after all waiting work starts, and cores' worth of work to prefetch."""
        free = max(0.0, self.granted - self.cores_used - self._waiting_cores)
        surplus = max(0.0, self._waiting_cores - max(0.0, self.granted - self.cores_used))
        return free, max(0.0, self.ahead - surplus)

    def demand(self) -> tuple[float, float, float]:
        """Return the cores in use, the cores that could be used now, and those that the next waiting command takes."""
        head = self.waiting[0].cores if self.waiting else 0.0
        return min(self.cores_used, self.cores), min(self.cores_used + self._waiting_cores, self.cores), head

    def validate(self) -> None:
        """Check the sums against the attempts.

        Raises:
            AssertionError: a sum is wrong, or an attempt both waits and runs.
        """
        waiting = sum(launch.cores for launch in self.waiting)
        used = sum(cores for cores, _ in self._used.values())
        if abs(waiting - self._waiting_cores) > 1e-6 or abs(used - self.cores_used) > 1e-6:
            raise AssertionError(f"waiting {waiting} {self._waiting_cores}, used {used} {self.cores_used}")
        if twice := {launch.identity for launch in self.waiting} & self._used.keys():
            raise AssertionError(f"attempts {twice} wait and run")
