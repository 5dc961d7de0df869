"""File locations on this host, processes and users. See "Runtime files" in `docs/explanation/reliability.md`."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import secrets
import socket
import stat
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobmon.agent import addresses, machine, trust
from jobmon.core.exceptions import ConfigError, UntrustedFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: File systems on which SQLite's locks and shared memory are unreliable.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    (
        *("nfs", "nfs3", "nfs4", "cifs", "smbfs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "fuse.cephfs", "afs"),
        *("glusterfs", "fuse.glusterfs", "fuse.sshfs", "orangefs", "pvfs2", "panfs", "ocfs2", "gfs2", "wekafs"),
    )
)
#: Longest path of a Unix socket, bytes, without the closing zero.
SOCKET_PATH_BYTES_MAX: Final = 107
#: The remedy if the data folder cannot be used.
OTHER_DATA_FOLDER: Final = "Set JOBMON_DATA_DIR to a folder that you may write to"
#: Parent of the database folder if the data folder is on a network file system.
LOCAL_FOLDER: Final = Path("/var/tmp")
#: File in the data folder with the name of the folder below `LOCAL_FOLDER`, if the usual name is taken.
LOCAL_FOLDER_NOTE: Final = "local-folder"
LOCAL_FOLDER_NOTE_BYTES_MAX: Final = 100
#: Process start times of different boots are offset by multiples of this; no machine runs for longer.
BOOT_AXIS_SECONDS: Final = 1e9
#: The inode number of the process namespace outside of all containers.
_FIRST_PROCESS_NAMESPACE: Final = 0xEFFFFFFC
MACHINE_ID_FILES: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
#: How many of a host's addresses the server listens on; workers try as many.
HOST_ADDRESSES_MAX: Final = 8
#: An address reserved for documentation, which no host has.
_SOMEWHERE: Final = ("192.0.2.1", 9)
#: Number of fields in /proc/PID/stat between the name in brackets and the start time.
_STAT_FIELDS_BEFORE_START_TIME: Final = 19


@contextlib.contextmanager
def trusting() -> Iterator[None]:
    """Convert errors about untrusted files (`jobmon.agent.trust`) to an error of Jobmon.

    Raises:
        UntrustedFile: another user could have planted a file or folder.
    """
    try:
        yield
    except trust.Untrusted as error:
        raise UntrustedFile(str(error)) from None


def user_name() -> str:
    """Return the user's name, or the numeric ID if the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def make_private(folder: Path) -> Path:
    """Create a folder with mode 0700, or check that an existing one is ours; return its real path.

    Raises:
        UntrustedFile: it belongs to a different user, or others may write to it or to a parent folder.
        ConfigError: it cannot be created.
    """
    try:
        with trusting():
            return Path(trust.private_folder(str(folder)))
    except OSError as error:
        raise ConfigError(f"Folder {folder} cannot be used: {error.strerror}. {OTHER_DATA_FOLDER}.") from error


def is_loopback(host: str) -> bool:
    """Return whether an address or name refers only to this host itself."""
    return addresses.is_loopback(host)


def host_address() -> str:
    """Return the address by which other hosts most likely reach this one: the source address of its own connections.

    Raises:
        ConfigError: there is none.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_SOMEWHERE)  # nothing is sent
            found = str(probe.getsockname()[0])
    except OSError:
        found = _address_by_name()
    if is_loopback(found):
        raise ConfigError("The address at which other hosts reach this one cannot be determined; set server.host.")
    return found


def host_addresses() -> list[str]:
    """Return the IPv4 addresses of this host by which others may reach it, `host_address` first.

    Raises:
        ConfigError: it has none.
    """
    import psutil

    likeliest = host_address()
    own = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not is_loopback(entry.address)
    ]
    return list(dict.fromkeys([likeliest, *own]))[:HOST_ADDRESSES_MAX]


def _address_by_name() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


def mounts() -> dict[Path, str]:
    """Return all mount points of this host with the type of their file system."""
    import psutil

    return {Path(partition.mountpoint): partition.fstype for partition in psutil.disk_partitions(all=True)}


def file_system_type(path: Path, mounted: Mapping[Path, str]) -> str:
    """Return the type of the file system that holds a path (which need not exist yet), "" if unknown."""
    resolved = path.resolve()
    holders = [mount for mount in mounted if resolved == mount or mount in resolved.parents]
    return mounted[max(holders, key=lambda mount: len(mount.parts))] if holders else ""


def database_directory(data_directory: Path, mounted: Mapping[Path, str] | None = None) -> Path:
    """Return the folder of the embedded database: the data folder, or a local folder if that is on the network.

    Args:
        data_directory: the data folder.
        mounted: mount point -> file system type; None: the result of `mounts`.
    """
    kind = file_system_type(data_directory, mounts() if mounted is None else mounted)
    if kind.lower() not in NETWORK_FILE_SYSTEMS:
        return data_directory
    return _local_folder(data_directory) / _short_hash(str(data_directory))


def taken_local_folder() -> Path | None:
    """Return the usual local folder for databases if it belongs to another user, else None."""
    usual = _usual_local_folder()
    try:
        found = usual.lstat()
    except FileNotFoundError:
        return None
    is_ours = found.st_uid == os.geteuid() and (stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode))
    return None if is_ours else usual


def _usual_local_folder() -> Path:
    return LOCAL_FOLDER / f"jobmon-{os.getuid()}"


def _local_folder(data_directory: Path) -> Path:
    """Return a folder on a local disk: the usual one, or one with an unguessable name if the usual one is taken.

    The name is stored in the data folder. Once used, it is kept, so that the database does not move.
    """
    note = data_directory / LOCAL_FOLDER_NOTE
    try:
        with trusting():
            word = trust.read_file(str(note), LOCAL_FOLDER_NOTE_BYTES_MAX).decode("ascii", "replace").strip()
    except OSError:
        word = ""
    chosen = _usual_local_folder().with_name(f"{_usual_local_folder().name}-{word}") if word.isalnum() else None
    if chosen is not None and chosen.is_dir():
        return chosen
    if taken_local_folder() is None:
        return _usual_local_folder()
    return chosen or _noted_folder(note)


def _noted_folder(note: Path) -> Path:
    """Choose and store an unguessable name. If it cannot be stored, return the usual folder, which is then rejected."""
    word = secrets.token_hex(8)
    try:
        with trusting():
            file = trust.open_file(str(note), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except OSError:
        return _usual_local_folder()
    with os.fdopen(file, "w", encoding="ascii") as stream:
        stream.write(word)
    return _usual_local_folder().with_name(f"{_usual_local_folder().name}-{word}")


def runtime_directory() -> Path:
    """Return a private local folder for sockets and journals.

    Use the first usable one of `$XDG_RUNTIME_DIR/jobmon`, `jobmon-<uid>` in the temporary folder, and `run` next to the
    database.

    Raises:
        ConfigError: none of them can be created and is ours.
    """
    return chosen_runtime_directory()[0]


def chosen_runtime_directory() -> tuple[Path, list[str]]:
    """Return the runtime folder, and why those that take precedence over it cannot be used.

    Raises:
        ConfigError: none can be used.
    """
    problems: list[str] = []
    for candidate in _RUNTIME_CANDIDATES:
        folder = candidate()
        if folder is None:
            continue
        try:
            if folder.is_symlink():  # it can only be an attempt to make us write to its target
                raise ConfigError(f"Folder {folder} is a symbolic link")
            return make_private(folder), problems
        except (ConfigError, OSError) as error:
            problems.append(str(error).partition(". ")[0])
    raise ConfigError(
        f"No private folder for sockets is usable: {'; '.join(problems)}. Set XDG_RUNTIME_DIR to a folder you own."
    )


def _of_login() -> Path | None:
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "jobmon" if base and Path(base).is_dir() else None


def temporary_runtime_directory() -> Path:
    """Return the runtime folder of users without one from their login; it need not exist, nor be ours."""
    return Path(tempfile.gettempdir()) / f"jobmon-{os.getuid()}"


def _beside_database() -> Path:
    from jobmon.core.configuration import data_directory

    return database_directory(data_directory()) / "run"


_RUNTIME_CANDIDATES: Final = (_of_login, temporary_runtime_directory, _beside_database)


def _fits(path: Path) -> bool:
    """Return whether a Unix socket may have this path."""
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX


def socket_path(data_directory: Path, name: str) -> Path | None:
    """Return a path for a Unix socket that belongs to a data folder; None: every path would be too long.

    Args:
        data_directory: the data folder.
        name: its purpose, such as "server".
    """
    path = runtime_directory() / f"{_short_hash(str(data_directory))}-{name}.sock"
    return path if _fits(path) else None


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def boot_id() -> str:
    """Return the identity of this boot of this machine."""
    if found := machine.boot_id():
        return found
    import psutil

    return str(int(psutil.boot_time()))


@cache
def machine_id() -> str:
    """Return the identity of this machine across boots, "" if there is none. Clones of one image share it."""
    for path in MACHINE_ID_FILES:
        with contextlib.suppress(OSError):
            if found := path.read_text(encoding="ascii", errors="replace").strip():
                return found
    return ""


def process_start_time(pid: int) -> float | None:
    """Return when a process started, in seconds on a time axis specific to this boot; None: there is no such process.

    This is never a time of day, which the kernel derives from a clock that may be set while the process lives.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        ticks = _ticks_at_start(pid)
        return process.create_time() if ticks is None else _boot_offset_seconds() + ticks / os.sysconf("SC_CLK_TCK")
    except psutil.Error:
        return None


def _ticks_at_start(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[_STAT_FIELDS_BEFORE_START_TIME])


@cache
def _boot_offset_seconds() -> float:
    """Return the origin of this boot's time axis, so that equal times of two boots, or of two containers, differ."""
    place = boot_id() + _process_namespace()
    return float(int(hashlib.sha256(place.encode()).hexdigest()[:4], 16)) * BOOT_AXIS_SECONDS


def _process_namespace() -> str:
    """Return the identity of the container whose processes are visible; "" outside of all containers."""
    try:
        found = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return ""
    return "" if found == _FIRST_PROCESS_NAMESPACE else f" {found}"


def has_seen_start(start_time: float) -> bool:
    """Return whether a process with this start time belongs to this boot and container, and can be judged here."""
    return start_time // BOOT_AXIS_SECONDS == _boot_offset_seconds() // BOOT_AXIS_SECONDS


def is_process_alive(pid: int, start_time: float) -> bool:
    """Return whether the process that had this pid and start time on this host is still alive."""
    found = process_start_time(pid)
    return found is not None and abs(found - start_time) < 1.0
