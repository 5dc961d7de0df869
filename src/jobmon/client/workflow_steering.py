"""The methods of a workflow that steer its tasks: priorities, holds, edits, skips and reruns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from jobmon.client.defaults import checked_priority

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobmon.client.task import Task
    from jobmon.core.requester import Requester


class SteersTasks(ABC):
    """What `Workflow` offers to steer a recorded workflow, from any process and also while it is running."""

    workflow_id: int | None
    is_bound: bool
    _priority: int

    @property
    @abstractmethod
    def requester(self) -> Requester:
        """Sends requests to the server."""

    @property
    def priority(self) -> int:
        """The priority among workflows that share the cores of a machine, from -1000 to 1000.

        A workflow of lower priority gets the cores that those of higher priority do not want. Setting it also works
        while the workflow is running.

        Raises:
            ValueError: the new priority is not an integer from -1000 to 1000.
        """
        return self._priority

    @priority.setter
    def priority(self, priority: int) -> None:
        checked = checked_priority(priority)
        if self.is_bound:
            self.set_priority(checked)
        self._priority = checked

    def set_priority(self, priority: int, task_template_name: str = "", tasks: Iterable[Task] = ()) -> int:
        """Set the priority of tasks, of a template, or of the recorded workflow, also while it is running.

        Of the tasks that are ready, those with the highest sum of their own priority and that of their template run
        first. Attempts that have not started are put into the new order as well; nothing that runs is stopped.

        Args:
            priority: from -1000 to 1000; the default is 0.
            task_template_name: name of a template, whose priority is added to that of its tasks; "" means `tasks`.
            tasks: the tasks, if no template is named. Without tasks and template, the priority of the workflow is set.

        Returns:
            The number of unfinished tasks whose priority changed.

        Raises:
            ValueError: the workflow is not recorded, a task is not part of it, both a template and tasks are given, or
                the priority is invalid.
            InvalidRequest: the workflow has no task of this template, or a task was removed from it.
        """
        from jobmon.client import steering

        checked = checked_priority(priority)
        workflow_id, ids = self._ids_to_steer(tasks, "prioritized")
        if ids and task_template_name:
            raise ValueError("Specify either a template or the tasks to be prioritized.")
        return steering.prioritize(self.requester, workflow_id, checked, ids, task_template_name).changed

    def hold(self, task_template_name: str = "", tasks: Iterable[Task] = ()) -> int:
        """Hold unfinished tasks: they are not launched until they are released.

        Attempts that have not started are recalled and not charged; running attempts finish. This works from any
        process, also while the workflow is running. `Task.hold` holds a single task.

        Args:
            task_template_name: name of a template all of whose tasks are held; "" means `tasks`.
            tasks: the tasks, if no template is named.

        Returns:
            The number of tasks that were not held before.

        Raises:
            ValueError: the workflow is not recorded, a task is not part of it, or not exactly one of template and tasks
                is given.
            InvalidRequest: the workflow has no task of this template.
        """
        return self._hold(task_template_name, tasks, held=True)

    def release(self, task_template_name: str = "", tasks: Iterable[Task] = ()) -> int:
        """Release held tasks: they are launched as soon as their dependencies and the limits allow.

        Args:
            task_template_name: name of a template all of whose tasks are released; "" means `tasks`.
            tasks: the tasks, if no template is named.

        Returns:
            The number of tasks that were held.

        Raises:
            ValueError: the workflow is not recorded, a task is not part of it, or not exactly one of template and tasks
                is given.
            InvalidRequest: the workflow has no task of this template.
        """
        return self._hold(task_template_name, tasks, held=False)

    def _hold(self, task_template_name: str, tasks: Iterable[Task], *, held: bool) -> int:
        from jobmon.client import steering

        verb = "held" if held else "released"
        workflow_id, ids = self._ids_to_steer(tasks, verb)
        if bool(ids) == bool(task_template_name):
            raise ValueError(f"Specify either a template or the tasks to be {verb}.")
        return steering.hold(self.requester, workflow_id, ids, task_template_name, held=held).changed

    def edit(
        self,
        tasks: Iterable[Task],
        command: str | None = None,
        compute_resources: Mapping[str, Any] | None = None,
        max_attempts: int | None = None,
        *,
        reset: bool = False,
    ) -> int:
        """Edit what the next attempts of tasks run, also while the workflow is running; see `Task.edit`.

        Args:
            tasks: the tasks.
            command: the new command of each of them; None leaves it.
            compute_resources: resources to change, as in `create_task`, including "queue"; the others are kept.
            max_attempts: the new maximum number of attempts; None leaves it.
            reset: restore what the script defined, instead of changing anything.

        Returns:
            The number of tasks that have another definition now.

        Raises:
            ValueError: the workflow is not recorded, a task is not part of it, or there is nothing to change.
            InvalidResources: no queue of the cluster of a task can hold the request; nothing has been changed.
            InvalidRequest: a task is done or was removed, or somebody else changed it in the meantime; nothing has been
                changed.
        """
        from jobmon.client import editing

        workflow_id, ids = self._ids_to_steer(tasks, "edited")
        edit = editing.Edit(command, compute_resources or {}, max_attempts, reset=reset)
        return editing.edit(self.requester, workflow_id, ids, edit).changed

    def skip(self, tasks: Iterable[Task]) -> int:
        """Skip unfinished tasks: they are not run, and tasks downstream no longer wait for them.

        This also works for tasks that failed permanently. A skipped task remains skipped until `rerun`.

        Args:
            tasks: the tasks.

        Returns:
            The number of tasks that were not skipped before.

        Raises:
            ValueError: the workflow is not recorded, or a task is not part of it.
            InvalidRequest: a task is done, queued or running; nothing has been changed.
        """
        from jobmon.client import steering

        workflow_id, ids = self._ids_to_steer(tasks, "skipped")
        return steering.skip(self.requester, workflow_id, ids)

    def rerun(self, tasks: Iterable[Task], *, only: bool = False, command: str | None = None) -> int:
        """Request a rerun of tasks and everything downstream, also while the workflow is running.

        Live attempts of these tasks are terminated and not charged. If the workflow is not running, the tasks are rerun
        at the next resume.

        Args:
            tasks: the tasks.
            only: rerun only these tasks; the results of done tasks downstream are accepted.
            command: the command that each of the tasks runs from now on, as with `edit`; None leaves it.

        Returns:
            The number of tasks to be rerun that would not have run otherwise.

        Raises:
            ValueError: the workflow is not recorded, or a task is not part of it.
        """
        from jobmon.client import editing, steering

        workflow_id, ids = self._ids_to_steer(tasks, "rerun")
        found = steering.plan_rerun(self.requester, workflow_id, ids, only=only)
        if command is None:
            return sum(steering.rerun(self.requester, workflow_id, found.task_ids, only=only))
        editing.edit(self.requester, workflow_id, ids, editing.Edit(command), rerun=True, only=only)
        steering.rerun(self.requester, workflow_id, found.task_ids, only=only)
        return len(found.task_ids)

    def _ids_to_steer(self, tasks: Iterable[Task], verb: str) -> tuple[int, list[int]]:
        if self.workflow_id is None:
            raise ValueError(f"Only tasks of a recorded workflow can be {verb}: bind() the workflow first.")
        given = list(tasks)
        for task in given:
            if task.workflow is not self:
                raise ValueError(f"Task {task.name!r} is not in this workflow.")
        return self.workflow_id, [task.task_id for task in given if task.task_id is not None]
