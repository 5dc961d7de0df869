"""Commands that only take time, on whichever cluster they run, and what becomes of each execution."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from jobmon.testing.simulation.scenario import Outcome, Scenario, TaskPlan

#: Told of every "start" of a command, before it runs, and of every "end"; "finish": it ended well by itself.
Observe = Callable[[str, "Command"], None]


def _never() -> bool:
    return False


def _always() -> bool:
    return True


@dataclass(slots=True, eq=False)
class Command:
    """One that runs.

    `launched_by`: the distributor that launched it. `may_be_given_up`: whether something happened to its executor for
    which the server may rightly think that it is gone. `is_in_touch`: whether its executor can hear the server now.
    `host`: whose farm runs it.
    """

    attempt: int
    task_id: int
    name: str
    index: int
    outcome: Outcome
    started_at: float
    launched_by: str = ""
    host: str = ""
    may_be_given_up: Callable[[], bool] = _never
    is_in_touch: Callable[[], bool] = _always
    end: asyncio.TimerHandle | None = None
    killed: bool = False


@dataclass(slots=True)
class Fates:
    """What executions come to, by the scenario; and what people and the kernel do to them."""

    scenario: Scenario
    executions: Counter[int] = field(default_factory=Counter)
    #: Tasks of which an execution was killed: they may fail whatever they were to come to.
    unlucky: set[int] = field(default_factory=set)
    _plans: dict[int, TaskPlan] = field(init=False)

    def __post_init__(self) -> None:
        self._plans = {plan.index: plan for plan in self.scenario.all_tasks}

    def next_of(self, index: int) -> Outcome:
        """Return what the execution that begins now comes to."""
        outcome = self._plans[index].outcome(self.executions[index])
        self.executions[index] += 1
        return outcome


def index_of(command: str) -> int:
    """Return the number of the task to which a command line belongs."""
    return int(command.rpartition(" ")[2])
