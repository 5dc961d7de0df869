"""Follow the output of a task, and watch its workflow until it is done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

JOBMON = str(Path(sys.executable).with_name("jobmon"))
SCRIPT = """
gated = recorded("gated")
command = "echo begun; while [ ! -e gate ]; do sleep 0.02; done; echo ended"
task = step.create_task(name="gated", command=command)
gated.add_tasks([task])
gated.bind()
print(gated.workflow_id, task.task_id, flush=True)
gated.run()
"""


def test_following_and_watching_to_the_end(session):
    environment = {**os.environ, **{name: value for name, value in session.environment.items() if value is not None}}

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [JOBMON, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    with session.python(session.define + SCRIPT) as client:
        workflow, task = client.stdout.readline().split()
        with start("task", "logs", task, "--follow") as following:
            assert following.stdout.readline() == "begun\n"  # it waited until there was something to follow
            with start("workflow", "status", "-w", workflow, "--watch") as watching:
                first = watching.stdout.readline()
                (session.folder / "gate").touch()
                assert following.stdout.read() == "ended\n"
                assert following.wait(20) == 0
                last = watching.stdout.read().splitlines()[-1]
                assert watching.wait(20) == 0
        client.wait(20)
    assert f"{workflow} gated " in first
    assert "1 done of 1" in last
    deadline = time.monotonic() + 20
    while session.json("workflow", "status", "-w", workflow)[0]["status"] != "D":
        assert time.monotonic() < deadline
