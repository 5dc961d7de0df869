"""Cases about single processes: a stand-alone worker, the server under reports, the idle server, imports, starts."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import ENVIRONMENT
from benchmarks.figures import Figure
from benchmarks.workload import peak_bytes

if TYPE_CHECKING:
    from benchmarks.bench import Bench

TRIES = 9
#: The CPU time per report is compared with the reference loop per this number of reports.
MANY = 10_000
WAIT_SECONDS_MAX = 20
MIB = 2**20


def p9_worker(bench: Bench) -> list[Figure]:
    """Measure a worker, best of several: memory, and time to its first request against the start of a bare Python."""
    from jobmon.worker_node import start

    floor = min(_seconds_of([sys.executable, "-I", "-c", "pass"]) for _ in range(TRIES))
    command = [sys.executable, "-I", "-S", str(start.__file__), "--cluster-name", "c", "--task-instance-id", "1"]
    found = [_until_first_request(command) for _ in range(TRIES)]
    ratio = min(seconds for seconds, _ in found) / floor
    memory = max(peak for _, peak in found) / MIB
    return [
        Figure(case="P9", key="start", what=f"worker: start to first request / bare Python ({1000 * floor:.1f} ms)",
               value=ratio, unit="x", due=1.4, goal=1.2, relative=ratio),
        Figure(case="P9", key="memory", what="worker: peak memory at its first request", value=memory, unit="MB",
               due=12, goal=10, relative=memory),
    ]  # fmt: skip


def _until_first_request(command: list[str]) -> tuple[float, int]:
    """Listen in place of the server, and return the time until the request arrives."""
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = {**ENVIRONMENT, "JOBMON_SERVICE_URL": url, "JOBMON_TOKEN": "t", "JOBMON_DATA_DIR": folder}
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=folder)
        listener.settimeout(WAIT_SECONDS_MAX)
        line, _ = listener.accept()
        line.settimeout(WAIT_SECONDS_MAX)
        line.recv(1)
        seconds = time.perf_counter() - start
        peak = peak_bytes(process.pid)
        process.kill()
        process.wait()
        line.close()
    return seconds, peak


def p10_reports(bench: Bench) -> list[Figure]:
    """Let 64 stand-alone workers report concurrently over TCP, each as soon as it got its response."""
    found = bench.script("reporting", "--reports", str(bench.size(20_000, 5_000)))
    slow = found["p99_seconds"] * 1000
    return [
        Figure(case="P10", key="rate", what=f"{found['workers']} workers: reports each second",
               value=found["per_second"],
               unit="/s", due=8500, goal=12000, at_least=True),
        Figure(case="P10", key="p99", what="slowest 1 % of the answers", value=slow, unit="ms", due=15, goal=10),
        Figure(case="P10", key="cpu", what="CPU of the server per report", value=1e6 * found["cpu_seconds_per_report"],
               unit="us", relative=found["cpu_seconds_per_report"] * MANY / bench.unit),
    ]  # fmt: skip


def p11_idle(bench: Bench) -> list[Figure]:
    """Measure the server while 50 workflows with long-running tasks are open."""
    found = bench.script("idling", "--seconds", str(bench.size(90, 20)))
    return [
        Figure(case="P11", key="cpu", what=f"{found['workflows']} open workflows: CPU of the server",
               value=found["cpu_percent"], unit="%", due=0.6, goal=0.3, relative=max(1.0, found["cpu_percent"])),
        Figure(case="P11", key="requests", what="requests per minute and workflow", value=found["requests_per_minute"],
               unit="", due=8, goal=4, relative=found["requests_per_minute"]),
    ]  # fmt: skip


def p12_imports(bench: Bench) -> list[Figure]:
    """Measure the import of the client and the command's help. Best of several."""
    commands = {
        "import jobmon.client.api": [sys.executable, "-c", "import jobmon.client.api"],
        "jobmon --help": [str(Path(sys.executable).with_name("jobmon")), "--help"],
    }
    floor = min(_cpu_seconds_of([sys.executable, "-c", "pass"]) for _ in range(TRIES))
    return [
        Figure(case="P12", key=name, what=name, value=min(_seconds_of(command) for _ in range(TRIES)), unit="s",
               due=0.1, goal=0.05, relative=min(_cpu_seconds_of(command) for _ in range(TRIES)) / floor)
        for name, command in commands.items()
    ]  # fmt: skip


def p14_start(bench: Bench) -> list[Figure]:
    """Measure the start of an embedded server on a new data folder, until ready; best of three."""
    tries = [bench.workload("chain", 1, "--bind-only") for _ in range(3)]
    seconds = min(one["server_start_seconds"] for one in tries)
    cpu = min(one["server_start_cpu_seconds"] for one in tries)
    return [Figure(case="P14", key="start", what="embedded server on a new folder: start until ready", value=seconds,
                   unit="s", due=0.6, goal=0.4, relative=cpu / bench.unit)]  # fmt: skip


SCRIPT = """
from jobmon.client.api import Tool
tool = Tool("one")
workflow = tool.create_workflow(name="one", default_cluster_name="multiprocess")
workflow.add_task(tool.get_task_template("t", "echo {text}", node_args=["text"]).create_task(text="hi"))
assert workflow.run() == "D"
"""


def p16_script(bench: Bench) -> list[Figure]:
    """Measure a script with one `echo`, whole process; best of three. The first run starts the server."""
    seconds: dict[str, list[float]] = {"nothing up, new data folder": [], "server up": []}
    floor = min(_cpu_seconds_of([sys.executable, "-c", "pass"]) for _ in range(TRIES))
    cpu = []
    for _ in range(3):
        environment = {**ENVIRONMENT, "JOBMON_DATA_DIR": bench.new_folder()}
        jobmon = [str(Path(sys.executable).with_name("jobmon"))]
        for which, taken in seconds.items():
            start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            script = SCRIPT.replace('name="one"', f'name="{which}"')
            subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=environment)
            taken.append(time.perf_counter() - start)
            cpu.append(_used_since(used))
        subprocess.run([*jobmon, "server", "stop"], check=True, capture_output=True, env=environment)
    aims = {"nothing up, new data folder": (1.8, 0.9), "server up": (0.7, 0.35)}
    return [
        Figure(case="P16", key=which, what=f"a script with one echo, {which}", value=min(seconds[which]), unit="s",
               due=due, goal=goal, relative=min(cpu) / floor if which == "server up" else None)
        for which, (due, goal) in aims.items()
    ]  # fmt: skip


def _seconds_of(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    return time.perf_counter() - start


def _cpu_seconds_of(command: list[str]) -> float:
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    return _used_since(start)


def _used_since(start: resource.struct_rusage) -> float:
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
