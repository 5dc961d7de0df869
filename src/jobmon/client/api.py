"""The public names of the client: `from jobmon.client.api import Tool`."""

from __future__ import annotations

from jobmon.client.array import Array
from jobmon.client.expansion import Expansion
from jobmon.client.run_handle import RunHandle
from jobmon.client.status import add_task_attributes, task_status, workflow_status, workflow_tasks
from jobmon.client.task import Task
from jobmon.client.task_template import TaskTemplate
from jobmon.client.task_template_version import TaskTemplateVersion
from jobmon.client.tool import Tool
from jobmon.client.tool_version import ToolVersion
from jobmon.client.workflow import Workflow
from jobmon.core.constants import TaskStatus, WorkflowRunStatus, WorkflowStatus

__all__ = [
    "Array",
    "Expansion",
    "RunHandle",
    "Task",
    "TaskStatus",
    "TaskTemplate",
    "TaskTemplateVersion",
    "Tool",
    "ToolVersion",
    "Workflow",
    "WorkflowRunStatus",
    "WorkflowStatus",
    "add_task_attributes",
    "task_status",
    "workflow_status",
    "workflow_tasks",
]
