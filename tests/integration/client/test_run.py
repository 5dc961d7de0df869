"""`Workflow.run` with the real server, distributor and commands."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import count

import pytest

from jobmon.client import running
from jobmon.client.api import TaskStatus, Tool, WorkflowRunStatus
from jobmon.client.displays import LogDisplay
from jobmon.client.swarm import run_workflow
from jobmon.client.workflow import DistributorContext
from jobmon.client.workflow_run import WorkflowRunFactory
from jobmon.core.exceptions import (
    DistributorInterruptedError,
    WorkflowAlreadyComplete,
    WorkflowAlreadyExists,
)

pytestmark = pytest.mark.usefixtures("data_directory")
_numbers = count()


@pytest.fixture
def tool():
    tool = Tool("client tests")
    yield tool
    tool.requester.close()


@pytest.fixture
def args():
    return f"args {next(_numbers)}"


def _workflow(tool, args, *commands, **kwargs):
    template = tool.get_task_template("run", "{command}", node_args=["command"])
    workflow = tool.create_workflow(args, **kwargs)
    workflow.add_tasks(template.create_tasks(command=list(commands), max_attempts=1))
    return workflow


def _until_exists(path, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not (path.exists() and (path.stat().st_size or path.suffix != ".pid")):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_a_workflow_runs_to_its_end_once(tool, args, tmp_path):
    def define():
        workflow = _workflow(tool, args, *(f"touch {tmp_path}/{n}" for n in range(5)))
        template, before = tool.active_task_templates["run"], list(workflow.tasks.values())
        last = template.create_task(command=f"ls {tmp_path} > {tmp_path}/all", upstream_tasks=before)
        workflow.add_task(last)
        return workflow, last

    workflow, last = define()
    assert workflow.run() == WorkflowRunStatus.DONE
    assert (tmp_path / "all").read_text().split() == ["0", "1", "2", "3", "4", "all"]
    assert workflow.last_result.done_count == 6
    assert {task.final_status for task in workflow.tasks.values()} == {TaskStatus.DONE}
    used = last.resource_usage()
    assert (used["num_attempts"], type(used["memory"]), type(used["runtime"])) == (1, int, float)
    usage = tool.active_task_templates["run"].resource_usage(workflows=[workflow.workflow_id], ci=0.95)
    assert (usage["num_tasks"], len(usage["ci_runtime"])) == (6, 2)
    assert 0 < usage["min_mem"] <= usage["median_mem"] <= usage["max_mem"] < 2**30
    assert workflow.resource_usage()["run"] == tool.active_task_templates["run"].resource_usage()
    assert tool.resource_usage(ci=0.95)["run"] == usage
    with pytest.raises(ValueError, match="'run' has no node arg 'comand'; did you mean 'command'"):
        tool.active_task_templates["run"].resource_usage(node_args={"comand": ["true"]})
    assert used["memory"] <= usage["max_mem"]
    only = tool.active_task_templates["run"].resource_usage(node_args={"command": [last.command]})
    assert only["num_tasks"] == 1
    assert only["max_runtime"] == last.resource_usage()["runtime"]
    again, _ = define()
    with pytest.raises(WorkflowAlreadyComplete, match="already complete: nothing to do"):
        again.run()


def test_a_failed_task_stops_its_downstream_and_can_be_resumed(tool, args, tmp_path):
    def define():
        workflow = _workflow(
            tool, args, f"echo x >> {tmp_path}/good", f"echo no such thing >&2; test -e {tmp_path}/key"
        )
        template = tool.active_task_templates["run"]
        bad = list(workflow.tasks.values())[1]
        workflow.add_task(template.create_task(command=f"touch {tmp_path}/after", upstream_tasks=[bad]))
        return workflow, bad

    workflow, bad = define()
    assert workflow.run() == WorkflowRunStatus.ERROR
    assert bad.final_status == TaskStatus.ERROR_FATAL
    assert not (tmp_path / "after").exists()
    errors = workflow.get_errors()[bad.task_id]
    assert "no such thing" in errors["error_log"][0]["description"]
    assert (errors["error_log"][0]["recovered"], errors["error_log"][0]["exit_code"]) == (False, 1)
    assert list(workflow.task_errors) == [bad.name]
    assert bad.get_errors() == errors
    (tmp_path / "key").touch()
    again, _ = define()
    with pytest.raises(WorkflowAlreadyExists, match="resume=True"):
        again.run()
    assert again.run(resume=True) == WorkflowRunStatus.DONE
    assert again.task_errors == {}
    assert [entry["recovered"] for entry in again.get_errors()[bad.task_id]["error_log"]] == [True]
    assert again.last_result.num_previously_complete == 1
    assert (tmp_path / "good").read_text() == "x\n"
    assert (tmp_path / "after").exists()


def test_an_interrupt_stops_the_run_and_its_commands(tool, args, tmp_path):
    workflow = _workflow(tool, args, f"echo $$ > {tmp_path}/sh.pid; exec sleep 60")

    def interrupt():
        _until_exists(tmp_path / "sh.pid")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(DistributorInterruptedError, match=r"resume=True"):
        workflow.run()
    thread.join()
    assert workflow.last_result.final_status == WorkflowRunStatus.STOPPED
    assert isinstance(workflow.last_result.error, DistributorInterruptedError)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "sh.pid").read_text()), 0)


def test_an_interrupt_that_was_not_meant_changes_nothing(tool, args, tmp_path):
    workflow = _workflow(tool, args, f"touch {tmp_path}/up; while ! test -e {tmp_path}/go; do sleep 0.01; done")
    asked = []

    def ask():
        asked.append(True)
        (tmp_path / "go").touch()
        return False

    def interrupt():
        _until_exists(tmp_path / "up")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert running.run(workflow, running.RunOptions(), display=LogDisplay, ask=ask) == WorkflowRunStatus.DONE
    thread.join()
    assert asked == [True]


def test_a_timeout_raises_and_keeps_the_result(tool, args):
    workflow = _workflow(tool, args, "sleep 2")
    with pytest.raises(RuntimeError, match="resume=True"):
        workflow.run(seconds_until_timeout=1)
    assert isinstance(workflow.last_result.error, RuntimeError)
    assert workflow.run(resume=True, reset_running_jobs=False) == WorkflowRunStatus.DONE


def test_off_the_main_thread_and_inside_a_running_loop(tool, args):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_workflow(tool, args, "true").run).result() == WorkflowRunStatus.DONE

    async def notebook():
        return _workflow(tool, args, "true #").run()

    args += " loop"
    assert asyncio.run(notebook()) == WorkflowRunStatus.DONE


def test_errors_of_tasks_that_recovered_are_told_apart_from_permanent_ones(tool, args, tmp_path):
    template = tool.get_task_template("run", "{command}", node_args=["command"])
    workflow = tool.create_workflow(args)
    flaky = template.create_task(
        command=f"mkdir {tmp_path}/tried || test -e {tmp_path}/tried && mkdir {tmp_path}/twice && exit 3 || true",
        max_attempts=3,
    )
    bad, good = template.create_tasks(command=["exit 4", "true"], max_attempts=2)
    workflow.add_tasks([flaky, bad, good])
    assert workflow.run() == WorkflowRunStatus.ERROR
    errors = workflow.get_errors()
    assert set(errors) == {flaky.task_id, bad.task_id}
    logs = {
        task_id: [(each["exit_code"], each["recovered"]) for each in found["error_log"]]
        for task_id, found in errors.items()
    }
    assert logs == {flaky.task_id: [(3, True)], bad.task_id: [(4, False)] * 2}
    for found in errors.values():
        assert found.keys() == {"task_instance_id", "error_log"}
        assert found["task_instance_id"] == max(each["task_instance_id"] for each in found["error_log"])
        assert all(isinstance(each["error_time"], datetime) and each["description"] for each in found["error_log"])
    assert list(workflow.task_errors) == [bad.name]
    assert len(workflow.task_errors[bad.name]) == 2
    assert flaky.get_errors() == errors[flaky.task_id]
    assert good.get_errors() is None
    (one,) = workflow.get_errors(limit=1.0).values()
    assert one in errors.values()
    with pytest.raises(ValueError, match="limit must be a number of tasks, an integer"):
        workflow.get_errors(limit=0)


@pytest.mark.parametrize("cluster", ["multiprocess", "dummy"])
def test_a_script_that_orchestrates_its_run_itself(tool, args, cluster, tmp_path):
    workflow = _workflow(tool, args, f"touch {tmp_path}/ran", default_cluster_name=cluster)
    workflow.bind()
    run = WorkflowRunFactory(workflow.workflow_id, tool.requester).create_workflow_run()
    with DistributorContext(cluster, run.workflow_run_id, 60) as distributor:
        assert distributor.alive()
        result = run_workflow(workflow, run.workflow_run_id, distributor.alive, requester=tool.requester)
    assert (result.final_status, result.done_count) == (WorkflowRunStatus.DONE, 1)
    assert (tmp_path / "ran").exists() == (cluster == "multiprocess")
