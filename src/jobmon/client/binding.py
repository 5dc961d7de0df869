"""Record a definition on the server, in named steps and bounded columnar chunks.

Every step is idempotent: an interrupted bind is simply started again. Nothing is recorded before everything that can be
checked on the client has been checked. Time and memory are linear in tasks and in distinct sets of upstream tasks.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobmon.client import api_calls, dag, planning, recorded
from jobmon.client.changing import Change, complete_version
from jobmon.client.clusters import Clusters, ResourceResolver
from jobmon.client.expansion import Expansion
from jobmon.client.folder import working_directory
from jobmon.core.changes import Action, CheckFiles, affected
from jobmon.core.clock import Clock, SystemClock
from jobmon.core.constants import TaskStatus, WorkflowStatus
from jobmon.core.exceptions import WorkflowAlreadyComplete, WorkflowAlreadyExists
from jobmon.core.paths import user_name
from jobmon.core.redaction import secret_names
from jobmon.core.texts import number_of
from jobmon.core.wire import replace
from jobmon.core.wire.binding import (
    EDGES_PER_CHUNK_MAX,
    RESOURCES_PER_CHUNK_MAX,
    TASKS_PER_CHUNK_MAX,
    ArraySpec,
    ArraysRequest,
    BoundResponse,
    EdgesRequest,
    FilePattern,
    IdsResponse,
    RecordedTasks,
    RedefineRequest,
    ResourcesRequest,
    ResourcesSpec,
    SupersededEdit,
    TasksRequest,
    TasksResponse,
    WorkflowRequest,
    WorkflowResponse,
)
from jobmon.core.wire.changes import VersionRequest

if TYPE_CHECKING:
    from jobmon.client.array import Array
    from jobmon.client.plan import Plan
    from jobmon.client.task import Task
    from jobmon.client.task_resources import TaskResources
    from jobmon.client.task_template_version import TaskTemplateVersion
    from jobmon.client.tool_version import ToolVersion
    from jobmon.client.workflow import Workflow
    from jobmon.core.files import Pattern
    from jobmon.core.requester import Requester

logger = logging.getLogger(__name__)

#: A character may need six bytes in JSON; this keeps every chunk within REQUEST_BYTES_MAX whatever it contains.
CHARACTERS_PER_CHUNK_MAX: Final = 5_000_000
PROGRESS_AFTER_SECONDS: Final = 2.0
PROGRESS_EVERY_SECONDS: Final = 1.0
#: Maximum number of superseded edits in one response that are logged one by one.
SUPERSEDED_LOGGED_MAX: Final = 5
_STATUS_OF: Final = {status.value: status for status in TaskStatus}

#: Called with the name of the step, the number of recorded items, and the total.
Progress = Callable[[str, int, int], None]


def log_progress(step: str, done: int, total: int) -> None:
    """Log the progress of recording."""
    logger.info("Recording %s: %d of %d", step, done, total)


class Hashes(NamedTuple):
    """What identifies a definition: the hashes of its DAG and tasks, and the number of distinct upstream sets."""

    dag: str
    tasks: str
    edge_sets: int


class Binding:
    """Records one workflow.

    Args:
        workflow: the workflow to record.
        clock: source of time; None means the system clock.
        progress: called with the progress of a step if recording takes longer than two seconds.
    """

    def __init__(self, workflow: Workflow, clock: Clock | None = None, progress: Progress = log_progress) -> None:
        self._workflow = workflow
        self._requester = workflow.requester
        self._clock = clock or SystemClock()
        self._progress = progress
        self._started = self._told = self._clock.monotonic()
        self._tasks: list[Task] = []
        self._recorded = 0
        self._resolver = ResourceResolver(Clusters(self._requester))
        self._edges: dag.EdgeSets | None = None
        self._hashes = Hashes("", "", 0)
        #: How the tasks are paired with recorded ones, if the recorded definition differs or once differed; otherwise
        #: None.
        self._pairing: planning.Pairing | None = None
        self.response: WorkflowResponse | None = None

    # -- the steps ----------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Check dependencies and resources; return a sentence for each request that is adjusted to its queue's limits.

        Raises:
            JobmonError: the definition is invalid; nothing has been recorded.
        """
        workflow = self._workflow
        dag.check(workflow)
        workflow.check_limits()
        self._tasks = list(workflow.tasks.values())
        self._resolver = ResourceResolver(Clusters(self._requester))
        self._resolver.resolve(task for task in self._tasks if not isinstance(task, Expansion))
        return self._resolver.adjusted

    def record_workflow(self, consent: planning.Consent | None = None) -> WorkflowResponse:
        """Find or create tool, workflow and templates.

        Args:
            consent: which changes of a recorded workflow are accepted; None accepts none.

        Returns:
            The recorded workflow.

        Raises:
            WorkflowChanged: it is recorded with a different definition; nothing has been written.
            WorkflowAlreadyComplete: it is already done.
        """
        for adjusted in self.check():
            logger.warning("Adjusted to the limits of its queue. %s", adjusted)
        workflow = self._workflow
        version_id = api_calls.tool_version_id(workflow.tool_version)
        if not workflow.is_bound or workflow.hashes is None:  # tasks of a recorded workflow no longer change
            self._edges = dag.edge_sets(self._tasks)
            workflow.hashes = Hashes(self._edges.dag_hash, dag.task_hash(self._tasks), len(self._edges.sets))
        self._hashes = workflow.hashes
        self.response = self._find_or_create(self._workflow_request(version_id), consent or planning.Consent())
        workflow.workflow_id = self.response.workflow_id
        workflow.dag_id = self.response.dag_id
        if self.response.status == WorkflowStatus.DONE and self.plan is None:
            raise WorkflowAlreadyComplete(
                f"Workflow {workflow.workflow_id} with workflow_args {workflow.workflow_args!r} is already complete:"
                " nothing to do. Change workflow_args to run it again."
            )
        for tool_version, versions in self._template_versions().items():
            api_calls.record_templates(tool_version, versions)
        return self.response

    @property
    def plan(self) -> Plan | None:
        """The accepted change of a workflow that is recorded with a different definition; None if nothing changes."""
        return None if self._pairing is None else self._pairing.plan

    def plan_again(self, consent: planning.Consent) -> Plan | None:
        """Plan an accepted change again, after attempts may have ended.

        Raises:
            WorkflowChanged: the difference is no longer accepted.
        """
        assert self._pairing is not None, "there is something to plan"
        found = recorded.find_by_id(self._requester, _id(self._pairing.recorded.workflow.workflow_id))
        self._pairing = planning.pair(self._workflow, found, consent)
        return self.plan

    def _find_or_create(self, request: WorkflowRequest, consent: planning.Consent) -> WorkflowResponse:
        try:
            response = self._requester.call("/workflows", request, WorkflowResponse)
        except WorkflowAlreadyExists:
            found = recorded.find(self._workflow)
            if found is None:
                raise
            same = replace(request, dag_hash=found.dag_hash, task_hash=found.task_hash)
            self._pairing = planning.pair(self._workflow, found, consent)
            response = self._requester.call("/workflows", same, WorkflowResponse)
        if response.has_incomplete_version:
            complete_version(self._requester, response.workflow_id)
            return self._find_or_create(request, consent)
        must_look = consent.check_files is not CheckFiles.NONE and response.was_started
        if (response.version > 1 or must_look) and self._pairing is None:
            found = recorded.find_by_id(self._requester, response.workflow_id)
            self._pairing = planning.pair(self._workflow, found, consent)
        return response

    def record_tasks(self) -> None:
        """Record arrays, resources, tasks and edges, and mark the workflow as completely recorded."""
        assert self.response is not None, "record_workflow comes first"
        self._record_arrays()
        record_resources(self._requester, self._resolver.distinct)
        if self._pairing is not None and self.plan is not None:
            self._change(self._pairing, self.plan)
        self._record_all_tasks()
        if not self.response.dag_is_complete:
            self._record_edges(self.response.dag_id)
        self._requester.call(f"/workflows/{self.response.workflow_id}/bound", {}, BoundResponse)
        self._workflow.is_bound = True

    def _change(self, pairing: planning.Pairing, plan: Plan) -> None:
        """Record the new definition as a new version."""
        workflow = self._workflow
        change = Change(workflow.requester, workflow.arrays, plan, pairing.recorded, columns_of, task_columns)
        response = change.apply(
            VersionRequest(
                key=uuid.uuid4().hex,
                base=pairing.recorded.workflow.version,
                dag_hash=self._hashes.dag,
                task_hash=self._hashes.tasks,
                task_count=len(plan.comparison.tasks),
                task_counts={name: len(array.tasks) for name, array in workflow.arrays.items()},
                user=user_name(),
                host=socket.gethostname(),
                summary=[line.strip() for line in planning.change_lines(plan)],
            )
        )
        self._workflow.dag_id = response.dag_id
        _tell_superseded(response.superseded)

    # -- rows ---------------------------------------------------------------------------------------------------

    def _template_versions(self) -> dict[ToolVersion, list[TaskTemplateVersion]]:
        versions: dict[ToolVersion, list[TaskTemplateVersion]] = {}
        for array in self._workflow.arrays.values():
            version = array.template_version
            versions.setdefault(version.template.tool_version, []).append(version)
        return versions

    def _workflow_request(self, tool_version_id: int) -> WorkflowRequest:
        workflow = self._workflow
        return WorkflowRequest(
            tool_version_id=tool_version_id,
            workflow_args=workflow.workflow_args,
            workflow_args_hash=recorded.args_hash(workflow),
            dag_hash=self._hashes.dag,
            task_hash=self._hashes.tasks,
            task_count=len(self._tasks),
            edge_set_count=self._hashes.edge_sets,
            name=workflow.name,
            description=workflow.description,
            max_concurrently_running=workflow.max_concurrently_running,
            task_counts={name: len(array.tasks) for name, array in workflow.arrays.items()},
            user=user_name(),
            working_directory=working_directory(),
            umask=current_umask(),
            workflow_attributes=dict(workflow.workflow_attributes),
            priority=workflow.priority,
        )

    def _record_arrays(self) -> None:
        arrays = list(self._workflow.arrays.values())
        request = ArraysRequest(
            arrays=[
                ArraySpec(
                    task_template_version_id=_id(array.template_version.id),
                    name=array.name,
                    max_concurrently_running=array.max_concurrently_running,
                    priority=array.priority,
                    inputs=patterns_of(array.template_version.files.inputs),
                    outputs=patterns_of(array.template_version.files.outputs),
                )
                for array in arrays
            ]
        )
        response = self._requester.call(f"/workflows/{self._workflow.workflow_id}/arrays", request, IdsResponse)
        for array, array_id in zip(arrays, response.ids, strict=True):
            array.array_id = array_id

    def _record_all_tasks(self) -> None:
        under_way: deque[Sequence[Task]] = deque()
        self._recorded = 0
        requests = self._task_requests if self._pairing is None else self._redefine_requests
        for found in self._requester.call_each(requests(under_way), TasksResponse):
            tasks = under_way.popleft()
            _identify(tasks, found)
            self._note_recorded(len(tasks))
            _tell_superseded(found.superseded)

    def _task_requests(self, under_way: deque[Sequence[Task]]) -> Iterator[tuple[str, TasksRequest]]:
        """Yield requests and note their tasks in `under_way`; identify recorded ones, skip those that cannot change."""
        assert self.response is not None, "record_workflow comes first"
        route = f"/workflows/{self._workflow.workflow_id}/tasks"
        is_known, last_id = not self.response.newly_created, 0
        for array in self._workflow.arrays.values():
            for chunk in _chunks(array.tasks):
                is_known = is_known and self._recognise(chunk, last_id)
                last_id = _id(chunk[-1].task_id) if is_known else 0
                changed = _changeable(chunk) if is_known else chunk
                self._note_recorded(len(chunk) - len(changed))
                if changed:
                    under_way.append(changed)
                    yield route, tasks_request(array, changed)

    def _redefine_requests(self, under_way: deque[Sequence[Task]]) -> Iterator[tuple[str, RedefineRequest]]:
        """Yield the definitions of tasks that are not done, by ID, and note their tasks in `under_way`."""
        written = self._written()
        route = f"/workflows/{self._workflow.workflow_id}/redefined_tasks"
        for array in self._workflow.arrays.values():
            changed = [task for task in _changeable(array.tasks) if id(task) not in written]
            self._note_recorded(len(array.tasks) - len(changed))
            for chunk in _chunks(changed):
                under_way.append(chunk)
                yield (
                    route,
                    RedefineRequest(**columns_of(array, chunk), task_ids=[_id(task.task_id) for task in chunk]),
                )

    def _written(self) -> set[int]:
        """Identify tasks that are recorded; return the `id()` of those whose definition a new version has written."""
        assert self._pairing is not None, "the tasks are paired with recorded ones"
        recorded_tasks = self._pairing.comparison.recorded  # those after ours were added in runs
        if self.plan is not None:
            decisions, count = self.plan.decisions, len(self._tasks)
            return {
                id(self._tasks[at])
                for at in affected(decisions)
                if at < count and (recorded_tasks[at] is None or decisions[at].action is Action.ADOPT)
            }
        for task, known in zip(self._tasks, recorded_tasks, strict=False):
            assert known is not None, "no task is new"
            task.task_id, task.initial_status = known.task_id, _STATUS_OF[known.status]
        return set()

    def _note_recorded(self, count: int) -> None:
        self._recorded += count
        self._tell("tasks", self._recorded, len(self._tasks))

    def _recognise(self, tasks: Sequence[Task], last_id: int) -> bool:
        """Return whether the recorded tasks after this ID are exactly these; if so, set their IDs and statuses.

        They are if the same script recorded them in the same order; then most of them need not be sent again.
        """
        route = f"/workflows/{self._workflow.workflow_id}/recorded_tasks"
        query = {"after_id": last_id, "count": len(tasks)}
        found = self._requester.call(route, query, RecordedTasks, "get")
        hashes = sha256("".join([task.task_digest.hex() for task in tasks]).encode()).hexdigest()
        if len(found.task_ids) != len(tasks) or found.hash != hashes:
            return False
        _identify(tasks, found)
        return True

    def _record_edges(self, dag_id: int) -> None:
        chunks = list(_edge_chunks(self._edges or dag.edge_sets(self._tasks)))
        requests = (
            (f"/dags/{dag_id}/edges", _edges_request(chunk, is_last=number == len(chunks)))
            for number, chunk in enumerate(chunks, start=1)
        )
        for number, _ in enumerate(self._requester.call_each(requests, dict), start=1):
            self._tell("dependencies, chunk", number, len(chunks))

    def _tell(self, step: str, done: int, total: int) -> None:
        now = self._clock.monotonic()
        if now - self._started >= PROGRESS_AFTER_SECONDS and now - self._told >= PROGRESS_EVERY_SECONDS:
            self._told = now
            self._progress(step, done, total)


def _identify(tasks: Sequence[Task], found: TasksResponse | RecordedTasks) -> None:
    columns = zip(tasks, found.task_ids, found.node_ids, found.statuses, strict=True)
    for task, task_id, node_id, status in columns:
        task.task_id = task_id
        task.node_id = node_id
        task.initial_status = _STATUS_OF[status]


def _tell_superseded(edits: Sequence[SupersededEdit]) -> None:
    """Log the edits of users that the script replaces."""
    for one in edits[:SUPERSEDED_LOGGED_MAX]:
        logger.warning("The edit of task %d by %s is superseded by the script.", one.task_id, one.user)
    if (more := len(edits) - SUPERSEDED_LOGGED_MAX) > 0:
        logger.warning("The edits of %s are superseded by the script.", number_of(more, "more task"))


def _changeable(tasks: Sequence[Task]) -> list[Task]:
    """Return the known tasks that recording them again may change."""
    done = TaskStatus.DONE
    return [task for task in tasks if task.initial_status is not done or task.has_attributes]


def tasks_request(array: Array, tasks: Sequence[Task]) -> TasksRequest:
    """Return a chunk of tasks of one array as columns."""
    return TasksRequest(**task_columns(array, tasks))


def task_columns(array: Array, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return the fields of `TasksRequest`."""
    arguments = array.template_version.arguments
    names = arguments.node_args + arguments.task_args
    columns = [list(column) for column in zip(*(task.values for task in tasks), strict=True)]
    by_name = dict(zip(names, columns, strict=True))
    return columns_of(array, tasks) | {
        "task_template_version_id": _id(array.template_version.id),
        "node_hashes": [task.node_digest.hex() for task in tasks],
        "node_args": {name: by_name[name] for name in arguments.node_args},
        "task_args": {name: by_name[name] for name in arguments.task_args},
        "are_expansions": isinstance(tasks[0], Expansion),
    }


def columns_of(array: Array, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return the fields of `TaskColumns`."""
    settings = _Settings(tasks)
    return {
        "array_id": _id(array.array_id),
        "names": [task.name for task in tasks],
        "commands": [task.command for task in tasks],
        "task_hashes": [task.task_digest.hex() for task in tasks],
        "max_attempts": settings.max_attempts,
        "task_resources_ids": settings.resources_ids,
        "scales": settings.scales,
        "scales_index": settings.scales_index,
        "fallback_queues": settings.queues,
        "fallback_index": settings.queues_index,
        "attributes": {index: task.attributes for index, task in enumerate(tasks) if task.has_attributes},
        "priorities": settings.priorities,
    }


class _Settings:
    """Columns derived from the options and requests of tasks, computed once for each distinct combination."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.scales: list[dict[str, Any]] = []
        self.queues: list[list[str]] = []
        keys = [(id(task.options), id(task.task_resources)) for task in tasks]
        rows = {key: self._row(task) for key, task in dict(zip(keys, tasks, strict=True)).items()}
        columns = list(map(list, zip(*[rows[key] for key in keys], strict=True)))
        self.max_attempts, self.resources_ids, self.scales_index, self.queues_index, priorities = columns
        self.priorities = {index: priority for index, priority in enumerate(priorities) if priority}

    def _row(self, task: Task) -> tuple[int, int | None, int, int, int]:
        decided_later = task.compute_resources_callable is not None or task.task_resources is None
        attempts = task.max_attempts
        return (
            attempts,
            None if decided_later else task.task_resources.id,  # type: ignore[union-attr]
            _place(self.scales, storable_scales(task.resource_scales, attempts)),
            _place(self.queues, task.fallback_queues),
            task.priority,
        )


def storable_scales(scales: dict[str, Any], max_attempts: int) -> dict[str, Any]:
    """Return scales as JSON: functions become None, and lists are cut to the number of attempts."""
    return {
        key: None if callable(scale) else scale[:max_attempts] if isinstance(scale, list) else scale
        for key, scale in scales.items()
    }


def _place(entries: list[Any], entry: Any) -> int:
    """Return the index of an entry, appending it unless it equals the last one."""
    if entry not in entries[-1:]:
        entries.append(entry)
    return len(entries) - 1


def _chunks(tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
    """Split tasks into chunks of bounded number and size."""
    for start in range(0, len(tasks), TASKS_PER_CHUNK_MAX):
        chunk = tasks[start : start + TASKS_PER_CHUNK_MAX]
        values = chain.from_iterable([task.values for task in chunk])
        characters = sum(map(len, values)) + sum([len(task.command) for task in chunk])
        if characters <= CHARACTERS_PER_CHUNK_MAX:
            yield chunk
        else:
            yield from _smaller_chunks(chunk)


def _smaller_chunks(tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
    """Split tasks into chunks of bounded size."""
    start = characters = 0
    for index, task in enumerate(tasks):
        size = len(task.command) + sum(map(len, task.values))
        if characters + size > CHARACTERS_PER_CHUNK_MAX and index > start:
            yield tasks[start:index]
            start, characters = index, 0
        characters += size
    yield tasks[start:]


_EdgeChunk = tuple[list[int], list[list[int]], "list[tuple[Task, int]]"]


def _edge_chunks(edges: dag.EdgeSets) -> Iterator[_EdgeChunk]:
    """Split sets, then their members, into chunks of at most EDGES_PER_CHUNK_MAX entries; yield at least one chunk."""
    numbers: list[int] = []
    upstreams: list[list[int]] = []
    room = EDGES_PER_CHUNK_MAX
    for number, upstream_set in enumerate(edges.sets):
        nodes = sorted(_id(task.node_id) for task in upstream_set)
        while nodes:
            part, nodes = nodes[:room], nodes[room:]
            numbers.append(number)
            upstreams.append(part)
            room -= len(part)
            if not room:
                yield numbers, upstreams, []
                numbers, upstreams, room = [], [], EDGES_PER_CHUNK_MAX
    members = edges.members
    yield numbers, upstreams, members[:room]
    for start in range(room, len(members), EDGES_PER_CHUNK_MAX):
        yield [], [], members[start : start + EDGES_PER_CHUNK_MAX]


def _edges_request(chunk: _EdgeChunk, *, is_last: bool) -> EdgesRequest:
    set_numbers, upstreams, members = chunk
    return EdgesRequest(
        set_numbers=set_numbers,
        upstream_nodes=upstreams,
        node_ids=[_id(task.node_id) for task, _ in members],
        node_sets=[index for _, index in members],
        last=is_last,
    )


def record_resources(requester: Requester, distinct: Sequence[TaskResources]) -> None:
    """Record distinct requests for resources, and set their IDs."""
    _warn_of_secrets(distinct)
    for start in range(0, len(distinct), RESOURCES_PER_CHUNK_MAX):
        chunk = distinct[start : start + RESOURCES_PER_CHUNK_MAX]
        request = ResourcesRequest(resources=[resources_spec(resources) for resources in chunk])
        response = requester.call("/task_resources", request, IdsResponse)
        for resources, resources_id in zip(chunk, response.ids, strict=True):
            resources.id = resources_id


def _warn_of_secrets(requests: Iterable[TaskResources]) -> None:
    """Warn once per bind about values of `env` that are recorded although their names look like secrets."""
    names = sorted({name for request in requests for name in secret_names(request.requested_resources)})
    if names:
        logger.warning(
            "compute_resources: env is recorded in the database, and %s %s like a secret. Export it in the shell that "
            "starts this script instead: commands inherit the script's environment, which is not recorded.",
            ", ".join(names),
            "looks" if len(names) == 1 else "look",
        )


def resources_spec(resources: TaskResources) -> ResourcesSpec:
    """Return a request for resources as a message."""
    return ResourcesSpec(
        cluster_name=resources.cluster_name,
        queue_name=resources.queue.queue_name,
        requested=dict(resources.requested_resources),
        kind=resources.kind,
        original=None if resources.original is None else dict(resources.original),
    )


def patterns_of(declared: Iterable[Pattern]) -> list[FilePattern]:
    return [FilePattern(name=one.name, pattern=one.text) for one in declared]


def _id(value: int | None) -> int:
    """Return an ID that an earlier step has set."""
    assert value is not None, "an earlier step of binding sets this id"
    return value


# -- the environment that is recorded with the workflow ---------------------------------------------------------


def current_umask() -> int:
    """Return this process's umask, without changing it if the system can report it."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
