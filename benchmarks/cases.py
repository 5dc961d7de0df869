"""The benchmark cases: each runs together with its floor and returns figures with their required values.

A case is a function `(bench) -> list[Figure]`; `--quick` reduces the sizes. The required values and the numbers of the
cases ("P1" ...) come from the design of the project. Cases about single processes are in `small.py`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import time
from typing import TYPE_CHECKING, Any

from benchmarks import engines, small
from benchmarks.figures import Figure
from benchmarks.living_case import living
from benchmarks.page_case import page
from benchmarks.slurm import slurm

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.bench import Bench

    Case = Callable[[Bench], list[Figure]]

MIB = 2**20
LEFT_TO_RESUME = 100
#: If even the bare rounds take this multiple of their fastest tenth, the machine is busy, and waits are meaningless.
BUSY_FACTOR = 2.0
#: The agent runs the commands, so its CPU time includes theirs, about one floor for each.
PROCESSES = {"client": "client", "agent": "agent and its commands", "server": "server"}
#: The CPU time per task is compared with the reference loop per this number of tasks.
MANY = 10_000


def p1_throughput(bench: Bench) -> list[Figure]:
    """Measure independent no-op tasks on multiprocess against the spawn floor, measured before and after."""
    count = bench.size(10_000, 2_000)
    before = bench.floor(count)
    found = bench.workload("independent", count)
    after = bench.floor(count)
    floor = (before["per_second"] + after["per_second"]) / 2
    floor_cpu = (before["cpu_seconds"] + after["cpu_seconds"]) / 2
    best = found["best_per_second"] / max(before["best_per_second"], after["best_per_second"])
    rate = count / found["run_seconds"]
    cpu = {who: 1e6 * found[f"cpu_{who}_seconds"] / count for who in PROCESSES}
    return [
        Figure(case="P1", key="rate", what=f"{count} no-op tasks, {rate:.0f}/s: rate / floor of {floor:.0f}/s",
               value=rate / floor, unit="x", due=0.70, goal=0.85, at_least=True, relative=best),
        Figure(case="P1", key="requests", what="requests per task", value=found["requests"] / count, unit=""),
        Figure(case="P1", key="transactions", what="transactions per task", value=found["transactions"] / count,
               unit=""),
        *(Figure(case="P1", key=f"cpu {who}", what=f"CPU of the {PROCESSES[who]} per task, its start included",
                 value=used, unit="us", relative=used / 1e6 / floor_cpu) for who, used in cpu.items()),
        Figure(case="P1", key="whole", what="whole process, with server start, definition and end",
               value=found["whole_seconds"], unit="s"),
    ]  # fmt: skip


def p2_chain(bench: Bench) -> list[Figure]:
    """Measure chains of no-op tasks: what a further dependency costs, as a multiple of one bare spawn.

    The marginal cost compares a chain of 400 with one of 100, so that start and end do not count. Another floor has the
    same hops and commits as a dependency.
    """
    count, long = 100, 400
    relays, tries, longs = [], [], []
    spawn = bench.floor(bench.size(2_000, 500))["per_second"]
    for _ in range(3):
        relays.append(bench.relay(count))
        tries.append(bench.workload("chain", count))
        longs.append(bench.workload("chain", long))
    spawn = (spawn + bench.floor(bench.size(2_000, 500))["per_second"]) / 2
    found = min(tries, key=lambda one: one["swarm_seconds"])
    marginal = (min(one["swarm_seconds"] for one in longs) - found["swarm_seconds"]) / (long - count)
    bare = min(one["milliseconds"] for one in relays)
    step = 1000 * min(one["undisturbed_step_seconds"] for one in tries)
    bare_step = min(one["undisturbed_milliseconds"] for one in relays)
    is_disturbed = bare > BUSY_FACTOR * bare_step
    cpu = 1000 * sum(found[f"cpu_{who}_seconds"] for who in PROCESSES) / count
    return [
        Figure(case="P2", key="marginal", what=f"chain: a further dependency, {1000 * marginal:.2f} ms / one bare spawn"
               f" of {spawn:.0f}/s", value=marginal * spawn, unit="x", due=6, goal=3),
        Figure(case="P2", key="dependency", what=f"chain of {count}: per dependency; bare hops, commits, spawn:"
               f" {bare:.2f} ms", value=1000 * found["swarm_seconds"] / count, unit="ms"),
        Figure(case="P2", key="step", what="fastest tenth of the dependencies, without start and end; of the bare ones:"
               f" {bare_step:.2f} ms", value=step, unit="ms",
               relative=None if is_disturbed else step / bare_step),
        Figure(case="P2", key="cpu", what="CPU of client, agent, commands, server per dependency, starts included",
               value=cpu, unit="ms", relative=cpu / 1000 / bench.unit),
        *(Figure(case="P2", key=key, what=f"{key} per dependency", value=found[key] / count, unit="", due=due,
                 relative=found[key] / count) for key, due in (("requests", 2.0), ("transactions", 1.35))),
    ]  # fmt: skip


def p3_fan(bench: Bench) -> list[Figure]:
    """Measure 1 -> 1,000 -> 1 against the same number of independent tasks."""
    count = bench.size(1_000, 500)
    flat = bench.workload("independent", count + 2)["run_seconds"]
    fan = bench.workload("fan", count)["run_seconds"]
    flat = (flat + bench.workload("independent", count + 2)["run_seconds"]) / 2
    return [Figure(case="P3", key="fan", what=f"1 -> {count} -> 1: time / time of independent tasks",
                   value=fan / flat, unit="x", due=1.1, goal=1.0, relative=fan / flat)]  # fmt: skip


def p4_bind(bench: Bench) -> list[Figure]:
    """Define and bind tasks with three arguments each."""
    count = bench.size(100_000, 10_000)
    found = bench.workload("arguments", count, "--bind-only")
    seconds = _define_and_bind(found)
    share = count / 100_000
    return [Figure(case="P4", key="bind", what=f"define and bind {count} tasks, 3 arguments each", value=seconds,
                   unit="s", due=3 * share, goal=2 * share, relative=_cpu_of_bind(found) / bench.unit)]  # fmt: skip


def _cpu_of_bind(found: dict[str, Any]) -> float:
    """Return the CPU time of all participants, which hardly depends on other load of the machine."""
    return float(found["cpu_client_seconds"] + found["cpu_server_seconds"])


def _define_and_bind(found: dict[str, Any]) -> float:
    return float(found["define_seconds"] + found["bind_seconds"])


def p5_bind_at_scale(bench: Bench) -> list[Figure]:
    """Define and bind a million tasks, and measure what grows."""
    few, many = 10_000, bench.size(1_000_000, 50_000)
    small_one = bench.workload("arguments", few, "--bind-only")
    found = bench.workload("arguments", many, "--bind-only")
    return _scale_figures("P5", few, small_one, many, found)


def _scale_figures(case: str, few: int, small_one: dict[str, Any], many: int, found: dict[str, Any]) -> list[Figure]:
    seconds = _define_and_bind(found)
    growth = (seconds / many) / (_define_and_bind(small_one) / few)
    cpu_growth = (_cpu_of_bind(found) / many) / (_cpu_of_bind(small_one) / few)
    share = many / 1_000_000
    memory = found["client_peak_bytes_per_task"] / 1024
    return [
        Figure(case=case, key="bind", what=f"define and bind {many} tasks, 3 arguments each", value=seconds, unit="s",
               due=35 * share, goal=25 * share),
        Figure(case=case, key="growth", what=f"time per task / time per task of {few}", value=growth, unit="x",
               due=1.2, goal=1.1, relative=cpu_growth),
        Figure(case=case, key="client memory", what="client memory per task", value=memory, unit="KB", due=0.8,
               goal=0.6, relative=memory),
        Figure(case=case, key="server memory", what="server memory above its start",
               value=found["server_peak_growth_bytes"] / MIB, unit="MB", due=60, goal=60,
               relative=found["server_peak_growth_bytes"] / MIB),
        Figure(case=case, key="database", what="database per task", value=found["database_bytes"] / many / 1024,
               unit="KB"),
    ]  # fmt: skip


def p6_bipartite(bench: Bench) -> list[Figure]:
    """Define and bind a complete bipartite graph."""
    count = bench.size(1_000, 300)
    found = bench.workload("bipartite", count, "--bind-only")
    seconds = _define_and_bind(found)
    return [Figure(case="P6", key="bind", what=f"complete bipartite {count} x {count}: define and bind", value=seconds,
                   unit="s", due=0.5, goal=0.1, relative=_cpu_of_bind(found) / bench.unit)]  # fmt: skip


def p7_many(bench: Bench) -> list[Figure]:
    """Run ten times the tasks of P1 at its rate; measure the orchestrator's share of a core."""
    count, few = bench.size(100_000, 10_000), bench.size(10_000, 2_000)
    before = few / bench.workload("independent", few)["run_seconds"]
    found = bench.workload("independent", count)
    after = few / bench.workload("independent", few)["run_seconds"]
    ratio = count / found["run_seconds"] / ((before + after) / 2)
    share = 100 * found["cpu_client_seconds"] / found["run_seconds"]
    return [
        Figure(case="P7", key="rate", what=f"{count} no-op tasks: rate / rate of {few}", value=ratio, unit="x",
               due=1.0, goal=1.0, at_least=True, relative=ratio),
        Figure(case="P7", key="orchestrator", what="orchestrator: CPU, the definition included", value=share, unit="%",
               due=6, goal=4, relative=found["cpu_client_seconds"] / count / bench.unit * MANY),
    ]  # fmt: skip


def p8_resume(bench: Bench) -> list[Figure]:
    """Resume many tasks, all but 100 of them done, by running the script again; measure until the first is queued."""
    count = bench.size(100_000, 10_000)
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:
        bench.workload("independent", count, "--cluster", "dummy", data=f"{folder}/data")
        seconds, found = _resume(bench, "independent", count, f"{folder}/data")
    cpu = sum(found[f"cpu_{who}_seconds"] for who in PROCESSES)
    share = count / 100_000
    return [Figure(case="P8", key="resume", what=f"resume of {count}, {LEFT_TO_RESUME} left: until the first is queued",
                   value=seconds, unit="s", due=2.5 * share if share == 1 else None, goal=1.5 * share,
                   relative=cpu / bench.unit)]  # fmt: skip


def _resume(bench: Bench, shape: str, count: int, data: str) -> tuple[float, dict[str, Any]]:
    """Reset the finished workflow to what a failed run leaves behind, then run its script again with `resume`."""
    with contextlib.closing(sqlite3.connect(f"{data}/jobmon.sqlite")) as database, database:
        left = "(SELECT id FROM task ORDER BY id DESC LIMIT ?)"
        database.execute(f"UPDATE task SET status = 'F', num_attempts = 1 WHERE id IN {left}", [LEFT_TO_RESUME])
        database.execute("UPDATE workflow SET status = 'F'")
        database.execute("UPDATE workflow_run SET status = 'E'")
    start = time.time()
    found = bench.workload(shape, count, "--cluster", "dummy", "--resume", data=data)
    return found["first_queued_at"] - start, found


def million(bench: Bench) -> list[Figure]:
    """Define, bind, run (on the dummy cluster) and resume a million tasks."""
    count, few = bench.size(1_000_000, 50_000), 10_000
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:
        small_one = bench.workload("arguments", few, "--cluster", "dummy", "--bind-only")
        found = bench.workload("arguments", count, "--cluster", "dummy", data=f"{folder}/data")
        seconds, resumed = _resume(bench, "arguments", count, f"{folder}/data")
    figures = _scale_figures("million", few, small_one, count, found)
    rows = {
        "run on the dummy cluster": (found["run_seconds"], "s"),
        "run: tasks per second": (count / found["run_seconds"], "/s"),
        "resume, 100 left: until the first is queued": (seconds, "s"),
        "resume: peak memory of the client": (resumed["client_peak_bytes"] / MIB, "MB"),
        "run: peak memory of the client": (found["client_peak_bytes"] / MIB, "MB"),
        "run: peak memory of the agent": (found["agent_peak_bytes"] / MIB, "MB"),
        "database after the run": (found["database_bytes"] / MIB, "MB"),
    }
    more = [Figure(case="million", key=what, what=what, value=value, unit=unit) for what, (value, unit) in rows.items()]
    return [*figures, *more]


CASES: dict[str, Case] = {
    "throughput": p1_throughput,
    "chain": p2_chain,
    "fan": p3_fan,
    "bind": p4_bind,
    "scale": p5_bind_at_scale,
    "bipartite": p6_bipartite,
    "many": p7_many,
    "resume": p8_resume,
    "worker": small.p9_worker,
    "reports": small.p10_reports,
    "idle": small.p11_idle,
    "imports": small.p12_imports,
    "start": small.p14_start,
    "script": small.p16_script,
}
#: Run only if requested by name.
ON_REQUEST: dict[str, Case] = {
    "million": million,
    "slurm": slurm,
    "page": page,
    "living": living,
    "postgresql": engines.p15_postgresql,
    "institute": engines.institute,
}
#: The number in the design by which the figures of a case are known.
CASE_NUMBERS = {name: str(case.__name__).partition("_")[0].upper() for name, case in CASES.items()}
