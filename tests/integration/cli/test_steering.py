"""Change limits, reset tasks and update statuses: effects, rejections, and the audit trail."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import click
import pytest

from jobmon.cli.main import main

#: Calls of the commands that ask: W workflow, T task. `db purge` and `db upgrade` are in `test_db.py`.
ASKING = (
    "cluster add multiprocess --queue all.q",
    "cluster remove multiprocess",
    "task edit T --command x",
    "task hold T",
    "task priority T -p 5",
    "task release T",
    "task rerun T",
    "task skip T",
    "task update T -s DONE",
    "workflow concurrency W -m 3",
    "workflow hold W -t step",
    "workflow priority W -p 5",
    "workflow release W -t step",
    "workflow reset W",
    "workflow stop W",
    "workflow versions W --drop",
)
NO_LIMIT = 2_147_483_647


def test_limit_is_changed_shown_and_remembered(session):
    resting = session.workflows["resting"]
    assert session.json("workflow", "concurrency", "-w", resting, "-m", 0, "--yes")["now"] == 0
    text = session.invoke("workflow", "concurrency", "-w", resting, "-m", 7, "--template", "step", "-y")
    assert text == f"Workflow {resting}, template step: at most 7 at once. Queued and running tasks continue.\n"
    shown = session.both("workflow", "concurrency", "-w", resting, "-m", NO_LIMIT, "-y")
    assert f"Workflow {resting}: paused now, no limit afterwards." in shown
    trail = [one for one in session.json("workflow", "history", "-w", resting) if one["action"] == "concurrency"]
    assert [entry["details"].get("max_concurrently_running") for entry in trail] == [NO_LIMIT, 7, 0]
    assert {entry["actor"] for entry in trail} == {"user"}
    assert all(entry["user"] and entry["at"] for entry in trail)
    assert "max concurrently running 7" in session.invoke("workflow", "history", "-w", resting)
    session.invoke("workflow", "concurrency", "-w", resting, "-m", NO_LIMIT, "--template", "step", "-y")


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

    assert session.json("task", "update", "-t", third, "-w", number, "-s", "done", "-y")["changed"] == 1
    assert statuses() == "GGD"
    shown = session.both("task", "update", "-t", third, "-w", number, "-s", "D", "-r", "-y")
    assert f"Workflow {number}: 2 tasks (2 REGISTERING) will be DONE." in shown
    assert (statuses(), workflow_status()) == ("DDD", "D")
    shown = session.both("task", "update", "-t", session.tasks["second"], third, "-w", number, "-s", "D")
    assert "Nothing to change: 2 tasks" in shown
    session.invoke("task", "update", "-t", session.tasks["second"], "-w", number, "-s", "g", "-r", "-y")
    assert (statuses(), workflow_status()) == ("DGG", "G")
    shown = session.both("workflow", "reset", "-w", number, "-y")
    assert "all tasks will be rerun, 1 done task included." in shown
    assert "was reset: 3 REGISTERING." in shown
    assert statuses() == "GGG"
    actions = {entry["action"]: entry for entry in session.json("workflow", "history", "-w", number)}
    assert actions["reset tasks"]["details"]["keep_done"] is False
    assert actions["task update"]["user"]


def test_partial_reset_keeps_what_is_done(session):
    number = session.workflows["resting"]
    session.invoke("task", "update", "-t", session.tasks["first"], "-w", number, "-s", "D", "-y")
    assert session.json("workflow", "reset", "-w", number, "-p", "-y")["counts"] == {"D": 1, "G": 2}
    assert session.json("workflow", "reset", "-w", number, "-y")["counts"] == {"G": 3}


def test_what_runs_is_left_alone(session):
    number = session.workflows["busy"]
    refused = session.invoke("task", "update", "-t", session.tasks["waits"], "-w", number, "-s", "D", "-y", code=2)
    assert "is being run by process" in refused
    forced = session.invoke("task", "update", "-t", session.tasks["runs"], "-w", number, "-s", "D", "-f", "-y", code=2)
    assert "stop it first" in forced
    assert "is active: process" in session.invoke("workflow", "reset", "-w", number, "-y", code=1)


def test_wrong_updates_are_refused_by_name(session):
    number = session.workflows["resting"]
    task = session.tasks["first"]
    assert "did you mean DONE?" in session.invoke("task", "update", "-t", task, "-w", number, "-s", "DOEN", code=2)
    assert "cannot be set" in session.invoke("task", "update", "-t", task, "-w", number, "-s", "RUNNING", code=2)
    refused = session.invoke("task", "update", "-t", task, "-w", number, "-s", "FOO", code=2)
    assert "there is no status 'FOO'; use D (DONE) or G (REGISTERING)." in refused
    assert "did you mean DONE?" in session.invoke("task", "update", "-t", task, "-w", number, "-s", "DNOE", code=2)
    assert "with id 12345" in session.invoke("task", "update", "-t", 12345, "-w", number, "-s", "D", code=2)
    assert "did you mean RUNNING?" in session.invoke("workflow", "tasks", "-w", number, "-s", "runing", code=2)


def test_tasks_are_held_and_released(session):
    busy, limited = session.workflows["busy"], session.tasks["limited"]
    shown = session.both("task", "hold", limited, "-y")
    assert f"Workflow {busy}: 1 task will be held." in shown
    assert f"Held: 1 task of workflow {busy}." in shown
    assert session.json("task", "explain", limited)["reasons"][0]["kind"] == "held"
    assert "1 task is held. To release: jobmon task release ID" in session.invoke("workflow", "explain", "-w", busy)
    assert session.json("workflow", "hold", "-w", busy, "-t", "step", "-y") == {
        "workflow_id": busy,
        "changed": 2,
        "recalled": 0,
        "finished": [],
    }
    assert f"Released: 3 tasks of workflow {busy}." in session.both(
        "workflow", "release", "-w", busy, "-t", "step", "-y"
    )
    assert session.json("task", "release", limited, "-y")["changed"] == 0
    assert [entry["action"] for entry in session.json("workflow", "history", "-w", busy)][:3] == [
        "release",
        "hold",
        "hold",
    ]
    for wrong in (("task", "hold", 999_999), ("workflow", "hold", "-w", busy, "-t", "no such")):
        assert "no" in session.invoke(*wrong, "-y", code=2)


def test_tasks_are_rerun_with_everything_downstream(session):
    number = session.workflows["fine"]
    shown = session.both("task", "rerun", session.tasks["fine_0"], "--only", "-y")
    assert f"Workflow {number}: 1 task will be rerun." in shown
    assert f"Will be rerun: 1 task of workflow {number}. To run: jobmon workflow resume {number}" in shown
    assert "Nothing to do: 1 task of workflow" in session.both("task", "rerun", session.tasks["fine_0"])
    again = session.json("task", "rerun", session.tasks["fine_0"])
    assert again == {"workflow_id": number, "changed": 0, "to_kill": 0, "is_running": False}
    session.invoke("task", "update", session.tasks["fine_0"], "-s", "DONE", "-y")
    assert "no" in session.invoke("task", "rerun", 999_999, "-y", code=2)


def test_priorities_are_set_for_tasks_templates_and_the_workflow(session):
    busy, limited = session.workflows["busy"], session.tasks["limited"]
    shown = session.both("task", "priority", limited, "-p", 7, "-y")
    assert f"Workflow {busy}: 1 unfinished task will get priority 7." in shown
    assert f"Priority 7: 1 task of workflow {busy} changed." in shown
    assert "REGISTERING, priority 7, workflow" in session.invoke("task", "status", limited)
    assert "Its priority is 7." in session.invoke("task", "explain", limited)
    assert "PRIORITY" in session.invoke("workflow", "tasks", busy)
    assert {one["task_id"]: one["priority"] for one in session.json("workflow", "tasks", busy)}[limited] == 7
    found = session.json("workflow", "priority", "-w", busy, "-t", "step", "-p", -2, "-y")
    assert "REGISTERING, priority 5, workflow" in session.invoke("task", "status", limited)
    assert (found["workflow_id"], found["changed"] > 1) == (busy, True)
    assert "the workflow will get priority 3" in session.both("workflow", "priority", "-w", busy, "-p", 3, "-y")
    assert "PRIORITY" in session.invoke("workflow", "status", "-w", busy)
    assert session.json("workflow", "status", "-w", busy)[0]["priority"] == 3
    assert "Its priority is 3." in session.invoke("workflow", "explain", "-w", busy)
    actions = [one["details"]["priority"] for one in session.json("workflow", "history", "-w", busy)[:3]]
    assert actions == [3, -2, 7]
    assert "1001 is not in the range" in session.invoke("task", "priority", limited, "-p", 1001, code=2)
    for wrong in (("task", "priority", 999_999), ("workflow", "priority", "-w", busy, "-t", "no such")):
        assert "no" in session.invoke(*wrong, "-p", 1, "-y", code=2)
    of_workflow = ("workflow", "priority", "-w", busy)
    for undo in (("task", "priority", limited), (*of_workflow, "-t", "step"), of_workflow):
        session.invoke(*undo, "-p", 0, "-y")
    assert "PRIORITY" not in session.invoke("workflow", "status", "-w", busy)


def test_tasks_are_edited_and_reset(session):
    number, task = session.workflows["resting"], session.tasks["first"]
    shown = session.both("task", "edit", task, "--command", "echo new", "--set", "cores=2", "--max-attempts", 9, "-y")
    assert f"Workflow {number}: 1 task will be edited (command, cores, maximum number of attempts)." in shown
    assert f"Edited: 1 task of workflow {number}. To run: jobmon workflow resume {number}" in shown
    detail = session.json("task", "status", task)[0]
    assert (detail["task"]["command"], detail["task"]["max_attempts"]) == ("echo new", 9)
    assert "Nothing to do" in session.both("task", "edit", task, "--max-attempts", 9, "-y")
    assert session.json("task", "edit", task, "--reset", "-y")["changed"] == 1
    assert session.json("task", "status", task)[0]["task"]["command"] != "echo new"
    assert [one["action"] for one in session.json("workflow", "history", "-w", number)][:2] == ["edit", "edit"]


def test_the_history_has_a_line_for_each_action(session):
    number, task = session.workflows["resting"], session.tasks["first"]
    before = len(session.invoke("workflow", "history", number, "-l", 0).splitlines())
    session.invoke("task", "edit", task, "--command", "echo a\necho b\n", "-y")
    shown = session.invoke("workflow", "history", number, "-l", 0)
    assert "command echo a␊echo b␊" in shown
    session.invoke("task", "edit", task, "--reset", "-y")
    assert len(session.invoke("workflow", "history", number, "-l", 0).splitlines()) == before + 2


def test_the_history_leaves_out_what_clients_do_on_their_own(session):
    number = session.workflows["resting"]
    usual, every = (
        {entry["action"] for entry in session.json("workflow", "history", number, *more)} for more in ((), ("--all",))
    )
    assert usual < every
    assert "create workflow" in usual
    assert {"define tasks", "finish definition"} <= every - usual


def test_bad_edits_are_refused_by_name(session):
    task, done = session.tasks["first"], session.tasks["fine_0"]
    assert "Specify what to change" in session.invoke("task", "edit", task, code=2)
    assert "or --reset" in session.invoke("task", "edit", task, "--command", "x", "--reset", code=2)
    assert "'memory' is not NAME=VALUE" in session.invoke("task", "edit", task, "--set", "memory", code=2)
    refused = session.invoke("task", "edit", task, "--set", "memroy=2G", "-y", code=2)
    assert "did you mean 'memory'?" in refused
    assert "Nothing was changed" in refused
    assert "no queue 'nowhere'" in session.invoke("task", "edit", task, "--queue", "nowhere", "-y", code=2)
    assert "can hold it" in session.invoke("task", "edit", task, "--set", "cores=100000", "-y", code=2)
    refused = session.invoke("task", "edit", done, "--command", "x", "-y", code=2)
    assert f"Task {done} is done. To run it with this edit: jobmon task rerun {done} --command ..." in refused
    assert "with id 999999" in session.invoke("task", "edit", task, 999_999, "--command", "x", "-y", code=2)


def test_tasks_are_skipped_and_run_after_all(session):
    number, task = session.workflows["resting"], session.tasks["second"]
    shown = session.both("task", "skip", task, "-y")
    assert f"Workflow {number}: 1 task will be skipped." in shown
    assert f"Skipped: 1 task of workflow {number}." in shown
    assert "SKIPPED" in session.invoke("workflow", "status", "-w", number)
    assert [one["task_id"] for one in session.json("workflow", "tasks", "-w", number, "-s", "skipped")] == [task]
    assert session.json("task", "explain", task)["reasons"][0]["kind"] == "skipped"
    assert session.json("task", "skip", task, "-y")["changed"] == 0
    assert session.json("task", "rerun", task, "--only", "-y")["changed"] == 1
    assert "SKIPPED" not in session.invoke("workflow", "status", "-w", number)
    assert "is done" in session.invoke("task", "skip", session.tasks["fine_0"], "-y", code=2)
    assert "queued or running" in session.invoke("task", "skip", session.tasks["runs"], "-y", code=2)


@pytest.mark.parametrize("confirmed", [(), ("-y",)])
@pytest.mark.parametrize(
    "words",
    [
        ("skip", "fine_0"),
        ("edit", "second", "--set", "memory=much"),
        ("edit", "second", "--queue", "nowhere"),
        ("rerun", "second", "--set", "cores=100000"),
    ],
)
def test_what_is_refused_is_not_announced(session, words, confirmed):
    command, name, *options = words
    refused = session.invoke("task", command, session.tasks[name], *options, *confirmed, code=2)
    assert "will be" not in refused
    assert "would be" not in refused


def test_without_a_terminal_it_is_said_what_would_be_done(session):
    refused = session.invoke("task", "skip", session.tasks["second"], code=2)
    assert "1 task would be skipped." in refused


def test_a_task_that_will_run_anyway_is_edited_by_a_rerun(session):
    number, task = session.workflows["resting"], session.tasks["second"]
    shown = session.invoke("task", "rerun", task, "--command", "echo other", "-y", both=True)
    assert f"Workflow {number}: 1 task will be edited (command)." in shown
    assert f"Edited: 1 task of workflow {number}. To run: jobmon workflow resume {number}" in shown
    assert session.json("task", "status", task)[0]["task"]["command"] == "echo other"
    session.invoke("task", "edit", task, "--reset", "-y")


def test_a_limit_of_a_template_that_does_not_exist_names_the_template(session):
    number = session.workflows["resting"]
    refused = session.invoke("workflow", "concurrency", number, "--template", "nowhere", "-m", 1, code=2)
    assert f"There is no template of workflow {number} called 'nowhere'." in refused


def test_the_history_names_statuses(session):
    number, task = session.workflows["resting"], session.tasks["second"]
    session.invoke("task", "skip", task, "-y")
    assert "status SKIPPED" in " ".join(session.invoke("workflow", "history", number).split())
    session.invoke("task", "rerun", task, "--only", "-y")


def test_a_request_that_fits_nowhere_is_one_sentence_after_the_other(session):
    task = session.tasks["second"]
    refused = session.invoke("task", "edit", task, "--set", "cores=100000", "-y", code=2)
    assert "or choose another cluster. Nothing was changed." in refused


def test_a_done_task_is_rerun_with_another_command(session):
    number, task = session.workflows["fine"], session.tasks["fine_0"]
    before = session.json("task", "status", task)[0]["task"]["command"]
    shown = session.invoke("task", "rerun", task, "--command", "echo again", "--only", "-y", both=True)
    assert f"Workflow {number}: 1 task will be rerun. 1 task will be edited (command)." in shown
    assert f"Will be rerun: 1 task of workflow {number}." in shown
    assert session.json("task", "status", task)[0]["task"]["command"] == "echo again"
    session.invoke("task", "edit", task, "--reset", "-y")
    assert session.json("task", "status", task)[0]["task"]["command"] == before
    session.invoke("task", "update", task, "-s", "DONE", "-y")


def test_invalid_edits_are_refused_before_anything_is_asked(session):
    task = session.json("workflow", "tasks", session.workflows["resting"])[0]["task_id"]
    for words in (("task", "edit", task, "--command", " "), ("task", "rerun", task, "--command", "")):
        assert "command must be a non-empty text" in session.invoke(*words, code=2)
    assert "max_attempts must be an integer" in session.invoke("task", "edit", task, "--max-attempts", 99999999, code=2)


def _commands(group, *words):
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from _commands(command, *words, name)
        else:
            yield " ".join((*words, name)), command


def test_every_command_that_asks_is_tried_without_a_terminal():
    asking = {path for path, command in _commands(main) if any(one.name == "yes" for one in command.params)}
    assert {" ".join(line.split()[:2]) for line in ASKING} | {"db purge", "db upgrade"} == asking


@pytest.mark.parametrize("line", ASKING)
def test_without_a_terminal_nothing_changes_unless_it_is_confirmed(session, line):
    workflow, task = session.workflows["resting"], session.tasks["second"]
    if "release" in line or "rerun" in line:  # they ask only if there is something to do
        session.invoke("task", "hold", task, "-y")
        task = session.tasks["fine_1"] if "rerun" in line else task
    before = session.invoke("workflow", "history", workflow)
    words = [{"W": workflow, "T": task}.get(word, word) for word in line.split()]
    refused = session.invoke(*words, code=2, input="y\n")
    assert "Nothing was changed: there is no terminal on which to ask. To confirm: --yes" in refused
    assert session.invoke("workflow", "history", workflow) == before
    session.invoke("task", "release", task, "-y", code=None if "rerun" in line else 0)


@pytest.mark.parametrize(("reply", "code", "is_held"), [("n", 1, False), ("y", 0, True)])
def test_on_a_terminal_the_question_is_asked(session, reply, code, is_held):
    task = session.tasks["third"]
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{reply}\n".encode())
        environment = {name: value for name, value in os.environ.items() if name not in session.environment}
        environment |= {name: value for name, value in session.environment.items() if value is not None}
        words = [sys.executable, "-m", "jobmon", "task", "hold", str(task)]
        done = subprocess.run(words, stdin=theirs, capture_output=True, text=True, env=environment, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "1 task will be held.\nContinue? [y/N]:" in done.stderr
    assert done.returncode == code
    assert (session.json("task", "explain", task)["reasons"][0]["kind"] == "held") is is_held
    session.invoke("task", "release", task, "-y")


def test_it_is_said_why_tasks_do_not_change(session):
    """Finished tasks are refused; what is as wanted already is no error."""
    number, open_, done = session.workflows["failed"], session.tasks["after_bad"], session.tasks["work_good_0"]
    other = session.tasks["work_good_1"]
    for words, can in ((("hold",), "be held"), (("release",), "be released"), (("priority", "-p", 3), "get another")):
        refused = session.invoke("task", *words[:1], done, *words[1:], "-y", code=2)
        assert f"Task {done} is done or skipped; only unfinished tasks can {can}" in refused
        assert "Nothing was changed." in refused
    refused = session.invoke("task", "hold", done, other, "-y", code=2)
    assert f"Tasks {done}, {other} are done or skipped; only" in refused
    shown = session.invoke("task", "hold", done, open_, "-y")
    assert shown == f"Held: 1 task of workflow {number}. Task {done} is done or skipped, and unchanged.\n"
    shown = session.invoke("task", "hold", done, open_)
    assert shown == f"Nothing to do: task {open_} is held already. Task {done} is done or skipped.\n"
    found = session.json("task", "hold", done, open_)
    assert (found["changed"], found["finished"]) == (0, [done])
    session.invoke("task", "release", open_, "-y")
    assert session.invoke("task", "release", open_) == f"Nothing to do: task {open_} is not held.\n"
    assert (
        session.invoke("task", "priority", open_, "-p", 0) == f"Nothing to do: task {open_} has priority 0 already.\n"
    )
    fine = session.workflows["fine"]
    nothing = "Nothing to do: no unfinished task of template 'step' is not held yet.\n"
    assert session.invoke("workflow", "hold", fine, "-t", "step") == nothing
    nothing = f"Nothing to do: no unfinished task of workflow {fine} has another priority than 0.\n"
    assert session.invoke("workflow", "priority", fine, "-p", 0) == nothing
    session.invoke("task", "skip", open_, "-y")
    assert session.invoke("task", "skip", open_) == f"Nothing to do: task {open_} is skipped already.\n"
    session.invoke("task", "update", open_, "-s", "REGISTERING", "-y")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("--command", "x"), "--command ..."),
        (("--set", "memory=1G", "--max-attempts", 2), "--set ... --max-attempts ..."),
        (("--reset",), "--reset"),
    ],
)
def test_the_advice_for_an_edit_of_a_done_task_works(session, words, advice):
    task = session.tasks["fine_0"]
    refused = session.invoke("task", "edit", task, *words, code=2)  # refused before anything is asked
    advised = f"jobmon task rerun {task} {advice}"
    assert f"Task {task} is done. To run it with this edit: {advised}\n" in refused
    shown = session.both("task", "rerun", task, *words, "--only", "-y")
    assert f"Will be rerun: 1 task of workflow {session.workflows['fine']}." in shown
    session.invoke("task", "edit", task, "--reset", "-y")
    session.invoke("task", "update", task, "-s", "DONE", "-y")
