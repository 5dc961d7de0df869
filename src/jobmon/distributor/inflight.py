"""The records of a distributor: one per attempt and packed job, and totals per cluster. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Cause
from jobmon.core.wire import replace
from jobmon.core.wire.launching import LaunchBatch
from jobmon.distributor import batch as translate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: Batch number of attempts that can no longer be submitted as the array that the server created.
NO_ARRAY: Final = -1
#: Maximum number of attempts that a cluster is sent, including running ones.
CLUSTER_WINDOW: Final = 10_000


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
    submitted_at: float = 0.0  # monotonic seconds; 0: by an earlier distributor
    pending_reason: str = ""  # the last reported reason why it waits

    def validate(self) -> None:
        """Check that the record's contents fit its state; see `Records.validate`."""
        has_id, is_known = bool(self.distributor_id), bool(self.cluster_name)
        holds = {
            AttemptState.WAITING: is_known and not (has_id or self.kill_cause or self.is_reported),
            AttemptState.UNCONFIRMED: is_known and not has_id,
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

    The batches may contain attempts that have left WAITING; they are skipped when their turn comes.
    """

    batches: deque[LaunchBatch] = field(default_factory=deque)
    doubts: list[Doubt] = field(default_factory=list)
    jobs: dict[str, int] = field(default_factory=dict)  # distributor id -> attempt
    adopted_since: float | None = None  # when the oldest adopted attempt was launched
    count: int = 0  # waiting here or with the cluster

    def add(self, record: AttemptRecord) -> None:
        """Count a record in its state."""
        self.count += 1
        if record.state is AttemptState.WITH_CLUSTER:
            self.jobs[record.distributor_id] = record.identity

    def remove(self, record: AttemptRecord) -> None:
        """Stop counting a record, before its state changes."""
        self.count -= 1
        self.jobs.pop(record.distributor_id, None)

    def room(self) -> int:
        """Return how many more attempts may be received."""
        return max(0, CLUSTER_WINDOW - self.count)

    @property
    def is_well_supplied(self) -> bool:
        """Whether the cluster has at least half of the attempts it may be sent."""
        return self.count * 2 >= CLUSTER_WINDOW


class Records(dict[int, AttemptRecord]):
    """Identity -> record of all attempts that are here and of all packed jobs; and the attempts of each cluster.

    Args:
        clusters: names of the clusters.
    """

    def __init__(self, clusters: Iterable[str]) -> None:
        super().__init__()
        self.clusters = {name: ClusterAttempts() for name in clusters}

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
            queued = {identity for one in cluster.batches for identity in one.task_instance_ids}
            unqueued = [
                one.identity for one in mine if one.state is AttemptState.WAITING and one.identity not in queued
            ]
            assert not unqueued, f"waiting and not in a queue of {name}: {unqueued}"
            right = ClusterAttempts()
            for record in mine:
                right.add(record)
            assert cluster.jobs == right.jobs, f"{name} has the wrong jobs: {cluster}"
            assert cluster.count == right.count, f"{name} has the wrong count: {cluster}"


def narrowed(given: LaunchBatch, wanted: set[int]) -> LaunchBatch:
    """Return the batch reduced to these attempts. It is no longer an array: its steps would not match the server's."""
    if len(wanted) == len(given.task_instance_ids):
        return given
    keep = [index for index, one in enumerate(given.task_instance_ids) if one in wanted]
    return replace(translate.picked(given, keep), batch_number=NO_ARRAY)
