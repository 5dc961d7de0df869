"""Why does it not run: each situation one answer, in words and in JSON."""

from __future__ import annotations


def kinds(found):
    return [reason["kind"] for reason in found["reasons"]]


def test_what_stands_behind_a_failed_task_never_runs(session):
    found = session.json("task", "explain", session.tasks["last"])
    assert kinds(found)[0] == "upstream failed"
    assert [task["name"] for task in found["unmet"]] == ["after_bad"]
    assert [task["name"] for task in found["fatal"]] == ["work_bad_11"]
    text = session.invoke("task", "explain", session.tasks["last"])
    assert f"work_bad_11 (task {session.tasks['work_bad_11']}, ERROR_FATAL)" in text
    assert f"jobmon workflow resume -w {session.workflows['failed']} -c multiprocess" in text


def test_an_ended_task_says_how_it_ended(session):
    assert "It is done." in session.invoke("task", "explain", session.tasks["fine_0"])
    text = session.invoke("task", "explain", session.tasks["killed"])
    assert "It failed for good: 1 of 1 attempts are used. The last one ended by signal." in text


def test_nobody_runs_a_workflow_that_was_only_recorded(session):
    assert kinds(session.json("task", "explain", session.tasks["first"])) == ["no active run"]
    assert kinds(session.json("task", "explain", session.tasks["second"])) == ["no active run", "waiting for upstream"]
    text = session.invoke("workflow", "explain", "-w", session.workflows["resting"])
    assert f"jobmon workflow resume -w {session.workflows['resting']} -c CLUSTER" in text


def test_limits_and_upstreams_under_way(session):
    assert kinds(session.json("task", "explain", session.tasks["runs"])) == ["running"]
    assert kinds(session.json("task", "explain", session.tasks["limited"])) == ["workflow limit"]
    assert kinds(session.json("task", "explain", session.tasks["waits"])) == ["waiting for upstream"]
    text = session.invoke("task", "explain", session.tasks["limited"])
    assert "1 task of the workflow is queued or running, and 1 may be." in text
    assert "0 of 1 attempts are used." in text
    assert kinds(session.json("workflow", "explain", "-w", session.workflows["busy"]))[:2] == [
        "workflow limit",
        "running",
    ]


def test_whole_workflows(session):
    assert kinds(session.json("workflow", "explain", "-w", session.workflows["fine"])) == ["done"]
    found = session.json("workflow", "explain", "-w", session.workflows["failed"])
    assert found["blocked"] == 2
    text = session.invoke("workflow", "explain", "-w", session.workflows["failed"])
    assert "13 tasks failed for good; 2 behind them will never run." in text


def test_dependencies(session):
    found = session.json("task", "dependencies", "-t", session.tasks["after_bad"])
    assert [task["name"] for task in found["upstream"]] == ["work_bad_11"]
    assert [task["name"] for task in found["downstream"]] == ["last"]
    assert (found["upstream_counts"], found["downstream_counts"]) == ({"F": 1}, {"G": 1})
    text = session.invoke("task", "dependencies", "-t", session.tasks["last"])
    assert "1 task before it (1 REGISTERING):" in text
    assert "Nothing is after it." in text


def test_unknown_ids(session):
    assert "There is no task 999" in session.invoke("task", "explain", 999, code=2)
    assert "There is no task 999" in session.invoke("task", "dependencies", "-t", 999, code=2)
    assert "There is no workflow 999" in session.invoke("workflow", "explain", "-w", 999, code=2)
