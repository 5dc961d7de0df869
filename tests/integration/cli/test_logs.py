"""`jobmon task logs` reads the output file, the recorded end of the output, and running commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

JOBMON = str(Path(sys.executable).with_name("jobmon"))


def test_the_file_is_printed_and_named(session):
    shown = session.both("task", "logs", session.tasks["fine_0"])
    assert "fine 0\n" in shown
    assert " (7 B):" in shown
    assert session.invoke("task", "logs", session.tasks["fine_0"]) == "fine 0\n"


def test_without_its_file_the_kept_end_is_printed(session):
    (found,) = session.json("workflow", "logs", "-w", session.workflows["fine"], "-j", "fine_1")
    Path(found["stdout"]).unlink()
    shown = session.both("task", "logs", session.tasks["fine_1"])
    assert "cannot be read here; the server kept the end of the output:" in shown
    assert shown.endswith("fine 1\n")


def test_what_never_ran_has_no_output(session):
    text = session.invoke("task", "logs", session.tasks["first"], code=1)
    assert f"has no attempt yet. See why: jobmon task explain {session.tasks['first']}" in text
    assert "has no attempt 7; it has 1 attempt so far" in session.invoke(
        "task", "logs", session.tasks["fine_0"], "-n", 7, code=2
    )


def test_a_large_file_is_printed_from_its_end(session):
    (found,) = session.json("workflow", "logs", "-w", session.workflows["failed"], "-j", "work_bad_0")
    path = Path(found["stdout"])
    before = path.read_bytes()
    path.write_bytes(b"x" * 20_000 + b"\nend\n")
    assert len(session.invoke("task", "logs", session.tasks["work_bad_0"])) == 10 * 1024
    assert len(session.invoke("task", "logs", session.tasks["work_bad_0"], "--all")) == 20_005
    path.write_bytes(before)


def test_where_output_is(session):
    number = session.workflows["failed"]
    assert len(session.json("workflow", "logs", "-w", number, "-l", 100)) == 25
    assert {one["name"] for one in session.json("workflow", "logs", "-w", number, "-a", "step")} == {"killed"}
    assert len(session.json("workflow", "logs", "-w", number, "-j", "work_bad_*", "-l", 100)) == 12
    assert session.json("workflow", "logs", "-w", number, "-j", "work_bad%") == []
    assert ".log" in session.invoke("workflow", "logs", "-w", number, "-l", 1)
    assert "1 of 25 tasks shown; use -l 0 for up to 10,000." in session.both("workflow", "logs", number, "-l", 1)
    assert "1 of 25 tasks shown" in session.both("workflow", "logs", number, "-l", 1, "-o", "json")
    assert "shown" not in session.both("workflow", "logs", number, "-o", "json")
    assert "None of these tasks has an attempt yet" in session.invoke("workflow", "logs", "-w", number, "-j", "nope")


def test_following_a_running_task_until_it_is_told_to_stop(session):
    command = [JOBMON, "task", "logs", str(session.tasks["runs"]), "-f"]
    environment = {**os.environ, **{name: value for name, value in session.environment.items() if value is not None}}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "Traceback" not in process.stderr.read()
