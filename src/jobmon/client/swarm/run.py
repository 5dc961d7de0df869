"""Running a workflow from synchronous code: put builder, gateway and orchestrator together and wait.

The loop always has a thread of its own. So it makes no difference whether the caller has a running loop (a notebook)
or is not the main thread, no signal handler is needed, and heartbeats go on while the caller is asked whether an
interrupt was meant.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jobmon.client.interrupts import RECORD_STOP_AT_ONCE_SECONDS_MAX, RECORD_STOP_SECONDS_MAX
from jobmon.client.swarm.builder import SwarmBuilder
from jobmon.client.swarm.orchestrator import (
    STOP_SECONDS_MAX,
    OrchestratorConfig,
    OrchestratorResult,
    WorkflowRunConfig,
    WorkflowRunOrchestrator,
)
from jobmon.client.swarm.state import SwarmState
from jobmon.core import loops
from jobmon.core.constants import WorkflowRunStatus
from jobmon.core.exceptions import WorkflowRunStateError

if TYPE_CHECKING:
    from jobmon.client.workflow import Workflow
    from jobmon.core.requester import Requester

logger = logging.getLogger(__name__)

#: After this the thread of a run that was cancelled is given up.
GIVE_UP_SECONDS: Final = 2 * (STOP_SECONDS_MAX + 2 * RECORD_STOP_SECONDS_MAX)
#: Likewise, after the user insisted.
GIVE_UP_AT_ONCE_SECONDS: Final = 2 * RECORD_STOP_AT_ONCE_SECONDS_MAX

DistributorAlive = Callable[..., bool]
Observer = Callable[[SwarmState], None]


def run_workflow(
    workflow: Workflow,
    workflow_run_id: int,
    distributor_alive: DistributorAlive,
    status: str = WorkflowRunStatus.BOUND,
    config: WorkflowRunConfig | None = None,
    timeout: int = 36000,
    requester: Requester | None = None,
    *,
    on_change: Observer | None = None,
    confirm_interrupt: Callable[[], bool] | None = None,
) -> OrchestratorResult:
    """Run a bound workflow to its end.

    Args:
        workflow: the workflow.
        workflow_run_id: its new run.
        distributor_alive: says whether the distributor lives or is being started again.
        status: status of the run.
        config: settings of this run; None: the defaults.
        timeout: seconds after which the run ends.
        requester: sends the requests; None: as the settings say.
        on_change: shown the state after each update that changed something, in another thread.
        confirm_interrupt: asked on an interrupt whether it was meant; None: it was.
    """
    settings = _settings(config, timeout)
    builder = _builder(requester, workflow_run_id, status, settings)
    with closing(builder.requester):  # the orchestrator talks through a session of its own
        builder.build_from_workflow(workflow)
    return _orchestrate(builder, settings, distributor_alive, on_change, confirm_interrupt)


def resume_workflow_run(
    workflow_id: int,
    workflow_run_id: int,
    distributor_alive: DistributorAlive,
    status: str = WorkflowRunStatus.BOUND,
    config: WorkflowRunConfig | None = None,
    timeout: int = 36000,
    requester: Requester | None = None,
    *,
    on_change: Observer | None = None,
    confirm_interrupt: Callable[[], bool] | None = None,
) -> OrchestratorResult:
    """Run what is left of a recorded workflow to its end; otherwise as `run_workflow`.

    Raises:
        ValueError: there is no such workflow.
        WorkflowNotResumable: it needs a Python function, which only the user's script has.
    """
    settings = _settings(config, timeout)
    builder = _builder(requester, workflow_run_id, status, settings)
    with closing(builder.requester):
        builder.build_from_workflow_id(workflow_id)
    return _orchestrate(builder, settings, distributor_alive, on_change, confirm_interrupt)


def _settings(config: WorkflowRunConfig | None, timeout: int) -> OrchestratorConfig:
    config = config or WorkflowRunConfig()
    defaults = WorkflowRunConfig.from_defaults()
    interval, buffer = config.heartbeat_interval, config.heartbeat_report_by_buffer
    return OrchestratorConfig(
        heartbeat_interval=_first(interval, defaults.heartbeat_interval),
        heartbeat_report_by_buffer=_first(buffer, defaults.heartbeat_report_by_buffer),
        wedged_workflow_sync_interval=config.wedged_workflow_sync_interval,
        fail_fast=config.fail_fast,
        timeout=timeout,
        fail_after_n_executions=config.fail_after_n_executions,
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _builder(
    requester: Requester | None, workflow_run_id: int, status: str, settings: OrchestratorConfig
) -> SwarmBuilder:
    if requester is None:
        from jobmon.core.requester import Requester

        requester = Requester.from_defaults()
    return SwarmBuilder(
        requester.without_limit(),
        workflow_run_id,
        settings.heartbeat_interval,
        settings.heartbeat_report_by_buffer,
        status,
    )


def _orchestrate(
    builder: SwarmBuilder,
    settings: OrchestratorConfig,
    distributor_alive: DistributorAlive,
    on_change: Observer | None,
    confirm_interrupt: Callable[[], bool] | None,
) -> OrchestratorResult:
    state, gateway = builder.state, builder.gateway
    if state is None or gateway is None:
        raise WorkflowRunStateError("Nothing was built that could be run.")

    async def main() -> OrchestratorResult:
        async with gateway:
            orchestrator = WorkflowRunOrchestrator(state, gateway, settings, on_change)
            return await orchestrator.run(distributor_alive)

    run = _Run(main)
    run.wait(confirm_interrupt)
    return run.result()


class _Run:
    """A coroutine function that runs to its end in a loop and thread of its own.

    The caller waits for an event, not for the thread: an interrupted `Thread.join` takes the thread for ended.
    """

    def __init__(self, main: Callable[[], Coroutine[object, object, OrchestratorResult]]) -> None:
        self._main = main
        self._started = threading.Event()
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[OrchestratorResult] | None = None
        self._result: OrchestratorResult | None = None
        self._error: BaseException | None = None
        self._interrupt: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="jobmon-orchestrator", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = loops.run(self._noted())
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()
            self._ended.set()

    async def _noted(self) -> OrchestratorResult:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._started.set()
        return await self._main()

    def wait(self, confirm_interrupt: Callable[[], bool] | None) -> None:
        """Wait for the end. An interrupt that was meant stops the run; so does whatever else ends the caller."""
        while not self._ended.is_set():
            try:
                self._ended.wait()
            except KeyboardInterrupt as interrupt:
                if _is_meant(confirm_interrupt):
                    self._stop(interrupt)
                    return
            except BaseException as error:
                self._stop(error)
                raise

    def _stop(self, reason: BaseException) -> None:
        """Cancel the run and wait until it has ended its attempts; a further interrupt ends the waiting for them."""
        self._interrupt = reason
        for limit_seconds in (GIVE_UP_SECONDS, GIVE_UP_AT_ONCE_SECONDS):
            self._cancel()
            try:
                self._ended.wait(limit_seconds)
            except KeyboardInterrupt:
                continue
            return

    def _cancel(self) -> None:
        self._started.wait(GIVE_UP_AT_ONCE_SECONDS)
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it has ended just now
                self._loop.call_soon_threadsafe(self._task.cancel)

    def result(self) -> OrchestratorResult:
        """Return what the coroutine returned, or raise what it raised."""
        if self._result is None:
            raise self._error or self._interrupt or WorkflowRunStateError("The run did not come to an end.")
        if self._interrupt is not None and isinstance(self._result.error, asyncio.CancelledError):
            return replace(self._result, error=self._interrupt)
        return self._result


def _is_meant(confirm_interrupt: Callable[[], bool] | None) -> bool:
    """Ask whether an interrupt was meant; another one while asking says yes."""
    try:
        return confirm_interrupt is None or confirm_interrupt()
    except KeyboardInterrupt:
        return True
