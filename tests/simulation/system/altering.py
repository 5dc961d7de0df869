"""A user who reruns, edits and skips tasks while their workflow runs, with the code of the commands."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from tests.simulation.system.bridge import Bridge
from tests.simulation.system.network import Part
from tests.simulation.system.scenario import SPLIT, STEPS_OF_ALTERING

from jobmon.client import editing, planning, steering
from jobmon.client.editing import Edit
from jobmon.core.changes import Action
from jobmon.core.constants import TaskStatus
from jobmon.core.exceptions import InvalidRequest, ServerUnavailable, WorkflowVersionConflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.system.checks import Record
    from tests.simulation.system.processes import Surrounding

    from jobmon.core.requester import Requester

#: What the user does, and how often relative to the others.
_ACTS: Final = {"rerun": 3, "rerun only": 2, "edit": 3, "edit and rerun": 2, "reset": 1, "skip": 3}
#: Statuses of tasks that the user likes to skip, besides any other.
_WAITING: Final = (TaskStatus.REGISTERING, TaskStatus.ERROR_FATAL)


class Altering:
    """Alters the workflow of a scenario from time to time.

    Args:
        around: what all processes share.
        record: the database.
        is_server_up: returns whether the server is running.
    """

    def __init__(self, around: Surrounding, record: Record, is_server_up: Callable[[], bool]) -> None:
        self._around = around
        self._record = record
        self._is_server_up = is_server_up
        self._dice = random.Random(f"{around.scenario.seed} altering")
        self._edits = 0

    async def alter(self) -> None:
        """Alter the workflow until the faults end; then let the user's clients finish it."""
        around = self._around
        chaos_seconds = around.scenario.chaos_seconds
        try:
            if not around.scenario.is_altered or not chaos_seconds:
                return
            pause = chaos_seconds / STEPS_OF_ALTERING
            while (seconds := self._dice.expovariate(1 / pause)) + around.loop.time() < chaos_seconds:
                await asyncio.sleep(seconds)
                if self._is_server_up():
                    await self._act()
        finally:
            around.alterations.are_over = True

    async def _act(self) -> None:
        rows = self._record.rows(
            "SELECT w.id, t.id, t.name, t.status FROM task t JOIN workflow w ON w.id = t.workflow_id"
            " WHERE w.workflow_args = ? AND t.status != 'X' ORDER BY t.id",
            self._around.scenario.title,
        )
        act = self._dice.choices(list(_ACTS), list(_ACTS.values()))[0]
        if act == "skip" and self._dice.random() < 0.9:
            rows = [row for row in rows if row[3] in _WAITING]
        if "edit" in act or act == "reset":
            rows = [row for row in rows if not row[2].startswith(SPLIT)]
        if not rows:
            return
        workflow_id, task_id, name, status = self._dice.choice(rows)
        work = self._work(act, workflow_id, task_id, name)
        self._around.note(f"the user wants: {act} task {task_id}, which is {status}")
        bridge = Bridge()
        requester = self._around.requester(Part("user"), bridge)
        try:
            done = await bridge.carry(lambda: work(requester))
        except ServerUnavailable as error:
            self._around.note(f"the user does not know whether {act} task {task_id} succeeded: {error}")
            self._around.alterations.is_interrupted = True
        except (InvalidRequest, WorkflowVersionConflict) as error:
            self._around.note(f"the user cannot {act} task {task_id}: {error}")
        else:
            self._around.alterations.counts[act] += 1
            self._around.note(f"the user did {act} task {task_id}: {done}")
        self._around.alterations.last_at = self._around.loop.time()

    def _work(self, act: str, workflow_id: int, task_id: int, name: str) -> Callable[[Requester], object]:
        """Return what the user does."""
        template, _, index = name.rpartition("_")
        self._edits += 1
        edit = Edit(reset=True) if act == "reset" else Edit(command=f"{template} edit-{self._edits} {index}")
        if act == "skip":
            return lambda requester: steering.skip(requester, workflow_id, [task_id])
        if "edit" in act or act == "reset":
            is_rerun = act == "edit and rerun"
            return lambda requester: _edit(requester, workflow_id, task_id, edit, rerun=is_rerun)
        return lambda requester: _rerun(requester, workflow_id, task_id, only=act == "rerun only")


def _edit(requester: Requester, workflow_id: int, task_id: int, edit: Edit, *, rerun: bool) -> object:
    if not rerun:
        return editing.edit(requester, workflow_id, [task_id], edit)
    plan = steering.plan_rerun(requester, workflow_id, [task_id])
    editing.edit(requester, workflow_id, [task_id], edit, rerun=True)
    return steering.rerun(requester, workflow_id, plan.task_ids)


def _rerun(requester: Requester, workflow_id: int, task_id: int, *, only: bool) -> tuple[int, int]:
    plan = steering.plan_rerun(requester, workflow_id, [task_id], only=only)
    return steering.rerun(requester, workflow_id, plan.task_ids, only=only)


async def stale(around: Surrounding, record: Record) -> list[str]:
    """Return the tasks of a finished workflow that are done although a plan would rerun them."""
    found = record.rows("SELECT id FROM workflow WHERE workflow_args = ?", around.scenario.title)
    bridge = Bridge()
    requester = around.requester(Part("user"), bridge)

    def planned() -> Iterator[str]:
        statuses = record.task_statuses()
        for task in planning.plan_recorded(requester, found[0][0]).tasks:
            if task.task_id is not None and statuses[task.task_id] == TaskStatus.DONE and task.action in _RERUNS:
                yield f"task {task.task_id} ({task.name}) is done, and the plan is to {task.action} it: {task.reasons}"

    return await bridge.carry(lambda: list(planned()))


_RERUNS: Final = (Action.RUN, Action.KILL)
