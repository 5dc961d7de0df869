"""Memory cgroups: the kernel itself holds a command and all its children to the memory that it asked for.

Part of the supervisor's program, so it imports nothing but the standard library, and little of that.

Below a folder where we may make groups each supervisor has one of its own, `jobmon-<pid>`, and in it a group for each
attempt. A command is in its group from its first instruction on: the process that becomes it enters before it does.

Version 1 lets us make groups below our own. In version 2 a group that holds processes has no groups below that count
memory, so ours lies beside the group that we are in: below the nearest one above that hands memory on and that we may
write to; but not past a group with limits of its own, for nothing that we start may escape them.
"""

from __future__ import annotations

import os
import signal

NAME = "jobmon-"
#: How often a group is searched for processes to kill that were not there before.
KILL_ROUNDS_MAX = 20
#: The kernel kills for want of less than this; so a group of version 1 with more room was killed for the whole machine.
ROOM_BYTES_MAX = 1024**2
READ_BYTES = 65_536
PROBE_BYTES = 1024**3
#: Limits of a group of version 2 past which we must not climb. They read "max" where there is none.
_LIMITS = ("memory.max", "memory.high", "cpu.max")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def _read(path: str) -> bytes:
    """Return the content of a file of the kernel, which gives it in pieces; empty if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    content = b""
    try:
        while piece := os.read(descriptor, READ_BYTES):
            content += piece
        return content
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _write_if_there(path: str, value: str) -> None:
    try:
        _write(path, value)
    except FileNotFoundError:
        return  # an older kernel, or one that does not count swap


def _figures(path: str) -> dict[bytes, int]:
    """Return the lines "name number" of a file."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _figure(path: str) -> int:
    content = _read(path).strip()
    return int(content) if content.isdigit() else 0


# -- where we are ------------------------------------------------------------------------------------------------


def own_folder(controller: str = "") -> str | None:
    """Return the folder of the group that this process is in; with a controller: of version 1, else of version 2."""
    mounted = _mount(controller)
    own = _own_path(controller)
    if mounted is None or own is None:
        return None
    root, point = mounted[0].rstrip("/"), mounted[1]
    if not f"{own}/".startswith(f"{root}/") or ".." in own:
        return None  # outside of what is mounted here
    return point + own.removeprefix(root).rstrip("/")


def _mount(controller: str) -> tuple[str, str] | None:
    """Return which part of the hierarchy is mounted, and where."""
    for line in _read("/proc/self/mountinfo").decode(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2) if after.count(" ") >= 2 else ("", "", "")
        is_it = kind == "cgroup" and controller in options.split(",") if controller else kind == "cgroup2"
        if is_it:
            root, point = before.split(" ")[3:5]
            return root, point
    return None


def _own_path(controller: str) -> str | None:
    for line in _read("/proc/self/cgroup").decode(errors="replace").splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    return None


# -- one group ---------------------------------------------------------------------------------------------------


class Group:
    """The group of one attempt."""

    __slots__ = ("_is_v2", "path")

    def __init__(self, path: str, is_v2: bool) -> None:
        self.path = path
        self._is_v2 = is_v2

    def limit(self, limit_bytes: int) -> None:
        """Set how much memory its processes may have together; what is swapped out counts too, or nothing is.

        Raises:
            OSError: the group does not count memory.
        """
        if self._is_v2:
            _write(f"{self.path}/memory.max", str(limit_bytes))
            _write_if_there(f"{self.path}/memory.swap.max", "0")
            _write_if_there(f"{self.path}/memory.oom.group", "1")  # all of it ends, not the process that is largest
        else:
            _write(f"{self.path}/memory.limit_in_bytes", str(limit_bytes))
            _write_if_there(f"{self.path}/memory.memsw.limit_in_bytes", str(limit_bytes))

    def enter(self) -> None:
        """Put the calling process into the group.

        Raises:
            OSError: that is not possible.
        """
        _write(f"{self.path}/cgroup.procs", "0")

    def was_too_small(self) -> bool:
        """Say whether the kernel killed something because this limit was reached (and not for the whole machine)."""
        if self._is_v2:
            events = _figures(f"{self.path}/memory.events")
            return bool(events.get(b"oom_kill") and events.get(b"oom"))
        if not _figures(f"{self.path}/memory.oom_control").get(b"oom_kill"):
            return False
        room = _figure(f"{self.path}/memory.limit_in_bytes") - _figure(f"{self.path}/memory.max_usage_in_bytes")
        return room < ROOM_BYTES_MAX  # memory.failcnt stays 0 in newer kernels

    def peak_bytes(self) -> int:
        """Return the most memory that was in use, less the files that the kernel merely keeps in memory still."""
        stat = _figures(f"{self.path}/memory.stat")
        kept = stat.get(b"file" if self._is_v2 else b"cache", 0) - stat.get(b"shmem", 0)
        peak = _figure(f"{self.path}/{'memory.peak' if self._is_v2 else 'memory.max_usage_in_bytes'}")
        return max(0, peak - max(0, kept))

    def kill(self) -> None:
        """Kill all that is in it."""
        kill_all(self.path)

    def remove(self) -> bool:
        """Remove the group; False: something is still in it."""
        return _is_removed(self.path)


def kill_all(path: str) -> None:
    """Kill all processes of a group. Those of another namespace of processes read as 0."""
    seen = {0, os.getpid()}
    for _ in range(KILL_ROUNDS_MAX):
        pids = {int(pid) for pid in _read(f"{path}/cgroup.procs").split()} - seen
        if not pids:
            return
        seen |= pids
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue


def _is_removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


# -- the groups of a supervisor ----------------------------------------------------------------------------------


class Groups:
    """The groups of the calling process's attempts, and the folder that they are in. Made by `found`."""

    def __init__(self, base: str, is_v2: bool) -> None:
        self.base = base
        self.folder = f"{base}/{NAME}{os.getpid()}"
        self._is_v2 = is_v2

    def open(self) -> None:
        """Make the folder, and see that a process can enter a group in it.

        Raises:
            OSError: that is not possible; nothing is left.
        """
        remove_left(self.folder)
        os.mkdir(self.folder)
        try:
            if self._is_v2:
                _write(f"{self.folder}/cgroup.subtree_control", "+memory")
            _try_out(self.make(0, PROBE_BYTES))
        except OSError:
            self.close()
            raise

    def make(self, identity: int, limit_bytes: int) -> Group:
        """Make the group of an attempt.

        Raises:
            OSError: that is not possible.
        """
        group = Group(f"{self.folder}/{identity}", self._is_v2)
        os.mkdir(group.path)
        try:
            group.limit(limit_bytes)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> None:
        """Remove what is empty."""
        remove_left(self.folder)


def _try_out(group: Group) -> None:
    """Let a process enter that does nothing else."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            group.enter()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    group.remove()
    if status != 0:
        raise PermissionError(f"no process may enter {group.path}")


def found() -> Groups | None:
    """Return where groups can be made, tried out, and remove there what dead supervisors left; None: nowhere."""
    for base, is_v2 in _candidates():
        groups = Groups(base, is_v2)
        try:
            groups.open()
        except OSError:
            continue
        _remove_orphans(base)
        return groups
    return None


def _candidates() -> Iterator[tuple[str, bool]]:
    """Yield folders in which groups may be possible, and whether they are of version 2."""
    own = own_folder("memory")
    if own is not None:
        yield own, False
    folder, top = own_folder(), (_mount("") or ("", ""))[1]
    while folder:
        if b"memory" in _read(f"{folder}/cgroup.subtree_control").split():
            yield folder, True
        if folder == top or _is_limited(folder):
            return
        folder = os.path.dirname(folder)


def _is_limited(folder: str) -> bool:
    return any(
        not _read(f"{folder}/{name}").startswith(b"max") for name in _LIMITS if os.path.exists(f"{folder}/{name}")
    )


# -- what others left --------------------------------------------------------------------------------------------


def kill_left(folder: str, identities: Iterable[int]) -> None:
    """Kill what is left of these attempts of a dead supervisor, and remove those of its groups that are empty."""
    for identity in identities:
        kill_all(f"{folder}/{identity}")
    remove_left(folder)


def remove_left(folder: str) -> None:
    """Remove a supervisor's groups that are empty, and its folder if it is."""
    for name in _names(folder):
        _is_removed(f"{folder}/{name}")
    _is_removed(folder)


def _remove_orphans(base: str) -> None:
    for name in _names(base):
        pid = name.removeprefix(NAME)
        if name.startswith(NAME) and pid.isdigit() and _is_dead(pid):
            remove_left(f"{base}/{name}")


def _is_dead(pid: str) -> bool:
    """Say whether a process has ended; if nobody was told of it yet, too."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] in ([], [b"Z"])


def _names(folder: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
