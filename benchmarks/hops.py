"""Show where the time of one dependency goes, hop by hop: `python -m benchmarks.hops [COUNT] [TRIES]`.

Runs a chain in which every process records when it passes certain points (`tracing/sitecustomize.py`), and prints the
time between consecutive points: median and fastest tenth, of the dependencies in the faster half.
"""

import contextlib
import itertools
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
RUN_SECONDS_MAX = 600
#: The points that a dependency passes, in order, and what happens before each.
ROUTE = (
    ("command ended", ""),
    ("server: sync seen", "the agent notices, reports; the request travels, is parsed"),
    ("server: hand-over ends", "decoded, handed to the writer's thread"),
    ("server: transaction begins", "the thread wakes"),
    ("server: commit begins", "statements: attempt and task done; the next, armed, queued and claimed"),
    ("server: commit ends", "commit"),
    ("server: sync done", "the loop wakes, the report is answered"),
    ("command started", "answer travels; the agent starts the shell"),
    ("command ended", "the shell runs"),
)


def traced(count):
    """Run a chain; return its points, sorted by time."""
    with tempfile.TemporaryDirectory(prefix="jobmon-hops-") as folder:
        (hops := Path(folder, "hops")).mkdir()
        environment = {
            **os.environ,
            "JOBMON_HOPS": str(hops),
            "JOBMON_DATA_DIR": f"{folder}/data",
            "PYTHONPATH": os.pathsep.join([str(HERE / "tracing"), str(HERE.parent)]),
        }
        command = [sys.executable, "-m", "benchmarks.workload", "chain", "--count", str(count)]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=RUN_SECONDS_MAX)
        lines = [line for path in hops.iterdir() for line in path.read_text(encoding="ascii").splitlines()]
        found = [(int(when), point) for when, _, point in (line.partition(" ") for line in lines)]
        return sorted(found + commands_of(f"{folder}/data/jobmon.sqlite"))


def commands_of(database):
    """Return when commands started and ended, by the clock of the other points."""
    ahead = time.time_ns() - time.monotonic_ns()
    with contextlib.closing(sqlite3.connect(database)) as opened:
        rows = opened.execute("SELECT started_at, ended_at FROM task_instance").fetchall()
    return [
        (1000 * when - ahead, point)
        for row in rows
        for when, point in zip(row, ("command started", "command ended"), strict=True)
    ]


def rounds_of(points):
    """Split the points into dependencies: the times of the points of ROUTE, in ns, of each that has all of them."""
    at = {}
    for when, point in points:
        at.setdefault(point, []).append(when)
    starts = at[ROUTE[0][0]]
    for begin, end in itertools.pairwise(starts):
        times = [begin]
        for point, _ in ROUTE[1:-1]:
            later = (when for when in at[point] if times[-1] <= when <= end)
            times.append(next(later, None))
            if times[-1] is None:
                break
        else:
            yield [*times, end]


def main():
    """Print the timeline."""
    count, tries = (int(text) for text in [*sys.argv[1:], *["150", "3"][len(sys.argv) - 1 :]])
    rounds = [times for _ in range(tries) for times in rounds_of(traced(count))]
    rounds.sort(key=lambda times: times[-1] - times[0])
    whole = [(times[-1] - times[0]) / 1000 for times in rounds]
    half = rounds[: max(2, len(rounds) // 2)]
    rows = []
    for place, (_, what) in enumerate(ROUTE[1:]):
        spans = sorted((times[place + 1] - times[place]) / 1000 for times in half)
        rows.append({"what": what, "median": round(statistics.median(spans)), "tenth": round(spans[len(spans) // 10])})
    for row in rows:
        sys.stdout.write(f"{row['median']:7} {row['tenth']:7}  {row['what']}\n")
    sys.stdout.write(f"{sum(row['median'] for row in rows):7} {sum(row['tenth'] for row in rows):7}  sum, us\n")
    summary = {
        "dependencies": len(rounds),
        "median": statistics.median(whole),
        "tenth": whole[len(whole) // 10],
        "load": os.getloadavg()[0],
    }
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
