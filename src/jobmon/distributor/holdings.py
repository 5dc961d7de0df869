"""What a distributor holds and waits with, cluster by cluster; and how much a cluster is handed. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from jobmon.core.cluster_protocol import Exit, Launch
from jobmon.core.constants import Cause
from jobmon.core.wire.launching import LaunchBatch
from jobmon.distributor.batch import Attempt

#: How many attempts a direct cluster is handed, running ones included, per slot.
HAND_AHEAD_FACTOR: Final = 8
#: Where commands are so short that this would not last for a while, more.
HAND_AHEAD_FACTOR_MAX: Final = 64
HAND_AHEAD_SECONDS: Final = 0.1
_NEWEST_SHARE: Final = 0.1
#: The batch number of attempts that can no longer be submitted as the array that the server made of them.
NO_ARRAY: Final = -1
CLASSIC_WINDOW: Final = 10_000
_FRACTION: Final = 1e-9


@dataclass(frozen=True, slots=True)
class ClusterLimits:
    """What a cluster takes. Classic ones (not direct) have no slots: they queue by themselves."""

    direct: bool
    slots: float = 0.0
    memory: float | None = None
    lookahead: int = 0
    lookahead_factor: float = 0.0  # launches per slot, where the slots are granted and change

    def window(self, mean_seconds: float) -> int:
        """Return how many attempts it may be handed, running ones included, when commands take so long."""
        if not self.direct:
            return CLASSIC_WINDOW
        factor = HAND_AHEAD_SECONDS / max(mean_seconds, HAND_AHEAD_SECONDS / HAND_AHEAD_FACTOR_MAX)
        return max(1, int(self.slots * max(HAND_AHEAD_FACTOR, factor)))


@dataclass(frozen=True, slots=True)
class Doubt:
    """An attempt that may have been submitted: as a step of its batch, or alone under a token of its own."""

    task_instance_id: int
    batch_token: str
    step: int
    own_token: str


@dataclass(slots=True)
class Cluster:
    """What is waiting for a cluster here, and what it has."""

    limits: ClusterLimits
    waiting: deque[Attempt] = field(default_factory=deque)
    batches: deque[LaunchBatch] = field(default_factory=deque)
    doubts: list[Doubt] = field(default_factory=list)
    jobs: dict[str, int] = field(default_factory=dict)  # of a classic one: distributor id -> attempt it holds
    adopted_since: float | None = None  # when the oldest of them was handed out that was taken over
    count: int = 0  # waiting here or with the cluster
    cores: float = 0.0
    memory: float = 0.0
    mean_seconds: float = HAND_AHEAD_SECONDS

    def learn(self, seconds: float) -> None:
        """Note how long a command took."""
        self.mean_seconds += _NEWEST_SHARE * (seconds - self.mean_seconds)

    def fits(self, attempt: Attempt) -> bool:
        """Say whether the cluster takes one more now; one that is too large for it runs alone."""
        if self.cores <= _FRACTION:
            return True
        if self.cores + attempt.cores > self.limits.slots + self.limits.lookahead + _FRACTION:
            return False
        if self.limits.memory is None or self.limits.lookahead or not attempt.memory:
            return True  # a cluster that looks ahead watches its memory itself
        return self.memory + attempt.memory <= self.limits.memory + _FRACTION


@dataclass(frozen=True, slots=True)
class Demand:
    """Cores of a cluster: in use, of use now, and needed by the command that is next (0: none waits)."""

    in_use: float
    wanted: float
    head: float


@dataclass(slots=True)
class Held:
    """An attempt that is with its cluster."""

    cluster_name: str
    distributor_id: str
    cores: float = 0.0
    memory: float = 0.0
    launch: Launch | None = None
    started_at: float | None = None
    told_running: bool = False

    @property
    def has_started(self) -> bool:
        """Whether it runs, as far as is known; what was taken over does."""
        return self.started_at is not None or self.launch is None


@dataclass(frozen=True, slots=True)
class Ended:
    """An ending together with what was launched and why it was to be killed: all that its report is made of."""

    ending: Exit
    launch: Launch | None
    kill_cause: Cause | None


def narrowed(given: LaunchBatch, wanted: set[int]) -> LaunchBatch:
    """Return the batch with only these attempts, no longer as an array: the steps would not be the server's."""
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
