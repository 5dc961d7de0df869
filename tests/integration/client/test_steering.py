"""Steering a workflow while it runs: held tasks wait for their release, with a real agent."""

import threading
import time

import pytest

from jobmon.client.api import Tool
from jobmon.core.wire.monitoring import TaskDetail

pytestmark = pytest.mark.usefixtures("data_directory")
SECONDS_MAX = 30.0


def wait_for(path):
    deadline = time.monotonic() + SECONDS_MAX
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def status_of(workflow, task):
    return workflow.requester.call(f"/tasks/{task.task_id}", {}, TaskDetail, "get").task.status


def workflow_of(tmp_path, *names):
    tool = Tool("steering")
    template = tool.get_task_template("touch", "touch {folder}/{file}", node_args=["file"], op_args=["folder"])
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    tasks = [template.create_task(file=name, folder=str(tmp_path)) for name in names]
    workflow.add_tasks(tasks)
    return workflow, tasks


def test_a_held_task_runs_when_it_is_released_and_no_sooner(tmp_path):
    workflow, (_, held) = workflow_of(tmp_path, "free", "held")
    workflow.bind()
    held.hold()
    seen = []

    def release():
        wait_for(tmp_path / "free")
        seen.append((tmp_path / "held").exists())
        held.release()

    thread = threading.Thread(target=release)
    thread.start()
    assert workflow.run(seconds_until_timeout=60) == "D"
    thread.join()
    assert seen == [False]
    assert (tmp_path / "held").exists()


def test_the_tasks_of_a_template_are_held_and_released_together(tmp_path):
    workflow, _ = workflow_of(tmp_path, "a", "b")
    workflow.bind()
    assert workflow.hold("touch") == 2
    assert workflow.hold("touch") == 0
    assert workflow.release(tasks=workflow.tasks.values()) == 2
    assert workflow.hold(tasks=workflow.tasks.values()) == 2
    for wrong in ({}, {"task_template_name": "touch", "tasks": workflow.tasks.values()}):
        with pytest.raises(ValueError, match="either a template or the tasks"):
            workflow.hold(**wrong)
    with pytest.raises(Exception, match="no such"):
        workflow.hold("no such")
    plan = workflow.plan()
    assert [task.remarks for task in plan.tasks] == [["held"], ["held"]]
    assert "2 of these tasks are held until released: jobmon task release ID" in str(plan)
    assert workflow.release("touch") == 2
    assert "held" not in str(workflow.plan())
    assert workflow.run(seconds_until_timeout=60) == "D"


def test_what_is_not_recorded_cannot_be_held(tmp_path):
    workflow, (one,) = workflow_of(tmp_path, "a")
    for call in (one.hold, one.release, lambda: workflow.hold("touch"), lambda: workflow.release("touch")):
        with pytest.raises(ValueError, match=r"bind\(\)"):
            call()


def test_a_done_task_is_rerun_while_its_workflow_runs(tmp_path):
    tool = Tool("steering")
    note = tool.get_task_template("note", "echo x >> {folder}/{file}", node_args=["file"], op_args=["folder"])
    wait = tool.get_task_template("wait", "until [ -e {folder}/go ]; do sleep 0.02; done", node_args=["folder"])
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    first = note.create_task(file="first", folder=str(tmp_path))
    second = note.create_task(file="second", folder=str(tmp_path), upstream_tasks=[first])
    workflow.add_tasks([first, second, wait.create_task(folder=str(tmp_path))])
    workflow.bind()
    counts = []

    def lines(name):
        path = tmp_path / name
        return len(path.read_text().splitlines()) if path.exists() else 0

    def steer():
        for expected in (1, 2):
            deadline = time.monotonic() + SECONDS_MAX
            while lines("second") < expected and time.monotonic() < deadline:
                time.sleep(0.01)
            if expected == 1:
                deadline = time.monotonic() + SECONDS_MAX
                while not counts or (counts[-1] < 2 and time.monotonic() < deadline):
                    counts.append(first.rerun())  # until the second is recorded as done, too
        (tmp_path / "go").touch()

    thread = threading.Thread(target=steer)
    thread.start()
    assert workflow.run(seconds_until_timeout=60) == "D"
    thread.join()
    assert lines("first") >= 2
    assert lines("second") >= 2


@pytest.mark.parametrize("only", [False, True])
def test_after_a_rerun_the_plan_and_the_resume_agree(tmp_path, only):
    """Three tasks in a chain; the first is rerun, with or without what is downstream."""

    def chain():
        tool = Tool("steering")
        note = tool.get_task_template("note", "echo x >> {folder}/{file}", node_args=["file"], op_args=["folder"])
        workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
        tasks = []
        for name in ("first", "second", "third"):
            tasks.append(note.create_task(file=name, folder=str(tmp_path), upstream_tasks=tasks[-1:]))
        workflow.add_tasks(tasks)
        return workflow, tasks

    workflow, tasks = chain()
    assert workflow.run(seconds_until_timeout=60) == "D"
    assert tasks[0].rerun(only=only) == (1 if only else 3)
    again, _ = chain()
    names = {"first"} if only else {"first", "second", "third"}
    planned = {task.node_args["file"] for task in again.plan().tasks if task.action == "run"}
    assert planned == names
    assert again.run(resume=True, on_change="rerun", seconds_until_timeout=60) == "D"
    assert {name for name in ("first", "second", "third") if (tmp_path / name).read_text() == "x\nx\n"} == names
    assert not [task for task in chain()[0].plan().tasks if task.action == "run"]


def test_what_an_agent_has_prefetched_is_recalled_and_not_charged(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBMON__MULTIPROCESS__SLOTS", "1")
    tool = Tool("steering")
    begin = "touch {folder}/begun; until [ -e {folder}/go ]; do sleep 0.02; done"
    first = tool.get_task_template("first", begin, node_args=["folder"]).create_task(folder=str(tmp_path))
    touch = tool.get_task_template("touch", "touch {folder}/{file}", node_args=["file"], op_args=["folder"])
    rest = touch.create_tasks(file=["a", "b", "c"], folder=str(tmp_path), max_attempts=1)
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    workflow.add_tasks([first, *rest])
    workflow.bind()
    seen = []

    def steer():
        wait_for(tmp_path / "begun")
        seen.append(workflow.hold("touch"))
        (tmp_path / "go").touch()
        deadline = time.monotonic() + SECONDS_MAX
        while status_of(workflow, first) != "D" and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append([name for name in "abc" if (tmp_path / name).exists()])
        seen.append(workflow.release("touch"))

    thread = threading.Thread(target=steer)
    thread.start()
    assert workflow.run(seconds_until_timeout=60) == "D"
    thread.join()
    assert seen == [3, [], 3]
