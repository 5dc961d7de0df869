"""What depends on what, to draw: the templates of a workflow, the neighbourhood of a task, the critical path."""

from __future__ import annotations

from datetime import datetime

from jobmon.core.wire import Message


class TemplateEdge(Message, frozen=True, kw_only=True):
    """`tasks` tasks of the template `downstream` depend directly on tasks of the template `upstream`."""

    upstream: str
    downstream: str
    tasks: int


class TemplateGraph(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/template_graph: templates in the order of their arrays, and their dependencies.

    A template whose tasks depend on each other has an edge to itself.
    """

    templates: list[str]
    edges: list[TemplateEdge]


class GraphTask(Message, frozen=True, kw_only=True):
    """A task of a neighbourhood. `step`: its distance; negative upstream. `more`: neighbours that are not shown."""

    task_id: int
    name: str
    status: str
    step: int
    more: int = 0


class TaskEdge(Message, frozen=True, kw_only=True):
    """The task `downstream` depends directly on the task `upstream`."""

    upstream: int
    downstream: int


class TaskGraph(Message, frozen=True, kw_only=True):
    """GET /tasks/{task_id}/graph?steps=: everything upstream and downstream of a task, up to a number of steps."""

    task_id: int
    tasks: list[GraphTask]
    edges: list[TaskEdge]


class CriticalTask(Message, frozen=True, kw_only=True):
    """A task on the critical path, with the times of its newest attempt; of an expansion, with those of its call.

    `waited_seconds`: since the upstream task.
    """

    task_id: int
    name: str
    template: str
    status: str
    started_at: datetime
    ended_at: datetime | None
    waited_seconds: float


class CriticalPath(Message, frozen=True, kw_only=True):
    """GET /workflows/{workflow_id}/critical_path: the chain of tasks that determined when the workflow was over.

    Its last task ended last, or runs the longest; each one before it is the upstream task that ended last. `is_cut`:
    the chain is longer, and its beginning is missing.
    """

    tasks: list[CriticalTask]
    is_cut: bool = False
