"""A tool: an application that owns templates and workflows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jobmon.client.defaults import DefaultsFile, HasToolDefaults, IteratorScale
from jobmon.client.task_template import LATEST, TaskTemplate
from jobmon.client.tool_version import ToolVersion
from jobmon.client.workflow import Workflow
from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING

if TYPE_CHECKING:
    import os

    from jobmon.core.requester import Requester


class Tool(HasToolDefaults):
    """An application: the root of everything that is recorded.

    Args:
        name: its name; the same name is the same tool.
        active_tool_version_id: the version to use, or "latest".
        requester: sends the requests; by default made from the settings when first needed.
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
            raise ValueError(f"A tool's name must be a text that is not empty, not {name!r}.")
        self.name = name
        self.tool_id: int | None = None
        self.tool_version_ids: list[int] = []
        self._requester = requester
        self._versions: dict[int | None, ToolVersion] = {}
        #: By the id of the iterator, which its IteratorScale keeps alive.
        self._iterators: dict[int, IteratorScale] = {}
        self.set_active_tool_version_id(active_tool_version_id)

    @property
    def requester(self) -> Requester:
        """What sends the requests."""
        if self._requester is None:
            from jobmon.core.requester import Requester

            self._requester = Requester.from_defaults()
        return self._requester

    # -- versions -----------------------------------------------------------------------------------------------

    def get_new_tool_version(self) -> int:
        """Record a new version of the tool, make it the active one and return its id."""
        from jobmon.client import records

        version_id = records.new_tool_version(self)
        self.set_active_tool_version_id(version_id)
        return version_id

    def set_active_tool_version_id(self, tool_version_id: int | str) -> None:
        """Choose the version: by its id, or "latest".

        Raises:
            ValueError: neither.
        """
        is_id = isinstance(tool_version_id, int) and not isinstance(tool_version_id, bool)
        if not is_id and tool_version_id != LATEST:
            raise ValueError(f"A tool version is chosen by its id or by {LATEST!r}, not by {tool_version_id!r}.")
        key = tool_version_id if isinstance(tool_version_id, int) else None
        if key not in self._versions:
            self._versions[key] = ToolVersion(self, key)
        self.active_tool_version = self._versions[key]

    @property
    def active_task_templates(self) -> dict[str, TaskTemplate]:
        """Templates of the active version by name."""
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
    ) -> TaskTemplate:
        """Return the template of this name, with this pattern as its active version.

        Args:
            template_name: its name, unique in the tool.
            command_template: a pattern for `str.format` with named fields.
            node_args: fields that give a task its place in the DAG.
            task_args: fields that identify the data of a workflow.
            op_args: fields that never count towards identity.
            default_cluster_name: where its tasks run.
            default_compute_resources: for that cluster; without one: for every cluster.
            default_resource_scales: likewise.
            yaml_file: a file with `task_template_resources` (and perhaps `task_template_resource_scales`).
            max_attempts: how many attempts its tasks get.

        Raises:
            ValueError: template and declared arguments do not agree, or another value is wrong; says which.
        """
        template = self.active_tool_version.get_task_template(template_name)
        template.get_task_template_version(command_template, node_args, task_args, op_args)
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
    ) -> Workflow:
        """Return a new workflow of this tool. `chunk_size` is a hint only: the server sets the size.

        Raises:
            ValueError: a value is wrong; says which.
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
        )

    def resource_usage(self, ci: float | None = None) -> dict[str, dict[str, Any]]:
        """Return what done tasks of all its workflows used, by template, as `TaskTemplate.resource_usage` does."""
        from jobmon.client import records

        return records.tool_usage(self, ci)

    # -- defaults -----------------------------------------------------------------------------------------------

    @property
    def _defaults_owner(self) -> str:
        return self.name

    @property
    def _defaults_templates(self) -> Iterable[TaskTemplate]:
        return self.active_task_templates.values()

    def shared_iterators(self, scales: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace iterators by objects that read them once, the same for every task that gets the same iterator."""
        return {
            key: self._shared(scale) if isinstance(scale, Iterator) and not callable(scale) else scale
            for key, scale in scales.items()
        }

    def _shared(self, iterator: Iterator[float]) -> IteratorScale:
        return self._iterators.setdefault(id(iterator), IteratorScale(iterator))
