"""The supervisor of local commands: starts them, waits for them, and reports their exits. It makes no decisions.

It is a separate program, started as `python -I -S supervisor.py --socket PATH --journal PATH`, because only the parent
of a process is notified of its exit. The parent must be small (a spawn from a large process is ten times slower, and
the peak memory of a child starts at its parent's) and must not die with the distributor. It therefore imports only a
few modules of the standard library, `jobmon.agent`, which does the work, and `commands.py`; these follow the same rule.

It exchanges JSON arrays, one per line, over a Unix socket; the newest connection replaces earlier ones. It receives

    ["setup", {environment, cores, memory, interrupt_timeout, cgroups, access_file}]   before anything else
    ["launch", [[id, argv, env, cwd, umask, stdout, stderr, runtime, cores, memory], ...]]
    ["kill", [id, ...], seconds between SIGINT and SIGKILL]    SIGTERM is sent after half of them
    ["limit", cores]                    use at most this many cores from now on; answered by ["limited", cores]
    ["recall"]                          remove what has not started; answered by ["recalled", ids]
    ["acknowledge", [id, ...]]          these exits are recorded elsewhere
    ["end"]                             exit as soon as nothing runs and no distributor is connected

and sends

    ["hello", {pid, boot_id, live: [[id, pid, started], ...], ended: [ending, ...]}]
    ["news", [[id, pid, started], ...], [ending, ...]]
    ["replaced"]                        another distributor connected

with ending = [id, pid, exit code, signal, why not started, timed out, started, ended, CPU seconds, peak bytes,
bytes read, bytes written, killed, memory limit that it was killed for] and, for a command that did not start, the
failure: [step, errno, path] or null. Launches start in order as long as their cores and memory fit in addition to what
is running; keeping a few of them here saves short commands the round trip to the distributor. Waiting launches are
removed when the connection closes.

The memory request of a command (GiB) is enforced, see `jobmon.agent.memory`. The reported peak is the larger of the
peak measured there and the kernel's value for a single process. An attempt is reported as ended when no process that
its command started remains, see `jobmon.agent.commands`.

The journal is append-only, on a local disk, and written before any report is sent: ["b", pid, boot id, mark] at its
start, ["g", folder] when cgroups are created there, ["s", id, pid, started, boot clock] and ["e", *ending]. The boot
clock (seconds since boot) is the process's start time as given by the kernel, without the cost of reading /proc.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time

if __name__ == "__main__":  # with `-I -S`, only the standard library is found
    sys.path.append(os.path.dirname(os.path.abspath(__file__)).removesuffix("jobmon/plugins/local"))
from jobmon.agent.command_journal import Journal, encode, unlink
from jobmon.agent.machine import boot_id
from jobmon.agent.processes import Bell, Marks
from jobmon.plugins.local.commands import WaitingCommands
from jobmon.plugins.local.runtime_files import RuntimeFiles

IDLE_TIMEOUT_SECONDS = 60.0
#: Exit code of a supervisor that finds another one running.
EXIT_ANOTHER_LIVES = 3
RECEIVE_BYTES = 1024 * 1024
#: A reader with a larger backlog is disconnected; it receives everything again when it reconnects.
BACKLOG_BYTES_MAX = 64 * 1024 * 1024
#: How long reports are collected while launches wait here, so that no slot is idle.
GATHER_SECONDS = 0.008
#: Pause after a connection could not be accepted.
ACCEPT_PAUSE_SECONDS = 1.0
_decode = json.JSONDecoder().decode
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Connection:
    """The connection to the distributor. No method blocks."""

    def __init__(self, line: socket.socket) -> None:
        line.setblocking(False)
        self.line = line
        self.backlog = b""
        self._received = b""

    def send(self, text: str) -> bool:
        """Send a line of JSON; buffer what the distributor does not accept yet. Return False as `flush` does."""
        self.backlog += text.encode() + b"\n"
        return self.flush()

    def flush(self) -> bool:
        """Send buffered data; return False if the distributor is gone or does not read."""
        try:
            while self.backlog:
                self.backlog = self.backlog[self.line.send(self.backlog) :]
        except BlockingIOError:
            return len(self.backlog) <= BACKLOG_BYTES_MAX
        except OSError:
            return False
        return True

    def receive(self) -> list[list[Any]] | None:
        """Return complete messages, or None at the end of the connection."""
        try:
            data = self.line.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [_decode(line.decode()) for line in lines]

    def close(self) -> None:
        """Close the connection."""
        self.line.close()


class Supervisor:
    """The main loop around the commands."""

    def __init__(self, paths: Sequence[str], lock: int, elsewhere: str, idle_timeout: float) -> None:
        self._socket_path, journal_path, _ = paths
        marks = Marks()
        self._journal = Journal(journal_path, marks.root)
        self._commands = WaitingCommands(self._journal, marks)
        self._idle_timeout = idle_timeout
        self._alone_since = time.monotonic()
        self._connection: Connection | None = None
        self._told_at = 0.0
        self._accept_at: float | None = None  # when to listen again after a failed accept
        self._watching_behind = False
        self._poll = select.poll()
        self._listener = self._listen()
        self._files = RuntimeFiles(paths, lock, elsewhere, time.monotonic())
        self._bell = Bell()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it exits when its work is done, not with a session
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)
        if self._files.presence is not None:
            self._poll.register(self._files.presence, select.POLLIN)

    def _listen(self) -> socket.socket:
        unlink(self._socket_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        former = os.umask(0o177)
        listener.bind(self._socket_path)
        os.umask(former)
        listener.listen(8)
        listener.setblocking(False)
        return listener

    def run(self) -> None:
        """Serve until nothing is left to do."""
        while not self._is_over():
            self._wait()
            self._commands.look()
            self._commands.start_waiting()
            self._tell()
            self._commands.record_again()
            self._listen_again()
            self._keep_files()
        self._leave()

    def _is_over(self) -> bool:
        if self._connection is not None or self._commands.running:
            return False
        return time.monotonic() - self._alone_since >= self._idle_timeout

    def _leave(self) -> None:
        self._commands.leave()
        if self._files.is_displaced:
            return
        if not self._commands.ended:
            self._journal.remove()
        unlink(self._socket_path)

    def _wait(self) -> None:
        for descriptor, event in self._poll.poll(self._timeout_milliseconds()):
            if descriptor == self._bell.fileno():
                self._bell.silence()
            elif descriptor == self._listener.fileno():
                self._accept()
            elif self._connection is not None and descriptor == self._connection.line.fileno():
                self._converse(self._connection, event)
            else:
                self._files.greet()

    def _timeout_milliseconds(self) -> int | None:
        due = self._commands.next_look()
        if self._connection is None and not self._commands.running:
            idle_at = self._alone_since + self._idle_timeout
            due = idle_at if due is None else min(due, idle_at)
        if self._commands.has_news():
            due = self._told_at + GATHER_SECONDS
        if self._accept_at is not None:
            due = self._accept_at if due is None else min(due, self._accept_at)
        due = self._files.look_at if due is None else min(due, self._files.look_at)
        return max(0, int((due - time.monotonic()) * 1000) + 1)

    def _keep_files(self) -> None:
        """Recreate socket, lock and journal if they were removed; on failure, retry later."""
        if not self._files.are_due(time.monotonic()):
            return
        if self._files.are_there():
            return
        try:
            if self._files.take_back():
                self._listen_anew()
                self._commands.move_journal(self._files.journal)
                sys.stderr.write(f"the runtime files were removed; recreating them: {self._files.socket}\n")
            else:
                sys.stderr.write("the runtime files were removed, and another supervisor has taken their place\n")
        except OSError as error:
            sys.stderr.write(f"the runtime files were removed and cannot be recreated: {error}\n")

    def _listen_anew(self) -> None:
        if self._accept_at is None:
            self._poll.unregister(self._listener)
        self._accept_at = None
        self._listener.close()
        self._socket_path = self._files.socket
        self._listener = self._listen()
        self._files.note_socket()
        self._poll.register(self._listener, select.POLLIN)

    def _accept(self) -> None:
        try:
            line, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # such as too many open files; unregistered because it stays readable and would spin
            self._poll.unregister(self._listener)
            self._accept_at = time.monotonic() + ACCEPT_PAUSE_SECONDS
            return
        if self._connection is not None:
            self._connection.send('["replaced"]')
            self._hang_up()
        self._connection = Connection(line)
        self._poll.register(line, select.POLLIN)
        self._greet()

    def _listen_again(self) -> None:
        if self._accept_at is not None and time.monotonic() >= self._accept_at:
            self._accept_at = None
            self._poll.register(self._listener, select.POLLIN)

    def _greet(self) -> None:
        live, ended = self._commands.known()
        us = f'"pid":{os.getpid()},"boot_id":"{boot_id()}"'
        self._send(f'["hello",{{{us},"live":[{live}],"ended":[{ended}]}}]')

    def _hang_up(self) -> None:
        self._commands.recall()
        if self._connection is None:
            return
        self._poll.unregister(self._connection.line)
        self._connection.close()
        self._connection = None
        self._alone_since = time.monotonic()

    def _converse(self, connection: Connection, event: int) -> None:
        if event & select.POLLOUT and not connection.flush():
            self._hang_up()
            return
        messages = connection.receive() if event & ~select.POLLOUT else []
        if messages is None:
            self._hang_up()
            return
        for kind, *rest in messages:
            self._obey(kind, rest)
        self._watch()

    def _obey(self, kind: str, rest: list[Any]) -> None:
        commands = self._commands
        if kind == "launch":
            commands.waiting.extend(rest[0])
        elif kind == "acknowledge":
            commands.acknowledge(rest[0])
        elif kind == "kill":
            commands.kill(rest[0], rest[1])
        elif kind == "recall":
            self._send(encode(["recalled", commands.recall()]))
        elif kind == "setup":
            commands.set_up(rest[0])
        elif kind == "limit":
            commands.limit(rest[0])
            self._tell(at_once=True)  # the distributor must know all earlier starts before this answer
            self._send(encode(["limited", rest[0]]))
        elif kind == "end":
            self._idle_timeout = 0.0

    def _tell(self, *, at_once: bool = False) -> None:
        """Record changes, then send them: at once, unless enough launches wait here to keep the slots busy."""
        commands = self._commands
        if not commands.has_news():
            return
        now = time.monotonic()
        if not at_once and len(commands.waiting) > len(commands.running) and now - self._told_at < GATHER_SECONDS:
            return
        self._told_at = now
        starts, endings = commands.record()
        self._send(f'["news",[{starts}],[{endings}]]')

    def _send(self, text: str) -> None:
        if self._connection is not None and not self._connection.send(text):
            self._hang_up()
        self._watch()

    def _watch(self) -> None:
        """Poll for writability while data is buffered for the distributor."""
        behind = self._connection is not None and bool(self._connection.backlog)
        if behind != self._watching_behind and self._connection is not None:
            self._poll.modify(self._connection.line, select.POLLIN | select.POLLOUT if behind else select.POLLIN)
        self._watching_behind = behind


def _arguments(argv: list[str]) -> tuple[tuple[str, str, str], str, float]:
    options = dict(zip(argv[::2], argv[1::2], strict=True))
    idle = float(options.get("--idle-timeout", IDLE_TIMEOUT_SECONDS))
    paths = options["--socket"], options["--journal"], options["--lock"]
    return paths, options.get("--elsewhere", ""), idle


def main(argv: list[str]) -> int:
    """Run the supervisor; a second one exits at once."""
    paths, elsewhere, idle_timeout = _arguments(argv)
    lock = os.open(paths[2], os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return EXIT_ANOTHER_LIVES
    gc.disable()  # no reference cycles are created
    Supervisor(paths, lock, elsewhere, idle_timeout).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
