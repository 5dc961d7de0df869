"""What is measured: each case runs beside its floor and gives a ratio or a figure with the one that is due.

A case is a function `(bench) -> list[Figure]`. Sizes shrink with `quick`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
WIDTH = len(os.sched_getaffinity(0))
RUN_SECONDS_MAX = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure. `due`: what it shall be at most (or at least, where `at_least`)."""

    case: str
    what: str
    value: float
    unit: str
    due: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        return self.value >= self.due if self.at_least else self.value <= self.due


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs workloads in data folders of their own."""

    quick: bool

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def workload(self, shape: str, count: int, *more: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:
            start = time.perf_counter()
            figures = _json_of(
                [sys.executable, "-m", "benchmarks.workload", shape, "--count", str(count), *more], folder
            )
            return {**figures, "whole_seconds": time.perf_counter() - start}

    def floor(self, count: int, width: int = WIDTH) -> float:
        """Commands per second."""
        with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:
            command = [sys.executable, "-I", "-S", str(HERE / "floor.py"), str(count), str(width), folder]
            return float(_json_of(command, folder)["per_second"])


def _json_of(command: list[str], folder: str) -> dict[str, Any]:
    environment = {**os.environ, "JOBMON_DATA_DIR": f"{folder}/data"}
    done = subprocess.run(
        command, env=environment, cwd=HERE.parent, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def p1_throughput(bench: Bench) -> list[Figure]:
    """Independent no-op tasks on multiprocess against the spawn floor, measured before and after."""
    count = bench.size(10_000, 2_000)
    before = bench.floor(count)
    found = bench.workload("independent", count)
    floor = (before + bench.floor(count)) / 2
    rate = count / found["run_seconds"]
    share = found["cpu_client_seconds"] / found["run_seconds"]
    return [
        Figure(case="P1", what=f"{count} no-op tasks: rate / floor of {floor:.0f}/s", value=rate / floor, unit="x",
               due=0.35, at_least=True),
        Figure(case="P1", what="orchestrator CPU share", value=share, unit="x", due=0.6),
    ]  # fmt: skip


def p2_chain(bench: Bench) -> list[Figure]:
    """Chain of 100 no-op tasks: milliseconds per dependency."""
    count = 100
    found = bench.workload("chain", count)
    return [Figure(case="P2", what="chain of 100: per dependency", value=1000 * found["swarm_seconds"] / count,
                   unit="ms", due=30)]  # fmt: skip


def p3_fan(bench: Bench) -> list[Figure]:
    """1 -> 1,000 -> 1 against as many independent tasks."""
    count = bench.size(1_000, 500)
    fan = bench.workload("fan", count)["run_seconds"]
    flat = bench.workload("independent", count + 2)["run_seconds"]
    return [Figure(case="P3", what=f"1 -> {count} -> 1: time / time of independent tasks", value=fan / flat, unit="x",
                   due=1.3)]  # fmt: skip


def p4_bind(bench: Bench) -> list[Figure]:
    """Define and bind tasks with three arguments each."""
    count = bench.size(100_000, 10_000)
    found = bench.workload("arguments", count, "--bind-only")
    seconds = found["define_seconds"] + found["bind_seconds"]
    return [
        Figure(case="P4", what=f"define and bind {count} tasks", value=seconds, unit="s", due=15 * count / 100_000),
        Figure(case="P5", what="client memory per task", value=found["client_peak_bytes_per_task"] / 1024, unit="KB",
               due=2.0),
        Figure(case="P5", what="server memory above its start", value=found["server_peak_growth_bytes"] / 2**20,
               unit="MB", due=200),
    ]  # fmt: skip


def p6_bipartite(bench: Bench) -> list[Figure]:
    """Complete bipartite graph: define and bind."""
    count = bench.size(1_000, 300)
    found = bench.workload("bipartite", count, "--bind-only")
    return [Figure(case="P6", what=f"complete bipartite {count} x {count}: define and bind",
                   value=found["define_seconds"] + found["bind_seconds"], unit="s", due=4)]  # fmt: skip


def p12_imports(bench: Bench) -> list[Figure]:
    """Best of five: import of the client, and the command's help."""
    commands = {
        "import jobmon.client.api": [sys.executable, "-c", "import jobmon.client.api"],
        "jobmon --help": [str(Path(sys.executable).with_name("jobmon")), "--help"],
    }
    return [
        Figure(case="P12", what=name, value=_best_of(command, 5), unit="s", due=0.25)
        for name, command in commands.items()
    ]


def p14_start(bench: Bench) -> list[Figure]:
    """An embedded server on a new data folder, until ready."""
    found = bench.workload("chain", 1)
    return [Figure(case="P14", what="embedded server: start until ready", value=found["server_start_seconds"],
                   unit="s", due=1.5)]  # fmt: skip


def _best_of(command: list[str], times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


CASES: dict[str, Callable[[Bench], list[Figure]]] = {
    "throughput": p1_throughput,
    "chain": p2_chain,
    "fan": p3_fan,
    "bind": p4_bind,
    "bipartite": p6_bipartite,
    "imports": p12_imports,
    "start": p14_start,
}
