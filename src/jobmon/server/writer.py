"""The single writer of this process. Requests that arrive together share a transaction and a commit (group commit).

A use case is a function `(transaction, request) -> answer`. The writer takes all that have arrived, runs them in order
in one transaction, commits, then answers all of them and wakes long polls. If one fails, everything is rolled back and
each is rerun in its own transaction, so that only the faulty one fails. That is cheaper than a savepoint before each:
failures are rare, and a use case leaves nothing behind but rows and `Transaction.effects`.

Reports are urgent: they precede everything else that waits, because an agent whose report is not answered can send no
other, and what ended must not be forgotten. Other use cases follow in the order of their arrival, until the transaction
has taken `TRANSACTION_SECONDS`; the rest waits for the next one. At least one of them is part of each transaction, so
that they progress under any number of reports. Urgent use cases that could do more than record reports ask
`Transaction.has_time`: an agent then asks for work again, by a request that is not urgent.

Requests of a joint use case, which takes a list of requests and returns a list of answers, are processed together with
the first of them: many small requests then need as few statements as one large one.

A transaction that lost its connection, or a conflict with another one, is rerun. That is safe at any point, even if it
had been committed: every request may arrive twice. While the database does not respond, all waiting requests are
refused. Afterwards all deadlines are prolonged by that time, because no report could be recorded.

The executor is injected: a separate thread in production, in place in the simulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from jobmon.core.exceptions import ServerUnavailable
from jobmon.server.database import first_line, is_conflict, is_lost, meaning
from jobmon.server.times import to_microseconds
from jobmon.server.transaction import Deposed, Effects
from jobmon.server.usecases import timekeeping

if TYPE_CHECKING:
    from jobmon.core.clock import Clock
    from jobmon.server.feed import ChangeFeed
    from jobmon.server.transaction import Transaction

#: Maximum number of use cases in one transaction; the others wait for the next.
USE_CASES_PER_TRANSACTION_MAX: Final = 512

#: After this time a transaction begins no use case any more that is not urgent, except its first one.
TRANSACTION_SECONDS: Final = 0.05

#: Attempts at a transaction that the database aborts; after that it is answered with 503, and the client retries it.
TRANSACTION_TRIES: Final = 3

logger = logging.getLogger(__name__)

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")
_Next = TypeVar("_Next")


@dataclass(slots=True, eq=False)
class Job:
    """A use case that waits for execution, and then its answer or error.

    `follows`: it belongs into the transaction of the job before it. `is_begun`: the current transaction has begun it.
    """

    use_case: Callable[..., Any]
    arguments: Sequence[Any]
    future: asyncio.Future[Any]
    is_alone: bool = False
    is_joint: bool = False
    is_checked: bool = False
    is_urgent: bool = False
    follows: bool = False
    is_begun: bool = False
    answer: Any = None
    error: Exception | None = None
    effects: Effects = field(default_factory=Effects)


@dataclass(slots=True)
class WriterCounts:
    """What the writer has done so far, for monitoring.

    Args:
        use_cases: number of use cases whose transaction was committed.
        seconds: time spent in committed transactions.
        retries: transactions that were rerun because of a conflict or a lost connection.
        reconnections: times that it reconnected to the database.
        refused: use cases that were refused because too many were waiting.
    """

    use_cases: int = 0
    seconds: float = 0.0
    retries: int = 0
    reconnections: int = 0
    refused: int = 0


class WriterExecutor(Protocol):
    """Where the writer runs."""

    def start(self, work: Callable[[list[Job]], list[Job]]) -> None:
        """Prepare to call `work` with submitted jobs; it returns those that wait for the next call."""

    def submit(self, jobs: list[Job]) -> None:
        """Have jobs executed soon, in one transaction."""

    def stop(self) -> None:
        """Finish what was submitted, then stop."""


class ThreadExecutor:
    """Runs the writer in a separate thread."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[list[Job]], list[Job]]) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, args=(work,), name="writer", daemon=True)
        self._thread.start()

    def submit(self, jobs: list[Job]) -> None:
        """Have jobs executed by the thread."""
        self._jobs.put(jobs)

    def stop(self) -> None:
        """Wait until all jobs are finished."""
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self, work: Callable[[list[Job]], list[Job]]) -> None:
        waiting: list[Job] = []
        is_over = False
        while waiting or not is_over:
            jobs, is_last = self._take(may_wait=not waiting and not is_over)
            is_over = is_over or is_last
            if waiting or jobs:
                waiting = work(waiting + jobs)

    def _take(self, *, may_wait: bool) -> tuple[list[Job], bool]:
        """Take all jobs that have arrived, at most as many as may wait; return whether these are the last."""
        jobs: list[Job] = []
        with contextlib.suppress(queue.Empty):
            while (more := self._jobs.get(block=may_wait and not jobs)) is not None:
                jobs += more
            return jobs, True
        return jobs, False


class InlineExecutor:
    """Runs the writer in place: what was submitted is committed before `submit` returns."""

    def start(self, work: Callable[[list[Job]], list[Job]]) -> None:
        """Store the function that executes jobs."""
        self._work = work

    def submit(self, jobs: list[Job]) -> None:
        """Execute the jobs."""
        while jobs:
            jobs = self._work(jobs)

    def stop(self) -> None:
        """Do nothing: all jobs are finished already."""


class Writer:
    """The writer (see the module docstring). `run` belongs to the event loop, everything else to the executor."""

    def __init__(
        self,
        open_transaction: Callable[[], Transaction],
        executor: WriterExecutor,
        clock: Clock,
        feed: ChangeFeed,
        waiting_max: int,
        listener: Callable[[Effects], None] = lambda effects: None,
        on_deposed: Callable[[], None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._on_deposed = on_deposed
        self._open = open_transaction
        self._transaction: Transaction | None = open_transaction()
        self._executor = executor
        self._clock = clock
        self._feed = feed
        self._waiting_max = waiting_max
        #: Time of day minus monotonic time; a change means that the clock was set.
        self._offset = clock.now().timestamp() - clock.monotonic()
        #: Monotonic time since which the database has failed, None while it works.
        self._failing_since: float | None = None
        self._waiting = 0
        #: Whether the last transaction left jobs for the next; any thread may read it.
        self.is_behind = False
        self._loop: asyncio.AbstractEventLoop | None = None
        #: (machine, from, to) -> number of late changes that were ignored.
        self.ignored: Counter[tuple[str, str, str]] = Counter()
        self.transactions = 0
        self.work = WriterCounts()

    @property
    def waiting(self) -> int:
        """Number of use cases that are waiting or running."""
        return self._waiting

    def start(self) -> None:
        """Start the writer; call this on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._executor.start(self._work)

    async def stop(self) -> None:
        """Finish what was submitted and close the connection."""
        if isinstance(self._executor, InlineExecutor):
            self._executor.stop()
        else:
            await asyncio.to_thread(self._executor.stop)
        self._close()

    async def run(self, use_case: Callable[..., _Answer], *arguments: Any, is_checked: bool = False) -> _Answer:
        """Run a use case and return its answer once it is durable.

        Args:
            use_case: the use case.
            arguments: its arguments.
            is_checked: it inserts many rows, and checks itself that the rows to which they refer exist.

        Raises:
            ServerUnavailable: too many use cases are waiting.
        """
        (future,) = self._submit((use_case, *arguments), is_checked=is_checked)
        answer: _Answer = await future
        return answer

    async def run_urgently(self, use_case: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a use case before those that are not urgent and return its answer once it is durable.

        Raises:
            ServerUnavailable: too many use cases are waiting.
        """
        (future,) = self._submit((use_case, *arguments), is_urgent=True)
        answer: _Answer = await future
        return answer

    async def run_jointly(self, use_case: Callable[[Any, list[_Request]], list[_Answer]], request: _Request) -> _Answer:
        """Run a joint use case, which is urgent, on this request and others; return its answer once it is durable.

        Raises:
            ServerUnavailable: too many use cases are waiting.
        """
        (future,) = self._submit((use_case, request), is_joint=True, is_urgent=True)
        answer: _Answer = await future
        return answer

    async def run_alone(self, function: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a function that begins and commits its own transactions, between those of the writer.

        Raises:
            ServerUnavailable: too many use cases are waiting.
        """
        (future,) = self._submit((function, *arguments), is_alone=True)
        answer: _Answer = await future
        return answer

    def run_together(
        self, first: tuple[Callable[..., _Answer], Any, Any], second: tuple[Callable[..., _Next], Any, Any]
    ) -> tuple[asyncio.Future[_Answer], asyncio.Future[_Next]]:
        """Run two use cases in one transaction, one after the other; each future completes once it is durable.

        Raises:
            ServerUnavailable: too many use cases are waiting.
        """
        one, other = self._submit(first, second)
        return one, other

    def _submit(
        self,
        *calls: tuple[Any, ...],
        is_alone: bool = False,
        is_joint: bool = False,
        is_checked: bool = False,
        is_urgent: bool = False,
    ) -> list[asyncio.Future[Any]]:
        if self._loop is None or self._waiting + len(calls) > self._waiting_max:
            self.work.refused += len(calls)
            raise ServerUnavailable("The server is overloaded with writes; retry.")
        loop = self._loop
        kind = is_alone, is_joint, is_checked, is_urgent
        jobs = [Job(use_case, arguments, loop.create_future(), *kind) for use_case, *arguments in calls]
        self._waiting += len(jobs)
        for job in jobs:
            job.future.add_done_callback(self._note_done)
            job.follows = job is not jobs[0]
        self._executor.submit(jobs)
        return [job.future for job in jobs]

    def _note_done(self, future: asyncio.Future[Any]) -> None:
        self._waiting -= 1

    def _work(self, jobs: list[Job]) -> list[Job]:
        """Run jobs and answer them; return those that have to wait for the next transaction."""
        alone = [job for job in jobs if job.is_alone]
        for job in alone:
            self._work_alone(job)
        left: list[Job] = []
        if together := [job for job in jobs if not job.is_alone]:
            left = self._work_together(together)
        self.is_behind = bool(left)
        waiting = set(left)
        self._deliver([job for job in jobs if job not in waiting] if left else jobs)
        return left

    def _work_together(self, jobs: list[Job]) -> list[Job]:
        try:
            self._commit(jobs)
        except Exception as error:
            if len(jobs) == 1 or is_lost(error) or isinstance(error, ServerUnavailable):
                for job in jobs:
                    job.error = error
                return []
            begun, left = [job for job in jobs if job.is_begun], [job for job in jobs if not job.is_begun]
            for job in begun or left:
                self._work_alone(job)
            return left if begun else []
        return [job for job in jobs if not job.is_begun]

    def _work_alone(self, job: Job) -> None:
        try:
            self._commit([job])
        except Exception as error:
            job.error = error

    def _commit(self, jobs: list[Job]) -> None:
        """Run jobs in one transaction; where it may help, retry, on a new connection if the old one is lost."""
        for tries_left in reversed(range(TRANSACTION_TRIES)):
            try:
                self._transact(jobs)
            except Exception as error:
                if self._failing_since is None and meaning(error) and not is_conflict(error):
                    self._failing_since = self._clock.monotonic()
                if is_lost(error) or isinstance(error, Deposed):
                    self._close()
                if not tries_left or not (is_lost(error) or is_conflict(error)):
                    raise
                self.work.retries += 1
                logger.warning("retrying a transaction of %d requests: %s", len(jobs), first_line(error))
            else:
                return

    def _close(self) -> None:
        """Close the connection, which may be lost."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            with contextlib.suppress(Exception):
                transaction.close()

    def _transact(self, jobs: list[Job]) -> None:
        transaction = self._transaction
        if transaction is None:
            transaction = self._transaction = self._open()
            self.work.reconnections += 1
            logger.warning("reconnected to the database")
        now, began = self._clock.now(), self._clock.monotonic()
        offset = now.timestamp() - began
        if jobs[0].is_alone:
            jobs[0].answer = jobs[0].use_case(transaction, *jobs[0].arguments)
            self.transactions += 1  # what was answered before may have changed
            return
        transaction.check_references(wanted=not all(job.is_checked for job in jobs))
        until = began + TRANSACTION_SECONDS
        is_behind = self.is_behind
        transaction.start(to_microseconds(now), lambda: not is_behind and self._clock.monotonic() < until)
        try:
            if abs(offset - self._offset) > timekeeping.JUMP_SECONDS:
                timekeeping.shift(transaction, offset - self._offset)
            if self._failing_since is not None:
                seconds = self._clock.monotonic() - self._failing_since
                timekeeping.prolong(transaction, seconds, "the database did not respond")
            done = _execute(transaction, jobs, lambda: self._clock.monotonic() < until)
            transaction.commit()
        except BaseException:
            with contextlib.suppress(Exception):  # a lost connection has nothing left to roll back
                transaction.rollback()
            raise
        self._offset, self._failing_since = offset, None
        done[-1].effects = transaction.effects
        self.transactions += 1
        self.work.use_cases += len(done)
        self.work.seconds += self._clock.monotonic() - began

    def _deliver(self, jobs: list[Job]) -> None:
        assert self._loop is not None
        if isinstance(self._executor, InlineExecutor):
            self._answer(jobs)
        else:
            self._loop.call_soon_threadsafe(self._answer, jobs)

    def _answer(self, jobs: list[Job]) -> None:
        if isinstance(jobs[-1].error, Deposed):
            self._on_deposed()
        # wake long polls before answering writers: they are on the critical path
        self._feed.wake(sorted({topic for job in jobs for topic in job.effects.topics}))
        for job in jobs:
            if job.effects.ignored:
                self.ignored.update(job.effects.ignored)
            if job.effects.ended_runs or job.effects.failing or job.effects.measured_late:
                self._listener(job.effects)
            if job.future.done():  # the client disconnected
                continue
            if job.error is None:
                job.future.set_result(job.answer)
            else:
                job.future.set_exception(job.error)


def _execute(transaction: Transaction, jobs: Sequence[Job], has_time: Callable[[], bool]) -> list[Job]:
    """Run jobs, those of a joint use case together with the first of them; return them.

    Urgent jobs come first. At least one of the others is run, and more while there is time.
    """
    for job in jobs:
        job.is_begun = False
    urgent = [job for job in jobs if job.is_urgent][: USE_CASES_PER_TRANSACTION_MAX - 1]
    done: list[Job] = []
    joint: dict[Callable[..., Any], list[Job]] = {}
    for job in urgent:
        if job.is_joint:
            joint.setdefault(job.use_case, []).append(job)
    for job in urgent:
        together = joint.pop(job.use_case, []) if job.is_joint else [job]
        _run_together(transaction, together)
        done += together
    first_of_others = len(done)
    for job in jobs:
        if job.is_urgent:
            continue
        is_first = len(done) == first_of_others
        if not (is_first or job.follows or (has_time() and len(done) < USE_CASES_PER_TRANSACTION_MAX)):
            break
        _run_together(transaction, [job])
        done.append(job)
    return done


def _run_together(transaction: Transaction, jobs: list[Job]) -> None:
    """Run jobs of the same joint use case, or a single job."""
    for job in jobs:
        job.is_begun = True
    if not jobs:
        return
    if not jobs[0].is_joint:
        (job,) = jobs
        job.answer = job.use_case(transaction, *job.arguments)
        return
    answers = jobs[0].use_case(transaction, [one.arguments[0] for one in jobs])
    for one, answer in zip(jobs, answers, strict=True):
        one.answer = answer
