"""Packed jobs on a real Slurm: few jobs, one attempt per task, nothing lost or run twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys

import psutil
import pytest
from tests.services.conftest import until

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("slurm")]

SCRIPT = """
import json, sys
from jobmon.client.api import Tool

kinds, how = json.loads(sys.argv[1]), json.loads(sys.argv[2])
tool = Tool("packed")
workflow = tool.create_workflow(workflow_args="w", name="w", default_cluster_name="slurm")
for name, kind in kinds.items():
    template = tool.get_task_template(name, command_template=kind.pop("command") + " # {number}", node_args=["number"])
    count, chained = kind.pop("count", 1), kind.pop("chained", False)
    tasks = [template.create_task(number=number, **kind) for number in range(count)]
    for one, next_one in zip(tasks, tasks[1:]) if chained else ():
        next_one.add_upstream(one)
    workflow.add_tasks(tasks)
print(workflow.run(**how))
"""
SMALL = {"queue": "short", "cores": 1, "memory": 0.0625, "runtime": 60.0}
COUNTED = "echo $JOBMON_TASK_NAME >> ran"
WAITS = f"{COUNTED}; while ! test -e go; do sleep 0.1; done"
EAT = f"{sys.executable} -I -S -c 'x = b\"1\" * (80 * 2**20)'"
END_SECONDS_MAX = 150
#: Slurm accepts the jobs, and the distributor dies before it gets the response.
DEADLY_SBATCH = """#!/bin/sh
out=$({sbatch} "$@"); code=$?
if [ ! -e {mark} ]; then echo "$out" > {mark}; kill -9 $PPID; fi
echo "$out"
exit $code
"""


def pack(count, **more):
    return {**SMALL, "pack": count, **more}


class Flow:
    """A script that runs a workflow in a home of its own, and what is known of it."""

    def __init__(self, home):
        self.home = home
        self.process = None

    def start(self, kinds, **how):
        self.kinds = kinds
        path = self.home.script(SCRIPT)
        with (self.home.folder / "out").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(path), json.dumps(kinds), json.dumps(how)],
                cwd=self.home.folder, env=self.home.environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def outcome(self):
        self.process.wait(timeout=END_SECONDS_MAX)
        return (self.home.folder / "out").read_text().splitlines()[-1]

    def run(self, kinds):
        self.start(kinds)
        return self.outcome()

    def ran(self):
        file = self.home.folder / "ran"
        return sorted(file.read_text().split()) if file.exists() else []

    def go(self):
        (self.home.folder / "go").touch()

    def attempts(self):
        """Return template -> attempts of all its tasks."""
        found = {}
        for task in self.home.json("workflow", "tasks", "-w", "1"):
            detail = self.home.json("task", "status", "-t", str(task["task_id"]))[0]
            found.setdefault(task["array_name"], []).append(detail["attempts"])
        return found

    def calls(self):
        folder = self.home.folder.parent / "data" / "logs" / "1"
        text = "".join(path.read_text() for path in sorted(folder.glob("distributor-*.log")))
        return sum(map(int, re.findall(r"Cluster slurm: (\d+) calls", text)))

    def process_of(self, module):
        for process in self.home.processes():
            try:
                if module in process.cmdline():
                    return process
            except psutil.NoSuchProcess:
                continue
        return None

    def end(self):
        if self.process is not None:
            if self.process.poll() is None:
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def flow(home):
    flow = Flow(home)
    yield flow
    flow.end()


def test_a_thousand_short_tasks_go_in_a_few_jobs_and_calls(flow):
    assert flow.run({"many": {"command": COUNTED, "compute_resources": pack(250), "count": 1_000}}) == "D"
    assert len(flow.ran()) == len(set(flow.ran())) == 1_000
    assert flow.calls() <= 3
    host = flow.home.json("task", "status", "-t", "1")[0]["attempts"][0]["host"]
    assert re.fullmatch(r"n\d", host)


def test_each_task_of_a_pack_keeps_its_own_fate(flow):
    once = "sh -c 'mkdir {0} && {1} || exit 0'"
    kinds = {
        "fails": {"command": once.format("f", "exit 7"), "compute_resources": pack(2), "count": 2},
        "slow": {
            "command": once.format("s", "exec sleep 60"),
            "compute_resources": pack(2, runtime=2.0),
            "count": 2,
        },
        "eats": {"command": EAT, "compute_resources": pack(2), "count": 2, "max_attempts": 4},
        "wide": {
            "command": "echo >> w; until [ $(wc -l < w) -ge 4 ]; do sleep 0.1; done",
            "compute_resources": pack(4, pack_width=4),
            "count": 4,
        },
        "pilot": {"command": "true", "compute_resources": {**SMALL, "pilot": True}, "count": 4, "chained": True},
    }
    assert flow.run(kinds) == "D"
    found = flow.attempts()
    assert sorted(len(attempts) for attempts in found["fails"]) == [1, 2]
    (failed,) = [attempts[0] for attempts in found["fails"] if len(attempts) == 2]
    assert (failed["exit_code"], failed["charged"]) == (7, True)
    (slow,) = [attempts for attempts in found["slow"] if len(attempts) == 2]
    assert slow[0]["cause"] == "out of time"
    assert [one["requested_resources"]["runtime"] for one in slow] == [2.0, 3.0]
    for attempts in found["eats"]:
        *short, last = attempts
        assert {one["cause"] for one in short} == {"out of memory"}, attempts
        assert last["requested_resources"]["memory"] > 0.07
    for name in ("wide", "pilot"):
        assert all(len(attempts) == 1 for attempts in found[name])
        assert len({attempts[0]["distributor_id"] for attempts in found[name]}) == 1, name


@pytest.mark.alone
def test_a_node_that_fails_costs_no_attempt(flow, slurm):
    request = pack(2, sbatch={"nodelist": "n4"})
    flow.start({"failed": {"command": WAITS, "count": 4, "max_attempts": 1, "compute_resources": request}})
    until(lambda: len(flow.ran()) == 2, "two jobs to run")
    slurm.node("fail", 4)
    slurm.run("scontrol", "update", "nodename=n4", "state=down", "reason=test")
    flow.go()
    slurm.node("up", 4)
    until(slurm.is_up, "node n4 to come back")
    assert flow.outcome() == "D"
    every = [one for attempts in flow.attempts()["failed"] for one in attempts]
    assert "node failure" in {one["cause"] for one in every}
    assert not any(one["charged"] for one in every if one["status"] != "D"), every
    assert all(attempts[-1]["status"] == "D" for attempts in flow.attempts()["failed"])


@pytest.mark.alone  # all jobs of the user are cancelled
@pytest.mark.parametrize("request_", [{"pack": 2}, {"pilot": True}], ids=["pack", "pilot"])
def test_what_its_user_cancels_is_not_submitted_again_before_a_resume(flow, slurm, request_):
    kinds = {"mine": {"command": WAITS, "count": 3, "compute_resources": {**SMALL, **request_}}}
    flow.start(kinds)
    until(flow.ran, f"a task to run: {(flow.home.folder / 'out').read_text()}")
    slurm.run("scancel", "--me")
    assert flow.outcome() == "E"
    found = [attempt for attempts in flow.attempts()["mine"] for attempt in attempts]
    assert {(one["status"], one["cause"]) for one in found} == {("F", "killed")}
    assert len(found) == 3, "nothing was submitted again"
    assert "cancelled by you as " in (flow.home.folder / "out").read_text()
    flow.go()
    flow.start(kinds, resume=True)
    assert flow.outcome() == "D"


def test_a_server_that_dies_while_a_pack_runs_hears_all_of_it_later(flow):
    flow.start({"t": {"command": WAITS, "compute_resources": pack(3), "count": 6}})
    until(lambda: len(flow.ran()) == 2, "both jobs to run")
    server = flow.process_of("jobmon.server")
    server.kill()
    flow.go()
    assert flow.outcome() == "D"
    assert len(flow.ran()) == len(set(flow.ran())) == 6


def test_a_distributor_that_dies_between_sbatch_and_record_submits_no_pack_twice(flow):
    home = flow.home
    tools, mark = home.folder / "bin", home.folder / "mark"
    tools.mkdir()
    deadly = tools / "sbatch"
    deadly.write_text(DEADLY_SBATCH.format(sbatch=shutil.which("sbatch"), mark=mark))
    deadly.chmod(deadly.stat().st_mode | stat.S_IXUSR)
    home.environment["PATH"] = f"{tools}{os.pathsep}{home.environment['PATH']}"
    assert flow.run({"t": {"command": COUNTED, "compute_resources": pack(10), "count": 20}}) == "D"
    assert mark.exists(), "it died"
    assert len(flow.ran()) == len(set(flow.ran())) == 20
    assert {len(attempts) for attempts in flow.attempts()["t"]} == {1}


@pytest.mark.parametrize("is_cold", [False, True])
def test_a_client_that_dies_is_resumed_while_packs_run(flow, slurm, is_cold):
    kinds = {"t": {"command": WAITS, "compute_resources": pack(3), "count": 6}}
    flow.start(kinds)
    until(lambda: len(flow.ran()) == 2, "both jobs to run")
    flow.end()
    if not is_cold:
        flow.go()
    flow.start(kinds, resume=True, reset_running_jobs=is_cold)
    if is_cold:
        until(lambda: len(flow.ran()) >= 4, "what was ended to run again")
        flow.go()
    assert flow.outcome() == "D"
    assert len(set(flow.ran())) == 6
    assert len(flow.ran()) == (8 if is_cold else 6)
    until(lambda: not slurm.run("squeue", "--noheader", "--me", "--name=nothing").strip(), "nothing to be left")
