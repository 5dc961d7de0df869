"""Resume a script on another host while its commands run: the distributor of the first host finishes them.

Two machines are two host names, with folders of their own for data and sockets, and one server between them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

TOKEN = "a-secret-word"
TASKS = 5
SCRIPT = """
import sys
from jobmon.client.api import Tool

tool = Tool(name="two hosts")
work = tool.get_task_template(
    "work",
    command_template="echo start >> {number}.log; until test -e go; do sleep 0.05; done; echo end >> {number}.log",
    node_args=["number"],
)
workflow = tool.create_workflow(name="two hosts", workflow_args="once")
workflow.add_tasks(work.create_tasks(number=list(range(@TASKS@))))
print(workflow.run(@OPTIONS@))
"""

pytestmark = pytest.mark.skipif(
    subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode != 0,
    reason="setting a host name requires root",
)


def script(options=""):
    return SCRIPT.replace("@TASKS@", str(TASKS)).replace("@OPTIONS@", options)


@pytest.fixture
def server(home, institute_server):
    with institute_server(home.folder, TOKEN, home.environment) as address:
        yield address


@pytest.fixture
def host(home, server):
    """Return what starts a script on a host of some name."""

    def start(name, text):
        place = home.folder / name
        place.mkdir(exist_ok=True)
        (place / "script.py").write_text(text)
        environment = {
            **home.environment,
            "JOBMON_DATA_DIR": str(place),
            "TMPDIR": str(place),
            "XDG_RUNTIME_DIR": str(place),
            "JOBMON__HTTP__SERVICE_URL": server,
            "JOBMON__HTTP__TOKEN": TOKEN,
        }
        started = replace(home, environment=environment)
        there.append(started)
        words = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
        process = subprocess.Popen(
            [*words, sys.executable, str(place / "script.py")],
            cwd=home.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    there, processes = [], []
    yield start
    for process in processes:
        process.kill()
        process.communicate()
    for one in there:
        for left in one.processes():
            left.kill()


def words(home):
    return [path.read_text().split() if path.exists() else [] for path in logs(home)]


def logs(home):
    return [home.folder / f"{number}.log" for number in range(TASKS)]


@pytest.mark.sqlite_only(reason="it starts a server of its own")
def test_a_hot_resume_from_another_host_runs_nothing_twice(home, host, wait_until):
    first = host("first", script())
    wait_until(lambda: sum(map(len, words(home))) >= min(2, len(os.sched_getaffinity(0))))
    second = host("second", script("resume=True, reset_running_jobs=False"))
    assert first.communicate(timeout=60)[0].split()[-1] == "T"
    (home.folder / "go").touch()
    told = second.communicate(timeout=60)[0]
    assert told.split()[-1] == "D", told
    assert words(home) == [["start", "end"]] * TASKS


@pytest.mark.sqlite_only(reason="it starts a server of its own")
def test_a_cold_resume_from_another_host_ends_what_runs_before_it_begins(home, host, wait_until):
    first = host("first", script())
    wait_until(lambda: any(words(home)))
    second = host("second", script("resume=True"))
    assert first.communicate(timeout=60)[0].split()[-1] == "T"
    (home.folder / "go").touch()
    told = second.communicate(timeout=60)[0]
    assert "WorkflowAlreadyExists" not in told
    assert told.split()[-1] == "D", told
    assert all(found[-1] == "end" and "end" not in found[:-1] for found in words(home))
