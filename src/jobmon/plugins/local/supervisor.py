"""The supervisor of local commands: starts them, waits for them, tells how they ended. It decides nothing.

A program of its own, started as `python -I -S supervisor.py --socket PATH --journal PATH`, because the ending of a
process is told to its parent only: the parent must be small (a spawn from a large process is ten times slower, and
the peak memory of a child begins at its parent's) and must not die with the distributor. So it imports a few modules
of the standard library, and of ours `commands.py` and what that is made of: those keep to the same rule.

It speaks JSON arrays, one per line, over a Unix socket; the newest connection wins. It hears

    ["setup", {environment, cores, memory, interrupt_timeout, cgroups}]     before anything else
    ["launch", [[id, argv, env, cwd, umask, stdout, stderr, runtime, cores, memory], ...]]
    ["kill", [id, ...], seconds between SIGINT and SIGKILL]
    ["limit", cores]                    so many cores from now on; answered by ["limited", cores]
    ["recall"]                          forget what has not been started; answered by ["recalled", ids]
    ["acknowledge", [id, ...]]          these endings are recorded elsewhere
    ["end"]                             leave as soon as nothing runs and nobody is connected

and says

    ["hello", {pid, boot_id, live: [[id, pid, started], ...], ended: [ending, ...]}]
    ["news", [[id, pid, started], ...], [ending, ...]]
    ["replaced"]                        somebody else connected

with ending = [id, pid, exit code, signal, why not started, timed out, started, ended, CPU seconds, peak bytes,
bytes read, bytes written, killed, memory limit for which it was killed]. Launches are started in order as long as their
cores and memory fit beside what runs: a few of them waiting here spare a short command the way to the distributor and
back. What waits is forgotten when the connection ends.

A command that asked for memory (GiB) is held to it, see `memory.py`. The peak that is told is the largest of what was
seen there and of the kernel's for a single process.

The journal is append-only, on a local disk, and written before anybody is told: ["b", pid, boot id] at its head,
["g", folder] when cgroups are made there, ["s", id, pid, started, boot clock] and ["e", *ending]. The boot clock
(seconds since boot) is the process's start time as the kernel gives it, without the price of reading /proc.
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

if __name__ == "__main__":  # started by its path with `-I -S` it finds the standard library only
    sys.path.append(os.path.dirname(os.path.abspath(__file__)).removesuffix("jobmon/plugins/local"))
from jobmon.plugins.local.attempts import Journal, boot_id, encode, unlink
from jobmon.plugins.local.commands import Commands

IDLE_TIMEOUT_SECONDS = 60.0
RECEIVE_BYTES = 1024 * 1024
#: A reader that has fallen this far behind is dropped; it finds everything again when it connects.
BACKLOG_BYTES_MAX = 64 * 1024 * 1024
#: While launches wait here nobody starves, so news may gather this long.
GATHER_SECONDS = 0.008
_decode = json.JSONDecoder().decode
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Connection:
    """The line to the distributor. Nothing here blocks."""

    def __init__(self, line: socket.socket) -> None:
        line.setblocking(False)
        self.line = line
        self.backlog = b""
        self._received = b""

    def send(self, text: str) -> bool:
        """Send a line of JSON, or keep what the other side does not take yet; False: as `flush`."""
        self.backlog += text.encode() + b"\n"
        return self.flush()

    def flush(self) -> bool:
        """Send what is left; False: the other side is gone or reads nothing."""
        try:
            while self.backlog:
                self.backlog = self.backlog[self.line.send(self.backlog) :]
        except BlockingIOError:
            return len(self.backlog) <= BACKLOG_BYTES_MAX
        except OSError:
            return False
        return True

    def receive(self) -> list[list[Any]] | None:
        """Return the messages that are complete, or None at the end."""
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
        """Hang up."""
        self.line.close()


class Supervisor:
    """The loop around the commands."""

    def __init__(self, socket_path: str, journal_path: str, idle_timeout: float) -> None:
        self._socket_path = socket_path
        self._journal = Journal(journal_path)
        self._commands = Commands(self._journal)
        self._idle_timeout = idle_timeout
        self._alone_since = time.monotonic()
        self._connection: Connection | None = None
        self._told_at = 0.0
        self._watching_behind = False
        self._poll = select.poll()
        self._listener = self._listen()
        self._wake = self._catch_children()
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def _listen(self) -> socket.socket:
        unlink(self._socket_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        former = os.umask(0o177)
        listener.bind(self._socket_path)
        os.umask(former)
        listener.listen(8)
        listener.setblocking(False)
        return listener

    @staticmethod
    def _catch_children() -> int:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it ends with its work, not with a session
        return reader

    def run(self) -> None:
        """Serve until there is nothing left to do."""
        while not self._is_over():
            self._wait()
            self._commands.fire_timers()
            self._commands.watch_memory()
            self._commands.reap()
            self._commands.start_waiting()
            self._tell()
        self._leave()

    def _is_over(self) -> bool:
        if self._connection is not None or self._commands.running:
            return False
        return time.monotonic() - self._alone_since >= self._idle_timeout

    def _leave(self) -> None:
        self._commands.leave()
        if not self._commands.ended:
            self._journal.remove()
        unlink(self._socket_path)

    def _wait(self) -> None:
        for descriptor, event in self._poll.poll(self._timeout_milliseconds()):
            if descriptor == self._wake:
                _drain(self._wake)
            elif descriptor == self._listener.fileno():
                self._accept()
            elif self._connection is not None and descriptor == self._connection.line.fileno():
                self._converse(self._connection, event)

    def _timeout_milliseconds(self) -> int | None:
        due = self._commands.next_look()
        if self._connection is None and not self._commands.running:
            due = self._alone_since + self._idle_timeout
        if self._commands.has_news():
            due = self._told_at + GATHER_SECONDS
        return None if due is None else max(0, int((due - time.monotonic()) * 1000) + 1)

    def _accept(self) -> None:
        try:
            line, _ = self._listener.accept()
        except OSError:
            return
        if self._connection is not None:
            self._connection.send('["replaced"]')
            self._hang_up()
        self._connection = Connection(line)
        self._poll.register(line, select.POLLIN)
        self._greet()

    def _greet(self) -> None:
        commands = self._commands
        commands.record()
        commands.fresh_starts.clear()
        commands.fresh_endings.clear()
        live = ",".join([one.told() for one in commands.running.values()])
        ended = ",".join(commands.ended.values())
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
            self._tell(at_once=True)  # whoever hears the answer knows all that was started before
            self._send(encode(["limited", rest[0]]))
        elif kind == "end":
            self._idle_timeout = 0.0

    def _tell(self, *, at_once: bool = False) -> None:
        """Record what happened, then pass it on: at once, unless so much waits here that nobody starves meanwhile."""
        commands = self._commands
        if not commands.has_news():
            return
        now = time.monotonic()
        if not at_once and len(commands.waiting) > len(commands.running) and now - self._told_at < GATHER_SECONDS:
            return
        self._told_at = now
        commands.record()
        starts = ",".join([one.told() for one in commands.fresh_starts.values()])
        endings = ",".join(commands.fresh_endings)
        commands.fresh_starts.clear()
        commands.fresh_endings.clear()
        self._send(f'["news",[{starts}],[{endings}]]')

    def _send(self, text: str) -> None:
        if self._connection is not None and not self._connection.send(text):
            self._hang_up()
        self._watch()

    def _watch(self) -> None:
        """Ask to be told when the other side takes more, while something is left for it."""
        behind = self._connection is not None and bool(self._connection.backlog)
        if behind != self._watching_behind and self._connection is not None:
            self._poll.modify(self._connection.line, select.POLLIN | select.POLLOUT if behind else select.POLLIN)
        self._watching_behind = behind


def _drain(descriptor: int) -> None:
    try:
        while len(os.read(descriptor, 4096)) == 4096:
            pass
    except BlockingIOError:
        return


def _arguments(argv: list[str]) -> tuple[str, str, str, float]:
    options = dict(zip(argv[::2], argv[1::2], strict=True))
    idle = float(options.get("--idle-timeout", IDLE_TIMEOUT_SECONDS))
    return options["--socket"], options["--journal"], options["--lock"], idle


def main(argv: list[str]) -> int:
    """Serve; only one of us may, so a second one leaves at once."""
    socket_path, journal_path, lock_path, idle_timeout = _arguments(argv)
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 1
    gc.disable()  # we make no cycles
    Supervisor(socket_path, journal_path, idle_timeout).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
