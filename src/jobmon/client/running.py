"""In which order a run comes about: record, make room, create the run, start the distributor, orchestrate, conclude.

The orchestrator has a thread and an event loop of its own (`swarm.run`), so that this works in a notebook and off the
main thread; the calling thread waits for it and for the user's signals.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.client import garbage
from jobmon.client.binding import Binding
from jobmon.client.interrupts import Interrupts, ask_on_terminal, on_terminal
from jobmon.client.launching import DistributorProcess
from jobmon.client.progress import Display, Observer, configure_logging, default_display
from jobmon.client.workflow_run import WorkflowRun, WorkflowRunFactory
from jobmon.core.constants import TaskStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import (
    DistributorInterruptedError,
    DistributorNotAlive,
    JobmonError,
    WorkflowAlreadyExists,
    WorkflowNotResumable,
)
from jobmon.core.wire.run import ActiveRunsResponse, TerminateResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobmon.client.interrupts import Ask
    from jobmon.client.swarm.orchestrator import OrchestratorResult
    from jobmon.client.workflow import Workflow
    from jobmon.core.requester import Requester
    from jobmon.core.wire.binding import WorkflowResponse
    from jobmon.core.wire.monitoring import ProgressResponse
    from jobmon.core.wire.swarm import TaskError

logger = logging.getLogger(__name__)

#: How long a distributor with nothing left to do may take to end.
DISTRIBUTOR_END_SECONDS: Final = 5.0
#: How long the server is tried to be told that a run ended early.
END_SECONDS_MAX: Final = 60.0
#: How long the newest errors, which are only shown, are asked for.
ERRORS_SECONDS_MAX: Final = 10.0
#: How often one tries again to take over when other clients do so at the same time.
TAKEOVERS_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What `Workflow.run` was called with, and what only commands say."""

    fail_fast: bool = False
    seconds_until_timeout: int = 36000
    resume: bool = False
    reset_running_jobs: bool = True
    distributor_startup_timeout: int = 180
    resume_timeout: int = 300
    configure_logging: bool = False
    force_cleanup: bool = False
    keep_resources: bool = True


# -- recording --------------------------------------------------------------------------------------------------


def bind(workflow: Workflow) -> None:
    """Record a workflow; see `Workflow.bind`."""
    if workflow.is_bound:
        return
    binding = Binding(workflow)
    with garbage.kept():
        response = binding.record_workflow()
    if response.was_started and _active_run_exists(workflow):
        logger.warning(
            "Workflow %d is being run already; its tasks are recorded when run(resume=True) has taken it over.",
            response.workflow_id,
        )
        return
    with garbage.kept():
        binding.record_tasks()
    workflow.was_started = response.was_started


def _active_run_exists(workflow: Workflow) -> bool:
    route = f"/workflows/{workflow.workflow_id}/active_runs"
    return bool(workflow.requester.call(route, None, ActiveRunsResponse, "get").runs)


def prepare(
    workflow: Workflow,
    options: RunOptions,
    make_factory: Callable[[int, Requester], WorkflowRunFactory] = WorkflowRunFactory,
) -> WorkflowRun:
    """Record what is not recorded, make room where asked to, and create the run."""
    if workflow.is_bound and not workflow.was_started:
        return _create_run(make_factory(_id_of(workflow), workflow.requester), workflow, options)
    binding = Binding(workflow)
    with garbage.kept():
        response = binding.record_workflow()
    _check_may_start(workflow, response, options.resume)
    factory = make_factory(response.workflow_id, workflow.requester)
    if response.was_started:
        make_room(factory, options)
    with garbage.kept():
        binding.record_tasks()
    return _create_run(factory, workflow, options)


def _check_may_start(workflow: Workflow, response: WorkflowResponse, resume: bool) -> None:
    if resume or not response.was_started:
        return
    raise already_exists(workflow, response.status)


def already_exists(workflow: Workflow, status: str) -> WorkflowAlreadyExists:
    """Return the error of a second start without `resume`."""
    return WorkflowAlreadyExists(
        f"Workflow {workflow.workflow_id} with workflow_args {workflow.workflow_args!r} was started before (its status"
        f" is {WorkflowStatus(status).name}). Pass resume=True to run() to continue it, or"
        " change workflow_args to start another."
    )


def make_room(factory: WorkflowRunFactory, options: RunOptions) -> None:
    """Take the workflow over and bring its tasks back to the start.

    Raises:
        WorkflowNotResumable: that took too long, or other clients were faster again and again.
    """
    for attempt in range(TAKEOVERS_MAX):
        factory.set_workflow_resume(options.reset_running_jobs, options.resume_timeout, options.force_cleanup)
        try:
            factory.reset_task_statuses(options.reset_running_jobs, keep_resources=options.keep_resources)
        except WorkflowNotResumable:
            if attempt == TAKEOVERS_MAX - 1:
                raise
        else:
            return


def _create_run(factory: WorkflowRunFactory, workflow: Workflow, options: RunOptions) -> WorkflowRun:
    """Create the run. A run that its dead client left before it was bound makes room at once."""
    try:
        run = factory.create_workflow_run()
    except WorkflowNotResumable as error:
        if not (options.resume or factory.are_active_runs_gone()):
            raise WorkflowAlreadyExists(
                f"Workflow {workflow.workflow_id} with workflow_args {workflow.workflow_args!r} is being run already:"
                f" {error} Pass resume=True to run() to take it over."
            ) from error
        make_room(factory, options)
        run = factory.create_workflow_run()
    workflow.was_started = True
    workflow.last_workflow_run_id = run.workflow_run_id
    return run


def _id_of(workflow: Workflow) -> int:
    assert workflow.workflow_id is not None, "a recorded workflow has an id"
    return workflow.workflow_id


# -- running ----------------------------------------------------------------------------------------------------


def run(
    workflow: Workflow,
    options: RunOptions,
    *,
    display: Callable[[], Display] = default_display,
    ask: Ask | None = None,
) -> str:
    """Carry a workflow out; see `Workflow.run`.

    Args:
        workflow: which.
        options: how.
        display: makes the display of its progress.
        ask: asks whether to stop after an interrupt; by default on the terminal, if there is one.
    """
    if options.configure_logging:
        configure_logging()
    workflow_run = prepare(workflow, options)
    if ask is None and on_terminal():
        ask = ask_on_terminal
    execution = Execution(_subject_of(workflow, options), workflow_run, options, display(), ask)
    workflow.last_result = result = execution.carry_out()
    if result.error is not None:
        raise result.error
    return WorkflowRunStatus(result.final_status)


class Subject:
    """What is run.

    Args:
        title: its name for people.
        workflow_id: its id.
        requester: sends the requests.
        orchestrate: `run_workflow` or `resume_workflow_run`, with the workflow given.
        statuses_before: says how its tasks stood before.
    """

    def __init__(
        self,
        *,
        title: str,
        workflow_id: int,
        requester: Requester,
        orchestrate: Callable[..., OrchestratorResult],
        statuses_before: Callable[[], dict[int, str]],
    ) -> None:
        self.title = title
        self.workflow_id = workflow_id
        self.requester = requester
        self.orchestrate = orchestrate
        self.statuses_before = statuses_before


def _subject_of(workflow: Workflow, options: RunOptions) -> Subject:
    from jobmon.client.swarm import run_workflow

    def statuses() -> dict[int, str]:
        return {task.task_id: str(task.initial_status) for task in workflow.tasks.values() if task.task_id is not None}

    return Subject(
        title=f"{workflow.name or workflow.tool.name} (workflow {workflow.workflow_id})",
        workflow_id=_id_of(workflow),
        requester=workflow.requester,
        orchestrate=functools.partial(run_workflow, workflow),
        statuses_before=statuses,
    )


class Execution:
    """One run from BOUND to its end."""

    def __init__(
        self,
        subject: Subject,
        workflow_run: WorkflowRun,
        options: RunOptions,
        display: Display,
        ask: Ask | None,
    ) -> None:
        self._subject = subject
        self._run = workflow_run
        self._options = options
        self._display = display
        self._ask = ask
        self._distributor = DistributorProcess(workflow_run.workflow_run_id, options.distributor_startup_timeout)
        self._observer = Observer(
            subject.title,
            display,
            self._fetch_errors,
            self._distributor.note_progress,
            subject.requester.close,
            fetch_progress=self._fetch_progress,
            workflow_id=subject.workflow_id,
        )
        self._interrupts = Interrupts(self._asking if ask is not None else None)
        self._unrecorded = ""

    def carry_out(self) -> OrchestratorResult:
        """Run, and return the result whatever happens; `error` is what the user is told."""
        result: OrchestratorResult | None = None
        error: BaseException | None = None
        with self._interrupts.handled():
            try:
                self._observer.start()
                self._distributor.start()
                result = self._orchestrate()
                error, self._unrecorded = result.error, result.unrecorded
            except BaseException as raised:
                error = raised
                self._end_without_orchestrator(raised)
            finally:
                self._let_go(error)
        whole = result or self._partial_result(error)
        return dataclasses.replace(whole, error=self._told(error), unrecorded=self._unrecorded)

    def _let_go(self, error: BaseException | None) -> None:
        """Let go of distributor and display; of a run that was stopped nothing is waited for any more when told so."""
        try:
            self._distributor.stop(0.0 if error is not None else DISTRIBUTOR_END_SECONDS)
            self._observer.finish(is_server_silent=bool(self._unrecorded))
            self._subject.requester.close()
        except KeyboardInterrupt:
            if not isinstance(error, KeyboardInterrupt):
                raise

    def _orchestrate(self) -> OrchestratorResult:
        from jobmon.client.swarm import WorkflowRunConfig

        config = dataclasses.replace(WorkflowRunConfig.from_defaults(), fail_fast=self._options.fail_fast)
        return self._subject.orchestrate(
            self._run.workflow_run_id,
            self._distributor.alive,
            WorkflowRunStatus.BOUND,
            config,
            self._options.seconds_until_timeout,
            self._subject.requester,
            on_change=self._observer.on_change,
            confirm_interrupt=self._interrupts.confirm,
        )

    def _end_without_orchestrator(self, error: BaseException) -> None:
        """Tell the server how the run ended where the orchestrator did not come to do so."""
        is_stopped = isinstance(error, KeyboardInterrupt)
        seconds = self._interrupts.record_seconds_max if is_stopped else END_SECONDS_MAX
        route = f"/workflow_runs/{self._run.workflow_run_id}/terminate_task_instances"
        try:
            failure = self._run.end(WorkflowRunStatus.STOPPED if is_stopped else WorkflowRunStatus.ERROR, seconds)
            self._unrecorded = "" if failure is None else str(failure)
            if is_stopped and failure is None:
                with suppress(JobmonError):
                    self._subject.requester.within(seconds).call(route, {}, TerminateResponse)
        except KeyboardInterrupt:
            self._unrecorded = "the server had not answered when it was interrupted again"

    def _told(self, error: BaseException | None) -> BaseException | None:
        """Return an error as the user is told of it."""
        if isinstance(error, KeyboardInterrupt):
            return DistributorInterruptedError(self._about_stop())
        if isinstance(error, DistributorNotAlive) and self._distributor.failure is not None:
            return self._distributor.failure
        return error

    def _about_stop(self) -> str:
        text = f"Workflow {self._subject.workflow_id} was stopped by the user"
        if not self._unrecorded:
            return f"{text}; run(resume=True) continues it."
        pid = self._distributor.pid
        who = "" if pid is None else f" (process {pid})"
        return (
            f"{text}, but this could not be recorded: {self._unrecorded.rstrip('.')}. What runs goes on; its"
            f" distributor{who} sees to it and launches nothing new. When the server answers again,"
            " run(resume=True) continues the workflow."
        )

    def _partial_result(self, error: BaseException | None) -> OrchestratorResult:
        """Return what is known of a run whose orchestrator came to no result."""
        from jobmon.client.swarm import OrchestratorResult

        statuses = self._subject.statuses_before()
        if (state := self._observer.state) is not None:
            statuses |= {task_id: task.status.value for task_id, task in list(state.tasks.items())}
        done = frozenset(task_id for task_id, status in statuses.items() if status == TaskStatus.DONE)
        failed = frozenset(task_id for task_id, status in statuses.items() if status == TaskStatus.ERROR_FATAL)
        stopped = isinstance(error, KeyboardInterrupt)
        return OrchestratorResult(
            final_status=(WorkflowRunStatus.STOPPED if stopped else WorkflowRunStatus.ERROR).value,
            elapsed_time=self._observer.snapshot().elapsed_seconds,
            total_tasks=len(statuses),
            done_count=len(done),
            failed_count=len(failed),
            num_previously_complete=self._observer.snapshot().done_before,
            task_final_statuses=statuses,
            done_task_ids=done,
            failed_task_ids=failed,
        )

    def _fetch_errors(self, limit: int) -> list[TaskError]:
        from jobmon.client import records

        requester = self._subject.requester.within(ERRORS_SECONDS_MAX)
        return records.workflow_errors(requester, self._subject.workflow_id, limit)

    def _fetch_progress(self) -> ProgressResponse:
        from jobmon.core.wire.monitoring import ProgressResponse

        route = f"/workflows/{self._subject.workflow_id}/progress"
        return self._subject.requester.call(route, None, ProgressResponse, "get", tenacious=False)

    def _asking(self) -> bool:
        """Ask, with the display out of the way."""
        assert self._ask is not None
        self._display.pause()
        try:
            return self._ask()
        finally:
            self._display.resume()
