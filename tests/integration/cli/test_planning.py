"""`jobmon workflow plan`: by script and by ID, as text and JSON; scripts that define no workflow."""

from __future__ import annotations

import json

import pytest

SCRIPT = """
import sys
from jobmon.client.api import Tool

print("preparing", *sys.argv[1:])
tool = Tool("tool")
step = tool.get_task_template("step", command_template="{command}", node_args=["command"])
workflow = tool.create_workflow("planned " + sys.argv[1], name="planned")
first = step.create_tasks(command=["echo 1", "echo 2"])
last = step.create_task(command="echo 3", upstream_tasks=first)
workflow.add_tasks([*first, last])
workflow.run(resume=True)
raise RuntimeError("the script continued")
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "planned.py"
    path.write_text(SCRIPT)
    return path


def test_the_plan_of_a_script(session, script):
    text = session.invoke("workflow", "plan", script, "october", "--verbose")
    assert text.splitlines()[:2] == ["preparing october --verbose", "New workflow 'planned': 3 of 3 tasks would run"]
    assert not session.json("workflow", "status", "-u", "nobody")


def test_single_tasks_with_reasons(session, script):
    text = session.both("workflow", "plan", script, "october", "--tasks", "-l", 2)
    assert "new" in text
    assert "2 of 3 tasks shown; use -l 0 for all." in text
    assert "shown" not in session.both("workflow", "plan", script, "october", "--tasks", "-l", 0)
    assert "1 of 3 tasks shown" in session.both("workflow", "plan", script, "october", "-l", 1, "-o", "json")
    assert session.invoke("workflow", "plan", script, "october", "--template", "step").count("  run  ") == 3
    assert "it has 'step'" in session.invoke("workflow", "plan", script, "october", "--template", "stp", code=2)


def test_the_exit_code_says_whether_something_would_run(session, script):
    session.invoke("workflow", "plan", script, "october", "--exit-code", code=4)
    session.invoke("workflow", "plan", "-w", session.workflows["fine"], "--exit-code")
    session.invoke("workflow", "plan", "-w", session.workflows["failed"], "--exit-code", code=4)


def test_a_resume_by_id_as_json(session):
    plan = session.json("workflow", "plan", "-w", session.workflows["failed"])
    assert plan["workflow_id"] == session.workflows["failed"]
    reasons = {task["name"]: task["reasons"][0] for task in plan["tasks"]}
    assert reasons["killed"] == {"reason": "failed", "detail": "signal 9"}
    assert reasons["last"] == {"reason": "not run yet", "detail": ""}


def test_a_script_as_json(session, script):
    text = session.invoke("workflow", "plan", script, "october", "-o", "json")
    assert json.loads(text[text.index("{") :])["counts"] == {"step": {"run": {"new": 3}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('nothing')", "exited without running a workflow: there is nothing to plan"),
        ("raise ValueError('no such column')", "failed before it ran a workflow; nothing was planned"),
        ("import sys; sys.exit('no input')", "exited with 'no input' before it ran a workflow"),
        ("def wrong(:", "failed before it ran a workflow"),
    ],
)
def test_a_script_that_comes_to_nothing(session, script, text, message):
    script.write_text(text)
    result = session._run(("workflow", "plan", script))
    assert result.exit_code == 1
    assert message in result.output


def test_neither_or_both_are_wrong(session, script):
    for arguments in ((), ("-w", session.workflows["fine"], script)):
        assert "Give either a script or a workflow" in session.invoke("workflow", "plan", *arguments, code=2)
    assert "There is no workflow 999" in session.invoke("workflow", "plan", "-w", 999, code=2)


def test_an_id_in_place_of_a_script_is_explained(session):
    said = session.invoke("workflow", "plan", 5, code=2)
    assert "There is no script 5. To plan a resume of workflow 5: -w 5" in said


def test_a_syntax_error_is_shown_without_the_code_that_runs_the_script(session, script):
    script.write_text("def wrong(:")
    output = session._run(("workflow", "plan", script)).output
    assert "SyntaxError" in output
    assert "runpy" not in output


def test_the_versions_of_a_workflow(session):
    fine = session.workflows["fine"]
    [first] = session.json("workflow", "versions", "-w", fine)
    assert (first["number"], first["state"], first["summary"]) == (1, "applied", [])
    assert "VERSION" in session.invoke("workflow", "versions", fine)
    assert "has 1 version." in session.invoke("workflow", "versions", fine, "--diff", 2, code=2)
    assert "has no version that is waiting" in session.invoke("workflow", "versions", fine, "--drop", "-y", code=2)
