"""Whole workflows on a real Slurm: retries with more resources, failed nodes, other partitions, large arrays."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from tests.services.conftest import until

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("slurm")]

SCRIPT = """
import json, sys
from jobmon.client.api import Tool

kinds = json.loads(sys.argv[1])
tool = Tool("services")
workflow = tool.create_workflow(name="services", default_cluster_name="slurm")
for name, kind in kinds.items():
    template = tool.get_task_template(name, command_template=kind.pop("command") + " # {number}", node_args=["number"])
    workflow.add_tasks([template.create_task(number=number, **kind) for number in range(kind.pop("count", 1))])
print(workflow.run())
"""
SMALL = {"queue": "short", "cores": 1, "memory": 0.0625, "runtime": 60.0, "pilot": False}
EAT = f"{sys.executable} -I -S -c 'x = bytearray(1) * (80 * 2**20); x[::4096] = bytes(len(x[::4096]))'"
ROUND_SECONDS_MAX = 200


@pytest.fixture
def start(home):
    """Start a workflow in a process of its own."""
    started = []
    yield lambda kinds: started.append(_start(home, kinds)) or started[-1]
    for script in started:
        if script.poll() is None:
            script.terminate()
        script.wait(timeout=ROUND_SECONDS_MAX)


def _start(home, kinds):
    path = home.script(SCRIPT)
    with (home.folder / "out").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(path), json.dumps(kinds)],
            cwd=home.folder, env=home.environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip


def outcome(home, script):
    script.wait(timeout=ROUND_SECONDS_MAX)
    return (home.folder / "out").read_text().splitlines()[-1]


def attempts(home):
    """Return template -> attempts of its first task, oldest first."""
    tasks = home.json("workflow", "tasks", "-w", "1")
    details = {one["array_name"]: home.json("task", "status", "-t", str(one["task_id"])) for one in tasks}
    return {name: found[0]["attempts"] for name, found in details.items()}


def job_of(slurm, home, name):
    """Wait until a task of this template runs; return its job's id and node."""

    def running():
        assert "Traceback" not in (home.folder / "out").read_text()
        rows = slurm.run("squeue", "--noheader", "--me", "--states=RUNNING", "--format=%i %N %j").splitlines()
        return next((row.split()[:2] for row in rows if re.match(rf"{name}\b|{name}[_.]", row.split()[2])), None)

    return until(running, f"a job of {name} to run")


@pytest.mark.alone
def test_a_kill_is_followed_by_what_it_calls_for(home, start, slurm):
    slow = "sh -c 'mkdir {0} && exec sleep 300 || exit 0'"
    script = start(
        {
            "memory": {"command": EAT, "compute_resources": SMALL, "max_attempts": 4},
            "time": {"command": slow.format("time"), "compute_resources": SMALL},
            "fallback": {
                "command": slow.format("fallback"),
                "compute_resources": {**SMALL, "runtime": 240.0},
                "fallback_queues": ["long"],
            },
            "node": {
                "command": slow.format("node"),
                "compute_resources": {**SMALL, "sbatch": {"exclude": "n1,n2"}},
                "max_attempts": 1,
            },
        },
    )
    node_job, node = job_of(slurm, home, "node")
    slurm.node("fail", int(node[1:]))
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        for name in ("time", "fallback"):
            slurm.run("scontrol", "update", f"job={job_of(slurm, home, name)[0]}", "EndTime=now+1seconds")
        assert outcome(home, script) == "D", _told(attempts(home))
    finally:
        slurm.node("up", int(node[1:]))
        until(slurm.is_up, f"node {node} to come back")
    found = attempts(home)
    _only_memory_is_raised(found["memory"])
    _only_runtime_is_raised(found["time"])
    assert [(one["queue_name"], one["cause"]) for one in found["fallback"]] == [
        ("short", "out of time"),
        ("long", None),
    ]
    first, second = found["node"]
    assert (first["cause"], first["charged"], first["host"]) == ("node failure", False, node)
    assert first["distributor_id"] == node_job
    assert second["host"] != node


def _told(found):
    """Return what matters of attempts, one a line."""
    keys = ("number", "status", "cause", "error", "host", "queue_name", "charged", "requested_resources")
    return "\n".join(f"{name}: {[one[key] for key in keys]}" for name, all_of in found.items() for one in all_of)


def _only_memory_is_raised(found):
    *short, last = found
    assert short
    assert {one["cause"] for one in short} == {"out of memory"}
    assert all(one["max_rss_bytes"] for one in short)
    sizes = [one["requested_resources"]["memory"] for one in found]
    assert sizes == sorted(set(sizes))
    assert {one["requested_resources"]["runtime"] for one in found} == {60.0}
    assert last["exit_code"] == 0


def _only_runtime_is_raised(found):
    first, second = found
    assert first["cause"] == "out of time"
    assert first["wallclock_seconds"] > 0
    assert [one["requested_resources"]["runtime"] for one in found] == [60.0, 90.0]
    assert {one["requested_resources"]["memory"] for one in found} == {0.0625}
    assert second["exit_code"] == 0


def test_a_job_that_its_user_cancels_fails_its_task_and_is_not_submitted_again(home, start, slurm):
    script = start({"cancelled": {"command": "sleep 300", "compute_resources": SMALL}})
    job, _ = job_of(slurm, home, "cancelled")
    slurm.run("scancel", job)
    assert outcome(home, script) == "E"
    [only] = attempts(home)["cancelled"]
    assert (only["status"], only["cause"]) == ("F", "killed")
    assert "cancelled by you as " in only["error"]


#: No Python at first, then one that has neither network nor the server's socket, then one as it should be.
ISOLATING = """#!/bin/sh
test -e {folder}/open || exec env JOBMON_DATA_DIR=/nowhere unshare --net {python} "$@"
exec {python} "$@"
"""


def test_jobs_without_python_or_network_charge_nothing_and_the_run_says_what_is_wrong(home, start):
    python = home.folder / "python"
    home.environment.update(JOBMON_WORKER_START_SECONDS="25", JOBMON_UNHEARD_SECONDS="2")
    home.jobmon("cluster", "add", "slurm", "--plugin", "slurm", "--set", f"python={python}")
    script = start({"far": {"command": "true", "compute_resources": SMALL, "max_attempts": 1}})
    until(lambda: "no usable Python" in home.jobmon("task", "status", "-t", "1").stdout, "the first attempt to end")
    python.write_text(ISOLATING.format(folder=home.folder, python=sys.executable))
    python.chmod(0o755)
    silent = re.compile(r"jobs run on n\d but cannot reach the server at http://[\d.]+:\d+")
    what = "the run to say that jobs cannot reach the server"  # which it says after a minute
    until(lambda: silent.search((home.folder / "out").read_text()), what, 180)
    assert "its job runs on n" in home.jobmon("task", "explain", "1").stdout
    (home.folder / "open").touch()
    assert outcome(home, script) == "D"
    found = attempts(home)["far"]
    assert {one["cause"] for one in found} == {"no usable Python", "worker never connected", None}
    assert {one["requested_resources"]["runtime"] for one in found} == {60.0}, "no resource is raised"


def test_two_thousand_tasks_go_to_a_group_of_partitions_as_one_array_and_few_calls(home, start, slurm):
    anywhere = {**SMALL, "queue": "short,long"}
    script = start({"many": {"command": "true", "compute_resources": anywhere, "count": 2_000}})
    assert outcome(home, script) == "D"

    def figures():
        logs = "\n".join(path.read_text() for path in home.folder.parent.glob("data/logs/*/distributor-*.log"))
        return re.findall(r"Cluster slurm: (\d+) calls \((.*)\) for 2000 attempts", logs)

    [(calls, kinds)] = until(figures, "the distributor to end")
    assert int(calls) <= 24, kinds


MIXED = """
import sys
from jobmon.client.api import Tool

tool = Tool("mixed")
template = tool.get_task_template("note", "{command} > {label}", node_args=["label"], op_args=["command"])
workflow = tool.create_workflow(name="mixed", default_cluster_name="slurm")
where = {"slurm": {"queue": "short", "cores": 1, "memory": 0.0625, "runtime": 60.0}, "multiprocess": {"gpus": 1}}
before = []
for layer, cluster in enumerate(["multiprocess", "slurm", "multiprocess"]):
    before = [
        template.create_task(
            label=f"{cluster}-{layer}-{number}",
            command="echo $(hostname) ${CUDA_VISIBLE_DEVICES:-none} $(ps -ww -o args= -p $PPID)",
            cluster_name=cluster,
            compute_resources=where[cluster],
            upstream_tasks=before,
        )
        for number in range(3)
    ]
    workflow.add_tasks(before)
print(workflow.run())
"""


def test_local_tasks_of_a_slurm_workflow_run_under_an_agent_and_use_a_gpu_of_this_machine(home):
    home.environment["JOBMON__MULTIPROCESS__GPUS"] = "4"
    done = home.python(home.script(MIXED))
    assert done.stdout.split()[-1:] == ["D"], done.stderr
    told = {path.name: path.read_text() for path in home.folder.iterdir() if "-" in path.name}
    assert len(told) == 9
    for name, text in told.items():
        is_local = name.startswith("multiprocess")
        assert ("jobmon/agent/start.py" in text) == is_local, (name, text)
        assert (text.split()[1] == "4") == is_local, (name, text)
