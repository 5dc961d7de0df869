"""Workflows whose commands a foreign plug-in runs (`workshop`, two slots), with the real server and the real agent."""

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import psutil
import pytest
from tests.processes import is_alive

from jobmon.client.api import Tool, WorkflowRunStatus
from jobmon.core.access import find_server, stop_server
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.wire.monitoring import TaskDetail

FOREIGN = Path(__file__).parent / "plugins"
TI = TaskInstanceStatus
SECONDS_MAX = 60.0
_numbers = count()
SCRIPT = """
import sys
from jobmon.client.api import Tool

tool = Tool("direct")
template = tool.get_task_template("run", "{command}", node_args=["command"])
workflow = tool.create_workflow(sys.argv[1], default_cluster_name="workshop")
workflow.add_tasks(template.create_tasks(command=sys.argv[2:], max_attempts=1))
print(workflow.run(resume=True))
"""


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch, foreign):
    """A data folder, and the folder of the plug-in, for this process and for those that it starts."""
    monkeypatch.setenv("JOBMON_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(FOREIGN))
    yield tmp_path / "data"
    stop_server(data=tmp_path / "data")


class Lab:
    """One workflow with a task for each command."""

    def __init__(self, *commands, cluster="workshop", attempts=1, **resources):
        self.args = f"direct {next(_numbers)}"
        self.tool = Tool("direct")
        template = self.tool.get_task_template("run", "{command}", node_args=["command"])
        self.workflow = self.tool.create_workflow(self.args, default_cluster_name=cluster)
        self.tasks = template.create_tasks(command=list(commands), max_attempts=attempts, compute_resources=resources)
        self.workflow.add_tasks(self.tasks)

    def run(self, meanwhile=None):
        """Run the workflow; call `meanwhile` in another thread."""
        thread = threading.Thread(target=meanwhile or (lambda: None))
        thread.start()
        status = self.workflow.run(resume=True)
        thread.join()
        return status

    def attempts(self, index=0):
        """Return the attempts of a task."""
        return self.tool.requester.call(f"/tasks/{self.tasks[index].task_id}", None, TaskDetail, "get").attempts


def until(state, what):
    deadline = time.monotonic() + SECONDS_MAX
    while not (found := state()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)
    return found


def agents():
    """Return the agents of direct clusters that this process or one that it started has started."""
    return [one for one in psutil.Process().children(recursive=True) if is_agent(one)]


def is_agent(process):
    try:
        return "jobmon.distributor.direct" in process.cmdline()
    except psutil.Error:
        return False


def lines_of(path):
    return path.read_text().split() if path.exists() else []


def waiting(folder):
    """A command that notes its PID, and waits until it may go."""
    return f"echo $$ >> {folder}/pids; while ! test -e {folder}/go; do sleep 0.05; done"


def test_commands_run_and_are_reported():
    lab = Lab("echo hello", "exit 7", "echo oh; echo no >&2; kill -9 $$", "printf '\\377\\n'; exit 1")
    assert lab.run() == WorkflowRunStatus.ERROR
    (good,), (bad,), (killed,), (binary,) = (lab.attempts(index) for index in range(4))
    assert (good.status, good.error) == (TI.DONE, None)
    assert Path(good.stdout).read_text() == "hello\n"
    assert good.stdout == good.stderr
    assert (bad.cause, bad.exit_code, bad.error) == (Cause.EXIT_CODE, 7, "exit code 7")
    assert (killed.cause, killed.signal, killed.error) == (Cause.SIGNAL, 9, "killed by signal 9 (SIGKILL): no")
    assert binary.error == "exit code 1: \ufffd"
    until(lambda: not agents(), "the end of the agent")


def test_environment_directory_shell_and_files(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBMON__HTTP__TOKEN", "secret")
    out, err = tmp_path / "out", tmp_path / "err"
    resources = {"env": {"COLOUR": "red"}, "shell": "/bin/bash -c", "stdout": str(out), "stderr": str(err)}
    lab = Lab("env; pwd; echo $BASH >&2", **resources)
    assert lab.run() == WorkflowRunStatus.DONE
    (attempt,) = lab.attempts()
    lines = Path(attempt.stdout).read_text().splitlines()
    assert {"COLOUR=red", f"JOBMON_TASK_ID={lab.tasks[0].task_id}", "JOBMON_ATTEMPT=1", os.getcwd()} <= set(lines)
    assert not [line for line in lines if "secret" in line]
    assert Path(attempt.stderr).read_text() == "/bin/bash\n"
    assert (Path(attempt.stdout).parent, Path(attempt.stderr).parent) == (out, err)


@pytest.mark.parametrize(
    ("resources", "cause", "error"),
    [
        ({"stdout": "/proc/nowhere"}, Cause.COMMAND_NOT_STARTED, "not started: No such file or directory: /proc/now"),
        ({"runtime": 0.2}, Cause.OUT_OF_TIME, "out of time after 0."),
        ({"env": {"SPAWN": "fails"}}, Cause.COMMAND_NOT_STARTED, "not started: ZeroDivisionError: no workbench"),
    ],
)
def test_what_keeps_a_command_from_its_end_is_its_error(resources, cause, error):
    lab = Lab("sleep 20", **resources)
    assert lab.run() == WorkflowRunStatus.ERROR
    (attempt,) = lab.attempts()
    assert attempt.cause == cause
    assert attempt.error.startswith(error)


def test_a_killed_agent_is_replaced_and_what_it_ran_is_terminated_not_charged_and_rerun(tmp_path):
    lab = Lab(waiting(tmp_path))
    seen = []

    def kill():
        until(lambda: lines_of(tmp_path / "pids"), "the command")
        (agent,) = agents()
        agent.kill()
        first, second = until(lambda: len(found := lines_of(tmp_path / "pids")) == 2 and found, "the second attempt")
        seen.extend([is_alive(first), is_alive(second)])
        (tmp_path / "go").touch()

    assert lab.run(kill) == WorkflowRunStatus.DONE
    assert seen == [False, True]
    first, second = lab.attempts()
    assert (first.status, first.cause, first.charged) == (TI.UNKNOWN_ERROR, Cause.WORKER_LOST, False)
    assert second.status == TI.DONE


def test_an_exit_while_no_agent_was_alive_is_reported_by_the_next(tmp_path, data_folder):
    lab = Lab(f"{waiting(tmp_path)}; echo >> {tmp_path}/runs")

    def kill():
        until(lambda: lines_of(tmp_path / "pids"), "the command")
        (agent,) = agents()
        agent.suspend()
        (tmp_path / "go").touch()
        until(lambda: list(data_folder.glob("workshop/*/*.end")), "the note of the outcome")
        agent.kill()

    assert lab.run(kill) == WorkflowRunStatus.DONE
    (attempt,) = lab.attempts()
    assert attempt.status == TI.DONE
    assert (tmp_path / "runs").read_text() == "\n"


def test_an_agent_whose_client_is_killed_finishes_what_runs_and_another_takes_over(tmp_path):
    command = f"{waiting(tmp_path)}; echo >> {tmp_path}/runs"
    lab = Lab(command, "true")
    script = [sys.executable, "-c", SCRIPT, lab.args, command, "true"]
    with subprocess.Popen(script, stdout=subprocess.DEVNULL) as client:
        until(lambda: lines_of(tmp_path / "pids"), "the command")
        (agent,) = agents()
        client.kill()
    threading.Timer(1.0, (tmp_path / "go").touch).start()
    assert lab.workflow.run(resume=True, reset_running_jobs=False) == WorkflowRunStatus.DONE
    assert (tmp_path / "runs").read_text() == "\n"
    assert len(lab.attempts()) == 1
    until(lambda: not is_alive(agent), "the end of the agent")


def test_a_cold_resume_terminates_what_runs(tmp_path):
    command = waiting(tmp_path)
    lab = Lab(command)
    with subprocess.Popen([sys.executable, "-c", SCRIPT, lab.args, command], stdout=subprocess.DEVNULL) as client:
        until(lambda: lines_of(tmp_path / "pids"), "the command")
        client.kill()

    def go():
        first, _ = until(lambda: len(found := lines_of(tmp_path / "pids")) == 2 and found, "the second attempt")
        assert not is_alive(first)
        (tmp_path / "go").touch()

    assert lab.run(go) == WorkflowRunStatus.DONE
    first, second = lab.attempts()
    assert (first.cause, first.charged, second.status) == (Cause.KILLED_FOR_RESUME, False, TI.DONE)


def test_nothing_runs_twice_though_client_and_agent_were_killed(tmp_path):
    command = waiting(tmp_path)
    lab = Lab(command)
    with subprocess.Popen([sys.executable, "-c", SCRIPT, lab.args, command], stdout=subprocess.DEVNULL) as client:
        until(lambda: lines_of(tmp_path / "pids"), "the command")
        (agent,) = agents()
        client.kill()
        agent.kill()

    def go():
        first, _ = until(lambda: len(found := lines_of(tmp_path / "pids")) == 2 and found, "the second attempt")
        assert not is_alive(first)
        (tmp_path / "go").touch()

    assert lab.run(go) == WorkflowRunStatus.DONE


def test_a_server_that_dies_meanwhile_is_started_again_and_nothing_is_lost(tmp_path):
    lab = Lab(*(f"sleep 0.4; echo >> {tmp_path}/{index}" for index in range(4)))

    def kill():
        until((tmp_path / "0").exists, "the first command's end")
        os.kill(find_server().pid, signal.SIGKILL)

    assert lab.run(kill) == WorkflowRunStatus.DONE
    assert {(tmp_path / str(index)).read_text() for index in range(4)} == {"\n"}


def test_dummy_runs_nothing(tmp_path):
    lab = Lab(*(f"touch {tmp_path}/{index}; exit 1" for index in range(100)), cluster="dummy")
    assert lab.run() == WorkflowRunStatus.DONE
    assert not list(tmp_path.glob("[0-9]*"))
    (attempt,) = lab.attempts()
    assert (attempt.status, attempt.max_rss_bytes) == (TI.DONE, None)
