"""What the function of an expansion gets: the upstream tasks with their results, and ways to add and skip tasks."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jobmon.client.expansion import Expansion
from jobmon.client.task import Task
from jobmon.core.constants import LOG_TAIL_BYTES_MAX
from jobmon.core.wire.expanding import UpstreamTasks
from jobmon.core.wire.monitoring import LogTail

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobmon.client.expansion import ExpandingFunction
    from jobmon.client.tool import Tool
    from jobmon.client.workflow import Workflow
    from jobmon.core.requester import Requester


class Upstream:
    """An upstream task of an expansion, DONE or SKIPPED.

    Attributes:
        name: name of the task.
        template: name of its template.
        node_args: its node args by name, as text.
        task_id: its ID.
        status: letter of its status.
        outputs: paths of the outputs that its template declares: a list, or a dict if they have names.
        log_paths: paths of its newest attempt's output files, "stdout" and "stderr".
    """

    __slots__ = (
        "_attempt_id",
        "_requester",
        "log_paths",
        "name",
        "node_args",
        "outputs",
        "status",
        "task_id",
        "template",
    )

    def __init__(self, requester: Requester, page: UpstreamTasks, at: int) -> None:
        self._requester = requester
        self._attempt_id = page.attempts[at]
        self.name = page.names[at]
        self.template = page.templates[at]
        self.node_args = page.node_args[at]
        self.task_id = page.task_ids[at]
        self.status = page.statuses[at]
        outputs = page.outputs[at]
        self.outputs: Mapping[str, str] | Sequence[str] = (
            list(outputs.values()) if all(map(str.isdigit, outputs)) else outputs
        )
        paths = {"stdout": page.stdout[at], "stderr": page.stderr[at]}
        self.log_paths = {stream: path for stream, path in paths.items() if path}

    def __repr__(self) -> str:
        """Return the name and ID of the task."""
        return f"<Upstream {self.name} id={self.task_id}>"

    @property
    def output_tail(self) -> str:
        """The last 10 KiB of its standard output; of a file that cannot be read here, what the server recorded."""
        path = self.log_paths.get("stdout")
        if path is not None:
            try:
                with open(path, "rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES_MAX))
                    return file.read(LOG_TAIL_BYTES_MAX).decode(errors="replace")
            except OSError:
                pass
        if not self._attempt_id:
            return ""
        return self._requester.call(f"/task_instances/{self._attempt_id}/log_tail", None, LogTail, "get").text


class Context:
    """The argument of an expansion's function.

    Attributes:
        workflow: the workflow; it is recorded, so nothing can be added to it directly.
        tool: its tool, from which templates come.
    """

    def __init__(self, workflow: Workflow, requester: Requester, task_id: int) -> None:
        self.workflow = workflow
        self.tool: Tool = workflow.tool
        self._requester = requester
        self._task_id = task_id
        self._expansions: list[Expansion] = []
        #: Tasks to skip, and whether tasks downstream are to be skipped with them.
        self.skipped: list[tuple[Task, bool]] = []

    @cached_property
    def upstreams(self) -> list[Upstream]:
        """The tasks on which the expansion depends, including those that upstream expansions added, by ID."""
        found: list[Upstream] = []
        while True:
            query = {"after": found[-1].task_id if found else 0}
            route = f"/tasks/{self._task_id}/upstream_tasks"
            page = self._requester.call(route, query, UpstreamTasks, "get")
            found += [Upstream(self._requester, page, at) for at in range(len(page.task_ids))]
            if page.is_last:
                return found

    def expand(
        self,
        function: ExpandingFunction,
        after: Iterable[Task] = (),
        name: str = "",
        version: Any = "",
        max_attempts: int = 1,
    ) -> Expansion:
        """Create a further expansion, to be returned with the other tasks; see `Workflow.expand`.

        Args:
            function: its function.
            after: tasks that must be done before: returned ones, or tasks of the workflow.
            name: identifies the expansion within the workflow; "" means the name of the function.
            version: change it if the function changed.
            max_attempts: maximum number of calls in one run.

        Returns:
            The expansion.

        Raises:
            ValueError: a value is invalid.
        """
        expansion = Expansion(self.workflow.tool_version, function, after, name, version, max_attempts)
        self._expansions.append(expansion)
        return expansion

    def skip(self, tasks: Task | Iterable[Task], downstream: bool = True) -> None:
        """Skip tasks of the workflow: they are not run, and tasks downstream no longer wait for them.

        Args:
            tasks: one or several tasks that are neither done nor queued nor running.
            downstream: also skip the tasks whose upstream tasks are all skipped.

        Raises:
            ValueError: a value is not a task.
        """
        for task in [tasks] if isinstance(tasks, Task) else tasks:
            if not isinstance(task, Task):
                raise ValueError(f"Only tasks can be skipped, not {task!r}.")
            self.skipped.append((task, downstream))

    def require_returned(self, tasks: Iterable[Task]) -> None:
        """Check that a function returned all expansions that it created.

        Raises:
            ValueError: it did not return one of them, which would never be called.
        """
        returned = {id(task) for task in tasks}
        for expansion in self._expansions:
            if id(expansion) not in returned:
                raise ValueError(
                    f"Expansion {expansion.name!r} was created but not returned; it would never be called."
                )
