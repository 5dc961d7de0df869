"""SwarmBuilder: builds the state of a run from a workflow in memory or from the database.

From the database, only tasks to be run are fetched, in chunks; tasks that are already done are only counted, from the
full status snapshot. The snapshot is requested last, so that it includes all changes made in the meantime.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from jobmon.client import garbage
from jobmon.client.clusters import Clusters
from jobmon.client.defaults import checked_chunk_size
from jobmon.client.expansion import Expansion
from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.gateway import ServerGateway, steering_of
from jobmon.client.swarm.state import StateUpdate, SwarmState
from jobmon.client.swarm.task import SwarmTask
from jobmon.client.task_resources import TaskResources
from jobmon.core.clock import SystemClock
from jobmon.core.constants import ResourceType, WorkflowRunStatus
from jobmon.core.exceptions import WorkflowNotResumable, WorkflowRunStateError
from jobmon.core.fsm import IN_FLIGHT, SATISFIED

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from jobmon.client.swarm.gateway import RecordedExpansion, TaskMetadata
    from jobmon.client.task import Task
    from jobmon.client.workflow import Workflow
    from jobmon.core.clock import Clock
    from jobmon.core.cluster_protocol import ClusterQueue
    from jobmon.core.requester import Requester
    from jobmon.core.wire.swarm import ResourcesInfo

logger = logging.getLogger(__name__)

TASKS_PER_CHUNK: Final = 5_000
EDGES_PER_CHUNK: Final = 5_000
#: Maximum number of chunks, in case a server never returns an empty one.
CHUNKS_MAX: Final = 1_000_000


#: The ID of a task's array, and what else a `SwarmTask` is created with besides its ID and status.
_Shared = tuple[int, tuple[Any, ...]]


class SwarmBuilder:
    """Builds the state of a run. `state` is set by one of the two `build_` methods.

    Args:
        requester: sends the requests.
        workflow_run_id: ID of the run.
        heartbeat_interval: seconds between heartbeats while fetching.
        heartbeat_report_by_buffer: number of intervals after which the run counts as overdue.
        initial_status: status of the run.
        clock: determines when a heartbeat is due; None means the system clock.
    """

    def __init__(
        self,
        requester: Requester,
        workflow_run_id: int,
        heartbeat_interval: float = 30.0,
        heartbeat_report_by_buffer: float = 1.5,
        initial_status: str = WorkflowRunStatus.BOUND,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.requester = requester
        self.workflow_run_id = workflow_run_id
        self.heartbeat_interval = heartbeat_interval
        self.heartbeat_report_by_buffer = heartbeat_report_by_buffer
        self.initial_status = initial_status
        self._clock = clock or SystemClock()
        self._beaten_at = self._clock.monotonic()
        self._state: SwarmState | None = None
        self._gateway: ServerGateway | None = None
        self._clusters = Clusters(requester)
        #: The recorded expansions, if any has been fetched.
        self.expansions: list[RecordedExpansion] = []

    @property
    def state(self) -> SwarmState | None:
        """The state that was built, or None."""
        return self._state

    @property
    def gateway(self) -> ServerGateway | None:
        """The gateway that belongs to the state, or None."""
        return self._gateway

    @property
    def task_status_map(self) -> dict[str, set[SwarmTask]]:
        """All tasks by the letter of their status; empty before something is built."""
        return {} if self._state is None else self._state.task_status_map

    @property
    def tasks(self) -> dict[int, SwarmTask]:
        """All tasks by ID; empty before something is built."""
        return {} if self._state is None else self._state.tasks

    @property
    def arrays(self) -> dict[int, SwarmArray]:
        """All arrays by ID; empty before something is built."""
        return {} if self._state is None else self._state.arrays

    @property
    def workflow_id(self) -> int | None:
        """ID of the workflow; None before something is built."""
        return None if self._state is None else self._state.workflow_id

    @property
    def dag_id(self) -> int | None:
        """ID of the DAG; None before something is built."""
        return None if self._state is None else self._state.dag_id

    @property
    def max_concurrently_running(self) -> int | None:
        """Maximum number of tasks in flight; None before something is built."""
        return None if self._state is None else self._state.max_concurrently_running

    @property
    def status(self) -> WorkflowRunStatus:
        """Status of the run."""
        return WorkflowRunStatus(self.initial_status) if self._state is None else self._state.status

    @property
    def last_sync(self) -> datetime | None:
        """The server's timestamp up to which the statuses are known; None before something is built."""
        return None if self._state is None else self._state.last_sync

    def _open(self, workflow_id: int) -> ServerGateway:
        self._gateway = ServerGateway(self.requester, workflow_id, self.workflow_run_id)
        return self._gateway

    def _beat_if_due(self, gateway: ServerGateway) -> None:
        now = self._clock.monotonic()
        if now - self._beaten_at < self.heartbeat_interval:
            return
        self._beaten_at = now
        gateway.log_heartbeat_sync(
            status=self.initial_status,
            next_report_increment=self.heartbeat_interval * self.heartbeat_report_by_buffer,
        )

    # -- from memory -----------------------------------------------------------------------------------------------

    def build_from_workflow(self, workflow: Workflow) -> None:
        """Build the state from a bound workflow.

        Args:
            workflow: the workflow.

        Raises:
            WorkflowRunStateError: the workflow is not bound.
        """
        if workflow.workflow_id is None or workflow.dag_id is None:
            raise WorkflowRunStateError("Only a bound workflow can be run.")
        with garbage.kept():
            self._build(workflow, workflow.workflow_id, workflow.dag_id)

    def _build(self, workflow: Workflow, workflow_id: int, dag_id: int) -> None:
        gateway = self._open(workflow_id)
        steering = gateway.get_cursor_sync()
        state = SwarmState(
            workflow_id,
            self.workflow_run_id,
            dag_id,
            workflow.max_concurrently_running,
            self.initial_status,
        )
        for array in workflow.arrays.values():
            state.add_array(SwarmArray(_bound(array.array_id), array.max_concurrently_running, array.name))
        made: dict[int, SwarmTask] = {}
        shared: dict[tuple[int, int, int], _Shared] = {}
        for number, task in enumerate(workflow.tasks.values()):
            if not number % TASKS_PER_CHUNK:
                self._beat_if_due(gateway)
            made[id(task)] = self._add(state, self._task(state, task, shared))
        if self._fetch_added(state, gateway, made.values()):
            self._state = state
            return
        _link(workflow.tasks.values(), made)
        skipped = StateUpdate.from_task_status_response(steering.tasks_by_status)
        state.apply_update(skipped.merge(steering_of(steering)))
        # Attempts in flight may have changed since the workflow was bound, and so may held tasks, which are not queued;
        # the first poll then fetches everything.
        if not state.on_hold and not any(state.get_tasks_by_status(status) for status in IN_FLIGHT):
            state.last_sync = steering.time
        self._state = state

    def _fetch_added(self, state: SwarmState, gateway: ServerGateway, tasks: Iterable[SwarmTask]) -> bool:
        """Fetch what expansions added in earlier runs, with all dependencies; return whether there is anything."""
        if not any(task.is_expansion for task in tasks):
            return False
        self.expansions = list(gateway.get_expansions_sync())
        if not any(one.added for one in self.expansions):
            return False
        for info in gateway.get_arrays_sync():
            if info.array_id not in state.arrays:
                state.add_array(SwarmArray(info.array_id, info.max_concurrently_running, info.name))
        self._fetch_tasks(state, gateway)
        self._fetch_edges(state, gateway, EDGES_PER_CHUNK)
        _take_snapshot(state, gateway)
        return True

    def learn_clusters(self, tasks: Iterable[Task]) -> None:
        """Fetch the clusters of tasks that are not in the state yet."""
        for task in tasks:
            cluster = self._clusters.get(task.cluster_name)
            for queue in task.fallback_queues or ():
                cluster.queue(queue)

    def task_from_definition(self, state: SwarmState, task: Task, origin_id: int = 0) -> SwarmTask:
        """Return a task of the definition; `origin_id`: the expansion that added it, 0: none."""
        if isinstance(task, Expansion):
            array_id = _bound(task.array.array_id if task.array is not None else None)
            return SwarmTask(
                *(_bound(task.task_id), array_id, task.initial_status, task.max_attempts, None, None),
                is_expansion=True,
                origin_id=origin_id,
            )
        array_id, values = self._shared(state, task)
        return SwarmTask(_bound(task.task_id), array_id, task.initial_status, *values, origin_id=origin_id)

    def _task(self, state: SwarmState, task: Task, shared: dict[tuple[int, int, int], _Shared]) -> SwarmTask:
        """Return a task; `shared` has what it shares with earlier tasks of the same options, request and array."""
        if isinstance(task, Expansion):
            return self.task_from_definition(state, task)
        key = (id(task.options), id(task.task_resources), id(task.array))
        found = shared.get(key)
        if found is None:
            found = shared[key] = self._shared(state, task)
        array_id, values = found
        return SwarmTask(_bound(task.task_id), array_id, task.initial_status, *values)

    def _shared(self, state: SwarmState, task: Task) -> _Shared:
        """Return the arguments of a `SwarmTask` that all tasks with the same options, request and array share."""
        resources = task.task_resources
        callback = task.compute_resources_callable
        if resources is not None:
            if resources.cluster_id is None:
                resources.cluster_id = self._clusters.get(resources.cluster_name).cluster_id
            resources = state.cache_resources(hash(resources), resources)
        fallbacks = tuple(task.fallback_queues or ())
        is_cluster_needed = bool(fallbacks) or callback is not None
        return _bound(task.array.array_id if task.array is not None else None), (
            task.max_attempts,
            resources,
            self._clusters.get(task.cluster_name) if is_cluster_needed else None,
            task.resource_scales or None,
            self._queues(task.cluster_name, fallbacks) if fallbacks else None,
            callback,
        )

    def _queues(self, cluster_name: str, fallbacks: Iterable[Any]) -> list[ClusterQueue] | None:
        """Return fallback queues as objects; they may be given by name."""
        queues = [
            self._clusters.get(cluster_name).queue(queue) if isinstance(queue, str) else queue for queue in fallbacks
        ]
        return queues or None

    @staticmethod
    def _add(state: SwarmState, task: SwarmTask) -> SwarmTask:
        state.add_task(task)
        array = state.arrays.get(task.array_id)
        if array is None:
            raise WorkflowRunStateError(
                f"Task {task.task_id} belongs to array {task.array_id}, which is not in the workflow."
            )
        array.add_task(task)
        return task

    # -- from the database -----------------------------------------------------------------------------------------

    def build_from_workflow_id(self, workflow_id: int, edge_chunk_size: int = 500) -> None:
        """Build the state from the database.

        Args:
            workflow_id: ID of the workflow.
            edge_chunk_size: number of tasks whose edges are fetched at a time.

        Raises:
            ValueError: the workflow does not exist.
            WorkflowNotResumable: it needs a Python function, which only the user's script has.
        """
        checked_chunk_size(edge_chunk_size, "edge_chunk_size")
        gateway = self._open(workflow_id)
        metadata = gateway.get_workflow_metadata_sync()
        state = SwarmState(
            workflow_id,
            self.workflow_run_id,
            metadata.dag_id,
            metadata.max_concurrently_running,
            self.initial_status,
        )
        for info in gateway.get_arrays_sync():
            state.add_array(SwarmArray(info.array_id, info.max_concurrently_running, info.name))
        self._fetch_tasks(state, gateway)
        self._fetch_edges(state, gateway, edge_chunk_size)
        _take_snapshot(state, gateway)
        if any(task.is_expansion for task in state.tasks.values()):
            self.expansions = list(gateway.get_expansions_sync())
        self._state = state

    def _fetch_tasks(self, state: SwarmState, gateway: ServerGateway) -> None:
        last = 0
        for _ in range(CHUNKS_MAX):
            self._beat_if_due(gateway)
            chunk: dict[int, TaskMetadata] = gateway.get_tasks_sync(last, TASKS_PER_CHUNK)
            if not chunk:
                return
            for task_id, metadata in chunk.items():
                if task_id not in state.tasks:
                    self._add(state, self.task_from_record(state, task_id, metadata))
            last = max(chunk)

    def task_from_record(self, state: SwarmState, task_id: int, metadata: TaskMetadata) -> SwarmTask:
        """Return a recorded task, which is not in the state yet.

        Raises:
            WorkflowNotResumable: it needs a Python function, which only the user's script has.
        """
        if metadata.is_expansion:
            return SwarmTask(
                *(task_id, metadata.array_id, metadata.status, metadata.max_attempts, None, None),
                is_expansion=True,
                origin_id=metadata.origin_id,
            )
        if metadata.resources is None:
            raise _needs_function(metadata.name, "compute_resources_callable")
        for key, scale in metadata.resource_scales.items():
            if scale is None:
                raise _needs_function(metadata.name, f"the scale of {key!r}")
        resources = self.resources_from_record(state, metadata.resources)
        cluster_name = metadata.resources.cluster_name
        return SwarmTask(
            task_id,
            metadata.array_id,
            metadata.status,
            metadata.max_attempts,
            resources,
            self._clusters.get(cluster_name),
            metadata.resource_scales or None,
            self._queues(cluster_name, metadata.fallback_queues),
            origin_id=metadata.origin_id,
        )

    def knows(self, info: ResourcesInfo) -> bool:
        """Return whether cluster and queue of a request for resources are known."""
        return self._clusters.knows(info.cluster_name, info.queue_name)

    def learn(self, infos: Iterable[ResourcesInfo]) -> None:
        """Fetch the clusters and queues of requests for resources."""
        for info in infos:
            self._clusters.get(info.cluster_name).queue(info.queue_name)
        self.requester.close()

    def resources_from_record(self, state: SwarmState, info: ResourcesInfo) -> TaskResources:
        """Return the request as an object; equal requests share one. Its ID is the recorded one."""
        queue = self._clusters.get(info.cluster_name).queue(info.queue_name)
        kind = ResourceType(info.kind)
        resources = TaskResources(info.requested, queue, info.cluster_name, info.cluster_id, kind, info.original)
        resources.id = info.task_resources_id
        return state.cache_resources(hash(resources), resources)

    def _fetch_edges(self, state: SwarmState, gateway: ServerGateway, chunk_size: int) -> None:
        """Fetch the dependencies among the tasks to be run. Tasks that are already done block no other task."""
        task_ids = list(state.tasks)
        for start in range(0, len(task_ids), chunk_size):
            self._beat_if_due(gateway)
            answer = gateway.get_downstream_tasks_sync(task_ids[start : start + chunk_size], state.dag_id)
            state.link({task_id: listed for task_id, (_, listed) in answer.downstream_tasks.items()})


def _take_snapshot(state: SwarmState, gateway: ServerGateway) -> None:
    answer = gateway.get_task_status_updates_sync()
    done, skipped = (frozenset(answer.tasks_by_status.get(status, ())).difference(state.tasks) for status in SATISFIED)
    state.previously_done, state.previously_skipped = done, skipped
    statuses = StateUpdate.from_task_status_response(answer.tasks_by_status, answer.time)
    steering = steering_of(answer)
    state.apply_update(statuses.merge(StateUpdate(resource_errors=answer.resource_errors)).merge(steering))


def _needs_function(task_name: str, what: str) -> WorkflowNotResumable:
    return WorkflowNotResumable(
        f"Task {task_name!r} needs a Python function ({what}), which is not recorded: "
        "resume the workflow from the script that defined it."
    )


def _bound(identity: int | None) -> int:
    if identity is None:
        raise WorkflowRunStateError("Only a bound workflow can be run; parts of this one have no ID yet.")
    return identity


def _link(tasks: Iterable[Task], made: dict[int, SwarmTask]) -> None:
    """Count upstream tasks and link downstream tasks.

    Tasks often share a set of upstream tasks. Such a set is walked once; tasks with equal downstream tasks share a
    tuple.
    """
    groups: dict[int, tuple[Iterable[Task], list[SwarmTask]]] = {}
    for task in tasks:
        upstreams = task.upstream_tasks
        if upstreams:
            made[id(task)].num_upstreams = len(upstreams)
            groups.setdefault(id(upstreams), (upstreams, []))[1].append(made[id(task)])
    memberships: dict[int, list[int]] = {}
    for number, (group, _) in groups.items():
        for upstream in group:
            memberships.setdefault(id(upstream), []).append(number)
    tuples: dict[tuple[int, ...], tuple[SwarmTask, ...]] = {}
    for key, numbers in memberships.items():
        signature = tuple(numbers)
        if signature not in tuples:
            tuples[signature] = tuple(task for number in numbers for task in groups[number][1])
        made[key].share_downstream(tuples[signature])
