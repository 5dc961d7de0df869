"""A version of a tool and the templates that belong to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.client.task_template import TaskTemplate

if TYPE_CHECKING:
    from jobmon.client.tool import Tool


class ToolVersion:
    """A version of a tool. `id` None means the newest version, whose ID is known once something is recorded."""

    def __init__(self, tool: Tool, version_id: int | None = None) -> None:
        self.tool = tool
        self.id = version_id
        #: By name: the templates of this script, and the recorded ones once they are loaded.
        self.task_templates: dict[str, TaskTemplate] = {}
        self._is_loaded = False

    def __repr__(self) -> str:
        """Return the type, tool and version."""
        return f"<ToolVersion {self.tool.name} {'latest' if self.id is None else self.id}>"

    def load_task_templates(self) -> None:
        """Load the recorded templates from the server, once."""
        if not self._is_loaded:
            from jobmon.client import api_calls

            api_calls.load_templates(self)
            self._is_loaded = True

    def get_task_template(self, template_name: str) -> TaskTemplate:
        """Return the template of this name, or a new one without versions.

        Args:
            template_name: name of the template.

        Raises:
            ValueError: the name is empty or too long.
        """
        template = self.task_templates.get(template_name)
        if template is None:
            template = self.task_templates[template_name] = TaskTemplate(template_name, self)
        return template
