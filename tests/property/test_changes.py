"""The rule of what is up to date, against a model in which each output records its inputs."""

from __future__ import annotations

import dataclasses
import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.core import changes
from jobmon.core.changes import Action, Evidence, OnChange, Reason
from jobmon.core.constants import TaskStatus
from jobmon.core.fsm import SATISFIED

TASKS_MAX = 7
STEPS_MAX = 14
VERSIONS = 3
FAILURE_SHARE = 0.2
STOP_SHARE = 0.3
SKIPPABLE = (TaskStatus.REGISTERING, TaskStatus.ERROR_FATAL)


@dataclass
class Output:
    """An output of a command: its task, the definition, and the outputs of upstream tasks that it used."""

    number: int
    definition: int
    inputs: dict[int, int]


@dataclass
class Attempt:
    definition: tuple[int, frozenset[int]]
    queued: int
    ended: int | None = None


@dataclass
class Record:
    """A task as the server records it, and the output that its command left."""

    definition: tuple[int, frozenset[int]]
    status: str = TaskStatus.REGISTERING
    attempts: list[Attempt] = field(default_factory=list)
    requested: bool = False
    accepted: object = None
    output: Output | None = None


class World:
    """A workflow under edits, reverts, removals, resets, failures and crashes."""

    def __init__(self, seed: int, modes: tuple[OnChange, ...]) -> None:
        self.random = random.Random(seed)
        self.modes = modes
        self.clock = itertools.count(1)
        self.outputs = itertools.count(1)
        self.records: dict[int, Record] = {}
        count = self.random.randint(2, TASKS_MAX)
        self.script = {n: self._definition(n, count) for n in range(count)}

    def _definition(self, number: int, count: int) -> tuple[int, frozenset[int]]:
        upstreams = [n for n in range(number) if self.random.random() < 0.5]
        return self.random.randrange(VERSIONS), frozenset(upstreams)

    # -- what people do -------------------------------------------------------------------------------------------

    def edit(self) -> None:
        number = self.random.choice(sorted(self.script))
        version, upstreams = self.script[number]
        match self.random.randrange(4):
            case 0 | 1:
                version = self.random.randrange(VERSIONS)
            case 2:
                upstreams = frozenset(n for n in self.script if n < number and self.random.random() < 0.5)
            case 3:
                self.add_or_remove(number)
                return
        self.script[number] = (version, upstreams)

    def add_or_remove(self, number: int) -> None:
        if len(self.script) > 1 and self.random.random() < 0.5:
            del self.script[number]
            self.script = {n: (version, ups - {number}) for n, (version, ups) in self.script.items()}
            return
        missing = [n for n in range(TASKS_MAX) if n not in self.script]
        if missing:
            added = self.random.choice(missing)
            known = {n for n in self.script if n < added}
            self.script[added] = (
                self.random.randrange(VERSIONS),
                frozenset(known if self.random.random() < 0.5 else ()),
            )

    def request(self) -> None:
        done = [n for n in self.script if n in self.records and self.records[n].status == TaskStatus.DONE]
        if done:
            record = self.records[self.random.choice(done)]
            record.status, record.requested = TaskStatus.REGISTERING, True

    def skip(self) -> None:
        open_ = [n for n in self.script if n in self.records and self.records[n].status in SKIPPABLE]
        if open_:
            self.records[self.random.choice(open_)].status = TaskStatus.SKIPPED

    def unskip(self) -> None:
        skipped = [n for n, record in self.records.items() if record.status == TaskStatus.SKIPPED]
        if skipped:
            record = self.records[self.random.choice(skipped)]
            record.status, record.requested = TaskStatus.REGISTERING, True

    # -- what the product does --------------------------------------------------------------------------------------

    def evidence(self, number: int) -> Evidence | None:
        record = self.records.get(number)
        if record is None or (record.status is None and not record.attempts):
            return None
        newest = record.attempts[-1] if record.attempts else None
        ran = newest.definition if newest else record.definition
        wanted = self.script[number]
        differences = (
            *((Reason.COMMAND,) if ran[0] != wanted[0] else ()),
            *((Reason.UPSTREAMS,) if ran[1] != wanted[1] else ()),
        )
        return Evidence(
            status=record.status or TaskStatus.REGISTERING,
            changes=() if record.accepted is not None and record.accepted == self.acceptance(number) else differences,
            succeeded=newest is not None and newest.ended is not None,
            queued=newest.queued if newest else None,
            ended=newest.ended if newest else None,
            accepted=record.accepted is not None and record.accepted == self.acceptance(number),
            requested=record.requested,
        )

    def acceptance(self, number: int) -> object:
        wanted = self.script[number]
        return (wanted, tuple(sorted((up, self.script[up]) for up in wanted[1])))

    def plan(self, modes: tuple[OnChange, ...] | None = None) -> dict[int, changes.Decision]:
        numbers = sorted(self.script)
        self.random.shuffle(numbers)
        at = {number: position for position, number in enumerate(numbers)}
        sets = [[at[up] for up in self.script[n][1]] for n in numbers]
        decisions = changes.decide(
            [self.evidence(n) for n in numbers],
            sets,
            [index if members else changes.NO_SET for index, members in enumerate(sets)],
            [self.random.choice(modes or self.modes) for _ in numbers],
        )
        return dict(zip(numbers, decisions, strict=True))

    def resume(self, *, whole: bool = False, modes: tuple[OnChange, ...] | None = None) -> dict[int, changes.Decision]:
        """Apply the script as a plan says, then run what is to run: to the end, or until a crash."""
        plan = self.plan(modes)
        for number in self.records.keys() - self.script.keys():
            self.records[number].status = None
        for number, decision in plan.items():
            record = self.records.setdefault(number, Record(self.script[number]))
            if decision.action is Action.KEEP and Reason.ACCEPTED in decision.reasons:
                record.accepted = self.acceptance(number)
            record.definition = self.script[number]
            is_done = decision.action in (Action.KEEP, Action.RESTORE)
            if decision.action is not Action.SKIP:
                record.status = TaskStatus.DONE if is_done else TaskStatus.REGISTERING
        self.run(whole=whole)
        return plan

    def run(self, *, whole: bool) -> None:
        for number in sorted(self.script):  # upstream tasks have smaller numbers
            if not whole and self.random.random() < STOP_SHARE / TASKS_MAX:
                return
            record = self.records[number]
            ups = self.script[number][1]
            if record.status in SATISFIED or any(self.records[up].status not in SATISFIED for up in ups):
                continue
            self.attempt(number, record, fails=not whole and self.random.random() < FAILURE_SHARE)

    def attempt(self, number: int, record: Record, *, fails: bool) -> None:
        attempt = Attempt(self.script[number], next(self.clock))
        record.attempts.append(attempt)
        record.requested, record.accepted = False, None
        inputs = {up: self.records[up].output.number for up in self.inputs_of(number)}
        record.output = Output(next(self.outputs), self.script[number][0], inputs)
        if fails:
            record.status = TaskStatus.ERROR_FATAL
            return
        attempt.ended = next(self.clock)
        record.status = TaskStatus.DONE

    # -- what must hold -------------------------------------------------------------------------------------------

    def fresh(self, number: int) -> bool:
        """Return whether the output on disk equals that of running everything now, judged by its origin."""
        output, (version, upstreams) = self.records[number].output, self.script[number]
        if output is None or output.definition != version:
            return False
        present = dict(map(self.present, self.inputs_of(number)))
        return present.items() <= output.inputs.items() and output.inputs.keys() <= upstreams

    def inputs_of(self, number: int) -> list[int]:
        """Return the upstream tasks whose outputs count: a skipped task is not waited for, whatever it left."""
        return [up for up in self.script[number][1] if self.records[up].status != TaskStatus.SKIPPED]

    def present(self, number: int) -> tuple[int, int | None]:
        """Return a task and the number of its output, if it has one."""
        record = self.records.get(number)
        return number, None if record is None or record.output is None else record.output.number


def played(seed: int, modes: tuple[OnChange, ...], *, skips: bool = False) -> World:
    world = World(seed, modes)
    steps = [world.edit, world.edit, world.request, world.resume, world.resume]
    steps += [world.skip, world.skip, world.unskip] if skips else []
    for _ in range(world.random.randint(1, STEPS_MAX)):
        world.random.choice(steps)()
    return world


SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_after_a_complete_run_every_output_is_made_of_the_present_ones(seed):
    world = played(seed, (OnChange.RERUN,))
    world.resume(whole=True)
    assert all(record.status == TaskStatus.DONE for n, record in world.records.items() if n in world.script)
    assert all(map(world.fresh, world.script))


@given(SEEDS)
def test_what_runs_had_an_output_that_was_not_or_would_not_be_up_to_date(seed):
    """Minimal: without cause, or a changed upstream output, nothing runs."""
    world = played(seed, (OnChange.RERUN,))
    runs = {n for n, decision in world.plan().items() if decision.action is Action.RUN}
    for number in runs:
        record = world.records.get(number)
        evidence = world.evidence(number)
        if record is None or evidence is None or evidence.requested or not evidence.succeeded:
            continue
        assert not world.fresh(number) or world.script[number][1] & runs


@given(SEEDS)
def test_a_finished_workflow_has_an_empty_plan_whatever_was_chosen_before(seed):
    world = played(seed, tuple(OnChange))
    world.resume(whole=True)
    for _ in range(2):
        assert {decision.action for decision in world.plan((OnChange.RERUN,)).values()} <= {Action.KEEP}
        world.resume(whole=True, modes=(OnChange.RERUN,))


@given(SEEDS)
def test_a_run_launches_what_its_plan_says_if_nothing_fails(seed):
    world = played(seed, tuple(OnChange))
    before = {n: len(world.records[n].attempts) for n in world.script if n in world.records}
    plan = world.resume(whole=True)
    launched = {n for n in world.script if len(world.records[n].attempts) > before.get(n, 0)}
    assert launched == {n for n, decision in plan.items() if decision.action is Action.RUN}


@given(SEEDS)
def test_kept_results_stay_until_their_definition_or_an_upstream_one_changes(seed):
    world = played(seed, (OnChange.KEEP,))
    done = {n for n in world.script if n in world.records and world.records[n].status == TaskStatus.DONE}
    plan = world.resume(whole=True)
    assert all(plan[n].action is Action.KEEP for n in done)
    again = world.plan((OnChange.RERUN,))
    assert all(again[n].action is Action.KEEP for n in done)


@given(SEEDS, st.sampled_from([(OnChange.RERUN,), tuple(OnChange)]))
def test_an_edit_that_is_undone_before_anything_started_brings_the_results_back(seed, modes):
    world = played(seed, modes)
    world.resume(whole=True)
    before = dict(world.script)
    for _ in range(3):
        world.edit()
    world.random.random()
    records = {n: dataclasses.replace(record) for n, record in world.records.items()}
    for number, decision in world.plan((OnChange.RERUN,)).items():  # applied, and stopped before anything started
        record = world.records.setdefault(number, Record(world.script[number]))
        record.definition = world.script[number]
        record.status = TaskStatus.DONE if decision.action is Action.KEEP else TaskStatus.REGISTERING
    world.script = before
    plan = world.plan((OnChange.RERUN,))
    unaccepted = [n for n in before if records[n].accepted is None]
    if len(unaccepted) == len(before):
        assert {plan[n].action for n in before} <= {Action.KEEP, Action.RESTORE}


@given(SEEDS)
def test_skipped_tasks_are_neither_run_nor_waited_for(seed):
    world = played(seed, (OnChange.RERUN,), skips=True)
    skipped = {n for n in world.script if n in world.records and world.records[n].status == TaskStatus.SKIPPED}
    before = {n: len(world.records[n].attempts) for n in skipped}
    plan = world.resume(whole=True)
    assert {n for n, decision in plan.items() if decision.action is Action.SKIP} == skipped
    assert {n: len(world.records[n].attempts) for n in skipped} == before
    settled = {n: world.records[n].status for n in world.script}
    assert set(settled.values()) <= {TaskStatus.DONE, TaskStatus.SKIPPED}
    assert all(world.fresh(n) for n, status in settled.items() if status == TaskStatus.DONE)
    assert {decision.action for decision in world.plan((OnChange.RERUN,)).values()} <= {Action.KEEP, Action.SKIP}


def test_a_cycle_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        changes.decide([None, None], [[1], [0]], [0, 1], [OnChange.RERUN] * 2)


# -- files -----------------------------------------------------------------------------------------------------------


def decided(world: World, lost: set[int], changed: set[int]) -> dict[int, changes.Decision]:
    """Plan with these outputs missing, of which each downstream task is a reader, and these inputs changed."""
    numbers = sorted(world.script)
    at = {number: position for position, number in enumerate(numbers)}
    sets = [[at[up] for up in world.script[n][1]] for n in numbers]
    evidence = [world.evidence(n) for n in numbers]
    decisions = changes.decide_with_outputs(
        [
            known._replace(files=Reason.INPUT_CHANGED) if known is not None and number in changed else known
            for number, known in zip(numbers, evidence, strict=True)
        ],
        sets,
        [index if members else changes.NO_SET for index, members in enumerate(sets)],
        [OnChange.RERUN] * len(numbers),
        {at[n]: [[at[reader] for reader in numbers if n in world.script[reader][1]]] for n in lost},
    )
    return dict(zip(numbers, decisions, strict=True))


def lose(world: World) -> set[int]:
    """Delete outputs of tasks that are done."""
    done = [n for n in world.script if n in world.records and world.records[n].status == TaskStatus.DONE]
    return {n for n in done if world.random.random() < 0.5}


@given(SEEDS)
def test_what_runs_finds_its_inputs_and_no_final_output_stays_missing(seed):
    world = played(seed, (OnChange.RERUN,))
    lost = lose(world)
    plan = decided(world, lost, set())
    runs = {n for n, decision in plan.items() if decision.action is Action.RUN}
    for number in runs:
        assert not (world.script[number][1] & lost) - runs
    read = {up for _, upstreams in world.script.values() for up in upstreams}
    assert lost - read <= runs


@given(SEEDS)
def test_a_missing_output_that_nothing_needs_makes_nothing_run(seed):
    """Minimal: a task reruns because of its output only if no task reads it, or if one that reads it runs."""
    world = played(seed, (OnChange.RERUN,))
    lost = lose(world)
    plan = decided(world, lost, set())
    runs = {n for n, decision in plan.items() if decision.action is Action.RUN}
    without = {n for n, decision in decided(world, set(), set()).items() if decision.action is Action.RUN}
    assert without <= runs
    for number in runs - without:
        readers = {n for n, (_, upstreams) in world.script.items() if number in upstreams}
        is_needed = number in lost and (not readers or readers & runs)
        assert is_needed or world.script[number][1] & runs
        assert (Reason.OUTPUT_MISSING in plan[number].reasons) <= (number in lost)


@given(SEEDS)
def test_a_changed_input_reruns_its_task_and_everything_downstream(seed):
    world = played(seed, (OnChange.RERUN,))
    world.resume(whole=True)
    changed = lose(world)
    runs = {n for n, decision in decided(world, set(), changed).items() if decision.action is Action.RUN}
    wanted = set(changed)
    for number in sorted(world.script):
        if world.script[number][1] & wanted:
            wanted.add(number)
    assert runs == wanted


@given(SEEDS)
def test_deleted_intermediates_of_finished_work_stay_deleted(seed):
    world = played(seed, (OnChange.RERUN,))
    world.resume(whole=True)
    read = {up for _, upstreams in world.script.values() for up in upstreams}
    plan = decided(world, lose(world) & read, set())
    assert {decision.action for decision in plan.values()} == {Action.KEEP}
