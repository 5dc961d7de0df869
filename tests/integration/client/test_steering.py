"""Steering a workflow while it runs: held tasks wait for their release, with a real agent."""

import threading
import time

import pytest

from jobmon.client.api import Tool
from jobmon.core.constants import TaskInstanceStatus
from jobmon.core.paths import user_name
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


def wait_for_recall(workflow, tasks):
    """Wait until the agent has given back the attempts of tasks that it must not start any more."""
    deadline = time.monotonic() + SECONDS_MAX
    while any(
        attempt.status == TaskInstanceStatus.KILL_SELF
        for task in tasks
        for attempt in workflow.requester.call(f"/tasks/{task.task_id}", {}, TaskDetail, "get").attempts
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def workflow_of(tmp_path, *names):
    tool = Tool("steering")
    template = tool.get_task_template("touch", "touch {folder}/{file}", node_args=["file"], op_args=["folder"])
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    tasks = [template.create_task(file=name, folder=str(tmp_path)) for name in names]
    workflow.add_tasks(tasks)
    return workflow, tasks


def test_a_held_task_runs_when_it_is_released_and_no_sooner(tmp_path, caplog):
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
    assert "1 task is held until released: jobmon task release ID." in caplog.text
    assert "No tasks are held any more." in caplog.text


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


def test_the_highest_priority_runs_first_set_in_the_script_and_live(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBMON__MULTIPROCESS__SLOTS", "1")
    tool = Tool("steering")
    begin = "touch {folder}/begun; until [ -e {folder}/go ]; do sleep 0.02; done"
    first = tool.get_task_template("first", begin, node_args=["folder"], priority=1000).create_task(
        folder=str(tmp_path)
    )
    note = tool.get_task_template("note", "echo {x} >> {folder}/order", node_args=["x"], op_args=["folder"])
    tasks = note.create_tasks(x=list("abcdef"), folder=str(tmp_path))
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess", priority=3)
    workflow.add_tasks([first, *tasks])
    tasks[4].priority = 7
    workflow.bind()

    def steer():
        wait_for(tmp_path / "begun")
        tasks[5].priority = 9
        workflow.set_priority(-1, tasks=tasks[:1])
        wait_for_recall(workflow, tasks)
        (tmp_path / "go").touch()

    thread = threading.Thread(target=steer)
    thread.start()
    assert workflow.run(seconds_until_timeout=60) == "D"
    thread.join()
    assert (tmp_path / "order").read_text().split() == ["f", "e", "b", "c", "d", "a"]
    assert (tasks[5].priority, tasks[1].priority, workflow.priority) == (9, 0, 3)
    for wrong in (1001, "high", 1.5, None):
        with pytest.raises(ValueError, match="-1000 to 1000"):
            tasks[0].priority = wrong
    with pytest.raises(ValueError, match="either a template or the tasks"):
        workflow.set_priority(1, "note", tasks)


def test_tasks_of_equal_options_and_priority_share_them(tmp_path):
    _, tasks = workflow_of(tmp_path, "a", "b", "c")
    for task in tasks[:2]:
        task.priority = 5
    assert tasks[0].options is tasks[1].options is not tasks[2].options
    tasks[0].priority = 0
    assert tasks[0].options is tasks[2].options


def test_a_task_that_failed_for_good_is_skipped_while_its_workflow_runs(tmp_path):
    tool = Tool("steering")
    fail = tool.get_task_template("fail", "false {folder}", node_args=["folder"], max_attempts=1)
    wait = tool.get_task_template("wait", "until [ -e {folder}/go ]; do sleep 0.02; done", node_args=["folder"])
    touch = tool.get_task_template("touch", "touch {folder}/after", node_args=["folder"])
    failing = fail.create_task(folder=str(tmp_path))
    after = touch.create_task(folder=str(tmp_path), upstream_tasks=[failing])
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    workflow.add_tasks([failing, after, wait.create_task(folder=str(tmp_path))])
    workflow.bind()

    def steer():
        deadline = time.monotonic() + SECONDS_MAX
        while status_of(workflow, failing) != "F" and time.monotonic() < deadline:
            time.sleep(0.02)
        failing.skip()
        wait_for(tmp_path / "after")
        (tmp_path / "go").touch()

    thread = threading.Thread(target=steer)
    thread.start()
    assert workflow.run(seconds_until_timeout=60) == "D"
    thread.join()
    result = workflow.last_result
    assert (result.skipped_task_ids, result.done_count) == (frozenset({failing.task_id}), 2)
    assert failing.final_status == "S"
    plan = {task.name: (task.action, task.reasons) for task in workflow.plan().tasks}
    assert plan[failing.name] == ("skip", [("skipped", "")])
    assert plan[after.name][0] == "keep"


def lines(path):
    return path.read_text().split() if path.exists() else []


def test_an_edit_runs_in_the_next_attempt_and_survives_a_resume_until_the_script_changes(tmp_path, caplog):
    def define(word="script"):
        tool = Tool("steering")
        template = tool.get_task_template(
            "say", "echo {word} >> {folder}/said; [ -e {folder}/go ]", node_args=["folder"], op_args=["word"]
        )
        workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
        task = template.create_task(
            folder=str(tmp_path), word=word, max_attempts=1, compute_resources={"cores": 1, "memory": "1G"}
        )
        workflow.add_task(task)
        return workflow, task

    workflow, task = define()
    assert workflow.run(seconds_until_timeout=60) == "E"
    assert task.edit(f"echo user >> {tmp_path}/said; [ -e {tmp_path}/go ]", {"memory": "2G"}, 2)
    assert not task.edit(max_attempts=2)
    workflow, task = define()
    planned = workflow.plan()
    assert planned.tasks[0].remarks == ["edited by " + planned.tasks[0].remarks[0].split()[-1]]
    assert "1 of these tasks is edited" in str(planned)
    assert workflow.run(resume=True, seconds_until_timeout=60) == "E"
    assert lines(tmp_path / "said") == ["script", "user", "user"]
    attempts = workflow.requester.call(f"/tasks/{task.task_id}", {}, TaskDetail, "get").attempts
    assert [each.requested_resources["memory"] for each in attempts] == [1.0, 2.0, 2.0]
    workflow, task = define("fixed")
    (tmp_path / "go").touch()
    assert workflow.run(resume=True, seconds_until_timeout=60) == "D"
    assert lines(tmp_path / "said")[3:] == ["fixed"]
    assert f"The edit of task {task.task_id} by" in caplog.text
    assert not [each for each in define("fixed")[0].plan().tasks if each.action != "keep"]


def test_bad_edits_are_refused_in_one_sentence_and_change_nothing(tmp_path):
    workflow, (done, other) = workflow_of(tmp_path, "a", "b")
    workflow.bind()
    other.hold()
    with pytest.raises(ValueError, match=r"changes the command, resources or max_attempts"):
        other.edit()
    with pytest.raises(ValueError, match=r"specify one of the two"):
        other.edit("x", reset=True)
    with pytest.raises(Exception, match=r"Task \d+ .*cores.*Nothing was changed"):
        other.edit(compute_resources={"cores": 100_000})
    with pytest.raises(Exception, match=r"no_such_thing"):
        other.edit(compute_resources={"no_such_thing": 1})
    with pytest.raises(Exception, match=r"no queue 'nowhere'"):
        other.edit(compute_resources={"queue": "nowhere"})
    with pytest.raises(ValueError, match="max_attempts"):
        other.edit(max_attempts=0)
    for command in ("", "  ", "echo \0", "x" * 200_000, 5):
        with pytest.raises(ValueError, match=r"[Cc]ommand"):
            other.edit(command)
    with pytest.raises(Exception, match="auto"):
        other.edit(compute_resources={"memory": "auto"})
    other.skip()
    assert workflow.run(seconds_until_timeout=60) == "D"
    with pytest.raises(Exception, match=f"Task {done.task_id} is done. To run it with this edit"):
        done.edit("echo x")
    detail = workflow.requester.call(f"/tasks/{other.task_id}", {}, TaskDetail, "get")
    assert detail.task.command == other.command


@pytest.mark.parametrize("only", [False, True])
def test_a_done_task_is_rerun_with_another_command(tmp_path, only):
    tool = Tool("steering")
    note = tool.get_task_template("note", "echo x >> {folder}/{file}", node_args=["file"], op_args=["folder"])
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    first = note.create_task(file="first", folder=str(tmp_path))
    second = note.create_task(file="second", folder=str(tmp_path), upstream_tasks=[first])
    workflow.add_tasks([first, second])
    assert workflow.run(seconds_until_timeout=60) == "D"
    assert first.rerun(command=f"echo edited >> {tmp_path}/first", only=only) == (1 if only else 2)
    assert resume_by_id(workflow) == "D"
    assert lines(tmp_path / "first") == ["x", "edited"]
    assert lines(tmp_path / "second") == ["x"] * (1 if only else 2)
    planned = workflow.plan()
    assert [task.action for task in planned.tasks] == ["keep", "keep"]


def resume_by_id(workflow):
    from jobmon.client.displays import LogDisplay
    from jobmon.client.resuming import ResumeOptions, resume_workflow

    return resume_workflow(workflow.workflow_id, ResumeOptions(), workflow.requester, display=LogDisplay).final_status


def test_a_run_resumed_by_id_fetches_done_and_skipped_tasks_that_are_to_be_rerun(tmp_path):
    tool = Tool("steering")
    note = tool.get_task_template("note", "echo x >> {folder}/{file}", node_args=["file"], op_args=["folder"])
    wait = tool.get_task_template(
        "wait", "touch {folder}/begun; [ -e {folder}/go ] && sleep 1", node_args=["folder"], max_attempts=1
    )
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    first = note.create_task(file="first", folder=str(tmp_path))
    second = note.create_task(file="second", folder=str(tmp_path), upstream_tasks=[first])
    skipped = note.create_task(file="skipped", folder=str(tmp_path))
    waiting = wait.create_task(folder=str(tmp_path), upstream_tasks=[second])
    last = note.create_task(file="last", folder=str(tmp_path), upstream_tasks=[waiting, second, skipped])
    workflow.add_tasks([first, second, skipped, waiting, last])
    workflow.bind()
    skipped.skip()
    assert workflow.run(seconds_until_timeout=60) == "E"
    (tmp_path / "begun").unlink()
    (tmp_path / "go").touch()

    def steer():
        wait_for(tmp_path / "begun")
        workflow.rerun([first], only=False)
        skipped.rerun()

    thread = threading.Thread(target=steer)
    thread.start()
    assert resume_by_id(workflow) == "D"
    thread.join()
    assert [len(lines(tmp_path / name)) for name in ("first", "second", "skipped", "last")] == [2, 2, 1, 1]
    assert not [task for task in workflow.plan().tasks if task.action != "keep"]


def test_tasks_that_wait_are_held_edited_and_released_while_their_workflow_runs(tmp_path):
    tool = Tool("steering")
    wait = tool.get_task_template("wait", "until [ -e {folder}/go ]; do sleep 0.02; done", node_args=["folder"])
    say = tool.get_task_template("say", "echo script >> {folder}/said_{x}", node_args=["x"], op_args=["folder"])
    waiting = wait.create_task(folder=str(tmp_path))
    request = {"cores": 1, "memory": "1G"}
    first, second = (
        say.create_task(x=x, folder=str(tmp_path), upstream_tasks=[waiting], compute_resources=request) for x in (1, 2)
    )
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    workflow.add_tasks([waiting, first, second])
    workflow.bind()

    def steer():
        deadline = time.monotonic() + SECONDS_MAX
        while status_of(workflow, waiting) != "R" and time.monotonic() < deadline:
            time.sleep(0.02)
        first.hold()
        assert workflow.edit([first, second], compute_resources={"memory": "3G"}) == 2
        assert first.edit(f"echo edited >> {tmp_path}/said_1")
        assert second.edit(reset=True)
        (tmp_path / "go").touch()
        first.release()

    thread = threading.Thread(target=steer)
    thread.start()
    assert workflow.run(seconds_until_timeout=60) == "D"
    thread.join()
    assert [lines(tmp_path / f"said_{x}") for x in (1, 2)] == [["edited"], ["script"]]
    for task, memory in ((first, 3.0), (second, 1.0)):
        attempts = workflow.requester.call(f"/tasks/{task.task_id}", {}, TaskDetail, "get").attempts
        assert attempts[-1].requested_resources["memory"] == memory
    planned = workflow.plan()
    assert {task.action for task in planned.tasks} == {"keep"}
    assert "edited by" in " ".join(remark for task in planned.tasks for remark in task.remarks)


def test_a_task_that_is_skipped_between_bind_and_run_satisfies_its_dependents_even_below_a_failure(tmp_path):
    tool = Tool("steering")
    fail = tool.get_task_template("fail", "false {folder}", node_args=["folder"], max_attempts=1)
    touch = tool.get_task_template("touch", "touch {folder}/{file}", node_args=["file"], op_args=["folder"])
    first = fail.create_task(folder=str(tmp_path))
    skipped = touch.create_task(file="skipped", folder=str(tmp_path), upstream_tasks=[first])
    last = touch.create_task(file="last", folder=str(tmp_path), upstream_tasks=[skipped])
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    workflow.add_tasks([first, skipped, last])
    workflow.bind()
    skipped.skip()
    assert workflow.run(seconds_until_timeout=60) == "E"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    result = workflow.last_result
    assert (result.done_count, result.failed_count, result.skipped_task_ids) == (1, 1, {skipped.task_id})


def test_an_edit_that_a_changed_command_supersedes_is_named(tmp_path, caplog):
    def define(word):
        tool = Tool("steering")
        template = tool.get_task_template("say", f"echo {word} >> {{folder}}/said; false", node_args=["folder"])
        workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess", default_max_attempts=1)
        workflow.add_task(template.create_task(folder=str(tmp_path)))
        return workflow

    workflow = define("first")
    assert workflow.run(seconds_until_timeout=60) == "E"
    (task,) = workflow.tasks.values()
    assert task.edit(f"echo user >> {tmp_path}/said")
    assert define("second").run(resume=True, on_change="rerun", seconds_until_timeout=60) == "E"
    assert f"The edit of task {task.task_id} by {user_name()} is superseded by the script." in caplog.text
    assert (tmp_path / "said").read_text() == "first\nsecond\n"


def test_an_urgent_task_that_becomes_ready_later_overtakes_what_was_claimed_in_advance(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBMON__MULTIPROCESS__SLOTS", "1")
    tool = Tool("steering")
    first = tool.get_task_template("first", "echo first >> {folder}/order", node_args=["folder"], priority=1000)
    note = tool.get_task_template("note", "sleep 0.3; echo {x} >> {folder}/order", node_args=["x"], op_args=["folder"])
    before = first.create_task(folder=str(tmp_path))
    tasks = note.create_tasks(x=list("abcd"), folder=str(tmp_path))
    urgent = note.create_task(x="urgent", folder=str(tmp_path), upstream_tasks=[before])
    urgent.priority = 9
    workflow = tool.create_workflow(tmp_path.name, default_cluster_name="multiprocess")
    workflow.add_tasks([before, *tasks, urgent])
    assert workflow.run(seconds_until_timeout=60) == "D"
    order = (tmp_path / "order").read_text().split()
    assert order[0] == "first"
    assert "urgent" in order[1:3]  # one task may have started before
