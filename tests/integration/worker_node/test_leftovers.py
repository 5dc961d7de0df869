"""No process survives of an attempt whose outcome a worker or packed job reports."""

import uuid
from pathlib import Path

import pytest
from stand_in import JOB, NO_TASKS, TASK, StandIn, http, packed, single

from jobmon.agent import processes

GRACE = {"JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT": "0.3"}


class Server:
    """Hands out one command and ends it after 0.1 s if asked to; notes what lives of it when its outcome arrives."""

    def __init__(self, command, mark, *, ends):
        self.command, self.mark, self.ends = command, mark, ends
        self.is_begun = False
        self.left = None

    def __call__(self, route, message):
        if any(one["status"] != "R" for one in message.get("reports", ())):
            self.left = living(self.mark)
        kill = [7] if self.ends else []
        if route.endswith("/start"):
            return http(200, {**TASK, "command": self.command, "heartbeat_interval": 0.1})
        if route.endswith("/report"):
            return http(200, {"kill": kill, "unknown": []})
        if message.get("wait_seconds"):
            return None
        asked = {"runtime": 0.3} if self.ends else {}
        job = {**JOB, "requested_resources": asked}
        row = {"task_instance_ids": [7], "task_ids": [7], "names": ["t"], "commands": [self.command], "attempts": [1]}
        tasks, self.is_begun = NO_TASKS if self.is_begun else row, True
        return http(200, {"job": job, "tasks": tasks, "kill": [], "over": True, "has_work": False})


def living(mark):
    found = []
    for pid in processes.table():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in words:
            found.append(words)
    return found


@pytest.mark.parametrize("run", [single, packed])
@pytest.mark.parametrize(
    ("command", "ends", "cause"),
    [
        ("setsid {} & exit 0", False, None),
        ("(setsid sh -c '{} &' &); exit 3", False, "exit code"),
        ("timeout 300 {}; true", True, "killed"),
        ("(setsid sh -c '{} &' &); {}", True, "killed"),
    ],
)
def test_what_a_command_started_has_ended_when_its_outcome_is_reported(tmp_path, run, command, ends, cause):
    mark = f"60.{uuid.uuid4().int % 10**9:09d}"
    stand_in = Server(command.replace("{}", f"sleep {mark}"), mark, ends=ends)
    with StandIn(stand_in) as server:
        code, said = run(tmp_path, f"http://127.0.0.1:{server.port}", **GRACE)
    assert (code, stand_in.left) == (0, []), said
    (report,) = server.reports
    assert report["cause"] == ("out of time" if ends and run is packed else cause)
