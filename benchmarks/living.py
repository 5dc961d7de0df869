"""`python -m benchmarks.living STEP --count N`: one step of the case `living`; prints figures as JSON.

All steps of one workflow share a data folder and its server. Steps that compare run in processes of their own, so that
CPU time and memory are theirs alone:

* `bind`: define and bind tasks with three arguments each; then mark all of them as done.
* `plan`: define the same tasks and plan them, against the record if there is one.
* `change`: define 20 tasks more, compare with the record, record and apply the change. Also counts the rows of the
  whole database that the change has added or altered.
* `expand`: run a workflow of expansions until all have been called; a task for which all others wait is held, so that
  nothing but the calls costs anything.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from benchmarks.workload import arguments, cpu_seconds, peak_bytes
from jobmon.client import steering
from jobmon.client.api import Tool
from jobmon.client.binding import Binding
from jobmon.client.planning import Consent
from jobmon.core import access
from jobmon.core.constants import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobmon.client.workflow import Workflow

ADDED: Final = 20
TASKS_PER_EXPANSION: Final = 100
POLL_SECONDS: Final = 0.2
EXPAND_SECONDS_MAX: Final = 1800.0


class Meter:
    """Measures this process and the server. `figures`: step -> seconds and bytes."""

    def __init__(self) -> None:
        self.server = access.ensure_server()
        self._server = psutil.Process(self.server.pid)
        self.figures: dict[str, Any] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step."""
        own, server, start = time.process_time(), cpu_seconds(self._server), time.perf_counter()
        memory = peak_bytes(os.getpid())
        yield
        self.figures |= {
            f"{name}_seconds": time.perf_counter() - start,
            f"{name}_cpu_client": time.process_time() - own,
            f"{name}_cpu_server": cpu_seconds(self._server) - server,
            f"{name}_peak_bytes": peak_bytes(os.getpid()) - memory,
        }

    @property
    def database(self) -> str:
        """The file of the database."""
        return self.server.database.removeprefix("sqlite:///")


def define(count: int) -> Workflow:
    """Define a workflow with this number of tasks."""
    workflow = Tool(name="bench").create_workflow(
        name="living", workflow_args="bench", default_cluster_name="multiprocess"
    )
    arguments(workflow, None, count)
    return workflow


def bind(meter: Meter, count: int) -> None:
    """Bind tasks, and mark them as done."""
    with meter.step("define"):
        workflow = define(count)
    with meter.step("bind"):
        workflow.bind()
    ids = [task.task_id for task in workflow.tasks.values() if task.task_id is not None]
    steering.update(workflow.requester, workflow.workflow_id or 0, ids, TaskStatus.DONE.value, force=True)


def plan(meter: Meter, count: int) -> None:
    """Plan tasks."""
    with meter.step("define"):
        workflow = define(count)
    with meter.step("plan"):
        found = workflow.plan()
    meter.figures["tasks_to_run"] = found.run_count


def change(meter: Meter, count: int) -> None:
    """Add some tasks."""
    with meter.step("define"):
        workflow = define(count + ADDED)
    copy = Path(meter.database).with_name("before.sqlite")
    with closing(sqlite3.connect(meter.database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    binding = Binding(workflow)
    with meter.step("compare"):
        binding.record_workflow(Consent("rerun"))
    with meter.step("apply"):
        binding.record_tasks()
    found = binding.plan
    meter.figures["tasks_to_run"] = 0 if found is None else found.run_count
    meter.figures["rows"] = changed_rows(meter.database, copy)


def changed_rows(database: str, before: Path) -> dict[str, int]:
    """Return for each table how many rows are new or different; 0 ones are left out."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ATTACH ? AS before", (str(before),))
        names = [name for (name,) in connection.execute("SELECT name FROM before.sqlite_master WHERE type = 'table'")]
        query = "SELECT COUNT(*) FROM (SELECT * FROM main.{0} EXCEPT SELECT * FROM before.{0})"
        counts = {name: connection.execute(query.format(name)).fetchone()[0] for name in names if "sqlite" not in name}
    return {name: count for name, count in counts.items() if count}


def expand(meter: Meter, count: int) -> None:
    """Call expansions in a process of their own, and end it when all are done."""
    command = [sys.executable, "-m", "benchmarks.living", "grow", "--count", str(count)]
    server = psutil.Process(meter.server.pid)
    before = cpu_seconds(server)
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()  # it has bound the workflow
    process, start = psutil.Process(child.pid), time.perf_counter()
    own, bound = cpu_seconds(process), cpu_seconds(server)
    query = "SELECT COUNT(*) FROM task WHERE kind = 'E' AND status = 'D'"
    with closing(sqlite3.connect(meter.database)) as connection:
        while connection.execute(query).fetchone()[0] < count:
            if child.poll() is not None or time.perf_counter() - start > EXPAND_SECONDS_MAX:
                raise SystemExit(f"The expansions were not called: {child.poll()}")
            time.sleep(POLL_SECONDS)
    meter.figures |= {
        "expand_seconds": time.perf_counter() - start,
        "expand_cpu_client": cpu_seconds(process) - own,
        "expand_cpu_server": cpu_seconds(server) - bound,
        "bind_cpu_server": bound - before,
        "client_peak_bytes": peak_bytes(child.pid),
    }
    child.kill()
    child.wait()


def grow(_: Meter, count: int) -> None:
    """Run the workflow of `expand`."""
    tool = Tool(name="bench")
    template = tool.get_task_template("part", "true {number}", node_args=["number"])
    workflow = tool.create_workflow(name="growing", workflow_args="growing", default_cluster_name="multiprocess")
    gate = workflow.add_task(template.create_task(number=-1))

    def split(first: int) -> Callable[[Any], list[Any]]:
        return lambda _: template.create_tasks(
            number=list(range(first, first + TASKS_PER_EXPANSION)), upstream_tasks=[gate]
        )

    for number in range(count):
        workflow.expand(split(number * TASKS_PER_EXPANSION), name=f"split_{number}")
    workflow.bind()
    gate.hold()
    os.environ["JOBMON__RUN__EXPANSIONS_MAX"] = str(count)
    sys.stdout.write("bound\n")
    sys.stdout.flush()
    workflow.run()


STEPS: Final = {step.__name__: step for step in (bind, plan, change, expand, grow)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    meter = Meter()
    try:
        STEPS[options.step](meter, options.count)
    finally:
        if options.step != grow.__name__:  # it shares the server of `expand`
            access.stop_server()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"own_peak_bytes": peak} | meter.figures) + os.linesep)


if __name__ == "__main__":
    main()
