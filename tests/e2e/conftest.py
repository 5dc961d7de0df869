"""A home of one's own for each test: data folder, working directory, and nothing left running afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS_MAX = 90
LEFT_ALONE_SECONDS_MAX = 15
JOBMON = Path(sys.executable).with_name("jobmon")


@dataclass
class Home:
    """Where a test lives, and how it starts scripts and commands there."""

    folder: Path
    environment: dict[str, str]

    def python(self, script: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script file, or the text of one."""
        return self._run([sys.executable, str(self.script(script)), *arguments])

    def jobmon(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Jobmon."""
        return self._run([str(JOBMON), *arguments])

    def json(self, *arguments: str) -> Any:
        """Run a command of Jobmon that must work, and return what it prints with `-o json`."""
        finished = self.jobmon(*arguments, "-o", "json")
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    def start(self, script: str | Path) -> subprocess.Popen[bytes]:
        """Start a script and return at once."""
        return subprocess.Popen(
            [sys.executable, str(self.script(script))],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def script(self, script: str | Path) -> Path:
        if isinstance(script, Path):
            return script
        path = self.folder / "script.py"
        path.write_text(script)
        return path

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """Everything that runs with this home's data folder."""
        mine = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("JOBMON_DATA_DIR") == self.environment["JOBMON_DATA_DIR"]:
                    mine.append(process)
            except psutil.Error:
                continue
        return mine


@pytest.fixture
def home() -> Iterator[Home]:
    # Not `tmp_path`: its length varies with the name of the test, and sockets need short paths.
    folder = Path(tempfile.mkdtemp(prefix="jobmon-e2e-"))
    work = folder / "work"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
    environment |= {
        "HOME": str(folder),
        "JOBMON_DATA_DIR": str(folder / "data"),
        "JOBMON__SUPERVISOR__IDLE_TIMEOUT": "1",
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "default",
    }
    there = Home(work, environment)
    yield there
    left = _leave(there)
    shutil.rmtree(folder, ignore_errors=True)
    assert left == []


def _leave(home: Home) -> list[str]:
    """Stop the server and wait for all else to end by itself; return what had to be killed."""
    home.jobmon("server", "stop")
    deadline = time.monotonic() + LEFT_ALONE_SECONDS_MAX
    while (processes := home.processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = []
    for process in processes:
        try:
            left.append(" ".join(process.cmdline()))
            process.kill()
        except psutil.Error:
            continue
    return left


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for a state; fail when it does not come."""

    def wait(state: Callable[[], object], seconds_max: float = 30.0) -> None:
        deadline = time.monotonic() + seconds_max
        while not state():
            assert time.monotonic() < deadline, "this state did not come"
            time.sleep(0.02)

    return wait
