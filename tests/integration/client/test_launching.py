"""Start, monitor, restart and stop a distributor, with real processes that behave as the test requires."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from jobmon.client.launching import DistributorProcess
from jobmon.core.exceptions import DistributorNotAlive, DistributorStartupTimeout

if TYPE_CHECKING:
    from pathlib import Path

UP_UNTIL_CLIENT_GONE = "import sys; print('up', flush=True); sys.stdin.read()"


def _process(tmp_path: Path, code: str, startup_timeout: float = 30.0, **kwargs) -> DistributorProcess:
    return DistributorProcess(
        5, startup_timeout, command=[sys.executable, "-I", "-c", code], log_directory=tmp_path / "logs", **kwargs
    )


def _until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the state was not reached"
        time.sleep(0.01)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_lives_until_the_client_lets_go(tmp_path):
    process = _process(tmp_path, UP_UNTIL_CLIENT_GONE)
    process.start()
    process.wait_until_up()
    assert process.alive()
    pid = process.pid
    process.stop(10)
    assert _is_gone(pid)


def test_a_dead_one_is_started_again(tmp_path):
    process = _process(tmp_path, UP_UNTIL_CLIENT_GONE)
    process.start()
    process.wait_until_up()
    first = process.pid
    os.kill(first, signal.SIGKILL)
    assert process.alive()
    _until(lambda: process.pid != first)
    assert process.alive()
    process.wait_until_up()
    process.stop(10)


def test_a_death_is_seen_even_if_something_else_still_holds_its_output(tmp_path):
    code = f"import subprocess; print('up', flush=True); subprocess.Popen(['sleep', '20']); {UP_UNTIL_CLIENT_GONE}"
    process = _process(tmp_path, code)
    process.start()
    process.wait_until_up()
    first = process.pid
    children = psutil.Process(first).children
    _until(children)
    sleepers = children()
    os.kill(first, signal.SIGKILL)
    _until(lambda: process.pid != first, seconds=10)
    process.wait_until_up()
    _until(psutil.Process(process.pid).children)
    sleepers += psutil.Process(process.pid).children()
    process.stop(10)
    for sleeper in sleepers:
        sleeper.kill()


def test_restarts_without_progress_come_to_an_end(tmp_path):
    process = _process(tmp_path, "import sys; print('up', flush=True); sys.exit('no disk')")
    process.start()
    _until(lambda: not process.alive())
    assert isinstance(process.failure, DistributorNotAlive)
    assert "3 restarts in a row" in str(process.failure)
    assert process.log_tail().splitlines() == ["no disk"] * 4


def test_progress_renews_the_restarts(tmp_path):
    process = _process(tmp_path, "print('up', flush=True)")
    process.start()
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        process.note_progress()
        time.sleep(0.005)
        assert process.alive()
    process.stop(10)


def test_it_must_be_up_in_time(tmp_path):
    code = "import sys, time; print('still loading', file=sys.stderr, flush=True); time.sleep(60)"
    process = _process(tmp_path, code, startup_timeout=0.5)
    process.start()
    assert process.alive()
    pid = process.pid
    with pytest.raises(DistributorStartupTimeout, match=r"did not start within 0.5 s(.|\n)*still loading"):
        process.wait_until_up()
    assert _is_gone(pid)
    assert not process.alive()


def test_what_cannot_be_started_says_so(tmp_path):
    process = DistributorProcess(5, command=["/nowhere/python"], log_directory=tmp_path)
    with pytest.raises(DistributorNotAlive, match="cannot be started"):
        process.start()


def test_one_that_cannot_work_is_not_started_again_and_its_last_line_is_the_reason(tmp_path):
    code = "import sys; sys.stderr.write('Traceback\\nThe plug-in cannot be used.\\n'); sys.exit(4)"
    process = _process(tmp_path, code)
    process.start()
    _until(lambda: not process.alive())
    assert isinstance(process.failure, DistributorNotAlive)
    assert "cannot run: The plug-in cannot be used." in str(process.failure)
    assert len(process.log_tail().splitlines()) == 2, "once"


def test_client_and_distributor_agree_on_the_exit_code_of_one_that_cannot_work():
    from jobmon.client import launching
    from jobmon.distributor import process

    assert launching.EXIT_CANNOT_WORK == process.EXIT_CANNOT_WORK
