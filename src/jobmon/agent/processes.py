"""Processes of this host: assign them to attempts, and signal them.

An attempt owns more than its process group. A process detached by `setsid`, `timeout`, `set -m` or a double fork loses
its parent, and the kernel reparents it to its nearest *subreaper*. The program that runs the commands makes itself a
subreaper. So all living processes of attempts are descendants of that program, and `owners` assigns them:

1. Descendants of the command of an attempt belong to that attempt.
2. An orphan that was seen before belongs to the same attempt as then. Otherwise it belongs to the attempt whose mark is
   in its environment, else to the attempt in whose process group or session it is.
3. An orphan about which nothing is known belongs to the only live attempt, if there is exactly one and no command is
   being started whose process is not known yet.

Commands are never started by the main thread (see `starting.py`), but orphans become children of the main thread. So
`reap_orphans` costs one system call, and `/proc` is read only if there are orphans.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import _signal
import os
import sys
import time

#: Set for all processes of an attempt: `<random>-<attempt>`, appended to the mark of an enclosing attempt.
MARK_VARIABLE = "JOBMON_ATTEMPT_MARK"
#: The data folder of the server for which the attempt runs.
DATA_VARIABLE = "JOBMON_ATTEMPT_DATA_DIR"
MARK_SEPARATOR = ":"
RANDOM_BYTES = 8
#: Maximum number of bytes read of an environment or a command line.
CONTENT_BYTES_MAX = 4 * 1024 * 1024
READ_BYTES = 65_536
STAT_BYTES_MAX = 4_096
#: Maximum number of times that one call searches for processes started while others were killed.
KILL_ROUNDS_MAX = 10
#: Maximum time until a killed process is dead, unless it sleeps in the kernel.
DYING_SECONDS_MAX = 5.0
DYING_PAUSE_SECONDS = 0.01
IS_LINUX = sys.platform.startswith("linux")
_PR_SET_CHILD_SUBREAPER = 36
#: Flag for `wait`: children of the calling thread only.
_WNOTHREAD = 0x2000_0000
#: Positions of fields in /proc/<pid>/stat after the name.
_STATE, _PARENT, _GROUP, _SESSION, _STARTED = 0, 1, 2, 3, 19
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping


class Process:
    """One process as listed by the kernel. `started` is in ticks since boot, so PID and `started` are unique."""

    __slots__ = ("group", "parent", "pid", "session", "started")

    def __init__(self, pid: int, parent: int, group: int, session: int, started: int) -> None:
        self.pid = pid
        self.parent = parent
        self.group = group
        self.session = session
        self.started = started

    @property
    def key(self) -> tuple[int, int]:
        """What distinguishes it from later processes with its PID."""
        return self.pid, self.started


def become_subreaper() -> bool:
    """Make this process the subreaper of its descendants; return False if that is not possible."""
    if not IS_LINUX:
        return False
    try:
        import _ctypes  # half the cost of `ctypes`, and each worker runs only one task

        prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]  # None: this program
        return bool(_ctypes.call_function(prctl, (_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0)
    except (ImportError, AttributeError, OSError):
        return False


def reap_orphans() -> tuple[int, bool]:
    """Reap dead orphans. Must be called by the main thread, whose children orphans are.

    Returns:
        The number of dead orphans, and whether others are still alive.
    """
    count = 0
    try:
        while os.waitpid(-1, os.WNOHANG | _WNOTHREAD)[0]:
            count += 1
    except ChildProcessError:
        return count, False
    return count, True


# -- inspecting --------------------------------------------------------------------------------------------------


def read(pid: int) -> Process | None:
    """Return a living process; None: it does not exist or is a zombie."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        fields = os.read(descriptor, STAT_BYTES_MAX).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if len(fields) <= _STARTED or fields[_STATE] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[_PARENT]), int(fields[_GROUP]), int(fields[_SESSION]), int(fields[_STARTED]))


def table() -> dict[int, Process]:
    """Return all living processes of this host; empty if there is no /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return {}
    found = (read(int(name)) for name in names if name.isdigit())
    return {one.pid: one for one in found if one is not None}


def below(processes: Mapping[int, Process], roots: Iterable[int], spared: Collection[int] = ()) -> Iterator[Process]:
    """Yield the given processes and all their descendants, parents first.

    Args:
        processes: as `table` returns them.
        roots: PIDs of the processes to start from.
        spared: PIDs to leave out, together with their descendants.
    """
    children: dict[int, list[Process]] = {}
    for one in processes.values():
        children.setdefault(one.parent, []).append(one)
    waiting = [processes[pid] for pid in roots if pid in processes]
    seen = set(spared)
    while waiting:
        one = waiting.pop()
        if one.pid not in seen:
            seen.add(one.pid)
            yield one
            waiting += children.get(one.pid, ())


def owners(
    processes: Mapping[int, Process],
    agent: int,
    leaders: Mapping[int, int],
    groups: Mapping[int, int],
    known: Mapping[tuple[int, int], int],
    marked: Callable[[int], int | None],
    spared: Collection[int] = (),
    *,
    is_complete: bool = True,
) -> dict[int | None, list[Process]]:
    """Return attempt -> its living processes, by the rules in the module docstring; None -> unassigned orphans.

    Args:
        processes: as `table` returns them.
        agent: PID of the program that runs the commands.
        leaders: PID -> attempt, for commands that have not exited.
        groups: process group -> attempt, for all live attempts.
        known: key of a process -> attempt, for processes that were seen before.
        marked: returns the attempt named by a process's mark.
        spared: PIDs that belong to no attempt.
        is_complete: whether `leaders` contains all commands that were started.
    """
    found: dict[int | None, list[Process]] = {}
    here = set(groups.values())
    for root in [one for one in processes.values() if one.parent == agent]:
        if root.pid in spared:
            continue
        owner = leaders.get(root.pid)
        if owner is None:
            owner = _owner_of_orphan(root, here, groups, known, marked, is_complete=is_complete)
        found.setdefault(owner, []).extend(below(processes, [root.pid], spared))
    return found


def _owner_of_orphan(
    orphan: Process,
    here: Collection[int],
    groups: Mapping[int, int],
    known: Mapping[tuple[int, int], int],
    marked: Callable[[int], int | None],
    *,
    is_complete: bool,
) -> int | None:
    owner = known.get(orphan.key)
    if owner is None:
        owner = marked(orphan.pid)
    if owner is not None:
        return owner if owner in here else None
    owner = groups.get(orphan.group, groups.get(orphan.session))
    return next(iter(here)) if owner is None and len(here) == 1 and is_complete else owner


# -- marks -------------------------------------------------------------------------------------------------------


class Marks:
    """The marks of one program's attempts, so that no program mistakes another's processes for its own.

    Args:
        root: prefix that no other program uses in its marks; default: random.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root or os.urandom(RANDOM_BYTES).hex()

    def of(self, attempt: int, outer: str = "") -> str:
        """Return the value of `MARK_VARIABLE` for an attempt.

        Args:
            attempt: ID of the attempt.
            outer: the value in the environment of this program, which may itself run inside an attempt.
        """
        own = f"{self.root}-{attempt}"
        return f"{outer}{MARK_SEPARATOR}{own}" if outer else own

    def attempt_in(self, value: str) -> int | None:
        """Return the attempt named by a mark; None: the mark belongs to another program."""
        for word in value.split(MARK_SEPARATOR):
            root, _, attempt = word.rpartition("-")
            if root == self.root and attempt.isdigit():
                return int(attempt)
        return None

    def attempt_of(self, pid: int) -> int | None:
        """Return the attempt whose mark is in a process's environment, or None."""
        return self.attempt_in(mark_of(pid))


def mark_of(pid: int) -> str:
    """Return the mark in a process's environment; "": it has none, or we may not read it."""
    wanted = f"{MARK_VARIABLE}=".encode()
    for line in _content(f"/proc/{pid}/environ").split(b"\0"):
        if line.startswith(wanted):
            return line[len(wanted) :].decode(errors="replace")
    return ""


def is_executing(pid: int) -> bool:
    """Return whether a process is in the middle of an exec, with neither a command line nor an environment."""
    return not _content(f"/proc/{pid}/cmdline")


def _content(path: str) -> bytes:
    content = b""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return content
    try:
        while (piece := os.read(descriptor, READ_BYTES)) and len(content) < CONTENT_BYTES_MAX:
            content += piece
    except OSError:
        return content
    finally:
        os.close(descriptor)
    return content


# -- signalling --------------------------------------------------------------------------------------------------


def signal_group(pid: int, number: int) -> bool:
    """Send a signal to a process group; return False if it contains no process that we may signal."""
    try:
        os.killpg(pid, number)
    except OSError:
        return False
    return True


def signal(pid: int, number: int) -> bool:
    """Send a signal to a process; return False if it does not exist or we may not signal it."""
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def kill_all(find: Callable[[], Iterable[int]]) -> int:
    """Kill all processes that `find` returns, repeatedly until it finds no new ones; return their number.

    The lowest PIDs, mostly the oldest, are killed first: a shell that outlives its command would run the next one.
    """
    seen = {0, os.getpid()}
    for _ in range(KILL_ROUNDS_MAX):
        pids = set(find()) - seen
        if not pids:
            break
        seen |= pids
        for pid in sorted(pids):
            signal(pid, _signal.SIGKILL)
    return len(seen) - 2


def end_left(agent: int, root: str, leaders: Collection[int], spared: Collection[int] = ()) -> int:
    """Kill the leftovers of a dead program's commands and wait for their end; return the number of processes.

    Args:
        agent: PID of the program, whose session its commands shared.
        root: root of its marks; "": it used none.
        leaders: PIDs of its commands that are known to be alive.
        spared: PIDs to leave alone.
    """
    marks = Marks(root) if root else None

    def find() -> Iterator[int]:
        processes = table()
        roots = [
            one.pid
            for one in processes.values()
            if one.session == agent or one.group in leaders or (marks and marks.attempt_of(one.pid) is not None)
        ]
        yield from (one.pid for one in below(processes, roots, spared))

    count = kill_all(find)
    deadline = time.monotonic() + DYING_SECONDS_MAX
    while (is_left := any(True for _ in find())) and time.monotonic() < deadline:
        time.sleep(DYING_PAUSE_SECONDS)
        count += kill_all(find) if is_left else 0  # processes started during the search
    return count


class Bell:
    """Wake up the loop when a child exits, a slow start completes, or a signal arrives. One per process."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)

    def fileno(self) -> int:
        """Return the descriptor that is readable once the bell has rung."""
        return self._reader

    def silence(self) -> None:
        """Reset the bell so that it can ring again."""
        try:
            while len(os.read(self._reader, STAT_BYTES_MAX)) == STAT_BYTES_MAX:
                continue
        except BlockingIOError:
            return
