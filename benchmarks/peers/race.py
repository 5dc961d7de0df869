"""Run the peers on P1, P2 and P3 together with Jobmon, and print a table.

Every `peer_*.py` of this folder is a peer. `SETUP` describes how it was set up, `PACKAGES` lists what pip installs for
it, or `DEBIAN_PACKAGES` what is unpacked for it, `SHAPES` what it can run, and `COUNT_MAX` limits the number of tasks
of a slow peer. It runs in its own virtual environment or folder below `.peers/`. A peer that cannot be set up is
skipped, and the table says why. Like Jobmon, a peer runs no-op commands through a shell, with one slot per CPU; its
startup is excluded.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.bench import json_of

if TYPE_CHECKING:
    from benchmarks.bench import Bench

HERE = Path(__file__).parent
PLACE = HERE.parent.parent / ".peers"
SHAPES = {"independent": (10_000, 500), "chain": (100, 50), "fan": (1_000, 200)}
SET_UP_SECONDS_MAX = 600


def run(bench: Bench) -> None:
    """Run all peers and print the time that they and Jobmon need per task."""
    table = Table("tool", *(f"{shape}, ms per task" for shape in SHAPES), "set up with / why not")
    counts = {shape: bench.size(*sizes) for shape, sizes in SHAPES.items()}
    ours = {shape: bench.workload(shape, count)["swarm_seconds"] / count for shape, count in counts.items()}
    table.add_row("jobmon", *(f"{1000 * seconds:.2f}" for seconds in ours.values()), "every intent and result durable")
    for script in sorted(HERE.glob("peer_*.py")):
        table.add_row(script.stem.removeprefix("peer_"), *_row(bench, script, counts))
    Console(width=130).print(table)


def _row(bench: Bench, script: Path, counts: dict[str, int]) -> list[str]:
    settings = _settings_of(script)
    try:
        python = _set_up(script.stem, settings)
        cells = [_figure(bench, python, script, shape, count) for shape, count in counts.items()]
    except (subprocess.SubprocessError, RuntimeError, OSError) as error:
        return [*("-" for _ in counts), f"skipped: {str(error).splitlines()[-1][:60]}"]
    return [*cells, settings["SETUP"]]


def _figure(bench: Bench, python: str, script: Path, shape: str, count: int) -> str:
    settings = _settings_of(script)
    if shape not in settings["SHAPES"]:
        return "-"
    count = min(count, settings.get("COUNT_MAX", count))
    command = ["env", f"PEER_PLACE={PLACE / script.stem}", python, str(script), shape, str(count)]
    found = json_of([*command, str(len(os.sched_getaffinity(0)))], str(PLACE / "data"))
    bench.runs.append({"peer": script.stem, "shape": shape, "count": count, **found})
    return f"{1000 * found['seconds'] / count:.2f}"


def _settings_of(script: Path) -> dict[str, Any]:
    """Read the constants at the top of a peer's script without running it."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def _set_up(name: str, settings: dict[str, Any]) -> str:
    """Return the Python of the peer: that of its virtual environment, created if necessary, or the current one."""
    place, python = PLACE / name, sys.executable
    if packages := settings.get("PACKAGES"):
        python = str(place / "bin" / "python")
    if (place / "ready").exists():
        return python
    if packages:
        venv.create(place, with_pip=True, clear=True)
        _run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *packages], place)
    for package in settings.get("DEBIAN_PACKAGES", []):
        place.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", package], place)
        _run(["dpkg", "-x", str(next(place.glob(f"{package}_*.deb"))), str(place)], place)
    if place.exists():
        (place / "ready").touch()
    return python


def _run(command: list[str], place: Path) -> None:
    """Run a step of the setup; its error message is the reason why the peer is skipped."""
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=SET_UP_SECONDS_MAX, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"{command[0]} failed")
