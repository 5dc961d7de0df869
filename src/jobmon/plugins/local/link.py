"""The connection from a distributor to its supervisor: find or start it, send, and receive."""

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

from jobmon.agent.recovery import kill_leftovers, read_journal
from jobmon.core.exceptions import ClusterUnusable
from jobmon.core.paths import make_private, socket_directory, temporary_runtime_directory
from jobmon.plugins.local import supervisor
from jobmon.plugins.local.runtime_files import PRESENT_SECONDS_MAX, is_present

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

CONNECT_TIMEOUT_SECONDS: Final = 20.0
LOOK_INTERVAL_SECONDS: Final = 0.005
RECEIVE_BYTES: Final = 1024 * 1024
#: Number of supervisors that die at their start after which the distributor gives up.
DEATHS_MAX: Final = 2
#: Number of characters read from the end of a dead supervisor's log.
LOG_CHARACTERS_MAX: Final = 4_000


class SupervisorUnavailable(ClusterUnusable):
    """The supervisor of local commands could not be started."""


@dataclass(frozen=True, slots=True)
class SupervisorPaths:
    """Paths of a supervisor's files, in a private local folder of this host."""

    socket: Path
    journal: Path
    lock: Path
    log: Path
    left: Path


def supervisor_paths(workflow_id: int, data_folder: Path, cluster_name: str) -> SupervisorPaths:
    """Return the paths for the supervisor of a workflow's cluster, short enough for a socket."""
    key = hashlib.sha256(f"{data_folder}\0{workflow_id}\0{cluster_name}".encode()).hexdigest()[:16]
    name = f"supervisor-{key}"
    base = socket_directory(f"{name}.sock") / name
    return SupervisorPaths(*(base.with_suffix(suffix) for suffix in (".sock", ".journal", ".lock", ".log", ".left")))


class SupervisorLink:
    """An open connection. `hello` is the supervisor's first message; `leftovers` is what its dead predecessors left.

    The leftovers are kept in a file until they are settled, because the distributor may crash before it reports them.

    Args:
        paths: paths of the supervisor's files.
        idle_timeout: how long a new supervisor without work keeps running, seconds.
        spared: returns pids that a dead supervisor's commands may have started and that must keep running.

    Raises:
        SupervisorUnavailable: it can neither be reached nor started. If it dies at its start, this is raised at once,
            with the last line of its log.
    """

    def __init__(
        self, paths: SupervisorPaths, idle_timeout: float, spared: Callable[[], Collection[int]] | None = None
    ) -> None:
        self._paths = paths
        self._spared = spared
        self._received = b""
        self._deaths = 0
        self.hello = self._open(idle_timeout)
        self.leftovers = read_journal(paths.left)

    def _open(self, idle_timeout: float) -> dict[str, Any]:
        """Connect; start a supervisor if none is running. One whose files were removed recreates them soon."""
        began = time.monotonic()
        while time.monotonic() < began + CONNECT_TIMEOUT_SECONDS:
            with contextlib.suppress(OSError):
                return self._connect()
            if time.monotonic() > began + PRESENT_SECONDS_MAX or not is_present(str(self._paths.socket)):
                self._start(idle_timeout)
            time.sleep(LOOK_INTERVAL_SECONDS)
        raise SupervisorUnavailable(
            f"The supervisor of local commands could not be reached within {CONNECT_TIMEOUT_SECONDS:g} s; see"
            f" {self._paths.log}."
        )

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
        """Start a supervisor unless one is running; first handle what a dead one left, while no other can start."""
        make_private(self._paths.lock.parent)
        with _lock_if_free(self._paths.lock) as is_free:
            if not is_free:
                return
            found = read_journal(self._paths.journal)
            kill_leftovers(found, self._spared() if self._spared is not None else ())
            self._keep_leftovers()
            self._paths.socket.unlink(missing_ok=True)
        self._await_socket(_spawn(self._paths, idle_timeout))

    def _keep_leftovers(self) -> None:
        """Append a dead supervisor's journal to the leftovers. A crash in between duplicates it, which is harmless."""
        if self._paths.journal.exists():
            with self._paths.left.open("ab") as left:
                left.write(b"\n" + self._paths.journal.read_bytes())
            self._paths.journal.unlink()

    def settle(self, task_instance_ids: Sequence[int]) -> None:
        """Remove settled attempts from the leftovers; delete the file when none is left."""
        if not (self.leftovers.live or self.leftovers.ended):
            return
        for identity in task_instance_ids:
            self.leftovers.live.pop(identity, None)
            self.leftovers.ended.pop(identity, None)
        if not (self.leftovers.live or self.leftovers.ended):
            self._paths.left.unlink(missing_ok=True)

    def _await_socket(self, pid: int) -> None:
        """Wait until this or another supervisor listens.

        Raises:
            SupervisorUnavailable: it died at its start, and so did the previous one.
        """
        deadline = time.monotonic() + CONNECT_TIMEOUT_SECONDS
        while not self._paths.socket.exists() and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                self._deaths += code not in (0, supervisor.EXIT_ANOTHER_LIVES)
                if self._deaths >= DEATHS_MAX:
                    raise SupervisorUnavailable(self._why_it_died(code))
                return
            time.sleep(LOOK_INTERVAL_SECONDS)

    def _why_it_died(self, code: int) -> str:
        """Return how a supervisor died at its start, with the last line of its log."""
        try:
            lines = self._paths.log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS_MAX:].splitlines()
        except OSError:
            lines = []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"The supervisor of local commands died at startup ({how}): {last}. Its log: {self._paths.log}"

    def fileno(self) -> int:
        """Return a descriptor that is readable when `receive` has something."""
        return self._line.fileno()

    def send(self, message: list[Any]) -> bool:
        """Send a message; return False if the supervisor is gone."""
        try:
            self._line.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[list[Any]] | None:
        """Return the available messages without waiting, or None if the supervisor is gone."""
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
        """Close the connection."""
        self._line.close()


@contextlib.contextmanager
def _lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of a running supervisor; yield False if one holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _spawn(paths: SupervisorPaths, idle_timeout: float) -> int:
    """Start the supervisor in its own session; it outlives this process, so its exit is not awaited."""
    words = [sys.executable, "-I", "-S", "-B", str(supervisor.__file__)]
    words += ["--socket", str(paths.socket), "--journal", str(paths.journal), "--lock", str(paths.lock)]
    words += ["--idle-timeout", str(idle_timeout), "--elsewhere", str(temporary_runtime_directory())]
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
