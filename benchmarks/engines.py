"""P15 and the institute's load: the same work on PostgreSQL and on SQLite, and many workflows on one shared server."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from typing import TYPE_CHECKING

from tests.databases import DURABLE, PostgreSQL, PostgreSQLDatabases

from benchmarks.bench import json_of
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench

ROUNDS = 2


@contextlib.contextmanager
def _postgresql() -> Iterator[PostgreSQLDatabases]:
    engine = PostgreSQL(**DURABLE)
    try:
        engine.start()
        databases = PostgreSQLDatabases(engine.address)
        databases.make_template()
        yield databases
    finally:
        engine.remove()


def p15_postgresql(bench: Bench) -> list[Figure]:
    """Measure P1, P2, P4 and P10 on both databases alternately; the best of two rounds counts."""
    count, many, reports = bench.size(10_000, 2_000), bench.size(100_000, 10_000), bench.size(20_000, 5_000)
    chain = 100
    cases: dict[str, tuple[str, float, Callable[[], float]]] = {
        "P1": (f"{count} no-op tasks", 0.6, lambda: count / bench.workload("independent", count)["run_seconds"]),
        "P2": (f"chain of {chain}", 0.5, lambda: chain / bench.workload("chain", chain)["swarm_seconds"]),
        "P4": (f"define and bind {many} tasks", 0.6, lambda: many / _bind_seconds(bench, many)),
        "P10": (
            "64 reporting workers",
            0.6,
            lambda: float(bench.script("reporting", "--reports", str(reports))["per_second"]),
        ),
    }
    figures = []
    with _postgresql() as databases, tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:
        for case, (what, due, rate) in cases.items():
            best = {"": 0.0, "postgresql": 0.0}
            for number in range(ROUNDS):
                for dialect, former in list(best.items()):
                    bench.database_uri = databases.uri(folder, f"{case}-{number}") if dialect else ""
                    best[dialect] = max(former, rate())
            bench.database_uri = ""
            figures.append(
                Figure(case="P15", key=case, what=f"{what}: rate on PostgreSQL ({best['postgresql']:.0f}/s) / on SQLite"
                       f" ({best['']:.0f}/s)", value=best["postgresql"] / best[""], unit="x", due=due, goal=0.8,
                       at_least=True)
            )  # fmt: skip
    return figures


def _bind_seconds(bench: Bench, count: int) -> float:
    found = bench.workload("arguments", count, "--bind-only")
    return float(found["define_seconds"] + found["bind_seconds"])


def institute(bench: Bench) -> list[Figure]:
    """Run many workflows of many users at once on a shared server on PostgreSQL."""
    workflows, tasks = bench.size(200, 20), bench.size(1_000, 200)
    polls = bench.size(5_000, 500)
    sizes = ("--workflows", str(workflows), "--tasks", str(tasks), "--polls", str(polls))
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:
        found = json_of([sys.executable, "-m", "benchmarks.institute", *sizes], f"{folder}/data")
    bench.runs.append({"script": "institute", "arguments": sizes, **found})
    inside, claims = found["inside_report"], found["inside_claim"]
    return [
        Figure(case="institute", key="rate", what=f"{workflows} workflows of {tasks} tasks at once: tasks per second",
               value=found["tasks_per_second"], unit="/s"),
        Figure(case="institute", key="p50", what="reports, inside the server: median", value=inside["p50_ms"],
               unit="ms"),
        Figure(case="institute", key="p99", what="reports, inside the server: slowest 1 %", value=inside["p99_ms"],
               unit="ms", due=250),
        Figure(case="institute", key="claim p50", what="agents that ask for work: median", value=claims["p50_ms"],
               unit="ms"),
        Figure(case="institute", key="claim p99", what="agents that ask for work: slowest 1 %", value=claims["p99_ms"],
               unit="ms"),
        Figure(case="institute", key="memory", what="memory of the server afterwards", value=found["memory"]["now"],
               unit="MB", due=300),
        Figure(case="institute", key="server cpu", what="CPU of the server per task",
               value=found["server_cpu_us_per_task"], unit="us"),
        Figure(case="institute", key="database cpu", what="CPU of the database per task",
               value=found["database_cpu_us_per_task"], unit="us"),
        Figure(case="institute", key="poll", what=f"memory of each of {polls} open polls", value=found["kib_per_poll"],
               unit="KB"),
    ]  # fmt: skip
