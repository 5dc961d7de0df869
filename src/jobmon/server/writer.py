"""The one writer of this process. Requests that arrive together share one transaction and one commit (group commit).

A use case is a function `(transaction, request) -> answer`. The writer takes all that have arrived, runs them one after
another in one transaction, commits, then answers all of them and wakes who waits. If one fails, everything is rolled
back and each is run again in a transaction of its own, so that a bad one fails alone. That is cheaper than a savepoint
before each: failures are rare, and a use case leaves nothing behind but rows and `Transaction.effects`.

Where it runs is handed in: a thread of its own in production, in place in the simulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from jobmon.core.exceptions import ServerUnavailable
from jobmon.server.models.types import to_microseconds
from jobmon.server.transaction import Effects
from jobmon.server.usecases import timekeeping

if TYPE_CHECKING:
    from jobmon.core.clock import Clock
    from jobmon.server.changes import ChangeFeed
    from jobmon.server.transaction import Transaction

#: Use cases that share one transaction; more wait for the next.
USE_CASES_PER_TRANSACTION_MAX: Final = 512

_Answer = TypeVar("_Answer")
_Next = TypeVar("_Next")


@dataclass(slots=True, eq=False)
class Job:
    """A use case that waits for its turn, then its answer or error."""

    use_case: Callable[..., Any]
    arguments: Sequence[Any]
    future: asyncio.Future[Any]
    answer: Any = None
    error: Exception | None = None
    effects: Effects = field(default_factory=Effects)


class WriterExecutor(Protocol):
    """Where the writer runs."""

    def start(self, work: Callable[[list[Job]], None]) -> None:
        """Be ready to call `work` with the jobs that come."""

    def submit(self, jobs: list[Job]) -> None:
        """Have jobs done soon, in one transaction."""

    def stop(self) -> None:
        """Finish what was submitted, then end."""


class ThreadExecutor:
    """A thread of its own."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[list[Job]], None]) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, args=(work,), name="writer", daemon=True)
        self._thread.start()

    def submit(self, jobs: list[Job]) -> None:
        """Have jobs done by the thread."""
        self._jobs.put(jobs)

    def stop(self) -> None:
        """Wait until everything is done."""
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self, work: Callable[[list[Job]], None]) -> None:
        while True:
            jobs, is_last = self._take()
            if jobs:
                work(jobs)
            if is_last:
                return

    def _take(self) -> tuple[list[Job], bool]:
        """Wait for jobs, then take all that are there."""
        jobs: list[Job] = []
        more = self._jobs.get()
        with contextlib.suppress(queue.Empty):
            while more is not None:
                jobs += more
                if len(jobs) >= USE_CASES_PER_TRANSACTION_MAX:
                    return jobs, False
                more = self._jobs.get_nowait()
        return jobs, more is None


class InlineExecutor:
    """In place: what is submitted together is one transaction, done before `submit` returns."""

    def start(self, work: Callable[[list[Job]], None]) -> None:
        """Remember what to do."""
        self._work = work

    def submit(self, jobs: list[Job]) -> None:
        """Do it."""
        self._work(jobs)

    def stop(self) -> None:
        """Nothing is left to do."""


class Writer:
    """See the module. `run` belongs to the event loop, everything else to the executor."""

    def __init__(
        self, transaction: Transaction, executor: WriterExecutor, clock: Clock, feed: ChangeFeed, waiting_max: int
    ) -> None:
        self._transaction = transaction
        self._executor = executor
        self._clock = clock
        self._feed = feed
        self._waiting_max = waiting_max
        #: What the time of day is ahead of the monotonic time; when that changes, the clock was set.
        self._offset = clock.now().timestamp() - clock.monotonic()
        self._waiting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        #: (machine, from, to) -> how many changes came too late and were ignored.
        self.ignored: Counter[tuple[str, str, str]] = Counter()
        self.transactions = 0

    @property
    def waiting(self) -> int:
        """How many use cases wait or are under way."""
        return self._waiting

    def start(self) -> None:
        """Start; call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._executor.start(self._work)

    async def stop(self) -> None:
        """Finish what was submitted and give the connection back."""
        if isinstance(self._executor, InlineExecutor):
            self._executor.stop()
        else:
            await asyncio.to_thread(self._executor.stop)
        self._transaction.close()

    async def run(self, use_case: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a use case and return its answer once that is durable.

        Raises:
            ServerUnavailable: too many are waiting.
        """
        (future,) = self._submit((use_case, *arguments))
        answer: _Answer = await future
        return answer

    def run_together(
        self, first: tuple[Callable[..., _Answer], Any, Any], second: tuple[Callable[..., _Next], Any, Any]
    ) -> tuple[asyncio.Future[_Answer], asyncio.Future[_Next]]:
        """Run two use cases in one transaction, one after the other; each answer comes once that is durable.

        Raises:
            ServerUnavailable: too many are waiting.
        """
        one, other = self._submit(first, second)
        return one, other

    def _submit(self, *calls: tuple[Any, ...]) -> list[asyncio.Future[Any]]:
        if self._loop is None or self._waiting + len(calls) > self._waiting_max:
            raise ServerUnavailable("The server has too much to write; try again.")
        jobs = [Job(use_case, arguments, self._loop.create_future()) for use_case, *arguments in calls]
        self._waiting += len(jobs)
        for job in jobs:
            job.future.add_done_callback(self._note_done)
        self._executor.submit(jobs)
        return [job.future for job in jobs]

    def _note_done(self, future: asyncio.Future[Any]) -> None:
        self._waiting -= 1

    def _work(self, jobs: list[Job]) -> None:
        try:
            self._commit(jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].error = error
            else:
                for job in jobs:
                    self._work_alone(job)
        self._deliver(jobs)

    def _work_alone(self, job: Job) -> None:
        try:
            self._commit([job])
        except Exception as error:
            job.error = error

    def _commit(self, jobs: list[Job]) -> None:
        transaction = self._transaction
        now = self._clock.now()
        offset = now.timestamp() - self._clock.monotonic()
        transaction.start(to_microseconds(now))
        try:
            if abs(offset - self._offset) > timekeeping.JUMP_SECONDS:
                timekeeping.shift(transaction, offset - self._offset)
            for job in jobs:
                job.answer = job.use_case(transaction, *job.arguments)
            transaction.commit()
        except BaseException:
            transaction.rollback()
            raise
        self._offset = offset
        jobs[-1].effects = transaction.effects
        self.transactions += 1

    def _deliver(self, jobs: list[Job]) -> None:
        assert self._loop is not None
        if isinstance(self._executor, InlineExecutor):
            self._answer(jobs)
        else:
            self._loop.call_soon_threadsafe(self._answer, jobs)

    def _answer(self, jobs: list[Job]) -> None:
        # who waits first: a task's next step hangs on it, while whoever wrote has only to be told that it is written
        self._feed.wake(sorted({topic for job in jobs for topic in job.effects.topics}))
        for job in jobs:
            if job.effects.ignored:
                self.ignored.update(job.effects.ignored)
            if job.future.done():  # the client went away
                continue
            if job.error is None:
                job.future.set_result(job.answer)
            else:
                job.future.set_exception(job.error)
