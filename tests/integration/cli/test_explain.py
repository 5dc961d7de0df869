"""`jobmon ... explain` gives one reason for each situation, as text and as JSON."""

from __future__ import annotations

from tests.integration.cli.conftest import DEFINE, SECONDS_MAX

FAN_IN = (
    DEFINE
    + """
wide = recorded("wide")
tasks = step.create_tasks(command=[f"echo {i}" for i in range(30)])
join = step.create_task(command="echo joined", upstream_tasks=tasks)
wide.add_tasks([*tasks, join])
wide.bind()
print(join.task_id)
"""
)


def kinds(found):
    return [reason["kind"] for reason in found["reasons"]]


def test_what_stands_behind_a_failed_task_never_runs(session):
    found = session.json("task", "explain", session.tasks["last"])
    assert kinds(found)[0] == "upstream failed"
    assert [task["name"] for task in found["unmet"]] == ["after_bad"]
    assert [task["name"] for task in found["fatal"]] == ["work_bad_11"]
    text = session.invoke("task", "explain", session.tasks["last"])
    assert f"work_bad_11 (task {session.tasks['work_bad_11']}, ERROR_FATAL)" in text
    assert f"jobmon workflow resume {session.workflows['failed']}" in text


def test_an_ended_task_says_how_it_ended(session):
    assert "It is done." in session.invoke("task", "explain", session.tasks["fine_0"])
    text = session.invoke("task", "explain", session.tasks["killed"])
    assert "It failed permanently: 1 of 1 attempts are used. Cause of the last failure: signal." in text


def test_nobody_runs_a_workflow_that_was_only_recorded(session):
    assert kinds(session.json("task", "explain", session.tasks["first"])) == ["no active run"]
    assert kinds(session.json("task", "explain", session.tasks["second"])) == ["no active run", "waiting for upstream"]
    text = session.invoke("workflow", "explain", "-w", session.workflows["resting"])
    assert f"jobmon workflow resume {session.workflows['resting']}" in text


def test_limits_and_upstreams_under_way(session):
    assert kinds(session.json("task", "explain", session.tasks["runs"])) == ["running"]
    assert kinds(session.json("task", "explain", session.tasks["limited"])) == ["workflow limit"]
    assert kinds(session.json("task", "explain", session.tasks["waits"])) == ["waiting for upstream"]
    text = session.invoke("task", "explain", session.tasks["limited"])
    assert "1 task of the workflow is queued or running; the limit is 1." in text
    assert "0 of 1 attempt used." in text
    assert kinds(session.json("workflow", "explain", "-w", session.workflows["busy"]))[:2] == [
        "workflow limit",
        "running",
    ]


def test_whole_workflows(session):
    assert kinds(session.json("workflow", "explain", "-w", session.workflows["fine"])) == ["done"]
    found = session.json("workflow", "explain", "-w", session.workflows["failed"])
    assert found["blocked"] == 2
    text = session.invoke("workflow", "explain", "-w", session.workflows["failed"])
    assert "13 tasks failed permanently; 2 downstream tasks can run only after a fix and a resume." in text


def test_dependencies(session):
    found = session.json("task", "dependencies", "-t", session.tasks["after_bad"])
    assert [task["name"] for task in found["upstream"]] == ["work_bad_11"]
    assert [task["name"] for task in found["downstream"]] == ["last"]
    assert (found["upstream_counts"], found["downstream_counts"]) == ({"F": 1}, {"G": 1})
    text = session.invoke("task", "dependencies", "-t", session.tasks["last"])
    assert "1 upstream task (1 REGISTERING):" in text
    assert "No downstream tasks." in text


def test_dependencies_that_are_not_shown_are_counted(session):
    number = session.python(FAN_IN).communicate(timeout=SECONDS_MAX)[0].split()[-1]
    assert len(session.json("task", "dependencies", number)["upstream"]) == 30
    assert len(session.json("task", "dependencies", number, "-l", 3)["upstream"]) == 3
    for options in (["-l", 3], ["-l", 3, "-o", "json"]):
        assert "3 of 30 upstream tasks shown; use -l 0 for up to 10,000." in session.both(
            "task", "dependencies", number, *options
        )
    assert "25 of 30 upstream tasks shown" in session.both("task", "dependencies", number)
    assert "shown" not in session.both("task", "dependencies", number, "-l", 0)


def test_unknown_ids(session):
    assert "There is no task 999" in session.invoke("task", "explain", 999, code=2)
    assert "There is no task 999" in session.invoke("task", "dependencies", "-t", 999, code=2)
    assert "There is no workflow 999" in session.invoke("workflow", "explain", "-w", 999, code=2)
