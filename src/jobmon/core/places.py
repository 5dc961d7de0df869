"""Where files live on this host, and who a process is. See "Where files live" in the reliability pages."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobmon.core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: File systems on which SQLite's locks and shared memory cannot be trusted.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    (
        *("nfs", "nfs3", "nfs4", "cifs", "smbfs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "fuse.cephfs", "afs"),
        *("glusterfs", "fuse.glusterfs", "fuse.sshfs", "orangefs", "pvfs2", "panfs", "ocfs2", "gfs2", "wekafs"),
    )
)
#: Longest path of a Unix socket, bytes, without the closing zero.
SOCKET_PATH_BYTES_MAX: Final = 107
PRIVATE_FOLDER_MODE: Final = 0o700
#: Boots differ by multiples of this in what they call the start of a process; no machine is up for longer.
BOOT_AXIS_SECONDS: Final = 1e9
#: An address that is meant for documentation and belongs to nobody.
_SOMEWHERE: Final = ("192.0.2.1", 9)
#: Of /proc/PID/stat, after the name in brackets.
_STAT_FIELDS_BEFORE_START_TIME: Final = 19


def make_private(folder: Path) -> Path:
    """Create a folder of mode 0700, or check that an existing one is ours.

    Raises:
        ConfigError: it cannot be made, or belongs to somebody else.
    """
    try:
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.getuid():
            raise ConfigError(f"Folder {folder} belongs to another user; set JOBMON_DATA_DIR to a folder of yours.")
        if stat.S_IMODE(status.st_mode) & 0o077:
            folder.chmod(PRIVATE_FOLDER_MODE)
    except OSError as error:
        raise ConfigError(
            f"Folder {folder} cannot be used: {error.strerror}. Set JOBMON_DATA_DIR to a folder that you may write to."
        ) from error
    return folder


def is_loopback(host: str) -> bool:
    """Say whether an address or name leads nowhere but to this host itself."""
    return host == "localhost" or host.startswith("127.") or host in ("::1", "[::1]")


def host_address() -> str:
    """Return the address of this host that others are most likely to reach: the one from which it would speak to them.

    Raises:
        ConfigError: it has none.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_SOMEWHERE)  # nothing is sent
            found = str(probe.getsockname()[0])
    except OSError:
        found = _address_by_name()
    if is_loopback(found):
        raise ConfigError(
            "The address by which other hosts reach this one cannot be told; name it by the setting server.host."
        )
    return found


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
    """Return where the embedded database lives: the data folder, or a local one if that is on the network.

    Args:
        data_directory: the data folder.
        mounted: what is mounted where; None: as `mounts` finds it.
    """
    kind = file_system_type(data_directory, mounts() if mounted is None else mounted)
    if kind.lower() not in NETWORK_FILE_SYSTEMS:
        return data_directory
    return Path(f"/var/tmp/jobmon-{os.getuid()}") / _short_hash(str(data_directory))


def runtime_directory() -> Path:
    """Return a private local folder for sockets and journals: `$XDG_RUNTIME_DIR/jobmon`, else in the temporary folder.

    Raises:
        ConfigError: it cannot be made, or belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and Path(base).is_dir():
        return make_private(Path(base) / "jobmon")
    return make_private(Path(tempfile.gettempdir()) / f"jobmon-{os.getuid()}")


def socket_path(data_directory: Path, name: str) -> Path | None:
    """Return a path for a Unix socket that belongs to a data folder; None: every path would be too long.

    Args:
        data_directory: the data folder.
        name: what it is for, such as "server".
    """
    path = runtime_directory() / f"{_short_hash(str(data_directory))}-{name}.sock"
    return path if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX else None


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def boot_id() -> str:
    """Return what names this boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


def process_start_time(pid: int) -> float | None:
    """Return when a process started, in seconds on an axis of this boot's own; None: there is no such process.

    Never a time of day: the kernel derives that from a clock that may be set while the process lives.
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
    """Return where this boot's axis begins, so that equal moments of two boots differ."""
    return float(int(hashlib.sha256(boot_id().encode()).hexdigest()[:4], 16)) * BOOT_AXIS_SECONDS


def is_process_alive(pid: int, start_time: float) -> bool:
    """Say whether the process that had this pid and start time on this host still lives."""
    found = process_start_time(pid)
    return found is not None and abs(found - start_time) < 1.0
