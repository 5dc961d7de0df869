"""A changed script is rejected with an explanation, planned without side effects, and resumed with valid results."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from jobmon.client import changing, planning, recorded, running
from jobmon.client.api import Tool
from jobmon.client.displays import LogDisplay
from jobmon.client.resuming import ResumeOptions, resume_workflow
from jobmon.core.exceptions import (
    ConfigError,
    JobmonError,
    WorkflowAlreadyExists,
    WorkflowChanged,
    WorkflowVersionConflict,
)
from jobmon.core.requester import Requester
from jobmon.core.wire.changes import RecordedWorkflow, VersionsResponse
from jobmon.core.wire.monitoring import TaskSummariesResponse, UsageRequest, UsageResponse

_numbers = count()


@pytest.fixture
def args():
    return f"changes {next(_numbers)}"


@pytest.fixture
def folder(data_directory, tmp_path):
    return tmp_path


def define(args, folder, files=3, total="true", note="", cluster=""):
    """Count each file, then add up; every command leaves a line in `ran`."""
    tool = Tool("changes")
    counting = tool.get_task_template("count", f"echo {{file}} >> {folder}/ran", node_args=["file"])
    adding = tool.get_task_template(
        "sum", f"echo sum >> {folder}/ran; {total} # {{note}}", node_args=[], op_args=["note"]
    )
    workflow = tool.create_workflow(args, name="words", default_max_attempts=1, default_cluster_name=cluster)
    tasks = counting.create_tasks(file=[f"f{n}" for n in range(files)])
    workflow.add_tasks(tasks)
    workflow.add_task(adding.create_task(upstream_tasks=tasks, note=note))
    return workflow


def ran(folder):
    path = folder / "ran"
    return sorted(path.read_text().split()) if path.exists() else []


def contents(data_directory):
    """Return every row of the database, as SQL."""
    path = data_directory / "jobmon.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return list(connection.iterdump())


def test_a_changed_command_is_refused_before_anything_is_written(args, folder, data_directory):
    assert define(args, folder, total="false").run() == "E"
    before = contents(data_directory)
    with pytest.raises(WorkflowChanged) as caught:
        define(args, folder, files=4, total="exit 0").run(resume=True)
    assert contents(data_directory) == before
    assert isinstance(caught.value, WorkflowAlreadyExists)
    assert "  count  1 task added: file=f3" in str(caught.value)
    assert "sum    command changed (1 task), upstreams +1" in str(caught.value)
    plan = caught.value.plan
    assert plan.counts["sum"] == {"run": {"command changed": 1}}
    assert plan.counts["count"] == {"keep": {"up to date": 3}, "run": {"new": 1}}


def test_bind_refuses_a_change_too(args, folder):
    define(args, folder).bind()
    with pytest.raises(WorkflowChanged, match="1 of 4 recorded tasks is not in this definition"):
        define(args, folder, files=2).bind()


def test_a_plan_leaves_no_trace(args, folder, data_directory):
    workflow = define(args, folder)
    Requester.from_defaults().call("/clusters", None, dict, "get")  # the server is there
    before = contents(data_directory)
    assert workflow.plan().run_count == 4
    assert contents(data_directory) == before
    assert not workflow.is_bound
    assert workflow.run() == "D"
    before = contents(data_directory)
    assert define(args, folder).plan().run_count == 0
    assert define(args, folder, files=5, total="exit 0").plan().run_count == 3
    assert planning.plan_recorded(workflow.requester, workflow.workflow_id).run_count == 0
    assert contents(data_directory) == before


def test_words_that_leave_results_valid_are_taken_and_done_stays_done(args, folder):
    assert define(args, folder, total="test -e {note} || exit 1", note="missing").run() == "E"
    assert define(args, folder, total="test -e {note} || exit 1", note="/").run(resume=True) == "D"
    assert ran(folder) == ["f0", "f1", "f2", "sum", "sum"]


def test_another_text_of_a_template_that_shows_in_no_command_is_no_change(args, folder):
    assert define(args, folder, total="exit 1").run() == "E"
    changed = define(args, folder, total="exit 1{note:}")
    assert changed.run(resume=True) == "E"
    assert ran(folder) == ["f0", "f1", "f2", "sum", "sum"]
    [template] = [each for each in changed.arrays.values() if each.name == "sum"]
    assert template.template_version.id is not None
    assert define(args, folder, total="exit 1").run(resume=True) == "E"


def test_a_plan_by_id_says_what_failed(args, folder):
    workflow = define(args, folder, total="exit 3")
    assert workflow.run() == "E"
    plan = planning.plan_recorded(workflow.requester, workflow.workflow_id)
    assert plan.tasks[-1].reasons == [("failed", "exit code 3")]
    assert plan.counts["count"] == {"keep": {"up to date": 3}}


SCRIPT = """
import sys
from jobmon.client.api import Tool

tool = Tool("planned")
workflow = tool.create_workflow(sys.argv[1])
workflow.add_tasks(tool.get_task_template("step", "echo {n}", node_args=["n"]).create_tasks(n=[1, 2, 3]))
workflow.run(resume=True)
sys.exit("the script continued")
"""


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_script_shows_its_plan_and_ends(args, folder, monkeypatch, form):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setenv("JOBMON__RUN__PLAN", form)
    done = subprocess.run([sys.executable, script, args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if form == "json":
        assert json.loads(done.stdout)["run_count"] == 3
    else:
        assert done.stdout.splitlines()[0] == "New workflow 'planned': 3 of 3 tasks would run"
        assert planning.FIRST_ONLY in done.stdout


def test_another_word_for_the_form_is_refused(args, folder, monkeypatch):
    monkeypatch.setenv("JOBMON__RUN__PLAN", "yes")
    with pytest.raises(ValueError, match=r"run\.plan must be 'table' or 'json', or empty, not 'yes'"):
        define(args, folder).run()


def test_commands_do_not_get_the_settings_of_the_run(args, folder, monkeypatch):
    monkeypatch.setenv("JOBMON__RUN__ANYTHING", "1")
    assert define(args, folder, total=f"env > {folder}/env").run() == "D"
    assert "JOBMON__RUN__" not in (folder / "env").read_text()


# -- accepting a change ---------------------------------------------------------------------------------------------


def rerun(workflow, **options):
    return workflow.run(resume=True, **({"on_change": "rerun"} | options))


def test_a_changed_command_runs_with_what_is_downstream_and_nothing_else(args, folder):
    assert define(args, folder, total="exit 1").run() == "E"
    first = define(args, folder, total="exit 1")
    assert first.run(resume=True) == "E"
    before, ids = ran(folder), [task.task_id for task in first.tasks.values()]
    fixed = define(args, folder, total="exit 0")
    assert rerun(fixed) == "D"
    assert ran(folder) == [*before, "sum"]
    assert [task.task_id for task in fixed.tasks.values()] == ids
    assert rerun(define(args, folder, total="exit 0")) == "D"  # complete and unchanged
    assert ran(folder).count("sum") == before.count("sum") + 1


def test_more_files_run_and_the_sum_with_them(args, folder):
    first = define(args, folder)
    assert first.run() == "D"
    more = define(args, folder, files=5)
    assert rerun(more) == "D"
    assert ran(folder) == ["f0", "f1", "f2", "f3", "f4", "sum", "sum"]
    ids = [task.task_id for task in more.tasks.values()]
    assert ids[:3] == [task.task_id for task in first.tasks.values()][:3]
    assert more.last_result.num_previously_complete == 3
    assert more.plan().run_count == 0
    assert planning.plan_recorded(more.requester, more.workflow_id).run_count == 0


def test_files_that_are_gone_take_a_consent_of_their_own(args, folder):
    workflow = define(args, folder, files=4)
    assert workflow.run() == "D"
    with pytest.raises(WorkflowChanged, match=r"2 of 5 recorded tasks are not .*If that is intended: allow_removal"):
        rerun(define(args, folder, files=2))
    fewer = define(args, folder, files=2)
    assert rerun(fewer, allow_removal=True) == "D"
    assert ran(folder).count("sum") == 2
    listed = workflow.requester.call(
        f"/workflows/{workflow.workflow_id}/task_summaries", None, TaskSummariesResponse, "get"
    )
    assert [task.name for task in listed.tasks] == ["count_file-f0", "count_file-f1", "sum"]
    assert rerun(define(args, folder, files=4)) == "D"  # and back again: their results count
    assert ran(folder) == ["f0", "f1", "f2", "f3", "sum", "sum", "sum"]
    assert fewer.plan(allow_removal=True).counts["count"] == {"keep": {"up to date": 2}, "remove": {"removed": 2}}


def test_results_can_be_kept(args, folder):
    assert define(args, folder).run() == "D"
    kept = define(args, folder, files=4, total="exit 0")
    assert kept.run(resume=True, on_change={"sum": "keep", "*": "rerun"}) == "D"
    assert ran(folder) == ["f0", "f1", "f2", "f3", "sum"]
    assert kept.plan().counts == {"count": {"keep": {"up to date": 4}}, "sum": {"keep": {"accepted": 1}}}
    assert rerun(define(args, folder, files=4, total="exit 0 ")) == "D"  # another change: no longer accepted
    assert ran(folder).count("sum") == 2


def test_a_task_alone_can_be_rerun(args, folder):
    def chain(second, third="c"):
        tool = Tool("changes")
        workflow = tool.create_workflow(args, default_max_attempts=1)
        tasks = []
        for name, word in (("one", "a"), ("two", second), ("three", third)):
            template = tool.get_task_template(name, f"echo {word} >> {folder}/ran", node_args=[])
            tasks.append(workflow.add_task(template.create_task(upstream_tasks=tasks[-1:])))
        return workflow

    assert chain("b").run() == "D"
    assert chain("B").run(resume=True, on_change="rerun-only") == "D"
    assert ran(folder) == ["B", "a", "b", "c"]
    assert chain("B").plan().run_count == 0
    assert rerun(chain("b2")) == "D"
    assert ran(folder) == ["B", "a", "b", "b2", "c", "c"]


def test_an_edit_that_is_undone_before_it_ran_costs_nothing(args, folder, monkeypatch):
    assert define(args, folder).run() == "D"
    with monkeypatch.context() as patch:
        patch.setattr(running, "_create_run", lambda *_: None)
        running.prepare(define(args, folder, total="exit 5"), running.RunOptions(resume=True, consent=ACCEPTED))
    changed = planning.plan_recorded(Requester.from_defaults(), define_id(args, folder))
    assert changed.tasks[-1].reasons[0][0] == "command changed"
    back = define(args, folder)
    assert back.plan().tasks[-1].action == "restore"
    assert rerun(back) == "D"
    assert ran(folder) == ["f0", "f1", "f2", "sum"]


ACCEPTED = planning.Consent("rerun", True)


def define_id(args, folder):
    found = planning.recorded.find(define(args, folder))
    return found.workflow_id


def test_two_clients_change_at_once_and_one_wins(args, folder, monkeypatch):
    assert define(args, folder).run() == "D"
    first, second = define(args, folder, files=4), define(args, folder, files=5)
    seal, changing_first = changing.Change._stage_statuses, []

    def overtaken(change):
        seal(change)
        if not changing_first:
            changing_first.append(True)
            assert rerun(second) == "D"

    monkeypatch.setattr(changing.Change, "_stage_statuses", overtaken)
    with pytest.raises(WorkflowVersionConflict, match=r"was changed in the meantime \(version 2, .*Plan again"):
        rerun(first)
    assert define(args, folder, files=5).plan().run_count == 0


def test_a_change_that_was_applied_and_not_run_is_run_by_whoever_comes_next(args, folder, monkeypatch):
    assert define(args, folder).run() == "D"
    workflow_id = define_id(args, folder)
    requester = Requester.from_defaults()
    whole = requester.call
    monkeypatch.setattr(running, "_create_run", lambda *_: None)
    running.prepare(define(args, folder, files=4), running.RunOptions(resume=True, consent=ACCEPTED))
    monkeypatch.undo()
    assert whole(f"/workflows/{workflow_id}/recorded", None, RecordedWorkflow, "get").version == 2
    result = resume_workflow(workflow_id, ResumeOptions(), requester, display=LogDisplay)
    assert result.final_status == "D"
    assert ran(folder) == ["f0", "f1", "f2", "f3", "sum", "sum"]


def test_a_shared_dag_is_copied_and_the_other_workflow_keeps_its_own(args, folder):
    one, other = define(args, folder), define(args + " other", folder)
    assert one.run() == "D"
    other.bind()
    assert one.dag_id == other.dag_id
    more = define(args, folder, files=4)
    assert rerun(more) == "D"
    assert more.dag_id != other.dag_id
    assert define(args + " other", folder).plan().run_count == 4
    assert other.run() == "D"
    assert more.plan().run_count == 0


def test_a_private_dag_says_what_a_fresh_one_would(args, folder):
    assert define(args, folder, files=4).run() == "D"
    for files in (6, 2, 3):
        changed = define(args, folder, files=files)
        assert rerun(changed, allow_removal=True) == "D"
        assert edges_of(changed) == {"sum": {f"count_file-f{n}" for n in range(files)}}


def edges_of(workflow):
    found = recorded.fetch(workflow.requester, recorded.find(workflow))
    names = {task.task_id: task.name for task in found.tasks}
    return {
        task.name: {names[each] for each in found.upstream_ids(task)}
        for task in found.tasks
        if task.set_id and not task.is_removed
    }


def test_the_versions_of_a_workflow(args, folder):
    workflow = define(args, folder)
    assert workflow.run() == "D"
    assert rerun(define(args, folder, files=4)) == "D"
    found = workflow.requester.call(f"/workflows/{workflow.workflow_id}/versions", None, VersionsResponse, "get")
    assert [version.number for version in found.versions] == [1, 2]
    assert found.versions[1].summary == ["count  1 task added: file=f3", "sum    upstreams +1 (1 task)"]
    assert [len(version.workflow_run_ids) for version in found.versions] == [1, 1]


def test_a_task_that_runs_is_adopted_and_one_that_changed_is_killed(args, folder):
    def slow(word):
        tool = Tool("changes")
        workflow = tool.create_workflow(args, default_max_attempts=1)
        waits = f"echo {{n}} >> {folder}/ran; while ! test -e {folder}/go; do sleep 0.02; done"
        same = tool.get_task_template("same", waits, node_args=["n"])
        other = tool.get_task_template("other", f"echo {word}; {waits}", node_args=["n"])
        workflow.add_tasks([same.create_task(n="same"), other.create_task(n="other")])
        return workflow

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(slow("a").run)
        while len(ran(folder)) < 2:
            time.sleep(0.02)
        second = pool.submit(rerun, slow("b"), reset_running_jobs=False)
        while len(ran(folder)) < 3:
            time.sleep(0.02)
            assert not second.done(), second.result()
        (folder / "go").touch()
        assert second.result(60) == "D"
        with contextlib.suppress(JobmonError):
            first.result(60)
    assert ran(folder) == ["other", "other", "same"]


@pytest.mark.parametrize("options", [{"on_change": "rerun"}, {"allow_removal": True}, {"allow_removal": False}])
def test_what_a_resume_may_change_takes_a_resume(args, folder, options):
    with pytest.raises(ValueError, match="pass resume=True with it"):
        define(args, folder).run(**options)


def test_a_template_that_is_not_there_is_refused_before_anything_happens(args, folder):
    with pytest.raises(ValueError, match="did you mean 'sum'"):
        define(args, folder).run(resume=True, on_change={"summ": "keep"})


def test_a_setting_accepts_once(args, folder, monkeypatch):
    assert define(args, folder).run() == "D"
    monkeypatch.setenv("JOBMON__RUN__ON_CHANGE", '{"count": "rerun", "sum": "keep"}')
    assert define(args, folder, files=4).run(resume=True) == "D"
    assert ran(folder).count("sum") == 1
    monkeypatch.setenv("JOBMON__RUN__ON_CHANGE", "always")
    with pytest.raises(ConfigError, match=r"Setting run\.on_change must be 'error', 'rerun'"):
        define(args, folder).run(resume=True)


def test_usage_counts_for_the_template_version_that_an_attempt_ran(args, folder):
    first = define(args, folder, total="exit 0")
    assert first.run() == "D"
    before = first.arrays["sum"].template_version.id
    second = define(args, folder, total="exit 0; true")
    assert second.run(resume=True, on_change="keep") == "D"
    after = second.arrays["sum"].template_version.id
    assert before != after
    usage = {
        version: second.requester.call(
            f"/task_template_versions/{version}/resource_usage", UsageRequest(), UsageResponse
        ).num_tasks
        for version in (before, after)
    }
    assert usage == {before: 1, after: 0}
