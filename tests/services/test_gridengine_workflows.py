"""Whole workflows on a real Grid Engine: retries, deleted jobs, arrays, pilots, a limit on jobs."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import psutil
import pytest
from tests.services.conftest import until

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("gridengine")]

SCRIPT = """
import json, sys
from jobmon.client.api import Tool

kinds = json.loads(sys.argv[1])
tool = Tool("services")
workflow = tool.create_workflow(name="services", default_cluster_name="gridengine")
for name, kind in kinds.items():
    template = tool.get_task_template(name, command_template=kind.pop("command") + " # {number}", node_args=["number"])
    workflow.add_tasks([template.create_task(number=number, **kind) for number in range(kind.pop("count", 1))])
print(workflow.run())
"""
SMALL = {"queue": "short.q", "cores": 1, "memory": 1.0, "runtime": 60.0, "pilot": False}


def start(home, kinds):
    path = home.script(SCRIPT)
    with (home.folder / "out").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(path), json.dumps(kinds)],
            cwd=home.folder, env=home.environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip


def outcome(home, script, seconds=120):
    script.wait(timeout=seconds)
    return (home.folder / "out").read_text().splitlines()[-1]


def calls(home):
    """Return the calls of each distributor's last line, when it has ended."""

    def told():
        logs = "\n".join(path.read_text() for path in home.folder.parent.glob("data/logs/*/distributor-*.log"))
        return re.findall(r"Cluster gridengine: (\d+) calls \((.*)\) for \d+ attempts", logs)

    return until(told, "the distributor to end")


def attempts(home):
    tasks = home.json("workflow", "tasks", "-w", "1")
    details = {one["array_name"]: home.json("task", "status", "-t", str(one["task_id"])) for one in tasks}
    return {name: found[0]["attempts"] for name, found in details.items()}


def test_failures_are_retried_with_what_was_missing_and_two_cores_run_in_a_parallel_environment(home, gridengine):
    script = start(
        home,
        {
            "once": {"command": "sh -c 'mkdir once || exit 0; exit 3'", "compute_resources": SMALL},
            "slow": {
                "command": "sh -c 'mkdir slow && exec sleep 3600 || exit 0'",
                "compute_resources": {**SMALL, "runtime": 12.0},
            },
            "wide": {"command": "sh -c 'test $NSLOTS = 2'", "compute_resources": {**SMALL, "cores": 2}},
        },
    )
    assert outcome(home, script) == "D"
    found = attempts(home)
    assert [one["cause"] for one in found["once"]] == ["exit code", None]
    assert [one["cause"] for one in found["slow"]] == ["out of time", None]
    assert [one["requested_resources"]["runtime"] for one in found["slow"]] == [12.0, 18.0]
    assert len(found["wide"]) == 1


STUBBORN = """sh -c 'trap "" INT TERM USR1 USR2; echo $$ >> pids; while [ ! -e go ]; do sleep 0.1; done'"""


@pytest.mark.alone  # all jobs are deleted
@pytest.mark.parametrize("pilot", [False, True], ids=["job", "pilot"])
def test_a_command_does_not_outlive_its_deleted_job_and_the_task_is_run_again(home, gridengine, pilot):
    kind = {"command": STUBBORN, "compute_resources": {**SMALL, "pilot": pilot}, "max_attempts": 1}
    home.environment["JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT"] = "2"
    script = start(home, {"stubborn": kind})
    pids = home.folder / "pids"
    until(lambda: pids.exists() and pids.read_text().endswith("\n"), "the command to begin")
    gridengine.run("qdel", *[row.split()[0] for row in gridengine.jobs()])
    until(lambda: len(pids.read_text().split()) == 2, "the task to be run again")
    first, _ = map(int, pids.read_text().split())
    assert not psutil.pid_exists(first), "the first attempt's command is gone when the second one's begins"
    (home.folder / "go").touch()
    assert outcome(home, script) == "D"
    first_cause, *others = [one["cause"] for one in attempts(home)["stubborn"]]
    assert first_cause == "killed"
    assert others in ([None], ["worker lost", None]), "a pilot that is ending may have been counted on once more"


def test_an_array_costs_few_calls(home, gridengine):
    script = start(home, {"many": {"command": "true", "compute_resources": SMALL, "count": 20}})
    assert outcome(home, script) == "D"
    [(count, kinds)] = calls(home)
    assert int(count) <= 16, kinds
    assert "qsub 1" in kinds


def test_pilots_run_many_tasks_in_few_jobs(home, gridengine):
    pilots = {**SMALL, "pilot": True}
    script = start(home, {"many": {"command": "echo x >> ran", "compute_resources": pilots, "count": 60}})
    assert outcome(home, script) == "D"
    assert (home.folder / "ran").read_text().split() == ["x"] * 60
    [(count, kinds)] = calls(home)
    assert int(count) <= 8, kinds


@pytest.mark.alone
def test_a_limit_on_jobs_is_waited_for(home, gridengine):
    gridengine.configure(max_u_jobs=2)
    try:
        kinds = {f"kind{number}": {"command": "true", "compute_resources": SMALL, "count": 2} for number in range(3)}
        assert outcome(home, start(home, kinds)) == "D"
    finally:
        gridengine.configure(max_u_jobs=0)
    assert {len(found) for found in attempts(home).values()} == {1}, "no attempt is charged while it waits"
