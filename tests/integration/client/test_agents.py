"""A local run with the real server and its host agent, while one of them is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import count

import psutil
import pytest
from tests.processes import is_alive

from jobmon.agent.host import FAREWELL_SECONDS_MAX
from jobmon.client.api import Tool, WorkflowRunStatus
from jobmon.core import access
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.paths import user_name
from jobmon.core.requester import Requester
from jobmon.core.wire.credentials import TokenRequest, TokenResponse
from jobmon.core.wire.monitoring import TaskDetail
from jobmon.server.usecases.fair_share import LEASE_SECONDS

pytestmark = pytest.mark.usefixtures("data_directory")
_numbers = count()
RSS_BYTES_MAX = 20 * 1024 * 1024
SECONDS_MAX = 60.0
SCRIPT = """
import sys
from jobmon.client.api import Tool

tool = Tool("agents")
template = tool.get_task_template("run", "{command}", node_args=["command"])
workflow = tool.create_workflow(sys.argv[1])
workflow.add_tasks(template.create_tasks(command=sys.argv[3:], max_attempts=int(sys.argv[2])))
print(workflow.run(resume=True))
"""


@pytest.fixture
def args():
    return f"agents {next(_numbers)}"


def until(state, what):
    deadline = time.monotonic() + SECONDS_MAX
    while not (found := state()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)
    return found


def define(args, *commands, attempts=1):
    tool = Tool("agents")
    template = tool.get_task_template("run", "{command}", node_args=["command"])
    workflow = tool.create_workflow(args)
    workflow.add_tasks(template.create_tasks(command=list(commands), max_attempts=attempts))
    return workflow


def is_agent(process):
    try:
        return any(word.endswith("jobmon/agent/start.py") for word in process.cmdline())
    except psutil.Error:
        return False


def agents_below(pid):
    try:
        return [one for one in psutil.Process(pid).children() if is_agent(one)]
    except psutil.Error:
        return []


def pids_in(path):
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def waiting(folder):
    """A command that notes its pid, with a child that leaves its session, and waits until it may go."""
    return f"echo $$ >> {folder}/pids; setsid sleep 300 & while ! test -e {folder}/go; do sleep 0.02; done; true"


def attempts_of(workflow):
    (task,) = workflow.tasks.values()
    return attempts_of_task(task.task_id)


def attempts_of_task(task_id):
    requester = Requester.from_defaults()
    try:
        return requester.call(f"/tasks/{task_id}", None, TaskDetail, "get").attempts
    finally:
        requester.close()


def test_a_killed_agent_is_replaced_and_what_it_ran_is_terminated_not_charged_and_rerun(args, tmp_path):
    workflow = define(args, waiting(tmp_path))
    seen = {}

    def kill():
        (pid,) = until(lambda: pids_in(tmp_path / "pids"), "the command")
        (agent,) = agents_below(os.getpid())
        seen["below"] = [one.pid for one in agent.children(recursive=True)]
        seen["memory"] = agent.memory_info().rss
        agent.kill()
        until(lambda: len(pids_in(tmp_path / "pids")) == 2, "the second attempt")
        seen["left"] = [one for one in seen["below"] if is_alive(one)]
        seen["first"] = pid
        (tmp_path / "go").touch()

    thread = threading.Thread(target=kill)
    thread.start()
    assert workflow.run() == WorkflowRunStatus.DONE
    thread.join()
    assert seen["first"] in seen["below"]
    assert seen["left"] == []
    assert seen["memory"] <= RSS_BYTES_MAX
    first, second = attempts_of(workflow)
    assert (first.status, first.cause, first.charged) == (TaskInstanceStatus.UNKNOWN_ERROR, Cause.WORKER_LOST, False)
    assert second.status == TaskInstanceStatus.DONE


def test_a_local_run_starts_no_distributor_and_leaves_nothing_behind(args, tmp_path):
    workflow = define(args, f"ps -ww -o args= -p $PPID > {tmp_path}/parent", "true")
    assert workflow.run() == WorkflowRunStatus.DONE
    assert "jobmon/agent/start.py" in (tmp_path / "parent").read_text()
    until(lambda: not agents_below(os.getpid()), "the end of the agent")


def test_tasks_that_decide_their_request_later_run_under_an_agent_too(args, tmp_path):
    tool = Tool("agents")
    template = tool.get_task_template("run", "{command}", node_args=["command"])
    workflow = tool.create_workflow(args, default_cluster_name="multiprocess")
    command = f"ps -ww -o args= -p $PPID > {tmp_path}/parent"
    workflow.add_task(template.create_task(command=command, compute_resources_callable=lambda *_, **__: {"cores": 1}))
    assert workflow.run(seconds_until_timeout=SECONDS_MAX) == WorkflowRunStatus.DONE
    assert "jobmon/agent/start.py" in (tmp_path / "parent").read_text()


def started_script(args, *commands, attempts="1"):
    command = [sys.executable, "-c", SCRIPT, args, attempts, *commands]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_an_agent_whose_client_is_killed_finishes_what_runs_and_leaves(args, tmp_path):
    client = started_script(args, waiting(tmp_path))
    until(lambda: pids_in(tmp_path / "pids"), "the command")
    (agent,) = agents_below(client.pid)
    client.kill()
    client.communicate()
    (tmp_path / "go").touch()
    until(lambda: not is_alive(agent.pid), "the end of the agent")
    workflow = define(args, waiting(tmp_path))
    assert workflow.run(resume=True) == WorkflowRunStatus.DONE
    assert len(pids_in(tmp_path / "pids")) == 1


@pytest.mark.parametrize("is_cold", [True, False])
def test_nothing_of_an_attempt_is_left_when_client_and_agent_were_killed_and_it_runs_again(args, tmp_path, is_cold):
    client = started_script(args, waiting(tmp_path))
    (pid,) = until(lambda: pids_in(tmp_path / "pids"), "the command")
    (agent,) = agents_below(client.pid)
    below = [one.pid for one in agent.children(recursive=True)]
    assert pid in below
    os.kill(agent.pid, signal.SIGSTOP)  # so that it does not see its client go
    client.kill()
    client.communicate()
    agent.kill()
    until(lambda: not is_alive(agent.pid), "the end of the agent")
    workflow = define(args, waiting(tmp_path))
    left = []

    def go():
        until(lambda: len(pids_in(tmp_path / "pids")) == 2, "the second attempt")
        left.extend(one for one in below if is_alive(one))
        (tmp_path / "go").touch()

    helper = threading.Thread(target=go)
    helper.start()
    assert workflow.run(resume=True, reset_running_jobs=is_cold) == WorkflowRunStatus.DONE
    helper.join()
    assert left == []
    assert len(pids_in(tmp_path / "pids")) == 2


@pytest.fixture
def shared_server(tmp_path, monkeypatch):
    """A server for several users; this process is its administrator."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("JOBMON__HTTP__TOKEN", "the-administrators-own-token")
    command = [sys.executable, "-P", "-m", "jobmon.server", "--db", f"sqlite:///{tmp_path}/shared.sqlite"]
    server = subprocess.Popen([*command, "--port", str(port)])
    monkeypatch.setenv("JOBMON__HTTP__SERVICE_URL", f"http://127.0.0.1:{port}")
    requester = Requester.from_defaults()
    yield requester
    requester.close()
    server.terminate()
    server.wait(SECONDS_MAX)


def test_an_agent_has_a_credential_of_its_own(args, tmp_path, monkeypatch, shared_server):
    """The user's token is revoked and the client is killed: the outcome of its commands is recorded nevertheless."""
    request = TokenRequest(user=user_name(), label="of the client")
    created = shared_server.call("/tokens", request, TokenResponse)
    monkeypatch.setenv("JOBMON__HTTP__TOKEN", created.secret)
    client = started_script(args, waiting(tmp_path))
    until(lambda: pids_in(tmp_path / "pids"), "the command")
    shared_server.call(f"/tokens/{created.token.id}", None, dict, "delete")
    client.kill()
    client.communicate()
    (tmp_path / "go").touch()

    def statuses():
        attempts = shared_server.call("/tasks/1", None, TaskDetail, "get").attempts
        return [one.status for one in attempts] == [TaskInstanceStatus.DONE]

    until(statuses, "the report of the agent")


def test_an_agent_with_nothing_left_to_tell_leaves_soon_though_its_server_was_stopped(args, tmp_path):
    """The retry of a failed attempt is up to the client, which is stopped: so nothing is left here to run or report."""
    command = f"echo $JOBMON_TASK_ID > {tmp_path}/task; while ! test -e {tmp_path}/go; do sleep 0.02; done; exit 1"
    client = started_script(args, command, attempts="2")
    (task_id,) = until(lambda: pids_in(tmp_path / "task"), "the command")
    (agent,) = agents_below(client.pid)
    os.kill(client.pid, signal.SIGSTOP)
    (tmp_path / "go").touch()
    until(lambda: attempts_of_task(task_id)[0].status == TaskInstanceStatus.ERROR, "the report")
    os.kill(agent.pid, signal.SIGSTOP)
    client.kill()
    client.communicate()
    assert access.stop_server()
    os.kill(agent.pid, signal.SIGCONT)
    woken_at = time.monotonic()
    until(lambda: not is_alive(agent.pid), "the end of the agent")
    assert time.monotonic() - woken_at < 2 * FAREWELL_SECONDS_MAX
    assert not access.stop_server()  # nothing has started it again
    begun_at = time.monotonic()
    assert define(f"{args} next", "true").run() == WorkflowRunStatus.DONE
    assert time.monotonic() - begun_at < LEASE_SECONDS / 2  # it does not wait for cores that were never given back


def test_a_command_that_kills_its_parent_is_charged_and_its_neighbour_is_not(args, tmp_path):
    workflow = define(args, "kill -9 $PPID; sleep 300", f"echo $$ >> {tmp_path}/pids; sleep 0.7", attempts=2)
    assert workflow.run() == WorkflowRunStatus.ERROR
    culprit, neighbour = (attempts_of_task(task.task_id) for task in workflow.tasks.values())
    charged = [one.cause for one in culprit if one.charged]
    assert charged == [Cause.KILLED_ITS_PARENT] * 2
    assert "kill $PPID" in culprit[-1].error
    assert neighbour[-1].status == TaskInstanceStatus.DONE
    assert not any(one.charged for one in neighbour[:-1])
