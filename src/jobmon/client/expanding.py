"""Call the function of an expansion, and record the tasks that it returns as a version of the workflow.

All of this runs in the thread of `swarm.services.expander`. The function gets a `Context`. Everything that can be
checked is checked before the first request; what the server refuses leaves the workflow as it was.
"""

from __future__ import annotations

import socket
import traceback
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobmon.client import api_calls, dag, file_edges, functions, recorded
from jobmon.client import binding as binding_steps
from jobmon.client.array import Array, duplicate
from jobmon.client.changing import Change
from jobmon.client.clusters import Clusters, ResourceResolver
from jobmon.client.comparison import Comparison, UpstreamChange, definition_of
from jobmon.client.context import Context
from jobmon.client.expansion import Expansion
from jobmon.client.recorded import Recorded, RecordedTask
from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.services.expander import CallFailed, Growth, added_by, downstream_of
from jobmon.client.task import Task, growing
from jobmon.client.tracebacks import PACKAGE, is_deliberate
from jobmon.core import expansions
from jobmon.core.changes import NO_SET, UP_TO_DATE, Action, Decision, Reason, definition_changes
from jobmon.core.configuration import JobmonConfig
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import (
    CyclicGraphError,
    JobmonError,
    NodeDependencyNotExistError,
    StaleRun,
    WorkflowChanged,
    WorkflowNotResumable,
    WorkflowVersionConflict,
)
from jobmon.core.fsm import IN_FLIGHT, SATISFIED
from jobmon.core.paths import user_name
from jobmon.core.texts import number_of
from jobmon.core.wire.binding import ArraySpec, ArraysRequest, IdsResponse
from jobmon.core.wire.changes import RecordedTemplate, RecordedWorkflow, VersionRequest
from jobmon.core.wire.expanding import ExpansionsPage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from jobmon.client.swarm.builder import SwarmBuilder
    from jobmon.client.swarm.gateway import RecordedExpansion
    from jobmon.client.swarm.services.expander import Look
    from jobmon.client.swarm.state import SwarmState
    from jobmon.client.swarm.task import SwarmTask
    from jobmon.client.workflow import Workflow
    from jobmon.core.requester import Requester
    from jobmon.core.wire.launching import ClusterInfo

    #: Called with the clusters that added tasks use, before and after these are recorded; the first call may refuse.
    Serve = Callable[[Sequence[ClusterInfo], bool], None]

_Loaded = TypeVar("_Loaded")
#: Maximum number of names in a message.
NAMES_SHOWN_MAX: Final = 5
#: Nothing is known of a task outside of what an expansion adds but its ID.
#: Carries exceptions from the loop to the thread of the function; its frames say nothing.
_FUTURES: Final = futures._base.__file__
_NO_TEMPLATE: Final = RecordedTemplate(name="", command_template="", node_args=[], task_args=[])
_ADDED: Final = Decision(Action.RUN, (Reason.NEW,), forces=True)


@dataclass(frozen=True, slots=True)
class _Decided:
    """See `changing.Decided`."""

    comparison: Comparison
    decisions: list[Decision]


@dataclass(slots=True)
class _Addition:
    """What one call returned: the tasks, and the sets of upstream tasks that some of them share."""

    tasks: list[Task]
    arrays: dict[str, Array] = field(default_factory=dict)
    sets: dict[int, tuple[frozenset[Task] | set[Task], list[int]]] = field(default_factory=dict)

    @property
    def outside(self) -> list[Task]:
        """Upstream tasks that were recorded before."""
        return [upstream for upstream, _ in self.outside_with_users()]

    def outside_with_users(self) -> list[tuple[Task, Task]]:
        """Return the upstream tasks that are not among the tasks, each with one of the tasks that depend on it."""
        own = {id(task) for task in self.tasks}
        sets = {id(task.upstream_tasks): task for task in self.tasks}
        found = {
            id(upstream): (upstream, task)
            for task in sets.values()
            for upstream in task.upstream_tasks
            if id(upstream) not in own
        }
        return list(found.values())


class ExpansionCaller:
    """Calls the functions of the expansions of one workflow in one run; see `swarm.services.expander.Caller`.

    Args:
        workflow: the workflow; of a run that was resumed by ID, one without tasks.
        builder: turns tasks into objects of the state.
        serve: makes sure that the clusters of added tasks are served.
        allows_removal: whether tasks may be removed that an earlier call added.
        load: returns the function of a name, for expansions that were added in earlier runs.
    """

    def __init__(
        self,
        workflow: Workflow,
        builder: SwarmBuilder,
        *,
        serve: Serve | None,
        allows_removal: bool,
        load: Callable[[str], Callable[..., Any]] = functions.load_here,
    ) -> None:
        self._workflow = workflow
        self._workflow_id = workflow.workflow_id or 0
        self._run_id = builder.workflow_run_id
        self._requester = workflow.requester.without_limit()
        self._builder = builder
        self._serve = serve
        self._allows_removal = allows_removal
        self._load = load
        self._known: dict[int, Expansion] = {
            task.task_id: task
            for task in workflow.tasks.values()
            if isinstance(task, Expansion) and task.task_id is not None
        }
        #: Expansions that only the record has: name, function and maximum number of calls.
        self._recorded: dict[int, tuple[str, Callable[..., Any], int]] = {}
        self._clusters = Clusters(self._requester)
        self._array_ids = {array.template_version.digest: array.array_id for array in workflow.arrays.values()}
        self._digests = {
            array.template_version.name: array.template_version.digest for array in workflow.arrays.values()
        }
        self._ancestors: dict[int, int] = {}

    def learn(self, found: RecordedExpansion, task: SwarmTask) -> None:
        """Note an expansion that only the record has.

        Raises:
            WorkflowNotResumable: its function cannot be found.
        """
        self._ancestors[found.task_id] = task.origin_id
        if found.task_id not in self._known:
            function = _load(found.name, expansions.function_of(found.command), self._load)
            self._recorded[found.task_id] = found.name, function, task.max_attempts

    def name_of(self, task_id: int) -> str:
        """Return the name of an expansion, for messages."""
        known = self._known.get(task_id)
        return repr(self._recorded[task_id][0] if known is None else known.name)

    def max_attempts_of(self, task_id: int) -> int:
        """Return how often the function of an expansion may be called in a run."""
        known = self._known.get(task_id)
        return self._recorded[task_id][2] if known is None else known.max_attempts

    def _function_of(self, task_id: int) -> Callable[..., Any]:
        known = self._known.get(task_id)
        if known is not None:
            return known.function
        if task_id not in self._recorded:  # it was done before the run
            learn_recorded(self, self._builder, [task_id])
        return self._recorded[task_id][1]

    def call(self, task_id: int, calls: int, look: Look) -> Growth:
        """Call the function of an expansion and record what it returns; see `Caller.call`."""
        context = Context(self._workflow, self._requester, task_id)
        token = growing.set(self._workflow)
        try:
            returned = _listed(self._function_of(task_id)(context))
            addition = self._checked(returned, context, task_id, look)
            skipped = look(lambda state: self._skipped(context, state)) if context.skipped else []
            return self._record(task_id, calls, addition, skipped, look)
        except (StaleRun, WorkflowVersionConflict):
            raise
        except BaseException as error:
            message = _message(error)
            raise CallFailed(message, "\n".join(filter(None, (message, _traceback(error))))) from None
        finally:
            growing.reset(token)
            self._requester.close()

    # -- checks --------------------------------------------------------------------------------------------------------

    def _checked(self, tasks: list[Task], context: Context, task_id: int, look: Look) -> _Addition:
        for task in tasks:
            if task.array is not None:
                raise ValueError(f"Task {task.name!r} is already in a workflow; return only new tasks.")
        context.require_returned(tasks)
        addition = _Addition(tasks)
        for task in tasks:
            self._add(addition, task)
        self._check_upstreams(addition, task_id, look)
        path_between: file_edges.PathBetween = file_edges.no_path
        if any(array.template_version.files for array in addition.arrays.values()):
            path_between = file_edges.add_upstreams(tasks)
            addition.sets.clear()
        for position, task in enumerate(tasks):
            if task.upstream_tasks:
                addition.sets.setdefault(id(task.upstream_tasks), (task.upstream_tasks, []))[1].append(position)
        dag.check_acyclic(tasks, path_between, addition.outside)
        return addition

    def _add(self, addition: _Addition, task: Task) -> None:
        """Put a task into its array."""
        version = task.template_version
        if self._digests.setdefault(version.name, version.digest) != version.digest:
            raise ValueError(
                f"The workflow contains tasks of another version of template {version.name!r} than"
                f" {version.command_template!r}. Rename one of them."
            )
        array = addition.arrays.get(version.name)
        if array is None:
            array = addition.arrays[version.name] = Array(version, self._workflow)
            array.array_id = self._array_ids.get(version.digest)
        array.add_task(task)

    def _check_upstreams(self, addition: _Addition, task_id: int, look: Look) -> None:
        """Check the upstream tasks that are not returned: they are recorded, and do not wait for the expansion.

        Raises:
            NodeDependencyNotExistError: one is not recorded in this workflow.
            CyclicGraphError: one, or something that one has added, waits for the expansion.
        """
        outside = addition.outside_with_users()
        for upstream, task in outside:
            if upstream.workflow is not self._workflow or upstream.task_id is None:
                raise NodeDependencyNotExistError(
                    f"Task {task.name!r} depends on {upstream.name!r}: neither in the workflow nor returned."
                )
        waiting = self._ancestors_of(task_id)
        if outside:
            waiting |= look(partial(downstream_of, task_id=task_id))
        for upstream, task in outside:
            found = {_id(upstream)}
            if isinstance(upstream, Expansion):
                found |= look(partial(added_by, task_id=_id(upstream)))
            if not waiting.isdisjoint(found):
                raise CyclicGraphError(
                    f"The dependencies form a cycle: task {task.name!r} depends on {upstream.name!r}, which waits"
                    f" for everything that expansion {self.name_of(task_id)} adds."
                )

    def _ancestors_of(self, task_id: int) -> set[int]:
        """Return an expansion with those that added it, directly or not."""
        found = {task_id}
        while (origin_id := self._ancestors.get(task_id, 0)) and origin_id not in found:
            found.add(origin_id)
            task_id = origin_id
        return found

    def _skipped(self, context: Context, state: SwarmState) -> list[int]:
        """Return the tasks to skip."""
        wanted: dict[int, None] = {}
        for task, with_downstream in context.skipped:
            if task.workflow is not self._workflow or task.task_id is None:
                raise ValueError(f"Task {task.name!r} cannot be skipped, because it is not in the workflow.")
            known = state.tasks.get(task.task_id)
            if known is None or known.status in (TaskStatus.DONE, *IN_FLIGHT):
                status = TaskStatus.DONE if known is None else known.status
                raise ValueError(
                    f"Task {task.name!r} is {status.name}; only tasks that are neither done nor queued nor running can"
                    " be skipped."
                )
            wanted[task.task_id] = None
            if with_downstream:
                _skip_downstream(state, wanted, known)
        return list(wanted)

    # -- recording -----------------------------------------------------------------------------------------------------

    def _record(self, task_id: int, calls: int, addition: _Addition, skipped: Sequence[int], look: Look) -> Growth:
        commands = [task for task in addition.tasks if not isinstance(task, Expansion)]
        resolver = ResourceResolver(self._clusters)
        resolver.resolve(commands)
        clusters = [self._clusters.info(name) for name in sorted({task.cluster_name for task in commands})]
        self._builder.learn_clusters(commands)
        if self._serve is not None:
            self._serve(clusters, False)
        known = self._before(task_id, calls)
        decided = _decided(addition, known, task_id)
        if decided.comparison.removed and not self._allows_removal:
            raise WorkflowChanged(_about_removed(self.name_of(task_id), decided.comparison))
        self._record_definitions(addition, resolver)
        change = Change(
            self._requester,
            addition.arrays,
            decided,
            known,
            binding_steps.columns_of,
            binding_steps.task_columns,
        )
        change.apply(self._version_request(task_id, decided, skipped), skipped)
        if self._serve is not None:
            self._serve(clusters, True)
        return look(lambda state: self._growth(task_id, addition, decided, state))

    def _before(self, task_id: int, calls: int) -> Recorded:
        """Return what earlier calls of an expansion have added."""
        workflow = RecordedWorkflow(workflow_id=self._workflow_id)
        if calls == 1:
            return Recorded(workflow, [], {})
        found = recorded.fetch(self._requester, workflow, task_id)
        return Recorded(workflow, [task for task in found.tasks if not task.is_removed], found.upstreams)

    def _record_definitions(self, addition: _Addition, resolver: ResourceResolver) -> None:
        """Record templates, arrays and requests for resources."""
        new = [array for array in addition.arrays.values() if array.array_id is None]
        by_tool: dict[int, list[Array]] = defaultdict(list)
        for array in addition.arrays.values():
            if array.template_version.id is None:
                by_tool[id(array.template_version.template.tool_version)].append(array)
        for arrays in by_tool.values():
            versions = [array.template_version for array in arrays]
            api_calls.record_templates(versions[0].template.tool_version, versions)
        if new:
            specs = [
                ArraySpec(
                    task_template_version_id=array.template_version.id or 0,
                    name=array.name,
                    max_concurrently_running=array.max_concurrently_running,
                    priority=array.priority,
                    inputs=binding_steps.patterns_of(array.template_version.files.inputs),
                    outputs=binding_steps.patterns_of(array.template_version.files.outputs),
                )
                for array in new
            ]
            route = f"/workflows/{self._workflow_id}/arrays"
            found = self._requester.call(route, ArraysRequest(arrays=specs, keep_limits=True), IdsResponse)
            for array, array_id in zip(new, found.ids, strict=True):
                array.array_id = array_id
                self._array_ids[array.template_version.digest] = array_id
        binding_steps.record_resources(self._requester, resolver.distinct)

    def _version_request(self, task_id: int, decided: _Decided, skipped: Sequence[int]) -> VersionRequest:
        compared = decided.comparison
        added = sum(1 for known in compared.recorded if known is None)
        parts = [
            f"{number_of(added, 'task')} added",
            *([f"{number_of(len(compared.removed), 'task')} removed"] if compared.removed else []),
            *([f"{number_of(len(skipped), 'task')} skipped"] if skipped else []),
        ]
        return VersionRequest(
            key=uuid.uuid4().hex,
            base=0,
            dag_hash="",
            task_hash="",
            task_count=0,
            task_counts={},
            user=user_name(),
            host=socket.gethostname(),
            summary=[f"expansion {self.name_of(task_id)}: {', '.join(parts)}"],
            expansion_id=task_id,
            workflow_run_id=self._run_id,
        )

    def _growth(self, task_id: int, addition: _Addition, decided: _Decided, state: SwarmState) -> Growth:
        compared = decided.comparison
        made: dict[int, SwarmTask] = {}
        for position, task in enumerate(addition.tasks):
            if compared.recorded[position] is None:
                made[position] = self._builder.task_from_definition(state, task, origin_id=task_id)
                self._workflow.settled.pop((id(task.options), id(task.template_version.template)), None)
            if isinstance(task, Expansion) and task.task_id is not None:
                self._known[task.task_id] = task
                self._ancestors[task.task_id] = task_id
        upstreams = [
            ([_id(each) for each in members], [made[position] for position in users if position in made])
            for members, users in addition.sets.values()
        ]
        return Growth(
            arrays=[
                SwarmArray(array.array_id or 0, array.max_concurrently_running, array.name)
                for array in addition.arrays.values()
            ],
            tasks=list(made.values()),
            upstreams=[(members, users) for members, users in upstreams if users],
            removed=[task.task_id for task in compared.removed],
            relinks=bool(compared.upstream_changes),
        )


def caller_of(
    workflow: Workflow,
    builder: SwarmBuilder,
    serve: Serve | None,
    load: Callable[[str], Any],
    *,
    allows_removal: bool | None,
) -> ExpansionCaller:
    """Return what calls the functions of the expansions in a state; see `swarm.run.caller_of`."""
    if allows_removal is None:
        allows_removal = JobmonConfig().get_boolean("run", "allow_removal")
    caller = ExpansionCaller(workflow, builder, serve=serve, allows_removal=allows_removal, load=load)
    learn_recorded(caller, builder, () if builder.state is None else builder.state.tasks)
    return caller


def learn_recorded(caller: ExpansionCaller, builder: SwarmBuilder, task_ids: Collection[int]) -> None:
    """Note those of some tasks in the state that are recorded expansions.

    Raises:
        WorkflowNotResumable: a function cannot be found.
    """
    state, gateway = builder.state, builder.gateway
    if state is None or gateway is None:
        return
    builder.expansions = builder.expansions or list(gateway.get_expansions_sync())
    for one in builder.expansions:
        if one.task_id in task_ids and one.task_id in state.tasks:
            caller.learn(one, state.tasks[one.task_id])


def require_functions(
    requester: Requester, workflow_id: int, load: Callable[[str], object], known: Collection[str] = ()
) -> None:
    """Check that the functions of all expansions that are not done can be found, except of the known ones by name.

    Raises:
        WorkflowNotResumable: one cannot be found; the message names it.
    """
    after = 0
    while True:
        page = requester.call(f"/workflows/{workflow_id}/expansions", {"after": after}, ExpansionsPage, "get")
        if not page.task_ids:
            return
        for name, command, status in zip(page.names, page.commands, page.statuses, strict=True):
            if status not in SATISFIED and name not in known:
                _load(name, expansions.function_of(command), load)
        after = page.task_ids[-1]


def _load(name: str, function: str, load: Callable[[str], _Loaded]) -> _Loaded:
    try:
        return load(function)
    except functions.NotImportable as error:
        raise WorkflowNotResumable(
            f"Expansion {name!r} needs the function {function}, which cannot be imported: {error}. Run the script that"
            " defines it again with resume=True, or: jobmon workflow start SCRIPT"
        ) from None


def _id(task: Task) -> int:
    assert task.task_id is not None, "it is recorded"
    return task.task_id


def _listed(returned: object) -> list[Task]:
    """Return what a function returned as a list of tasks.

    Raises:
        TypeError: it is something else.
    """
    if returned is None:
        return []
    hint = "An expansion returns an iterable of tasks, or None"
    if isinstance(returned, Task | str | bytes | Mapping) or not isinstance(returned, Iterable):
        remedy = " Return a list: [task]." if isinstance(returned, Task) else ""
        raise TypeError(f"{hint}, not {returned!r}.{remedy}")
    tasks = []
    for each in returned:
        if not isinstance(each, Task):
            raise TypeError(f"{hint}; one of these is {each!r}.")
        tasks.append(each)
    seen: set[Task] = set()
    for task in tasks:
        if task in seen:
            raise duplicate(task)
        seen.add(task)
    return tasks


def _skip_downstream(state: SwarmState, wanted: dict[int, None], first: SwarmTask) -> None:
    """Add the tasks whose upstream tasks are all skipped."""
    waiting = [first]
    left: dict[int, int] = {}
    while waiting:
        for task in waiting.pop().iter_downstream():
            if task.task_id not in left:
                left[task.task_id] = task.num_upstreams
            left[task.task_id] -= 1
            if not left[task.task_id] and task.status not in (TaskStatus.DONE, *IN_FLIGHT):
                wanted.setdefault(task.task_id, None)
                waiting.append(task)


def _decided(addition: _Addition, known: Recorded, task_id: int) -> _Decided:
    """Compare what a function returned with what earlier calls added; upstream tasks outside of that come last."""
    tasks = addition.tasks
    at = {id(task): position for position, task in enumerate(tasks)}
    outside = addition.outside
    others = [task_id, *(_id(task) for task in outside)]
    own = len(tasks)
    at |= {id(task): own + 1 + position for position, task in enumerate(outside)}
    by_key = {(each.template.name, tuple(each.template.node_args), each.node_values): each for each in known.tasks}
    pairs: list[RecordedTask | None] = [by_key.pop(_key(task), None) for task in tasks]
    sets: list[Sequence[int]] = [[own]]
    set_of = [0] * own
    for members, users in addition.sets.values():
        for position in users:
            set_of[position] = len(sets)
        sets.append([own, *sorted(at[id(each)] for each in members)])
    compared = Comparison(
        [*tasks, *map(_only_id, others)],
        [*pairs, *map(_only_id, others)],
        list(by_key.values()),
        [],
        [],
        sets,
        [*set_of, *[NO_SET] * len(others)],
    )
    decisions = []
    for position, (task, pair) in enumerate(zip(tasks, pairs, strict=True)):
        changes = () if pair is None else _changes(compared, position, task, pair, known)
        compared.changes.append(changes)
        is_kept = pair is not None and pair.status == TaskStatus.DONE and not changes
        decisions.append(UP_TO_DATE if is_kept else _ADDED)
    compared.changes += [()] * len(others)
    compared.ran_changes = compared.changes
    return _Decided(compared, [*decisions, *[UP_TO_DATE] * len(others)])


def _key(task: Task) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    version = task.template_version
    names = tuple(version.arguments.node_args)
    return version.name, names, task.values[: len(names)]


def _changes(
    compared: Comparison, position: int, task: Task, pair: RecordedTask, known: Recorded
) -> tuple[Reason, ...]:
    changes = definition_changes(pair.definition, definition_of(task))
    ids = [one.task_id for at in compared.upstreams(position) if (one := compared.recorded[at]) is not None]
    before = set(known.upstream_ids(pair))
    gained = len(compared.upstreams(position)) - len(before.intersection(ids))
    lost = len(before.difference(ids))
    if gained or lost:
        compared.upstream_changes[position] = UpstreamChange(gained, lost)
        changes = (*changes, Reason.UPSTREAMS)
    return changes


def _only_id(task_id: int) -> RecordedTask:
    """Return a recorded task of which only the ID counts."""
    return RecordedTask(task_id, "", TaskStatus.REGISTERING, "", _NO_TEMPLATE, (), (), 0, None, None)


def _about_removed(name: str, compared: Comparison) -> str:
    names = [task.name for task in compared.removed[:NAMES_SHOWN_MAX]]
    more = len(compared.removed) - len(names)
    listed = ", ".join([*names, *([f"{more} more"] if more else [])])
    return (
        f"Expansion {name} no longer returns {number_of(len(compared.removed), 'task')} that it added before: {listed}."
        " If that is intended: allow_removal=True."
    )


def _message(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, JobmonError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _traceback(error: BaseException) -> str:
    """Return the traceback of an error, from the function of the user on.

    What Jobmon raises on purpose is shown without Jobmon's own frames: not at all if they are all there is.
    """
    frames = traceback.TracebackException.from_exception(error)
    if is_deliberate(error, error.__traceback__):
        own = [one for one in frames.stack if not one.filename.startswith(PACKAGE) and one.filename != _FUTURES]
        if not own:
            return ""
    else:
        own = [frame for frame in frames.stack if frame.filename != __file__]
    frames.stack = traceback.StackSummary.from_list(own)
    return "".join(frames.format())
