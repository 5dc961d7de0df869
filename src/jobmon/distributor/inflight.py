"""The records of a distributor: one per attempt, and how many attempts each cluster is sent. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from jobmon.core.cluster_protocol import Launch
from jobmon.core.constants import Cause
from jobmon.core.wire import replace
from jobmon.core.wire.launching import LaunchBatch
from jobmon.distributor import batch as translate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

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
_ROUNDING: Final = 1e-6


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


class AttemptState(Enum):
    """Where an attempt is. A packed job is only ever WITH_CLUSTER; an attempt without a record is not here."""

    WAITING = "it waits here for its cluster"
    UNCONFIRMED = "it is unknown whether its cluster has it: it is being submitted, or is looked up"
    WITH_CLUSTER = "its cluster has it"
    ENDED = "its outcome is in the outbox, until the server confirms it"


class Triage(Enum):
    """Whether the server has asked about an attempt."""

    NOT_ASKED = "not asked"
    ASKED = "no report has answered it yet"
    ANSWERED = "the answer is in the outbox"


@dataclass(slots=True, eq=False)
class AttemptRecord:
    """One attempt or packed job: its state, and all that is known about it here."""

    identity: int  # negative: a packed job
    state: AttemptState = AttemptState.ENDED
    cluster_name: str = ""  # "" if it has ended
    distributor_id: str = ""  # the cluster's id for it, if it is WITH_CLUSTER
    batch_number: int | None = None  # of a packed job
    kill_cause: Cause | None = None  # why its termination was requested
    triage: Triage = Triage.NOT_ASKED
    is_reported: bool = False  # UNCONFIRMED, and the server already has its outcome, from its worker
    # of a classic cluster
    submitted_at: float = 0.0  # monotonic seconds; 0: by an earlier distributor
    pending_reason: str = ""  # the last reported reason why it waits
    # of a direct cluster
    cores: float = 0.0
    memory: float = 0.0  # GiB
    launch: Launch | None = None
    started_at: float = 0.0  # seconds since the epoch; 0: not known
    is_closed: bool = False  # the server has closed it, but it runs

    def validate(self) -> None:
        """Check that the record's contents fit its state; see `Records.validate`."""
        has_id, is_known = bool(self.distributor_id), bool(self.cluster_name)
        holds = {
            AttemptState.WAITING: is_known and not (has_id or self.kill_cause or self.is_reported or self.is_closed),
            AttemptState.UNCONFIRMED: is_known and not (has_id or self.is_closed),
            AttemptState.WITH_CLUSTER: is_known and has_id and not self.is_reported,
            AttemptState.ENDED: not is_known,
        }[self.state]
        is_job = self.batch_number is not None
        assert holds, f"contents do not fit the state: {self}"
        assert is_job == (self.identity < 0), f"a packed job has a negative identity and a batch: {self}"
        assert not is_job or self.state is AttemptState.WITH_CLUSTER, f"a packed job is always with its cluster: {self}"


@dataclass(slots=True)
class ClusterAttempts:
    """The attempts that wait for a cluster, and the totals of its records.

    The queues may contain attempts that have left WAITING; they are skipped when their turn comes.
    """

    limits: ClusterLimits
    waiting: deque[AttemptRecord] = field(default_factory=deque)
    batches: deque[LaunchBatch] = field(default_factory=deque)
    doubts: list[Doubt] = field(default_factory=list)
    jobs: dict[str, int] = field(default_factory=dict)  # of a classic cluster: distributor id -> attempt
    adopted_since: float | None = None  # when the oldest adopted attempt was launched
    count: int = 0  # waiting here or with the cluster
    closed: int = 0  # those that are closed
    cores: float = 0.0
    memory: float = 0.0
    mean_seconds: float = HAND_AHEAD_SECONDS
    mean_cores: float = CORES_OF_ONE  # of the attempts received last

    def add(self, record: AttemptRecord) -> None:
        """Count a record in its state."""
        self._count(record, 1)
        if record.state is AttemptState.WITH_CLUSTER and not self.limits.direct:
            self.jobs[record.distributor_id] = record.identity

    def remove(self, record: AttemptRecord) -> None:
        """Stop counting a record, before its state changes."""
        self._count(record, -1)
        self.jobs.pop(record.distributor_id, None)

    def _count(self, record: AttemptRecord, sign: int) -> None:
        self.count += sign
        self.closed += sign * record.is_closed
        if record.state is AttemptState.WITH_CLUSTER:
            self.cores += sign * record.cores
            self.memory += sign * record.memory

    def learn(self, seconds: float) -> None:
        """Update the mean duration with the duration of a command."""
        self.mean_seconds += _NEWEST_SHARE * (seconds - self.mean_seconds)

    def next_waiting(self) -> AttemptRecord | None:
        """Return the attempt at the head of the queue, or None."""
        while self.waiting and self.waiting[0].state is not AttemptState.WAITING:
            self.waiting.popleft()
        return self.waiting[0] if self.waiting else None

    def handed_cores(self) -> float:
        """Return how many cores' worth of attempts are waiting here or are with the cluster."""
        return self.cores + sum(one.cores for one in self.waiting if one.state is AttemptState.WAITING)

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

    def fits(self, attempt: AttemptRecord) -> bool:
        """Return whether the attempt can start now. One that exceeds the cluster runs alone."""
        if self.cores <= _FRACTION:
            return True
        if self.cores + attempt.cores > self.limits.slots + _FRACTION:
            return False
        if self.limits.memory is None or not attempt.memory:
            return True
        return self.memory + attempt.memory <= self.limits.memory + _FRACTION


class Records(dict[int, AttemptRecord]):
    """Identity -> record of all attempts that are here and of all packed jobs; and the attempts of each cluster.

    Args:
        limits: cluster name -> limits of the cluster.
    """

    def __init__(self, limits: Mapping[str, ClusterLimits]) -> None:
        super().__init__()
        self.clusters = {name: ClusterAttempts(one) for name, one in limits.items()}

    def with_cluster(self, identity: int) -> AttemptRecord | None:
        """Return the record of an attempt or packed job that is WITH_CLUSTER, or None."""
        record = self.get(identity)
        return record if record is not None and record.state is AttemptState.WITH_CLUSTER else None

    def in_state(self, *states: AttemptState) -> list[AttemptRecord]:
        """Return the records in these states."""
        return [one for one in self.values() if one.state in states]

    def of_batch(self, number: int) -> list[AttemptRecord]:
        """Return the jobs of a packed batch."""
        return [one for one in self.values() if one.batch_number == number]

    def is_direct(self, record: AttemptRecord) -> bool:
        """Return whether the attempt's cluster is direct."""
        return self.clusters[record.cluster_name].limits.direct

    def add(self, record: AttemptRecord) -> None:
        """Add a record, in any state but ENDED."""
        self[record.identity] = record
        self.clusters[record.cluster_name].add(record)

    def move(self, record: AttemptRecord, state: AttemptState, distributor_id: str = "") -> None:
        """Change the state of a record, to any but ENDED."""
        cluster = self.clusters[record.cluster_name]
        cluster.remove(record)
        record.state, record.distributor_id = state, distributor_id
        cluster.add(record)

    def remove(self, identity: int) -> AttemptRecord | None:
        """Remove and return the record of an attempt, unless it has ended or is not here."""
        record = self.get(identity)
        if record is None or record.state is AttemptState.ENDED:
            return None
        del self[identity]
        self.clusters[record.cluster_name].remove(record)
        record.state = AttemptState.ENDED  # a queue that contains it skips it
        return record

    def end(self, identity: int) -> AttemptRecord:
        """Return the record of an attempt whose outcome is in the outbox, whether or not it was here."""
        known = self.get(identity)
        self.remove(identity)
        ended = self[identity] = AttemptRecord(identity)
        if known is not None:
            ended.kill_cause, ended.triage = known.kill_cause, known.triage
        return ended

    def confirm(self, identity: int) -> None:
        """Forget an attempt that has ended: the server has its outcome."""
        record = self.get(identity)
        if record is not None and record.state is AttemptState.ENDED:
            del self[identity]

    def validate(self, told: Collection[int]) -> None:
        """Check each record, and that queues and totals agree with the records.

        Args:
            told: the attempts whose outcome is in the outbox.

        Raises:
            AssertionError: a check failed; the message names the attempts.
        """
        for identity, record in self.items():
            record.validate()
            assert identity == record.identity, f"{identity} has the record of {record.identity}"
            assert record.state is not AttemptState.ENDED or identity in told, f"ended and not in the outbox: {record}"
        for name, cluster in self.clusters.items():
            mine = [one for one in self.values() if one.cluster_name == name]
            queued = {one.identity for one in cluster.waiting}.union(
                *(one.task_instance_ids for one in cluster.batches)
            )
            unqueued = [
                one.identity for one in mine if one.state is AttemptState.WAITING and one.identity not in queued
            ]
            assert not unqueued, f"waiting and not in a queue of {name}: {unqueued}"
            right = ClusterAttempts(cluster.limits)
            for record in mine:
                right.add(record)
            assert cluster.jobs == right.jobs, f"{name} has the wrong jobs: {cluster}"
            for total in ("count", "closed", "cores", "memory"):
                is_right = abs(getattr(cluster, total) - getattr(right, total)) < _ROUNDING
                assert is_right, f"{name} has the wrong {total}: {cluster}"


def narrowed(given: LaunchBatch, wanted: set[int]) -> LaunchBatch:
    """Return the batch reduced to these attempts. It is no longer an array: its steps would not match the server's."""
    if len(wanted) == len(given.task_instance_ids):
        return given
    keep = [index for index, one in enumerate(given.task_instance_ids) if one in wanted]
    return replace(translate.picked(given, keep), batch_number=NO_ARRAY)
