"""A task template: a named command pattern with its defaults, from which tasks are made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jobmon.client.arguments import declared, mismatch
from jobmon.client.defaults import (
    DefaultsFile,
    HasDefaults,
    checked_cluster_name,
    checked_limit,
    checked_max_attempts,
    checked_resources,
    checked_scales,
)
from jobmon.client.task import Task, TaskOptions, checked_attributes, checked_upstreams
from jobmon.client.task_template_version import TaskTemplateVersion
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING

if TYPE_CHECKING:
    import os

    from jobmon.client.tool_version import ToolVersion

LATEST = "latest"


class TaskTemplate(HasDefaults):
    """Makes tasks. Made by `Tool.get_task_template`."""

    level: ClassVar[str] = "its task template"

    def __init__(self, template_name: str, tool_version: ToolVersion) -> None:
        super().__init__()
        if not isinstance(template_name, str) or not template_name.strip():
            raise ValueError(f"template_name must be a text that is not empty, not {template_name!r}.")
        self.template_name = template_name
        self.tool_version = tool_version
        self.task_template_id: int | None = None
        self.task_template_versions: list[TaskTemplateVersion] = []
        self.max_concurrently_running = MAX_CONCURRENTLY_RUNNING
        self._active: TaskTemplateVersion | None = None
        # Tasks made one after the other mostly say the same: they share one object then.
        self._last_options = TaskOptions()
        self._last_upstreams: tuple[tuple[Task, ...], frozenset[Task]] = ((), frozenset())

    # -- versions -----------------------------------------------------------------------------------------------

    @property
    def active_task_template_version(self) -> TaskTemplateVersion:
        """The version of which tasks are made.

        Raises:
            ValueError: there is none yet.
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
        """Return the version with this pattern, a new one if there is none, and make it the active one.

        Raises:
            ValueError: template and declared arguments do not agree; names the arguments.
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
        """Choose the version of which tasks are made: by its id, or the newest.

        Raises:
            ValueError: there is no such version among those loaded.
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
            " load_task_template_versions() asks the server."
        )

    def load_task_template_versions(self) -> None:
        """Ask the server for all recorded versions, oldest first; the active one stays, or is the newest."""
        from jobmon.client import records

        unrecorded = [version for version in self.task_template_versions if version.id is None]
        known = [version for version in self.task_template_versions if version.id is not None]
        self.task_template_versions = [*known, *unrecorded]
        found = records.template_versions(self)
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
        upstream_tasks: Iterable[Task] = (),
        task_attributes: Iterable[str] | Mapping[str, Any] = (),
        max_attempts: int | None = None,
        compute_resources: Mapping[str, Any] | str | None = None,
        compute_resources_callable: Callable[..., Any] | None = None,
        resource_scales: Mapping[str, Any] | None = None,
        cluster_name: str = "",
        fallback_queues: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> Task:
        """Make one task.

        Args:
            name: its name; by default made of the template's name and the node args.
            upstream_tasks: tasks that must be done before.
            task_attributes: names, or names and values; searchable, never passed to the job.
            max_attempts: how many attempts it gets.
            compute_resources: what it needs, stronger than all defaults, key by key; "auto": what earlier tasks used.
            compute_resources_callable: called once, when its upstreams are done; returns a dict of resources.
            resource_scales: how resources grow after a resource error.
            cluster_name: where it runs.
            fallback_queues: queues to be tried when a raised request no longer fits.
            kwargs: a value for each argument of the command template.

        Raises:
            ValueError: a value is wrong; says which.
        """
        options = self._options(
            max_attempts, compute_resources, compute_resources_callable, resource_scales, cluster_name, fallback_queues
        )
        attributes = checked_attributes(task_attributes, "task_attributes") if task_attributes else None
        upstreams = self._upstreams(upstream_tasks)
        return Task(self.active_task_template_version, kwargs, name, upstreams, options, attributes)

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
        """Make a task for each combination of the values given for node args.

        Args:
            max_attempts: as for `create_task`, like the following.
            upstream_tasks: for all of them.
            max_concurrently_running: how many tasks of this template may run at once.
            compute_resources: for all of them.
            compute_resources_callable: for all of them; called for each.
            resource_scales: for all of them.
            cluster_name: for all of them.
            name: one name for all of them; by default each gets its own.
            kwargs: a value for each argument; for node args also a list or any other iterable of values.

        Raises:
            ValueError: a value is wrong, or a list is given for a task arg or op arg.
        """
        version = self.active_task_template_version
        if kwargs.keys() != version.names:
            raise ValueError(mismatch(self.template_name, version.names, kwargs))
        columns = self._columns(version, kwargs)
        options = self._options(
            max_attempts, compute_resources, compute_resources_callable, resource_scales, cluster_name, None
        )
        upstreams = self._upstreams(upstream_tasks or ())
        if max_concurrently_running != MAX_CONCURRENTLY_RUNNING:
            self.max_concurrently_running = checked_limit(max_concurrently_running)
        return [
            Task(version, dict(zip(kwargs, values, strict=True)), name or "", upstreams, options)
            for values in itertools.product(*columns)
        ]

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

    def _upstreams(self, tasks: Iterable[Task]) -> frozenset[Task] | None:
        """Return the upstream tasks as a set that is shared by tasks with the same ones."""
        if tasks == ():
            return None
        listed = checked_upstreams(tasks)
        if not listed:
            return None
        if listed != self._last_upstreams[0]:
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
        if (
            max_attempts == last.max_attempts
            and cluster_name == last.cluster_name
            and compute_resources_callable is last.compute_resources_callable
            and compute_resources == last.compute_resources
            and resource_scales == last.resource_scales
            and fallback_queues == last.fallback_queues
        ):
            return last
        if compute_resources_callable is not None and not callable(compute_resources_callable):
            raise ValueError(f"compute_resources_callable must be callable, not {compute_resources_callable!r}.")
        self._last_options = TaskOptions(
            checked_max_attempts(max_attempts),
            None if compute_resources is None else checked_resources(compute_resources),
            compute_resources_callable,
            None if resource_scales is None else self._checked_scales(resource_scales),
            checked_cluster_name(cluster_name),
            _checked_queues(fallback_queues),
        )
        return self._last_options

    def _checked_scales(self, scales: Mapping[str, Any]) -> dict[str, Any]:
        return checked_scales(
            self.tool_version.tool.shared_iterators(scales) if isinstance(scales, Mapping) else scales
        )

    # -- defaults -----------------------------------------------------------------------------------------------

    def set_default_compute_resources_from_yaml(
        self, yaml_file: str | os.PathLike[str], default_cluster_name: str = "", ignore_missing_keys: bool = False
    ) -> None:
        """Take `task_template_resources.<template>` of a YAML file as default resources.

        Raises:
            ValueError: the file cannot be read, or lacks a key; names file, key and the nearest known one.
        """
        self.take_resources(DefaultsFile(yaml_file, ignore_missing_keys), default_cluster_name)

    def set_default_resource_scales_from_yaml(
        self, yaml_file: str | os.PathLike[str], default_cluster_name: str = "", ignore_missing_keys: bool = False
    ) -> None:
        """Take `task_template_resource_scales.<template>` of a YAML file as default scales.

        Raises:
            ValueError: as for the resources.
        """
        self.take_scales(DefaultsFile(yaml_file, ignore_missing_keys), default_cluster_name)

    def take_resources(self, file: DefaultsFile, default_cluster_name: str = "") -> None:
        """Take this template's default resources out of an open file."""
        owner = ("task_template_resources", self.template_name)
        self._set_resources(file.by_cluster(*owner, default_cluster_name), default_cluster_name, file.where(*owner))

    def take_scales(self, file: DefaultsFile, default_cluster_name: str = "") -> None:
        """Take this template's default scales out of an open file."""
        owner = ("task_template_resource_scales", self.template_name)
        self._set_scales(file.by_cluster(*owner, default_cluster_name), default_cluster_name, file.where(*owner))

    # -- usage --------------------------------------------------------------------------------------------------

    def resource_usage(
        self,
        workflows: Iterable[int] | None = None,
        node_args: Mapping[str, Any] | None = None,
        ci: float | None = None,
    ) -> dict[str, Any] | None:
        """Return what done tasks of the active version used, in memory (GiB) and time (s); None if none is done.

        Number, smallest, largest, mean, median and percentiles; percentiles also of the cores that were busy.

        Args:
            workflows: only of these workflow ids.
            node_args: only of tasks with one of these values, by name of the argument.
            ci: also a confidence interval of this level, such as 0.95.
        """
        from jobmon.client import records

        return records.template_usage(self, workflows, node_args, ci)


def _is_list(value: object) -> bool:
    """Say whether a value stands for several: iterable, but neither text nor a number of NumPy."""
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
