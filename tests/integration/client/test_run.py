"""`Workflow.run` with the real server, distributor and commands."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count

import pytest

from jobmon.client import running
from jobmon.client.api import TaskStatus, Tool, WorkflowRunStatus
from jobmon.client.progress import LogDisplay
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
    assert last.resource_usage()["num_attempts"] == 1
    usage = tool.active_task_templates["run"].resource_usage(workflows=[workflow.workflow_id], ci=0.95)
    assert (usage["num_tasks"], len(usage["ci_runtime"])) == (6, 2)
    assert 0 < usage["min_mem"] <= usage["median_mem"] <= usage["max_mem"] < 1
    assert workflow.resource_usage()["run"] == tool.active_task_templates["run"].resource_usage()
    assert tool.resource_usage(ci=0.95)["run"] == usage
    with pytest.raises(ValueError, match="'run' has no node arg 'comand'; did you mean 'command'"):
        tool.active_task_templates["run"].resource_usage(node_args={"comand": ["true"]})
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
    assert "no such thing" in workflow.get_errors()[bad.task_id][0]["error"]
    assert list(workflow.task_errors) == [bad.name]
    assert bad.get_errors()[0]["exit_code"] == 1
    (tmp_path / "key").touch()
    again, _ = define()
    with pytest.raises(WorkflowAlreadyExists, match="resume=True"):
        again.run()
    assert again.run(resume=True) == WorkflowRunStatus.DONE
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


def test_a_killed_distributor_is_replaced_and_the_run_goes_on(tool, args, tmp_path, data_directory):
    import psutil

    workflow = _workflow(
        tool, args, f"echo x >> {tmp_path}/ran; touch {tmp_path}/up; while ! test -e {tmp_path}/go; do sleep 0.05; done"
    )

    killed = []

    def kill():
        _until_exists(tmp_path / "up")
        for child in psutil.Process().children():
            with suppress(psutil.Error):  # a child of another test that ends just now
                if "jobmon.distributor" in child.cmdline():
                    child.kill()
                    killed.append(child.pid)
        (tmp_path / "go").touch()

    thread = threading.Thread(target=kill)
    thread.start()
    assert workflow.run() == WorkflowRunStatus.DONE
    thread.join()
    assert len(killed) == 1
    assert (tmp_path / "ran").read_text() == "x\n"
