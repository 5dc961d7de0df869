"""Declared files in real runs: dependencies, checks where commands run, and what a resume does about files."""

from __future__ import annotations

import os
import re
from itertools import count

import pytest
from click.testing import CliRunner

from jobmon.cli.main import main
from jobmon.client.api import Tool
from jobmon.core.exceptions import WorkflowAlreadyComplete

_numbers = count()


@pytest.fixture
def args():
    return f"files {next(_numbers)}"


@pytest.fixture
def folder(data_directory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBMON__FILES__LATENCY_WAIT", "0.2")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / name).write_text(name)
    return tmp_path


def define(args, names=("a", "b"), count_command="cp in/{file} out/{file}.csv", sum_command="cat out/*.csv > report"):
    """Copy each input, then join the copies; every command leaves a line in `ran`. No dependency is given."""
    tool = Tool("files")
    counting = tool.get_task_template(
        "count",
        f"echo {{file}} >> ran; {count_command}",
        node_args=["file"],
        inputs={"raw": "in/{file}"},
        outputs=["out/{file}.csv"],
    )
    adding = tool.get_task_template(
        "sum", f"echo sum >> ran; {sum_command}", node_args=[], inputs=["out/*.csv"], outputs=["report"]
    )
    workflow = tool.create_workflow(args, name="words", default_max_attempts=2)
    workflow.add_tasks([adding.create_task(), *counting.create_tasks(file=list(names))])
    return workflow


def ran(folder):
    """Return what has run since the last call."""
    path = folder / "ran"
    words = sorted(path.read_text().split()) if path.exists() else []
    path.unlink(missing_ok=True)
    return words


def outputs(*words):
    result = CliRunner().invoke(main, ["workflow", "outputs", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


def test_tasks_run_in_the_order_of_their_files(args, folder):
    workflow = define(args)
    assert workflow.run() == "D"
    assert (folder / "report").read_text() == "ab"
    assert ran(folder) == ["a", "b", "sum"]
    shown = outputs(workflow.workflow_id)
    assert f"Paths start at {folder}." in shown
    assert re.search(r"sum +DONE +report +yes +2 B ", shown)
    assert re.search(r"count_file-b +DONE +out/b\.csv +yes +1 B ", shown)


def test_a_missing_input_that_no_task_writes(args, folder):
    workflow = define(args, names=["a", "none"])
    assert workflow.run() == "E"
    [[error]] = list(workflow.task_errors.values())
    assert error["description"] == (
        "Input in/none is missing; no task of the workflow writes it. Create it, then resume:"
        f" jobmon workflow resume -w {workflow.workflow_id}"
    )
    assert ran(folder) == ["a"]
    (folder / "in" / "none").write_text("n")
    assert define(args, names=["a", "none"]).run(resume=True) == "D"
    assert ran(folder) == ["none", "sum"]


def test_a_missing_output_is_retried_and_then_fails(args, folder):
    workflow = define(args, count_command="true", names=["a"])
    assert workflow.run() == "E"
    [errors] = workflow.task_errors.values()
    assert len(errors) == 2
    assert errors[0]["description"] == "Output out/a.csv is missing, although the command exited with code 0"
    assert ran(folder) == ["a", "a"]


def test_a_lost_output_is_made_again_if_it_is_needed(args, folder):
    assert define(args).run() == "D"
    ran(folder)
    (folder / "report").unlink()
    (folder / "out" / "a.csv").unlink()
    assert "report" in outputs(define_id(args), "--missing").replace("\n", "")
    plan = define(args).plan(check_files="outputs")
    assert plan.counts == {
        "sum": {"run": {"output missing": 1}},
        "count": {"run": {"output missing": 1}, "keep": {"up to date": 1}},
    }
    details = {task.name: task.reasons for task in plan.tasks}
    assert details["sum"] == [("output missing", str(folder / "report"))]
    assert define(args).run(resume=True, check_files="outputs") == "D"
    assert ran(folder) == ["a", "sum"]
    assert (folder / "report").read_text() == "ab"
    assert "No output is missing." in outputs(define_id(args), "--missing")


def define_id(args):
    return define(args).plan().workflow_id


def test_a_lost_intermediate_of_finished_work_stays_lost(args, folder):
    assert define(args).run() == "D"
    ran(folder)
    (folder / "out" / "a.csv").unlink()
    with pytest.raises(WorkflowAlreadyComplete):
        define(args).run(resume=True, check_files="outputs")
    assert define(args).run(resume=True, check_files="outputs", on_change="rerun") == "D"
    assert define(args).plan(check_files="none").run_count == 0
    assert ran(folder) == []


def test_a_changed_command_brings_back_the_intermediates_that_it_reads(args, folder):
    assert define(args).run() == "D"
    ran(folder)
    (folder / "out" / "a.csv").unlink()
    changed = "tac out/*.csv > report"
    assert define(args, sum_command=changed).plan(check_files="none").run_count == 1
    options = {"resume": True, "on_change": "rerun", "check_files": "outputs"}
    assert define(args, sum_command=changed).run(**options) == "D"
    assert ran(folder) == ["a", "sum"]
    assert define(args, sum_command=changed).plan(check_files="outputs").run_count == 0


def test_a_changed_input_reruns_its_task_and_what_depends_on_it(args, folder):
    assert define(args).run() == "D"
    ran(folder)
    assert define(args).plan(check_files="all").run_count == 0
    (folder / "in" / "a").write_text("longer")
    plan = define(args).plan(check_files="all")
    assert plan.counts["count"] == {"run": {"input changed": 1}, "keep": {"up to date": 1}}
    assert plan.counts["sum"] == {"run": {"upstream reruns": 1}}
    assert define(args).plan(check_files="outputs").run_count == 0
    assert define(args).run(resume=True, check_files="all") == "D"
    assert ran(folder) == ["a", "sum"]
    assert define(args).plan(check_files="all").run_count == 0
    (folder / "in" / "b").unlink()
    assert define(args).plan(check_files="all").run_count == 0


def test_a_touched_input_counts_as_changed(args, folder):
    assert define(args).run() == "D"
    os.utime(folder / "in" / "a", (0, 0))
    assert define(args).plan(check_files="all").run_count == 2


def test_the_setting_applies_to_a_resume(args, folder, monkeypatch):
    assert define(args).run() == "D"
    ran(folder)
    (folder / "report").unlink()
    monkeypatch.setenv("JOBMON__RUN__CHECK_FILES", "outputs")
    assert define(args).run(resume=True) == "D"
    assert ran(folder) == ["sum"]


def test_a_resume_by_id_looks_for_no_files(args, folder):
    workflow = define(args)
    workflow.bind()
    result = CliRunner().invoke(main, ["workflow", "plan", "-w", str(workflow.workflow_id), "--check-files", "outputs"])
    assert result.exit_code == 2
    assert "--check-files requires a script" in result.output


def test_an_invalid_choice_is_named(args, folder):
    with pytest.raises(ValueError, match="check_files must be one of 'none', 'outputs', 'all', not 'some'"):
        define(args).plan(check_files="some")
    with pytest.raises(ValueError, match="check_files controls what a resume may change; pass resume=True"):
        define(args).run(check_files="all")
