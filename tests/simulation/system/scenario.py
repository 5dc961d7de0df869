"""Everything that a seed determines before the simulation begins: workflow, outcomes of commands, fault probabilities.

Later random events (delays, lost messages, times of faults) come from generators derived from the same seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import MAX_CONCURRENTLY_RUNNING

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS_MIN: Final = 5
TASKS_MAX: Final = 60
TASKS_OFTEN: Final = 12
#: Maximum number of tasks if each takes long: an hour of virtual time costs half a second.
SLOW_TASKS_MAX: Final = 15
SLOW_PACE_SECONDS: Final = 60.0
#: Faults stop after at least this much virtual time; then everything must complete.
CHAOS_SECONDS_MIN: Final = 30.0
#: Some commands run long enough for heartbeats to be overdue and the reaper to pass.
PACES_SECONDS: Final = (0.2, 0.2, 2.0, 2.0, 10.0, 10.0, 30.0, 60.0, 300.0)
CHAOS_SECONDS_MAX: Final = 3600.0
CLOCK_JUMP_SECONDS_MAX: Final = 3600.0

#: Fault -> its relative probability.
FAULTS: Final = {
    "client dies": 3,
    "client pauses": 2,
    "client is stopped": 1,
    "another client takes over": 2,
    "distributor dies": 4,
    "distributor pauses": 3,
    "distributor is cut off": 3,
    "client is cut off": 2,
    "agent dies": 2,
    "agent pauses": 2,
    "server restarts": 4,
    "server is away": 2,
    "server pauses": 2,
    "clock jumps": 2,
    "limit changes": 2,
    "command is killed": 1,
    "request comes again": 6,
}
#: The same for faults that require a grid.
GRID_FAULTS: Final = {
    "worker dies": 4,
    "worker pauses": 4,
    "worker is cut off": 4,
    "node is lost": 4,
    "grid is silent": 3,
}
#: The same for faults that require packed jobs, and for faults that require shared polling of the grid.
PACKED_FAULTS: Final = {"job is preempted": 4, "job is cancelled": 4}
WATCH_FAULTS: Final = {"watcher dies": 4, "watcher pauses": 4, "watcher is cut off": 4}
#: Parts with their own clock for the time of day.
CLOCKS: Final = ("server", "client", "distributor", "worker")
#: The cluster whose commands host agents run, and the batch system with stand-alone workers.
FARM: Final = "multiprocess"
GRID: Final = "grid"
ONLY_FARM_SHARE: Final = 0.5
ONLY_GRID_SHARE: Final = 0.35
LIES_SHARE: Final = 0.4
LIE_CHANCES: Final = (0.02, 0.1, 0.3)
#: Of the jobs that a grid falsely reports as gone, the share that it reports as failed.
FAILED_CHANCES: Final = (0.0, 0.5, 1.0)
#: Shares of seeds with a grid that use packed jobs, use shared polling, and have a second workflow on the same grid.
PACKED_SHARE: Final = 0.5
WATCH_SHARE: Final = 0.5
NEIGHBOUR_SHARE: Final = 0.5
#: The initial runtime request of tasks, which is raised when they exceed it.
RUNTIME_SECONDS: Final = 3600
#: Packed jobs enforce the runtime of each task, so tasks exceed it within minutes.
PACKED_RUNTIME_FACTOR: Final = 1.5
PACKED_RUNTIME_SECONDS_LEAST: Final = 60
#: The number of the second workflow's first task.
NEIGHBOUR_FIRST: Final = 1000
NEIGHBOUR_TASKS_MAX: Final = 8
#: Share of all seeds in which the user holds and releases tasks and changes priorities, and how often on average.
STEERED_SHARE: Final = 0.4
STEPS_OF_STEERING: Final = 12
#: Share of all seeds whose runs end at the first permanent failure.
FAIL_FAST_SHARE: Final = 0.15
#: Shares of all seeds whose tasks are rerun, edited and skipped, and how often on average.
ALTERED_SHARE: Final = 0.3
STEPS_OF_ALTERING: Final = 6
#: Share of all seeds with expansions; the number of tasks that each adds, and the depth of nested ones.
GROWING_SHARE: Final = 0.3
ADDED_COUNTS: Final = (0, 1, 2, 3, 6)
NESTING_MAX: Final = 2
#: The template of simulated expansions in names; commands have other ones.
SPLIT: Final = "split"
#: Workers send heartbeats every 90 s; some jobs run long enough for that.
GRID_PACES_SECONDS: Final = (2.0, 10.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one execution of a command: an exit code, a signal, or a timeout."""

    seconds: float
    exit_code: int | None = 0
    signal: int | None = None
    timed_out: bool = False
    ignores_interrupt: bool = False


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task. Executions beyond `outcomes` have the last outcome.

    Args:
        origin: number of the expansion that adds it; None: the script defines it.
        failing_calls: number of calls of an expansion that raise an error, before the others succeed.
        skips: tasks that an expansion skips.
    """

    index: int
    upstreams: tuple[int, ...]
    template: str
    max_attempts: int
    outcomes: tuple[Outcome, ...]
    cluster: str = FARM
    origin: int | None = None
    is_expansion: bool = False
    failing_calls: int = 0
    skips: tuple[int, ...] = ()

    def outcome(self, execution: int) -> Outcome:
        """Return the outcome of the execution with this number (from 0)."""
        return self.outcomes[min(execution, len(self.outcomes) - 1)]


@dataclass(frozen=True, slots=True)
class Weather:
    """Probabilities of network faults per message, while faults are injected."""

    lost_before: float = 0.0
    lost_after: float = 0.0
    repeated: float = 0.0
    slow: float = 0.0
    refused: float = 0.0


@dataclass(frozen=True, slots=True)
class Lies:
    """Probabilities of false answers and failures of a grid, per job, submission or query."""

    has_arrays: bool = True
    loses: float = 0.0
    never_starts: float = 0.0
    slow_start: float = 0.0
    refuses_what_it_took: float = 0.0
    gives_no_id: float = 0.0
    says_gone: float = 0.0
    says_failed: float = 0.0
    says_alive: float = 0.0
    forgets: float = 0.0
    slow_call: float = 0.0
    silent: float = 0.0
    late_accounting: float = 0.0
    vanishes: float = 0.0
    says_node_down: float = 0.0
    says_stuck: float = 0.0
    is_full: float = 0.0
    fits_partly: float = 0.0
    is_troubled: float = 0.0
    continues_arrays: bool = False


#: Lies that were added later and use their own random generators, as do those that were added last.
LATER_LIES: Final = ("late_accounting", "vanishes", "says_node_down", "says_stuck")
LAST_LIES: Final = ("is_full", "fits_partly", "is_troubled")
_SWITCHES: Final = ("has_arrays", "says_failed", "continues_arrays")


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that a seed determines before the simulation begins."""

    seed: int
    tasks: tuple[TaskPlan, ...]
    workflow_limit: int
    template_limits: dict[str, int]
    slots: int
    weather: Weather
    chaos_seconds: float
    fault_interval: float
    faults: tuple[str, ...]
    fault_weights: tuple[int, ...]
    lies: Lies = field(default_factory=Lies)
    #: Clock jumps: (seconds from the beginning, part, seconds by which its clock jumps).
    jumps: tuple[tuple[float, str, float], ...] = ()
    #: Further requests of tasks on the grid, which determine how they share jobs.
    packing: dict[str, int | bool] = field(default_factory=dict)
    runtime_seconds: int = RUNTIME_SECONDS
    #: Whether one distributor can poll all jobs of the grid for the others.
    shares_watch: bool = False
    #: Another user's workflow on the same grid, and the number of its first task.
    neighbour: Scenario | None = None
    first: int = 0
    #: Whether runs queue nothing more once a task has failed permanently.
    fail_fast: bool = False
    #: Whether the user reruns, edits and skips tasks.
    is_altered: bool = False
    #: Whether functions of expansions refer to objects of the script, so that a resume by ID cannot call them.
    needs_script: bool = False

    @property
    def has_farm(self) -> bool:
        """Whether host agents run any task."""
        return any(task.cluster == FARM for task in self.tasks)

    @property
    def has_grid(self) -> bool:
        """Whether any task runs on the grid."""
        return any(task.cluster == GRID for task in self.tasks)

    @property
    def title(self) -> str:
        """The workflow's arguments."""
        return f"seed {self.seed}{' neighbour' if self.first else ''}"

    @property
    def all_tasks(self) -> tuple[TaskPlan, ...]:
        """The tasks of this workflow and of the neighbour's."""
        return self.tasks + (self.neighbour.tasks if self.neighbour is not None else ())

    def owns(self, index: int) -> bool:
        """Return whether the task with this number is in this workflow, not in the neighbour's."""
        return self.first <= index < self.first + len(self.tasks)

    def plan(self, index: int) -> TaskPlan:
        """Return the task with this number."""
        return self.tasks[index - self.first]

    def added_by(self, index: int) -> tuple[TaskPlan, ...]:
        """Return the tasks that an expansion adds itself."""
        return tuple(task for task in self.tasks if task.origin == index)

    def upstreams_of(self, index: int) -> set[int]:
        """Return everything that a task waits for: also its expansion, and what upstream expansions add."""
        plan = self.plan(index)
        found = set(plan.upstreams) if plan.origin is None else {*plan.upstreams, plan.origin}
        waiting = list(plan.upstreams)
        while waiting:
            added = {task.index for task in self.added_by(waiting.pop())} - found
            found |= added
            waiting += added
        return found

    @property
    def skipped_by_calls(self) -> set[int]:
        """The tasks that expansions skip."""
        return {index for task in self.tasks for index in task.skips}


def draw(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    dice = random.Random(f"{seed} scenario")
    clusters = random.Random(f"{seed} clusters")
    grid_share = _grid_share(clusters)
    tasks = _placed(clusters, _tasks(dice, PACES_SECONDS if grid_share < 1 else GRID_PACES_SECONDS), grid_share)
    chances = {**FAULTS, **(GRID_FAULTS if any(task.cluster == GRID for task in tasks) else {})}
    slots = dice.choice([1, 2, 4, 8])
    work = sum(outcome.seconds for task in tasks for outcome in task.outcomes)
    chaos = min(CHAOS_SECONDS_MAX, max(CHAOS_SECONDS_MIN, dice.choice([1.0, 3.0]) * work / slots))
    templates = sorted({task.template for task in tasks})
    kinds = [kind for kind in chances if dice.random() < 0.6] or ["server restarts"]
    scenario = Scenario(
        seed=seed,
        tasks=tasks,
        workflow_limit=dice.choice([1, 2, 3, 5, 10, MAX_CONCURRENTLY_RUNNING]),
        template_limits={name: dice.choice([1, 2, 4]) for name in templates if dice.random() < 0.3},
        slots=slots,
        weather=_weather(dice, random.Random(f"{seed} later weather")),
        chaos_seconds=chaos,
        fault_interval=chaos / dice.choice([3, 6, 12, 25, 50]),
        faults=tuple(kinds),
        fault_weights=tuple(chances[kind] for kind in kinds),
        fail_fast=random.Random(f"{seed} fail fast").random() < FAIL_FAST_SHARE,
        lies=_lies(*(random.Random(f"{seed} {which} lies".replace("  ", " ")) for which in ("", "later", "last"))),
    )
    scenario = _grown(random.Random(f"{seed} growth"), scenario)
    if random.Random(f"{seed} altered").random() < ALTERED_SHARE and not scenario.skipped_by_calls:
        scenario = replace(scenario, is_altered=True)
    return _with_neighbour(_packed(scenario)) if scenario.has_grid else scenario


# -- expansions ------------------------------------------------------------------------------------------------


def _grown(dice: random.Random, scenario: Scenario) -> Scenario:
    """Randomly add expansions, what they add, and tasks that wait for them."""
    if dice.random() >= GROWING_SHARE:
        return scenario
    tasks = list(scenario.tasks)
    needs_script = dice.random() < 0.5
    for _ in range(dice.choice([1, 1, 2, 3])):
        of_script = [task.index for task in tasks if task.origin is None]
        expansion = _expansion(dice, tasks, tuple(sorted(dice.sample(of_script, dice.choice([0, 1, 2])))))
        _add_tasks(dice, tasks, expansion, of_script if needs_script else [])
        for _ in range(dice.choice([0, 1, 2])):
            others = dice.sample(of_script, dice.choice([0, 1]))
            tasks.append(_copied(dice, tasks, (*sorted(others), expansion.index), None))
            if needs_script and dice.random() < 0.3:
                tasks[expansion.index] = replace(expansion, skips=(tasks[-1].index,))
    return replace(scenario, tasks=tuple(tasks), needs_script=needs_script)


def _add_tasks(
    dice: random.Random, tasks: list[TaskPlan], expansion: TaskPlan, of_script: Sequence[int], depth: int = 0
) -> None:
    """Add what an expansion adds: tasks that may depend on each other and on tasks of the script, and expansions."""
    own: list[int] = []
    for _ in range(dice.choice(ADDED_COUNTS)):
        upstreams = dice.sample(own, min(len(own), dice.choice([0, 0, 1])))
        upstreams += dice.sample(of_script, min(len(of_script), dice.choice([0, 0, 1])))
        tasks.append(_copied(dice, tasks, tuple(sorted(upstreams)), expansion.index))
        own.append(tasks[-1].index)
    if depth < NESTING_MAX and dice.random() < 0.4:
        upstreams = dice.sample(own, min(len(own), dice.choice([0, 1])))
        nested = _expansion(dice, tasks, tuple(upstreams), expansion.index)
        _add_tasks(dice, tasks, nested, of_script, depth + 1)


def _copied(dice: random.Random, tasks: list[TaskPlan], upstreams: tuple[int, ...], origin: int | None) -> TaskPlan:
    """Return a task that is like another one."""
    like = dice.choice([task for task in tasks if not task.is_expansion])
    return replace(like, index=len(tasks), upstreams=upstreams, origin=origin)


def _expansion(
    dice: random.Random, tasks: list[TaskPlan], upstreams: tuple[int, ...], origin: int | None = None
) -> TaskPlan:
    failing = dice.choice([0, 0, 1, 2])
    plan = TaskPlan(
        index=len(tasks),
        upstreams=upstreams,
        template=SPLIT,
        max_attempts=dice.choice([1, 2, 3]),
        outcomes=(),
        cluster="",
        origin=origin,
        is_expansion=True,
        failing_calls=failing,
    )
    tasks.append(plan)
    return plan


# -- clusters and neighbours -----------------------------------------------------------------------------------


def _packed(scenario: Scenario) -> Scenario:
    """Randomly make tasks on the grid share jobs."""
    dice = random.Random(f"{scenario.seed} packing {scenario.first}")
    if dice.random() >= PACKED_SHARE:
        return scenario
    asked: dict[str, int | bool] = {"pilot": True} if dice.random() < 0.5 else {"pack": dice.choice([2, 3, 5, 20])}
    if dice.random() < 0.4:
        asked["pack_width"] = dice.choice([2, 3])
    longest = max(outcome.seconds for task in scenario.tasks for outcome in task.outcomes)
    runtime = PACKED_RUNTIME_SECONDS_LEAST + round(PACKED_RUNTIME_FACTOR * longest)
    return replace(_with_faults(dice, scenario, PACKED_FAULTS), packing=asked, runtime_seconds=runtime)


def _with_faults(dice: random.Random, scenario: Scenario, chances: dict[str, int]) -> Scenario:
    kinds = [kind for kind in chances if dice.random() < 0.6]
    return replace(
        scenario,
        faults=(*scenario.faults, *kinds),
        fault_weights=(*scenario.fault_weights, *(chances[kind] for kind in kinds)),
    )


def _with_neighbour(scenario: Scenario) -> Scenario:
    """Randomly enable shared polling of the grid, and add a second workflow that uses it."""
    dice = random.Random(f"{scenario.seed} neighbour")
    if dice.random() < WATCH_SHARE:
        scenario = replace(_with_faults(dice, scenario, WATCH_FAULTS), shares_watch=True)
    if dice.random() >= NEIGHBOUR_SHARE:
        return scenario
    tasks = tuple(
        replace(
            task,
            index=task.index + NEIGHBOUR_FIRST,
            upstreams=tuple(index + NEIGHBOUR_FIRST for index in task.upstreams),
            cluster=GRID,
        )
        for task in _tasks(dice, GRID_PACES_SECONDS)[:NEIGHBOUR_TASKS_MAX]
    )
    limit = dice.choice([1, 3, MAX_CONCURRENTLY_RUNNING])
    plain = replace(
        scenario,
        tasks=tasks,
        workflow_limit=limit,
        template_limits={},
        packing={},
        first=NEIGHBOUR_FIRST,
        is_altered=False,
        needs_script=False,
    )
    neighbour = _packed(replace(plain, faults=(), fault_weights=(), runtime_seconds=RUNTIME_SECONDS))
    return replace(scenario, neighbour=neighbour)


def _grid_share(dice: random.Random) -> float:
    """Return the share of tasks that run on the grid: none, all or half."""
    kind = dice.random()
    if kind < ONLY_FARM_SHARE:
        return 0.0
    return 1.0 if kind < ONLY_FARM_SHARE + ONLY_GRID_SHARE else 0.5


def _placed(dice: random.Random, tasks: tuple[TaskPlan, ...], grid_share: float) -> tuple[TaskPlan, ...]:
    return tuple(replace(task, cluster=GRID if dice.random() < grid_share else FARM) for task in tasks)


def _lies(dice: random.Random, later: random.Random, last: random.Random) -> Lies:
    """Return the lies of the grid: mostly a few kinds, each rare or frequent."""
    names = [each.name for each in fields(Lies) if each.name not in (*_SWITCHES, *LATER_LIES, *LAST_LIES)]
    chosen = {name: dice.choice(LIE_CHANCES) for name in names if dice.random() < LIES_SHARE}
    chosen |= {name: later.choice(LIE_CHANCES) for name in LATER_LIES if later.random() < LIES_SHARE}
    chosen |= {name: last.choice(LIE_CHANCES) for name in LAST_LIES if last.random() < LIES_SHARE}
    return Lies(
        has_arrays=dice.random() < 0.5,
        says_failed=dice.choice(FAILED_CHANCES),
        continues_arrays=last.random() < 0.5,
        **chosen,
    )


def _weather(dice: random.Random, later: random.Random) -> Weather:
    if dice.random() < 0.3:
        return Weather()
    worst = dice.choice([0.01, 0.05, 0.2])
    weather = Weather(*(dice.random() * worst for _ in range(4)))
    return replace(weather, refused=later.random() * worst)


def _tasks(dice: random.Random, paces: Sequence[float]) -> tuple[TaskPlan, ...]:
    count = round(dice.triangular(TASKS_MIN, TASKS_MAX, TASKS_OFTEN))
    shape = dice.choice(["chain", "fan-in", "layers", "free"])
    pace = dice.choice(paces)
    if pace >= SLOW_PACE_SECONDS:
        count = min(count, SLOW_TASKS_MAX)
    failing = dice.choice([0.0, 0.1, 0.3])
    return tuple(_task(dice, index, count, shape, pace, failing) for index in range(count))


def _task(dice: random.Random, index: int, count: int, shape: str, pace: float, failing: float) -> TaskPlan:
    max_attempts = dice.choice([1, 2, 3, 3, 4])
    return TaskPlan(
        index=index,
        upstreams=_upstreams(dice, index, count, shape),
        template=dice.choice(["alpha", "beta"]) if shape != "chain" else "alpha",
        max_attempts=max_attempts,
        outcomes=_outcomes(dice, pace, failing, max_attempts),
    )


def _upstreams(dice: random.Random, index: int, count: int, shape: str) -> tuple[int, ...]:
    if shape == "chain":
        return (index - 1,) if index % 20 else ()
    if shape == "fan-in":
        return tuple(range(index)) if index == count - 1 else ()
    if shape == "layers":
        layer = index // 8
        return tuple(range((layer - 1) * 8, layer * 8)) if layer else ()
    return tuple(sorted(dice.sample(range(index), min(index, dice.choice([0, 1, 1, 2, 3])))))


def _outcomes(dice: random.Random, pace: float, failing: float, max_attempts: int) -> tuple[Outcome, ...]:
    failures = 0
    while dice.random() < failing and failures < max_attempts:
        failures += 1
    bad = [_failure(dice, pace) for _ in range(failures)]
    return (*bad, _success(dice, pace)) if failures < max_attempts else tuple(bad)


def _seconds(dice: random.Random, pace: float) -> float:
    return round(dice.expovariate(1 / pace) + 0.01, 3)


def _success(dice: random.Random, pace: float) -> Outcome:
    return Outcome(_seconds(dice, pace), ignores_interrupt=dice.random() < 0.1)


def _failure(dice: random.Random, pace: float) -> Outcome:
    seconds = _seconds(dice, pace)
    kind = dice.random()
    if kind < 0.5:
        return Outcome(seconds, exit_code=dice.randint(1, 5))
    if kind < 0.7:
        return Outcome(seconds, exit_code=None, signal=11)
    return Outcome(seconds, exit_code=None, signal=9, timed_out=True)
