"""Add the upstream tasks that declared files imply."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobmon.client.folder import working_directory
from jobmon.client.task import Task
from jobmon.core.files import Files, Upstreams, files_of

#: Returns a file that the first task writes and the second one reads; None if there is none.
PathBetween = Callable[[Task, Task], str | None]

NO_FILES = Files((), ())


def no_path(_upstream: Task, _task: Task) -> None:
    """Return None: no files are declared."""
    return


def add_upstreams(tasks: Sequence[Task]) -> PathBetween:
    """Make each task depend on the tasks that write its inputs. A second call changes nothing. Linear.

    Args:
        tasks: all tasks of a workflow.

    Returns:
        A function that explains an added dependency by a file.

    Raises:
        DuplicateOutputError: two tasks declare the same output.
        CyclicGraphError: a task declares the same path as input and as output.
        ValueError: a pattern gives no valid path.
    """
    folder = working_directory()
    files = [files_of_task(task, folder) for task in tasks]
    inferred = Upstreams(files, lambda position: tasks[position].name, folder)
    sets = _Sets(tasks)
    for position, task in enumerate(tasks):
        if members := inferred.of(position):
            sets.add(task, members)
    positions = {id(task): position for position, task in enumerate(tasks)}
    return lambda upstream, task: inferred.path_between(positions[id(upstream)], positions[id(task)])


def files_of_task(task: Task, folder: str) -> Files:
    """Return the declared files of a task of a workflow.

    Args:
        task: the task.
        folder: the working folder.

    Raises:
        ValueError: a pattern gives no valid path.
    """
    assert task.array is not None, "it is in a workflow"
    version = task.array.template_version
    if not version.files:
        return NO_FILES
    names = version.arguments.node_args + version.arguments.task_args
    return files_of(version.files, dict(zip(names, task.values, strict=True)), folder)


class _Sets:
    """Sets of upstream tasks, shared by tasks with the same ones: thousands of tasks may read thousands of files."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._inferred: dict[int, tuple[frozenset[int], frozenset[Task]]] = {}
        self._unions: dict[tuple[int, int], tuple[frozenset[Task], frozenset[Task]]] = {}
        self._kept: list[object] = []  # keeps the sets alive by whose IDs others are found

    def add(self, task: Task, members: frozenset[int]) -> None:
        """Add upstream tasks, given by their positions, to a task."""
        inferred = self._of(members)
        explicit = task.upstream_tasks
        key = (id(explicit) if explicit else 0, id(inferred))
        found = self._unions.get(key)
        if found is None:
            added = inferred - explicit if explicit else inferred
            found = self._unions[key] = (added.union(explicit) if explicit else inferred, added)
            self._kept.append(explicit)
        upstreams, added = found
        if added:
            task.take_upstreams(upstreams, added)

    def _of(self, members: frozenset[int]) -> frozenset[Task]:
        known = self._inferred.get(id(members))
        if known is None:
            known = self._inferred[id(members)] = members, frozenset(self._tasks[at] for at in members)
        return known[1]
