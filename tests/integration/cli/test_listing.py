"""List workflows and tasks with their statuses, and follow their progress."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

JOBMON = str(Path(sys.executable).with_name("jobmon"))


def test_mine_are_shown_newest_first(session):
    numbers = [one["workflow_id"] for one in session.json("workflow", "status")]  # other tests add some
    assert numbers == sorted(numbers, reverse=True)
    mine = [session.workflows[name] for name in ("busy", "resting", "failed", "fine")]
    assert [number for number in numbers if number in mine] == mine
    two = session.json("workflow", "status", "-w", session.workflows["fine"], "-w", session.workflows["failed"])
    assert [one["status"] for one in two] == ["F", "D"]
    assert session.json("workflow", "status", "-u", "nobody-of-this-name") == []
    assert len(session.json("workflow", "status", "--all-users", "-l", 3)) == 3
    text = session.invoke("workflow", "status", "-u", "nobody-of-this-name")
    assert text == "No workflows of nobody-of-this-name (--all-users shows all).\n"


def test_states_by_group_name_and_letter(session):
    number = session.workflows["failed"]

    def count(*words):
        options = [part for word in words for part in ("-s", word)]
        return len(session.json("workflow", "tasks", "-w", number, "-l", 100, *options))

    assert (count("DONE"), count("d"), count("fatal"), count("F"), count("ERROR_FATAL")) == (12, 12, 13, 13, 13)
    assert (count("PENDING"), count("registering"), count("D", "F"), count()) == (2, 2, 25, 27)
    ids = [part for name in ("work_good_0", "work_bad_0", "killed") for part in ("-t", session.tasks[name])]
    assert len(session.json("task", "status", *ids, "-s", "FATAL")) == 2
    assert len(session.json("task", "status", *ids, "-s", "FATAL", "-l", 1)) == 1


def test_watching_what_has_ended_ends(session):
    assert "fine" in session.invoke("workflow", "status", "-w", session.workflows["fine"], "--watch")
    session.invoke("workflow", "status", "--watch", "-o", "json", code=2)


def test_narrow_terminals_and_early_ends_of_pipes(session):
    text = session.invoke("workflow", "status", env={"COLUMNS": "40"})
    assert max(map(len, text.splitlines())) <= 40
    assert "\x1b" not in text
    environment = {**os.environ, **{name: value for name, value in session.environment.items() if value is not None}}
    for command in ("tasks -l 100", "errors", "logs -l 100", "tasks -l 100 -o json"):
        words = f"{JOBMON} workflow {command} -w {session.workflows['failed']} | true"
        finished = subprocess.run(["sh", "-c", words], env=environment, capture_output=True, text=True, check=False)
        assert finished.stderr == ""


def test_a_shell_completes_the_ids_of_workflows(session):
    given = {name: value for name, value in session.environment.items() if value is not None}
    words = {"_JOBMON_COMPLETE": "bash_complete", "COMP_WORDS": "jobmon workflow explain -w ", "COMP_CWORD": "4"}
    finished = subprocess.run(
        [JOBMON], env={**os.environ, **given, **words}, capture_output=True, text=True, check=True
    )
    assert f"plain,{session.workflows['fine']}" in finished.stdout.split()


def test_explain_takes_the_id_either_way(session):
    number = session.workflows["failed"]
    assert session.invoke("workflow", "explain", number) == session.invoke("workflow", "explain", "-w", number)
    session.invoke("workflow", "explain", number, "-w", number, code=2)
