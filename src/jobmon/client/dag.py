"""The DAG of a workflow: acyclicity, its hash, and its edges as sets of upstream tasks. Pure; linear.

Tasks with the same upstream tasks mostly share one set object, so everything here works on sets, not on single edges: a
thousand tasks that depend on the same thousand tasks cost two thousand steps, not a million.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from jobmon.client import file_edges
from jobmon.client.file_edges import PathBetween, no_path
from jobmon.client.node import digest_of, digest_of_many
from jobmon.client.task import Task, with_downstreams, with_upstreams
from jobmon.core.exceptions import CyclicGraphError, EmptyWorkflowError, NodeDependencyNotExistError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.client.workflow import Workflow

Upstreams = frozenset["Task"] | set["Task"]
CYCLE_NAMES_MAX: Final = 50
MISSING_NAMES_MAX: Final = 10


def check(workflow: Workflow) -> None:
    """Add the dependencies that files imply, and check that the workflow's tasks form a DAG.

    Raises:
        EmptyWorkflowError: there are no tasks.
        DuplicateOutputError: two tasks declare the same output.
        NodeDependencyNotExistError: a task in the workflow depends on a task outside of it, or the reverse.
        CyclicGraphError: the dependencies form a cycle; the message names its tasks.
    """
    if not workflow.tasks:
        raise EmptyWorkflowError
    tasks = list(workflow.tasks.values())
    declares_files = any(array.template_version.files for array in workflow.arrays.values())
    path_between = file_edges.add_upstreams(tasks) if declares_files else no_path
    _check_upstreams_present(workflow, tasks)
    _check_downstreams_present(workflow, tasks)
    check_acyclic(tasks, path_between)


def _check_upstreams_present(workflow: Workflow, tasks: Iterable[Task]) -> None:
    for upstreams, followers in _followers(tasks):
        missing = [task.name for task in upstreams if task.workflow is not workflow]
        if missing:
            raise NodeDependencyNotExistError(
                f"Task {followers[0].name!r} depends on {_listed_names(missing)}: not in the workflow. Add with"
                " workflow.add_tasks()."
            )


def _check_downstreams_present(workflow: Workflow, tasks: Iterable[Task]) -> None:
    """Check that every downstream task was added: it would never run otherwise, without any message."""
    seen: set[int] = set()
    for task in with_downstreams(tasks):
        missing = [each.name for each in task.noted_downstreams(seen) if each.workflow is not workflow]
        if missing:
            one = len(missing) == 1
            raise NodeDependencyNotExistError(
                f"{'Task' if one else 'Tasks'} {_listed_names(missing)} {'depends' if one else 'depend'} on"
                f" {task.name!r} but {'is' if one else 'are'} not in the workflow and would never run. Add"
                f" {'it' if one else 'them'} with workflow.add_tasks()."
            )


def _listed_names(names: Sequence[str]) -> str:
    """Return names for a message, up to a maximum."""
    more = len(names) - MISSING_NAMES_MAX
    listed = ", ".join(map(repr, sorted(names)[:MISSING_NAMES_MAX]))
    return f"{listed} and {more} more" if more > 0 else listed


def _followers(tasks: Iterable[Task]) -> list[tuple[Upstreams, list[Task]]]:
    """Return each set of upstream tasks with the tasks that have it."""
    groups: dict[int, tuple[Upstreams, list[Task]]] = {}
    for task in with_upstreams(tasks):
        upstreams = task.upstream_tasks
        group = groups.get(id(upstreams))
        if group is None:
            group = groups[id(upstreams)] = (upstreams, [])
        group[1].append(task)
    return list(groups.values())


def check_acyclic(tasks: Sequence[Task], path_between: PathBetween = no_path, outside: Iterable[Task] = ()) -> None:
    """Raise CyclicGraphError, with the names along the cycle, if the dependencies form a cycle.

    Args:
        tasks: all tasks.
        path_between: returns a file that a task writes and another one reads, for the message.
        outside: other tasks on which these depend, and which depend on none of them.
    """
    groups = _followers(tasks)
    if not groups:
        return
    groups_of: dict[int, list[int]] = {}
    for index, (upstreams, _) in enumerate(groups):
        for upstream in upstreams:
            groups_of.setdefault(id(upstream), []).append(index)
    waiting = [len(upstreams) for upstreams, _ in groups]
    stack = [*outside, *(task for task in tasks if not task.upstream_tasks)]
    settled: set[int] = set()
    while stack:
        task = stack.pop()
        settled.add(id(task))
        for index in groups_of.get(id(task), ()):
            waiting[index] -= 1
            if not waiting[index]:
                stack.extend(groups[index][1])
    if left := [task for task in tasks if id(task) not in settled]:
        raise CyclicGraphError(_cycle_text(left, settled, path_between))


def _cycle_text(unsettled: Sequence[Task], settled: set[int], path_between: PathBetween) -> str:
    """Walk upstream among tasks that never became ready: each has such an upstream task, so a task is reached twice."""
    path: list[Task] = []
    place: dict[int, int] = {}
    task = unsettled[0]
    while id(task) not in place:
        place[id(task)] = len(path)
        path.append(task)
        task = next(upstream for upstream in task.upstream_tasks if id(upstream) not in settled)
    cycle = path[place[id(task)] :]
    cycle = [cycle[0], *reversed(cycle)]
    names = [task.name for task in cycle]
    if len(names) > CYCLE_NAMES_MAX:
        hidden = len(names) - CYCLE_NAMES_MAX
        names = [*names[: CYCLE_NAMES_MAX // 2], f"({hidden} more)", *names[-CYCLE_NAMES_MAX // 2 :]]
    return f"The dependencies form a cycle: {' -> '.join(names)}.{_files_text(cycle, path_between)}"


def _files_text(cycle: Sequence[Task], path_between: PathBetween) -> str:
    """Return sentences that name the files because of which tasks of a cycle depend on each other."""
    pairs = list(itertools.pairwise(cycle))[:MISSING_NAMES_MAX]
    found = ((one, other, path_between(one, other)) for one, other in pairs)
    return "".join(f" {other.name!r} reads {path}, which {one.name!r} writes." for one, other, path in found if path)


@dataclass(frozen=True, slots=True)
class EdgeSets:
    """Distinct sets of upstream tasks, and the number of the set of each task that has upstream tasks."""

    sets: list[Upstreams]
    members: list[tuple[Task, int]]
    dag_hash: str


def edge_sets(tasks: Iterable[Task]) -> EdgeSets:
    """Number the distinct sets of upstream tasks and compute the DAG's hash, which does not depend on any order."""
    sets: list[Upstreams] = []
    number_of: dict[bytes, int] = {}
    members: list[tuple[Task, int]] = []
    ordered = list(tasks)
    groups = _followers(ordered)
    if not groups:
        return EdgeSets(sets, members, digest_of_many(task.node_digest for task in ordered).hex())
    nodes = [task.node_digest for task in ordered if not task.upstream_tasks]
    for upstreams, followers in groups:
        digest = digest_of([task.node_digest for task in upstreams])
        number = number_of.setdefault(digest, len(sets))
        if number == len(sets):
            sets.append(upstreams)
        for task in followers:
            members.append((task, number))
            nodes.append(task.node_digest + digest)
    nodes.sort()
    return EdgeSets(sets, members, sha256(b"".join(nodes)).hexdigest())


def task_hash(tasks: Iterable[Task]) -> str:
    """Return the hash of all task identities, which does not depend on their order."""
    return digest_of_many(task.task_digest for task in tasks).hex()
