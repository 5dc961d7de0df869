"""Run a workflow from synchronous code: assemble builder, gateway and orchestrator, and wait.

The loop always runs in its own thread. It therefore makes no difference whether the caller has a running loop (a
notebook) or is not the main thread; no signal handler is needed; and heartbeats continue while the user is asked to
confirm an interrupt.
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
    from jobmon.client.expanding import Serve
    from jobmon.client.swarm.services.expander import Caller, Growth, Look
    from jobmon.client.workflow import Workflow
    from jobmon.core.requester import Requester

logger = logging.getLogger(__name__)

#: Time after which the thread of a cancelled run is abandoned.
GIVE_UP_SECONDS: Final = 2 * (STOP_SECONDS_MAX + 2 * RECORD_STOP_SECONDS_MAX)
#: The same after the user interrupted again.
GIVE_UP_AT_ONCE_SECONDS: Final = 2 * RECORD_STOP_AT_ONCE_SECONDS_MAX

DistributorAlive = Callable[..., bool]
Observer = Callable[[SwarmState], None]


def run_workflow(
    workflow: Workflow,
    workflow_run_id: int,
    distributor_alive: DistributorAlive,
    status: str = WorkflowRunStatus.BOUND,
    config: WorkflowRunConfig | None = None,
    timeout: float | None = 36000,
    requester: Requester | None = None,
    *,
    on_change: Observer | None = None,
    confirm_interrupt: Callable[[], bool] | None = None,
    serve: Serve | None = None,
    allow_removal: bool = False,
) -> OrchestratorResult:
    """Run a bound workflow.

    Args:
        workflow: the workflow.
        workflow_run_id: ID of its new run.
        distributor_alive: returns whether the distributor is alive or being restarted.
        status: status of the run.
        config: configuration of this run; None means the defaults.
        timeout: seconds after which the run ends; None means no limit.
        requester: sends the requests; None creates one from the settings.
        on_change: called with the state after each change, in another thread.
        confirm_interrupt: asks on an interrupt whether to stop; None stops without asking.
        serve: makes sure that the clusters of tasks that expansions add are served; None: they are.
        allow_removal: whether expansions may remove tasks that they added in an earlier run.

    Returns:
        The result of the run; what ended it early is in its `error`.

    Raises:
        WorkflowRunStateError: the workflow is not bound.
        WorkflowNotResumable: it needs a Python function that cannot be found.
    """
    settings = _settings(config, timeout)
    builder = _builder(requester, workflow_run_id, status, settings)
    with closing(builder.requester):  # the orchestrator uses its own session
        builder.build_from_workflow(workflow)
        caller = caller_of(workflow, builder, serve, allows_removal=allow_removal)
    return _orchestrate(builder, settings, distributor_alive, on_change, confirm_interrupt, caller)


def resume_workflow_run(
    workflow_id: int,
    workflow_run_id: int,
    distributor_alive: DistributorAlive,
    status: str = WorkflowRunStatus.BOUND,
    config: WorkflowRunConfig | None = None,
    timeout: float | None = 36000,
    requester: Requester | None = None,
    *,
    on_change: Observer | None = None,
    confirm_interrupt: Callable[[], bool] | None = None,
    serve: Serve | None = None,
) -> OrchestratorResult:
    """Run the unfinished tasks of a recorded workflow.

    Args:
        workflow_id: ID of the workflow.
        workflow_run_id: ID of its new run.
        distributor_alive: returns whether the distributor is alive or being restarted.
        status: status of the run.
        config: configuration of this run; None means the defaults.
        timeout: seconds after which the run ends; None means no limit.
        requester: sends the requests; None creates one from the settings.
        on_change: called with the state after each change, in another thread.
        confirm_interrupt: asks on an interrupt whether to stop; None stops without asking.
        serve: makes sure that the clusters of tasks that expansions add are served; None: they are.

    Returns:
        The result of the run; what ended it early is in its `error`.

    Raises:
        ValueError: the workflow does not exist.
        WorkflowNotResumable: it needs a Python function, which only the user's script has.
    """
    settings = _settings(config, timeout)
    builder = _builder(requester, workflow_run_id, status, settings)
    with closing(builder.requester):
        builder.build_from_workflow_id(workflow_id)
        caller = caller_of(None, builder, serve)
    return _orchestrate(builder, settings, distributor_alive, on_change, confirm_interrupt, caller)


def caller_of(
    workflow: Workflow | None, builder: SwarmBuilder, serve: Serve | None, *, allows_removal: bool | None = None
) -> Caller:
    """Return what calls the functions of expansions.

    Args:
        workflow: the workflow of the running script; None: only the record is known.
        builder: has built the state.
        serve: makes sure that clusters are served.
        allows_removal: whether tasks may be removed; None means the setting.

    Raises:
        WorkflowNotResumable: a function cannot be found.
    """

    def make() -> Caller:
        from jobmon.client import expanding, functions  # only runs that call expansions pay for it

        load = functions.load_installed if workflow is None else functions.load_here
        known = recorded_workflow(builder) if workflow is None else workflow
        return expanding.caller_of(known, builder, serve, load, allows_removal=allows_removal)

    has_expansions = builder.state is not None and any(task.is_expansion for task in builder.state.tasks.values())
    return make() if has_expansions else LateCaller(make)


class LateCaller:
    """Creates a caller once an expansion is to be called: all of them, if any, were done before the run.

    Args:
        make: creates it.
    """

    def __init__(self, make: Callable[[], Caller]) -> None:
        self._make = make
        self._made: Caller | None = None

    @property
    def _caller(self) -> Caller:
        self._made = self._made or self._make()
        return self._made

    def call(self, task_id: int, calls: int, look: Look) -> Growth:
        """See `Caller`."""
        return self._caller.call(task_id, calls, look)

    def name_of(self, task_id: int) -> str:
        """See `Caller`."""
        return self._caller.name_of(task_id)

    def max_attempts_of(self, task_id: int) -> int:
        """See `Caller`."""
        return self._caller.max_attempts_of(task_id)


def recorded_workflow(builder: SwarmBuilder) -> Workflow:
    """Return a workflow of which only the record is known, without its tasks."""
    from jobmon.client.tool import Tool
    from jobmon.core.wire.swarm import WorkflowMetadata

    route = f"/workflows/{builder.workflow_id}/metadata"
    metadata = builder.requester.call(route, None, WorkflowMetadata, "get")
    tool = Tool(metadata.tool_name, requester=builder.requester)
    tool.set_active_tool_version_id(metadata.tool_version_id)
    workflow = tool.create_workflow(metadata.workflow_args, name=metadata.name)
    workflow.workflow_id, workflow.dag_id, workflow.is_bound = metadata.workflow_id, metadata.dag_id, True
    return workflow


def _settings(config: WorkflowRunConfig | None, timeout: float | None) -> OrchestratorConfig:
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
    caller: Caller,
) -> OrchestratorResult:
    state, gateway = builder.state, builder.gateway
    if state is None or gateway is None:
        raise WorkflowRunStateError("The run was not built completely.")

    async def main() -> OrchestratorResult:
        async with gateway:
            orchestrator = WorkflowRunOrchestrator(state, gateway, settings, on_change, builder, caller)
            return await orchestrator.run(distributor_alive)

    run = _Run(main)
    run.wait(confirm_interrupt)
    return run.result()


class _Run:
    """Runs a coroutine function to completion in its own loop and thread.

    The caller waits for an event, not for the thread: after an interrupted `Thread.join`, the thread counts as ended.
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
        """Wait for completion. A confirmed interrupt stops the run; so does any other exception in the caller."""
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
        """Cancel the run and wait until its attempts have ended; a further interrupt shortens the wait."""
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
            with suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._task.cancel)

    def result(self) -> OrchestratorResult:
        """Return the result of the coroutine, or raise its exception."""
        if self._result is None:
            raise self._error or self._interrupt or WorkflowRunStateError("The run did not complete.")
        if self._interrupt is not None and isinstance(self._result.error, asyncio.CancelledError):
            return replace(self._result, error=self._interrupt)
        return self._result


def _is_meant(confirm_interrupt: Callable[[], bool] | None) -> bool:
    """Ask whether to stop; another interrupt while asking means yes."""
    try:
        return confirm_interrupt is None or confirm_interrupt()
    except KeyboardInterrupt:
        return True
