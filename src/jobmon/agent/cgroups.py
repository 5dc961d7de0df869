"""Memory cgroups: the kernel itself limits a command and all its children to the memory requested.

Below a folder in which we may create groups, each program that runs commands has its own group, `jobmon-<pid>`, which
contains one group per attempt. A command is in its group from its first instruction on: the forked child enters the
group before it executes the command.

Version 1 allows groups below our own. In version 2 a group that contains processes cannot have child groups that
account memory. So we create ours below the nearest ancestor that delegates the memory controller and is writable. We do
not climb past a group with limits of its own, because nothing that we start may escape them.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import os

from jobmon.agent import processes

NAME = "jobmon-"
#: A group's own limit kills only with less headroom than this; with more, a version 1 group was killed for the machine.
ROOM_BYTES_MAX = 1024**2
READ_BYTES = 65_536
PROBE_BYTES = 1024**3
#: Limits of version 2 groups past which we must not climb. They read "max" if no limit is set.
_LIMITS = ("memory.max", "memory.high", "cpu.max")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def _read(path: str) -> bytes:
    """Return the content of a kernel file, which is read in pieces; empty if it cannot be read."""
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
        return  # an older kernel, or one without swap accounting


def _figures(path: str) -> dict[bytes, int]:
    """Return the "name number" lines of a file."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _figure(path: str) -> int:
    content = _read(path).strip()
    return int(content) if content.isdigit() else 0


# -- where we are ------------------------------------------------------------------------------------------------


def own_folder(controller: str = "") -> str | None:
    """Return the folder of the group that this process is in, or None.

    Args:
        controller: a version 1 controller; "": the version 2 hierarchy.
    """
    mounted = _mount(controller)
    own = _own_path(controller)
    if mounted is None or own is None:
        return None
    root, point = mounted[0].rstrip("/"), mounted[1]
    if not f"{own}/".startswith(f"{root}/") or ".." in own:
        return None  # outside the part that is mounted here
    return point + own.removeprefix(root).rstrip("/")


def _mount(controller: str) -> tuple[str, str] | None:
    """Return the mounted part of the hierarchy and its mount point."""
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
    """The cgroup of one attempt."""

    __slots__ = ("_is_v2", "path")

    def __init__(self, path: str, is_v2: bool) -> None:
        self.path = path
        self._is_v2 = is_v2

    def limit(self, limit_bytes: int) -> None:
        """Limit the total memory of its processes; swap counts towards the limit or is disabled.

        Raises:
            OSError: the group does not account memory.
        """
        if self._is_v2:
            _write(f"{self.path}/memory.max", str(limit_bytes))
            _write_if_there(f"{self.path}/memory.swap.max", "0")
            _write_if_there(f"{self.path}/memory.oom.group", "1")  # kill the whole group, not only the largest process
        else:
            _write(f"{self.path}/memory.limit_in_bytes", str(limit_bytes))
            _write_if_there(f"{self.path}/memory.memsw.limit_in_bytes", str(limit_bytes))

    def enter(self) -> None:
        """Move the calling process into the group.

        Raises:
            OSError: the process cannot enter.
        """
        _write(f"{self.path}/cgroup.procs", "0")

    def was_too_small(self) -> bool:
        """Return whether the kernel killed a process because this limit was reached (not the whole machine's)."""
        if self._is_v2:
            events = _figures(f"{self.path}/memory.events")
            return bool(events.get(b"oom_kill") and events.get(b"oom"))
        if not _figures(f"{self.path}/memory.oom_control").get(b"oom_kill"):
            return False
        room = _figure(f"{self.path}/memory.limit_in_bytes") - _figure(f"{self.path}/memory.max_usage_in_bytes")
        return room < ROOM_BYTES_MAX  # not memory.failcnt, which stays 0 in newer kernels

    def peak_bytes(self) -> int:
        """Return the peak memory use in bytes, less the files that the kernel now merely caches."""
        stat = _figures(f"{self.path}/memory.stat")
        kept = stat.get(b"file" if self._is_v2 else b"cache", 0) - stat.get(b"shmem", 0)
        peak = _figure(f"{self.path}/{'memory.peak' if self._is_v2 else 'memory.max_usage_in_bytes'}")
        return max(0, peak - max(0, kept))

    def processes(self) -> list[int]:
        """Return the PIDs of all processes in the group."""
        return processes_in(self.path)

    def kill(self) -> None:
        """Kill all processes in the group."""
        kill_all(self.path)

    def remove(self) -> bool:
        """Remove the group; return False if it is not empty."""
        return _is_removed(self.path)


def processes_in(path: str) -> list[int]:
    """Return the PIDs of all processes in a group. Those of another PID namespace read as 0."""
    return [int(pid) for pid in _read(f"{path}/cgroup.procs").split()]


def kill_all(path: str) -> None:
    """Kill all processes of a group: atomically if the kernel supports it (version 2), else until none is found."""
    try:
        _write(f"{path}/cgroup.kill", "1")
    except OSError:
        processes.kill_all(lambda: processes_in(path))


def _is_removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


# -- the groups of a program -------------------------------------------------------------------------------------


class Groups:
    """The groups of the calling process's attempts, and their folder. Created by `found`."""

    def __init__(self, base: str, is_v2: bool) -> None:
        self.base = base
        self.folder = f"{base}/{NAME}{os.getpid()}"
        self._is_v2 = is_v2

    def open(self) -> None:
        """Create the folder, and check that a process can enter a group in it.

        Raises:
            OSError: that is not possible; everything created is removed.
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
        """Create the group of an attempt.

        Raises:
            OSError: the group cannot be created or limited.
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
        """Remove empty groups and the folder if it is empty."""
        remove_left(self.folder)


def _try_out(group: Group) -> None:
    """Check that a process can enter a group, by forking one that does nothing else; remove the group."""
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
        raise PermissionError(f"processes cannot be moved into {group.path}")


def found() -> Groups | None:
    """Return groups in a folder tested to allow them, after removing empty ones of dead programs; None: nowhere."""
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
    """Yield folders in which groups may be possible, and whether they are version 2."""
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


# -- leftovers ---------------------------------------------------------------------------------------------------


def kill_left(folder: str, identities: Iterable[int]) -> None:
    """Kill the leftovers of these attempts of a dead program, and remove those of its groups that are empty."""
    for identity in identities:
        kill_all(f"{folder}/{identity}")
    remove_left(folder)


def remove_left(folder: str) -> None:
    """Remove a program's empty groups, and its folder if it is empty."""
    for name in _names(folder):
        _is_removed(f"{folder}/{name}")
    _is_removed(folder)


def _remove_orphans(base: str) -> None:
    for name in _names(base):
        pid = name.removeprefix(NAME)
        if name.startswith(NAME) and pid.isdigit() and _is_dead(pid):
            remove_left(f"{base}/{name}")


def _is_dead(pid: str) -> bool:
    """Return whether a process is dead, or a zombie that has not been reaped yet."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] in ([], [b"Z"])


def _names(folder: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
