"""The supervisor of local commands: starts them, waits for them, tells how they ended. It decides nothing.

A program of its own, started as `python -I -S supervisor.py --socket PATH --journal PATH`, because the ending of a
process is told to its parent only: the parent must be small (a spawn from a large process is ten times slower, and
the peak memory of a child begins at its parent's) and must not die with the distributor. So this file imports a few
modules of the standard library and nothing else.

It speaks JSON arrays, one per line, over a Unix socket; the newest connection wins. It hears

    ["setup", {environment, cores, memory, interrupt_timeout}]     before anything else
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

Memory: what asked for some (GiB) is killed when its process group uses more. Groups are measured by a scan of /proc at
an interval that is long beside the time it takes; pages that processes share count once. The peak that is told is the
largest of those measurements and of the kernel's for a single process.

The journal is append-only, on a local disk, and written before anybody is told: ["b", pid, boot id] at its head,
["s", id, pid, started, boot clock] and ["e", *ending]. The boot clock (seconds since boot) is the process's start
time as the kernel gives it, without the price of reading /proc.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import heapq
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque

IDLE_TIMEOUT_SECONDS = 60.0
INTERRUPT_TIMEOUT_SECONDS = 10.0
JOURNAL_BYTES_MAX = 4 * 1024 * 1024
RECEIVE_BYTES = 1024 * 1024
#: A reader that has fallen this far behind is dropped; it finds everything again when it connects.
BACKLOG_BYTES_MAX = 64 * 1024 * 1024
#: While launches wait here nobody starves, so news may gather this long.
GATHER_SECONDS = 0.008
FRACTION = 1e-9
WATCH_INTERVAL_SECONDS = 0.1
#: The pause between two looks at the memory of commands, in times of the CPU time of a look: at most 2 % of a CPU.
WATCH_PAUSE_FACTOR = 50
WATCH_INTERVAL_SECONDS_MAX = 2.0
GIB = 1024**3
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Places of fields in /proc/<pid>/stat after the name.
_STAT_GROUP, _STAT_PAGES = 2, 21

_READ_NULL = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
_ERRORS_TO_OUTPUT = (os.POSIX_SPAWN_DUP2, 1, 2)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Python and we ignore these; a command shall find them as every other program does.
_RESET = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_BLOCK_BYTES = 512
_clock_boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode = json.JSONDecoder().decode
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from resource import struct_rusage
    from typing import Any


def boot_id() -> str:
    """Return what tells this boot of the machine from others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class Running:
    """A command that runs."""

    __slots__ = (
        "cores",
        "identity",
        "killed",
        "memory",
        "over_memory",
        "peak",
        "pid",
        "started",
        "started_boot",
        "timed_out",
    )

    def __init__(self, identity: int, pid: int, cores: float, memory: float) -> None:
        self.identity = identity
        self.pid = pid
        self.cores = cores
        self.memory = memory
        self.started = time.time()
        self.started_boot = time.clock_gettime(_clock_boot)
        self.killed = False
        self.over_memory = False
        self.peak = 0
        self.timed_out = False

    def journal_line(self) -> str:
        """Return what the journal says of it."""
        return f'["s",{self.identity},{self.pid},{self.started},{self.started_boot}]\n'

    def told(self) -> str:
        """Return what the distributor hears of it."""
        return f"[{self.identity},{self.pid},{self.started}]"


def not_started(identity: int, why: str) -> str:
    """Return the ending, as JSON, of a command that was not started."""
    now = time.time()
    return f"[{identity},0,null,null,{_encode(why)},false,{now},{now},null,null,null,null,false,null]"


def ending(attempt: Running, status: int, usage: struct_rusage) -> str:
    """Return how a command ended, as JSON: once for the journal and the distributor, by hand because it is hot."""
    code = os.waitstatus_to_exitcode(status)
    result = f"{code},null" if code >= 0 else f"null,{-code}"
    peak = max(attempt.peak, usage.ru_maxrss * _RSS_UNIT)
    limit = int(attempt.memory * GIB) if attempt.over_memory else "null"
    return (
        f"[{attempt.identity},{attempt.pid},{result},null,{'true' if attempt.timed_out else 'false'},"
        f"{attempt.started},{time.time()},{usage.ru_utime + usage.ru_stime:.6f},{peak},"
        f"{usage.ru_inblock * _BLOCK_BYTES},{usage.ru_oublock * _BLOCK_BYTES},"
        f"{'true' if attempt.killed else 'false'},{limit}]"
    )


def group_memory(groups: Iterable[int]) -> dict[int, dict[int, int]]:
    """Return what the processes of these groups hold: group -> pid -> bytes. Empty where there is no /proc."""
    found: dict[int, dict[int, int]] = {group: {} for group in groups}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rsplit(b")", 1)[1].split()
        except (OSError, IndexError):
            continue  # it ended meanwhile
        members = found.get(int(fields[_STAT_GROUP]))
        if members is not None:
            members[int(name)] = int(fields[_STAT_PAGES]) * _PAGE_BYTES
    return found


def proportional_bytes(pid: int, held: int) -> int:
    """Return a process's memory with shared pages divided among those who share them; `held` if nobody can say."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            line = next(line for line in file if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        return held
    return int(line.split()[1]) * 1024


def journal_line(told: str) -> str:
    """Return what the journal says of an ending."""
    return f'["e",{told[1:]}\n'


class Journal:
    """What happened, on disk. A disk that is full does not stop us: what could not be written is tried again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._head = _encode(["b", os.getpid(), boot_id()]) + "\n"
        self._unwritten = ""
        self._descriptor = -1
        self.size = 0
        self.rewrite([])

    def write(self, lines: Iterable[str]) -> None:
        """Append lines in one write."""
        data = (self._unwritten + "".join(lines)).encode()
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            written = 0
        self.size += written
        if written == len(data):
            self._unwritten = ""
        else:  # the line that was torn is closed and repeated
            torn = data.rfind(b"\n", 0, written) + 1
            self._unwritten = ("\n" if written else "") + data[torn:].decode()
            self._unwritten = self._unwritten[-JOURNAL_BYTES_MAX:]

    def rewrite(self, lines: Iterable[str]) -> None:
        """Begin anew with these lines only."""
        temporary = f"{self._path}.new"
        data = (self._head + "".join(lines)).encode()
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "torn")
            os.rename(temporary, self._path)
        except OSError:
            return
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self.size, self._unwritten = descriptor, len(data), ""

    def remove(self) -> None:
        """Nothing in it is needed any longer."""
        _unlink(self._path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


class Commands:
    """The commands: waiting, running, ended and not yet acknowledged."""

    def __init__(self, journal: Journal) -> None:
        self.waiting: deque[list[Any]] = deque()
        self.running: dict[int, Running] = {}  # by pid
        self.live: dict[int, Running] = {}  # by id
        self.ended: dict[int, str] = {}  # id -> ending, as JSON
        self.fresh_starts: dict[int, Running] = {}  # by id, not yet told
        self.fresh_endings: list[str] = []
        self._journal = journal
        self._lines: list[str] = []
        self._timers: list[tuple[float, int, int, str]] = []  # when, id, pid, what
        self._watched: dict[int, Running] = {}  # by pid: those that asked for memory
        self._watch_at = 0.0
        self._environment: dict[str, str] = {}
        self._cores = float("inf")
        self._memory = float("inf")
        self._cores_used = 0.0
        self._memory_used = 0.0
        self._interrupt_timeout = INTERRUPT_TIMEOUT_SECONDS
        self._directory: str | None = None
        self._umask: int | None = None

    def set_up(self, setup: dict[str, Any]) -> None:
        """Take the environment of commands and how much may run at once."""
        self._environment = setup["environment"]
        self._cores = setup["cores"] if setup["cores"] is not None else float("inf")
        self._memory = setup["memory"] if setup["memory"] is not None else float("inf")
        self._interrupt_timeout = setup["interrupt_timeout"]

    def limit(self, cores: float) -> None:
        """Take how many cores commands may use from now on; what runs goes on."""
        self._cores = cores

    # -- starting ----------------------------------------------------------------------------------------------

    def start_waiting(self) -> None:
        """Start what fits, in order."""
        waiting = self.waiting
        while waiting:
            cores, memory = waiting[0][8], waiting[0][9]
            if self._cores_used + cores > self._cores + FRACTION:
                return
            if self.running and self._memory_used + memory > self._memory + FRACTION:
                return
            self._start(waiting.popleft())

    def _start(self, launch: list[Any]) -> None:
        identity, argv, env, directory, umask, stdout, stderr, runtime, cores, memory = launch
        if identity in self.live or identity in self.ended:
            return  # told twice
        try:
            self._enter(directory, umask)
            pid = self._spawn(argv, env, stdout, stderr)
        except (OSError, ValueError) as error:
            self._note_ending(identity, not_started(identity, _reason(error, argv, directory, stdout, stderr)))
            return
        attempt = Running(identity, pid, cores, memory)
        self.running[pid] = self.live[identity] = self.fresh_starts[identity] = attempt
        self._cores_used += cores
        self._memory_used += memory
        self._lines.append(attempt.journal_line())
        if runtime is not None:
            self._set_timer(runtime, attempt, "time out")
        if memory:
            if not self._watched:
                self._watch_at = time.monotonic() + WATCH_INTERVAL_SECONDS
            self._watched[pid] = attempt

    def _enter(self, directory: str, umask: int) -> None:
        """Both belong to the process, so they are changed only between commands that differ."""
        if directory != self._directory:
            os.chdir(directory)
            self._directory = directory
        if umask != self._umask:
            os.umask(umask)
            self._umask = umask

    def _spawn(self, argv: list[str], env: dict[str, str], stdout: str, stderr: str | None) -> int:
        errors = (os.POSIX_SPAWN_OPEN, 2, stderr, _WRITE, 0o666) if stderr else _ERRORS_TO_OUTPUT
        return os.posix_spawn(
            argv[0],
            argv,
            {**self._environment, **env},
            file_actions=(_READ_NULL, (os.POSIX_SPAWN_OPEN, 1, stdout, _WRITE, 0o666), errors),
            setpgroup=0,
            setsigmask=(),
            setsigdef=_RESET,
        )

    # -- ending ------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect everything that ended."""
        while self.running:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            attempt = self.running.pop(pid, None)
            if attempt is not None:
                self._end(attempt, status, usage)

    def _end(self, attempt: Running, status: int, usage: struct_rusage) -> None:
        del self.live[attempt.identity]
        self.fresh_starts.pop(attempt.identity, None)
        self._cores_used -= attempt.cores
        self._memory_used -= attempt.memory
        if (
            self._watched.pop(attempt.pid, None) is not None
            and not attempt.killed
            and _is_starved(status, usage, attempt)
        ):
            attempt.over_memory = True  # by the kernel, before we saw it
        if attempt.killed:
            _signal_group(attempt.pid, signal.SIGKILL)  # what its leader left
        self._note_ending(attempt.identity, ending(attempt, status, usage))

    def _note_ending(self, identity: int, told: str) -> None:
        self.ended[identity] = told
        self.fresh_endings.append(told)
        self._lines.append(journal_line(told))

    def kill(self, identities: list[int], grace: float) -> None:
        """Interrupt these; what has not ended after `grace` seconds is killed. What waits is not started."""
        wanted = set(identities)
        for launch in [launch for launch in self.waiting if launch[0] in wanted]:
            self.waiting.remove(launch)
            self._note_ending(launch[0], not_started(launch[0], "it was killed before it was started"))
        for identity in identities:
            attempt = self.live.get(identity)
            if attempt is not None and not attempt.killed:
                self._interrupt(attempt, grace)

    def _interrupt(self, attempt: Running, grace: float) -> None:
        attempt.killed = True
        _signal_group(attempt.pid, signal.SIGINT)
        self._set_timer(grace, attempt, "kill")

    def recall(self) -> list[int]:
        """Forget what waits; return the ids."""
        identities = [launch[0] for launch in self.waiting]
        self.waiting.clear()
        return identities

    def watch_memory(self) -> None:
        """Measure what asked for memory, if that is due, and kill what uses more."""
        if not self._watched or time.monotonic() < self._watch_at:
            return
        begun = time.thread_time()
        for pid, members in group_memory(self._watched).items():
            attempt = self._watched[pid]
            used, limit = sum(members.values()), attempt.memory * GIB
            if used > limit:
                used = sum(proportional_bytes(member, held) for member, held in members.items())
            attempt.peak = max(attempt.peak, used)
            if used > limit and not attempt.killed:
                attempt.over_memory = True
                _signal_group(pid, signal.SIGKILL)
        pause = max(WATCH_INTERVAL_SECONDS, WATCH_PAUSE_FACTOR * (time.thread_time() - begun))
        self._watch_at = time.monotonic() + min(pause, WATCH_INTERVAL_SECONDS_MAX)

    # -- time --------------------------------------------------------------------------------------------------

    def _set_timer(self, seconds: float, attempt: Running, what: str) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, attempt.identity, attempt.pid, what))

    def next_timer(self) -> float | None:
        """Return when the next timer is due, or None."""
        timers = self._timers
        while timers and timers[0][2] not in self.running:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def next_look(self) -> float | None:
        """Return when there is something to do even if nothing happens, or None."""
        due = [one for one in (self.next_timer(), self._watch_at if self._watched else None) if one is not None]
        return min(due, default=None)

    def fire_timers(self) -> None:
        """Do what is due."""
        while (due := self.next_timer()) is not None and due <= time.monotonic():
            _, identity, pid, what = heapq.heappop(self._timers)
            attempt = self.running[pid]
            if attempt.identity != identity:
                continue
            if what == "kill":
                _signal_group(pid, signal.SIGKILL)
            elif not attempt.killed:
                attempt.timed_out = True
                self._interrupt(attempt, self._interrupt_timeout)

    # -- record ------------------------------------------------------------------------------------------------

    def has_news(self) -> bool:
        """Say whether something happened that is not on disk yet."""
        return bool(self._lines)

    def record(self) -> None:
        """Write to the journal what happened since the last call."""
        if self._lines:
            self._journal.write(self._lines)
            self._lines = []

    def acknowledge(self, identities: list[int]) -> None:
        """Forget these endings; begin the journal anew when it grew large or holds nothing any more."""
        for identity in identities:
            self.ended.pop(identity, None)
        quiet = not self.running and not self.ended and self._journal.size > JOURNAL_BYTES_MAX // 64
        if quiet or self._journal.size > JOURNAL_BYTES_MAX + 512 * (len(self.running) + len(self.ended)):
            self.record()
            lines = [attempt.journal_line() for attempt in self.running.values()]
            self._journal.rewrite(lines + [journal_line(told) for told in self.ended.values()])


def _is_starved(status: int, usage: struct_rusage, attempt: Running) -> bool:
    by_others = os.waitstatus_to_exitcode(status) == -signal.SIGKILL and not attempt.killed
    return by_others and usage.ru_maxrss * _RSS_UNIT > attempt.memory * GIB


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except OSError:
        return


def _reason(error: OSError | ValueError, argv: list[str], directory: str, stdout: str, stderr: str | None) -> str:
    """Say in words why a command could not be started: the kernel's error does not tell which step failed."""
    if isinstance(error, ValueError):
        return f"the command cannot be started: {error}"
    if error.errno == errno.E2BIG:
        return "the command is longer than the system allows (argument list too long)"
    if not os.path.isdir(directory) or not os.access(directory, os.X_OK):
        return f"its working directory {directory!r} cannot be entered: {error.strerror}"
    for path in filter(None, (stdout, stderr)):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666))
        except OSError as problem:
            return f"its output file {path!r} cannot be written: {problem.strerror}"
    return f"{argv[0]!r} cannot be started: {error.strerror}"


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
        _unlink(self._socket_path)
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
        self._commands.record()
        if not self._commands.ended:
            self._journal.remove()
        _unlink(self._socket_path)

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
            self._send(_encode(["recalled", commands.recall()]))
        elif kind == "setup":
            commands.set_up(rest[0])
        elif kind == "limit":
            commands.limit(rest[0])
            self._tell(at_once=True)  # whoever hears the answer knows all that was started before
            self._send(_encode(["limited", rest[0]]))
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
