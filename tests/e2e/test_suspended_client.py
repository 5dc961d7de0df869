"""A client that is stopped for longer than the server waits for its heartbeats (Ctrl-Z, a suspended machine)."""

from __future__ import annotations

import signal

import pytest

SCRIPT = """
from jobmon.client.api import Tool

tool = Tool(name="suspended")
work = tool.get_task_template(
    "work",
    command_template="echo start >> {number}.log; until test -e go; do sleep 0.05; done; echo end >> {number}.log",
    node_args=["number"],
)
workflow = tool.create_workflow(name="suspended", workflow_args="once")
workflow.add_tasks(work.create_tasks(number=[1, 2]))
try:
    ending = workflow.run()
except BaseException as error:
    ending = repr(error)
with open("ending", "w") as file:
    file.write(ending)
"""


@pytest.mark.sqlite_only(reason="about the embedded server")
def test_it_is_done_if_all_its_tasks_are(home, wait_until):
    home.environment |= {
        "JOBMON__HEARTBEAT__WORKFLOW_RUN_INTERVAL": "0.5",
        "JOBMON__HEARTBEAT__REPORT_BY_BUFFER": "2",
        "JOBMON__REAPER__POLL_INTERVAL_MINUTES": "0.01",
        "JOBMON__MULTIPROCESS__SLOTS": "2",
    }
    client = home.start(SCRIPT)
    wait_until(lambda: len(list(home.folder.glob("*.log"))) == 2)
    client.send_signal(signal.SIGSTOP)
    (home.folder / "go").touch()

    def statuses():
        return [one["status"] for one in home.json("workflow", "status")]

    wait_until(lambda: statuses() == ["D"])
    client.send_signal(signal.SIGCONT)
    assert client.wait(60) == 0
    assert (home.folder / "ending").read_text() == "D"
    assert [path.read_text() for path in home.folder.glob("*.log")] == ["start\nend\n"] * 2
