"""Holds commands to the memory that they asked for: in a cgroup where one can be made, else by watching.

Part of the supervisor's program: it imports nothing but the standard library, and little of that.

A command in a cgroup is never outside of it: the process that becomes the command enters first. When the kernel killed
something there because the limit was reached, the rest is killed too, so that no shell lives on half-dead.

Elsewhere the process groups are measured by a scan of /proc, at an interval that is long beside the time it takes; what
holds more than it asked for is killed. Pages that processes share count once.
"""

from __future__ import annotations

import os
import signal
import time

from jobmon.plugins.local import cgroups
from jobmon.plugins.local.attempts import GIB, RSS_UNIT

WATCH_INTERVAL_SECONDS = 0.1
#: The pause between two looks at the memory of commands, in times of the CPU time of a look: at most 2 % of a CPU.
WATCH_PAUSE_FACTOR = 50
WATCH_INTERVAL_SECONDS_MAX = 2.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Places of fields in /proc/<pid>/stat after the name.
_STAT_GROUP, _STAT_PAGES = 2, 21
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from resource import struct_rusage

    from jobmon.plugins.local.attempts import Running


class MemoryLimits:
    """The limits of the commands that run.

    Args:
        note_folder: told the folder of our cgroups when there is one.
    """

    def __init__(self, note_folder: Callable[[str], None]) -> None:
        #: Whether cgroups may be made at all.
        self.may_use_groups = True
        self._note_folder = note_folder
        self._is_sought = False
        self._groups: cgroups.Groups | None = None
        self._left: list[cgroups.Group] = []  # their commands ended, but not all that those had started
        self._held: dict[int, Running] = {}  # by pid
        self._look_at = 0.0

    def new_group(self, identity: int, memory: float) -> cgroups.Group | None:
        """Make a cgroup with so many GiB; None: the command has to be watched."""
        if not self.may_use_groups:
            return None
        if not self._is_sought:
            self._is_sought = True
            self._groups = cgroups.found()
            if self._groups is not None:
                self._note_folder(self._groups.folder)
        try:
            return self._groups.make(identity, int(memory * GIB)) if self._groups is not None else None
        except OSError:
            return None

    def hold(self, attempt: Running) -> None:
        """See to the limit of a command that was started."""
        if not self._held:
            self._look_at = time.monotonic() + WATCH_INTERVAL_SECONDS
        self._held[attempt.pid] = attempt

    def release(self, attempt: Running, status: int, usage: struct_rusage) -> None:
        """Note of a command that ended what it used, and whether the kernel ended it for that before we saw it."""
        if self._held.pop(attempt.pid, None) is None:
            return
        if attempt.group is not None:
            attempt.peak = attempt.group.peak_bytes()
            is_starved = attempt.group.was_too_small()
        else:
            code = os.waitstatus_to_exitcode(status)
            is_starved = code == -signal.SIGKILL and usage.ru_maxrss * RSS_UNIT > attempt.memory * GIB
            attempt.over_memory = attempt.over_memory and code != 0  # it was done before it was killed
        if is_starved and not attempt.killed:
            attempt.over_memory = True

    def remove(self, group: cgroups.Group) -> None:
        """Remove a cgroup as soon as nothing is in it."""
        if not group.remove():
            self._left.append(group)

    def next_look(self) -> float | None:
        """Return when there is something to look at, or None."""
        return self._look_at if self._held or self._left else None

    def look(self) -> None:
        """If it is time: kill what uses more than it asked for, and remove cgroups that have become empty."""
        if not (self._held or self._left) or time.monotonic() < self._look_at:
            return
        begun = time.thread_time()
        for attempt in self._over():
            attempt.over_memory = True
            attempt.kill()
        self._left = [group for group in self._left if not group.remove()]
        interval = WATCH_INTERVAL_SECONDS if self._held else WATCH_INTERVAL_SECONDS_MAX
        pause = max(interval, WATCH_PAUSE_FACTOR * (time.thread_time() - begun))
        self._look_at = time.monotonic() + min(pause, WATCH_INTERVAL_SECONDS_MAX)

    def _over(self) -> list[Running]:
        watched = {pid: attempt for pid, attempt in self._held.items() if attempt.group is None}
        used = _measured(watched) if watched else {}
        found = []
        for pid, attempt in self._held.items():
            if attempt.group is not None:
                is_over = attempt.group.was_too_small()
            else:
                attempt.peak = max(attempt.peak, used[pid])
                is_over = used[pid] > attempt.memory * GIB
            if is_over and not attempt.killed:
                found.append(attempt)
        return found

    def leave(self) -> None:
        """Remove what is empty."""
        if self._groups is not None:
            self._groups.close()


def _measured(watched: dict[int, Running]) -> dict[int, int]:
    """Return how many bytes the process groups of these hold; shared pages are divided before one is too large."""
    found = {}
    for pid, members in group_memory(watched).items():
        found[pid] = sum(members.values())
        if found[pid] > watched[pid].memory * GIB:
            found[pid] = sum(proportional_bytes(member, held) for member, held in members.items())
    return found


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
