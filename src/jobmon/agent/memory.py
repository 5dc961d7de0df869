"""Memory of commands: enforce the limits that they requested, and detect whether they ran out of memory.

A command in a cgroup is in it from the start: the forked child enters before it executes the command. If the kernel
kills a process there because the limit is reached, the others are killed too, so that no broken shell keeps running.

Without a cgroup, process groups are measured by scanning /proc, at intervals much longer than a scan takes. An attempt
that uses more than it requested is killed. Pages shared by processes count once.

In a job of a cluster that enforces memory limits itself, nothing is measured: the kernel counts its OOM kills in the
control group of the job.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import _signal
import os
import time

GIB = 1024**3
WATCH_INTERVAL_SECONDS = 0.1
#: The pause between two measurements of memory, as a multiple of the CPU time of one: at most 2 % of a CPU.
WATCH_PAUSE_FACTOR = 50
WATCH_INTERVAL_SECONDS_MAX = 2.0
#: Exit code of a shell whose command was killed.
KILLED_EXIT_CODE = 137
CGROUPS_FILE = "/proc/self/cgroup"
CGROUPS_ROOT = "/sys/fs/cgroup"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Positions of fields in /proc/<pid>/stat after the name.
_STAT_GROUP, _STAT_PAGES = 2, 21
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobmon.agent import cgroups
    from jobmon.agent.attempts import Attempt


class Memory:
    """The memory of the commands of one program.

    Args:
        job_width: the number of concurrent commands of a job whose cluster enforces its limit; None: no such job.
        note_folder: called with the folder of our cgroups once it is created.
    """

    def __init__(self, job_width: int | None = None, note_folder: Callable[[str], None] | None = None) -> None:
        #: Whether cgroups may be created at all.
        self.may_use_groups = True
        self.job_width = job_width
        self._job_kills = OomKills() if job_width is not None else None
        self._note_folder = note_folder
        self._is_sought = False
        self._groups: cgroups.Groups | None = None
        self._left: list[cgroups.Group] = []  # groups that are not empty yet
        self._held: dict[int, Attempt] = {}  # by PID
        self._look_at = 0.0

    def new_group(self, identity: int, memory: float) -> cgroups.Group | None:
        """Create a cgroup limited to `memory` GiB; None: the command must be measured, or requested no memory."""
        if not memory or not self.may_use_groups:
            return None
        if not self._is_sought:
            from jobmon.agent import cgroups  # workers of clusters never need it

            self._is_sought = True
            self._groups = cgroups.found()
            if self._groups is not None and self._note_folder is not None:
                self._note_folder(self._groups.folder)
        try:
            return self._groups.make(identity, int(memory * GIB)) if self._groups is not None else None
        except OSError:
            return None

    def hold(self, attempt: Attempt) -> None:
        """Begin to enforce the limit of a command that was started."""
        if self._job_kills is not None:
            attempt.oom_kills = self._job_kills.count()
        elif attempt.launch.memory:
            if not self._held:
                self._look_at = time.monotonic() + WATCH_INTERVAL_SECONDS
            self._held[attempt.pid] = attempt

    def release(self, attempt: Attempt) -> None:
        """Record the peak memory of a command that exited, and whether it ran out of memory."""
        self.forget(attempt)
        if attempt.group is not None:
            attempt.peak_bytes = max(attempt.peak_bytes, attempt.group.peak_bytes())
        elif attempt.exit_code == 0:
            attempt.pardon()
        if self._was_starved(attempt):
            attempt.starve()

    def forget(self, attempt: Attempt) -> None:
        """Stop measuring an attempt."""
        self._held.pop(attempt.pid, None)

    def _was_starved(self, attempt: Attempt) -> bool:
        if attempt.group is not None:
            return attempt.group.was_too_small()
        if self._job_kills is None:
            limit = attempt.launch.memory * GIB
            return bool(limit) and attempt.signal == _signal.SIGKILL and attempt.peak_bytes > limit
        if attempt.exit_code == 0 or self._job_kills.count() <= attempt.oom_kills:
            return False
        is_hit = attempt.signal == _signal.SIGKILL or attempt.exit_code == KILLED_EXIT_CODE
        return is_hit or self.job_width == 1  # with several concurrent commands, only one that was itself killed counts

    def remove(self, group: cgroups.Group) -> None:
        """Remove a cgroup, now or once it is empty."""
        if not group.remove():
            self._left.append(group)

    def next_look(self) -> float | None:
        """Return when the next measurement is due, monotonic seconds, or None."""
        return self._look_at if self._held or self._left else None

    def look(self) -> list[Attempt]:
        """If due, return the attempts that exceed their limit, and remove cgroups that have become empty."""
        if not (self._held or self._left) or time.monotonic() < self._look_at:
            return []
        begun = time.thread_time()
        found = self._over()
        self._left = [group for group in self._left if not group.remove()]
        interval = WATCH_INTERVAL_SECONDS if self._held else WATCH_INTERVAL_SECONDS_MAX
        pause = max(interval, WATCH_PAUSE_FACTOR * (time.thread_time() - begun))
        self._look_at = time.monotonic() + min(pause, WATCH_INTERVAL_SECONDS_MAX)
        return found

    def _over(self) -> list[Attempt]:
        watched = {pid: attempt.launch.memory * GIB for pid, attempt in self._held.items() if attempt.group is None}
        used = _measured(watched) if watched else {}
        found = []
        for pid, attempt in self._held.items():
            if attempt.group is not None:
                is_over = attempt.group.was_too_small()
            else:
                attempt.peak_bytes = max(attempt.peak_bytes, used[pid])
                is_over = used[pid] > watched[pid]
            if is_over:
                found.append(attempt)
        return found

    def leave(self) -> None:
        """Remove empty cgroups."""
        if self._groups is not None:
            self._groups.close()


def _measured(limits: dict[int, float]) -> dict[int, int]:
    """Return the bytes used by each process group; before one counts as over its limit, shared pages are divided."""
    found = {}
    for group, members in group_memory(limits).items():
        found[group] = sum(members.values())
        if found[group] > limits[group]:
            found[group] = sum(proportional_bytes(member, held) for member, held in members.items())
    return found


def group_memory(groups: Iterable[int]) -> dict[int, dict[int, int]]:
    """Return the memory of the processes of these groups: group -> PID -> bytes. Empty if there is no /proc."""
    found: dict[int, dict[int, int]] = {group: {} for group in groups}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rsplit(b")", 1)[1].split()
        except (OSError, IndexError):
            continue  # the process has exited meanwhile
        members = found.get(int(fields[_STAT_GROUP]))
        if members is not None:
            members[int(name)] = int(fields[_STAT_PAGES]) * _PAGE_BYTES
    return found


def proportional_bytes(pid: int, held: int) -> int:
    """Return a process's memory with shared pages divided among their users (PSS); `held` if it is unknown."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            line = next(line for line in file if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        return held
    return int(line.split()[1]) * 1024


class OomKills:
    """Count the OOM kills in this process's own control groups; 0 if the kernel does not report them."""

    def __init__(self, cgroups_file: str = CGROUPS_FILE, root: str = CGROUPS_ROOT) -> None:
        self._paths = [path for path in _counters(cgroups_file, root) if _counted(path) is not None]

    def count(self) -> int:
        """Return the number of OOM kills so far."""
        return sum(_counted(path) or 0 for path in self._paths)


def _counters(cgroups_file: str, root: str) -> list[str]:
    try:
        with open(cgroups_file, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found.append(f"{root}{path}/memory.events")
        elif "memory" in controllers.split(","):
            found.append(f"{root}/memory{path}/memory.oom_control")
    return found


def _counted(path: str) -> int | None:
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    except (OSError, ValueError):
        return None
    return None
