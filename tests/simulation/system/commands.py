"""Commands that only take time, on any cluster, and the outcome of each execution."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.system.scenario import Outcome, Scenario, TaskPlan

#: Called for every "start" of a command, before it runs, and every "end"; "finish": it completed successfully.
Observe = Callable[[str, "Command"], None]


def _never() -> bool:
    return False


def _always() -> bool:
    return True


@dataclass(slots=True, eq=False)
class Command:
    """A running command.

    `may_be_given_up`: returns whether a fault of its executor allows
    the server to declare it lost. `is_in_touch`: returns whether its executor can reach the server now.
    """

    attempt: int
    task_id: int
    name: str
    text: str
    index: int
    outcome: Outcome
    started_at: float
    may_be_given_up: Callable[[], bool] = _never
    is_in_touch: Callable[[], bool] = _always
    end: asyncio.TimerHandle | None = None
    killed: bool = False


@dataclass(slots=True)
class Fates:
    """The outcomes of executions, from the scenario, and the tasks affected by kills."""

    scenario: Scenario
    executions: Counter[int] = field(default_factory=Counter)
    #: Tasks with a killed execution, which may fail regardless of their planned outcomes.
    unlucky: set[int] = field(default_factory=set)
    _plans: dict[int, TaskPlan] = field(init=False)

    def __post_init__(self) -> None:
        self._plans = {plan.index: plan for plan in self.scenario.all_tasks}

    def next_of(self, index: int) -> Outcome:
        """Return the outcome of the execution that begins now."""
        outcome = self._plans[index].outcome(self.executions[index])
        self.executions[index] += 1
        return outcome


def index_of(command: str) -> int:
    """Return the number of the task to which a command line belongs."""
    return int(command.rpartition(" ")[2])
