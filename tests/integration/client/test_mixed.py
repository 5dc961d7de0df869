"""Workflows with local tasks and tasks on a cluster: agents run the former, a distributor serves the latter."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import psutil
import pytest
from tests.integration.client.test_agents import attempts_of_task, is_agent, pids_in, until
from tests.processes import is_alive

import jobmon.plugins
from jobmon.client.api import Tool, WorkflowRunStatus
from jobmon.client.swarm import run_workflow
from jobmon.client.workflow import DistributorContext
from jobmon.client.workflow_run import WorkflowRunFactory
from jobmon.core.access import stop_server
from jobmon.core.constants import Cause, TaskInstanceStatus

#: The plug-in `shed`: its jobs are stand-alone workers on this machine.
PLUGINS = Path(__file__).parents[2] / "chaos" / "plugins"
_numbers = count()
SCRIPT = """
import sys
from jobmon.client.api import Tool

tool = Tool("mixed")
template = tool.get_task_template("run", "{command}", node_args=["command"])
workflow = tool.create_workflow(sys.argv[1])
for cluster, command in zip(sys.argv[2::2], sys.argv[3::2]):
    workflow.add_task(template.create_task(command=command, cluster_name=cluster, max_attempts=1))
print(workflow.run(resume=True, reset_running_jobs=False))
"""
PARENT = "ps -ww -o args= -p $PPID > {}"


@pytest.fixture(scope="module", autouse=True)
def data_directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBMON_DATA_DIR", str(folder))
        patch.setenv("JOBMON__DISTRIBUTOR__POLL_INTERVAL", "0.1")
        patch.setenv("JOBMON__MULTIPROCESS__SLOTS", "2")
        patch.setenv("JOBMON__MULTIPROCESS__RESOURCES", "licence=1")
        patch.setenv("PYTHONPATH", str(PLUGINS))
        patch.delenv("JOBMON_CONFIG_FILE", raising=False)
        own = str(PLUGINS / "jobmon" / "plugins")
        patch.setattr(jobmon.plugins, "__path__", [*jobmon.plugins.__path__, own])
        yield folder
        stop_server(data=folder)
    sys.modules.pop("jobmon.plugins.shed", None)


@pytest.fixture
def args():
    return f"mixed {next(_numbers)}"


def define(args, *placed, attempts=1):
    """A workflow of (cluster, command) in this order, each task independent."""
    tool = Tool("mixed")
    template = tool.get_task_template("run", "{command}", node_args=["command"])
    workflow = tool.create_workflow(args)
    tasks = [
        template.create_task(command=command, cluster_name=cluster, max_attempts=attempts)
        for cluster, command in placed
    ]
    workflow.add_tasks(tasks)
    return workflow, tasks


def waiting(folder, name):
    return f"echo $$ >> {folder}/{name}; while ! test -e {folder}/go; do sleep 0.02; done; true"


def is_distributor(process):
    try:
        return "jobmon.distributor" in process.cmdline()
    except psutil.Error:
        return False


def children(kind, pid=None):
    return [one for one in psutil.Process(pid or os.getpid()).children() if kind(one)]


def meanwhile(function):
    """Run a function in a thread; return what waits for its end and raises what it raised."""
    raised = []

    def work():
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def join():
        thread.join()
        assert raised == []

    return join


def test_local_tasks_run_under_an_agent_and_the_others_under_workers(args, tmp_path):
    workflow, (first, second, third) = define(
        args,
        ("multiprocess", PARENT.format(tmp_path / "local")),
        ("shed", PARENT.format(tmp_path / "batch")),
        ("multiprocess", f"test -e {tmp_path}/batch"),
    )
    second.add_upstream(first)
    third.add_upstream(second)
    assert workflow.run() == WorkflowRunStatus.DONE
    assert "jobmon/agent/start.py" in (tmp_path / "local").read_text()
    assert "worker_node" in (tmp_path / "batch").read_text()
    until(lambda: not children(is_agent), "the end of the agent")


def test_local_tasks_of_a_mixed_workflow_hold_tokens_of_resources(args, tmp_path):
    tool = Tool("mixed")
    template = tool.get_task_template("use", "{command} # {number}", node_args=["number"], op_args=["command"])
    workflow = tool.create_workflow(args)
    alone = f"mkdir {tmp_path}/held && sleep 0.1 && rmdir {tmp_path}/held && echo $JOBMON_RESOURCE_LICENCE"
    asked = {"resources": {"licence": 1}}
    workflow.add_tasks(
        [
            template.create_task(number=number, command=alone, cluster_name="multiprocess", compute_resources=asked)
            for number in range(4)
        ]
    )
    workflow.add_task(template.create_task(number=9, command="true", cluster_name="shed"))
    assert workflow.run() == WorkflowRunStatus.DONE


def test_a_killed_distributor_is_replaced_and_no_command_notices(args, tmp_path):
    workflow, tasks = define(
        args, ("multiprocess", waiting(tmp_path, "local")), ("shed", waiting(tmp_path, "batch")), ("shed", "true")
    )

    def kill():
        until(lambda: pids_in(tmp_path / "local") and pids_in(tmp_path / "batch"), "both commands")
        (distributor,) = children(is_distributor)
        distributor.kill()
        until(lambda: distributor.pid not in [one.pid for one in children(is_distributor)], "its end")
        until(lambda: children(is_distributor), "the next distributor")
        (tmp_path / "go").touch()

    join = meanwhile(kill)
    assert workflow.run() == WorkflowRunStatus.DONE
    join()
    assert [len(attempts_of_task(task.task_id)) for task in tasks] == [1, 1, 1]


def test_a_killed_agent_costs_only_its_own_attempts(args, tmp_path):
    workflow, (local, batch) = define(
        args, ("multiprocess", waiting(tmp_path, "local")), ("shed", waiting(tmp_path, "batch"))
    )

    def kill():
        (first,) = until(lambda: pids_in(tmp_path / "local"), "the local command")
        until(lambda: pids_in(tmp_path / "batch"), "the other command")
        (agent,) = children(is_agent)
        agent.kill()
        until(lambda: len(pids_in(tmp_path / "local")) == 2, "the second attempt")
        assert not is_alive(first)
        (tmp_path / "go").touch()

    join = meanwhile(kill)
    assert workflow.run() == WorkflowRunStatus.DONE
    join()
    lost, done = attempts_of_task(local.task_id)
    assert (lost.status, lost.cause, lost.charged) == (TaskInstanceStatus.UNKNOWN_ERROR, Cause.WORKER_LOST, False)
    assert done.status == TaskInstanceStatus.DONE
    assert len(attempts_of_task(batch.task_id)) == 1


def test_a_hot_resume_finds_both_kinds_still_running(args, tmp_path):
    placed = ("multiprocess", waiting(tmp_path, "local")), ("shed", waiting(tmp_path, "batch"))
    words = [sys.executable, "-c", SCRIPT, args, *placed[0], *placed[1]]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    until(lambda: pids_in(tmp_path / "local") and pids_in(tmp_path / "batch"), "both commands")
    runners = children(is_agent, client.pid) + children(is_distributor, client.pid)
    assert len(runners) == 2
    client.kill()
    client.communicate()
    workflow, tasks = define(args, *placed)

    def go():
        until(lambda: children(is_distributor) and children(is_agent), "the processes of the new run")
        (tmp_path / "go").touch()

    join = meanwhile(go)
    assert workflow.run(resume=True, reset_running_jobs=False) == WorkflowRunStatus.DONE
    join()
    assert [len(attempts_of_task(task.task_id)) for task in tasks] == [1, 1]
    until(lambda: not any(is_alive(one.pid) for one in runners), "the end of the former run's processes")


@pytest.mark.parametrize("gone", ["agent", "distributor", "both"])
def test_a_cold_resume_ends_both_kinds_whoever_is_left_to_do_it(args, tmp_path, gone):
    placed = ("multiprocess", waiting(tmp_path, "local")), ("shed", waiting(tmp_path, "batch"))
    words = [sys.executable, "-c", SCRIPT, args, *placed[0], *placed[1]]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    until(lambda: pids_in(tmp_path / "local") and pids_in(tmp_path / "batch"), "both commands")
    kinds = {"agent": [is_agent], "distributor": [is_distributor], "both": [is_agent, is_distributor]}[gone]
    doomed = [one for kind in kinds for one in children(kind, client.pid)]
    os.kill(client.pid, 19)  # SIGSTOP, so that it does not restart them
    for one in doomed:
        one.kill()
    client.kill()
    client.communicate()
    before = pids_in(tmp_path / "local") + pids_in(tmp_path / "batch")
    workflow, _ = define(args, *placed)

    def go():
        until(lambda: len(pids_in(tmp_path / "local")) == 2 and len(pids_in(tmp_path / "batch")) == 2, "the reruns")
        assert not any(is_alive(pid) for pid in before)
        (tmp_path / "go").touch()

    join = meanwhile(go)
    assert workflow.run(resume=True) == WorkflowRunStatus.DONE
    join()


def test_a_script_that_orchestrates_a_mixed_run_itself(args, tmp_path):
    workflow, _ = define(args, ("multiprocess", f"touch {tmp_path}/local"), ("shed", f"touch {tmp_path}/batch"))
    workflow.bind()
    run = WorkflowRunFactory(workflow.workflow_id, workflow.requester).create_workflow_run()
    with DistributorContext("shed", run.workflow_run_id, 60) as distributor:
        assert distributor.alive()
        result = run_workflow(workflow, run.workflow_run_id, distributor.alive, requester=workflow.requester)
    assert (result.final_status, result.done_count) == (WorkflowRunStatus.DONE, 2)
    assert {"local", "batch"} <= {path.name for path in tmp_path.iterdir()}
