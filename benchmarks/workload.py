"""One workload as a user's script would run it; prints its inner figures as JSON. See `cases.py` for what they mean."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import time

import psutil


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
    """Every one of `count` tasks before every one of `count` others."""
    before = template.create_tasks(number=list(range(count)))
    after = template.create_tasks(number=list(range(count, 2 * count)), upstream_tasks=before)
    workflow.add_tasks([*before, *after])


def arguments(workflow, template, count):
    """Independent tasks with three arguments each; the template is made here."""
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
    """Peak resident memory of a process, from the kernel."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--cluster", default="multiprocess")
    parser.add_argument("--bind-only", action="store_true")
    options = parser.parse_args()

    from jobmon.client.api import Tool
    from jobmon.core import access

    marks = {}
    start = time.perf_counter()
    server = access.ensure_server()
    marks["server_start_seconds"] = time.perf_counter() - start
    server_process = psutil.Process(server.pid)
    server_before = sum(server_process.cpu_times()[:2])
    server_peak_before = peak_bytes(server.pid)
    client_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    start = time.perf_counter()
    tool = Tool(name="bench")
    template = tool.get_task_template("noop", "true {number}", node_args=["number"])
    workflow = tool.create_workflow(name=options.shape, default_cluster_name=options.cluster)
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
        status = str(workflow.run())
        marks["run_seconds"] = time.perf_counter() - start
        marks["swarm_seconds"] = workflow.last_result.elapsed_time
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = resource.getrusage(resource.RUSAGE_SELF)
    marks |= {
        "status": status,
        "tasks": len(workflow.tasks),
        "cpu_client_seconds": own.ru_utime + own.ru_stime,
        "cpu_distributor_seconds": children.ru_utime + children.ru_stime,
        "cpu_server_seconds": sum(server_process.cpu_times()[:2]) - server_before,
        "server_peak_growth_bytes": peak_bytes(server.pid) - server_peak_before,
    }
    access.stop_server()
    sys.stdout.write(json.dumps(marks) + os.linesep)


if __name__ == "__main__":
    main()
