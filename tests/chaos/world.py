"""The folder, environment and processes of one workflow of the chaos tests."""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from tests.databases import Databases, rows

HERE = Path(__file__).parent
#: Settings of fractions of a second instead of the default seconds and minutes.
SETTINGS = {
    "JOBMON__HEARTBEAT__WORKFLOW_RUN_INTERVAL": "0.5",
    "JOBMON__HEARTBEAT__TASK_INSTANCE_INTERVAL": "0.4",
    "JOBMON__DISTRIBUTOR__POLL_INTERVAL": "0.1",
    "JOBMON__DISTRIBUTOR__HAND_AHEAD_EXPIRY": "2",
    "JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT": "0.5",
    "JOBMON__REAPER__POLL_INTERVAL_MINUTES": "0.005",
    "JOBMON__SERVER__LONG_POLL": "1",
    "JOBMON__HTTP__REQUEST_TIMEOUT": "5",
    "JOBMON__MULTIPROCESS__SLOTS": "4",
}
#: Part -> words of its command line.
PARTS = {
    "server": ("jobmon.server", "doomed.py server", "jobmon server run"),
    "client": ("workload.py",),
    "distributor": ("jobmon.distributor", "doomed.py distributor"),
    "agent": ("agent/start.py", "doomed.py agent"),
    "worker": ("worker_node/process.py",),
}
CLIENT_NAME = "workload.py"
TOKEN = "a-token-of-the-chaos-tests"
HOST = "127.0.0.1"
#: Each world has its database in its data folder.
FILES = Databases()


class World:
    """The folder, environment and processes of one workflow.

    Args:
        settings: settings of all programs, as environment variables.
        databases: where the database is created.
        has_standby: whether there are two shared servers, one of them active, instead of an embedded one.
        environment: more environment variables.
    """

    def __init__(self, settings=SETTINGS, databases=FILES, *, has_standby=False, **environment):
        self.folder = Path(tempfile.mkdtemp(prefix="jc-"))
        (self.folder / "data").mkdir(mode=0o700)
        self.uri = databases.uri(self.folder / "data")
        self.ledger = self.folder / "ledger"
        self.ledger.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBMON", "CHAOS"))}
        self.environment = {
            **kept,
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
            "JOBMON_DATA_DIR": str(self.folder / "data"),
            "JOBMON__DB__SQLALCHEMY_DATABASE_URI": self.uri,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE / "plugins"), os.environ.get("PYTHONPATH")))),
            **settings,
            **environment,
        }
        self._servers = {}  # port -> process
        if has_standby:
            self._servers = dict.fromkeys(free_ports(2))
            self.environment |= {
                "JOBMON__HTTP__SERVICE_URL": " ".join(f"http://{HOST}:{port}" for port in self._servers),
                "JOBMON__HTTP__TOKEN": TOKEN,
                "JOBMON__SERVER__STANDBY": "true",
            }

    def has_database(self):
        """Whether somebody has created the database: to look for rows would create SQLite's file."""
        file = self.uri.removeprefix("sqlite:///")
        return file == self.uri or Path(file).exists()

    def rows(self, sql):
        """All rows of a query on the database."""
        return rows(self.uri, sql)

    # -- starting ----------------------------------------------------------------------------------------------

    def client(self, *arguments):
        return self.start([str(HERE / CLIENT_NAME), *map(str, arguments)], "client.log")

    def tend_servers(self):
        """Start each of the shared servers that is not running, as a service manager would."""
        for port, process in self._servers.items():
            if process is None or process.poll() is not None:
                words = ["-P", "-m", "jobmon", "server", "run"]
                self._servers[port] = self.start(words, f"server-{port}.log", JOBMON__SERVER__PORTS=str(port))

    def active_server(self):
        """The process that answers that it is ready, None if none does."""
        for port, process in self._servers.items():
            with contextlib.suppress(OSError, http.client.HTTPException):
                line = http.client.HTTPConnection(HOST, port, timeout=0.5)
                with contextlib.closing(line):
                    line.request("GET", "/api/v1/ready")
                    if line.getresponse().status == http.client.OK:
                        return psutil.Process(process.pid)
        return None

    def start(self, arguments, log, **environment):
        with (self.folder / log).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    # -- looking -----------------------------------------------------------------------------------------------

    def processes(self):
        """All processes of this world."""
        mine = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_ours = process.environ().get("JOBMON_DATA_DIR") == self.environment["JOBMON_DATA_DIR"]
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    mine.append(process)
        return mine

    def of_part(self, part):
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.cmdline())
                if any(word in words for word in PARTS[part]):
                    found.append(process)
        return found

    # -- ending ------------------------------------------------------------------------------------------------

    def orphans(self, wait_seconds=8.0):
        """Stop the server and wait for all other processes to exit by themselves; return those that did not."""
        for server in self.of_part("server"):
            with contextlib.suppress(psutil.Error):
                server.terminate()
        deadline = time.monotonic() + wait_seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        found = []
        for process in left:
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(process.cmdline())[:200])
                process.kill()
        for process in filter(None, self._servers.values()):
            process.wait()
        return found

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [line.getsockname()[1] for line in lines]


def wait_for(condition, seconds=30.0, pause=0.02):
    """Return the first true value of `condition()`, or its last false value when the time is up."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(pause)
    return found
