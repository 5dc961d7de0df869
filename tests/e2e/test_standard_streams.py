"""Closed, full or broken standard streams, or a lost terminal, neither stop nor fail a run."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from dataclasses import replace

import pytest

SCRIPT = """
import signal, sys
from jobmon.client.api import Tool

signal.signal(signal.SIGHUP, signal.SIG_IGN)
if sys.argv[1] == "close":
    sys.stderr.close()
tool = Tool(name="streams")
step = tool.get_task_template("step", command_template="sleep 0.3; exit {code}", node_args=["code"])
workflow = tool.create_workflow(name="streams")
workflow.add_tasks(step.create_tasks(code=[0, 1], max_attempts=1))
try:
    status = workflow.run(seconds_until_timeout=80)
except BaseException as error:
    status = repr(error)
with open("status", "w") as file:
    file.write(status)
"""
#: How the script is started by a shell.
STARTS = {
    "no standard input": "0<&-",
    "no standard output": "1>&-",
    "no standard error": "2>&-",
    "no input and output": "0<&- 1>&-",
    "no output and error": "1>&- 2>&-",
    "none at all": "0<&- 1>&- 2>&-",
    "a full device": "2> /dev/full",
}


@pytest.fixture
def home(shared_home, tmp_path):
    """All runs of this module use one server."""
    return replace(shared_home, folder=tmp_path)


def _command(home, argument="leave"):
    return [sys.executable, str(home.script(SCRIPT)), argument]


def _check(home, code):
    assert (home.folder / "status").read_text() == "E"
    assert code == 0


@pytest.mark.parametrize("how", STARTS)
def test_a_run_needs_no_standard_streams(home, how):
    words = ["sh", "-c", f'exec "$@" {STARTS[how]}', "sh", *_command(home)]
    ended = subprocess.run(words, cwd=home.folder, env=home.environment, capture_output=True, timeout=90, check=False)
    _check(home, ended.returncode)


def test_a_script_may_close_standard_error(home):
    words = _command(home, "close")
    ended = subprocess.run(words, cwd=home.folder, env=home.environment, capture_output=True, timeout=90, check=False)
    _check(home, ended.returncode)


def test_nobody_needs_to_read_standard_error(home):
    reader, writer = os.pipe()
    with subprocess.Popen(_command(home), cwd=home.folder, env=home.environment, stderr=writer) as script:
        os.close(writer)
        os.close(reader)
        _check(home, script.wait(90))


@pytest.mark.parametrize("shown", [b"", b"queued", b"1 done"])
def test_a_terminal_may_go_away(home, shown):
    """Once it has shown this."""
    ours, theirs = pty.openpty()
    environment = {**home.environment, "TERM": "xterm"}
    with subprocess.Popen(
        _command(home), cwd=home.folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as script:
        os.close(theirs)
        _read_until(ours, shown)
        os.close(ours)
        _check(home, script.wait(90))


def _read_until(terminal, wanted):
    seen = b""
    deadline = time.monotonic() + 60
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65536)
