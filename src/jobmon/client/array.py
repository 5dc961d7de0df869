"""An array: all tasks of one template in one workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.client.task import node_number
from jobmon.core.exceptions import DuplicateNodeArgsError

if TYPE_CHECKING:
    from jobmon.client.task import Task
    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.client.workflow import Workflow


class Array:
    """Tasks of one template version in a workflow. `array_id` is set once the workflow is recorded."""

    __slots__ = ("_limit", "_nodes", "array_id", "name", "tasks", "template_version", "workflow")

    def __init__(self, template_version: TaskTemplateVersion, workflow: Workflow) -> None:
        self.template_version = template_version
        self.workflow = workflow
        self.tasks: list[Task] = []
        self.array_id: int | None = None
        #: The template's name, unless `create_tasks` was given another one.
        self.name = template_version.name
        self._limit: int | None = None
        #: Nodes added so far; None without task args, because the workflow's table of tasks then detects duplicates.
        self._nodes: set[int] | None = set() if template_version.arguments.task_args else None

    @property
    def priority(self) -> int:
        """Added to the priority of each of its tasks."""
        return self.template_version.template.priority

    @property
    def max_concurrently_running(self) -> int:
        """Maximum number of its tasks that are queued or running at once."""
        return self.template_version.template.max_concurrently_running if self._limit is None else self._limit

    @max_concurrently_running.setter
    def max_concurrently_running(self, limit: int) -> None:
        self._limit = limit

    def add_task(self, task: Task) -> None:
        """Add a task.

        Args:
            task: a task of this template version.

        Raises:
            DuplicateNodeArgsError: another task of the array has the same node args.
        """
        if self._nodes is not None:
            key = node_number(task)
            if key in self._nodes:
                raise duplicate(task)
            self._nodes.add(key)
        self.tasks.append(task)
        self.name = task.options.array_name or self.name
        task.array = self


def duplicate(task: Task) -> DuplicateNodeArgsError:
    """Return the error that names the node args two tasks have in common."""
    given = ", ".join(f"{name}={value!r}" for name, value in task.node_args.items()) or "no node args"
    return DuplicateNodeArgsError(
        f"Two tasks of template {task.template_version.name!r} have the same node args: {given}."
    )
