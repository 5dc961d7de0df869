"""What readers of large workflows share in memory: the status of every task, sums over attempts, and failures.

Reading a million rows takes the database seconds, reading what has changed since takes milliseconds. So what was read
for one reader is kept and updated for the next one. It is read in steps: `Warmer` takes them as soon as somebody opens
a large workflow, and a reader who comes earlier gets what there is, if that is acceptable.

Only what was read last is kept, up to `BYTES_MAX` together; of small workflows nothing is kept at all.

A reader takes the lock of a part before its session reads anything, so that its snapshot is not older than what is
kept. Each part has a lock of its own: who reads failures does not wait for sums.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from jobmon.server.counting import counts_by_array
from jobmon.server.queries import progress
from jobmon.server.queries.blocked import Blocked
from jobmon.server.queries.failed import Failed
from jobmon.server.queries.letters import Letters
from jobmon.server.queries.totals import Kind, Totals
from jobmon.server.queries.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from jobmon.server.readers import Readers
    from jobmon.server.recent import Recent
    from jobmon.server.sql import Session
    from jobmon.server.transaction import Effects

#: Number of parts, and memory of them all; the one that was read last is kept even if it is larger.
PARTS_MAX: Final = 256
BYTES_MAX: Final = 64 * 2**20
#: A reader who accepts a part waits so long for more.
STEP_SECONDS: Final = 0.05
#: Number of workflows that are read ahead at the same time.
WARMING_MAX: Final = 2


class Part(Protocol):
    """What is kept of a workflow: one of several kinds."""

    @property
    def is_large(self) -> bool:
        """Whether it is worth keeping."""

    @property
    def bytes(self) -> int:
        """Memory that it takes, about."""


_Part = TypeVar("_Part", bound=Part)


@dataclass(slots=True)
class _Slot:
    part: Any
    lock: threading.Lock = field(default_factory=threading.Lock)


class Kept:
    """What is kept (see the module docstring). Used by all reader threads.

    Args:
        monotonic: returns the time in monotonic seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        #: By kind and workflow.
        self._slots: OrderedDict[tuple[str, int], _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def letters(self, workflow_id: int) -> AbstractContextManager[Letters]:
        """Return the status of every task of a workflow; nobody else uses it meanwhile."""
        return self._opened(("letters", workflow_id), lambda: Letters(workflow_id))

    def totals(self, workflow_id: int, kind: Kind) -> AbstractContextManager[Totals]:
        """Return sums over the attempts of a workflow; nobody else uses them meanwhile."""
        return self._opened((kind, workflow_id), lambda: Totals(kind, workflow_id))

    def failed(self, workflow_id: int) -> AbstractContextManager[Failed]:
        """Return the newest failures of a workflow; nobody else uses them meanwhile."""
        return self._opened(("failed", workflow_id), lambda: Failed(workflow_id))

    def blocked(self, workflow_id: int) -> AbstractContextManager[Blocked]:
        """Return how many tasks of a workflow will never run; nobody else uses it meanwhile."""
        return self._opened(("blocked", workflow_id), lambda: Blocked(workflow_id))

    def waiting(self, workflow_id: int) -> AbstractContextManager[Waiting]:
        """Return from which task on a workflow has tasks that wait; nobody else uses it meanwhile."""
        return self._opened(("waiting", workflow_id), lambda: Waiting(workflow_id))

    def deadline(self, *, may_wait: bool = False) -> Callable[[], bool]:
        """Return a function that tells whether there is time for another step; always, if the reader waits for all."""
        until = time.perf_counter() + STEP_SECONDS
        return lambda: may_wait or time.perf_counter() < until

    def note(self, effects: Effects) -> None:
        """Note which workflows have ended attempts whose usage became known late, and the host that measured it."""
        for workflow_id in effects.measured_late:
            for kind in ("template", "host", "failed"):
                slot = self._slots.get((kind, workflow_id))
                if slot is not None:
                    slot.part.is_outdated = True

    @contextlib.contextmanager
    def _opened(self, key: tuple[str, int], make: Callable[[], _Part]) -> Iterator[_Part]:
        with self._lock:
            slot = self._slots.setdefault(key, _Slot(make()))
            self._slots.move_to_end(key)
        with slot.lock:
            try:
                yield slot.part
            except BaseException:
                self._forget(key)  # it may be half updated
                raise
            is_large = slot.part.is_large
        if not is_large:
            self._forget(key)
        with self._lock:
            self._evict()

    def _forget(self, key: tuple[str, int]) -> None:
        with self._lock:
            self._slots.pop(key, None)

    def _evict(self) -> None:
        sizes = {key: slot.part.bytes for key, slot in self._slots.items()}
        total = sum(sizes.values())
        for key in list(sizes)[:-1]:
            if len(self._slots) <= PARTS_MAX and total <= BYTES_MAX:
                return
            total -= sizes[key]
            del self._slots[key]


class Warmer:
    """Reads large workflows ahead, in steps between which other readers are served. Belongs to the event loop."""

    def __init__(self, readers: Readers, kept: Kept, recent: Recent) -> None:
        self._readers = readers
        self._kept = kept
        self._recent = recent
        self._running: dict[int, asyncio.Task[None]] = {}

    def start(self, workflow_id: int) -> None:
        """Read a workflow ahead, unless that is being done or too many others are read."""
        if workflow_id in self._running or len(self._running) >= WARMING_MAX:
            return
        task = asyncio.create_task(self._run(workflow_id))
        self._running[workflow_id] = task
        task.add_done_callback(lambda _: self._running.pop(workflow_id, None))

    async def _run(self, workflow_id: int) -> None:
        with contextlib.suppress(Exception):  # the request that needs it reads it again, and reports the error
            if not await self._readers.run(_is_large, workflow_id):
                return
            run = self._readers.run_large
            while not await run(_read_letters, workflow_id, self._kept):
                pass
            await run(progress.find_samples, workflow_id, self._recent)
            while not await run(_add_up, workflow_id, self._kept):
                pass

    async def stop(self) -> None:
        """Stop after the current steps."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _is_large(session: Session, workflow_id: int) -> bool:
    """Return whether a workflow is worth reading ahead."""
    return sum(sum(one.values()) for one in counts_by_array(session, workflow_id).values()) >= progress.LARGE_TASKS_MIN


def _read_letters(session: Session, workflow_id: int, kept: Kept) -> bool:
    """Read more of the statuses; return whether that was all."""
    with kept.letters(workflow_id) as letters:
        if not letters.is_whole:
            letters.catch_up(session, kept.deadline())
        return letters.is_whole


def _add_up(session: Session, workflow_id: int, kept: Kept) -> bool:
    """Add up more attempts; return whether that was all."""
    with kept.totals(workflow_id, "template") as totals:
        totals.catch_up(session, kept.deadline(), kept.monotonic())
        return totals.share == 1.0
