"""Ctrl-C at a terminal, SIGTERM, and the commands that stop and resume from another shell."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys
from jobmon.client.api import Tool

tool = Tool(name="interrupts")
template = tool.get_task_template("wait", command_template="{command}", node_args=["command"])
workflow = tool.create_workflow(name="interrupts", workflow_args="once")
command = "echo x >> ran; echo $$ > pid; touch up; if ! test -e go; then exec sleep 60; fi"
workflow.add_tasks(template.create_tasks(command=[command]))
try:
    status = workflow.run()
finally:
    print("RESULT", workflow.last_result.final_status, type(workflow.last_result.error).__name__, flush=True)
"""
SECONDS_MAX = 30.0
SIGNALS_APART_SECONDS = 0.3
#: One short try, and what a very busy machine adds.
AT_ONCE_SECONDS = 20.0


class Terminal:
    """A script in its own terminal, and the text on it."""

    def __init__(self, home):
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, str(home.script(SCRIPT))],
            cwd=home.folder,
            env={**home.environment, "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read(self) -> str:
        try:
            while chunk := os.read(self._ours, 65536):
                self.text += chunk.decode(errors="replace")
        except (BlockingIOError, OSError):
            pass
        return self.text

    def until(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + SECONDS_MAX
        while self.read().count(text) < times:
            self._check(deadline)
            time.sleep(0.02)

    def _check(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"this did not come; so far: {self.text}")

    def end(self) -> int:
        deadline = time.monotonic() + SECONDS_MAX
        while self.process.poll() is None:
            self.read()
            self._check(deadline)
            time.sleep(0.02)
        self.read()
        os.close(self._ours)
        return self.process.returncode


@pytest.fixture
def up(home, wait_until):
    def wait() -> int:
        wait_until((home.folder / "up").exists)
        return int((home.folder / "pid").read_text())

    return wait


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_ctrl_c_asks_and_stops_only_when_told_so(home, up):
    terminal = Terminal(home)
    pid = up()
    terminal.type("\x03")
    terminal.until("[y/N]")
    terminal.type("n\n")
    terminal.until("Continuing.")
    terminal.type("\x03")
    terminal.until("[y/N]", times=2)
    assert not is_gone(pid)
    terminal.type("y\n")
    assert terminal.end() == 1
    assert "RESULT S DistributorInterruptedError" in terminal.text
    assert is_gone(pid)


def test_a_second_ctrl_c_stops_without_an_answer(home, up):
    terminal = Terminal(home)
    pid = up()
    terminal.type("\x03")
    terminal.until("[y/N]")
    terminal.type("\x03")
    assert terminal.end() == 1
    assert "RESULT S DistributorInterruptedError" in terminal.text
    assert is_gone(pid)


def test_sigterm_stops_without_asking_and_the_workflow_is_resumed_by_its_id(home, up):
    terminal = Terminal(home)
    pid = up()
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 1
    assert "RESULT S DistributorInterruptedError" in terminal.text
    assert is_gone(pid)
    (home.folder / "go").touch()
    resumed = home.jobmon("workflow", "resume", "-w", "1", "-c", "multiprocess")
    assert (resumed.returncode, resumed.stdout) == (
        0,
        "Workflow 1 is DONE: 1 of 1 tasks done (0 before), 0 failed.\n",
    ), resumed.stderr
    again = home.jobmon("workflow", "resume", "-w", "1", "-c", "multiprocess")
    assert (again.returncode, "already complete" in again.stderr) == (1, True)


@pytest.mark.sqlite_only(reason="stops the embedded server")
def test_a_server_that_does_not_answer_holds_nobody_up_who_insists(home, up):
    terminal = Terminal(home)
    up()
    server = json.loads(Path(home.environment["JOBMON_DATA_DIR"], "server.json").read_text())["pid"]
    os.kill(server, signal.SIGSTOP)
    try:
        terminal.process.send_signal(signal.SIGTERM)
        time.sleep(SIGNALS_APART_SECONDS)
        insisted = time.monotonic()
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 1
        assert time.monotonic() - insisted < AT_ONCE_SECONDS
    finally:
        os.kill(server, signal.SIGCONT)
    text = " ".join(terminal.text.split())
    assert (
        "stopped by the user, but this could not be recorded: the server does not respond. Running commands continue"
        in text
    )
    assert "run(resume=True) resumes the workflow" in text
    (home.folder / "go").touch()
    assert home.jobmon("workflow", "resume", "-w", "1", "-c", "multiprocess", "--reset-running").returncode == 0


@pytest.mark.sqlite_only(reason="about the embedded server")
def test_a_run_whose_client_was_killed_is_stopped_and_resumed_from_another_shell(home, up):
    running = home.start(SCRIPT)
    pid = up()
    running.send_signal(signal.SIGKILL)
    running.wait()
    served = home.jobmon("server", "stop")
    assert served.stdout.startswith("Stopped.\nThese processes still use it and will restart it:\n")
    assert re.search(r"^  agent of workflow 1 \(run 1\): process \d+ on \S+$", served.stdout, re.MULTILINE)
    assert "client of workflow" not in served.stdout
    stopped = home.jobmon("workflow", "stop", "-w", "1", "--yes")
    assert (stopped.returncode, stopped.stdout) == (
        0,
        "Workflow 1 is stopped: 0 attempts cancelled before launch, 1 stopped."
        " To resume it: jobmon workflow resume 1\n",
    ), stopped.stderr
    assert is_gone(pid)
    again = home.jobmon("workflow", "stop", "-w", "1", "--yes")
    assert again.stdout == "Workflow 1 was not running.\n"
    (home.folder / "go").touch()
    assert home.jobmon("workflow", "resume", "-w", "1", "-c", "multiprocess").returncode == 0
    assert (home.folder / "ran").read_text() == "x\nx\n"
    for command in ("stop", "resume"):
        options = ("-c", "multiprocess") if command == "resume" else ("--yes",)
        unknown = home.jobmon("workflow", command, "-w", "99", *options)
        assert (unknown.returncode, unknown.stderr) == (2, "Error: There is no workflow 99.\n")


def test_a_drained_stop_lets_the_command_finish_and_the_client_hears_of_it(home, up):
    running = home.start(
        SCRIPT.replace("if ! test -e go; then exec sleep 60; fi", "until test -e go; do sleep 0.1; done")
    )
    up()
    stopped = home.jobmon("workflow", "stop", "-w", "1", "--drain", "--yes")
    assert "Workflow 1 is stopped: 0 attempts cancelled before launch, 1 finishing." in stopped.stdout, stopped.stderr
    (home.folder / "go").touch()
    assert running.wait(SECONDS_MAX) == 0
    (task,) = home.json("workflow", "tasks", "-w", "1")
    assert task["status"] == "D"
