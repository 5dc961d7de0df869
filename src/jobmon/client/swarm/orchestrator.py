"""WorkflowRunOrchestrator: the main loop of one workflow run. The rules are elsewhere; it waits, calls, and stops.

One long poll to the server is always open. When it returns, the orchestrator applies the changes, notifies downstream
tasks, plans, queues, and polls again. Queueing and polling alternate, so that responses cannot arrive out of order.
Heartbeats have their own timer. Every wait is bounded: the run as a whole by its timeout, and the steps after it
(draining, stopping, recording the outcome) by limits of their own.

A run may end in these ways:

* every task is done: DONE; nothing more can run: ERROR
* timeout, dead distributor, the test hook, an error: ERROR, with `OrchestratorResult.error`; submitted tasks continue
* another client takes over: TERMINATED; on a cold resume, after its attempts have ended
* cancelled or interrupted: its attempts are terminated; STOPPED, with `error`
* another process ended the run: with the status it set; if it stopped the run, after its attempts have ended. If the
 reaper closed it: DONE if all tasks are done, otherwise the status the reaper set, with `error`
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.client.interrupts import RECORD_STOP_AT_ONCE_SECONDS_MAX, RECORD_STOP_SECONDS_MAX
from jobmon.client.swarm.planning import initial_fringe
from jobmon.client.swarm.services.expander import Expander
from jobmon.client.swarm.services.heartbeat import HeartbeatService
from jobmon.client.swarm.services.refresher import Records, Refresher
from jobmon.client.swarm.services.scheduler import Scheduler
from jobmon.client.swarm.services.synchronizer import Synchronizer
from jobmon.client.swarm.state import StateUpdate, SwarmState
from jobmon.client.swarm.threads import Threads
from jobmon.core.constants import EndReason, TaskStatus, WorkflowRunStatus
from jobmon.core.exceptions import DistributorNotAlive, JobmonError, StaleRun, WorkflowRunStateError, WorkflowTestError
from jobmon.core.fsm import CLOSED_RUNS, IN_FLIGHT, MAKING_ROOM, SATISFIED, STARTING_RUNS, Machine, is_terminal
from jobmon.core.texts import number_of
from jobmon.core.wire.swarm import LONG_POLL_SECONDS_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from jobmon.client.swarm.gateway import ServerGateway
    from jobmon.client.swarm.services.expander import Caller
    from jobmon.client.swarm.task import SwarmTask

logger = logging.getLogger(__name__)

#: Interval between checks of the distributor.
DISTRIBUTOR_CHECK_SECONDS: Final = 1.0
#: Maximum time that a run that makes room waits for its attempts to end.
DRAIN_SECONDS_MAX: Final = 300.0
#: Maximum time that a stopped run waits for its attempts to end.
STOP_SECONDS_MAX: Final = 60.0
#: Maximum time to try to record the outcome on the server.
CONCLUDE_SECONDS_MAX: Final = 60.0
#: Duration of a long poll while a run is stopped; short, to find out sooner whether the server responds at all.
STOP_POLL_SECONDS: Final = 2.0
#: Pause after a long poll that returned at once without changes, to avoid a busy loop.
EMPTY_ANSWER_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True)
class OrchestratorResult:
    """Complete result of a run.

    Args:
        final_status: letter of the run's status, a `WorkflowRunStatus`.
        elapsed_time: duration of the run, in seconds.
        total_tasks: number of tasks in the workflow.
        done_count: number of done tasks.
        failed_count: number of tasks that failed permanently.
        num_previously_complete: number of tasks that were done before this run.
        task_final_statuses: letter of each task's status, by task ID.
        done_task_ids: IDs of the done tasks.
        failed_task_ids: IDs of the tasks that failed permanently.
        error: what ended the run early; None if it completed.
        unrecorded: why the outcome could not be recorded on the server; "" if it was recorded.
        skipped_task_ids: IDs of the skipped tasks.
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
    skipped_task_ids: frozenset[int] = frozenset()


@dataclass
class WorkflowRunConfig:
    """Configuration of a workflow run, for users. None means the value of the settings.

    Args:
        heartbeat_interval: seconds between two heartbeats.
        heartbeat_report_by_buffer: number of intervals without a heartbeat after which the run counts as lost.
        fail_fast: launch no more tasks after the first permanent failure.
        wedged_workflow_sync_interval: seconds between two fetches of the status of every task.
        fail_after_n_executions: raise WorkflowTestError after this number of completed tasks; for tests.
    """

    heartbeat_interval: float | None = None
    heartbeat_report_by_buffer: float | None = None
    fail_fast: bool = False
    wedged_workflow_sync_interval: int = 600
    fail_after_n_executions: int = 1_000_000_000

    @classmethod
    def from_defaults(cls) -> WorkflowRunConfig:
        """Return a configuration with all values from the settings."""
        from jobmon.core.configuration import JobmonConfig

        settings = JobmonConfig()
        return cls(
            heartbeat_interval=settings.get_float("heartbeat", "workflow_run_interval"),
            heartbeat_report_by_buffer=settings.get_float("heartbeat", "report_by_buffer"),
        )


@dataclass
class OrchestratorConfig:
    """Configuration of the orchestrator. Times are in seconds."""

    heartbeat_interval: float = 30.0
    heartbeat_report_by_buffer: float = 1.5
    wedged_workflow_sync_interval: float = 600.0
    fail_fast: bool = False
    timeout: float | None = 36000
    fail_after_n_executions: int | None = None


class WorkflowRunOrchestrator:
    """Runs a workflow that is built and bound.

    Args:
        state: state of the run.
        gateway: sends requests to the server.
        config: configuration of the run.
        on_change: called with the state after each update that changed something; it must not change the state.
        records: turns recorded tasks into objects, for tasks that users edit, or rerun although the run did not fetch
            them.
        caller: calls the functions of expansions; None: there are none.
        threads: runs what would block the loop; None: real threads.
    """

    def __init__(
        self,
        state: SwarmState,
        gateway: ServerGateway,
        config: OrchestratorConfig,
        on_change: Callable[[SwarmState], None] | None = None,
        records: Records | None = None,
        caller: Caller | None = None,
        threads: Threads | None = None,
    ) -> None:
        self.state = state
        self.gateway = gateway
        self.config = config
        self._on_change = on_change
        limit = config.fail_after_n_executions
        self._scheduler = Scheduler(
            state, gateway, arms=limit is None or limit > len(state.tasks), fail_fast=config.fail_fast
        )
        self._caller = caller
        self._threads = threads or Threads()
        self._refresher = Refresher(state, gateway, records, self._threads)
        self._num_previously_complete = 0
        self._conclude_seconds_max = CONCLUDE_SECONDS_MAX
        self._unrecorded = ""
        self._end_reason: EndReason | None = None

    async def run(self, distributor_alive_callable: Callable[..., bool]) -> OrchestratorResult:
        """Run until nothing more can be done.

        Whatever ends the run early is in the `error` of the result, so that callers still get the result.

        Args:
            distributor_alive_callable: returns whether the distributor is alive or being restarted.

        Returns:
            The result, also if the run failed or was interrupted.

        Raises:
            WorkflowRunStateError: the run is not bound or has ended, or a task belongs to an unknown array.
        """
        self._check_startable()
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._alive = distributor_alive_callable
        self._news = asyncio.Event()
        self._synchronizer = Synchronizer(
            self.state, self.gateway, self.config.wedged_workflow_sync_interval, loop.time
        )
        self._expander = Expander(self.state, self.gateway, self._caller, self._take_in, self._news.set, self._threads)
        self._take_in_holds(frozenset())
        async with self._heartbeats() as self._beating:
            final, error = await self._guarded()
            await self._expander.cancel()
            final = await self._conclude(final)
        return self._result(final, loop.time() - started, error)

    # -- start and end ---------------------------------------------------------------------------------------------

    def _check_startable(self) -> None:
        if self.state.status not in (*STARTING_RUNS, WorkflowRunStatus.RUNNING, *MAKING_ROOM):
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
        """Run until the end, whatever happens; return the resulting status, and the error if there was one."""
        limit = asyncio.timeout(self.config.timeout)
        try:
            async with limit:
                return await self._run(), None
        except (asyncio.CancelledError, KeyboardInterrupt) as interrupt:
            await self._stop()
            return WorkflowRunStatus.STOPPED, interrupt
        except TimeoutError as error:
            if not limit.expired():
                return WorkflowRunStatus.ERROR, error
            self._end_reason = EndReason.TIMED_OUT
            return WorkflowRunStatus.ERROR, self._too_late()
        except Exception as error:
            logger.info("Run %s is ending early: %s", self.state.workflow_run_id, error)
            return WorkflowRunStatus.ERROR, error

    def _too_late(self) -> RuntimeError:
        return RuntimeError(
            f"The workflow was not done after {self.config.timeout} s. Submitted tasks keep running; "
            "run(resume=True) resumes it."
        )

    async def _conclude(self, final: WorkflowRunStatus) -> WorkflowRunStatus:
        """Record the outcome on the server, which may already have another one."""
        try:
            async with asyncio.timeout(self._conclude_seconds_max):
                for status in (final, WorkflowRunStatus.TERMINATED):
                    if is_terminal(Machine.WORKFLOW_RUN, self.state.status):
                        break
                    await self._set_status(status)
        except (Exception, asyncio.CancelledError) as error:
            self._unrecorded = _reason(error)
            logger.warning(
                "The end of run %s could not be recorded on the server: %s",
                self.state.workflow_run_id,
                self._unrecorded,
            )
        if final is WorkflowRunStatus.DONE and self.state.status in CLOSED_RUNS:
            return final  # the run was closed early, but all tasks are done
        return self.state.status if is_terminal(Machine.WORKFLOW_RUN, self.state.status) else final

    async def _set_status(self, status: WorkflowRunStatus) -> None:
        reason = () if self._end_reason is None else (self._end_reason,)
        response = await self.gateway.update_status(status, *reason)
        self.state.apply_update(StateUpdate(workflow_run_status=response.status))

    def _result(self, final: WorkflowRunStatus, elapsed: float, error: BaseException | None) -> OrchestratorResult:
        statuses = dict.fromkeys(self.state.previously_done, TaskStatus.DONE.value)
        statuses |= dict.fromkeys(self.state.previously_skipped, TaskStatus.SKIPPED.value)
        statuses |= {task_id: task.status.value for task_id, task in self.state.tasks.items()}
        done = {task.task_id for task in self.state.get_tasks_by_status(TaskStatus.DONE)}
        failed = {task.task_id for task in self.state.get_tasks_by_status(TaskStatus.ERROR_FATAL)}
        done |= self.state.previously_done
        skipped = {task.task_id for task in self.state.get_tasks_by_status(TaskStatus.SKIPPED)}
        skipped |= self.state.previously_skipped
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
            skipped_task_ids=frozenset(skipped),
        )

    # -- the loop --------------------------------------------------------------------------------------------------

    async def _run(self) -> WorkflowRunStatus:
        self._begin()
        await self._refresher.apply_edits()
        await self._set_running()
        await self._work()
        if self.state.status is WorkflowRunStatus.COLD_RESUME:
            await self._drain(DRAIN_SECONDS_MAX)
        elif self.state.status is WorkflowRunStatus.STOPPED:
            await self._drain(STOP_SECONDS_MAX)
        elif self.state.status in CLOSED_RUNS:
            await self._learn_outcome()
        return self._verdict()

    async def _learn_outcome(self) -> None:
        """Fetch the status of all tasks of a run that another process closed: they may all be done."""
        self._synchronizer.expect_full()
        with suppress(JobmonError, TimeoutError):
            async with asyncio.timeout(CONCLUDE_SECONDS_MAX):
                self._take_in(await self._synchronizer.poll(0.0))

    def _begin(self) -> None:
        """Enqueue all tasks that can run from the start."""
        done = self.state.get_tasks_by_status(TaskStatus.DONE)
        self._num_previously_complete = len(done) + len(self.state.previously_done)
        self.state.propagate_completions({*done, *self.state.get_tasks_by_status(TaskStatus.SKIPPED)})
        self._scheduler.make_ready(initial_fringe(self.state))
        self.state.armed.expect(
            task for status in IN_FLIGHT for task in self.state.get_tasks_by_status(status) if not task.is_expansion
        )
        self._show()

    async def _set_running(self) -> None:
        """Move the run from its current status to RUNNING, step by step."""
        while self.state.status in STARTING_RUNS:
            before = self.state.status
            following = (*STARTING_RUNS, WorkflowRunStatus.RUNNING)[STARTING_RUNS.index(before) + 1]
            await self._set_status(following)
            if self.state.status is before:
                raise WorkflowRunStateError(f"The server leaves run {self.state.workflow_run_id} {before.name}.")

    async def _work(self) -> None:
        """Alternate between queueing and polling until the run is over."""
        while not self._is_told_to_end():
            self._check_executions()
            if not self._is_failing_fast():
                self._expander.start_calls()
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
            return self.state.in_flight > 0 or self.state.has_calls
        return self.state.has_pending_work() or self._scheduler.has_refused or self._expander.has_refused

    async def _is_wedged(self) -> bool:
        """Return whether there is truly no work left, after a full synchronization for changes that were missed."""
        waiting = self.state.get_tasks_by_status(TaskStatus.REGISTERING)
        if not waiting or self.state.get_tasks_by_status(TaskStatus.ERROR_FATAL):
            return False
        self._synchronizer.expect_full()
        await self._learn(0.0)
        return self._has_work()

    async def _queue(self) -> bool:
        """Queue tasks; return whether more can be queued at once."""
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
        """Wait for changes, at most `wait_seconds` plus the time of the request, and apply them."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        poll = asyncio.create_task(self._synchronizer.poll(wait_seconds))
        try:
            await self._wait_for(poll)
            update = poll.result() if poll.done() else None
        finally:
            await _cancelled(poll)
        if update is None:
            await self._grow(StateUpdate())
            return
        if wait_seconds:
            self._scheduler.retry_refused()
        await self._grow(update)
        grown = await self._refresher.grow(update)
        changed = self._take_in(update)
        self._expander.retry_refused()
        self._scheduler.make_ready(filter(_is_to_be_tried_again, grown))
        await self._refresher.apply_edits()
        self._scheduler.release_lost()
        if not changed and wait_seconds and loop.time() - asked < EMPTY_ANSWER_PAUSE_SECONDS:
            await asyncio.sleep(EMPTY_ANSWER_PAUSE_SECONDS)

    async def _grow(self, update: StateUpdate) -> None:
        """Add what expansions returned."""
        if await self._expander.grow(update):
            await self._refresher.relink()

    async def _wait_for(self, poll: asyncio.Task[StateUpdate]) -> None:
        """Wait for the response, a changed status of the run, or something that ends the run."""
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
        """Apply an update and enqueue the tasks that it makes ready; return whether it changed anything."""
        before = (self.state.status, self.state.max_concurrently_running)
        problems, notices, held = self.state.launch_problems, self.state.notices, self.state.on_hold
        changed = sorted(self.state.apply_update(update), key=lambda task: task.task_id)
        done = [task for task in changed if task.status in SATISFIED]
        self._scheduler.make_ready(self.state.propagate_completions(done))
        self._scheduler.make_ready(filter(_is_to_be_tried_again, changed), front=True)
        self._take_in_holds(held)
        self.state.armed.release_downstream(task for task in changed if task.status is TaskStatus.ERROR_FATAL)
        is_news = bool(changed or update.array_limits or held is not self.state.on_hold) or before != (
            self.state.status,
            self.state.max_concurrently_running,
        )
        if is_news:
            self._show()
        self._tell_launch_problems(problems)
        self._tell_notices(notices)
        return is_news

    def _take_in_holds(self, before: frozenset[int]) -> None:
        """Enqueue released tasks; log once that tasks are held."""
        now = self.state.on_hold
        if now is before:
            return
        released = (self.state.tasks.get(task_id) for task_id in sorted(before - now))
        self._scheduler.make_ready(task for task in released if task is not None and _is_to_be_tried_again(task))
        if now and not before:
            number, are, workflow_id = (
                number_of(len(now), "task"),
                "is" if len(now) == 1 else "are",
                self.state.workflow_id,
            )
            logger.warning(
                "%s %s held until released: jobmon task release ID. See: jobmon workflow explain %d",
                *(number, are, workflow_id),
            )
        elif before and not now:
            logger.warning("No tasks are held any more.")

    def _tell_launch_problems(self, before: Mapping[str, str]) -> None:
        """Log once that nothing can be launched on a cluster, and once that launching works again."""
        now, workflow_id = self.state.launch_problems, self.state.workflow_id
        for cluster in now.keys() - before.keys():
            logger.warning(
                "Tasks are waiting for cluster %s, and are not charged: %s. See: jobmon workflow explain %d",
                *(cluster, now[cluster].rstrip(". "), workflow_id),
            )
        for cluster in before.keys() - now.keys():
            logger.warning("Tasks are launched on cluster %s again.", cluster)

    def _tell_notices(self, before: Mapping[str, str]) -> None:
        """Log once each new notice about the jobs of a cluster."""
        for cluster, text in self.state.notices.items():
            if cluster not in before:
                workflow_id = self.state.workflow_id
                logger.warning(
                    "Cluster %s: %s. See: jobmon workflow explain %d", cluster, text.rstrip(". "), workflow_id
                )

    def _show(self) -> None:
        """Notify the observer. An error of the observer must not end the run."""
        if self._on_change is None:
            return
        try:
            self._on_change(self.state)
        except Exception:
            logger.exception("Progress can no longer be shown.")
            self._on_change = None

    # -- end conditions --------------------------------------------------------------------------------------------

    def _check_distributor(self) -> None:
        if not self._alive():
            raise DistributorNotAlive

    def _check_executions(self) -> None:
        limit = self.config.fail_after_n_executions
        done = len(self.state.get_tasks_by_status(TaskStatus.DONE)) + len(self.state.previously_done)
        if limit is not None and done - self._num_previously_complete >= limit:
            raise WorkflowTestError(f"The workflow was configured to fail after {limit} executions.")

    def _verdict(self) -> WorkflowRunStatus:
        """Return the status of a run that was not interrupted."""
        status = self.state.status
        if status in MAKING_ROOM:
            return WorkflowRunStatus.TERMINATED
        settled = sum(len(self.state.get_tasks_by_status(each)) for each in SATISFIED)
        is_done = settled == len(self.state.tasks)
        if is_done and (status in CLOSED_RUNS or not is_terminal(Machine.WORKFLOW_RUN, status)):
            return WorkflowRunStatus.DONE
        if status in CLOSED_RUNS:
            raise WorkflowRunStateError(self._about_closed(status))
        if is_terminal(Machine.WORKFLOW_RUN, status):
            return status
        if not self.state.get_tasks_by_status(TaskStatus.ERROR_FATAL):
            raise WorkflowRunStateError("No task can run, although none failed and not all are done.")
        return WorkflowRunStatus.ERROR

    def _about_closed(self, status: WorkflowRunStatus) -> str:
        silence = self.config.heartbeat_interval * self.config.heartbeat_report_by_buffer
        return (
            f"The server's reaper closed run {self.state.workflow_run_id} as {status.name}: no heartbeat of this"
            f" process reached the server for more than {silence:g} s. Was the process stopped (Ctrl-Z), the machine"
            " suspended or the network down? run(resume=True) resumes the workflow."
        )

    async def _drain(
        self, seconds_max: float, poll_seconds: float = LONG_POLL_SECONDS_MAX, silent_seconds_max: float | None = None
    ) -> None:
        """Wait until no attempt of the run is in flight, within limits and only while there is a distributor.

        Args:
            seconds_max: maximum time to wait, in seconds.
            poll_seconds: duration of a long poll, in seconds.
            silent_seconds_max: maximum time to wait for a response, in seconds; None means `seconds_max`.
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
        """Terminate the run's attempts and wait for them to end; a second interrupt ends the wait.

        A server that does not respond blocks this only briefly: recording the outcome is then tried once more.
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
            logger.warning("Some attempts of run %s may not have ended: %s", self.state.workflow_run_id, _reason(error))


def _is_to_be_tried_again(task: SwarmTask) -> bool:
    if task.status is TaskStatus.ADJUSTING_RESOURCES:
        return True
    return task.status is TaskStatus.REGISTERING and task.all_upstreams_done


async def _cancelled(task: asyncio.Task[object]) -> None:
    """Cancel a task and wait until it has finished. The caller has already fetched its result or error."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def _reason(error: BaseException) -> str:
    """Return why something failed; for a timeout or cancellation, its cause if there is one."""
    cause: BaseException = error
    while isinstance(cause, TimeoutError | asyncio.CancelledError) and (below := _below(cause)) is not None:
        cause = below
    if isinstance(cause, TimeoutError | asyncio.CancelledError):
        return "the server does not respond"
    if isinstance(cause, OSError):
        return f"the server does not respond ({cause.strerror or cause})"
    return str(cause) or type(cause).__name__


def _below(error: BaseException) -> BaseException | None:
    """Return the cause of an error. Before Python 3.11.4, a timeout does not name the cancellation that caused it."""
    if error.__cause__ is None and isinstance(error, TimeoutError):
        return error.__context__ if isinstance(error.__context__, asyncio.CancelledError) else None
    return error.__cause__
