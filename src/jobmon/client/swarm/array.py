"""All tasks of one template in the running workflow, and their concurrency limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobmon.client.swarm.task import SwarmTask


class SwarmArray:
    """An array of the running workflow. `SwarmState.apply_update` changes its limit."""

    __slots__ = ("array_id", "array_name", "max_concurrently_running", "tasks")

    def __init__(self, array_id: int, max_concurrently_running: int, array_name: str | None = None) -> None:
        self.array_id = array_id
        self.max_concurrently_running = max_concurrently_running
        self.array_name = array_name
        self.tasks: set[SwarmTask] = set()

    def add_task(self, task: SwarmTask) -> None:
        """Add a task.

        Raises:
            ValueError: the task belongs to another array.
        """
        if task.array_id != self.array_id:
            raise ValueError(f"Task {task.task_id} belongs to array {task.array_id}, not to array {self.array_id}.")
        self.tasks.add(task)

    def __repr__(self) -> str:
        return f"SwarmArray({self.array_id}, {len(self.tasks)} tasks, at most {self.max_concurrently_running} at once)"
