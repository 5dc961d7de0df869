"""One server with workflows in several states for all commands: done, failed, running, and never run."""

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

import pytest
from click.testing import CliRunner
from tests.databases import POSTGRESQL, SQLITE

from jobmon.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from click.testing import Result
    from tests.databases import Databases

SECONDS_MAX = 60
TOKEN = "a-secret-word"
BAD_TASKS = 12

DEFINE = """
import sys
from jobmon.client.api import Tool

tool = Tool(name="tool")
step = tool.get_task_template("step", command_template="{command}", node_args=["command"])

def recorded(name, **options):
    return tool.create_workflow(name=name, workflow_args=name, default_max_attempts=1, **options)
"""
ENDED = (
    DEFINE
    + """
fine = recorded("fine")
fine.add_tasks([step.create_task(name=f"fine_{i}", command=f"echo fine {i}") for i in range(2)])
assert fine.run() == "D"

failed = recorded("failed")
work = tool.get_task_template(
    "work", command_template="sh -c '{script}' {number} {region}", node_args=["number", "region"], op_args=["script"])
script = '[ "$1" = bad ] || exit 0; echo "cannot read /data/$0.csv: line $0" >&2; exit 3'
tasks = [
    work.create_task(name=f"work_{region}_{n}", number=n, region=region, script=script)
    for region in ("good", "bad") for n in range(12)
]
after = step.create_task(name="after_bad", command="echo never", upstream_tasks=[tasks[-1]])
last = step.create_task(name="last", command="echo never at all", upstream_tasks=[after])
killed = step.create_task(name="killed", command="kill -9 $$")
failed.add_tasks([*tasks, after, last, killed])
assert failed.run() == "E"

resting = recorded("resting")
first = step.create_task(name="first", command="echo first")
second = step.create_task(name="second", command="echo second", upstream_tasks=[first])
third = step.create_task(name="third", command="echo third", upstream_tasks=[second])
resting.add_tasks([first, second, third])
resting.bind()
print(fine.workflow_id, failed.workflow_id, resting.workflow_id)
"""
)
BUSY = (
    DEFINE
    + """
busy = recorded("busy", max_concurrently_running=1)
runs = step.create_task(name="runs", command="echo begun; while [ ! -e goon ]; do sleep 0.05; done; echo ended")
waits = step.create_task(name="waits", command="true", upstream_tasks=[runs])
limited = step.create_task(name="limited", command="echo limited")
busy.add_tasks([runs, limited, waits])
busy.run()
"""
)


@dataclass
class Session:
    """Workflows by name, their tasks by name, and methods to run commands."""

    folder: Path
    environment: dict[str, str | None]
    workflows: dict[str, int]
    tasks: dict[str, int]
    define: str = DEFINE

    def invoke(self, *arguments: object, code: int | None = 0, **options: Any) -> str:
        """Run a command and return its standard output; check its exit code (None: it must not be 0)."""
        both = options.pop("both", False)
        result = self._run(arguments, **options)
        assert result.exit_code == code if code is not None else result.exit_code, result.output
        assert "Traceback" not in result.output
        return result.stdout if code == 0 and not both else result.output

    def both(self, *arguments: object) -> str:
        """Run a command that must succeed; return its standard output and standard error."""
        result = self._run(arguments)
        assert result.exit_code == 0, result.output
        return result.output

    def _run(self, arguments: Sequence[object], **options: Any) -> Result:
        # only for this call: other tests share this process
        environment = self.environment | options.pop("env", {})
        return CliRunner(env=environment).invoke(main, [str(argument) for argument in arguments], **options)

    def python(self, script: str) -> subprocess.Popen[str]:
        """Start a script given as text."""
        environment = {name: value for name, value in os.environ.items() if name not in self.environment}
        environment |= {name: value for name, value in self.environment.items() if value is not None}
        return subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def json(self, *arguments: object, **options: Any) -> Any:
        """Run a command with `-o json` and return its parsed output; options as for `invoke`."""
        return json.loads(self.invoke(*arguments, "-o", "json", **options))


@pytest.fixture(scope="session")
def session(databases: Databases, institute_server: Callable[..., AbstractContextManager[str]]) -> Iterator[Session]:
    # not `tmp_path`: sockets need short paths
    folder = Path(tempfile.mkdtemp(prefix="jobmon-cli-"))
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("JOBMON")}
    environment |= {
        "HOME": str(folder),
        "JOBMON_DATA_DIR": str(folder / "data"),
        "JOBMON__MULTIPROCESS__SLOTS": "2",
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if databases.dialect == POSTGRESQL:
            inherited = {name: value for name, value in os.environ.items() if name not in environment}
            set_here = {name: value for name, value in environment.items() if value is not None}
            url = stack.enter_context(institute_server(folder, TOKEN, inherited | set_here))
            environment |= {"JOBMON__HTTP__SERVICE_URL": url, "JOBMON__HTTP__TOKEN": TOKEN}
        yield from _session(Session(folder, environment, {}, {}), has_own_server=databases.dialect == SQLITE)


def _session(there: Session, *, has_own_server: bool) -> Iterator[Session]:
    ended = there.python(ENDED)
    printed, _ = ended.communicate(timeout=SECONDS_MAX)
    assert ended.returncode == 0
    there.workflows = dict(zip(("fine", "failed", "resting"), map(int, printed.split()[-3:]), strict=True))
    busy = there.python(BUSY)
    try:
        _wait_for_busy(there)
        yield there
    finally:
        busy.send_signal(signal.SIGTERM)
        busy.communicate(timeout=SECONDS_MAX)
        if has_own_server:
            there.invoke("server", "stop")


def _wait_for_busy(there: Session) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while "busy" not in there.workflows:
        assert time.monotonic() < deadline
        for found in there.json("workflow", "status"):
            if found["name"] == "busy" and "R" in found["counts"]:
                there.workflows["busy"] = found["workflow_id"]
    for number in there.workflows.values():
        found = there.json("workflow", "tasks", "-w", number, "-l", 100)
        there.tasks |= {task["name"]: task["task_id"] for task in found}
