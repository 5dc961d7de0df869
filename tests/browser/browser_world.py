"""A data folder with a server, and scripts that run workflows there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from jobmon.core import access

SECONDS_MAX = 60
JOBMON = Path(sys.executable).with_name("jobmon")
HOSTILE = "<img src=x onerror=window.pwned=1>"

DEFINE = """
import sys
from jobmon.client.api import Tool

tool = Tool(name="study")
step = tool.get_task_template("step", command_template="{command}", node_args=["command"])
work = tool.get_task_template(
    "estimate", command_template="sh -c '{script}' {n}", node_args=["n"], op_args=["script"])

def recorded(name, **options):
    return tool.create_workflow(name=name, workflow_args=name, default_max_attempts=1, **options)
"""
ENDED = (
    DEFINE
    + f"""
fine = recorded("fine")
fine.add_tasks([step.create_task(name=f"fine_{{i}}", command=f"echo fine {{i}}") for i in range(2)])
assert fine.run() == "D"

failed = recorded("gescheitert ✗")
script = "[ $0 -lt 4 ] || exit 0; echo cannot open table $0 >&2; exit 3"
tasks = [work.create_task(name=f"estimate_{{n}}", n=n, script=script) for n in range(60)]
after = step.create_task(name="after", command="echo never", upstream_tasks=tasks[:3])
failed.add_tasks([*tasks, after])
assert failed.run() == "E"

hostile = recorded({HOSTILE!r})
bad = tool.get_task_template({HOSTILE!r}, command_template="{{command}}", node_args=["command"])
shout = "printf '%s\\\\033[31m' '{HOSTILE}' >&2; exit 1"
hostile.add_tasks([bad.create_task(name="hostile", command=shout)])
assert hostile.run() == "E"
"""
)
RESTING = (
    DEFINE
    + """
resting = recorded("resting")
resting.add_tasks([step.create_task(name=f"rest_{i}", command=f"echo rest {i}") for i in range(3)])
resting.bind()
"""
)
#: Each task ends when a file of its number is there.
BUSY = (
    DEFINE
    + """
busy = recorded("busy", max_concurrently_running=1)
for i in range(4):
    wait = f"while [ ! -e go-{i} ]; do sleep 0.02; done; echo task {i} is over"
    busy.add_task(step.create_task(name=f"busy_{i}", command=wait))
busy.run()
"""
)
#: Writes much at once, with a progress bar, then waits for the file `go`.
LONG = (
    DEFINE
    + r"""
from pathlib import Path
lines = [f"line number {number}" for number in range(80_000)]
lines.insert(40_000, "FIRST ERROR: no space")
Path("much.txt").write_bytes("\n".join([*lines, "  0%\r 50%\r100%", ""]).encode())
long = recorded("long")
wait = "cat much.txt; while [ ! -e go ]; do sleep 0.02; done; echo it is over"
long.add_task(step.create_task(name="long", command=wait))
long.run()
"""
)


class World:
    """One data folder."""

    def __init__(self):
        # Not `tmp_path`: sockets need short paths.
        self.folder = Path(tempfile.mkdtemp(prefix="jobmon-ui-"))
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON")}
        self.environment |= {
            "HOME": str(self.folder),
            "JOBMON_DATA_DIR": str(self.folder / "data"),
            "NO_COLOR": "1",
        }
        self._started = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self._started:
            process.terminate()
            process.wait(SECONDS_MAX)
        self.jobmon("server", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def record(self):
        """Run workflows that end in different ways, and record one that does not run."""
        done = self._process(ENDED + RESTING.removeprefix(DEFINE), stderr=subprocess.PIPE)
        _, errors = done.communicate(timeout=SECONDS_MAX)
        assert done.returncode == 0, errors.decode()
        with contextlib.closing(sqlite3.connect(self.folder / "data" / "jobmon.sqlite")) as database, database:
            # Our own client refuses such a name; another one that speaks HTTP need not.
            assert database.execute("UPDATE task SET name = ? WHERE name = 'hostile'", (HOSTILE,)).rowcount == 1

    def start(self, script=BUSY):
        """Start a script; it is stopped in the end."""
        process = self._process(script, stderr=subprocess.DEVNULL)
        self._started.append(process)
        return process

    def _process(self, script, **streams):
        command = [sys.executable, "-c", script]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, **streams)

    def jobmon(self, *arguments):
        """Run a command and return what it prints."""
        finished = subprocess.run(
            [str(JOBMON), *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=True,
        )
        return finished.stdout

    def address(self, *arguments):
        """Return the page's address with its key."""
        return json.loads(self.jobmon("ui", "--no-browser", "-o", "json", *arguments))["address"]

    def workflow(self, name):
        """Return the number of a workflow."""
        found = json.loads(self.jobmon("workflow", "status", "-o", "json"))
        return next(one["workflow_id"] for one in found if one["name"] == name)

    def others(self):
        """Return Jobmon's processes of this data folder but the server; not commands of tasks, which come and go."""
        found, server = [], self.server()
        for process in psutil.process_iter():
            try:
                is_mine = process.environ().get("JOBMON_DATA_DIR") == self.environment["JOBMON_DATA_DIR"]
                if is_mine and process.pid != server and "python" in process.cmdline()[0]:
                    found.append(process)
            except (psutil.Error, IndexError):
                continue
        return found

    def server(self):
        """Return the process of the server, or None."""
        found = access.find_server(self.folder / "data")
        return None if found is None else found.pid


def wait_until(state, seconds_max=30.0):
    """Wait for a state that no page shows."""
    deadline = time.monotonic() + seconds_max
    while not state():
        assert time.monotonic() < deadline, "this state did not come"
        time.sleep(0.02)
