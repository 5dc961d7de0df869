"""Attempts that a distributor holds or has waiting, by cluster; and how many attempts a cluster is sent. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from jobmon.core.cluster_protocol import Exit, Launch
from jobmon.core.constants import Cause
from jobmon.core.wire import replace
from jobmon.core.wire.launching import LaunchBatch
from jobmon.distributor.batch import ReceivedAttempt

#: Cores' worth of attempts that a direct cluster is sent, including running ones, per slot.
HAND_AHEAD_FACTOR: Final = 8
#: A larger factor applies if commands are so short that this would not keep the cluster busy for long.
HAND_AHEAD_FACTOR_MAX: Final = 64
HAND_AHEAD_SECONDS: Final = 0.1
_NEWEST_SHARE: Final = 0.1
#: Batch number of attempts that can no longer be submitted as the array that the server created.
NO_ARRAY: Final = -1
CLASSIC_WINDOW: Final = 10_000
#: Maximum number of attempts of a direct cluster, regardless of how few cores each one takes.
DIRECT_WINDOW_MAX: Final = 10_000
#: The assumed cores of an attempt while nothing is known about the next attempts.
CORES_OF_ONE: Final = 1.0
CORES_MIN: Final = 0.001
_FRACTION: Final = 1e-9


@dataclass(frozen=True, slots=True)
class ClusterLimits:
    """The limits of a cluster. Classic clusters (not direct) have no slots: they have their own queue."""

    direct: bool
    slots: float = 0.0
    memory: float | None = None

    def window_cores(self, mean_seconds: float) -> float:
        """Return how many cores' worth of attempts a direct cluster may be sent if commands take this long."""
        factor = HAND_AHEAD_SECONDS / max(mean_seconds, HAND_AHEAD_SECONDS / HAND_AHEAD_FACTOR_MAX)
        return max(1.0, self.slots * max(HAND_AHEAD_FACTOR, factor))


@dataclass(frozen=True, slots=True)
class Doubt:
    """An unconfirmed submission: submitted as a step of its batch, or individually under its own token, or not at all.

    `reason`: what went wrong, if the cluster responded. If the attempt is not found, others with the same `key` wait.
    """

    task_instance_id: int
    batch_token: str
    step: int
    own_token: str
    reason: str = ""
    key: str = ""


@dataclass(slots=True)
class ClusterAttempts:
    """The attempts that wait for a cluster or are with it."""

    limits: ClusterLimits
    waiting: deque[ReceivedAttempt] = field(default_factory=deque)
    batches: deque[LaunchBatch] = field(default_factory=deque)
    doubts: list[Doubt] = field(default_factory=list)
    jobs: dict[str, int] = field(default_factory=dict)  # of a classic cluster: distributor id -> attempt
    adopted_since: float | None = None  # when the oldest adopted attempt was launched
    count: int = 0  # waiting here or with the cluster
    cores: float = 0.0
    memory: float = 0.0
    mean_seconds: float = HAND_AHEAD_SECONDS
    mean_cores: float = CORES_OF_ONE  # of the attempts received last

    def learn(self, seconds: float) -> None:
        """Update the mean duration with the duration of a command."""
        self.mean_seconds += _NEWEST_SHARE * (seconds - self.mean_seconds)

    def handed_cores(self) -> float:
        """Return how many cores' worth of attempts are waiting here or are with the cluster."""
        return self.cores + sum(attempt.cores for attempt in self.waiting)

    def room(self) -> int:
        """Return how many more attempts may be received, assuming that they are like the present ones."""
        if not self.limits.direct:
            return max(0, CLASSIC_WINDOW - self.count)
        handed = self.handed_cores()
        mean = max(CORES_MIN, handed / self.count if self.count else self.mean_cores)
        cores = self.limits.window_cores(self.mean_seconds) - handed
        return max(0, min(DIRECT_WINDOW_MAX - self.count, int(cores / mean + _FRACTION)))

    @property
    def is_well_supplied(self) -> bool:
        """Whether the cluster has at least half of the attempts it may be sent."""
        if not self.limits.direct:
            return self.count * 2 >= CLASSIC_WINDOW
        return self.handed_cores() * 2 >= self.limits.window_cores(self.mean_seconds)

    def fits(self, attempt: ReceivedAttempt) -> bool:
        """Return whether the attempt can start now. One that exceeds the cluster runs alone."""
        if self.cores <= _FRACTION:
            return True
        if self.cores + attempt.cores > self.limits.slots + _FRACTION:
            return False
        if self.limits.memory is None or not attempt.memory:
            return True
        return self.memory + attempt.memory <= self.limits.memory + _FRACTION


@dataclass(slots=True)
class InFlight:
    """An attempt that is with its cluster."""

    cluster_name: str
    distributor_id: str
    cores: float = 0.0
    memory: float = 0.0
    launch: Launch | None = None
    told_running: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """An exit together with its launch and the reason for its termination: everything a report needs."""

    ending: Exit
    launch: Launch | None
    kill_cause: Cause | None


def narrowed(given: LaunchBatch, wanted: set[int]) -> LaunchBatch:
    """Return the batch reduced to these attempts. It is no longer an array: its steps would not match the server's."""
    if len(wanted) == len(given.task_instance_ids):
        return given
    keep = [index for index, one in enumerate(given.task_instance_ids) if one in wanted]
    return replace(
        given,
        batch_number=NO_ARRAY,
        task_instance_ids=[given.task_instance_ids[index] for index in keep],
        task_ids=[given.task_ids[index] for index in keep],
        names=[given.names[index] for index in keep],
        commands=[given.commands[index] for index in keep],
        attempts=[given.attempts[index] for index in keep],
    )
