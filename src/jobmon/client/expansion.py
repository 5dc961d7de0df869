"""An expansion: a task whose Python function adds tasks to the workflow while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmon.client.defaults import checked_max_attempts
from jobmon.client.task import Task, checked_upstreams
from jobmon.client.task_options import TaskOptions
from jobmon.client.values import stable_text
from jobmon.core import expansions
from jobmon.core.texts import checked_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.client.tool_version import ToolVersion

    #: Called with a `Context`; returns the tasks to add.
    ExpandingFunction = Callable[..., Iterable[Task] | None]


class Expansion(Task):
    """A task that runs no command: its function adds tasks to the workflow. Created by `Workflow.expand`.

    It is an upstream task like any other. A task that depends on it also waits for all tasks that it added.
    """

    __slots__ = ("function",)

    def __init__(
        self,
        tool_version: ToolVersion,
        function: ExpandingFunction,
        after: Iterable[Task] = (),
        name: str = "",
        version: Any = "",
        max_attempts: int = 1,
    ) -> None:
        if not callable(function):
            raise ValueError(f"An expansion needs a function of one argument, not {function!r}.")
        name = name or getattr(function, "__name__", "")
        if name == "<lambda>" or not name:
            raise ValueError(f"{function!r} has no name that could identify the expansion: pass name=.")
        self.function = function
        upstreams = frozenset(checked_upstreams(after))
        args = {
            "expansion": name,
            "version": checked_text("version", stable_text(version, lambda: "version")),
            "function": expansions.function_text(function),
        }
        options = TaskOptions(max_attempts=checked_max_attempts(max_attempts))
        super().__init__(_template_version(tool_version), args, name, upstreams or None, options)

    def __repr__(self) -> str:
        """Return the type, name and ID of the expansion."""
        return f"<Expansion {self.name} id={self.task_id}>"

    @property
    def function_text(self) -> str:
        """The function, as `module:function`."""
        return expansions.function_of(self.command)


def _template_version(tool_version: ToolVersion) -> TaskTemplateVersion:
    """Return the template version of all expansions."""
    template = tool_version.get_task_template(expansions.TEMPLATE_NAME)
    return template.get_task_template_version(
        expansions.COMMAND_TEMPLATE, node_args=["expansion"], task_args=["version"], op_args=["function"]
    )
