"""A workflow: tasks with their dependencies, recorded by `bind()` and carried out by `run()`."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jobmon.client.array import Array, duplicate
from jobmon.client.defaults import HasToolDefaults, checked_chunk_size, checked_limit, name_hint
from jobmon.client.task import Task, checked_attributes
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING
from jobmon.core.exceptions import InvalidResources

if TYPE_CHECKING:
    from jobmon.client.swarm.orchestrator import OrchestratorResult
    from jobmon.client.task import Settled
    from jobmon.client.task_template import TaskTemplate
    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.client.tool import Tool
    from jobmon.client.tool_version import ToolVersion
    from jobmon.core.requester import Requester

logger = logging.getLogger(__name__)


class Workflow(HasToolDefaults):
    """Tasks of one tool under one `workflow_args`. Made by `Tool.create_workflow`."""

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
    ) -> None:
        super().__init__(
            default_cluster_name, default_compute_resources_set, default_resource_scales_set, default_max_attempts
        )
        self.tool_version = tool_version
        self.workflow_args = str(workflow_args)
        if not self.workflow_args:
            self.workflow_args = str(uuid.uuid4())
            logger.info("workflow_args is empty: this workflow gets the random one %r.", self.workflow_args)
        self.name = str(name or "")
        self.description = str(description or "")
        self.workflow_attributes = checked_attributes(workflow_attributes, "workflow_attributes")
        self.max_concurrently_running = checked_limit(max_concurrently_running)
        self.chunk_size = checked_chunk_size(chunk_size)
        self.tasks: dict[int, Task] = {}
        self.arrays: dict[str, Array] = {}
        self.workflow_id: int | None = None
        self.dag_id: int | None = None
        self.is_bound = False
        #: Whether a run of it ever reached BOUND, as far as is known here.
        self.was_started = False
        self.last_workflow_run_id: int | None = None
        #: What the last `run()` came to; set before `run()` returns or raises.
        self.last_result: OrchestratorResult | None = None
        #: What follows for tasks from all defaults, once recorded; see `Task`.
        self.settled: dict[tuple[int, int], Settled] = {}
        self._array_limits: dict[str, int] = {}

    @property
    def tool(self) -> Tool:
        """The tool that it belongs to."""
        return self.tool_version.tool

    @property
    def requester(self) -> Requester:
        """What sends the requests."""
        return self.tool.requester

    # -- tasks --------------------------------------------------------------------------------------------------

    def add_task(self, task: Task) -> Task:
        """Add a task and return it.

        Raises:
            DuplicateNodeArgsError: another task of its template has the same node args.
            ValueError: it is in a workflow already, or this one is recorded already.
        """
        if not isinstance(task, Task):
            raise ValueError(f"A workflow takes tasks, not {task!r}.")
        if self.is_bound:
            raise ValueError("This workflow is recorded already; no task can be added any more.")
        if task.array is not None:
            raise ValueError(
                f"Task {task.name!r} is in {'this' if task.workflow is self else 'another'} workflow already."
            )
        array = self._array(task.template_version)
        key = hash(task)
        if key in self.tasks:
            raise duplicate(task)
        array.add_task(task)
        self.tasks[key] = task
        return task

    def add_tasks(self, tasks: Iterable[Task]) -> None:
        """Add several tasks."""
        for task in tasks:
            self.add_task(task)

    def _array(self, version: TaskTemplateVersion) -> Array:
        array = self.arrays.get(version.name)
        if array is None:
            array = self.arrays[version.name] = Array(version, self)
            if version.name in self._array_limits:
                array.max_concurrently_running = self._array_limits[version.name]
        elif array.template_version is not version and array.template_version.digest != version.digest:
            raise ValueError(
                f"Tasks of two versions of template {version.name!r} are in one workflow:"
                f" {array.template_version.command_template!r} and {version.command_template!r}. Give one another name."
            )
        return array

    def get_tasks_by_node_args(self, task_template_name: str, **kwargs: Any) -> list[Task]:
        """Return tasks of a template whose node args have these values (a list: one of these values).

        Raises:
            ValueError: there is no such template in the workflow, or it has no such node arg.
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
        """Add attributes: names, or names and values; searchable, never passed to jobs."""
        self.workflow_attributes.update(checked_attributes(workflow_attributes, "workflow_attributes"))

    def set_task_template_max_concurrency_limit(self, task_template_name: str, limit: int) -> None:
        """Limit how many tasks of a template run at once; also while the workflow runs. 0 pauses."""
        self._array_limits[task_template_name] = checked_limit(limit, "limit")
        if task_template_name in self.arrays:
            self.arrays[task_template_name].max_concurrently_running = limit
        if self.is_bound and self.workflow_id is not None:
            from jobmon.client import records

            self.check_limits()
            records.set_array_limit(self.requester, self.workflow_id, task_template_name, limit)

    def check_limits(self) -> None:
        """Check that every limit set is of a template of the workflow.

        Raises:
            ValueError: one is not; names the nearest.
        """
        for name in self._array_limits:
            if name not in self.arrays:
                raise ValueError(
                    f"A concurrency limit is set for template {name!r}, of which no task is in the workflow"
                    f"{name_hint(name, self.arrays)}"
                )

    # -- recording and running ----------------------------------------------------------------------------------

    def bind(self) -> None:
        """Record everything; afterwards only running remains. Again: changes nothing.

        Of a workflow that was started before, and whose run still lives, only the ids are learned: its tasks are
        brought up to date when `run(resume=True)` has taken it over.

        Raises:
            WorkflowAlreadyComplete: it is done already.
            WorkflowAlreadyExists: other tasks are recorded under these workflow_args.
            JobmonError: something is wrong with graph or resources; nothing has been recorded.
        """
        from jobmon.client import running

        running.bind(self)

    def validate(self, strict: bool = True, raise_on_error: bool = False) -> list[str]:
        """Check graph, clusters, queues and resources without recording the workflow.

        Args:
            strict: also say which requests are outside the limits of their queue (they would be moved within them).
            raise_on_error: raise for those instead of logging and returning them.

        Raises:
            JobmonError: something is wrong that cannot be put right.
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

    def run(
        self,
        fail_fast: bool = False,
        seconds_until_timeout: int = 36000,
        resume: bool = False,
        reset_running_jobs: bool = True,
        distributor_startup_timeout: int = 180,
        resume_timeout: int = 300,
        configure_logging: bool = False,
    ) -> str:
        """Record the workflow if need be, carry it out, and return the status of the run.

        Args:
            fail_fast: after the first task that failed for good, launch nothing more.
            seconds_until_timeout: raise RuntimeError after this time; what was submitted goes on.
            resume: continue a workflow that was started before.
            reset_running_jobs: on resume, end what still runs; else let it finish and adopt it.
            distributor_startup_timeout: longest wait for the distributor, seconds.
            resume_timeout: longest wait for an earlier run to make room, seconds.
            configure_logging: set up logging to the standard error stream.

        Returns:
            A `WorkflowRunStatus`: DONE, or ERROR when tasks failed for good. `last_result` says more.

        Raises:
            WorkflowAlreadyComplete, WorkflowAlreadyExists, WorkflowNotResumable: it may not start.
            RuntimeError: timeout.
            DistributorInterruptedError: the user stopped it.
            DistributorStartupTimeout, DistributorNotAlive: the distributor cannot be kept running.
        """
        from jobmon.client import running

        options = running.RunOptions(
            fail_fast=fail_fast,
            seconds_until_timeout=seconds_until_timeout,
            resume=resume,
            reset_running_jobs=reset_running_jobs,
            distributor_startup_timeout=distributor_startup_timeout,
            resume_timeout=resume_timeout,
            configure_logging=configure_logging,
        )
        return running.run(self, options)

    # -- what became of it --------------------------------------------------------------------------------------

    def get_errors(self, limit: int = 1000) -> dict[int, list[dict[str, Any]]]:
        """Return the newest errors of attempts by task id, newest first; empty before anything is recorded."""
        from jobmon.client import records

        found: dict[int, list[dict[str, Any]]] = {}
        if self.workflow_id is not None:
            for error in records.workflow_errors(self.requester, self.workflow_id, limit):
                found.setdefault(error.task_id, []).append(records.as_dict(error))
        return found

    @property
    def task_errors(self) -> dict[str, list[dict[str, Any]]]:
        """The newest errors of attempts by task name, newest first."""
        by_name: dict[str, list[dict[str, Any]]] = {}
        for errors in self.get_errors().values():
            by_name.setdefault(errors[0]["task_name"], []).extend(errors)
        return by_name

    def resource_usage(self, ci: float | None = None) -> dict[str, dict[str, Any]]:
        """Return what its done tasks used, by template, as `TaskTemplate.resource_usage` does."""
        from jobmon.client import records

        return records.workflow_usage(self, ci)

    # -- defaults -----------------------------------------------------------------------------------------------

    @property
    def _defaults_owner(self) -> str:
        return self.tool.name

    @property
    def _defaults_templates(self) -> Iterable[TaskTemplate]:
        return self.tool_version.task_templates.values()


def _texts(value: Any) -> frozenset[str]:
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return frozenset(map(str, value)) if is_list else frozenset({str(value)})
