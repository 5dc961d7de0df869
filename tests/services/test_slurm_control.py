"""Kill, stop or replace a component while jobs are in a real Slurm: every task runs once."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import time

import psutil
import pytest
from tests.services.conftest import until

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("slurm")]

SCRIPT = """
import sys
from jobmon.client.api import Tool

count, name, command, chained = int(sys.argv[1]), sys.argv[2], sys.argv[3], len(sys.argv) > 4
tool = Tool("control")
workflow = tool.create_workflow(workflow_args=name, name=name, default_cluster_name="slurm")
template = tool.get_task_template("run", command_template=command + " # {number}", node_args=["number"])
tasks = template.create_tasks(number=list(range(count)), max_attempts=2, compute_resources=
    {"queue": "short", "cores": 1, "memory": 0.05, "runtime": 120.0, "pilot": False})
for one, next_one in zip(tasks, tasks[1:]) if chained else ():
    next_one.add_upstream(one)
workflow.add_tasks(tasks)
print(workflow.run())
"""
#: Each says that it ran, then waits until it may end.
COUNTED = "echo $JOBMON_TASK_NAME >> ran"
WAITS = f"{COUNTED}; while ! test -e go; do sleep 0.1; done"
#: Slurm accepts the job, and the distributor dies before it gets the response.
DEADLY_SBATCH = """#!/bin/sh
out=$({sbatch} "$@"); code=$?
if [ ! -e {mark} ]; then echo "$out" > {mark}; kill -9 $PPID; fi
echo "$out"
exit $code
"""


def ran(home):
    file = home.folder / "ran"
    return sorted(file.read_text().split()) if file.exists() else []


def statuses(home, workflow="1"):
    return [one["status"] for one in home.json("workflow", "tasks", "-w", workflow)]


def attempt_counts(home, workflow="1"):
    return [one["num_attempts"] for one in home.json("workflow", "tasks", "-w", workflow)]


def log_of(home, workflow=1):
    """Return what the distributors of a workflow said."""
    folder = home.folder.parent / "data" / "logs" / str(workflow)
    return "".join(path.read_text() for path in sorted(folder.glob("distributor-*.log")))


def calls(text):
    """Return how often which command of Slurm was called, over all distributors that ended."""
    found = {}
    for kinds in re.findall(r"Cluster slurm: \d+ calls \((.*?)\)", text):
        for kind, count in re.findall(r"(\w+) (\d+)", kinds):
            found[kind] = found.get(kind, 0) + int(count)
    return found


def jobs_of(slurm, home):
    """Return the jobs of this home's server that Slurm has."""
    rows = slurm.run("squeue", "--noheader", "--array", "--format=%i %T %Z").splitlines()
    return [row for row in rows if row.endswith(str(home.folder)) or str(home.folder.parent) in row]


@pytest.fixture
def client(home):
    """Start workflows; those that still run in the end are killed."""
    started = []

    def start(count, name="w", command=COUNTED, *more):
        home.script(SCRIPT)
        started.append(_Client(home, count, name, command, *more))
        return started[-1]

    yield start
    for one in started:
        one.end()


class _Client:
    def __init__(self, home, *arguments):
        import subprocess
        import sys

        self.output = home.folder / f"client-{arguments[1]}.log"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(home.folder / "script.py"), *map(str, arguments)],
                cwd=home.folder,
                env=home.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait(self, seconds=120.0):
        """Return the status with which the workflow ended."""
        self.process.wait(seconds)
        return self.output.read_text().split()[-1]

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def distributor_of(home):
    for process in home.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "jobmon.distributor" in process.cmdline():
                return process
    return None


def test_a_distributor_that_dies_between_sbatch_and_record_submits_nothing_twice(home, client):
    tools, mark = home.folder / "bin", home.folder / "mark"
    tools.mkdir()
    deadly = tools / "sbatch"
    deadly.write_text(DEADLY_SBATCH.format(sbatch=shutil.which("sbatch"), mark=mark))
    deadly.chmod(deadly.stat().st_mode | stat.S_IXUSR)
    home.environment["PATH"] = f"{tools}{os.pathsep}{home.environment['PATH']}"
    assert client(20).wait() == "D"
    assert mark.exists(), "it died"
    assert len(ran(home)) == len(set(ran(home))) == 20
    assert calls(log_of(home)).get("sbatch", 0) == 0, "the second distributor found what the first had submitted"
    assert attempt_counts(home) == [1] * 20


def test_a_distributor_that_dies_while_jobs_run_is_replaced(home, client):
    started = client(8, "w", WAITS)
    until(lambda: len(ran(home)) == 8, "all to run")
    first = distributor_of(home)
    first.kill()
    until(lambda: (one := distributor_of(home)) is not None and one.pid != first.pid, "another distributor")
    (home.folder / "go").touch()
    assert started.wait() == "D"
    assert len(ran(home)) == 8


@pytest.mark.alone
def test_a_controller_that_is_away_for_a_while_fails_nothing(home, client, slurm):
    before = client(8, "before", WAITS)
    until(lambda: len(ran(home)) == 8, "all to run")
    slurm.stop_controller()
    try:
        during = client(4, "during", "echo during-$JOBMON_TASK_NAME >> ran")
        (home.folder / "go").touch()
        assert before.wait() == "D", "their workers tell the server"
        until(lambda: "is not responding; retrying" in log_of(home, 2), "it to be said")
        time.sleep(float(os.environ.get("CONTROLLER_AWAY_SECONDS", "10")))
        assert set(statuses(home, "2")) <= {"Q", "I"}
    finally:
        slurm.up()
    assert during.wait() == "D"
    assert "is responding again" in log_of(home, 2)
    assert len(ran(home)) == len(set(ran(home))) == 12
    assert attempt_counts(home, "1") + attempt_counts(home, "2") == [1] * 12


@pytest.mark.parametrize("how", ["hot", "cold"])
def test_a_resume_with_jobs_that_wait_and_jobs_that_run(home, client, slurm, how):
    started = client(80, "w", WAITS)  # 64 cores: some have to wait
    until(lambda: len(ran(home)) >= 20, "some to run")
    os.killpg(started.process.pid, signal.SIGKILL)
    distributor = distributor_of(home)
    distributor.kill()
    before = len(ran(home))
    if how == "hot":
        (home.folder / "go").touch()
    extra = ["--reset-running"] if how == "cold" else []
    resumed = client_of_command(home, "workflow", "resume", "-w", "1", "-c", "slurm", *extra)
    if how == "cold":
        until(lambda: len(ran(home)) > before, "some to run again")
        (home.folder / "go").touch()
    resumed.wait(150)
    assert set(statuses(home)) == {"D"}
    if how == "hot":
        assert len(ran(home)) == len(set(ran(home))) == 80, "nothing ran twice"
    else:
        assert len(set(ran(home))) == 80
    until(lambda: not jobs_of(slurm, home), "the jobs to be gone")


def client_of_command(home, *words):
    import subprocess

    from tests.e2e.conftest import JOBMON

    with (home.folder / "resume.log").open("wb") as log:
        return subprocess.Popen([str(JOBMON), *words], cwd=home.folder, env=home.environment, stdout=log, stderr=log)


def test_stopping_cancels_all_jobs_at_once(home, client, slurm):
    started = client(80, "w", WAITS)
    until(lambda: len(ran(home)) >= 20, "some to run")
    assert len(jobs_of(slurm, home)) == 80
    assert home.jobmon("workflow", "stop", "-w", "1", "-y").returncode == 0
    started.process.wait(60)
    until(lambda: not jobs_of(slurm, home), "the jobs to be gone")
    until(lambda: distributor_of(home) is None, "the distributor to end")
    assert calls(log_of(home))["scancel"] <= 2
    assert set(statuses(home)) == {"G"}


def test_a_paused_workflow_submits_nothing_until_it_goes_on(home, client, slurm):
    (home.folder / "go").touch()
    started = client(200, "w", f"{COUNTED}; sleep 0.3", "chained")
    until(lambda: len(ran(home)) >= 2, "it to begin")
    assert home.jobmon("workflow", "concurrency", "-w", "1", "-m", "0", "-y").returncode == 0
    until(lambda: not jobs_of(slurm, home) and not set("QIOR") & set(statuses(home)), "it to rest")
    rested = len(ran(home))
    time.sleep(1.5)
    assert len(ran(home)) == rested
    assert home.jobmon("workflow", "concurrency", "-w", "1", "-m", "10", "-y").returncode == 0
    until(lambda: len(ran(home)) > rested + 1, "it to continue")
    assert home.jobmon("workflow", "stop", "-w", "1", "-y").returncode == 0
    started.process.wait(60)


def test_two_workflows_share_the_watch(home, client):
    home.environment["JOBMON__DISTRIBUTOR__POLL_INTERVAL"] = "2"
    both = [client(4, name, "sleep 20") for name in ("one", "two")]
    assert [one.wait() for one in both] == ["D", "D"]
    looks = [calls(log_of(home, workflow)).get("squeue", 0) for workflow in (1, 2)]
    assert 2 <= sum(looks) <= 14, f"at most one look in 2 s for both during some 25 s, not one each: {looks}"


def test_a_thousand_tasks_cost_few_calls(home, client):
    assert client(1_000, "w", "true").wait(180) == "D"
    found = calls(log_of(home))
    assert sum(found.values()) <= 12, found
