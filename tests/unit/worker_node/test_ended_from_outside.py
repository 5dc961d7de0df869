"""Who reports the outcome of a command: the worker, unless the cluster terminated the whole job."""

from resource import struct_rusage

import pytest

from jobmon.agent.attempts import Attempt
from jobmon.agent.memory import Memory
from jobmon.worker_node.host import JobHost
from jobmon.worker_node.single import SingleJob

SIGTERM, SIGKILL = 15, 9
JOB = {
    "task_instance_id": 7,
    "task_id": 1,
    "workflow_id": 1,
    "workflow_run_id": 1,
    "task_name": "t",
    "attempt": 1,
    "command": "true",
    "working_directory": "/",
    "umask": 0o022,
    "heartbeat_interval": 60.0,
    "report_by_buffer": 3.0,
    "requested_resources": {},
}


class Server:
    """A connection to a server that answers, and keeps what it was told."""

    where, retry_after, deadline, is_busy = "", 0.0, 0.0, False

    def __init__(self, kill=()):
        self.kill = list(kill)
        self.reports = []

    def send(self, route, message, timeout):
        self.is_busy, self.route = True, route
        self.reports += message.get("reports", ())

    def answer(self):
        if not self.is_busy:
            return None
        self.is_busy = False
        return 200, JOB if self.route == "/worker/start" else {"kill": self.kill}

    def close(self):
        self.is_busy = False


class Node(JobHost):
    """A machine on which a command ends in a given way, perhaps while a signal comes."""

    def __init__(self, exit_code=None, signal=None, *, is_signalled=False, is_late=False, oom_kills=0):
        super().__init__({}, "12_3")
        self.end = exit_code, signal
        self.is_signalled, self.is_late = is_signalled, is_late
        self.oom_kills = oom_kills
        self.said = ""

    def connection(self):
        """Return the connection that carries reports, then one that stays unused: such a job has no poll."""
        server, self.server = self.server, Server()
        return server

    def commands(self, grace_seconds):
        self.command = Ending(self)
        return self.command

    def heed_signals(self, note):
        self.note = note

    def wait(self, connections, seconds):
        """Let the command end; its signal comes before that, or while one waits for it afterwards."""
        if not connections if self.is_late else self.is_signalled and self.command.live:
            self.note(SIGTERM)

    def say(self, text):
        self.said = text


class Ending:
    """The only command of a node; it ends when one looks."""

    def __init__(self, node):
        self.node = node
        self.memory = Memory(job_width=1)
        self.memory._job_kills = Kills(0)
        self.live, self.started, self.ended = {}, [], []

    def set_environment(self, values):
        """Nothing is executed."""

    def start(self, launch):
        attempt = self.live[launch.identity] = Attempt(launch)
        attempt.start(1, 0.0, 0.0, 0.0)
        self.started.append(attempt)
        self.memory.hold(attempt)
        return attempt

    def look(self):
        exit_code, signal = self.node.end
        self.memory._job_kills = Kills(self.node.oom_kills)
        status = signal if exit_code is None else exit_code << 8
        for attempt in self.live.values():
            attempt.exit(status, struct_rusage([0] * 16), 1.0)
            self.memory.release(attempt)
            attempt.clear()
            self.ended.append(attempt)
        self.live.clear()

    def next_look(self):
        return None

    def take_started(self):
        started, self.started = self.started, []
        return started

    def take_ended(self):
        ended, self.ended = self.ended, []
        return ended

    def stop(self, identities, cause, grace_seconds):
        """It ends anyway."""

    def pass_on(self, number):
        """It has ended already."""

    def leave(self):
        """Nothing is left."""


class Kills:
    def __init__(self, count):
        self.count = lambda: count


def work(node, tmp_path, server):
    node.server = server
    request = {"distributor_id": "12_3", "host": "n1"}
    return SingleJob(request, {"JOBMON_DATA_DIR": str(tmp_path)}, node).work()


@pytest.mark.parametrize(
    "node",
    [
        Node(signal=SIGTERM, is_signalled=True),
        Node(signal=SIGKILL, is_signalled=True),
        Node(exit_code=143, is_signalled=True),
        Node(signal=SIGTERM, is_signalled=True, is_late=True),
    ],
    ids=["both were told to end", "killed after that", "its shell says so", "the command was told first"],
)
def test_the_cluster_tells_why_it_ended_a_job(node, tmp_path):
    server = Server()
    assert work(node, tmp_path, server) == 1
    assert server.reports == []
    assert "see the cluster for the reason" in node.said


@pytest.mark.parametrize(
    ("node", "status", "cause"),
    [
        (Node(exit_code=0, is_signalled=True), "D", None),
        (Node(exit_code=3), "E", "exit code"),
        (Node(signal=SIGTERM), "E", "signal"),
        (Node(exit_code=137, oom_kills=1), "Z", "out of memory"),
        (Node(signal=SIGKILL, is_signalled=True, oom_kills=1), "Z", "out of memory"),
        (Node(exit_code=0, oom_kills=1), "D", None),
    ],
    ids=["ended well all the same", "failed", "it alone was signalled", "starved", "starved and ended", "coped"],
)
def test_all_else_is_told_by_the_worker(node, status, cause, tmp_path):
    server = Server()
    assert work(node, tmp_path, server) == 0
    [report] = server.reports
    assert (report["status"], report["cause"]) == (status, cause)


def test_what_the_server_wanted_killed_is_told_as_killed(tmp_path):
    server = Server(kill=[7])
    assert work(Node(signal=SIGTERM, is_signalled=True), tmp_path, server) == 0
    assert server.reports[0]["cause"] == "killed"
