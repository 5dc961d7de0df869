"""The case `living`: what it costs to plan, change and expand a workflow, measured by `benchmarks.living`."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, Final

from benchmarks.figures import Figure

if TYPE_CHECKING:
    from benchmarks.bench import Bench

TASKS_PER_EXPANSION: Final = 100


def living(bench: Bench) -> list[Figure]:
    """Plan a million tasks, add 20 to them, and call up to 1,000 expansions that add 100 tasks each."""
    count = bench.size(1_000_000, 50_000)
    few = count // 10
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:

        def step(name: str, size: int) -> dict[str, Any]:
            return bench.script("living", name, "--count", str(size), data=f"{folder}/{size}")

        new, bound, again = step("plan", count), step("bind", count), step("plan", count)
        step("bind", few)
        small, changed = step("change", few), step("change", count)
        sizes = [bench.size(1_000, 100) * share // 100 for share in (10, 30, 100)]
        grown = [step("expand", size) for size in sizes]
    rows = [sum(one["rows"].values()) for one in (small, changed)]
    bind_cpu = _cpu(bound, "bind")
    return [
        *_plan_figures(count, "new", new, bind_cpu),
        *_plan_figures(count, "done", again, bind_cpu),
        _figure("compare", f"compare {count:,} tasks and 20 more with the record, CPU", _cpu(changed, "compare"), "s"),
        _figure("apply", f"record and apply 20 more tasks of {count:,}", changed["apply_seconds"], "s", due=1.0),
        _figure("apply cpu", "the same, CPU of client and server", _cpu(changed, "apply"), "s"),
        _figure("rows", "rows that this adds or alters in the whole database", rows[1], ""),
        _figure("rows per task", f"of these per unchanged task ({few:,} against {count:,})",
                (rows[1] - rows[0]) / (count - few), "", due=0.0),
        *(_figure(f"expand {size}", f"{size:,} expansions of {TASKS_PER_EXPANSION} tasks, CPU per added task",
                  1e6 * _cpu(one, "expand") / size / TASKS_PER_EXPANSION, "us")
          for size, one in zip(sizes, grown, strict=True)),
        _figure("expand growth", f"CPU per added task of {sizes[-1]:,} / of {sizes[0]:,} expansions",
                _cpu(grown[-1], "expand") / _cpu(grown[0], "expand") * sizes[0] / sizes[-1], "x", due=1.3),
        _figure("expand memory", "client memory per added task",
                (grown[-1]["client_peak_bytes"] - grown[0]["client_peak_bytes"])
                / (sizes[-1] - sizes[0]) / TASKS_PER_EXPANSION / 1024, "KB"),
    ]  # fmt: skip


def _plan_figures(count: int, what: str, found: dict[str, Any], bind_cpu: float) -> list[Figure]:
    return [
        _figure(f"plan {what}", f"plan {count:,} {what} tasks, CPU of client and server", _cpu(found, "plan"), "s"),
        _figure(f"plan {what} / bind", f"the same / that of their bind of {bind_cpu:.1f} s",
                _cpu(found, "plan") / bind_cpu, "x", due=1.0),
        _figure(f"plan {what} memory", "memory of the client above the definition, per task",
                found["plan_peak_bytes"] / count / 1024, "KB"),
    ]  # fmt: skip


def _cpu(found: dict[str, Any], step: str) -> float:
    return float(found[f"{step}_cpu_client"] + found[f"{step}_cpu_server"])


def _figure(key: str, what: str, value: float, unit: str, due: float | None = None) -> Figure:
    return Figure(case="living", key=key, what=what, value=value, unit=unit, due=due)
