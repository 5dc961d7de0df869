"""A tool: an application that owns templates and workflows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jobmon.client.defaults import DefaultsFile, HasToolDefaults, IteratorScale, checked_priority, whole
from jobmon.client.task_template import LATEST, TaskTemplate
from jobmon.client.tool_version import ToolVersion
from jobmon.client.workflow import Workflow
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING
from jobmon.core.texts import checked_name

if TYPE_CHECKING:
    import os

    from jobmon.core.requester import Requester


class Tool(HasToolDefaults):
    """An application that owns templates and workflows: the root of everything that is recorded.

    Args:
        name: identifies the tool; two scripts with the same name use the same tool.
        active_tool_version_id: ID of the version to use, or "latest".
        requester: sends requests to the server; None creates one from the settings when it is first needed.

    Raises:
        ValueError: the name is empty or too long, or the version is neither an ID of the tool nor "latest".
        ServerUnavailable: a version is given by its ID, and the server does not respond.
    """

    level: ClassVar[str] = "its tool"

    def __init__(
        self,
        name: str = "unknown",
        active_tool_version_id: int | str = LATEST,
        requester: Requester | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"A tool's name must be a non-empty string, not {name!r}.")
        self.name = checked_name("The name of a tool", name)
        self.tool_id: int | None = None
        self.tool_version_ids: list[int] = []
        self._requester = requester
        self._versions: dict[int | None, ToolVersion] = {}
        #: Keyed by the ID of the iterator, which its IteratorScale keeps alive.
        self._iterators: dict[int, IteratorScale] = {}
        self.set_active_tool_version_id(active_tool_version_id)

    def __repr__(self) -> str:
        """Return the type and name of the tool."""
        return f"<Tool {self.name!r}>"

    @property
    def id(self) -> int | None:
        """The ID in the database; None until something is recorded. The same as `tool_id`."""
        return self.tool_id

    @property
    def tool_versions(self) -> list[ToolVersion]:
        """The versions used in this script."""
        return list(self._versions.values())

    @property
    def requester(self) -> Requester:
        """The object that sends requests to the server."""
        if self._requester is None:
            from jobmon.core.requester import Requester

            self._requester = Requester.from_defaults()
        return self._requester

    # -- versions -----------------------------------------------------------------------------------------------

    def get_new_tool_version(self) -> int:
        """Record a new version of the tool and make it the active one.

        Returns:
            The ID of the new version.

        Raises:
            ServerUnavailable: the server does not respond.
        """
        from jobmon.client import api_calls

        version_id = api_calls.new_tool_version(self)
        self.set_active_tool_version_id(version_id)
        return version_id

    def set_active_tool_version_id(self, tool_version_id: int | str) -> None:
        """Select the version to which new templates and workflows belong.

        Args:
            tool_version_id: ID of a version, or "latest".

        Raises:
            ValueError: the value is neither, or the tool has no such version.
            ServerUnavailable: the server, which is asked for unknown versions, does not respond.
        """
        key = whole(tool_version_id)
        if key is None and tool_version_id != LATEST:
            raise ValueError(f"A tool version is selected by its ID or by {LATEST!r}, not by {tool_version_id!r}.")
        if key is not None and key not in self.tool_version_ids:
            from jobmon.client import api_calls

            api_calls.check_version(self, key)
        if key not in self._versions:
            self._versions[key] = ToolVersion(self, key)
        self.active_tool_version = self._versions[key]

    @property
    def active_task_templates(self) -> dict[str, TaskTemplate]:
        """The templates of the active version by name, including those recorded by earlier scripts.

        Raises:
            ServerUnavailable: the server does not respond.
        """
        self.active_tool_version.load_task_templates()
        return self.active_tool_version.task_templates

    # -- templates and workflows --------------------------------------------------------------------------------

    def get_task_template(
        self,
        template_name: str,
        command_template: str,
        node_args: Iterable[str] | None = None,
        task_args: Iterable[str] | None = None,
        op_args: Iterable[str] | None = None,
        default_cluster_name: str = "",
        default_compute_resources: Mapping[str, Any] | None = None,
        default_resource_scales: Mapping[str, Any] | None = None,
        yaml_file: str | os.PathLike[str] | None = None,
        max_attempts: int | None = None,
        priority: int = 0,
        inputs: Iterable[str] | Mapping[str, str] | None = None,
        outputs: Iterable[str] | Mapping[str, str] | None = None,
    ) -> TaskTemplate:
        """Return the template of this name, with this command as its active version.

        Args:
            template_name: name, unique within the tool.
            command_template: command with placeholders in the syntax of `str.format`; `{name:q}` quotes the value for
                the shell.
            node_args: placeholders that identify a task within the workflow, such as a sample.
            task_args: placeholders that identify the data of the workflow, such as a release.
            op_args: placeholders that never identify a task, such as options and paths to programs.
            default_cluster_name: cluster on which its tasks run; "" uses the default of the workflow or tool.
            default_compute_resources: default resources on that cluster; without a cluster name, on every cluster.
            default_resource_scales: default resource scales on that cluster; without a cluster name, on every cluster.
            yaml_file: file with a section `task_template_resources` and optionally `task_template_resource_scales`.
            max_attempts: maximum number of attempts of its tasks; None uses the default of the workflow or tool.
            priority: added to the priority of each of its tasks, from -1000 to 1000; see `Task.priority`.
            inputs: files that each task reads, as a list of patterns or as {name: pattern}, such as "in/{sample}.csv".
                A pattern inserts node args and task args; relative paths start at the working folder; `*` matches at
                least one file; a trailing "/" means a folder. The tasks that write them become upstream tasks. If one
                is missing, the task fails without being started. None keeps what was declared before.
            outputs: files that each task writes, in the same form. If one is missing after the command has succeeded,
                the attempt fails and is retried.

        Returns:
            The template; the same object for the same name.

        Raises:
            ValueError: the command and the declared arguments do not agree, or a value is invalid; the message names
                it.
        """
        template = self.active_tool_version.get_task_template(template_name)
        version = template.get_task_template_version(command_template, node_args, task_args, op_args)
        version.declare_files(inputs, outputs)
        if default_cluster_name:
            template.set_default_cluster_name(default_cluster_name)
        if yaml_file is not None:
            template.take_resources(DefaultsFile(yaml_file))
            template.take_scales(DefaultsFile(yaml_file, ignore_missing_keys=True))
        if default_compute_resources is not None:
            template.set_default_compute_resources_from_dict(default_cluster_name, default_compute_resources)
        if default_resource_scales is not None:
            template.set_default_resource_scales_from_dict(default_cluster_name, default_resource_scales)
        if max_attempts is not None:
            template.set_default_max_attempts(max_attempts)
        template.priority = checked_priority(priority)
        return template

    def create_workflow(
        self,
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
    ) -> Workflow:
        """Return a new workflow of this tool. Nothing is recorded before `bind()` or `run()`.

        Args:
            workflow_args: identifies the workflow within the tool; the same value resumes it. "" generates a random
                value, so that the workflow cannot be resumed from a new process of the script.
            name: displayed in lists and on the web page; "" means the name of the tool.
            description: free text of any length.
            workflow_attributes: names, or names and values; searchable, never passed to commands.
            max_concurrently_running: maximum number of its tasks that are queued or running at once; 0 pauses the
                workflow. No limit by default.
            chunk_size: hint for the number of tasks to send in one request; the server determines the actual size.
            default_cluster_name: cluster for tasks that do not specify one; "" uses the default of the tool. Without
                any default, tasks run on this machine (`multiprocess`).
            default_compute_resources_set: {cluster: {resource: value}}. Template and task take precedence.
            default_resource_scales_set: {cluster: {resource: scale}}. Template and task take precedence.
            default_max_attempts: maximum number of attempts for tasks that do not specify one; None uses the default of
                the tool (three unless set).
            priority: of the workflow among those that share the cores of a machine, from -1000 to 1000. A workflow of
                lower priority gets the cores that those of higher priority do not want.

        Returns:
            The workflow, without tasks.

        Raises:
            ValueError: a value is invalid; the message names it.
        """
        return Workflow(
            self.active_tool_version,
            workflow_args,
            name,
            description,
            workflow_attributes,
            max_concurrently_running,
            chunk_size,
            default_cluster_name,
            default_compute_resources_set,
            default_resource_scales_set,
            default_max_attempts,
            priority,
        )

    def resource_usage(self, ci: float | None = None) -> dict[str, dict[str, Any]]:
        """Return the resource usage of the done tasks of all its workflows, by template name.

        Args:
            ci: level of the confidence intervals, such as 0.95; None omits them.

        Returns:
            What `TaskTemplate.resource_usage` returns for each template: memory in bytes, time in seconds.
        """
        from jobmon.client import api_calls

        return api_calls.tool_usage(self, ci)

    # -- defaults -----------------------------------------------------------------------------------------------

    @property
    def _defaults_owner(self) -> str:
        return self.name

    @property
    def _defaults_templates(self) -> Iterable[TaskTemplate]:
        return self.active_tool_version.task_templates.values()

    def shared_iterators(self, scales: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace iterators by objects that read them once; tasks that are given the same iterator share one object."""
        return {
            key: self._shared(scale) if isinstance(scale, Iterator) and not callable(scale) else scale
            for key, scale in scales.items()
        }

    def _shared(self, iterator: Iterator[float]) -> IteratorScale:
        return self._iterators.setdefault(id(iterator), IteratorScale(iterator))
