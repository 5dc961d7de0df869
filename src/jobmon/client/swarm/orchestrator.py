"""WorkflowRunOrchestrator: the loop of one workflow run. It holds no rule; it waits, calls, and knows when to end.

One question to the server is always open, held there until something changes. The moment it is answered: apply, tell
the tasks downstream, plan, queue, ask again. Queueing and asking take turns, so that an answer never overtakes another.
Heartbeats have a timer of their own. Every wait has a bound: all of a run lies under its timeout, and what comes
after it (draining, stopping, the last word to the server) has limits of its own.

How a run may end:

* every task is done: DONE; nothing more can run: ERROR
* the timeout, a dead distributor, the test hook, an error: ERROR, with `OrchestratorResult.error`; what was
  submitted goes on
* another client takes over: TERMINATED, when cold after its attempts are ended
* cancelled or interrupted: attempts are ended, STOPPED, with `error`
* somebody else ended the run: as they say, when stopped after its attempts are ended
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.client.interrupts import RECORD_STOP_AT_ONCE_SECONDS_MAX, RECORD_STOP_SECONDS_MAX
from jobmon.client.swarm.planning import initial_fringe
from jobmon.client.swarm.services.heartbeat import HeartbeatService
from jobmon.client.swarm.services.scheduler import Scheduler
from jobmon.client.swarm.services.synchronizer import Synchronizer
from jobmon.client.swarm.state import StateUpdate, SwarmState
from jobmon.core.constants import TaskStatus, WorkflowRunStatus
from jobmon.core.exceptions import DistributorNotAlive, StaleRun, WorkflowRunStateError, WorkflowTestError
from jobmon.core.fsm import Machine, is_terminal
from jobmon.core.wire.swarm import LONG_POLL_SECONDS_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from jobmon.client.swarm.gateway import ServerGateway
    from jobmon.client.swarm.task import SwarmTask

logger = logging.getLogger(__name__)

#: How often the distributor is looked at.
DISTRIBUTOR_CHECK_SECONDS: Final = 1.0
#: How long a run that makes room waits for its attempts to end.
DRAIN_SECONDS_MAX: Final = 300.0
#: How long a run that is stopped waits for its attempts to end.
STOP_SECONDS_MAX: Final = 60.0
#: How long the last word to the server is tried.
CONCLUDE_SECONDS_MAX: Final = 60.0
#: How long the server may hold a question open while a run is stopped: whether it answers at all shows sooner.
STOP_POLL_SECONDS: Final = 2.0
#: Pause after an open question that came back at once with nothing, so that such a server is not asked in a spin.
EMPTY_ANSWER_PAUSE_SECONDS: Final = 0.05

_SIGNALS: Final = (WorkflowRunStatus.COLD_RESUME, WorkflowRunStatus.HOT_RESUME)
_START: Final = (WorkflowRunStatus.BOUND, WorkflowRunStatus.INSTANTIATED, WorkflowRunStatus.LAUNCHED)


@dataclass(frozen=True)
class OrchestratorResult:
    """Complete result of a run: all that callers need to know afterwards.

    `unrecorded` says why the server could not be told how the run ended; empty where it was.
    """

    final_status: str
    elapsed_time: float
    total_tasks: int
    done_count: int
    failed_count: int
    num_previously_complete: int
    task_final_statuses: dict[int, str]
    done_task_ids: frozenset[int]
    failed_task_ids: frozenset[int]
    error: BaseException | None = None
    unrecorded: str = ""


@dataclass
class WorkflowRunConfig:
    """Configuration of a workflow run, for users. None: as the settings say."""

    heartbeat_interval: float | None = None
    heartbeat_report_by_buffer: float | None = None
    fail_fast: bool = False
    wedged_workflow_sync_interval: int = 600
    fail_after_n_executions: int = 1_000_000_000

    @classmethod
    def from_defaults(cls) -> WorkflowRunConfig:
        """Return one with all that the settings say."""
        from jobmon.core.configuration import JobmonConfig

        settings = JobmonConfig()
        return cls(
            heartbeat_interval=settings.get_float("heartbeat", "workflow_run_interval"),
            heartbeat_report_by_buffer=settings.get_float("heartbeat", "report_by_buffer"),
        )


@dataclass
class OrchestratorConfig:
    """Configuration of the orchestrator. Times in seconds."""

    heartbeat_interval: float = 30.0
    heartbeat_report_by_buffer: float = 1.5
    wedged_workflow_sync_interval: float = 600.0
    fail_fast: bool = False
    timeout: int = 36000
    fail_after_n_executions: int | None = None


class WorkflowRunOrchestrator:
    """Runs a workflow that is built and bound.

    Args:
        state: all that is known of the run.
        gateway: the door to the server.
        config: settings.
        on_change: shown the state after each update that changed something; it must not change it.
    """

    def __init__(
        self,
        state: SwarmState,
        gateway: ServerGateway,
        config: OrchestratorConfig,
        on_change: Callable[[SwarmState], None] | None = None,
    ) -> None:
        self.state = state
        self.gateway = gateway
        self.config = config
        self._on_change = on_change
        self._scheduler = Scheduler(state, gateway)
        self._num_previously_complete = 0
        self._conclude_seconds_max = CONCLUDE_SECONDS_MAX
        self._unrecorded = ""

    async def run(self, distributor_alive_callable: Callable[..., bool]) -> OrchestratorResult:
        """Run until nothing more can be done.

        Whatever stops the run before its time is in the result's `error`, so that callers have the result as well.

        Args:
            distributor_alive_callable: says whether the distributor lives or is being started again.

        Raises:
            WorkflowRunStateError: the run is not bound or has ended, or a task belongs to no known array.
        """
        self._check_startable()
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._alive = distributor_alive_callable
        self._news = asyncio.Event()
        self._synchronizer = Synchronizer(
            self.state, self.gateway, self.config.wedged_workflow_sync_interval, loop.time
        )
        async with self._heartbeats() as self._beating:
            final, error = await self._guarded()
            final = await self._conclude(final)
        return self._result(final, loop.time() - started, error)

    # -- begin and end ---------------------------------------------------------------------------------------------

    def _check_startable(self) -> None:
        if self.state.status not in (*_START, WorkflowRunStatus.RUNNING, *_SIGNALS):
            raise WorkflowRunStateError(
                f"Run {self.state.workflow_run_id} is {self.state.status.name}; only a bound one can be run."
            )
        missing = {task.array_id for task in self.state.tasks.values()} - self.state.arrays.keys()
        if missing:
            raise WorkflowRunStateError(f"There are tasks of arrays that are not known: {sorted(missing)}.")

    @asynccontextmanager
    async def _heartbeats(self) -> AsyncIterator[asyncio.Task[None]]:
        service = HeartbeatService(
            self.state,
            self.gateway,
            self.config.heartbeat_interval,
            self.config.heartbeat_report_by_buffer,
            on_status_change=self._news.set,
        )
        beating = asyncio.create_task(service.run())
        self._beat = service.beat
        try:
            yield beating
        finally:
            await _cancelled(beating)

    async def _guarded(self) -> tuple[WorkflowRunStatus, BaseException | None]:
        """Run to an end, whatever happens; return the status that follows, and what went wrong."""
        limit = asyncio.timeout(self.config.timeout)
        try:
            async with limit:
                return await self._run(), None
        except (asyncio.CancelledError, KeyboardInterrupt) as interrupt:
            await self._stop()
            return WorkflowRunStatus.STOPPED, interrupt
        except TimeoutError as error:
            return WorkflowRunStatus.ERROR, self._too_late() if limit.expired() else error
        except Exception as error:
            logger.info("Run %s ends early: %s", self.state.workflow_run_id, error)
            return WorkflowRunStatus.ERROR, error

    def _too_late(self) -> RuntimeError:
        return RuntimeError(
            f"The workflow was not done after {self.config.timeout} s. What was submitted goes on; "
            "run it again with resume=True to finish it."
        )

    async def _conclude(self, final: WorkflowRunStatus) -> WorkflowRunStatus:
        """Tell the server how the run ended; it may know better."""
        try:
            async with asyncio.timeout(self._conclude_seconds_max):
                for status in (final, WorkflowRunStatus.TERMINATED):
                    if is_terminal(Machine.WORKFLOW_RUN, self.state.status):
                        break
                    await self._set_status(status)
        except (Exception, asyncio.CancelledError) as error:
            self._unrecorded = _reason(error)
            logger.warning(
                "The server could not be told that run %s ended: %s", self.state.workflow_run_id, self._unrecorded
            )
        return self.state.status if is_terminal(Machine.WORKFLOW_RUN, self.state.status) else final

    async def _set_status(self, status: WorkflowRunStatus) -> None:
        response = await self.gateway.update_status(status)
        self.state.apply_update(StateUpdate(workflow_run_status=response.status))

    def _result(self, final: WorkflowRunStatus, elapsed: float, error: BaseException | None) -> OrchestratorResult:
        statuses = dict.fromkeys(self.state.previously_done, TaskStatus.DONE.value)
        statuses |= {task_id: task.status.value for task_id, task in self.state.tasks.items()}
        done = {task.task_id for task in self.state.get_tasks_by_status(TaskStatus.DONE)}
        failed = {task.task_id for task in self.state.get_tasks_by_status(TaskStatus.ERROR_FATAL)}
        done |= self.state.previously_done
        return OrchestratorResult(
            final_status=final.value,
            elapsed_time=elapsed,
            total_tasks=self.state.total_tasks,
            done_count=len(done),
            failed_count=len(failed),
            num_previously_complete=self._num_previously_complete,
            task_final_statuses=statuses,
            done_task_ids=frozenset(done),
            failed_task_ids=frozenset(failed),
            error=error,
            unrecorded=self._unrecorded,
        )

    # -- the loop --------------------------------------------------------------------------------------------------

    async def _run(self) -> WorkflowRunStatus:
        self._begin()
        await self._set_running()
        await self._work()
        if self.state.status is WorkflowRunStatus.COLD_RESUME:
            await self._drain(DRAIN_SECONDS_MAX)
        elif self.state.status is WorkflowRunStatus.STOPPED:
            await self._drain(STOP_SECONDS_MAX)
        return self._verdict()

    def _begin(self) -> None:
        """Make ready whatever may run from the start."""
        done = self.state.get_tasks_by_status(TaskStatus.DONE)
        self._num_previously_complete = len(done) + len(self.state.previously_done)
        self.state.propagate_completions(done)
        self._scheduler.make_ready(initial_fringe(self.state))
        self._show()

    async def _set_running(self) -> None:
        """Lead the run from whatever it is to RUNNING, step by step."""
        while self.state.status in _START:
            before = self.state.status
            following = (*_START, WorkflowRunStatus.RUNNING)[_START.index(before) + 1]
            await self._set_status(following)
            if self.state.status is before:
                raise WorkflowRunStateError(f"The server leaves run {self.state.workflow_run_id} {before.name}.")

    async def _work(self) -> None:
        """Queue and learn in turns until the run is over."""
        while not self._is_told_to_end():
            self._check_executions()
            more = False if self._is_failing_fast() else await self._queue()
            if self._is_told_to_end() or not self._has_work():
                if self._is_told_to_end() or not await self._is_wedged():
                    return
                continue
            await self._learn(0.0 if more else LONG_POLL_SECONDS_MAX)

    def _is_told_to_end(self) -> bool:
        return self.state.status is not WorkflowRunStatus.RUNNING

    def _is_failing_fast(self) -> bool:
        return self.config.fail_fast and bool(self.state.get_tasks_by_status(TaskStatus.ERROR_FATAL))

    def _has_work(self) -> bool:
        if self._is_failing_fast():
            return self.state.in_flight > 0
        return self.state.has_pending_work() or self._scheduler.has_refused

    async def _is_wedged(self) -> bool:
        """Nothing is pending: say whether the server knows of something that we missed."""
        waiting = self.state.get_tasks_by_status(TaskStatus.REGISTERING)
        if not waiting or self.state.get_tasks_by_status(TaskStatus.ERROR_FATAL):
            return False
        self._synchronizer.expect_full()
        await self._learn(0.0)
        return self._has_work()

    async def _queue(self) -> bool:
        """Queue what can be; say whether there may be more at once."""
        try:
            queued = await self._scheduler.queue_next()
        except StaleRun:
            await self._beat()
            if not self._is_told_to_end():
                raise
            return False
        if queued is None:
            return False
        update, more = queued
        self._take_in(update)
        return more

    async def _learn(self, wait_seconds: float) -> None:
        """Wait for news, not longer than `wait_seconds` (and the request itself), and take them in."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        poll = asyncio.create_task(self._synchronizer.poll(wait_seconds))
        try:
            await self._wait_for(poll)
            if not poll.done():
                return
            update = poll.result()
        finally:
            await _cancelled(poll)
        if wait_seconds:
            self._scheduler.retry_refused()
        changed = self._take_in(update)
        if not changed and wait_seconds and loop.time() - asked < EMPTY_ANSWER_PAUSE_SECONDS:
            await asyncio.sleep(EMPTY_ANSWER_PAUSE_SECONDS)

    async def _wait_for(self, poll: asyncio.Task[StateUpdate]) -> None:
        """Wait for the answer, a changed status of the run, or something that ends the run."""
        news = asyncio.create_task(self._news.wait())
        try:
            while not (poll.done() or news.done()):
                self._check_distributor()
                await asyncio.wait(
                    {poll, news, self._beating},
                    timeout=DISTRIBUTOR_CHECK_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if self._beating.done():
                    self._beating.result()
        finally:
            await _cancelled(news)
            self._news.clear()

    def _take_in(self, update: StateUpdate) -> bool:
        """Apply an update and make ready what follows from it; say whether it changed anything."""
        before = (self.state.status, self.state.max_concurrently_running)
        changed = sorted(self.state.apply_update(update), key=lambda task: task.task_id)
        done = [task for task in changed if task.status is TaskStatus.DONE]
        self._scheduler.make_ready(self.state.propagate_completions(done))
        self._scheduler.make_ready(filter(_is_to_be_tried_again, changed), front=True)
        is_news = bool(changed or update.array_limits) or before != (
            self.state.status,
            self.state.max_concurrently_running,
        )
        if is_news:
            self._show()
        return is_news

    def _show(self) -> None:
        """Tell the observer; that it fails must not end a run."""
        if self._on_change is None:
            return
        try:
            self._on_change(self.state)
        except Exception:
            logger.exception("Progress cannot be shown any more.")
            self._on_change = None

    # -- what ends a run -------------------------------------------------------------------------------------------

    def _check_distributor(self) -> None:
        if not self._alive():
            raise DistributorNotAlive

    def _check_executions(self) -> None:
        limit = self.config.fail_after_n_executions
        done = len(self.state.get_tasks_by_status(TaskStatus.DONE)) + len(self.state.previously_done)
        if limit is not None and done - self._num_previously_complete >= limit:
            raise WorkflowTestError(f"The workflow was to fail after {limit} executions.")

    def _verdict(self) -> WorkflowRunStatus:
        """Say how a run ends that came to its end."""
        status = self.state.status
        if status in _SIGNALS:
            return WorkflowRunStatus.TERMINATED
        if is_terminal(Machine.WORKFLOW_RUN, status):
            if status in (WorkflowRunStatus.ERROR, WorkflowRunStatus.ABORTED):
                raise WorkflowRunStateError(f"Somebody else ended run {self.state.workflow_run_id}: {status.name}.")
            return status
        if len(self.state.get_tasks_by_status(TaskStatus.DONE)) == len(self.state.tasks):
            return WorkflowRunStatus.DONE
        if not self.state.get_tasks_by_status(TaskStatus.ERROR_FATAL):
            raise WorkflowRunStateError("Nothing can run though no task failed and not all are done.")
        return WorkflowRunStatus.ERROR

    async def _drain(
        self, seconds_max: float, poll_seconds: float = LONG_POLL_SECONDS_MAX, silent_seconds_max: float | None = None
    ) -> None:
        """Wait until none of the run's attempts is in flight, but not for ever nor without a distributor.

        Args:
            seconds_max: how long.
            poll_seconds: how long the server may hold a question open.
            silent_seconds_max: how long an answer is waited for; None: as long as there is time.
        """
        before = self.state.status
        with suppress(TimeoutError, DistributorNotAlive):
            async with asyncio.timeout(seconds_max):
                while self.state.in_flight and (
                    self.state.status is before or not is_terminal(Machine.WORKFLOW_RUN, self.state.status)
                ):
                    async with asyncio.timeout(silent_seconds_max):
                        await self._learn(poll_seconds)

    async def _stop(self) -> None:
        """End the run's attempts and wait for that; a second interrupt ends the waiting.

        A server that does not answer holds nobody up for long: how the run ended is then tried to be told once more.
        """
        self._conclude_seconds_max = RECORD_STOP_AT_ONCE_SECONDS_MAX
        current = asyncio.current_task()
        if current is not None:
            current.uncancel()
        try:
            async with asyncio.timeout(RECORD_STOP_SECONDS_MAX):
                await self.gateway.terminate_task_instances()
            await self._drain(STOP_SECONDS_MAX, STOP_POLL_SECONDS, RECORD_STOP_SECONDS_MAX)
            self._conclude_seconds_max = RECORD_STOP_SECONDS_MAX
        except (Exception, asyncio.CancelledError, KeyboardInterrupt) as error:
            logger.warning("Not all attempts of run %s may have ended: %s", self.state.workflow_run_id, _reason(error))


def _is_to_be_tried_again(task: SwarmTask) -> bool:
    if task.status is TaskStatus.ADJUSTING_RESOURCES:
        return True
    return task.status is TaskStatus.REGISTERING and task.all_upstreams_done


async def _cancelled(task: asyncio.Task[object]) -> None:
    """Cancel a task and wait until it is gone. Its result or error was fetched by whoever wanted it."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def _reason(error: BaseException) -> str:
    """Say why something was not done: of a wait that was given up, why there was no answer."""
    cause: BaseException = error
    while isinstance(cause, TimeoutError | asyncio.CancelledError) and (below := _below(cause)) is not None:
        cause = below
    if isinstance(cause, TimeoutError | asyncio.CancelledError):
        return "the server does not answer"
    if isinstance(cause, OSError):
        return f"the server does not answer ({cause.strerror or cause})"
    return str(cause) or type(cause).__name__


def _below(error: BaseException) -> BaseException | None:
    """Return what an error was raised from. Before Python 3.11.4 a timeout does not say from which cancellation."""
    if error.__cause__ is None and isinstance(error, TimeoutError):
        return error.__context__ if isinstance(error.__context__, asyncio.CancelledError) else None
    return error.__cause__
