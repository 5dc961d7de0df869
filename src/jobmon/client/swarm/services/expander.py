"""Calls the functions of expansions, one after the other, in a thread of their own.

A call has three steps: the server moves the expansion to RUNNING, the function is called and its result recorded in a
version of the workflow, and the state grows. The last step waits for the response to a poll that shows the expansion
as DONE, so that the state always corresponds to a stamp of the change feed; nothing that waits for the expansion can be
queued before the state contains what it added.

The thread is a daemon: a function that never ends delays neither the timeout of the run, nor a stop, nor the exit of
the process. What it returns afterwards is refused by the server, because its run is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from jobmon.client.swarm.array import SwarmArray
from jobmon.client.swarm.state import StateUpdate
from jobmon.client.swarm.task import SwarmTask
from jobmon.core.configuration import JobmonConfig
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import StaleRun, WorkflowRunStateError, WorkflowVersionConflict
from jobmon.core.terminal import plain_line
from jobmon.core.texts import shortened

if TYPE_CHECKING:
    from jobmon.client.swarm.gateway import ServerGateway
    from jobmon.client.swarm.state import SwarmState
    from jobmon.client.swarm.threads import Threads

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
#: Number of functions that are called at the same time: templates may be used by one thread at a time only.
CALLS_MAX: Final = 1
#: Longest message of a failed function that is logged, characters.
MESSAGE_CHARACTERS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Growth:
    """What an expansion added to the workflow.

    Args:
        arrays: arrays that the state may lack.
        tasks: the added tasks, not linked yet.
        upstreams: sets of upstream tasks besides the expansion, with the tasks that have the set.
        removed: tasks that an earlier call added and the newest one did not return.
        relinks: whether dependencies of tasks that the state contains have changed, too.
    """

    arrays: Sequence[SwarmArray] = ()
    tasks: Sequence[SwarmTask] = ()
    upstreams: Sequence[tuple[Iterable[int], Sequence[SwarmTask]]] = ()
    removed: Sequence[int] = ()
    relinks: bool = False


class CallFailed(Exception):
    """The function of an expansion failed, or what it returned cannot be added. `text` has the traceback."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.message = message
        self.text = text


class Look(Protocol):
    """Runs a function on the state in the loop, which alone changes the state, and returns its result."""

    def __call__(self, function: Callable[[SwarmState], _Result]) -> _Result:
        """Run the function."""


class Caller(Protocol):
    """Calls functions and records what they return. Its methods block."""

    def call(self, task_id: int, calls: int, look: Look) -> Growth:
        """Call the function of an expansion and record what it returns.

        Args:
            task_id: the expansion.
            calls: the number of its calls so far, including this one.
            look: looks at the state.

        Raises:
            CallFailed: the function failed, or what it returned cannot be added.
            StaleRun, WorkflowVersionConflict: the run is over or was told to make way.
        """

    def name_of(self, task_id: int) -> str:
        """Return the name of an expansion, for messages."""

    def max_attempts_of(self, task_id: int) -> int:
        """Return how often the function of an expansion may be called in a run."""


@dataclass(slots=True)
class _Call:
    """The newest call of an expansion in this run."""

    count: int = 0
    growth: asyncio.Future[Growth | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Expander:
    """Calls the functions of expansions that are ready.

    Args:
        state: state of the run.
        gateway: sends requests to the server.
        caller: calls the functions; None: the workflow has no expansions.
        take_in: applies what is known of an expansion before the next poll shows it.
        on_end: called whenever a call has ended.
        threads: runs the calls.
    """

    def __init__(
        self,
        state: SwarmState,
        gateway: ServerGateway,
        caller: Caller | None,
        take_in: Callable[[StateUpdate], object],
        on_end: Callable[[], None],
        threads: Threads,
    ) -> None:
        self._state = state
        self._gateway = gateway
        self._caller = caller
        self._take_in = take_in
        self._on_end = on_end
        self._threads = threads
        self._calls: dict[int, _Call] = {}
        self._started = 0
        self._running: set[asyncio.Task[None]] = set()
        #: Expansions that the server did not move to RUNNING; retried after the next changes.
        self._refused: list[SwarmTask] = []
        self._expansions_max = 0

    @property
    def has_refused(self) -> bool:
        """Whether expansions are waiting to be retried."""
        return bool(self._refused)

    def retry_refused(self) -> None:
        """Make the expansions ready again that the server did not move to RUNNING."""
        refused, self._refused = self._refused, []
        for task in refused:
            self._state.enqueue_task(task)

    def start_calls(self) -> None:
        """Start to call the functions of expansions that are ready; raise what went wrong with earlier calls."""
        for done in [each for each in self._running if each.done()]:
            self._running.discard(done)
            done.result()
        state = self._state
        while state.ready_to_call and len(state.calling) < CALLS_MAX:
            task = state.ready_to_call.popleft()
            if self._is_callable(task):
                state.calling.add(task)
                self._running.add(asyncio.create_task(self._carry_out(task)))

    def _is_callable(self, task: SwarmTask) -> bool:
        is_waiting = task.status is TaskStatus.REGISTERING and task.all_upstreams_done
        return is_waiting and task.task_id not in self._state.on_hold and task not in self._state.calling

    async def cancel(self) -> None:
        """Stop waiting for calls; functions that are being called continue in their thread."""
        for each in self._running:
            each.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _carry_out(self, task: SwarmTask) -> None:
        call = self._calls.setdefault(task.task_id, _Call())
        call.growth = asyncio.get_running_loop().create_future()
        growth: Growth | None = None
        try:
            growth = await self._call(task, call)
        except (StaleRun, WorkflowVersionConflict) as error:
            logger.info("What expansion %d returned is not recorded: %s", task.task_id, error)
        finally:
            call.growth.set_result(growth)
            if growth is None:
                self._state.calling.discard(task)
            self._on_end()

    async def _call(self, task: SwarmTask, call: _Call) -> Growth | None:
        if self._caller is None:
            raise WorkflowRunStateError(
                f"Task {task.task_id} is an expansion, and there is nothing that could call it."
            )
        seen = self._state.last_sync
        answer = await self._gateway.call_expansion(task.task_id, seen)
        if answer.status != TaskStatus.RUNNING:
            if self._state.last_sync == seen:
                self._refused.append(task)
            else:  # a poll has already shown the changes that the request did not know
                self._state.enqueue_task(task)
            return None
        call.count += 1
        self._take_in(StateUpdate(task_statuses={task.task_id: answer.status}))
        try:
            self._check_number()
            return await self._threads.call(partial(self._caller.call, task.task_id, answer.calls), self._state)
        except CallFailed as failure:
            is_final = call.count >= self._caller.max_attempts_of(task.task_id)
            name = self._caller.name_of(task.task_id)
            logger.warning("Expansion %s (task %d) failed: %s", name, task.task_id, _one_line(failure.message))
            answer = await self._gateway.fail_expansion(task.task_id, failure.text, is_final=is_final)
            self._state.calling.discard(task)
            self._take_in(StateUpdate(task_statuses={task.task_id: answer.status}))
            return None

    def _check_number(self) -> None:
        """Fail if too many functions have been called, because a loop does not end.

        Raises:
            CallFailed: they have.
        """
        self._expansions_max = self._expansions_max or JobmonConfig().get_int("run", "expansions_max")
        self._started += 1
        if self._started > self._expansions_max:
            message = (
                f"{self._expansions_max} expansions have been called in this run, which is the maximum. A loop may not"
                " end. If that many are intended, raise the setting run.expansions_max."
            )
            raise CallFailed(message, message)

    # -- the state -----------------------------------------------------------------------------------------------------

    async def grow(self, update: StateUpdate) -> bool:
        """Add what an expansion returned that an update shows as DONE; return whether the state must be relinked.

        The next one is called only afterwards, so that the state contains everything that its tasks may depend on. What
        an expansion returned that is to be rerun meanwhile is added as soon as its call has ended; it is called again.
        """
        state, relinks = self._state, False
        for task_id, call in list(self._calls.items()):
            task = state.tasks.get(task_id)
            status = update.task_statuses.get(task_id, None if task is None else task.status)
            if status in (None, TaskStatus.RUNNING) or not (status == TaskStatus.DONE or call.growth.done()):
                continue
            growth = await asyncio.shield(call.growth)
            if growth is None or task is None:
                continue
            del self._calls[task_id]
            state.calling.discard(task)
            for array in growth.arrays:
                if array.array_id not in state.arrays:
                    state.add_array(array)
            state.drop(growth.removed)
            state.grow(task, growth.tasks, growth.upstreams)
            relinks |= growth.relinks
        return relinks


def added_by(state: SwarmState, task_id: int) -> set[int]:
    """Return the tasks in the state that an expansion has added, directly or through other expansions."""
    return {task.task_id for task in state.added_by(task_id)}


def downstream_of(state: SwarmState, task_id: int) -> set[int]:
    """Return the tasks that depend on a task, directly or not; linear in these and their dependencies."""
    found: set[int] = set()
    waiting = [state.tasks[task_id]] if task_id in state.tasks else []
    while waiting:
        for task in waiting.pop().iter_downstream():
            if task.task_id not in found:
                found.add(task.task_id)
                waiting.append(task)
    return found


def _one_line(message: str) -> str:
    """Return a message for the terminal; the record has all of it."""
    return shortened(plain_line(message.strip()), MESSAGE_CHARACTERS_MAX)
