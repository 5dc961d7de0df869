"""Open the data folder of an older version, read its database, and resume an unfinished workflow.

`tests/integration/server/fixtures/record_old_database.py` made the database and says what is in it. Tests in which
programs of the older version are still alive run its sources, which they take from the history of the repository.
"""

from __future__ import annotations

import getpass
import gzip
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from tests.e2e.conftest import PROJECT
from tests.processes import is_alive

from jobmon.cli.main import main
from jobmon.server.migrations import HEAD

FIXTURES = Path(__file__).parents[1] / "integration" / "server" / "fixtures"
RECORDED = FIXTURES / "database_0008.sql.gz"
REVISION = "0008"
#: The version that recorded it.
COMMIT = "4857dab"
GIT_SECONDS_MAX = 60
FINISHED, FAILED, RUNNING = 1, 2, 3
READING = (
    "workflow status",
    "workflow tasks -w {workflow}",
    "workflow errors -w {workflow}",
    "workflow explain -w {workflow}",
    "workflow logs -w {workflow}",
    "workflow history -w {workflow}",
    "workflow efficiency -w {workflow}",
    "task status -t {task}",
    "task explain {task}",
    "task dependencies -t {task}",
    "cluster list",
)

pytestmark = pytest.mark.sqlite_only(reason="older versions ran on SQLite only")


def recorder():
    """The script that recorded the database: its workflows are what is resumed."""
    specification = importlib.util.spec_from_file_location("recorder", FIXTURES / "record_old_database.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def old(home):
    """Put the old database into the data folder of this home, as though this machine had written it."""
    data = Path(home.environment["JOBMON_DATA_DIR"])
    data.mkdir(mode=0o700)
    dump = gzip.decompress(RECORDED.read_bytes()).decode()
    for placeholder, value in (
        ("@HOST@", socket.gethostname()),
        ("@USER@", getpass.getuser()),
        ("@FOLDER@", str(home.folder)),
    ):
        dump = dump.replace(placeholder, value)
    path = data / "jobmon.sqlite"
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as connection:  # the file of an older version, before any of ours sees it
        connection.executescript(dump)
    home.environment["UPGRADED"] = "1"
    return home


def run(home, name, options=""):
    script = recorder().SCRIPT + f"\nprint(make({name!r}, WORKFLOWS[{name!r}]).run({options}))"
    return home.python(script)


def attempts(home, workflow):
    """Name of each task -> its status and how often it was tried."""
    tasks = home.json("workflow", "tasks", "-w", str(workflow), "-l", "100")
    return {
        task["name"]: (task["status"], len(home.json("task", "status", "-t", str(task["task_id"]))[0]["attempts"]))
        for task in tasks
    }


def test_an_old_database_is_upgraded_and_every_reading_command_works(old):
    assert {one["name"]: one["status"] for one in old.json("workflow", "status")} == {
        "finished": "D",
        "failed": "F",
        "running": "R",
    }
    found = old.json("db", "revision")
    assert (found["revision"], found["state"]) == (HEAD, "current")
    copies = list(Path(old.environment["JOBMON_DATA_DIR"]).glob(f"*.before-{HEAD}-was-{REVISION}"))
    assert len(copies) == (HEAD != REVISION)
    environment = {name: None for name in os.environ if name.startswith("JOBMON")} | old.environment
    for workflow in (FINISHED, FAILED, RUNNING):
        task = old.json("workflow", "tasks", "-w", str(workflow))[0]["task_id"]
        for command in READING:
            words = command.format(workflow=workflow, task=task).split()
            for form in ([], ["-o", "json"]):  # in this process: that is quicker
                done = CliRunner(env=environment).invoke(main, [*words, *form])
                assert done.exit_code == 0, (command, done.output)
                if form:
                    json.loads(done.stdout)


def test_what_had_finished_is_known_to_be_complete(old):
    done = run(old, "finished")
    assert "WorkflowAlreadyComplete" in done.stderr
    assert attempts(old, FINISHED) == {"finished_0": ("D", 1), "finished_1": ("D", 1)}


def test_what_had_failed_is_resumed(old):
    done = run(old, "failed", "resume=True")
    assert (done.returncode, done.stdout.split()[-1]) == (0, "D"), done.stderr
    assert attempts(old, FAILED) == {"failed_0": ("D", 1), "failed_1": ("D", 2), "failed_2": ("D", 1)}


def test_what_was_running_when_the_machine_died_is_taken_over(old):
    done = run(old, "running", "resume=True")
    assert (done.returncode, done.stdout.split()[-1]) == (0, "D"), done.stderr
    found = attempts(old, RUNNING)
    assert {name: status for name, (status, _) in found.items()} == dict.fromkeys(found, "D")
    assert (found["running_0"][1], found["running_1"][1]) == (1, 2), "what was done is not run again"


@pytest.fixture(scope="module")
def old_sources(tmp_path_factory):
    """Return the folder of the older version's packages, for `PYTHONPATH`."""
    pytest.importorskip("fastapi", reason="the server of the older version needs FastAPI (a development tool)")
    git = shutil.which("git")
    if git is None:
        pytest.skip("needs git")
    archive = [git, "-C", str(PROJECT), "archive", COMMIT, "src/jobmon"]
    packed = subprocess.run(archive, capture_output=True, check=False, timeout=GIT_SECONDS_MAX)
    if packed.returncode != 0:
        pytest.skip(f"needs commit {COMMIT} in a clone with its history: {packed.stderr.decode(errors='replace')}")
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        tar.extractall(folder, filter="data")
    # It was a namespace package; the installed package would have precedence over it.
    (folder / "src" / "jobmon" / "__init__.py").touch()
    return folder / "src"


@pytest.fixture
def run_old(home, old_sources):
    """Return a function that runs a workflow of these commands, in a chain, with the older version."""
    started = []

    def start(*commands):
        script = recorder().SCRIPT + f"\nprint(make('alive', {list(commands)}).run())"
        environment = home.environment | {"PYTHONPATH": str(old_sources)}
        words = [sys.executable, "-c", script]
        started.append(subprocess.Popen(words, cwd=home.folder, env=environment, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def resume(home, *commands):
    script = recorder().SCRIPT + f"\nprint(make('alive', {list(commands)}).run(resume=True))"
    return home.python(script)


def is_supervisor(process):
    return any(word.endswith("supervisor.py") for word in process.cmdline())


def test_commands_of_an_older_version_that_are_still_alive_are_ended_and_run_again(home, run_old, wait_until):
    commands = ("echo before", 'echo $$ >> pids; test -n "$UPGRADED" || sleep 300', "echo after")
    client = run_old(*commands)
    pids = home.folder / "pids"
    wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"))

    refused = resume(home, *commands)
    assert refused.returncode != 0
    assert "is busy, and cannot communicate with this program" in refused.stderr
    assert "jobmon server stop" in refused.stderr
    assert client.poll() is None, "the run of the older version continues"

    running = home.processes()
    (supervisor,) = filter(is_supervisor, running)
    outlives = {supervisor, *supervisor.children(recursive=True)}
    assert int(pids.read_text()) in {process.pid for process in outlives}
    others = [process for process in running if process not in outlives]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none notices the end of another
        for process in others:
            process.send_signal(number)
    psutil.wait_procs(others)
    assert all(is_alive(process) for process in outlives)

    home.environment["UPGRADED"] = "1"
    done = resume(home, *commands)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "D"), done.stderr
    assert not any(is_alive(process) for process in outlives)
    assert len(pids.read_text().split()) == 2
    assert attempts(home, 1) == {"alive_0": ("D", 1), "alive_1": ("D", 2), "alive_2": ("D", 1)}


def test_an_idle_server_of_an_older_version_is_replaced(home, run_old):
    out, _ = run_old("echo done").communicate()
    assert out.split()[-1] == "D"
    (server,) = (process for process in home.processes() if "jobmon.server" in process.cmdline())
    (workflow,) = home.json("workflow", "status")
    assert (workflow["name"], workflow["status"]) == ("alive", "D")
    assert not is_alive(server)
    found = home.json("db", "revision")
    assert (found["revision"], found["state"]) == (HEAD, "current")
