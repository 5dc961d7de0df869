"""The DAG of a workflow: whether it is one, its hash, and its edges as sets of upstreams. Pure; linear.

Tasks with the same upstreams mostly share one set object, so everything here works on sets, not on single edges: a
thousand tasks that wait for the same thousand cost two thousand steps, not a million.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from jobmon.client.node import digest_of, digest_of_many
from jobmon.client.task import Task
from jobmon.core.exceptions import CyclicGraphError, EmptyWorkflowError, NodeDependencyNotExistError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.client.workflow import Workflow

Upstreams = frozenset["Task"] | set["Task"]
CYCLE_NAMES_MAX: Final = 50
MISSING_NAMES_MAX: Final = 10


def check(workflow: Workflow) -> None:
    """Check that the workflow's tasks form a DAG.

    Raises:
        EmptyWorkflowError: there are no tasks.
        NodeDependencyNotExistError: a task waits for one that is not in the workflow.
        CyclicGraphError: tasks wait for each other; prints the cycle.
    """
    if not workflow.tasks:
        raise EmptyWorkflowError
    tasks = list(workflow.tasks.values())
    _check_upstreams_present(workflow, tasks)
    check_acyclic(tasks)


def _check_upstreams_present(workflow: Workflow, tasks: Iterable[Task]) -> None:
    for upstreams, followers in _followers(tasks):
        missing = [task.name for task in upstreams if task.workflow is not workflow]
        if missing:
            listed = ", ".join(map(repr, sorted(missing)[:MISSING_NAMES_MAX]))
            raise NodeDependencyNotExistError(
                f"Task {followers[0].name!r} depends on {listed}: not in the workflow. Add with workflow.add_tasks()."
            )


def _followers(tasks: Iterable[Task]) -> list[tuple[Upstreams, list[Task]]]:
    """Return each set of upstreams with the tasks that have it."""
    groups: dict[int, tuple[Upstreams, list[Task]]] = {}
    for task in tasks:
        upstreams = task.upstream_tasks
        if upstreams:
            group = groups.get(id(upstreams))
            if group is None:
                group = groups[id(upstreams)] = (upstreams, [])
            group[1].append(task)
    return list(groups.values())


def check_acyclic(tasks: Sequence[Task]) -> None:
    """Raise CyclicGraphError, with the names along the cycle, if tasks wait for each other."""
    groups = _followers(tasks)
    groups_of: dict[int, list[int]] = {}
    for index, (upstreams, _) in enumerate(groups):
        for upstream in upstreams:
            groups_of.setdefault(id(upstream), []).append(index)
    waiting = [len(upstreams) for upstreams, _ in groups]
    stack = [task for task in tasks if not task.upstream_tasks]
    settled: set[int] = set()
    while stack:
        task = stack.pop()
        settled.add(id(task))
        for index in groups_of.get(id(task), ()):
            waiting[index] -= 1
            if not waiting[index]:
                stack.extend(groups[index][1])
    if len(settled) < len(tasks):
        raise CyclicGraphError(_cycle_text([task for task in tasks if id(task) not in settled], settled))


def _cycle_text(unsettled: Sequence[Task], settled: set[int]) -> str:
    """Walk against the arrows among tasks that never became ready: each has such an upstream, so a name comes again."""
    path: list[Task] = []
    place: dict[int, int] = {}
    task = unsettled[0]
    while id(task) not in place:
        place[id(task)] = len(path)
        path.append(task)
        task = next(upstream for upstream in task.upstream_tasks if id(upstream) not in settled)
    names = [task.name for task in path[place[id(task)] :]]
    names = [names[0], *reversed(names)]
    if len(names) > CYCLE_NAMES_MAX:
        hidden = len(names) - CYCLE_NAMES_MAX
        names = [*names[: CYCLE_NAMES_MAX // 2], f"({hidden} more)", *names[-CYCLE_NAMES_MAX // 2 :]]
    return f"The dependencies form a cycle: {' -> '.join(names)}."


@dataclass(frozen=True, slots=True)
class EdgeSets:
    """Distinct sets of upstreams, and the number of the set that each task with upstreams has."""

    sets: list[Upstreams]
    members: list[tuple[Task, int]]
    dag_hash: str


def edge_sets(tasks: Iterable[Task]) -> EdgeSets:
    """Number the distinct sets of upstreams and compute the DAG's hash, which does not depend on any order."""
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
