"""A task template: a named command pattern with its defaults, from which tasks are created."""

from __future__ import annotations

import itertools
import logging
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jobmon.client.arguments import declared, mismatch
from jobmon.client.defaults import (
    TEMPLATE_RESOURCES,
    TEMPLATE_SCALES,
    DefaultsFile,
    HasDefaults,
    checked_cluster_name,
    checked_limit,
    checked_max_attempts,
    checked_resources,
    checked_scales,
)
from jobmon.client.task import Task, checked_attributes, checked_upstreams
from jobmon.client.task_options import TaskOptions
from jobmon.client.task_template_version import TaskTemplateVersion
from jobmon.client.values import PLAIN
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING
from jobmon.core.keywords import also_named
from jobmon.core.texts import SHOWN_CHARACTERS_MAX, checked_name, shortened

if TYPE_CHECKING:
    import os

    from jobmon.client.tool_version import ToolVersion

logger = logging.getLogger(__name__)

LATEST = "latest"


class TaskTemplate(HasDefaults):
    """A command with placeholders, from which tasks are created. Created by `Tool.get_task_template`."""

    level: ClassVar[str] = "its task template"

    def __init__(self, template_name: str, tool_version: ToolVersion) -> None:
        super().__init__()
        if not isinstance(template_name, str) or not template_name.strip():
            raise ValueError(f"template_name must be a non-empty string, not {template_name!r}.")
        self.template_name = checked_name("The template_name", template_name)
        self.tool_version = tool_version
        self.task_template_id: int | None = None
        self.task_template_versions: list[TaskTemplateVersion] = []
        self.max_concurrently_running = MAX_CONCURRENTLY_RUNNING
        #: Added to the priority of each of its tasks.
        self.priority = 0
        self._active: TaskTemplateVersion | None = None
        # Consecutive tasks mostly have the same options and upstream tasks; they then share one object.
        self._has_warned_of_list = False
        self._last_options = TaskOptions()
        self._last_upstreams: tuple[tuple[Task, ...], frozenset[Task]] = ((), frozenset())

    def __repr__(self) -> str:
        """Return the type, name and command of the template."""
        command = "" if self._active is None else f" {self._active.command_template!r}"
        return f"<TaskTemplate {self.template_name!r}{command}>"

    @property
    def id(self) -> int | None:
        """The ID in the database; None until something is recorded. The same as `task_template_id`."""
        return self.task_template_id

    # -- versions -----------------------------------------------------------------------------------------------

    @property
    def active_task_template_version(self) -> TaskTemplateVersion:
        """The version from which tasks are created.

        Raises:
            ValueError: the template has no version yet.
        """
        if self._active is None:
            raise ValueError(f"Task template {self.template_name!r} has no version yet: use get_task_template_version.")
        return self._active

    def get_task_template_version(
        self,
        command_template: str,
        node_args: Iterable[str] | None = None,
        task_args: Iterable[str] | None = None,
        op_args: Iterable[str] | None = None,
    ) -> TaskTemplateVersion:
        """Return the version with this command, a new one if necessary, and make it the active one.

        Args:
            command_template: command with placeholders; see `Tool.get_task_template`, also for the other arguments.
            node_args: placeholders that identify a task within the workflow.
            task_args: placeholders that identify the data of the workflow.
            op_args: placeholders that never identify a task.

        Returns:
            The version, now active.

        Raises:
            ValueError: the command and the declared arguments do not agree; the message names the arguments.
        """
        arguments = declared(self.template_name, command_template, node_args, task_args, op_args)
        self._active = self._find_or_add(TaskTemplateVersion(self, command_template, arguments))
        return self._active

    def _find_or_add(self, version: TaskTemplateVersion) -> TaskTemplateVersion:
        for known in self.task_template_versions:
            if known.digest == version.digest:
                known.id = version.id if known.id is None else known.id
                return known
        self.task_template_versions.append(version)
        return version

    def set_active_task_template_version_id(self, task_template_version_id: int | str = LATEST) -> None:
        """Select the version from which tasks are created.

        Args:
            task_template_version_id: ID of a loaded version, or "latest".

        Raises:
            ValueError: no such version is loaded.
        """
        if task_template_version_id == LATEST:
            self._active = self.task_template_versions[-1] if self.task_template_versions else None
            return
        for version in self.task_template_versions:
            if version.id == task_template_version_id:
                self._active = version
                return
        known = [version.id for version in self.task_template_versions]
        raise ValueError(
            f"Task template {self.template_name!r} has no version {task_template_version_id!r}; loaded are {known}."
            " load_task_template_versions() loads them from the server."
        )

    def load_task_template_versions(self) -> None:
        """Load all recorded versions from the server, oldest first. Without an active version, activate the newest.

        Raises:
            ServerUnavailable: the server does not respond.
        """
        from jobmon.client import api_calls

        self.take_versions(api_calls.template_versions(self))

    def take_versions(self, found: Iterable[TaskTemplateVersion]) -> None:
        """Add recorded versions.

        Args:
            found: the recorded versions, oldest first.
        """
        unrecorded = [version for version in self.task_template_versions if version.id is None]
        known = [version for version in self.task_template_versions if version.id is not None]
        self.task_template_versions = [*known, *unrecorded]
        loaded = [self._find_or_add(version) for version in found]
        loaded_ids = {id(version) for version in loaded}
        self.task_template_versions = [
            *loaded,
            *(version for version in self.task_template_versions if id(version) not in loaded_ids),
        ]
        self._active = self._active or (self.task_template_versions[-1] if self.task_template_versions else None)

    # -- tasks --------------------------------------------------------------------------------------------------

    def create_task(
        self,
        name: str = "",
        upstream_tasks: Iterable[Task] | None = (),
        task_attributes: Iterable[str] | Mapping[str, Any] = (),
        max_attempts: int | None = None,
        compute_resources: Mapping[str, Any] | str | None = None,
        compute_resources_callable: Callable[..., Any] | None = None,
        resource_scales: Mapping[str, Any] | None = None,
        cluster_name: str = "",
        fallback_queues: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> Task:
        """Create one task.

        Args:
            name: name of the task; "" derives it from the template's name and the node args.
            upstream_tasks: tasks that must be done before this one starts.
            task_attributes: names, or names and values; searchable, never passed to the command.
            max_attempts: maximum number of attempts; None uses the default (three, unless set otherwise).
            compute_resources: request, which takes precedence over all defaults, key by key: `cores`, `memory` (GiB, or
                text such as "512M"), `runtime` (seconds, or text such as "1h30m"), `queue`, `shell`, `stdout`, `env`
                and others. "auto" requests what earlier tasks of the template used.
            compute_resources_callable: called once, when the upstream tasks are done; returns a dict of resources.
            resource_scales: how each resource grows after a resource error: a factor (0.5 adds 50 %), a function of the
                old value, or a list of values.
            cluster_name: cluster on which the task runs; "" uses the default of the template, workflow or tool.
            fallback_queues: queues to try, in this order, when a raised request no longer fits its queue.
            kwargs: a value for each placeholder of the command template.

        Returns:
            The task; add it to a workflow with `Workflow.add_task`.

        Raises:
            ValueError: a value is invalid; the message names it.
        """
        options = self._options(
            max_attempts, compute_resources, compute_resources_callable, resource_scales, cluster_name, fallback_queues
        )
        attributes = checked_attributes(task_attributes, "task_attributes") if task_attributes else None
        upstreams = self._upstreams(upstream_tasks)
        task = Task(self.active_task_template_version, kwargs, name, upstreams, options, attributes)
        if not self._has_warned_of_list and not PLAIN.issuperset(map(type, kwargs.values())):
            self._warn_of_list(task.template_version, kwargs)
        return task

    def _warn_of_list(self, version: TaskTemplateVersion, args: Mapping[str, Any]) -> None:
        """Warn, once per template, about a list that was probably meant for `create_tasks`."""
        name = next((one for one in version.arguments.node_args if _is_list(args[one])), None)
        if name is None:
            return
        self._has_warned_of_list = True
        logger.warning(
            "create_task() of template %r makes one task of %s=%s. To create a task for each of these values, call"
            " create_tasks(); if one task is meant, pass a string.",
            self.template_name,
            name,
            shortened(repr(args[name]), SHOWN_CHARACTERS_MAX),
        )

    def create_tasks(
        self,
        max_attempts: int | None = None,
        upstream_tasks: Iterable[Task] | None = None,
        max_concurrently_running: int = MAX_CONCURRENTLY_RUNNING,
        compute_resources: Mapping[str, Any] | str | None = None,
        compute_resources_callable: Callable[..., Any] | None = None,
        resource_scales: Mapping[str, Any] | None = None,
        cluster_name: str = "",
        name: str | None = None,
        **kwargs: Any,
    ) -> list[Task]:
        """Create one task for each combination of node args.

        Args:
            max_attempts: as for `create_task`, like the following arguments.
            upstream_tasks: tasks that must be done before any of these starts.
            max_concurrently_running: maximum number of tasks of this template that are queued or running at once; 0
                pauses them. No limit by default.
            compute_resources: request of each task.
            compute_resources_callable: called once for each task.
            resource_scales: scales of each task.
            cluster_name: cluster of all tasks.
            name: name of their array; None uses the name of the template. It does not affect the names of the tasks.
            kwargs: a value for each placeholder; node args also accept a list or another iterable of values.

        Returns:
            The tasks, in the order of the combinations; the last argument changes fastest.

        Raises:
            ValueError: a value is invalid, or a list is given for a task arg or op arg.
        """
        version = self.active_task_template_version
        if kwargs.keys() != version.names:
            raise ValueError(mismatch(self.template_name, version.names, kwargs))
        columns = self._columns(version, kwargs)
        options = self._options(
            max_attempts, compute_resources, compute_resources_callable, resource_scales, cluster_name, None
        )
        if name:
            options = options.replaced(array_name=checked_name("The name of an array", name))
        upstreams = self._upstreams(upstream_tasks)
        if max_concurrently_running != MAX_CONCURRENTLY_RUNNING:
            self.max_concurrently_running = checked_limit(max_concurrently_running)
        tasks: list[Task] = []
        try:
            tasks.extend(
                Task(version, dict(zip(kwargs, values, strict=True)), "", upstreams, options)
                for values in itertools.product(*columns)
            )
        except BaseException:
            for task in reversed(tasks):
                task.withdraw()
            raise
        return tasks

    def _columns(self, version: TaskTemplateVersion, args: Mapping[str, Any]) -> list[list[Any]]:
        columns, wrong = [], []
        for name, value in args.items():
            is_list = _is_list(value)
            if is_list and name not in version.arguments.node_args:
                wrong.append(name)
            columns.append(list(value) if is_list else [value])
        if wrong:
            raise ValueError(
                f"Template {self.template_name!r}: only node args may be lists, but these task or op args are:"
                f" {', '.join(map(repr, wrong))}."
            )
        return columns

    def _upstreams(self, tasks: Iterable[Task] | None) -> frozenset[Task] | None:
        """Return the upstream tasks as a set that is shared by consecutive tasks with the same upstream tasks."""
        if tasks == ():
            return None
        listed = checked_upstreams(tasks)
        if not listed:
            return None
        last = self._last_upstreams[0]
        if len(listed) != len(last) or any(map(operator.is_not, listed, last)):  # equal tasks may be in two workflows
            self._last_upstreams = (listed, frozenset(listed))
        return self._last_upstreams[1]

    def _options(
        self,
        max_attempts: int | None,
        compute_resources: Mapping[str, Any] | str | None,
        compute_resources_callable: Callable[..., Any] | None,
        resource_scales: Mapping[str, Any] | None,
        cluster_name: str,
        fallback_queues: Iterable[str] | None,
    ) -> TaskOptions:
        last = self._last_options
        try:
            is_last = (
                max_attempts == last.max_attempts
                and cluster_name == last.cluster_name
                and compute_resources_callable is last.compute_resources_callable
                and compute_resources == last.compute_resources
                and resource_scales == last.resource_scales
                and fallback_queues == last.fallback_queues
            )
        except ValueError:  # a value is an array, which compares element by element
            is_last = False
        if is_last:
            return last
        if compute_resources_callable is not None and not callable(compute_resources_callable):
            raise ValueError(f"compute_resources_callable must be callable, not {compute_resources_callable!r}.")
        self._last_options = TaskOptions(
            checked_max_attempts(max_attempts),
            None
            if compute_resources is None
            else checked_resources(compute_resources, cluster_name=cluster_name or self._known_cluster_name),
            compute_resources_callable,
            None if resource_scales is None else self._checked_scales(resource_scales),
            checked_cluster_name(cluster_name),
            _checked_queues(fallback_queues),
        )
        return self._last_options

    @property
    def _known_cluster_name(self) -> str:
        """The default cluster of the template or tool so far; a workflow may name another one."""
        return self.default_cluster_name or self.tool_version.tool.default_cluster_name

    def _checked_scales(self, scales: Mapping[str, Any]) -> dict[str, Any]:
        return checked_scales(
            self.tool_version.tool.shared_iterators(scales) if isinstance(scales, Mapping) else scales
        )

    # -- defaults -----------------------------------------------------------------------------------------------

    @also_named(cluster_name="default_cluster_name")
    def set_default_compute_resources_from_yaml(
        self, yaml_file: str | os.PathLike[str], default_cluster_name: str = "", ignore_missing_keys: bool = False
    ) -> None:
        """Read default resources from the section `task_template_resources.<template>` of a YAML file.

        Args:
            yaml_file: path of the file.
            default_cluster_name: becomes the default cluster; the file must describe it. "" selects the cluster of the
                file if there is only one and no default cluster is set.
            ignore_missing_keys: change nothing if the file lacks the section, instead of raising an error.

        Raises:
            ValueError: the file cannot be read or lacks a key; the message names file and key, and the nearest known
                key.
        """
        self.take_resources(DefaultsFile(yaml_file, ignore_missing_keys), default_cluster_name)

    @also_named(cluster_name="default_cluster_name")
    def set_default_resource_scales_from_yaml(
        self, yaml_file: str | os.PathLike[str], default_cluster_name: str = "", ignore_missing_keys: bool = False
    ) -> None:
        """Read default scales from the section `task_template_resource_scales.<template>` of a YAML file.

        Args:
            yaml_file: path of the file.
            default_cluster_name: becomes the default cluster; the file must describe it. "" selects the cluster of the
                file if there is only one and no default cluster is set.
            ignore_missing_keys: change nothing if the file lacks the section, instead of raising an error.

        Raises:
            ValueError: the file cannot be read or lacks a key; the message names file and key, and the nearest known
                key.
        """
        self.take_scales(DefaultsFile(yaml_file, ignore_missing_keys), default_cluster_name)

    def take_resources(self, file: DefaultsFile, default_cluster_name: str = "") -> None:
        """Set this template's default resources from an open file."""
        owner = (TEMPLATE_RESOURCES, self.template_name)
        self._set_resources(file.by_cluster(*owner, default_cluster_name), default_cluster_name, file.where(*owner))

    def take_scales(self, file: DefaultsFile, default_cluster_name: str = "") -> None:
        """Set this template's default scales from an open file."""
        owner = (TEMPLATE_SCALES, self.template_name)
        self._set_scales(file.by_cluster(*owner, default_cluster_name), default_cluster_name, file.where(*owner))

    # -- usage --------------------------------------------------------------------------------------------------

    def resource_usage(
        self,
        workflows: Iterable[int] | None = None,
        node_args: Mapping[str, Any] | None = None,
        ci: float | None = None,
    ) -> dict[str, Any] | None:
        """Return the resource usage of done tasks of the active version.

        Args:
            workflows: IDs of the workflows to include; None includes all.
            node_args: include only tasks with one of these values, by name of the node arg; None includes all.
            ci: level of the confidence intervals, such as 0.95; None omits them.

        Returns:
            None if no task is done. Otherwise a dict of `num_tasks`; `min_mem`, `max_mem`, `mean_mem`, `median_mem`,
            `ci_mem` and `percentiles_mem`, peak memory in bytes (ints); the same with `_runtime`, wall-clock seconds;
            and `percentiles_cores`, the average number of busy cores. Values that were not measured are None.

        Raises:
            ValueError: the template has no such node arg.
        """
        from jobmon.client import api_calls

        return api_calls.template_usage(self, workflows, node_args, ci)


def _is_list(value: object) -> bool:
    """Return whether a value is a collection of values: an iterable, but neither text nor a NumPy scalar."""
    return (
        isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) and getattr(value, "ndim", 1) != 0
    )


def _checked_queues(queues: Iterable[str] | None) -> list[str] | None:
    if queues is None:
        return None
    if isinstance(queues, str) or not isinstance(queues, Iterable):
        raise ValueError(f"fallback_queues must be a list of names, not {queues!r}.")
    listed = list(queues)
    if not all(isinstance(queue, str) and queue for queue in listed):
        raise ValueError(f"fallback_queues must be a list of names, not {listed!r}.")
    return listed
