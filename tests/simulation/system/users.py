"""The user of one workflow: starts its script, and restarts it until the workflow is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tests.simulation.system.processes import Approach, ClientProcess
from tests.simulation.system.scenario import STEPS_OF_ALTERING

from jobmon.core.constants import WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import (
    DistributorNotAlive,
    ResumeSet,
    ServerUnavailable,
    StaleRun,
    WorkflowAlreadyComplete,
    WorkflowAlreadyExists,
    WorkflowNotResumable,
    WorkflowRunStateError,
)

if TYPE_CHECKING:
    import random

    from tests.simulation.system.checks import Commands, Record
    from tests.simulation.system.processes import Surrounding

#: Time within which everything must be over after the last fault, in addition to the commands' own time.
PATIENCE_SECONDS: Final = 6 * 3600.0
FORCE_SHARE: Final = 0.1
THINKING_SECONDS_MAX: Final = 120.0
CLIENTS_MAX: Final = 3
REQUESTS_MAX: Final = 200_000
HOSTS: Final = ("here", "there")
#: Outcomes that a run may have when other parts die.
_EXPECTED: Final = (
    asyncio.CancelledError,
    DistributorNotAlive,
    ResumeSet,
    ServerUnavailable,
    StaleRun,
    WorkflowAlreadyComplete,
    WorkflowAlreadyExists,
    WorkflowNotResumable,
)
_CLOSED_BY_OTHERS: Final = "reaper closed run"


class User:
    """The user of one workflow; see the module docstring.

    Args:
        around: what all processes share, with this user's scenario.
        dice: random generator derived from the seed.
        record: the database.
        commands: checks the commands of its workflow.
    """

    def __init__(self, around: Surrounding, dice: random.Random, record: Record, commands: Commands) -> None:
        self.scenario = around.scenario
        self.commands = commands
        self.clients: list[ClientProcess] = []
        self.around = around
        self._dice = dice
        self._record = record

    async def use(self) -> None:
        """Run the workflow, and resume it whenever its client has exited, until it is over."""
        around = self.around
        tasks = self.scenario.tasks
        work = sum(max((each.seconds for each in plan.outcomes), default=0) * plan.max_attempts for plan in tasks)
        deadline = self.scenario.chaos_seconds + PATIENCE_SECONDS + 2 * work * (1 + STEPS_OF_ALTERING)
        self.start_client(Approach(resume=False))
        while not around.has_failed():
            if self.living:
                await self._watch(self.living)
            elif self._is_over() and not self._is_altered():
                if around.alterations.are_over:
                    return
                await asyncio.sleep(THINKING_SECONDS_MAX)
            else:
                await asyncio.sleep(self._dice.uniform(0.1, THINKING_SECONDS_MAX))
                self.start_client(self.approach())
            if around.loop.time() > deadline:
                around.violated(f"not over after {around.loop.time():.0f} s")
            if around.network.requests > REQUESTS_MAX:
                around.violated(f"{around.network.requests} requests")

    @property
    def living(self) -> list[ClientProcess]:
        """Return the clients of this user that are alive."""
        return [client for client in self.clients if client.is_alive]

    async def _watch(self, living: list[ClientProcess]) -> None:
        """Wait until a client exits, and check its outcome."""
        waits = [asyncio.ensure_future(client.ended.wait()) for client in living]
        await asyncio.wait(waits, timeout=60.0, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for client in living:
            if client.ended.is_set():
                self._judge(client)

    def _judge(self, client: ClientProcess) -> None:
        result, error = client.result, client.error
        status = WorkflowRunStatus(result.final_status).name if result is not None else "no result"
        if client.part.is_dead:
            return
        self.around.note(f"{client.name} ended: {status} {error!r}")
        closed = isinstance(error, WorkflowRunStateError) and _CLOSED_BY_OTHERS in str(error)
        if error is not None and not isinstance(error, _EXPECTED) and not closed:
            self.around.violated(f"{client.name} failed: {error!r}")

    def approach(self) -> Approach:
        """Choose how to resume."""
        dice = self._dice
        return Approach(
            resume=True,
            cold=dice.random() < 0.5,
            by_id=dice.random() < 0.4 and not self.scenario.needs_script,
            force=dice.random() < FORCE_SHARE,
        )

    def start_client(self, approach: Approach) -> None:
        """Start the script in a new client."""
        workflow_id = next((one.workflow_id for one in self.clients if one.workflow_id is not None), None)
        here, there = HOSTS
        host = here if self._dice.random() < 0.7 else there
        client = ClientProcess(self.around, host, approach, workflow_id)
        self.clients.append(client)
        self.around.note(f"{client.name} starts on {host}: {approach}")

    def take_over(self) -> str:
        """Start another client while one is alive."""
        if not 0 < len(self.living) < CLIENTS_MAX:
            return ""
        self.start_client(self.approach())
        return self.clients[-1].name

    def _is_altered(self) -> bool:
        """Return whether the user may have altered the workflow after its newest client had started."""
        return self.scenario.is_altered and self.around.alterations.last_at >= self.clients[-1].began_at

    def _is_over(self) -> bool:
        """Return whether nothing is left to do: all tasks are done, or a run ended with only failures left."""
        status = self._record.workflow_status(self.scenario)
        if status is None:
            return False
        if status == WorkflowStatus.DONE:
            return True
        last = self.clients[-1]
        if last.part.is_dead:
            return False  # a killed client has no outcome
        return last.result is not None and last.error is None and last.result.final_status == WorkflowRunStatus.ERROR
