"""`python -m benchmarks.plots`: plot scaling from all stored results, into `docs/images` (log-log over the tasks)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.figures import RESULTS

IMAGES = Path(__file__).parent.parent / "docs" / "images"
INCHES = (7, 4.2)


def main() -> None:
    runs = [run for path in sorted(RESULTS.glob("*.json")) for run in json.loads(path.read_text()).get("runs", [])]
    bound = [run for run in runs if run.get("shape") == "arguments"]
    done = [run for run in runs if run.get("shape") == "independent" and run.get("status") == "D"]
    draw("bench-bind", "define and bind, 3 arguments each", {
        "seconds": points(bound, lambda run: run["define_seconds"] + run["bind_seconds"]),
        "client memory, MB": points(bound, lambda run: run["client_peak_bytes_per_task"] * run["tasks"] / 2**20),
        "server memory above its start, MB": points(bound, lambda run: run["server_peak_growth_bytes"] / 2**20),
    })  # fmt: skip
    draw("bench-run", "no-op tasks on multiprocess", {
        "seconds": points(done, lambda run: run["run_seconds"]),
        "requests": points(done, lambda run: run["requests"]),
        "transactions": points(done, lambda run: run["transactions"]),
    })  # fmt: skip


def points(runs: list[dict[str, Any]], value: Any) -> dict[int, float]:
    """Return the best value for each number of tasks."""
    found: dict[int, float] = {}
    for run in runs:
        found[run["tasks"]] = min(found.get(run["tasks"], float("inf")), value(run))
    return dict(sorted(found.items()))


def draw(name: str, title: str, lines: dict[str, dict[int, float]]) -> None:
    """Draw lines over the number of tasks, with a dotted line for linear growth."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=INCHES, layout="constrained")
    for label, found in lines.items():
        (line,) = axes.loglog(list(found), list(found.values()), marker="o", label=label)
        if found:
            first = next(iter(found))
            linear = [found[first] * count / first for count in found]
            axes.loglog(list(found), linear, ":", color=line.get_color(), linewidth=1)
    axes.set(title=title, xlabel="tasks (dotted: linear in the first point)")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    figure.savefig(IMAGES / f"{name}.svg")
    plt.close(figure)


if __name__ == "__main__":
    main()
