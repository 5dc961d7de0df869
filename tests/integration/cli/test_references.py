"""Refer to workflows and tasks by ID or name everywhere; lists report what they omit."""

from __future__ import annotations

import csv
import io
import json

import pytest


@pytest.mark.parametrize(
    "command", ["status", "tasks", "errors", "explain", "logs", "history", "efficiency", "resources yaml"]
)
def test_a_workflow_is_named_in_either_way(session, command):
    number = session.workflows["failed"]
    words = ["workflow", *command.split()]
    assert session.both(*words, number) == session.both(*words, "-w", number)
    assert (
        "takes one" in session.invoke(*words, number, "-w", number, code=2)
        or "name one workflow" in session.invoke(*words, number, "-w", number, code=2).lower()
    )


@pytest.mark.parametrize("command", ["status", "explain", "logs", "dependencies"])
def test_a_task_is_named_in_three_ways(session, command):
    number, workflow = session.tasks["work_bad_3"], session.workflows["failed"]
    said = session.both("task", command, number)
    assert session.both("task", command, "-t", number) == said
    assert session.both("task", command, "work_bad_3", "-w", workflow) == said


def test_a_name_that_is_wrong_or_ambiguous_is_refused(session):
    failed = session.workflows["failed"]
    assert "did you mean task" in session.invoke("task", "status", "bad_11", "-w", failed, code=2)
    assert f"jobmon workflow tasks {failed}" in session.invoke("task", "status", "nobody", "-w", failed, code=2)
    assert "Name the task: jobmon task status ID" in session.invoke("task", "status", code=2).replace(
        "main ", "jobmon "
    )


def test_a_template_is_named_by_its_name(session):
    failed = session.workflows["failed"]
    found = session.json("workflow", "resources", "usage", "work", "-w", failed)
    assert found["num_tasks"] == 12
    assert "did you mean 'work'?" in session.invoke("workflow", "resources", "usage", "wrk", "-w", failed, code=2)


def test_a_list_says_what_it_leaves_out_and_json_leaves_out_nothing(session):
    failed = session.workflows["failed"]
    assert "25 of 27 tasks shown; use -l 0 for all." in session.both("workflow", "tasks", failed)
    assert "shown" not in session.both("workflow", "tasks", failed, "-l", 0)
    assert "shown" not in session.both("workflow", "tasks", failed, "-s", "DONE")
    assert len(session.json("workflow", "tasks", failed)) == 27
    assert len(session.json("workflow", "tasks", failed, "-l", 3)) == 3
    assert "1 of" in session.both("workflow", "status", "--all-users", "-l", 1)


def test_rows_are_csv(session):
    text = session.invoke("workflow", "tasks", session.workflows["failed"], "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 27
    assert {row["status_name"] for row in rows} == {"DONE", "ERROR_FATAL", "REGISTERING"}
    assert json.loads(next(row for row in rows if row["name"] == "work_bad_3")["node_args"]) == {
        "number": "3",
        "region": "bad",
    }
    workflows = list(csv.DictReader(io.StringIO(session.invoke("workflow", "status", "-o", "csv"))))
    assert {"workflow_id", "name", "workflow_args", "status_name"} <= workflows[0].keys()
    attempts = session.invoke("task", "status", session.tasks["work_bad_3"], "-o", "csv")
    assert [row["status_name"] for row in csv.DictReader(io.StringIO(attempts))] == ["ERROR"]


def test_arguments_are_columns(session):
    table = session.invoke("workflow", "tasks", session.workflows["failed"], "--template", "work")
    assert table.split()[:7] == ["ID", "TEMPLATE", "number", "region", "STATUS", "ATTEMPTS", "SINCE"]


def test_workflows_are_filtered_by_name_args_and_status(session):
    def names(*options):
        return {one["name"] for one in session.json("workflow", "status", *options)}

    assert names("--name", "fail*") == {"failed"}
    assert names("--args", "rest*") == {"resting"}
    assert names("-s", "FAILED") == names("-s", "F") == {"failed"}
    assert names("-s", "stopped") == set()
    assert "No workflows of" in session.invoke("workflow", "status", "--name", "none")
    assert "there is no status 'DON'; did you mean DONE?" in session.invoke("workflow", "status", "-s", "DON", code=2)


def test_json_names_every_status(session):
    (workflow,) = session.json("workflow", "status", session.workflows["failed"])
    assert (workflow["status"], workflow["status_name"]) == ("F", "FAILED")
    (detail,) = session.json("task", "status", session.tasks["killed"])
    assert (detail["task"]["status_name"], detail["attempts"][0]["status_name"]) == ("ERROR_FATAL", "ERROR")


def test_names_that_scripts_use_are_accepted_and_not_shown(session):
    busy = session.workflows["busy"]
    session.invoke("workflow", "concurrency", "-w", busy, "--max-tasks", 1, "-y")
    shown = session.invoke("workflow", "resume", "--help")
    assert "-t," not in shown
    assert "--timeout" in shown
