"""A workflow: tasks and their dependencies, recorded by `bind()` and executed by `run()`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jobmon.client import watched
from jobmon.client.array import Array, duplicate
from jobmon.client.defaults import (
    HasToolDefaults,
    checked_chunk_size,
    checked_error_limit,
    checked_flag,
    checked_limit,
    checked_priority,
    name_hint,
    whole,
)
from jobmon.client.task import Task, checked_attributes
from jobmon.client.values import stable_text
from jobmon.client.workflow_steering import SteersTasks
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING
from jobmon.core.exceptions import InvalidResources
from jobmon.core.texts import checked_text, number_of

if TYPE_CHECKING:
    from jobmon.client.binding import Hashes
    from jobmon.client.expansion import ExpandingFunction, Expansion
    from jobmon.client.plan import Plan
    from jobmon.client.run_handle import RunHandle
    from jobmon.client.running import RunOptions
    from jobmon.client.swarm.orchestrator import OrchestratorResult
    from jobmon.client.task_options import Settled
    from jobmon.client.task_template import TaskTemplate
    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.client.tool import Tool
    from jobmon.client.tool_version import ToolVersion
    from jobmon.core.requester import Requester

logger = logging.getLogger(__name__)

#: Maximum number of tasks whose errors `Workflow.task_errors` returns.
TASK_ERRORS_MAX: Final = 1_000


def __getattr__(name: str) -> Any:
    """Import `DistributorContext` on first use, because few scripts need it."""
    if name == "DistributorContext":
        from jobmon.client.runners import DistributorContext

        return DistributorContext
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _checked_words(what: str, value: object) -> str:
    return checked_text(what, stable_text(value or "", lambda: what))


class Workflow(SteersTasks, HasToolDefaults):
    """The tasks of a tool and their dependencies, identified by `workflow_args`. Created by `Tool.create_workflow`."""

    level: ClassVar[str] = "its workflow"

    def __init__(
        self,
        tool_version: ToolVersion,
        workflow_args: str = "",
        name: str = "",
        description: str = "",
        workflow_attributes: Iterable[str] | Mapping[str, Any] | None = None,
        max_concurrently_running: int = MAX_CONCURRENTLY_RUNNING,
        chunk_size: int = 500,
        default_cluster_name: str = "",
        default_compute_resources_set: Mapping[str, Mapping[str, Any]] | None = None,
        default_resource_scales_set: Mapping[str, Mapping[str, Any]] | None = None,
        default_max_attempts: int | None = None,
        priority: int = 0,
    ) -> None:
        super().__init__(
            default_cluster_name, default_compute_resources_set, default_resource_scales_set, default_max_attempts
        )
        self.tool_version = tool_version
        text = "" if workflow_args is None else stable_text(workflow_args, lambda: "workflow_args")
        self.workflow_args = checked_text("workflow_args", text)
        if not self.workflow_args:
            self.workflow_args = watched.random_args()
            logger.info("workflow_args is empty: this workflow gets a random value, %r.", self.workflow_args)
        self.name = _checked_words("The name of a workflow", name)
        self.description = _checked_words("The description of a workflow", description)
        self.workflow_attributes = checked_attributes(workflow_attributes, "workflow_attributes")
        self.max_concurrently_running = checked_limit(max_concurrently_running)
        self._priority = checked_priority(priority)
        self.chunk_size = checked_chunk_size(chunk_size)
        self.tasks: dict[int, Task] = {}
        self.arrays: dict[str, Array] = {}
        self.workflow_id: int | None = None
        self.dag_id: int | None = None
        self.is_bound = False
        #: The hashes of the definition, once they were computed.
        self.hashes: Hashes | None = None
        #: Whether any run of the workflow reached BOUND, as far as this process knows.
        self.was_started = False
        self.last_workflow_run_id: int | None = None
        #: Result of the last `run()`; set before `run()` returns or raises.
        self.last_result: OrchestratorResult | None = None
        #: Options of tasks merged with all defaults, cached once the workflow is recorded; see `Task`.
        self.settled: dict[tuple[int, int], Settled] = {}
        #: Keys of the warnings that were already logged.
        self.warned: set[str] = set()
        self._array_limits: dict[str, int] = {}

    @property
    def tool(self) -> Tool:
        """The tool that owns the workflow."""
        return self.tool_version.tool

    @property
    def requester(self) -> Requester:
        """The object that sends requests to the server."""
        return self.tool.requester

    # -- tasks --------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """Name the workflow by its ID and name, and count its tasks."""
        number = "not recorded" if self.workflow_id is None else f"{self.workflow_id}"
        return f"<Workflow {number} {self.name or self.tool.name!r}: {number_of(len(self.tasks), 'task')}>"

    def add_task(self, task: Task) -> Task:
        """Add a task and return it.

        Args:
            task: a task that does not belong to a workflow yet.

        Returns:
            The same task.

        Raises:
            DuplicateNodeArgsError: another task of its template has the same node args.
            ValueError: `task` is not a task, already belongs to a workflow, or was created from another version of its
                template than the workflow's other tasks; or this workflow is already recorded.
        """
        if not isinstance(task, Task):
            raise ValueError(f"A workflow takes tasks, not {task!r}.")
        if self.is_bound:
            raise ValueError(
                "This workflow is already recorded; no more tasks can be added. An expansion returns the tasks to add."
            )
        if task.array is not None:
            raise ValueError(
                f"Task {task.name!r} is already in {'this' if task.workflow is self else 'another'} workflow."
            )
        array = self._array(task.template_version)
        key = hash(task)
        if key in self.tasks:
            raise duplicate(task)
        array.add_task(task)
        self.tasks[key] = task
        return task

    def add_tasks(self, tasks: Iterable[Task]) -> None:
        """Add several tasks; see `add_task`.

        Args:
            tasks: tasks that do not belong to a workflow yet.

        Raises:
            DuplicateNodeArgsError, ValueError: as for `add_task`; the tasks before the invalid one have been added.
        """
        for task in tasks:
            self.add_task(task)

    def expand(
        self,
        function: ExpandingFunction,
        after: Iterable[Task] = (),
        name: str = "",
        version: str = "",
        max_attempts: int = 1,
    ) -> Expansion:
        """Add an expansion: a function that adds tasks while the workflow runs, once other tasks are done.

        Args:
            function: called with one argument, the context: `context.upstreams`, `.workflow`, `.tool`, `.expand()` and
                `.skip()`. It returns the tasks to add, or None. It is called in the process that leads the run, and
                again if that process dies before the result is recorded, so it must be idempotent.
            after: tasks and expansions that must be done before.
            name: identifies the expansion within the workflow; "" means the name of the function.
            version: change it if the function changed, so that a resume calls it again.
            max_attempts: maximum number of calls in one run if the function raises an exception.

        Returns:
            The expansion; tasks that depend on it (`upstream_tasks=[expansion]`) also wait for all tasks that it added.

        Raises:
            DuplicateNodeArgsError: the workflow has another expansion of this name.
            ValueError: a value is invalid, or the workflow is already recorded.
        """
        from jobmon.client.expansion import Expansion

        expansion = Expansion(self.tool_version, function, after, name, version, max_attempts)
        self.add_task(expansion)
        return expansion

    def _array(self, version: TaskTemplateVersion) -> Array:
        array = self.arrays.get(version.name)
        if array is None:
            array = self.arrays[version.name] = Array(version, self)
            if version.name in self._array_limits:
                array.max_concurrently_running = self._array_limits[version.name]
        elif array.template_version is not version and array.template_version.digest != version.digest:
            raise ValueError(
                f"A workflow cannot contain tasks of two versions of template {version.name!r}:"
                f" {array.template_version.command_template!r} and {version.command_template!r}. Rename one of them."
            )
        return array

    def get_tasks_by_node_args(self, task_template_name: str, **kwargs: Any) -> list[Task]:
        """Return the tasks of a template that have the given node args.

        Args:
            task_template_name: name of the template.
            kwargs: a value or a list of values for each node arg, by name. Values are compared as text; 2.0 matches 2.

        Returns:
            The matching tasks, in the order in which they were added. Without `kwargs`, all tasks of the template.

        Raises:
            ValueError: the workflow has no task of this template, or the template has no such node arg.
        """
        if task_template_name not in self.arrays:
            raise ValueError(
                f"No task of template {task_template_name!r} is in the workflow"
                f"{name_hint(task_template_name, self.arrays)}"
            )
        array = self.arrays[task_template_name]
        names = array.template_version.arguments.node_args
        unknown = sorted(set(kwargs) - set(names))
        if unknown:
            raise ValueError(
                f"Template {task_template_name!r} has no node arg {unknown[0]!r}{name_hint(unknown[0], names)}"
            )
        wanted = [(names.index(name), _texts(value)) for name, value in kwargs.items()]
        return [task for task in array.tasks if all(task.values[place] in texts for place, texts in wanted)]

    def add_attributes(self, workflow_attributes: Mapping[str, Any] | Iterable[str]) -> None:
        """Add attributes. They are searchable and never passed to commands.

        Args:
            workflow_attributes: names, or names and values. The value of an existing name is replaced.

        Raises:
            ValueError: a name or value cannot be recorded.
        """
        self.workflow_attributes.update(checked_attributes(workflow_attributes, "workflow_attributes"))

    def set_task_template_max_concurrency_limit(self, task_template_name: str, limit: int) -> None:
        """Limit how many tasks of a template are queued or running at once, also while the workflow is running.

        Args:
            task_template_name: name of a template. Before `bind()`, its tasks may be added later.
            limit: maximum number of tasks; 0 pauses the template. Running tasks are never stopped.

        Raises:
            ValueError: the limit is not an integer of at least 0, or the recorded workflow has no task of this
                template.
        """
        limit = self._array_limits[task_template_name] = checked_limit(limit, "limit")
        if task_template_name in self.arrays:
            self.arrays[task_template_name].max_concurrently_running = limit
        if self.is_bound and self.workflow_id is not None:
            from jobmon.client import api_calls

            self.check_limits()
            name = self.arrays[task_template_name].name
            api_calls.set_array_limit(self.requester, self.workflow_id, name, limit)

    def check_limits(self) -> None:
        """Check that the workflow has tasks of every template for which a limit is set.

        Raises:
            ValueError: it has no task of one of these templates; the message suggests the nearest name.
        """
        for name in self._array_limits:
            if name not in self.arrays:
                raise ValueError(
                    f"A concurrency limit is set for template {name!r}, but the workflow has no tasks of that template"
                    f"{name_hint(name, self.arrays)}"
                )

    # -- recording and running ----------------------------------------------------------------------------------

    def bind(self) -> None:
        """Record the workflow on the server without running it. A second call changes nothing.

        If a run of the workflow is still alive, only the IDs are looked up; its tasks are updated once
        `run(resume=True)` has taken the workflow over.

        Raises:
            WorkflowAlreadyComplete: the workflow is already done.
            WorkflowChanged: the workflow is recorded with a different definition.
            JobmonError: the dependencies or resources are invalid; nothing has been recorded.
        """
        from jobmon.client import running

        running.bind(self)

    def validate(self, strict: bool = True, raise_on_error: bool = False) -> list[str]:
        """Check dependencies, clusters, queues and resources without recording the workflow.

        Args:
            strict: also report requests outside the limits of their queue, which a run would adjust to the limits.
            raise_on_error: raise InvalidResources for such requests instead of logging and returning them.

        Returns:
            One sentence for each request outside the limits of its queue; an empty list if `strict` is False.

        Raises:
            InvalidResources: `raise_on_error` is set and a request is outside the limits of its queue.
            JobmonError: the workflow cannot run as defined; the message says why.
        """
        from jobmon.client.binding import Binding

        found = Binding(self).check()
        if not self.is_bound:
            for task in self.tasks.values():
                task.task_resources = None
        if not strict:
            return []
        if found and raise_on_error:
            raise InvalidResources("; ".join(found))
        for sentence in found:
            logger.warning("Outside the limits of its queue. %s", sentence)
        return found

    def plan(
        self,
        on_change: str | Mapping[str, str] = "rerun",
        allow_removal: bool = False,
        check_files: str | None = None,
    ) -> Plan:
        """Return what a run would do with each task, and why.

        Planning changes nothing, also while the workflow is running.

        Args:
            on_change: what to do with a task whose recorded command, task args or upstream tasks differ: "rerun" (the
                task and everything downstream), "rerun-only" (only the task), "keep" (its result counts), or "error"
                (as "rerun", and `needs` of the plan reports it). Or a mode for each template: {template name or "*":
                mode}.
            allow_removal: accept that this definition lacks recorded tasks.
            check_files: which declared files to look for, as for `run`. None means the setting `run.check_files`.

        Returns:
            The plan, with the tasks to run and the reasons.

        Raises:
            ValueError: there is no such mode or template.
            JobmonError: the dependencies are invalid.
        """
        from jobmon.client import planning

        may_remove = checked_flag(allow_removal, "allow_removal")
        consent = planning.Consent(on_change, may_remove, planning.checked_files(check_files))
        return planning.plan_workflow(self, consent)

    def run(
        self,
        fail_fast: bool = False,
        seconds_until_timeout: float | None = None,
        resume: bool = False,
        reset_running_jobs: bool = True,
        distributor_startup_timeout: int = 180,
        resume_timeout: int = 300,
        configure_logging: bool = False,
        on_change: str | Mapping[str, str] | None = None,
        allow_removal: bool | None = None,
        check_files: str | None = None,
    ) -> str:
        """Record the workflow if necessary, run it, and return the status of the run.

        Args:
            fail_fast: launch no more tasks after the first permanent failure.
            seconds_until_timeout: raise RuntimeError after this many seconds; tasks that were already submitted finish.
                None means the setting `run.timeout`, which is no limit by default.
            resume: continue a workflow that was started before.
            reset_running_jobs: on resume, terminate and rerun running tasks; False adopts them and lets them finish.
            distributor_startup_timeout: maximum time for the distributor to start, in seconds.
            resume_timeout: maximum time to wait for an earlier run to end, in seconds.
            configure_logging: send Jobmon's log to standard error.
            on_change: on resume, what to do with tasks whose recorded command, task args or upstream tasks differ:
                "error" refuses to start, "rerun" reruns them and everything downstream, "rerun-only" reruns only them,
                and "keep" keeps their results. Or a mode for each template: {template name or "*": mode}. None means
                the setting `run.on_change`.
            allow_removal: on resume, accept that this definition lacks recorded tasks. They become REMOVED; their
                record and files are kept. None means the setting `run.allow_removal`.
            check_files: on resume, which declared files to look for: "none"; "outputs" reruns done tasks with a missing
                output that no task reads, or that a task reads that will run; "all" also reruns done tasks with an
                input that no task writes and whose size or time of modification has changed. None means the setting
                `run.check_files`.

        Returns:
            A `WorkflowRunStatus`: DONE ("D"), ERROR ("E") if tasks failed permanently, STOPPED ("S") if another process
            stopped the run, or TERMINATED ("T") if another client resumed the workflow. `last_result` has the details.

        Raises:
            WorkflowAlreadyComplete, WorkflowAlreadyExists, WorkflowNotResumable: the workflow cannot be started.
            WorkflowChanged: it is recorded with a different definition; `plan` of the error says what would run.
            WorkflowVersionConflict: another user or process changed the workflow in the meantime.
            ValueError: `on_change`, `allow_removal` or `check_files` is given without `resume`, or an argument is
                invalid.
            SystemExit: the setting `run.plan` requests the plan instead of a run.
            RuntimeError: the run timed out.
            DistributorInterruptedError: the user stopped the run with Ctrl-C or SIGTERM.
            DistributorStartupTimeout, DistributorNotAlive: the distributor did not start, or crashed repeatedly.
        """
        options = self._run_options(locals())
        from jobmon.client import running

        return running.run(self, options)

    def start(
        self,
        fail_fast: bool = False,
        seconds_until_timeout: float | None = None,
        resume: bool = False,
        reset_running_jobs: bool = True,
        distributor_startup_timeout: int = 180,
        resume_timeout: int = 300,
        configure_logging: bool = False,
        on_change: str | Mapping[str, str] | None = None,
        allow_removal: bool | None = None,
        check_files: str | None = None,
    ) -> RunHandle:
        """Record the workflow if necessary and start a run that continues without this process.

        A separate process on this host leads the run, from the record. It is not affected if the terminal is closed or
        this process exits, and it is restarted if it is killed. `jobmon workflow attach` shows its progress.

        Args:
            fail_fast: launch no more tasks after the first permanent failure.
            seconds_until_timeout: end the run after this many seconds; tasks that were already submitted finish. None
                means the setting `run.timeout`, which is no limit by default.
            resume: continue a workflow that was started before.
            reset_running_jobs: on resume, terminate and rerun running tasks; False adopts them and lets them finish.
            distributor_startup_timeout: maximum time for the distributor to start, in seconds.
            resume_timeout: maximum time to wait for an earlier run to end, in seconds.
            configure_logging: send Jobmon's log to standard error, and to the log of the run.
            on_change: on resume, what to do with changed tasks; see `run`.
            allow_removal: on resume, accept that this definition lacks recorded tasks; see `run`.
            check_files: on resume, which declared files decide what is rerun; see `run`.

        Returns:
            A handle to ask for the status of the run, wait for it and stop it.

        Raises:
            InvalidResources: a task needs a Python function, which exists only in this process; nothing was recorded.
            WorkflowRunStateError: the process that was to lead the run did not start; the message shows its log.
            SystemExit: the setting `run.plan` requests the plan instead of a run.
            WorkflowAlreadyComplete, WorkflowAlreadyExists, WorkflowNotResumable, WorkflowChanged,
            WorkflowVersionConflict, ValueError: as for `run`.
        """
        options = self._run_options(locals())
        from jobmon.client import detached

        return detached.start(self, options)

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the workflow has no active run any more, whichever process leads it.

        Args:
            timeout: maximum time, in seconds; None means no limit.

        Returns:
            The status of the newest run, as `run` returns it. ERROR ("E") also means that the process that led the run
            died and no other one has taken over.

        Raises:
            TimeoutError: the timeout expired; the run continues.
            RuntimeError: the run timed out (`seconds_until_timeout`).
            WorkflowRunStateError: no run of the workflow was started.
            ValueError: the workflow is not recorded, or the timeout is not a number of seconds.
        """
        from jobmon.client import waiting

        return waiting.wait_for_workflow(self, timeout)

    def _run_options(self, given: Mapping[str, Any]) -> RunOptions:
        """Check the arguments of `run` and `start`, which have the same; `given` also contains the workflow."""
        from jobmon.client import planning, running

        consent = {name: given[name] for name in ("on_change", "allow_removal", "check_files")}
        options = {name: value for name, value in given.items() if name not in consent and value is not self}
        return running.RunOptions(consent=planning.consent_of_run(self, consent, resume=options["resume"]), **options)

    # -- results ------------------------------------------------------------------------------------------------

    def get_errors(self, limit: int = 1000) -> dict[int, dict[str, Any]]:
        """Return the failed attempts of the workflow's tasks, including those of tasks that recovered.

        Args:
            limit: maximum number of tasks; those that failed last are returned.

        Returns:
            What `Task.get_errors` returns, by task ID; the task that failed last comes first. Empty before the workflow
            is recorded.

        Raises:
            ValueError: the limit is not an integer from 1 to 10,000.
        """
        from jobmon.client import api_calls

        tasks = checked_error_limit(limit)
        if self.workflow_id is None:
            return {}
        return api_calls.error_logs(api_calls.workflow_errors(self.requester, self.workflow_id, tasks))

    @property
    def task_errors(self) -> dict[str, list[dict[str, Any]]]:
        """The failed attempts of tasks that failed permanently, newest first, by task name.

        Limited to the 1,000 tasks that failed last. The entries are those of `get_errors`.
        """
        from jobmon.client import api_calls

        by_name: dict[str, list[dict[str, Any]]] = {}
        if self.workflow_id is not None:
            found = api_calls.workflow_errors(self.requester, self.workflow_id, TASK_ERRORS_MAX, permanent=True)
            for log in api_calls.error_logs(found).values():
                by_name.setdefault(log["error_log"][0]["task_name"], []).extend(log["error_log"])
        return by_name

    def resource_usage(self, ci: float | None = None) -> dict[str, dict[str, Any]]:
        """Return the resource usage of the workflow's done tasks, by template name.

        Args:
            ci: level of the confidence intervals, such as 0.95; None omits them.

        Returns:
            What `TaskTemplate.resource_usage` returns for each template: memory in bytes, time in seconds.
        """
        from jobmon.client import api_calls

        return api_calls.workflow_usage(self, ci)

    # -- defaults -----------------------------------------------------------------------------------------------

    @property
    def _defaults_owner(self) -> str:
        return self.tool.name

    @property
    def _defaults_templates(self) -> Iterable[TaskTemplate]:
        return self.tool_version.task_templates.values()


def _texts(value: Any) -> frozenset[str]:
    """Return the texts as which one or several values may be recorded: 2 and 2.0 are the same value."""
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return frozenset(text for each in (value if is_list else [value]) for text in _texts_of(each))


def _texts_of(value: Any) -> tuple[str, ...]:
    number = None if isinstance(value, Enum) else whole(value)
    return (str(value),) if number is None else (str(value), str(number), str(float(number)))
