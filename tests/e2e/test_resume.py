"""kill -9 of the script in the middle, and once more with `resume=True`."""

from __future__ import annotations

import signal
from collections import Counter

TASKS = 12
SCRIPT = """
import sys
from jobmon.client.api import Tool

tool = Tool(name="resume")
work = tool.get_task_template(
    "work",
    command_template="echo start >> {number}.log; sleep 0.2; echo end >> {number}.log",
    node_args=["number"],
)
workflow = tool.create_workflow(name="resume", workflow_args="once")
workflow.add_tasks(work.create_tasks(number=list(range(@TASKS@))))
print(workflow.run(resume=@RESUME@), workflow.last_result.num_previously_complete)
"""


def script(resume: bool) -> str:
    return SCRIPT.replace("@TASKS@", str(TASKS)).replace("@RESUME@", str(resume))


def test_what_was_done_is_not_done_again(home, wait_until):
    def ended() -> int:
        return sum("end" in path.read_text() for path in home.folder.glob("*.log"))

    running = home.start(script(resume=False))
    wait_until(lambda: ended() >= 3)
    running.send_signal(signal.SIGKILL)
    running.wait()

    (workflow,) = home.json("workflow", "status")
    number = str(workflow["workflow_id"])
    done = {task["name"] for task in home.json("workflow", "tasks", "-w", number, "-s", "DONE", "-l", "100")}
    assert 0 < len(done) < TASKS

    resumed = home.python(script(resume=True))
    status, before = resumed.stdout.split()[-2:]
    assert (resumed.returncode, status) == (0, "D"), resumed.stderr
    assert int(before) >= len(done)

    starts = Counter(
        {
            task["name"]: count_of(home.folder, task, "start")
            for task in home.json("workflow", "tasks", "-w", number, "-l", "100")
        }
    )
    assert len(starts) == TASKS
    assert {name: starts[name] for name in done} == dict.fromkeys(done, 1)
    assert all((home.folder / f"{n}.log").read_text().endswith("end\n") for n in range(TASKS))


def count_of(folder, task, word) -> int:
    log = task["command"].rsplit(" ", 1)[1]
    return (folder / log).read_text().split().count(word)
