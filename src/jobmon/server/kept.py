"""What readers of large workflows share in memory: the status of every task, and sums over attempts.

Reading a million rows takes the database seconds, reading what has changed since takes milliseconds. So what was read
for one reader is kept and updated for the next one. It is read in steps: `Warmer` takes them as soon as somebody opens
a large workflow, and a reader who comes earlier gets what there is, if that is acceptable.

Only the workflows that were read last are kept, up to `BYTES_MAX` together; small ones are not kept at all.

A reader takes the lock of a workflow before its session reads anything, so that its snapshot is not older than what is
kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobmon.server.counting import counts_by_array
from jobmon.server.queries.letters import Letters
from jobmon.server.queries.totals import Kind, Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobmon.server.readers import Readers
    from jobmon.server.sql import Session
    from jobmon.server.transaction import Effects

#: Number of workflows, and memory of them all; the one that was read last is kept even if it is larger.
WORKFLOWS_MAX: Final = 16
BYTES_MAX: Final = 64 * 2**20
#: A reader who accepts a part waits so long for more.
STEP_SECONDS: Final = 0.1
#: Workflows with fewer tasks are read when they are needed.
WARMED_TASKS_MIN: Final = 50_000
#: Number of workflows that are read ahead at the same time.
WARMING_MAX: Final = 2


@dataclass(slots=True)
class KeptWorkflow:
    """What is kept of one workflow."""

    workflow_id: int
    letters: Letters
    lock: threading.Lock = field(default_factory=threading.Lock)
    sums: dict[Kind, Totals] = field(default_factory=dict)

    def totals(self, kind: Kind) -> Totals:
        """Return the sums of that kind."""
        return self.sums.setdefault(kind, Totals(kind, self.workflow_id))

    @property
    def bytes(self) -> int:
        """Memory that it takes, about."""
        return self.letters.bytes + sum(one.bytes for one in self.sums.values())

    def shrink(self) -> None:
        """Forget what is not worth keeping."""
        if not self.letters.is_large:
            self.letters = Letters(self.workflow_id)
        self.sums = {kind: one for kind, one in self.sums.items() if one.is_large}


class Kept:
    """What is kept (see the module docstring). Used by all reader threads.

    Args:
        monotonic: returns the time in monotonic seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._workflows: OrderedDict[int, KeptWorkflow] = OrderedDict()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def opened(self, workflow_id: int) -> Iterator[KeptWorkflow]:
        """Return what is kept of a workflow; nobody else uses it meanwhile."""
        with self._lock:
            found = self._workflows.setdefault(workflow_id, KeptWorkflow(workflow_id, Letters(workflow_id)))
            self._workflows.move_to_end(workflow_id)
        with found.lock:
            try:
                yield found
            except BaseException:
                self._forget(workflow_id)  # it may be half updated
                raise
            found.shrink()
            size = found.bytes
        with self._lock:
            if not size:
                self._workflows.pop(workflow_id, None)
            self._evict()

    def deadline(self, *, may_wait: bool = False) -> Callable[[], bool]:
        """Return a function that tells whether there is time for another step; always, if the reader waits for all."""
        until = time.perf_counter() + STEP_SECONDS
        return lambda: may_wait or time.perf_counter() < until

    def note(self, effects: Effects) -> None:
        """Note which workflows have ended attempts whose usage became known late."""
        for workflow_id in effects.measured_late:
            workflow = self._workflows.get(workflow_id)
            for totals in () if workflow is None else list(workflow.sums.values()):
                totals.is_outdated = True

    def _forget(self, workflow_id: int) -> None:
        with self._lock:
            self._workflows.pop(workflow_id, None)

    def _evict(self) -> None:
        sizes = {workflow_id: workflow.bytes for workflow_id, workflow in self._workflows.items()}
        total = sum(sizes.values())
        for workflow_id in list(sizes)[:-1]:
            if len(self._workflows) <= WORKFLOWS_MAX and total <= BYTES_MAX:
                return
            total -= sizes[workflow_id]
            del self._workflows[workflow_id]


class Warmer:
    """Reads large workflows ahead, in steps between which other readers are served. Belongs to the event loop."""

    def __init__(self, readers: Readers, kept: Kept) -> None:
        self._readers = readers
        self._kept = kept
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
            is_over = False
            while not is_over:
                is_over = await self._readers.run_large(_take_step, workflow_id, self._kept)

    async def stop(self) -> None:
        """Stop after the current steps."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _take_step(session: Session, workflow_id: int, kept: Kept) -> bool:
    """Read more of a large workflow; return whether that was all."""
    with kept.opened(workflow_id) as workflow:
        counts = counts_by_array(session, workflow_id)
        if sum(sum(one.values()) for one in counts.values()) < WARMED_TASKS_MIN:
            return True
        if not workflow.letters.is_whole:
            workflow.letters.catch_up(session, kept.deadline())
            return False
        totals = workflow.totals("template")
        totals.catch_up(session, kept.deadline(), kept.monotonic())
        return totals.share == 1.0
