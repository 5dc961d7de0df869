"""The steps of a run: record, make room, create the run, start the distributor, orchestrate, conclude.

The orchestrator has its own thread and event loop (`swarm.run`), so that it works in a notebook and off the main
thread. The calling thread waits for it and for the user's signals.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobmon.client import garbage, planning, succession, watched
from jobmon.client.binding import Binding
from jobmon.client.clusters import Clusters
from jobmon.client.defaults import checked_flag, checked_seconds
from jobmon.client.displays import Display, SteadyDisplay, configure_logging, default_display
from jobmon.client.expansion import Expansion
from jobmon.client.interrupts import Interrupts, ask_on_terminal, on_terminal
from jobmon.client.progress import Observer, time_text
from jobmon.client.runners import runners_of
from jobmon.client.task import growing
from jobmon.client.workflow_run import WorkflowRun, WorkflowRunFactory
from jobmon.core.changes import Action
from jobmon.core.configuration import JobmonConfig
from jobmon.core.constants import TaskStatus, WorkflowRunStatus, WorkflowStatus
from jobmon.core.descriptors import replace_closed_streams
from jobmon.core.exceptions import (
    DistributorInterruptedError,
    DistributorNotAlive,
    JobmonError,
    WorkflowAlreadyComplete,
    WorkflowAlreadyExists,
    WorkflowNotResumable,
)
from jobmon.core.fsm import ACTIVE_WORKFLOWS
from jobmon.core.paths import user_name
from jobmon.core.wire.run import ActiveRunsResponse, TerminateResponse
from jobmon.core.wire.steering import TASKS_UPDATED_MAX, TaskUpdateRequest, TaskUpdateResponse

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

#: Maximum time for an idle distributor to exit.
DISTRIBUTOR_END_SECONDS: Final = 5.0
#: Maximum time to try to record that a run ended early.
END_SECONDS_MAX: Final = 60.0
#: Maximum time to fetch the newest errors, which are only displayed.
ERRORS_SECONDS_MAX: Final = 10.0
#: Maximum number of attempts to take over a workflow while other clients try the same.
TAKEOVERS_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The arguments of `Workflow.run`, and options that only commands set."""

    fail_fast: bool = False
    seconds_until_timeout: float | None = None  # None: the setting run.timeout
    resume: bool = False
    reset_running_jobs: bool = True
    distributor_startup_timeout: int = 180
    resume_timeout: int = 300
    configure_logging: bool = False
    force_cleanup: bool = False
    keep_resources: bool = True
    #: Whether the process that led the run was killed: unlike a resume, this does not retry what failed permanently.
    is_succession: bool = False
    consent: planning.Consent = field(default_factory=planning.Consent)


# -- recording --------------------------------------------------------------------------------------------------


def bind(workflow: Workflow) -> None:
    """Record a workflow; see `Workflow.bind`."""
    if workflow.is_bound:
        return
    JobmonConfig().check()
    binding = Binding(workflow)
    with garbage.kept():
        response = binding.record_workflow()
    if response.was_started and _active_run_exists(workflow):
        logger.warning(
            "Workflow %d is already running; its tasks are recorded once run(resume=True) has taken it over.",
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
    """Record what is not recorded yet, make room if requested, and create the run."""
    if workflow.is_bound and not workflow.was_started:
        return _create_run(make_factory(_id_of(workflow), workflow.requester), workflow, options)
    binding = Binding(workflow)
    with garbage.kept():
        response = binding.record_workflow(options.consent)
    if response.was_started:
        options = succession.adapted(workflow.requester, response.workflow_id, options)
    _check_may_start(workflow, response, options.resume)
    factory = make_factory(response.workflow_id, workflow.requester)
    if response.was_started and response.status != WorkflowStatus.DONE:
        make_room(factory, options)
    if binding.plan is not None:
        _plan_without_killed(workflow, binding, factory, options)
    with garbage.kept():
        binding.record_tasks()
    if response.was_started and any(isinstance(task, Expansion) for task in workflow.tasks.values()):
        require_functions_here(workflow)
    return _create_run(factory, workflow, options)


def require_functions_here(workflow: Workflow) -> None:
    """Check that the script can call the expansions that were added in earlier runs.

    Raises:
        WorkflowNotResumable: the function of one cannot be found; the message names it.
    """
    from jobmon.client import expanding, functions

    known = {task.name for task in workflow.tasks.values() if isinstance(task, Expansion)}
    expanding.require_functions(workflow.requester, _id_of(workflow), functions.load_here, known)


def _plan_without_killed(
    workflow: Workflow, binding: Binding, factory: WorkflowRunFactory, options: RunOptions
) -> None:
    """Plan a change again now that no other run is active; first terminate attempts that must not finish."""
    plan = binding.plan_again(options.consent)
    killed = [] if plan is None else plan.task_ids(Action.KILL)
    for start in range(0, len(killed), TASKS_UPDATED_MAX):
        request = TaskUpdateRequest(
            task_ids=killed[start : start + TASKS_UPDATED_MAX],
            status=TaskStatus.REGISTERING.value,
            user=user_name(),
            force=True,
        )
        workflow.requester.call(f"/workflows/{workflow.workflow_id}/task_updates", request, TaskUpdateResponse)
    if killed:
        factory.wait_for_workflow_resume(options.resume_timeout, options.force_cleanup)
        binding.plan_again(options.consent)


def _check_may_start(workflow: Workflow, response: WorkflowResponse, resume: bool) -> None:
    if resume or not response.was_started:
        return
    raise already_exists(workflow, response.status)


def already_exists(workflow: Workflow, status: str) -> WorkflowAlreadyExists:
    """Return the error of a second start without `resume`."""
    number, name = workflow.workflow_id, WorkflowStatus(status).name
    if status == WorkflowStatus.FAILED and number is not None:  # a stop or a timeout is stored as such, too
        from jobmon.client import api_calls

        name = api_calls.workflow_summary(workflow.requester, number, counts=False).status_name or name
    resume = "Pass resume=True to resume it"
    if status in ACTIVE_WORKFLOWS:
        resume = f"To follow it: jobmon workflow attach {number}. Pass resume=True to take it over"
    return WorkflowAlreadyExists(
        f"Workflow {number} with workflow_args {workflow.workflow_args!r} was already started (its status is"
        f" {name}). {resume}, or change workflow_args to start a new one."
    )


def make_room(factory: WorkflowRunFactory, options: RunOptions) -> None:
    """Take the workflow over and, unless a killed process is succeeded, reset its tasks.

    Raises:
        WorkflowNotResumable: the timeout expired, or other clients took the workflow over first every time.
    """
    for attempt in range(TAKEOVERS_MAX):
        factory.set_workflow_resume(options.reset_running_jobs, options.resume_timeout, options.force_cleanup)
        if options.is_succession:
            return
        try:
            factory.reset_task_statuses(options.reset_running_jobs, keep_resources=options.keep_resources)
        except WorkflowNotResumable:
            if attempt == TAKEOVERS_MAX - 1:
                raise
        else:
            return


def _create_run(factory: WorkflowRunFactory, workflow: Workflow, options: RunOptions) -> WorkflowRun:
    """Create the run. If a dead client left a run before it was bound, that run makes room at once."""
    try:
        run = factory.create_workflow_run()
    except WorkflowNotResumable as error:
        if not (options.resume or factory.are_active_runs_gone()):
            raise WorkflowAlreadyExists(
                f"Workflow {workflow.workflow_id} with workflow_args {workflow.workflow_args!r} is already running:"
                f" {error} Pass resume=True to run() to take it over."
            ) from error
        make_room(factory, options)
        run = factory.create_workflow_run()
    workflow.was_started = True
    workflow.last_workflow_run_id = run.workflow_run_id
    _add_clusters_of_callables(run, workflow)
    return run


def _add_clusters_of_callables(run: WorkflowRun, workflow: Workflow) -> None:
    """Add the clusters of tasks whose request is not recorded yet: the server does not know where they will run.

    Where the tasks of expansions will run is not known; the default clusters are likely. A server of an earlier version
    names no clusters. Then all are added, so that agents say that it does not know them.
    """
    is_told = bool(run.clusters)
    tasks = workflow.tasks.values()
    later = {task.cluster_name for task in tasks if not is_told or task.compute_resources_callable is not None}
    if any(isinstance(task, Expansion) for task in tasks):
        later.update(_default_clusters(workflow))
    missing = later - {info.name for info in run.clusters}
    clusters = Clusters(workflow.requester)
    run.clusters += [clusters.info(name) for name in sorted(missing)]


def _default_clusters(workflow: Workflow) -> set[str]:
    levels = [workflow, workflow.tool, *workflow.tool_version.task_templates.values()]
    return {level.default_cluster_name for level in levels} - {""}


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
    """Execute a workflow; see `Workflow.run`.

    Args:
        workflow: the workflow.
        options: the options of the run.
        display: creates the display of its progress.
        ask: asks after an interrupt whether to stop; None asks on the terminal if there is one.

    Returns:
        The status of the run.
    """
    options = begin(workflow, options)
    try:
        workflow_run = prepare(workflow, options)
    except WorkflowAlreadyComplete:
        if not may_be_complete(workflow, options):
            raise
        return _nothing_to_do(workflow)
    except succession.Concluded as concluded:
        logger.info("The run of workflow %d has ended already: %s.", workflow.workflow_id, concluded.status.name)
        return concluded.status
    if ask is None and on_terminal():
        ask = ask_on_terminal
    execution = Execution(_subject_of(workflow, options), workflow_run, options, SteadyDisplay(display), ask)
    workflow.last_result = result = execution.carry_out()
    if result.error is not None:
        raise result.error
    return WorkflowRunStatus(result.final_status)


def begin(workflow: Workflow, options: RunOptions) -> RunOptions:
    """Do what precedes the first request of a run; return the options with the timeout that applies.

    Raises:
        SystemExit: the setting `run.plan` requests the plan instead of a run.
        ValueError: an option is invalid.
        WorkflowAlreadyExists: the function of an expansion runs its own workflow.
    """
    if workflow is not None and growing.get() is workflow:
        raise WorkflowAlreadyExists(
            f"Workflow {workflow.workflow_id} is being run: it is what called this function. Return the tasks that the"
            " expansion is to add; they run like all others."
        )
    replace_closed_streams()
    if options.configure_logging:
        configure_logging()
    options = with_timeout(_checked(options))
    if form := planning.form():
        planning.end_with_plan(workflow, form, options.consent)
    return options


def may_be_complete(workflow: Workflow, options: RunOptions) -> bool:
    """Return whether a complete workflow is a result, not an error: by consent, or because this is a restarted script.

    A script that was killed just after its run had ended runs again.
    """
    is_own = workflow.workflow_id is not None and watched.run_before(workflow.workflow_id) is not None
    return options.consent.accepts_changes or is_own


def _nothing_to_do(workflow: Workflow) -> str:
    """Return the status of a complete workflow for which changes were accepted but none is necessary."""
    from jobmon.client.swarm import OrchestratorResult

    count = len(workflow.tasks)
    verb = "task is" if count == 1 else "tasks are"
    logger.info("Nothing to do: all %d %s of workflow %d up to date.", count, verb, workflow.workflow_id)
    statuses = {task.task_id: task.initial_status for task in workflow.tasks.values() if task.task_id is not None}
    skipped = frozenset(task_id for task_id, status in statuses.items() if status == TaskStatus.SKIPPED)
    done = frozenset(statuses) - skipped
    workflow.last_result = OrchestratorResult(
        final_status=WorkflowRunStatus.DONE.value,
        elapsed_time=0.0,
        total_tasks=count,
        done_count=len(done),
        failed_count=0,
        num_previously_complete=len(done),
        task_final_statuses=dict.fromkeys(done, TaskStatus.DONE.value)
        | dict.fromkeys(skipped, TaskStatus.SKIPPED.value),
        done_task_ids=done,
        failed_task_ids=frozenset(),
        skipped_task_ids=skipped,
    )
    return WorkflowRunStatus.DONE


def _checked(options: RunOptions) -> RunOptions:
    """Return the options as plain values.

    Raises:
        ValueError: a flag is neither true nor false, or a number of seconds is negative or not a number.
    """
    flags = ("fail_fast", "resume", "reset_running_jobs", "configure_logging")
    seconds = ("distributor_startup_timeout", "resume_timeout")
    checked = {name: checked_flag(getattr(options, name), name) for name in flags}
    waits = {name: checked_seconds(getattr(options, name), name) for name in seconds}
    return dataclasses.replace(options, **checked, **waits)  # type: ignore[arg-type]


def with_timeout(options: RunOptions) -> RunOptions:
    """Return the options with the timeout that applies: the given one, or the setting run.timeout; None means no limit.

    Raises:
        ValueError: not a finite number of seconds above 0.
        ConfigError: the setting is not a number.
    """
    given = options.seconds_until_timeout
    if given is None:
        setting = JobmonConfig().get_float("run", "timeout") or None
        return dataclasses.replace(options, seconds_until_timeout=setting)
    seconds = checked_seconds(given, "seconds_until_timeout", is_zero_allowed=False)
    return dataclasses.replace(options, seconds_until_timeout=seconds)


class Subject:
    """The workflow that an `Execution` runs.

    Args:
        title: its name for display.
        workflow_id: its ID.
        requester: sends requests to the server.
        orchestrate: `run_workflow` or `resume_workflow_run`, bound to the workflow.
        statuses_before: returns the status of its tasks before the run.
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
        orchestrate=functools.partial(run_workflow, workflow, allow_removal=options.consent.allow_removal),
        statuses_before=statuses,
    )


class Execution:
    """One run from BOUND to its outcome."""

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
        self._runners = runners_of(workflow_run, options.distributor_startup_timeout)
        self._observer = Observer(
            subject.title,
            display,
            self._fetch_errors,
            self._note_progress,
            subject.requester.close,
            fetch_progress=self._fetch_progress,
            workflow_id=subject.workflow_id,
        )
        self._interrupts = Interrupts(self._asking if ask is not None else None)
        self._unrecorded = ""

    def carry_out(self) -> OrchestratorResult:
        """Run, and return a result whatever happens; its `error` is what the user gets to see."""
        result: OrchestratorResult | None = None
        error: BaseException | None = None
        with self._interrupts.handled():
            try:
                self._announce_timeout()
                self._observer.start()
                self._runners.start()
                result = self._orchestrate()
                error, self._unrecorded = result.error, result.unrecorded
            except BaseException as raised:
                error = raised
                self._end_without_orchestrator(raised)
            finally:
                self._let_go(
                    error, is_replaced=result is not None and result.final_status == WorkflowRunStatus.TERMINATED
                )
        whole = result or self._partial_result(error)
        return dataclasses.replace(whole, error=self._told(error), unrecorded=self._unrecorded)

    def _announce_timeout(self) -> None:
        if self._options.seconds_until_timeout is not None:
            limit = time_text(self._options.seconds_until_timeout)
            self._display.note(
                f"Workflow {self._subject.workflow_id} will time out after {limit} (seconds_until_timeout)."
            )

    def _let_go(self, error: BaseException | None, *, is_replaced: bool) -> None:
        """Stop the local processes that run commands, and close the display.

        Args:
            error: what ended the run early; then the distributor is not waited for.
            is_replaced: whether another client has taken over, so that commands may continue for a long time.
        """
        try:
            self._runners.stop(0.0 if error is not None or is_replaced else DISTRIBUTOR_END_SECONDS)
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
            self._runners.alive,
            WorkflowRunStatus.BOUND,
            config,
            self._options.seconds_until_timeout,
            self._subject.requester,
            on_change=self._observer.on_change,
            confirm_interrupt=self._interrupts.confirm,
            serve=self._runners.serve,
        )

    def _end_without_orchestrator(self, error: BaseException) -> None:
        """Record how the run ended if the orchestrator could not do so."""
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
            self._unrecorded = "the server had not responded before the second interrupt"

    def _told(self, error: BaseException | None) -> BaseException | None:
        """Return the error to raise to the user."""
        if isinstance(error, KeyboardInterrupt):
            return DistributorInterruptedError(self._about_stop())
        if isinstance(error, DistributorNotAlive) and self._runners.failure is not None:
            return self._runners.failure
        return error

    def _about_stop(self) -> str:
        text = f"Workflow {self._subject.workflow_id} was stopped by the user"
        if not self._unrecorded:
            return f"{text}; run(resume=True) resumes it."
        pid = self._runners.pid
        who = "" if pid is None else f" (process {pid})"
        return (
            f"{text}, but this could not be recorded: {self._unrecorded.rstrip('.')}. Running commands continue; the"
            f" distributor{who} monitors them and launches nothing new. Once the server responds again,"
            " run(resume=True) resumes the workflow."
        )

    def _partial_result(self, error: BaseException | None) -> OrchestratorResult:
        """Return what is known about a run whose orchestrator returned no result."""
        from jobmon.client.swarm import OrchestratorResult

        statuses = self._subject.statuses_before()
        if (state := self._observer.state) is not None:
            statuses |= {task_id: task.status.value for task_id, task in list(state.tasks.items())}
        done = frozenset(task_id for task_id, status in statuses.items() if status == TaskStatus.DONE)
        failed = frozenset(task_id for task_id, status in statuses.items() if status == TaskStatus.ERROR_FATAL)
        skipped = frozenset(task_id for task_id, status in statuses.items() if status == TaskStatus.SKIPPED)
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
            skipped_task_ids=skipped,
        )

    def _note_progress(self) -> None:
        self._runners.note_progress()
        watched.note_progress()

    def _fetch_errors(self, limit: int) -> list[TaskError]:
        from jobmon.client import api_calls

        requester = self._subject.requester.within(ERRORS_SECONDS_MAX)
        return api_calls.permanent_failures(requester, self._subject.workflow_id, limit)

    def _fetch_progress(self) -> ProgressResponse:
        from jobmon.core.wire.monitoring import ProgressResponse

        route = f"/workflows/{self._subject.workflow_id}/progress"
        return self._subject.requester.call(route, None, ProgressResponse, "get", tenacious=False)

    def _asking(self) -> bool:
        """Ask the user, with the display paused."""
        assert self._ask is not None
        self._display.pause()
        try:
            return self._ask()
        finally:
            self._display.resume()
