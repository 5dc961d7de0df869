"""The line from a distributor to its supervisor: finds it or starts it, sends, receives."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import places
from jobmon.core.exceptions import JobmonError
from jobmon.plugins.local import supervisor
from jobmon.plugins.local.remains import end_remains, read_journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONNECT_TIMEOUT_SECONDS: Final = 20.0
LOOK_INTERVAL_SECONDS: Final = 0.005
RECEIVE_BYTES: Final = 1024 * 1024


class SupervisorUnavailable(JobmonError):
    """The supervisor of local commands could not be started."""


@dataclass(frozen=True, slots=True)
class SupervisorPaths:
    """Where a supervisor's files are: in a private local folder of this host."""

    socket: Path
    journal: Path
    lock: Path
    log: Path
    left: Path


def supervisor_paths(workflow_id: int, data_folder: Path, cluster_name: str) -> SupervisorPaths:
    """Return where the supervisor of a workflow's cluster is; short enough for a socket."""
    key = hashlib.sha256(f"{data_folder}\0{workflow_id}\0{cluster_name}".encode()).hexdigest()[:16]
    base = places.runtime_directory() / f"supervisor-{key}"
    return SupervisorPaths(*(base.with_suffix(suffix) for suffix in (".sock", ".journal", ".lock", ".log", ".left")))


class SupervisorLink:
    """An open line. `hello` is what the supervisor said first; `remains` what dead predecessors of it left.

    What they left is kept in a file until it is settled: whoever found it may die before the server has heard of it.

    Raises:
        SupervisorUnavailable: it can neither be reached nor started.
    """

    def __init__(self, paths: SupervisorPaths, idle_timeout: float) -> None:
        self._paths = paths
        self._received = b""
        self.hello = self._open(idle_timeout)
        self.remains = read_journal(paths.left)

    def _open(self, idle_timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + CONNECT_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                return self._connect()
            self._start(idle_timeout)
            time.sleep(LOOK_INTERVAL_SECONDS)
        raise SupervisorUnavailable(f"The supervisor of local commands does not start; see {self._paths.log}.")

    def _connect(self) -> dict[str, Any]:
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._line.connect(str(self._paths.socket))
            self._line.settimeout(CONNECT_TIMEOUT_SECONDS)
            while not (messages := self._messages(self._line.recv(RECEIVE_BYTES))):
                pass
            self._line.settimeout(None)
        except OSError:
            self.close()
            raise
        return dict(messages[0][1])

    def _start(self, idle_timeout: float) -> None:
        """Start one, unless one lives; what a dead one left is dealt with first, while nobody else can start one."""
        with _lock_if_free(self._paths.lock) as is_free:
            if not is_free:
                return
            found = read_journal(self._paths.journal)
            end_remains(found)
            self._keep_remains()
            self._paths.socket.unlink(missing_ok=True)
        self._await_socket(_spawn(self._paths, idle_timeout))

    def _keep_remains(self) -> None:
        """Add a dead supervisor's journal to what others left; dying in between tells it twice, which does no harm."""
        if self._paths.journal.exists():
            with self._paths.left.open("ab") as left:
                left.write(b"\n" + self._paths.journal.read_bytes())
            self._paths.journal.unlink()

    def settle(self, task_instance_ids: Sequence[int]) -> None:
        """The server knows how these ended; when it knows of all that was left, that is forgotten."""
        if not (self.remains.live or self.remains.ended):
            return
        for identity in task_instance_ids:
            self.remains.live.pop(identity, None)
            self.remains.ended.pop(identity, None)
        if not (self.remains.live or self.remains.ended):
            self._paths.left.unlink(missing_ok=True)

    def _await_socket(self, pid: int) -> None:
        """Wait until the supervisor listens, or has died."""
        deadline = time.monotonic() + CONNECT_TIMEOUT_SECONDS
        while not self._paths.socket.exists() and time.monotonic() < deadline:
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                return
            time.sleep(LOOK_INTERVAL_SECONDS)

    def fileno(self) -> int:
        """Return a descriptor that is readable when `receive` has something."""
        return self._line.fileno()

    def send(self, message: list[Any]) -> bool:
        """Hand over a message; False: nobody is there any more."""
        try:
            self._line.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[list[Any]] | None:
        """Return the messages that are there, without waiting; None: the supervisor is gone."""
        messages: list[list[Any]] = []
        while True:
            try:
                data = self._line.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
                messages += self._messages(data)
            except BlockingIOError:
                return messages
            except OSError:
                return messages or None
            if len(data) < RECEIVE_BYTES:
                return messages

    def _messages(self, data: bytes) -> list[list[Any]]:
        if not data:
            raise ConnectionResetError
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Hang up."""
        self._line.close()


@contextlib.contextmanager
def _lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock that a living supervisor holds; yield False if one does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _spawn(paths: SupervisorPaths, idle_timeout: float) -> int:
    """Start the program in a session of its own; it is nobody's child for long, so nobody waits for it here."""
    words = [sys.executable, "-I", "-S", "-B", str(supervisor.__file__)]
    words += ["--socket", str(paths.socket), "--journal", str(paths.journal), "--lock", str(paths.lock)]
    words += ["--idle-timeout", str(idle_timeout)]
    log_flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    return os.posix_spawn(
        words[0],
        words,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(paths.log), log_flags, 0o600),
        ],
        setsid=True,
        setsigmask=(),
    )
