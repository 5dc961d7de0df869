"""The packed batches that a distributor knows. Pure.

The jobs of such a batch claim tasks from the server by themselves; a distributor submits the jobs, determines their
outcome, and reports it. In the distributor a job has a record like an attempt, under a negative identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_job(identity: int) -> bool:
    """Return whether this is a packed job rather than an attempt."""
    return identity < 0


@dataclass(slots=True)
class _Batch:
    cluster_name: str
    untaken: int


class PackedBatches:
    """Track all packed batches with live attempts or jobs."""

    def __init__(self) -> None:
        self._batches: dict[int, _Batch] = {}
        self._awaited: set[int] = set()  # batches received for submission

    def await_submission(self, number: int) -> None:
        """Record a batch that this distributor, and no other, is to submit."""
        self._awaited.add(number)

    def knows(self, number: int) -> bool:
        """Return whether a batch was received for submission here, or was adopted."""
        return number in self._batches or number in self._awaited

    def open(self, number: int, cluster_name: str, untaken: int) -> None:
        """Record a batch, with the number of attempts that no job has claimed."""
        self._batches.setdefault(number, _Batch(cluster_name, untaken))

    def heard(self, untaken: Mapping[int, int]) -> None:
        """Update how many attempts of each batch no job has claimed."""
        for number, count in untaken.items():
            if number in self._batches:
                self._batches[number].untaken = count

    def close(self, number: int) -> None:
        """Forget a batch that has no live attempts."""
        self._batches.pop(number, None)

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
