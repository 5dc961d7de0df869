"""A version of a tool and the templates that belong to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmon.client.task_template import TaskTemplate

if TYPE_CHECKING:
    from jobmon.client.tool import Tool


class ToolVersion:
    """A version of a tool. `id` None means the newest one; which that is, is known once something is recorded."""

    def __init__(self, tool: Tool, version_id: int | None = None) -> None:
        self.tool = tool
        self.id = version_id
        self.task_templates: dict[str, TaskTemplate] = {}

    def __repr__(self) -> str:
        """Name tool and version."""
        return f"<ToolVersion {self.tool.name} {'latest' if self.id is None else self.id}>"

    def get_task_template(self, template_name: str) -> TaskTemplate:
        """Return the template of this name, a new one without versions if there is none."""
        template = self.task_templates.get(template_name)
        if template is None:
            template = self.task_templates[template_name] = TaskTemplate(template_name, self)
        return template
