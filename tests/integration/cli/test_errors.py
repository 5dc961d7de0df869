"""`jobmon workflow errors`: groups, concentrations, and the plain list."""

from __future__ import annotations


def test_failures_are_grouped_and_the_guilty_value_is_named(session):
    number = session.workflows["failed"]
    found = session.json("workflow", "errors", "-w", number)
    assert (found["failures"], found["group_count"], found["is_cut"]) == (13, 2, False)
    first, second = found["groups"]
    assert (first["count"], first["template"], first["ending"]) == (12, "work", "exit code 3")
    assert "cannot read <path>: line <n>" in first["message"]
    assert first["task_name"].startswith("work_bad_")
    assert (second["count"], second["ending"]) == (1, "signal 9")
    told = [(one["what"], one["value"], one["failed"], one["count"]) for one in found["concentrations"]]
    assert told == [("region", "bad", 12, 12)]

    text = session.invoke("workflow", "errors", "-w", number)
    assert "13 failed attempts in 2 groups" in text
    assert "12 of 13 failed tasks with region = bad; 12 of 25 tasks have it" in text
    assert f"jobmon task logs {first['task_id']}" in text


def test_the_list_is_kept(session):
    found = session.json("workflow", "errors", "-w", session.workflows["failed"], "--list", "-l", 3)
    assert [error["status"] for error in found] == ["E"] * 3
    text = session.invoke("workflow", "errors", "-w", session.workflows["failed"], "--list")
    assert text.count("cannot read") == 12


def test_no_errors_and_no_workflow(session):
    number = session.workflows["fine"]
    assert session.invoke("workflow", "errors", "-w", number) == f"Workflow {number} has no errors.\n"
    assert session.invoke("workflow", "errors", "--list", "-w", number) == f"Workflow {number} has no errors.\n"
    assert "There is no workflow 999" in session.invoke("workflow", "errors", "-w", 999, code=2)
    assert "There is no workflow 999" in session.invoke("workflow", "errors", "--list", "-w", 999, code=2)
