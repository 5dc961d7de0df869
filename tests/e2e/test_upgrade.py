"""Open the data folder of an older version, read its database, and resume an unfinished workflow.

`tests/integration/server/fixtures/record_old_database.py` made the database and says what is in it.
"""

from __future__ import annotations

import getpass
import gzip
import importlib.util
import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobmon.cli.main import main
from jobmon.server.migrations import HEAD

FIXTURES = Path(__file__).parents[1] / "integration" / "server" / "fixtures"
RECORDED = FIXTURES / "database_0008.sql.gz"
REVISION = "0008"
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
