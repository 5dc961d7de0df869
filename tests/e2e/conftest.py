"""A separate home for each test: data folder, working directory, and no processes left afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from click.testing import CliRunner
from tests.databases import POSTGRESQL

from jobmon.cli.main import main
from jobmon.core import access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from tests.databases import Databases

PROJECT = Path(__file__).resolve().parents[2]
#: The longest script takes 8 s on a quiet machine, and took 99 s on one with 2 cores and a load of 16.
COMMAND_SECONDS_MAX = 200
TEST_SECONDS_MAX = 2 * COMMAND_SECONDS_MAX
TOKEN = "a-secret-word"
LEFT_ALONE_SECONDS_MAX = 15
#: Length of each log file's excerpt in the message about a command that hangs.
LOG_CHARACTERS_MAX = 4_000
JOBMON = Path(sys.executable).with_name("jobmon")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests more time than one of their scripts has, so that a script that hangs is described."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS_MAX), append=False)


@dataclass
class Home:
    """The environment of a test, and methods to start scripts and commands in it."""

    folder: Path
    environment: dict[str, str]

    def python(
        self, script: str | Path, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, given as a file or as text; `environment` is added to the user's environment."""
        return self._run([sys.executable, "-X", "faulthandler", str(self.script(script)), *arguments], cwd, environment)

    def jobmon(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a Jobmon command."""
        return self._run([str(JOBMON), *arguments])

    def json(self, *arguments: str) -> Any:
        """Run a Jobmon command that must succeed in this process, which is faster; return its `-o json` output."""
        others = {name: None for name in os.environ if name.startswith("JOBMON")}
        finished = CliRunner(env=others | self.environment).invoke(main, [*arguments, "-o", "json"])
        assert finished.exit_code == 0, finished.output
        return json.loads(finished.stdout)

    def json_of_process(self, *arguments: str) -> Any:
        """Do the same in a process: what it starts inherits its folder and environment."""
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

    def _run(
        self, command: list[str], cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(
            command,
            cwd=cwd or self.folder,
            env=self.environment | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, err = process.communicate(timeout=COMMAND_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            picture = self._picture()
            process.send_signal(signal.SIGABRT)  # `faulthandler` prints where the process is
            out, err = process.communicate()
            said = f"{out}\n{err}\n{picture}"
            raise AssertionError(f"{command} did not end within {COMMAND_SECONDS_MAX} s:\n{said}") from None
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def _picture(self) -> str:
        """Describe the running processes and the logs, to diagnose a hang."""
        lines = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error, OSError):  # it exited in the meantime
                for one in (process, *process.children(recursive=True)):
                    waits_in = (Path("/proc") / str(one.pid) / "wchan").read_text()
                    lines.append(f"{one.pid} {one.ppid()} {one.status()} {waits_in} {one.cmdline()} {one.cpu_times()}")
        files = Path(self.environment["JOBMON_DATA_DIR"]).rglob("*.*")
        logs = [path for path in files if path.suffix in (".log", ".journal") and path.is_file()]
        return "\n".join(
            [*lines, *(f"-- {log}\n{log.read_text(errors='replace')[-LOG_CHARACTERS_MAX:]}" for log in logs)]
        )

    def processes(self) -> list[psutil.Process]:
        """Return all processes that use this home's data folder."""
        mine = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("JOBMON_DATA_DIR") == self.environment["JOBMON_DATA_DIR"]:
                    mine.append(process)
            except psutil.Error:
                continue
        return mine


@pytest.fixture
def home(databases: Databases, institute_server: Callable[..., AbstractContextManager[str]]) -> Iterator[Home]:
    with _opened(databases, institute_server) as there:
        yield there


@pytest.fixture(scope="module")
def shared_home(databases: Databases, institute_server: Callable[..., AbstractContextManager[str]]) -> Iterator[Home]:
    """One home, and so one server, for all tests of a module to which the data of the others does not matter."""
    with _opened(databases, institute_server) as there:
        yield there


@contextlib.contextmanager
def _opened(databases: Databases, institute_server: Callable[..., AbstractContextManager[str]]) -> Iterator[Home]:
    # not `tmp_path`: its length depends on the name of the test, and sockets need short paths
    folder = Path(tempfile.mkdtemp(prefix="jobmon-e2e-"))
    work = folder / "work"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
    environment |= {
        "HOME": str(folder),
        "JOBMON_DATA_DIR": str(folder / "data"),
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "default",
    }
    there = Home(work, environment)
    if databases.dialect == POSTGRESQL:
        with institute_server(work, TOKEN, environment) as url:
            environment |= {"JOBMON__HTTP__SERVICE_URL": url, "JOBMON__HTTP__TOKEN": TOKEN}
            yield there
    else:
        yield there
        access.stop_server(data=Path(environment["JOBMON_DATA_DIR"]))
    left = _leave(there)
    shutil.rmtree(folder, ignore_errors=True)
    assert left == []


def _leave(home: Home) -> list[str]:
    """Wait for all processes to exit by themselves; return those that had to be killed."""
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
    """Return a function that waits for a state, and fails if it does not occur."""

    def wait(state: Callable[[], object], seconds_max: float = 30.0) -> None:
        deadline = time.monotonic() + seconds_max
        while not state():
            assert time.monotonic() < deadline, "this state did not come"
            time.sleep(0.02)

    return wait
