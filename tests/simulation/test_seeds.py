"""Many seeds, in blocks so that processes share them; and that a seed replays exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields

import pytest

from jobmon.testing.simulate import SEEDS_DEFAULT, summarize, told
from jobmon.testing.simulation.scenario import FAULTS, GRID_FAULTS, PACKED_FAULTS, WATCH_FAULTS, Lies
from jobmon.testing.simulation.world import simulate

BLOCK = 10
#: A few that have all, or had when they were chosen: then the test is fast.
SEEDS_WITH_ALL_FAULTS = (147, 20, 24, 96, 189, 156, 104, 81, 10, 40)
SEEDS = int(os.environ.get("SIMULATION_SEEDS", str(SEEDS_DEFAULT if os.environ.get("CI") else 100)))


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_nothing_is_violated(first):
    summary = summarize(map(simulate, range(first, first + BLOCK)))
    assert not summary.violating, "\n".join(line for verdict in summary.violating for line in told(verdict))


def test_a_seed_replays_exactly():
    seed = 40
    once, again = simulate(seed), simulate(seed)
    assert once == again
    assert once.faults.total() > 0


def test_a_seed_replays_exactly_in_another_process():
    seed = 18
    command = [sys.executable, "-m", "jobmon.testing.simulate", "--seed", str(seed)]
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    told_there = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=60).stdout
    assert told_there.splitlines() == list(simulate(seed).trace)


def test_faults_and_lies_of_every_kind_happen():
    lies = {f"grid {each.name.replace('_', ' ')}" for each in fields(Lies) if each.name != "has_arrays"}
    missing = {*FAULTS, *GRID_FAULTS, *PACKED_FAULTS, *WATCH_FAULTS, *lies}
    for seed in (*SEEDS_WITH_ALL_FAULTS, *range(60)):
        missing -= set(simulate(seed).faults)
        if not missing:
            return
    raise AssertionError(f"never seen: {sorted(missing)}")
