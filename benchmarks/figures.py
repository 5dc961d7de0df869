"""Figures: what was measured, what is required, and how they are displayed, stored and compared with recorded ones."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HERE = Path(__file__).parent
RESULTS = HERE / "results"
#: Recorded figures for `--guard`: one set for the full sizes, one for the quick ones.
BASELINE = HERE / "baseline.json"
#: A guarded ratio may be worse than the recorded one by this factor.
GUARD_FACTOR = 2.0
#: Number of tries of a case that seems worse; one try as good as the recorded one is enough.
GUARD_TRIES = 3
LIBRARIES = ("aiohttp", "msgspec", "sqlalchemy", "starlette", "uvicorn", "uvloop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure.

    `due` is the required maximum (minimum, if `at_least`), `goal` the long-term aim; with None, the figure is only
    shown. `relative` can be compared between machines and times: CPU time divided by that of a floor if possible, and
    elapsed time only if the floor waits for the same things.
    """

    case: str
    key: str
    what: str
    value: float
    unit: str
    due: float | None = None
    goal: float | None = None
    at_least: bool = False
    relative: float | None = None

    def reaches(self, aim: float | None) -> bool | None:
        """Return whether the figure meets a target; None if there is no target."""
        if aim is None:
            return None
        return self.value >= aim if self.at_least else self.value <= aim

    @property
    def name(self) -> str:
        """The key under which the figure is recorded."""
        return f"{self.case} {self.key}"


def show(figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table("case", "what", "figure", "/ floor", "due", "goal", "holds")
    for one in figures:
        sign = ">=" if one.at_least else "<="
        aims = ["" if aim is None else f"{sign} {aim:g} {one.unit}" for aim in (one.due, one.goal)]
        holds = {True: "yes", False: "NO", None: ""}[one.reaches(one.due)]
        if one.reaches(one.goal):
            holds = "goal"
        relative = "" if one.relative is None else f"{one.relative:.3g}"
        table.add_row(one.case, one.what, f"{one.value:.3g} {one.unit}", relative, *aims, holds)
    Console(width=130).print(table)


def record_of(figures: Iterable[Figure], runs: Sequence[dict[str, Any]], quick: bool) -> dict[str, Any]:
    """Return everything that is stored of a run of the benchmarks."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "machine": {"system": platform.platform(), "cpus": len(os.sched_getaffinity(0))},
        "quick": quick,
        "figures": [{**asdict(one), "holds": one.reaches(one.due)} for one in figures],
        "runs": list(runs),
    }


def keep(record: dict[str, Any]) -> Path:
    """Write a record to the folder of results."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return path


def keep_as_baseline(figures: Iterable[Figure], quick: bool) -> None:
    """Record the relative figures for later comparisons; keep recorded figures that are not given."""
    known = baseline()
    size = known.setdefault("quick" if quick else "full", {})
    size.update({one.name: round(one.relative, 4) for one in figures if one.relative is not None})
    BASELINE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def baseline() -> dict[str, dict[str, float]]:
    """Return the recorded relative figures, by size and name."""
    return json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}


def worse_than_recorded(figures: Iterable[Figure], recorded: dict[str, float]) -> dict[str, str]:
    """Return the relative figures that are worse than recorded by more than `GUARD_FACTOR`: name -> description."""
    found = {}
    for one in figures:
        known = recorded.get(one.name)
        if known is None or one.relative is None:
            continue
        factor = known / max(one.relative, 1e-9) if one.at_least else one.relative / known
        if factor > GUARD_FACTOR:
            how = f"{one.relative:.3g} instead of {known:.3g}, worse by a factor of {factor:.1f}"
            found[one.name] = f"{one.name}: {how}"
    return found
