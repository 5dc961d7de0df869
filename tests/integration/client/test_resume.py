"""Resume with two clients at once, from a live client, and by ID alone; rejected resumes."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from jobmon.client import api_calls
from jobmon.client.api import Tool, WorkflowRunStatus
from jobmon.client.displays import LogDisplay
from jobmon.client.resuming import ResumeOptions, resume_workflow
from jobmon.core.exceptions import (
    InvalidRequest,
    InvalidResources,
    JobmonError,
    WorkflowAlreadyComplete,
    WorkflowAlreadyExists,
    WorkflowNotResumable,
)
from jobmon.core.requester import Requester

pytestmark = pytest.mark.usefixtures("data_directory")
_numbers = count()
END_SECONDS_MAX = 15.0  # a living client ends within one; with its next heartbeat, it would be 30


@pytest.fixture
def args():
    return f"resume {next(_numbers)}"


@pytest.fixture
def requester(data_directory):
    found = Requester.from_defaults()
    yield found
    found.close()


def define(args, *commands, max_attempts=1, **kwargs):
    tool = Tool("resume tests")
    template = tool.get_task_template("run", "{command}", node_args=["command"])
    workflow = tool.create_workflow(args)
    workflow.add_tasks(template.create_tasks(command=list(commands), max_attempts=max_attempts, **kwargs))
    return workflow


def until_exists(path, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def waiting(folder, number):
    return f"echo {number} >> {folder}/ran; touch {folder}/up; while ! test -e {folder}/go; do sleep 0.02; done; true"


def by_id(workflow_id, requester, **options):
    return resume_workflow(workflow_id, ResumeOptions(**options), requester, display=LogDisplay)


# -- two clients -----------------------------------------------------------------------------------------------------


def test_a_living_client_ends_at_once_and_its_commands_go_on_under_the_new_run(args, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        old = pool.submit(define(args, waiting(tmp_path, 1)).run)
        until_exists(tmp_path / "up")
        asked = time.monotonic()
        new = pool.submit(define(args, waiting(tmp_path, 1)).run, resume=True, reset_running_jobs=False)
        assert old.result(30) == WorkflowRunStatus.TERMINATED
        assert time.monotonic() - asked < END_SECONDS_MAX
        (tmp_path / "go").touch()
        assert new.result(30) == WorkflowRunStatus.DONE
    assert (tmp_path / "ran").read_text() == "1\n"


def test_a_cold_resume_ends_the_commands_of_a_living_client_and_runs_them_again(args, tmp_path):
    """`timeout` makes a process group of its own: what it runs used to live beside the second attempt."""
    detached = f"timeout 300 sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60'"
    command = f"if test -e {tmp_path}/pid; then kill -0 $(cat {tmp_path}/pid) && exit 3; true; else {detached}; fi"
    with ThreadPoolExecutor(2) as pool:
        old = pool.submit(define(args, command).run)
        until_exists(tmp_path / "pid")
        assert define(args, command).run(resume=True) == WorkflowRunStatus.DONE
        assert old.result(30) == WorkflowRunStatus.TERMINATED
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_clients_that_resume_at_the_same_moment_run_every_command_once(args, tmp_path):
    commands = [f"echo {number} >> {tmp_path}/ran; test -e {tmp_path}/go && sleep 0.2" for number in range(3)]
    assert define(args, *commands).run() == WorkflowRunStatus.ERROR
    (tmp_path / "ran").unlink()
    (tmp_path / "go").touch()

    def resume():
        try:
            return define(args, *commands).run(resume=True, reset_running_jobs=False)
        except JobmonError as error:
            return type(error).__name__

    with ThreadPoolExecutor(3) as pool:
        results = [result.result(60) for result in [pool.submit(resume) for _ in range(3)]]
    assert results.count(WorkflowRunStatus.DONE) == 1
    losers = {WorkflowRunStatus.TERMINATED, "ResumeSet", "WorkflowNotResumable", "WorkflowAlreadyComplete"}
    assert {result for result in results if result != WorkflowRunStatus.DONE} <= losers
    assert sorted((tmp_path / "ran").read_text().split()) == ["0", "1", "2"]


# -- by id -----------------------------------------------------------------------------------------------------------


def test_a_workflow_is_resumed_by_its_id_with_all_that_was_recorded(args, requester, tmp_path):
    def define_it():
        workflow = define(
            args,
            f"echo 1 >> {tmp_path}/good",
            f"test -e {tmp_path}/go",
            compute_resources={"cores": 0.5, "memory": "10M"},
            resource_scales={"memory": [0.1, 0.2], "cores": 0.5},
        )
        before = list(workflow.tasks.values())
        template = workflow.tool.active_task_templates["run"]
        workflow.add_task(template.create_task(command=f"touch {tmp_path}/after", upstream_tasks=before))
        return workflow

    workflow = define_it()
    assert workflow.run() == WorkflowRunStatus.ERROR
    (tmp_path / "go").touch()
    result = by_id(workflow.workflow_id, requester, cluster_name="sequential")
    assert (result.final_status, result.error) == (WorkflowRunStatus.DONE, None)
    assert (result.total_tasks, result.done_count, result.num_previously_complete) == (3, 3, 1)
    assert (tmp_path / "good").read_text() == "1\n"
    assert (tmp_path / "after").exists()
    with pytest.raises(WorkflowAlreadyComplete):
        by_id(workflow.workflow_id, requester)


def test_a_scale_that_is_a_function_is_refused_by_id(args, requester):
    workflow = define(args, "false", resource_scales={"memory": lambda value: value * 2})
    assert workflow.run() == WorkflowRunStatus.ERROR
    result = by_id(workflow.workflow_id, requester)
    assert isinstance(result.error, WorkflowNotResumable)
    assert "the scale of 'memory'" in str(result.error)
    assert result.final_status == WorkflowRunStatus.ERROR


def test_an_unknown_id_and_an_unknown_cluster_are_told(args, requester):
    with pytest.raises(InvalidRequest, match="There is no workflow 4711"):
        by_id(4711, requester)
    workflow = define(args, "false")
    workflow.run()
    with pytest.raises(InvalidResources, match="no cluster 'nowhere'"):
        by_id(workflow.workflow_id, requester, cluster_name="nowhere")


def test_a_workflow_that_is_not_recorded_completely_is_not_resumed_by_id(args, requester):
    from jobmon.client.binding import Binding

    workflow = define(args, "true")
    Binding(workflow).record_workflow()
    with pytest.raises(WorkflowNotResumable, match="rerun the script that defines it"):
        by_id(workflow.workflow_id, requester)
    assert workflow.run() == WorkflowRunStatus.DONE


def test_a_workflow_of_somebody_else_is_refused_unless_one_says_so(args, requester, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    workflow = define(args, "false")
    assert workflow.run() == WorkflowRunStatus.ERROR
    monkeypatch.undo()
    with pytest.raises(InvalidRequest, match="belongs to ann"):
        by_id(workflow.workflow_id, requester)
    with pytest.raises(InvalidRequest, match="belongs to ann"):
        define(args, "false").run(resume=True)
    assert by_id(workflow.workflow_id, requester, any_owner=True).final_status == WorkflowRunStatus.ERROR


def test_a_finished_workflow_is_not_resumed(args):
    assert define(args, "true").run() == WorkflowRunStatus.DONE
    with pytest.raises(WorkflowAlreadyComplete, match="nothing to do"):
        define(args, "true").run(resume=True)


def test_a_workflow_with_changed_tasks_is_not_resumed(args):
    assert define(args, "false").run() == WorkflowRunStatus.ERROR
    with pytest.raises(WorkflowAlreadyExists, match="run"):
        define(args, "false", "true").run(resume=True)


# -- stopping --------------------------------------------------------------------------------------------------------


def test_fail_fast_launches_nothing_after_the_first_failure_but_lets_finish_what_runs(args, tmp_path):
    workflow = define(args, waiting(tmp_path, 1), f"until test -e {tmp_path}/up; do sleep 0.01; done; false")
    template = workflow.tool.active_task_templates["run"]
    first = next(iter(workflow.tasks.values()))
    never = template.create_task(command=f"touch {tmp_path}/never", upstream_tasks=[first])
    workflow.add_task(never)

    def on_failure():
        while not api_calls.workflow_errors(workflow.requester, workflow.workflow_id, 1):
            time.sleep(0.05)
        (tmp_path / "go").touch()

    with ThreadPoolExecutor(2) as pool:
        run = pool.submit(workflow.run, fail_fast=True)
        until_exists(tmp_path / "up")
        pool.submit(on_failure).result(30)
        assert run.result(30) == WorkflowRunStatus.ERROR
    assert (workflow.last_result.done_count, workflow.last_result.failed_count) == (1, 1)
    assert not (tmp_path / "never").exists()
