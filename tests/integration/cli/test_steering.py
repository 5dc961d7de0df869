"""Limits, resets and updates by hand: what they change, what they refuse, and the trail they leave."""

from __future__ import annotations

NO_LIMIT = 2_147_483_647


def test_limit_is_changed_shown_and_remembered(session):
    resting = session.workflows["resting"]
    assert session.json("workflow", "concurrency", "-w", resting, "-m", 0, "--yes")["now"] == 0
    text = session.invoke("workflow", "concurrency", "-w", resting, "-m", 7, "--template", "step", "-y")
    assert text == f"Workflow {resting}, template step: at most 7 at once. What was handed out already goes on.\n"
    shown = session.both("workflow", "concurrency", "-w", resting, "-m", NO_LIMIT)
    assert f"Workflow {resting}: paused now, no limit from here on." in shown
    trail = session.json("workflow", "history", "-w", resting)
    assert [entry["details"].get("max_concurrently_running") for entry in trail][:3] == [NO_LIMIT, 7, 0]
    assert {entry["actor"] for entry in trail} == {"user"}
    assert all(entry["user"] and entry["at"] for entry in trail)
    assert "max concurrently running 7" in session.invoke("workflow", "history", "-w", resting)
    session.invoke("workflow", "concurrency", "-w", resting, "-m", NO_LIMIT, "--template", "step")


def test_wrong_limits_are_refused(session):
    assert "There is no workflow 999" in session.invoke("workflow", "concurrency", "-w", 999, "-m", 1, code=2)
    refused = session.invoke("workflow", "concurrency", "-w", 1, "-m", 1, "--template", "no/such name", code=2)
    assert "no/such name" in refused
    session.invoke("workflow", "concurrency", "-w", 1, "-m", -1, code=2)


def test_update_spreads_resets_and_finishes_a_workflow(session):
    number, third = session.workflows["resting"], session.tasks["third"]

    def statuses() -> str:
        return "".join(task["status"] for task in session.json("workflow", "tasks", "-w", number))

    def workflow_status() -> str:
        return session.json("workflow", "status", "-w", number)[0]["status"]

    assert session.json("task", "update", "-t", third, "-w", number, "-s", "done")["changed"] == 1
    assert statuses() == "GGD"
    shown = session.both("task", "update", "-t", third, "-w", number, "-s", "D", "-r")
    assert f"Workflow {number}: 2 tasks (2 REGISTERING) become DONE." in shown
    assert (statuses(), workflow_status()) == ("DDD", "D")
    shown = session.both("task", "update", "-t", session.tasks["second"], third, "-w", number, "-s", "D")
    assert "Nothing to change: 2 tasks" in shown
    session.invoke("task", "update", "-t", session.tasks["second"], "-w", number, "-s", "g", "-r")
    assert (statuses(), workflow_status()) == ("DGG", "G")
    shown = session.both("workflow", "reset", "-w", number)
    assert "The work of 1 done tasks counts no more." in shown
    assert "is reset: 3 REGISTERING." in shown
    assert statuses() == "GGG"
    actions = {entry["action"]: entry for entry in session.json("workflow", "history", "-w", number)}
    assert actions["reset tasks"]["details"]["keep_done"] is False
    assert actions["task update"]["user"]


def test_partial_reset_keeps_what_is_done(session):
    number = session.workflows["resting"]
    session.invoke("task", "update", "-t", session.tasks["first"], "-w", number, "-s", "D")
    assert session.json("workflow", "reset", "-w", number, "-p", "-y")["counts"] == {"D": 1, "G": 2}
    assert session.json("workflow", "reset", "-w", number, "-y")["counts"] == {"G": 3}


def test_what_runs_is_left_alone(session):
    number = session.workflows["busy"]
    refused = session.invoke("task", "update", "-t", session.tasks["waits"], "-w", number, "-s", "D", code=2)
    assert "is being run by process" in refused
    forced = session.invoke("task", "update", "-t", session.tasks["runs"], "-w", number, "-s", "D", "-f", code=2)
    assert "end it first" in forced
    assert "is under way" in session.invoke("workflow", "reset", "-w", number, "-y", code=1)


def test_wrong_updates_are_refused_by_name(session):
    number = session.workflows["resting"]
    task = session.tasks["first"]
    assert "did you mean DONE?" in session.invoke("task", "update", "-t", task, "-w", number, "-s", "DOEN", code=2)
    assert "cannot be set" in session.invoke("task", "update", "-t", task, "-w", number, "-s", "RUNNING", code=2)
    refused = session.invoke("task", "update", "-t", task, "-w", number, "-s", "FOO", code=2)
    assert "there is no status 'FOO'; give D (DONE) or G (REGISTERING)." in refused
    assert "did you mean DONE?" in session.invoke("task", "update", "-t", task, "-w", number, "-s", "DNOE", code=2)
    assert "with id 12345" in session.invoke("task", "update", "-t", 12345, "-w", number, "-s", "D", code=2)
    assert "did you mean RUNNING?" in session.invoke("workflow", "tasks", "-w", number, "-s", "runing", code=2)
