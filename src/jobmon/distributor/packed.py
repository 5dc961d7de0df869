"""The jobs of packed batches, as a distributor sees them. Pure.

What such jobs take from the server is their affair; a distributor submits them, finds out how they end, and tells the
server. To the rest of the distributor a job is held like an attempt, under an identity of our own, below 0.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobmon.core.wire.launching import EndedJob, SubmittedBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobmon.core.cluster_protocol import RemoteExit


def is_job(identity: int) -> bool:
    """Whether this is a packed job and not an attempt."""
    return identity < 0


@dataclass(slots=True)
class _Batch:
    cluster_name: str
    untaken: int
    jobs: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class JobNews:
    """What is to be told to the server about packed jobs."""

    submitted: list[SubmittedBatch] = field(default_factory=list)
    ended: list[EndedJob] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.submitted or self.ended)


class PackedBatches:
    """All packed batches with attempts or jobs that live."""

    def __init__(self) -> None:
        self._batches: dict[int, _Batch] = {}
        self._batch_of: dict[int, int] = {}
        self._awaited: set[int] = set()  # batches that came here to be submitted
        self._identities = itertools.count(-1, -1)
        self._news = JobNews()
        self._in_flight = JobNews()

    def await_submission(self, number: int) -> None:
        """Note a batch that is to be submitted from here: nobody else has done so."""
        self._awaited.add(number)

    def knows(self, number: int) -> bool:
        """Whether a batch is, or was, to be submitted from here, or was taken over."""
        return number in self._batches or number in self._awaited

    def open(self, number: int, cluster_name: str, untaken: int) -> None:
        """Note a batch, of which the server says how many attempts no job has taken."""
        self._batches.setdefault(number, _Batch(cluster_name, untaken))

    def add(self, number: int, distributor_ids: Iterable[str]) -> dict[int, str]:
        """Note jobs of a batch; return those that were not known, by their identities here."""
        batch = self._batches[number]
        known = set(batch.jobs.values())
        added = {next(self._identities): one for one in distributor_ids if one not in known}
        batch.jobs.update(added)
        self._batch_of.update(dict.fromkeys(added, number))
        return added

    def submitted(self, number: int, distributor_ids: Iterable[str]) -> None:
        """Tell the server as what a batch was submitted."""
        self._news.submitted.append(SubmittedBatch(batch_number=number, distributor_ids=list(distributor_ids)))

    def ended(self, identity: int, distributor_id: str, ending: RemoteExit) -> None:
        """A job is gone: tell the server how it ended."""
        self._forget_job(identity)
        cause = None if ending.cause is None else ending.cause.value
        self._news.ended.append(
            EndedJob(
                distributor_id=distributor_id, status=ending.status.value, cause=cause, error=ending.message or None
            )
        )

    def _forget_job(self, identity: int) -> None:
        number = self._batch_of.pop(identity, None)
        if number in self._batches:
            self._batches[number].jobs.pop(identity, None)

    def heard(self, untaken: Mapping[int, int]) -> None:
        """Take how many attempts of batches no job has taken."""
        for number, count in untaken.items():
            if number in self._batches:
                self._batches[number].untaken = count

    def close(self, number: int) -> dict[int, str]:
        """Of a batch nothing lives any more: forget it; return the jobs that were known of it."""
        batch = self._batches.pop(number, None)
        jobs = {} if batch is None else batch.jobs
        for identity in jobs:
            self._batch_of.pop(identity, None)
        return jobs

    def cluster_of(self, number: int) -> str | None:
        """Return the cluster of a batch."""
        batch = self._batches.get(number)
        return None if batch is None else batch.cluster_name

    def untaken(self, cluster_name: str) -> int:
        """Return how many attempts wait for jobs of a cluster to take them."""
        return sum(one.untaken for one in self._batches.values() if one.cluster_name == cluster_name)

    @property
    def numbers(self) -> list[int]:
        """All batches."""
        return list(self._batches)

    @property
    def untaken_numbers(self) -> list[int]:
        """Batches of which there is something to be taken, as far as is known."""
        return [number for number, one in self._batches.items() if one.untaken]

    @property
    def is_idle(self) -> bool:
        """Whether there is no batch, and nothing to be told."""
        return not (self._batches or self._news or self._in_flight)

    # -- what is to be told ------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._news)

    def take_news(self) -> JobNews:
        """Take what is to be told; it stays in doubt until `confirm` or `restore`."""
        self._in_flight, self._news = self._news, JobNews()
        return self._in_flight

    def confirm(self) -> None:
        """The server has it."""
        self._in_flight = JobNews()

    def restore(self) -> None:
        """The server may not have it: it is told again, first."""
        self._news.submitted[:0] = self._in_flight.submitted
        self._news.ended[:0] = self._in_flight.ended
        self._in_flight = JobNews()
