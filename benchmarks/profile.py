"""Show where the CPU time of a run goes: `python -m benchmarks.profile SHAPE COUNT`. Requires perf and py-spy.

Runs a workload twice. In the first run, perf measures for each process the shares of CPU time in the kernel, SQLite and
the interpreter (with its libraries). In the second run, py-spy samples RATE times a second which Python code holds the
interpreter's lock, and the interpreter's share is divided accordingly. Prints microseconds of CPU per task.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from benchmarks.bench import ENVIRONMENT, HERE

RATE = 500
LOOK_SECONDS = 0.02
RUN_SECONDS_MAX = 600
ROLES = {
    "jobmon.server": "server",
    "jobmon.distributor": "distributor",
    "agent/start.py": "agent",
}
#: The group of a sample is that of the first word found in the file of its innermost frame.
GROUPS = {
    "importlib": "imports, at the start",
    "server/sql.py": "SQL: calls into SQLite",
    "server/transitions/": "use cases and queries",
    "server/usecases": "use cases and queries",
    "server/queries": "use cases and queries",
    "server/writer.py": "writer: taking turns, transaction, waking",
    "server/transaction.py": "writer: taking turns, transaction, waking",
    "server/feed.py": "writer: taking turns, transaction, waking",
    "core/wire": "messages: encoding and decoding",
    "server/": "routes",
    "uvicorn/": "HTTP of the server",
    "starlette/": "framework",
    "core/http.py": "HTTP of the client's side",
    "core/requester.py": "HTTP of the client's side",
    "asyncio/streams.py": "HTTP of the client's side",
    "client/swarm": "orchestrator: state, plan, changes",
    "client/binding.py": "recording",
    "client/task": "definition",
    "client/": "other code of the client",
    "distributor/": "distributor: state, launches, reports",
    "agent/starting.py": "agent: starting commands",
    "agent/requests.py": "HTTP of the agent",
    "agent/http.py": "HTTP of the agent",
    "agent/": "agent: loop, endings, journal",
    "asyncio/": "loop",
    "core/loops.py": "loop",
}
LIBRARIES = {"[kernel": "the kernel", "libsqlite": "SQLite itself"}


def role_of(process):
    """Return which component of Jobmon a process is, or None."""
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return None
    return next((role for word, role in ROLES.items() if word in command), None)


def watched(shape, count, folder, spy):
    """Run the workload; return CPU seconds by role. `spy(role, pid)` starts a profiler of a process."""
    environment = {**ENVIRONMENT, "JOBMON_DATA_DIR": f"{folder}/data"}
    command = [sys.executable, "-m", "benchmarks.workload", shape, "--count", str(count)]
    with subprocess.Popen(command, env=environment, cwd=HERE.parent, stdout=subprocess.DEVNULL) as workload:
        processes = {"client": psutil.Process(workload.pid)}
        spies = [spy("client", workload.pid)]
        cpu = {}
        deadline = time.monotonic() + RUN_SECONDS_MAX
        while workload.poll() is None and time.monotonic() < deadline:
            for process in processes["client"].children(recursive=True) + _server(folder):
                role = role_of(process)
                if role is not None and role not in processes:
                    processes[role] = process
                    spies.append(spy(role, process.pid))
            for role, process in processes.items():
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    cpu[role] = sum(process.cpu_times()[:2])
            time.sleep(LOOK_SECONDS)
    for one in spies:
        one.wait(RUN_SECONDS_MAX)
    return cpu


def _server(folder):
    """Return the server, which is not a descendant of the workload: it runs in its own session."""
    try:
        pid = json.loads(Path(folder, "data", "server.json").read_text(encoding="utf-8"))["pid"]
        return [psutil.Process(pid)]
    except (OSError, ValueError, psutil.Error):
        return []


def _started(*command):
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def libraries(shape, count):
    """Run the workload under perf; return CPU seconds by role, and the shares of kernel and SQLite by role."""
    with tempfile.TemporaryDirectory(prefix="jobmon-profile-") as folder:
        seconds = watched(
            shape,
            count,
            folder,
            lambda role, pid: _started(
                "perf", "record", "-e", "cpu-clock", "-F", str(RATE), "-o", f"{folder}/{role}", "-p", str(pid)
            ),
        )
        return seconds, {role: _shares(f"{folder}/{role}") for role in seconds}


def _shares(path):
    command = ["perf", "report", "-i", path, "--no-children", "--sort", "dso", "--stdio"]
    report = subprocess.run(command, capture_output=True, text=True, check=True, timeout=RUN_SECONDS_MAX).stdout
    found = Counter()
    for line in report.splitlines():
        share, _, library = line.strip().partition("%  ")
        for word, group in LIBRARIES.items():
            if word in library and not line.startswith("#"):
                found[group] += float(share) / 100
    return found


def groups(shape, count):
    """Run the workload under py-spy; return the share of samples of each group, by role."""
    program = str(Path(sys.executable).with_name("py-spy"))
    with tempfile.TemporaryDirectory(prefix="jobmon-profile-") as folder:
        roles = watched(
            shape,
            count,
            folder,
            lambda role, pid: _started(
                program, "record", "--gil", "-r", str(RATE), "-f", "raw", "-o", f"{folder}/{role}", "-p", str(pid)
            ),
        )
        return {role: _divided(Path(folder, role)) for role in roles}


def _divided(path):
    found = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        found[_group(stack.split(";"))] += int(count)
    whole = sum(found.values())
    return {group: count / whole for group, count in found.items()}


def _group(frames):
    for frame in reversed(frames):
        for word, group in GROUPS.items():
            if word in frame:
                return group
    return "everything else"


def main():
    """Print the profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape")
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    seconds, shares = libraries(options.shape, options.count)
    divided = groups(options.shape, options.count)
    for role, used in seconds.items():
        each = 1e6 * used / options.count
        interpreter = 1 - sum(shares[role].values())
        parts = shares[role] + Counter({group: interpreter * part for group, part in divided[role].items()})
        sys.stdout.write(f"{role}: {each:.0f} us\n")
        for group, part in parts.most_common():
            sys.stdout.write(f"  {each * part:7.1f} us  {100 * part:4.1f} %  {group}\n")


if __name__ == "__main__":
    main()
