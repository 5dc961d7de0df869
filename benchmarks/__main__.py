"""`python -m benchmarks [--quick] [--case NAME]`: run the cases, print the table, keep the results as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES, Bench

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, some minutes in all")
    parser.add_argument("--case", choices=CASES, help="only this case")
    options = parser.parse_args()
    bench = Bench(options.quick)
    figures = []
    for name in [options.case] if options.case else CASES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures += CASES[name](bench)
    _print(figures)
    _keep(figures, options.quick)
    return 0


def _print(figures) -> None:
    table = Table("case", "what", "figure", "due", "holds")
    for figure in figures:
        sign = ">=" if figure.at_least else "<="
        due = f"{sign} {figure.due:g} {figure.unit}"
        table.add_row(
            figure.case, figure.what, f"{figure.value:.3g} {figure.unit}", due, "yes" if figure.holds else "NO"
        )
    Console(width=110).print(table)


def _keep(figures, quick: bool) -> None:
    RESULTS.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    now = datetime.now(UTC)
    record = {
        "time": now.isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "cpus": len(os.sched_getaffinity(0))},
        "quick": quick,
        "figures": [{**asdict(figure), "holds": figure.holds} for figure in figures],
    }
    path = RESULTS / f"{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(f"kept as {path.relative_to(Path.cwd())}" if path.is_relative_to(Path.cwd()) else f"kept as {path}")


if __name__ == "__main__":
    sys.exit(main())
