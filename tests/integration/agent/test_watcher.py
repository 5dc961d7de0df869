"""Real watchers and processes: what is restarted, what is not, and what the starter receives."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid

import pytest

from jobmon.agent import watcher

pytestmark = pytest.mark.timeout(60)
SECONDS_MAX = 30.0
#: What each process of a test begins with: it notes that it started, with what it knows about its watcher.
BEGIN = """
import json, os, signal, time
about = json.loads(os.environ["JOBMON_WATCHER"])
def report(**values):
    os.write(about["report"], json.dumps(values).encode() + b"\\n")
with open("started", "a") as file:
    file.write(json.dumps(about | {"own": os.getpid(), "session": os.getsid(0)}) + "\\n")
starts = sum(1 for _ in open("started"))
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)\n"


class Watched:
    """A watcher with its process, in a folder of its own."""

    def __init__(self, folder, code):
        self.folder = folder
        self.log = folder / "log"
        give_up = [sys.executable, "-I", "-S", "-c", "import sys; open('given_up', 'a').write(repr(sys.argv[1:]))"]
        setup = {
            "command": [sys.executable, "-I", "-S", "-c", BEGIN + code],
            "give_up": give_up,
            "log": str(self.log),
            "token": str(uuid.uuid4()),
            "restart_pause_seconds": 0.01,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", watcher.__file__],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.process.stdin.write(json.dumps(setup).encode())
        self.process.stdin.close()

    def told(self):
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS_MAX)
        assert ready, "the watcher tells nothing"
        return json.loads(self.process.stdout.readline())

    def end(self):
        code = self.process.wait(SECONDS_MAX)
        self.process.stdout.close()
        return code

    @property
    def starts(self):
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.folder / "started").read_text().splitlines()]
        return []

    def until_started(self, times=1):
        deadline = time.monotonic() + SECONDS_MAX
        while len(self.starts) < times:
            assert time.monotonic() < deadline, f"it did not start {times} times: {self.log.read_text()}"
            time.sleep(0.01)
        return self.starts[-1]


@pytest.fixture
def watch(tmp_path):
    made = []

    def start(code):
        made.append(Watched(tmp_path, code))
        return made[-1]

    yield start
    for one in made:
        pids = [one.process.pid, *(each["own"] for each in one.starts)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.process.wait()
        one.process.stdout.close()


def test_a_process_that_exits_is_not_restarted(watch):
    watched = watch("raise SystemExit(3)")
    assert watched.told() == {"exit": 3}
    assert watched.end() == 3
    (only,) = watched.starts
    assert (only["is_restart"], only["pid"]) == (False, watched.process.pid)
    assert only["session"] == only["own"]
    assert "exited with code 3" in watched.log.read_text()


def test_a_killed_process_is_restarted_and_knows_what_its_predecessor_led(watch):
    watched = watch(
        "if starts == 1:\n"
        "    report(workflow=5, run=7, log='elsewhere')\n"
        "    report(workflow=6, run=8, log='elsewhere')\n"
        f"    {KILL}"
    )
    assert watched.told() == {"workflow": 5, "run": 7, "log": "elsewhere"}
    assert watched.end() == 0
    first, second = watched.starts
    assert (second["is_restart"], second["runs"], second["log"]) == (True, {"5": 7, "6": 8}, "elsewhere")
    assert second["token"] == first["token"]
    assert "killed by signal 9; restarting it (1 of 3 without progress)" in watched.log.read_text()
    assert not (watched.folder / "given_up").exists()


def test_a_process_that_is_killed_again_and_again_is_given_up(watch):
    watched = watch(f"report(workflow=5, run=starts, log='log')\n{KILL}")
    assert watched.end() == watcher.EXIT_GIVEN_UP
    assert len(watched.starts) == 1 + watcher.RESTARTS_MAX
    assert (watched.folder / "given_up").read_text() == "['5:4']"
    assert "3 restarts in a row made no progress" in watched.log.read_text()


def test_progress_resets_the_count_of_restarts(watch):
    watched = watch(f"if starts <= {watcher.RESTARTS_MAX + 2}:\n    report()\n    {KILL}")
    assert watched.told() == {"exit": 0}
    assert len(watched.starts) == watcher.RESTARTS_MAX + 3


def test_a_process_that_led_nothing_is_given_up_silently(watch):
    watched = watch(KILL)
    assert watched.told() == {"exit": -signal.SIGKILL}
    watched.end()
    assert not (watched.folder / "given_up").exists()


def test_child_processes_that_outlive_the_process_do_not_delay_its_end(watch):
    watched = watch("if os.fork() == 0:\n    os.close(1); os.close(2)\n    time.sleep(5)\n    os._exit(0)\n")
    began = time.monotonic()
    assert watched.told() == {"exit": 0}
    assert time.monotonic() - began < 4


def test_neither_a_lost_terminal_nor_a_dead_starter_matters(watch):
    watched = watch("while not os.path.exists('go'):\n    time.sleep(0.01)\nreport(workflow=1, run=1, log='log')")
    watched.until_started()
    watched.process.stdout.close()
    watched.process.send_signal(signal.SIGHUP)
    (watched.folder / "go").touch()
    assert watched.process.wait(SECONDS_MAX) == 0
    assert len(watched.starts) == 1


def test_a_process_whose_watcher_dies_continues(watch):
    watched = watch(
        "while not os.path.exists('go'):\n    time.sleep(0.01)\n"
        "try:\n    report()\nexcept OSError:\n    open('unwatched', 'w').close()\n"
    )
    watched.until_started()
    watched.process.kill()
    watched.process.wait()
    (watched.folder / "go").touch()
    deadline = time.monotonic() + SECONDS_MAX
    while not (watched.folder / "unwatched").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nonsense_in_the_pipe_is_ignored(watch):
    watched = watch(
        "os.write(about['report'], b'no json\\n' + b'x' * 200_000 + b'\\n')\nreport(workflow=1, run=2, log='l')"
    )
    assert watched.told() == {"workflow": 1, "run": 2, "log": "l"}
    assert watched.end() == 0


def test_an_incomplete_setup_starts_nothing(tmp_path):
    command = [sys.executable, "-I", "-S", "-B", watcher.__file__]
    finished = subprocess.run(command, input=b'{"command": [', capture_output=True, cwd=tmp_path, check=False)
    assert (finished.returncode, finished.stderr) == (watcher.EXIT_GIVEN_UP, b"")
