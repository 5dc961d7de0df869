"""Commands that run or have ended, and the journal of them.

Part of the supervisor's program: it imports nothing but the standard library, and little of that.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time

JOURNAL_BYTES_MAX = 4 * 1024 * 1024
GIB = 1024**3
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_BLOCK_BYTES = 512
_clock_boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from resource import struct_rusage

    from jobmon.plugins.local.cgroups import Group


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
        "group",
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

    def __init__(self, identity: int, pid: int, cores: float, memory: float, group: Group | None = None) -> None:
        self.identity = identity
        self.pid = pid
        self.cores = cores
        self.memory = memory
        self.group = group
        self.started = time.time()
        self.started_boot = time.clock_gettime(_clock_boot)
        self.killed = False
        self.over_memory = False
        self.peak = 0
        self.timed_out = False

    def seconds(self) -> float:
        """Return for how long it has run, also when somebody set the clock meanwhile."""
        return time.clock_gettime(_clock_boot) - self.started_boot

    def journal_line(self) -> str:
        """Return what the journal says of it."""
        return f'["s",{self.identity},{self.pid},{self.started},{self.started_boot}]\n'

    def told(self) -> str:
        """Return what the distributor hears of it."""
        return f"[{self.identity},{self.pid},{self.started}]"

    def kill(self) -> None:
        """Kill its process group and whatever else is in its cgroup."""
        signal_group(self.pid, signal.SIGKILL)
        if self.group is not None:
            self.group.kill()


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group, if it is there."""
    try:
        os.killpg(pid, number)
    except OSError:
        return


def not_started(identity: int, why: str) -> str:
    """Return the ending, as JSON, of a command that was not started."""
    now = time.time()
    return f"[{identity},0,null,null,{encode(why)},false,{now},{now},null,null,null,null,false,null]"


def ending(attempt: Running, status: int, usage: struct_rusage) -> str:
    """Return how a command ended, as JSON: once for the journal and the distributor, by hand because it is hot."""
    code = os.waitstatus_to_exitcode(status)
    result = f"{code},null" if code >= 0 else f"null,{-code}"
    peak = max(attempt.peak, usage.ru_maxrss * RSS_UNIT)
    limit = int(attempt.memory * GIB) if attempt.over_memory else "null"
    return (
        f"[{attempt.identity},{attempt.pid},{result},null,{'true' if attempt.timed_out else 'false'},"
        f"{attempt.started},{attempt.started + attempt.seconds()},{usage.ru_utime + usage.ru_stime:.6f},{peak},"
        f"{usage.ru_inblock * _BLOCK_BYTES},{usage.ru_oublock * _BLOCK_BYTES},"
        f"{'true' if attempt.killed else 'false'},{limit}]"
    )


def journal_line(told: str) -> str:
    """Return what the journal says of an ending."""
    return f'["e",{told[1:]}\n'


class Journal:
    """What happened, on disk. A disk that is full does not stop us: what could not be written is tried again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._head = encode(["b", os.getpid(), boot_id()]) + "\n"
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

    def note_folder(self, folder: str) -> None:
        """Keep where cgroups are made."""
        line = encode(["g", folder]) + "\n"
        self._head += line
        self.write([line])

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
        unlink(self._path)


def unlink(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except OSError:
        return
