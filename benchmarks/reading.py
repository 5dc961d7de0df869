"""`python -m benchmarks.reading [--tasks 1000000] [--folder DIR]`: time the commands that read a large workflow.

Writes the database (`big_database`) unless the folder has one, starts a server for it, runs each command several times,
and prints the minimum wall time, and the CPU time of command and server, which does not depend on other load of the
machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from benchmarks.big_database import SIMULATIONS, TASKS_PER_LOCATION, build
from jobmon.core import access

JOBMON: Final = Path(sys.executable).with_name("jobmon")
REPEATS: Final = 5
SECONDS_MAX: Final = 1.0


def commands(locations: int) -> list[str]:
    """Return one line for each read-only command and each of its expensive variants."""
    last = locations * TASKS_PER_LOCATION + 1
    failed = int(locations * 0.62) * TASKS_PER_LOCATION
    return [
        "workflow status",
        "workflow status -w 1 -o json",
        "workflow tasks -w 1",
        "workflow tasks -w 1 -s FATAL",
        "workflow tasks -w 1 -s ADJUSTING_RESOURCES",
        "workflow tasks -w 1 -l 10000 -o json",
        "workflow logs -w 1",
        "workflow logs -w 1 -j final*",
        "workflow errors -w 1",
        "workflow errors -w 1 --list",
        "workflow explain 1",
        "workflow history -w 1",
        "workflow efficiency -w 1",
        "workflow resources yaml -w 1",
        "workflow resources yaml -t 5",
        "workflow resources usage -t 2",
        "workflow resources usage -t 2 -w 1",
        'workflow resources usage -t 2 -a {"location":"7"}',
        "task status -t 5",
        "task logs 5",
        f"task dependencies -t {last}",
        "task dependencies -t 1",
        "task explain 5",
        f"task explain {failed + SIMULATIONS + 50}",
        f"task explain {last - 10}",
        f"task explain {last}",
        "cluster list",
        "server status",
        "db revision",
        "doctor",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="data folder to be made or used; a temporary one if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobmon-reading-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = folder / "jobmon.sqlite"
        if not database.exists():
            began = time.monotonic()
            build(database, options.tasks)
            size = database.stat().st_size / 1e6
            print(f"wrote {options.tasks:,} tasks, {size:.0f} MB, in {time.monotonic() - began:.0f} s")
        os.environ["JOBMON_DATA_DIR"] = str(folder)
        server = psutil.Process(access.ensure_server(folder).pid)
        try:
            slow = [
                line for line in commands(max(1, options.tasks // TASKS_PER_LOCATION)) if not _measured(line, server)
            ]
        finally:
            access.stop_server(data=folder)
    print(f"load here: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    return 1 if slow else 0


def _measured(line: str, server: psutil.Process) -> bool:
    """Run a command several times; return whether command and server together stay within the allowed CPU time."""
    figures = [_once(line.split(), server) for _ in range(REPEATS)]
    wall, client, served = (min(column) for column in zip(*figures, strict=True))
    fine = client + served <= SECONDS_MAX
    print(f"{'' if fine else 'SLOW '}{wall:6.2f} s  CPU {client:.2f} + {served:.2f} s  {line}", flush=True)
    return fine


def _once(words: list[str], server: psutil.Process) -> tuple[float, float, float]:
    def mine() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def its() -> float:
        times = server.cpu_times()
        return times.user + times.system

    own, other, began = mine(), its(), time.monotonic()
    finished = subprocess.run([JOBMON, *words], capture_output=True, text=True, check=False)
    if finished.returncode not in (0, 1):
        sys.exit(f"{words}: {finished.stderr}")
    return time.monotonic() - began, mine() - own, its() - other


if __name__ == "__main__":
    sys.exit(main())
