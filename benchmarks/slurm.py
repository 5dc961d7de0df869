"""Slurm: tasks in arrays and packed, against `sbatch --array` with the same commands on the same cluster.

Needs a Slurm cluster, such as the one for tests: `tests/services/slurm/slurm-up.sh`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench import HERE
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from benchmarks.bench import Bench

SECONDS_MAX = 900.0
#: Resource request of a no-op.
SIZE = {"cores": 1, "memory": 0.05, "runtime": 60.0}
ARRAY = {**SIZE, "pilot": False}
PILOT = {**SIZE, "pilot": True}
_CALLS = re.compile(r"Cluster slurm: (\d+) calls \((.*)\) for \d+ attempts")


def slurm(bench: Bench) -> list[Figure]:
    """Measure no-op tasks in array mode and packed, with a raw array before and after; submission; Slurm calls."""
    count, many = bench.size(1_000, 200), bench.size(10_000, 2_000)
    floor = raw_array(count)
    array, array_calls = _run(bench, count, ARRAY)
    packed, packed_calls = _run(bench, count, PILOT)
    floor = (floor + raw_array(count)) / 2
    bench.runs.append({"floor": {"raw array": floor, "count": count}})
    per_thousand = 1000 / count
    return [
        _figure("array", f"{count} no-op tasks as arrays: {array:.1f} s / raw array of {floor:.1f} s", array / floor,
                "x", 2.2),
        _figure("packed", f"{count} no-op tasks in pilots: {packed:.1f} s / raw array of {floor:.1f} s",
                packed / floor, "x", 0.5),
        _figure("calls array", "calls of Slurm's commands per 1,000 tasks, arrays", array_calls * per_thousand, "", 12),
        _figure("calls packed", "calls of Slurm's commands per 1,000 tasks, pilot", packed_calls * per_thousand, "", 3),
        _figure("submission", f"{many} ready tasks: from the first queued to all submitted", submission(many), "s", 10),
    ]  # fmt: skip


def _figure(key: str, what: str, value: float, unit: str, due: float) -> Figure:
    return Figure(case="slurm", key=key, what=what, value=value, unit=unit, due=due)


def raw_array(count: int) -> float:
    """Return the seconds that Slurm itself takes from submission until no job is left."""
    script = "#!/bin/sh\n/bin/sh -c 'true $SLURM_ARRAY_TASK_ID'\n"
    options = ["--cpus-per-task=1", "--mem=52M", "--time=1", "--output=/dev/null", f"--array=0-{count - 1}"]
    start = time.perf_counter()
    job = _tool("sbatch", "--parsable", *options, script=script).strip()
    while _tool("squeue", "--noheader", f"--jobs={job}", "--format=%i").strip():
        if time.perf_counter() - start > SECONDS_MAX:
            raise RuntimeError(f"job {job} still runs after {SECONDS_MAX:g} s")
        time.sleep(0.2)
    return time.perf_counter() - start


def _tool(*words: str, script: str = "") -> str:
    done = subprocess.run(words, input=script, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def _run(bench: Bench, count: int, request: dict[str, Any]) -> tuple[float, int]:
    """Return the duration of a workflow of `count` no-ops, and how often Slurm was called for it."""
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:
        more = ("--cluster", "slurm", "--resources", json.dumps(request))
        found = bench.workload("independent", count, *more, data=f"{folder}/data")
        logs = [path.read_text() for path in Path(folder).glob("data/logs/*/distributor-*.log")]
    if found["status"] != "D":
        raise RuntimeError(f"the workflow ended {found['status']}")
    calls = [int(number) for number, _ in _CALLS.findall("\n".join(logs))]
    found["slurm_calls"] = sum(calls)
    return float(found["run_seconds"]), sum(calls)


def submission(count: int) -> float:
    """Return the time from the first queued attempt until all are submitted; the jobs are held, and then cancelled."""
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as folder:
        request = {**ARRAY, "sbatch": {"hold": True}}
        command = [sys.executable, "-m", "benchmarks.workload", "independent", "--count", str(count)]
        command += ["--cluster", "slurm", "--resources", json.dumps(request)]
        environment = {**os.environ, "JOBMON_DATA_DIR": f"{folder}/data"}
        with subprocess.Popen(command, env=environment, cwd=HERE.parent, stdout=subprocess.DEVNULL) as process:
            try:
                return _all_submitted(Path(folder) / "data", count)
            finally:
                process.send_signal(signal.SIGINT)
                jobs = _tool("squeue", "--noheader", "--me", "--states=PENDING", "--format=%F %j").splitlines()
                ours = {line.split()[0] for line in jobs if ".jm-" in line}
                process.wait(timeout=SECONDS_MAX)
                _tool("scancel", *ours)
                _stop_server(environment)


def _all_submitted(data: Path, count: int) -> float:
    deadline = time.monotonic() + SECONDS_MAX
    query = (
        "SELECT COUNT(*), MIN(queued_at), MAX(launched_at) FROM task_instance"
        " WHERE launched_at IS NOT NULL AND distributor_id IS NOT NULL"
    )
    while time.monotonic() < deadline:
        for path in data.glob("**/jobmon.sqlite"):
            with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path)) as database:
                found, first, last = database.execute(query).fetchone()
                if found >= count:
                    return float(last - first) / 1e6
        time.sleep(0.2)
    raise RuntimeError(f"not all of {count} tasks were submitted within {SECONDS_MAX:g} s")


def _stop_server(environment: dict[str, str]) -> None:
    stop = "from jobmon.core import access; access.stop_server()"
    subprocess.run([sys.executable, "-c", stop], env=environment, timeout=60, check=False)
