"""Run one workload as a user's script would; print its internal figures as JSON. `cases.py` explains them."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

import psutil

from benchmarks.floor import best_rate

#: Interval between two measurements of the distributor's memory.
LOOK_SECONDS = 0.5


def independent(workflow, template, count):
    workflow.add_tasks(template.create_tasks(number=list(range(count))))


def chain(workflow, template, count):
    task = None
    for number in range(count):
        task = template.create_task(number=number, upstream_tasks=[task] if task is not None else [])
        workflow.add_task(task)


def fan(workflow, template, count):
    """1 -> count -> 1."""
    first = template.create_task(number=-1)
    middle = template.create_tasks(number=list(range(count)), upstream_tasks=[first])
    last = template.create_task(number=-2, upstream_tasks=middle)
    workflow.add_tasks([first, *middle, last])


def bipartite(workflow, template, count):
    """Make each of `count` tasks upstream of each of `count` others."""
    before = template.create_tasks(number=list(range(count)))
    after = template.create_tasks(number=list(range(count, 2 * count)), upstream_tasks=before)
    workflow.add_tasks([*before, *after])


def arguments(workflow, template, count):
    """Add independent tasks with three arguments each; the template is created here."""
    three = workflow.tool.get_task_template(
        "three",
        "true {number} {data} {verbosity}",
        node_args=["number"],
        task_args=["data"],
        op_args=["verbosity"],
    )
    for number in range(count):
        workflow.add_task(three.create_task(number=number, data=f"data-{number % 7}", verbosity=1))


SHAPES = {shape.__name__: shape for shape in (independent, chain, fan, bipartite, arguments)}


def peak_bytes(pid):
    """Return the peak resident memory of a process, from the kernel."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class PeakOfChildren:
    """Samples the memory of child processes; the kernel's figure for exited ones starts at the size of this process."""

    def __init__(self):
        self.bytes = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._is_over.set()
        self._thread.join()

    def _look(self):
        while not self._is_over.wait(LOOK_SECONDS):
            for child in psutil.Process().children():
                self.bytes = max(self.bytes, peak_bytes(child.pid))


def cpu_seconds(process):
    """Return the user and system time of a process."""
    return sum(process.cpu_times()[:2])


def times_of_attempts(uri):
    """Return when the attempts of the newest run were queued, and when they ended: seconds since the epoch, sorted."""
    from tests.databases import rows  # not before everything is measured

    newest = "WHERE workflow_run_id = (SELECT MAX(id) FROM workflow_run)"
    columns = zip(*rows(uri, f"SELECT queued_at, ended_at FROM task_instance {newest}"), strict=True)
    return [sorted(one / 1e6 for one in column if one is not None) for column in columns]


def requests_so_far():
    """Return the number of requests and transactions that the server has counted."""
    from jobmon.core.requester import Requester

    _, counted = Requester.from_defaults().send_request("/metrics", None, "get")
    return {key: counted[key] for key in ("requests", "transactions")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--cluster", default="multiprocess")
    parser.add_argument("--resources", type=json.loads, default={}, help="what every task asks for, as JSON")
    parser.add_argument("--bind-only", action="store_true")
    parser.add_argument("--resume", action="store_true", help="the workflow of an earlier script in this data folder")
    parser.add_argument("--keep-server", action="store_true")
    options = parser.parse_args()

    from jobmon.client.api import Tool
    from jobmon.core import access

    marks = {}
    start = time.perf_counter()
    server = access.ensure_server()
    marks["server_start_seconds"] = time.perf_counter() - start
    server_process = psutil.Process(server.pid)
    server_before = marks["server_start_cpu_seconds"] = cpu_seconds(server_process)
    server_peak_before = peak_bytes(server.pid)
    client_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    start = time.perf_counter()
    tool = Tool(name="bench")
    template = tool.get_task_template("noop", "true {number}", node_args=["number"])
    workflow = tool.create_workflow(name=options.shape, workflow_args="bench", default_cluster_name=options.cluster)
    workflow.set_default_compute_resources_from_dict(options.cluster, options.resources)
    SHAPES[options.shape](workflow, template, options.count)
    marks["define_seconds"] = time.perf_counter() - start
    start = time.perf_counter()
    workflow.bind()
    marks["bind_seconds"] = time.perf_counter() - start
    marks["client_peak_bytes_per_task"] = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - client_before
    ) / len(workflow.tasks)
    status = "not run"
    if not options.bind_only:
        start = time.perf_counter()
        begun = cpu_seconds(server_process)
        with PeakOfChildren() as peak:
            status = str(workflow.run(resume=options.resume))
        marks["agent_peak_bytes"] = peak.bytes
        marks["run_cpu_server_seconds"] = cpu_seconds(server_process) - begun
        marks["run_seconds"] = time.perf_counter() - start
        marks["swarm_seconds"] = workflow.last_result.elapsed_time
    marks |= requests_so_far()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = resource.getrusage(resource.RUSAGE_SELF)
    marks |= {
        "status": status,
        "tasks": len(workflow.tasks),
        "cpu_client_seconds": own.ru_utime + own.ru_stime,
        "cpu_agent_seconds": children.ru_utime + children.ru_stime,
        "cpu_server_seconds": cpu_seconds(server_process) - server_before,
        "client_peak_bytes": own.ru_maxrss * 1024,
        "server_peak_growth_bytes": peak_bytes(server.pid) - server_peak_before,
    }
    if not options.bind_only:
        queued, ended = times_of_attempts(server.database)
        marks["first_queued_at"] = queued[0]
        marks["best_per_second"] = best_rate(ended) if len(ended) > 1 else 0.0
        steps = sorted(later - earlier for earlier, later in itertools.pairwise(queued))
        marks["undisturbed_step_seconds"] = steps[len(steps) // 10] if steps else 0.0
    if not options.keep_server:
        access.stop_server()
    database = server.database.removeprefix("sqlite:///")
    marks["database_bytes"] = sum(path.stat().st_size for path in Path(database).parent.glob("jobmon.sqlite*"))
    sys.stdout.write(json.dumps(marks) + os.linesep)


if __name__ == "__main__":
    main()
