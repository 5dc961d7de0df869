"""Fetches what a run cannot derive from changes: tasks that it did not fetch at its start, and edited definitions.

A run that was resumed by ID knows only the tasks that were not settled then. If a user requests a rerun of another one,
it is fetched and linked. If a user edits a task, its new request for resources is fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from jobmon.core.exceptions import WorkflowRunStateError
from jobmon.core.fsm import SATISFIED
from jobmon.core.texts import number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.client.swarm.gateway import ServerGateway, TaskMetadata
    from jobmon.client.swarm.state import StateUpdate, SwarmState
    from jobmon.client.swarm.task import SwarmTask
    from jobmon.client.swarm.threads import Threads
    from jobmon.client.task_resources import TaskResources
    from jobmon.core.wire.swarm import ResourcesInfo

#: Maximum number of tasks in one request.
TASKS_PER_REQUEST_MAX: Final = 5_000


class Records(Protocol):
    """Turns recorded tasks into objects, with the clusters that the workflow uses."""

    def knows(self, info: ResourcesInfo) -> bool:
        """Return whether cluster and queue of a request for resources are known."""

    def learn(self, infos: Sequence[ResourcesInfo]) -> None:
        """Fetch the clusters and queues of requests for resources; blocks."""

    def task_from_record(self, state: SwarmState, task_id: int, metadata: TaskMetadata) -> SwarmTask:
        """Return a task that is not in the state yet."""

    def resources_from_record(self, state: SwarmState, info: ResourcesInfo) -> TaskResources:
        """Return a request for resources."""


class Refresher:
    """Fetches tasks and definitions.

    Args:
        state: state of the run.
        gateway: sends requests to the server.
        records: turns recorded tasks into objects; None: the run has fetched all tasks, and nothing is edited.
        threads: runs what blocks.
    """

    def __init__(self, state: SwarmState, gateway: ServerGateway, records: Records | None, threads: Threads) -> None:
        self._state = state
        self._gateway = gateway
        self._records = records
        self._threads = threads
        #: Edited tasks -> the revisions that the state knows.
        self._known: dict[int, int] = {}

    async def grow(self, update: StateUpdate) -> list[SwarmTask]:
        """Add the tasks that were settled before the run and that an update reopens; return them.

        Raises:
            WorkflowRunStateError: they cannot be fetched here.
        """
        state = self._state
        before = state.previously_done | state.previously_skipped if state.previously_skipped else state.previously_done
        if not before:
            return []
        reopened = [
            task_id for task_id, status in update.task_statuses.items() if task_id in before and status not in SATISFIED
        ]
        if not reopened:
            return []
        if self._records is None:
            raise WorkflowRunStateError(
                f"{number_of(len(reopened), 'task')} done before this run began {'is' if len(reopened) == 1 else 'are'}"
                f" to be rerun. To do so: jobmon workflow resume {state.workflow_id}"
            )
        found = await self._fetch(self._records, sorted(reopened))
        tasks = [self._records.task_from_record(state, task_id, metadata) for task_id, metadata in found.items()]
        state.reopen(tasks, await self._downstream([*state.tasks, *found]))
        return tasks

    async def relink(self) -> None:
        """Fetch the dependencies of all tasks, because those of tasks that the state contains have changed."""
        self._state.relink(await self._downstream(list(self._state.tasks)))

    async def _downstream(self, task_ids: Sequence[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for start in range(0, len(task_ids), TASKS_PER_REQUEST_MAX):
            chunk = list(task_ids[start : start + TASKS_PER_REQUEST_MAX])
            answer = await self._gateway.get_downstream_tasks(chunk, self._state.dag_id)
            found |= {task_id: listed for task_id, (_, listed) in answer.downstream_tasks.items()}
        return found

    async def apply_edits(self) -> None:
        """Give edited tasks the requests that are recorded for them now."""
        state, records = self._state, self._records
        edited, state.edited = state.edited, {}
        stale = {
            task_id: revision
            for task_id, revision in edited.items()
            if task_id in state.tasks and self._known.get(task_id) != revision
        }
        if not stale or records is None:
            return
        for task_id, recorded in (await self._fetch(records, sorted(stale))).items():
            task = state.tasks[task_id]
            task.max_attempts = recorded.max_attempts
            if recorded.resources is not None:
                task.task_resources = records.resources_from_record(state, recorded.resources)
        self._known |= stale

    async def _fetch(self, records: Records, task_ids: Sequence[int]) -> dict[int, TaskMetadata]:
        """Fetch unfinished tasks, in order of their IDs, and learn their clusters; finished tasks are left out."""
        found: dict[int, TaskMetadata] = {}
        left = list(reversed(task_ids))
        while left:
            most = min(len(left), TASKS_PER_REQUEST_MAX)
            page: dict[int, TaskMetadata] = await self._gateway.get_tasks(left[-1] - 1, most)
            last = max(page, default=left[0])
            while left and left[-1] <= last:
                task_id = left.pop()
                if task_id in page:
                    found[task_id] = page[task_id]
        requests = [one.resources for one in found.values() if one.resources is not None]
        if unknown := [info for info in requests if not records.knows(info)]:
            await self._threads.run(records.learn, unknown)
        return found
