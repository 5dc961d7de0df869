"""What is to be sent to the server: reports, in order, and other changes; what waits, and what is in flight."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobmon.core import fsm
from jobmon.core.wire import replace
from jobmon.core.wire.launching import EndedJob, SubmittedBatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobmon.core.wire.launching import Report

#: While this many reports wait, clusters and disks are not polled for more.
OUTBOX_REPORTS_MAX: Final = 5_000


@dataclass(slots=True)
class Changes:
    """What is sent next to reports: why attempts wait on their clusters, and changes to packed jobs."""

    pending: dict[int, str] = field(default_factory=dict)
    submitted: list[SubmittedBatch] = field(default_factory=list)
    ended: list[EndedJob] = field(default_factory=list)

    @property
    def has_jobs(self) -> bool:
        """Whether there are changes to packed jobs."""
        return bool(self.submitted or self.ended)


class Outbox:
    """A queue whose head is in flight until it is confirmed or restored."""

    def __init__(self) -> None:
        self._waiting: deque[Report] = deque()
        self.in_flight: Sequence[Report] = ()
        self.changes = Changes()
        self._changes_in_flight = Changes()

    def __len__(self) -> int:
        """Return the number of waiting reports, excluding those in flight."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Report]:
        """Yield the waiting reports, in order."""
        return iter(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether no more reports may be collected."""
        return len(self._waiting) >= OUTBOX_REPORTS_MAX

    @property
    def is_empty(self) -> bool:
        """Whether no report and no change to a packed job is waiting or in flight."""
        return not (self._waiting or self.in_flight or self.changes.has_jobs or self._changes_in_flight.has_jobs)

    @property
    def is_due(self) -> bool:
        """Whether anything is waiting to be sent."""
        return bool(self._waiting or self.changes.pending or self.changes.has_jobs)

    def add(self, report: Report) -> None:
        """Add a report."""
        self._waiting.append(report)

    def take(self, count_max: int) -> Sequence[Report]:
        """Move the first reports, at most `count_max`, in flight and return them."""
        self.in_flight = [self._waiting.popleft() for _ in range(min(count_max, len(self._waiting)))]
        return self.in_flight

    def take_changes(self) -> Changes:
        """Move all changes in flight and return them."""
        self._changes_in_flight, self.changes = self.changes, Changes()
        return self._changes_in_flight

    def confirm(self) -> Sequence[Report]:
        """Remove what is in flight and return the reports: the server has them."""
        confirmed, self.in_flight, self._changes_in_flight = self.in_flight, (), Changes()
        return confirmed

    def restore(self) -> None:
        """Put what is in flight back at the head of the queue: the server may not have it."""
        self._waiting.extendleft(reversed(self.in_flight))
        sent, new = self._changes_in_flight, self.changes
        self.changes = Changes(sent.pending | new.pending, sent.submitted + new.submitted, sent.ended + new.ended)
        self.in_flight, self._changes_in_flight = (), Changes()

    def shorten(self) -> None:
        """Remove the log tails of the reports in flight."""
        self.in_flight = [replace(one, log_tail=None) for one in self.in_flight]

    def postpone(self) -> None:
        """Move the report at the head to the end of the queue."""
        self._waiting.rotate(-1)


def is_ending(report: Report) -> bool:
    """Return whether a report contains the outcome of an attempt."""
    return fsm.is_terminal(fsm.Machine.TASK_INSTANCE, report.status)
