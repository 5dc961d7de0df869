"""Set the clock of any part an hour forward or back while commands run: nothing is lost, repeated or declared lost."""

from __future__ import annotations

import pytest
from tests.simulation.system.scenario import CLOCKS, FARM, GRID, Outcome, Scenario, TaskPlan, Weather
from tests.simulation.system.world import play

HOUR = 3600.0
TASKS = 8
#: Longer than the deadline of a heartbeat (279 s), so that clocks jump while commands run.
COMMAND_SECONDS = 400.0
JUMPS_AT = (150.0, 500.0)


def scenario(part, seconds):
    tasks = tuple(
        TaskPlan(
            index=index,
            upstreams=(index - 4,) if index >= 4 else (),
            template="alpha",
            max_attempts=1,
            outcomes=(Outcome(COMMAND_SECONDS),),
            cluster=GRID if index % 2 else FARM,
        )
        for index in range(TASKS)
    )
    return Scenario(
        seed=0,
        tasks=tasks,
        workflow_limit=100,
        template_limits={},
        slots=2,
        weather=Weather(),
        chaos_seconds=1.0,
        fault_interval=1.0,
        faults=(),
        fault_weights=(),
        jumps=tuple((at, part, seconds) for at in JUMPS_AT),
    )


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forth", "back"])
@pytest.mark.parametrize("part", CLOCKS)
def test_a_clock_that_jumps_an_hour_changes_nothing(part, seconds):
    verdict = play(scenario(part, seconds))
    assert verdict.violations == ()
    assert verdict.executions == TASKS
    assert verdict.seconds < 2 * COMMAND_SECONDS + 60.0
    assert sum("starts on" in line for line in verdict.trace) == 1
    assert "ended: DONE" in "\n".join(verdict.trace)
