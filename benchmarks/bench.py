"""Run the workloads and floors of cases, each as a separate process in its own data folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIDTH = len(os.sched_getaffinity(0))
RUN_SECONDS_MAX = 3600
#: Compiled modules are kept, as in every installation. Without them, every start takes 0.1 s longer.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
_REFERENCE = """
import time
start = time.process_time()
total = 0
for number in range(2_000_000):
    total += number
print(time.process_time() - start)
"""


@dataclass
class Bench:
    """Runs workloads. `runs` has the figures of each of them; `database_uri` their database, "" for SQLite."""

    quick: bool
    database_uri: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def _everything(self) -> tempfile.TemporaryDirectory[str]:
        """The folder of all runs, removed at the end: ext4 creates files slowly for minutes after many were removed."""
        return tempfile.TemporaryDirectory(prefix="jobmon-bench-")

    def new_folder(self) -> str:
        """Return a new folder, which is removed at the end."""
        return tempfile.mkdtemp(dir=self._everything.name)

    def size(self, full: int, quick: int) -> int:
        """Return the size for this run."""
        return quick if self.quick else full

    def workload(self, shape: str, count: int, *more: str, data: str | None = None) -> dict[str, Any]:
        """Run a script as a user would; return its figures. `data` is a data folder that is kept afterwards."""
        command = [sys.executable, "-m", "benchmarks.workload", shape, "--count", str(count), *more]
        start = time.perf_counter()
        found = json_of(command, data or f"{self.new_folder()}/data", self.database_uri)
        found |= {"whole_seconds": time.perf_counter() - start, "shape": shape, "count": count, "options": more}
        self.runs.append(found)
        return found

    def script(self, name: str, *arguments: str, data: str | None = None) -> dict[str, Any]:
        """Run another script of this folder. `data` is a data folder that is kept; None: one of its own."""
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        found = json_of(command, data or f"{self.new_folder()}/data", self.database_uri)
        self.runs.append({"script": name, "arguments": arguments, **found})
        return found

    def floor(self, count: int, width: int = WIDTH) -> dict[str, float]:
        """Return how many commands per second the machine can spawn, and the CPU seconds of each."""
        return self._bare("floor", str(count), str(width))

    def relay(self, count: int) -> dict[str, float]:
        """Return the milliseconds that the hops, commits and spawn of one dependency take without Jobmon."""
        return self._bare("relay", str(count))

    def _bare(self, script: str, *arguments: str) -> dict[str, float]:
        folder = self.new_folder()
        command = [sys.executable, "-I", "-S", str(HERE / f"{script}.py"), *arguments, folder]
        found = json_of(command, f"{folder}/data")
        self.runs.append({script: found})
        return found

    @cached_property
    def unit(self) -> float:
        """CPU seconds of a fixed loop of plain Python: the floor of cases that only compute."""
        command = [sys.executable, "-I", "-c", _REFERENCE]
        tries = [subprocess.run(command, capture_output=True, check=True, timeout=60) for _ in range(3)]
        return min(float(one.stdout) for one in tries)


def json_of(command: list[str], data: str, database_uri: str = "") -> dict[str, Any]:
    """Run a command with this data folder and database; return the JSON of its last line."""
    environment = {**ENVIRONMENT, "JOBMON_DATA_DIR": data}
    if database_uri:
        environment["JOBMON__DB__SQLALCHEMY_DATABASE_URI"] = database_uri
    done = subprocess.run(
        command, env=environment, cwd=HERE.parent, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
