"""The jobs of packed batches, as a distributor sees them. Pure.

Such jobs claim tasks from the server by themselves; a distributor submits the jobs, determines their outcome, and
reports it. Elsewhere in the distributor a job is held like an attempt, under a negative identity assigned here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobmon.core.texts import storable
from jobmon.core.wire.launching import EndedJob, SubmittedBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobmon.core.cluster_protocol import RemoteExit


def is_job(identity: int) -> bool:
    """Return whether this is a packed job rather than an attempt."""
    return identity < 0


@dataclass(slots=True)
class _Batch:
    cluster_name: str
    untaken: int
    jobs: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class JobChanges:
    """Changes to packed jobs to report to the server."""

    submitted: list[SubmittedBatch] = field(default_factory=list)
    ended: list[EndedJob] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.submitted or self.ended)


class PackedBatches:
    """Track all packed batches with live attempts or jobs."""

    def __init__(self) -> None:
        self._batches: dict[int, _Batch] = {}
        self._batch_of: dict[int, int] = {}
        self._awaited: set[int] = set()  # batches received for submission
        self._identities = itertools.count(-1, -1)
        self._changes = JobChanges()
        self._in_flight = JobChanges()

    def await_submission(self, number: int) -> None:
        """Record a batch that this distributor, and no other, is to submit."""
        self._awaited.add(number)

    def knows(self, number: int) -> bool:
        """Return whether a batch was received for submission here, or was adopted."""
        return number in self._batches or number in self._awaited

    def open(self, number: int, cluster_name: str, untaken: int) -> None:
        """Record a batch, with the number of attempts that no job has claimed."""
        self._batches.setdefault(number, _Batch(cluster_name, untaken))

    def add(self, number: int, distributor_ids: Iterable[str]) -> dict[int, str]:
        """Record jobs of a batch; return the new ones by the identities assigned here."""
        batch = self._batches[number]
        known = set(batch.jobs.values())
        added = {next(self._identities): one for one in distributor_ids if one not in known}
        batch.jobs.update(added)
        self._batch_of.update(dict.fromkeys(added, number))
        return added

    def submitted(self, number: int, distributor_ids: Iterable[str]) -> None:
        """Queue the batch's cluster job ids for the next report."""
        self._changes.submitted.append(SubmittedBatch(batch_number=number, distributor_ids=list(distributor_ids)))

    def ended(self, identity: int, distributor_id: str, ending: RemoteExit) -> None:
        """Queue the outcome of a job that has ended for the next report."""
        self._forget_job(identity)
        cause = None if ending.cause is None else ending.cause.value
        self._changes.ended.append(
            EndedJob(
                distributor_id=distributor_id,
                status=ending.status.value,
                cause=cause,
                error=storable(ending.message) if ending.message else None,
                exit_code=ending.exit_code,
                host=ending.host,
            )
        )

    def _forget_job(self, identity: int) -> None:
        number = self._batch_of.pop(identity, None)
        if number in self._batches:
            self._batches[number].jobs.pop(identity, None)

    def heard(self, untaken: Mapping[int, int]) -> None:
        """Update how many attempts of each batch no job has claimed."""
        for number, count in untaken.items():
            if number in self._batches:
                self._batches[number].untaken = count

    def close(self, number: int) -> dict[int, str]:
        """Forget a batch that has no live attempts; return its known jobs."""
        batch = self._batches.pop(number, None)
        jobs = {} if batch is None else batch.jobs
        for identity in jobs:
            self._batch_of.pop(identity, None)
        return jobs

    def cluster_of(self, number: int) -> str | None:
        """Return the cluster of a batch, or None if the batch is unknown."""
        batch = self._batches.get(number)
        return None if batch is None else batch.cluster_name

    def untaken(self, cluster_name: str) -> int:
        """Return how many attempts wait to be claimed by jobs of a cluster."""
        return sum(one.untaken for one in self._batches.values() if one.cluster_name == cluster_name)

    @property
    def numbers(self) -> list[int]:
        """The numbers of all batches."""
        return list(self._batches)

    @property
    def untaken_numbers(self) -> list[int]:
        """The numbers of batches that are believed to have unclaimed attempts."""
        return [number for number, one in self._batches.items() if one.untaken]

    @property
    def is_idle(self) -> bool:
        """Whether there is no batch and nothing to report."""
        return not (self._batches or self._changes or self._in_flight)

    # -- reports to the server ---------------------------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether there are changes to report."""
        return bool(self._changes)

    def take_changes(self) -> JobChanges:
        """Return the changes to report; they stay unconfirmed until `confirm` or `restore`."""
        self._in_flight, self._changes = self._changes, JobChanges()
        return self._in_flight

    def confirm(self) -> None:
        """Discard the changes in flight: the server has them."""
        self._in_flight = JobChanges()

    def restore(self) -> None:
        """Queue the changes in flight again, first: the server may not have them."""
        self._changes.submitted[:0] = self._in_flight.submitted
        self._changes.ended[:0] = self._in_flight.ended
        self._in_flight = JobChanges()
