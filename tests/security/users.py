"""Two Unix users who do not trust each other, and the capabilities of each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import jobmon.core

PREFIX = "jmsec"
COMMAND_SECONDS_MAX = 60
WAIT_SECONDS_MAX = 20
#: A workflow of one task: its command and name are arguments.
SCRIPT = """
import json, sys
from jobmon.client.api import Tool
command, name, resources = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
template = Tool("t").get_task_template(template_name="t", command_template="{command}", node_args=["command"])
workflow = Tool("t").create_workflow(
    name=name, workflow_args=name, default_cluster_name="multiprocess", default_max_attempts=1
)
workflow.add_task(template.create_task(command=command, name="align", compute_resources=resources))
print("status", workflow.run())
"""
#: Listens where a server should be, and writes down what comes.
LISTENER = """
import socket, sys
where, heard = sys.argv[1:]
if where.startswith("/"):
    door = socket.socket(socket.AF_UNIX)
    door.bind(where)
else:
    door = socket.create_server(("127.0.0.1", int(where)))
door.listen()
open(heard, "ab").close()
while True:
    line = door.accept()[0]
    line.settimeout(3)
    try:
        with open(heard, "ab") as file:
            file.write(line.recv(65536) or b"(a connection)")
        line.sendall(b"HTTP/1.1 500 X\\r\\ncontent-length: 0\\r\\n\\r\\n")
    except OSError:
        pass
    line.close()
"""


def wait_until(state, seconds_max=WAIT_SECONDS_MAX):
    """Wait for a state and return it; fail when it does not come."""
    deadline = time.monotonic() + seconds_max
    while not (found := state()):
        assert time.monotonic() < deadline, "this state did not come"
        time.sleep(0.02)
    return found


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class User:
    """A Unix user with a home of his own."""

    name: str
    uid: int
    gid: int
    home: Path
    python: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, *words: object, cwd: Path | None = None, umask: int = 0o022, **environment: str) -> Any:
        """Run a program as this user; its output and errors are one text."""
        return subprocess.run(
            [str(word) for word in words],
            cwd=cwd or self.home,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS_MAX,
            check=False,
            **self.identity(umask),
        )

    def start(self, *words: object, cwd: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program as this user; it ends with the test."""
        process = subprocess.Popen(
            [str(word) for word in words],
            cwd=cwd or self.home,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self.identity(0o022),
        )
        self.started.append(process)
        return process

    def identity(self, umask: int) -> dict[str, Any]:
        """Return what makes a child process this user's."""
        return {"user": self.uid, "group": self.gid, "extra_groups": [], "umask": umask}

    def jobmon(self, *words: object, **more: Any) -> Any:
        """Run a command of Jobmon."""
        return self.run(self.python, "-P", "-c", "from jobmon.cli.main import main; main()", *words, **more)

    def workflow(self, command="echo hello", name="one", resources=None, **more: Any) -> Any:
        """Run a workflow of one task from the user's own script."""
        script = self.file(self.home / "wf.py", SCRIPT)
        return self.run(self.python, script, command, name, json.dumps(resources or {}), **more)

    def file(self, path: Path, content: str | bytes = "", mode: int = 0o644) -> Path:
        """Write a file of this user's, though the folder may be another's."""
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.give(path, mode)

    def folder(self, path: Path, mode: int = 0o755) -> Path:
        """Make a folder of this user's."""
        path.mkdir()
        return self.give(path, mode)

    def folders(self, path: Path) -> Path:
        """Make a folder of this user's and those on the way to it that are missing."""
        for folder in reversed([path, *path.parents]):
            if not folder.exists():
                self.folder(folder, 0o700)
        return path

    def give(self, path: Path, mode: int | None = None) -> Path:
        """Make a file or folder this user's."""
        os.chown(path, self.uid, self.gid)
        if mode is not None:
            path.chmod(mode)
        return path

    def link(self, path: Path, target: Path) -> Path:
        """Plant a symbolic link."""
        path.symlink_to(target)
        os.lchown(path, self.uid, self.gid)
        return path

    def worker(self) -> list[str]:
        """Return the command of a worker of attempt 1."""
        found = "import jobmon.worker_node.start as start; print(start.__file__)"
        program = self.run(self.python, "-P", "-c", found).stdout.strip()
        return [str(self.python), "-I", "-S", program, "--task-instance-id", "1"]

    def data(self) -> Path:
        """Return the user's data folder."""
        return self.home / ".local" / "share" / "jobmon"

    def access(self) -> dict[str, Any]:
        """Return what the access file of the user's server says."""
        return json.loads((self.data() / "server.json").read_text())

    def write_access(self, folder: Path, mode: int = 0o600, **changes: Any) -> Path:
        """Write an access file of this user's, made of the one of a real server."""
        return self.file(folder / "server.json", json.dumps({**self.access(), **changes}), mode)

    def listen(self, where: Path | int) -> Path:
        """Listen on a path or port as long as the test lasts; return the file with what was heard."""
        heard = self.home / "heard"
        self.start(self.python, "-I", self.file(self.home / "listen.py", LISTENER), where, heard)
        wait_until(heard.exists)
        return heard

    def end(self, root: Path) -> None:
        """End everything that runs as this user and belongs to a world, which its environment names."""
        for process in psutil.process_iter():
            try:
                if process.uids().real == self.uid and str(root) in " ".join(process.environ().values()):
                    process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue

    def end_started(self) -> None:
        """End what was started as this user."""
        while self.started:
            process = self.started.pop()
            process.kill()
            process.wait()


def add_user(kind: str) -> tuple[str, int, int]:
    """Create a user; one of the same name is left by a suite that was killed."""
    name = f"{PREFIX}-{kind}-{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--user-group", "--shell", "/bin/sh", name], check=True)
    found = subprocess.run(["id", "-u", name], check=True, capture_output=True, text=True).stdout
    group = subprocess.run(["id", "-g", name], check=True, capture_output=True, text=True).stdout
    return name, int(found), int(group)


def remove_user(name: str) -> None:
    """Remove a user."""
    subprocess.run(["userdel", name], check=False, stderr=subprocess.DEVNULL)


def readable_python(uid: int, folder: Path) -> Path | None:
    """Return an interpreter with Jobmon that other users can start: ours, or the system's with a copy of it all.

    None: the system has none of our version.
    """
    if _has_jobmon(sys.executable, uid):
        return Path(sys.executable)
    system = shutil.which(f"python{sys.version_info.major}.{sys.version_info.minor}", path="/usr/local/bin:/usr/bin")
    if system is None:
        return None
    places = [Path(jobmon.core.__file__).parents[2], Path(psutil.__file__).parents[1]]
    for number, place in enumerate(places):
        if subprocess.run(["test", "-r", place], user=uid, group=uid, extra_groups=[], check=False).returncode:
            places[number] = folder / str(number)
            leave_out = shutil.ignore_patterns("__pycache__", "tests")
            shutil.copytree(place, places[number], ignore=leave_out, copy_function=_linked)
    subprocess.run([system, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    (site / "jobmon.pth").write_text("".join(f"{place}\n" for place in places))
    python = folder / "venv" / "bin" / "python"
    assert _has_jobmon(python, uid), f"{python} does not work as another user"
    return python


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def _has_jobmon(python: Path | str, uid: int) -> bool:
    words = [str(python), "-I", "-c", "import ssl, jobmon.client.api, jobmon.server.app"]
    identity: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []}
    try:
        return not subprocess.run(words, cwd="/", capture_output=True, check=False, **identity).returncode
    except PermissionError:
        return False


def make_root() -> Path:
    """Return a folder for all of it, with a short path: sockets lie below it."""
    root = Path(tempfile.mkdtemp(prefix="jms-"))
    root.chmod(0o755)
    return root
