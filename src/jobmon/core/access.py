"""Find the embedded server of a data folder, and start it if there is none.

There is one server per user and data folder. Every component that needs it (client, distributor, any command) calls
`ensure_server`, which looks for a live server under a file lock, and otherwise starts `python -m jobmon.server`. The
server itself holds another lock for its lifetime, so that even two starters that cannot see each other's lock get one
server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from jobmon.agent import addresses, peers, processes, trust
from jobmon.core import locks, paths, wire
from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.core.constants import MESSAGE_VERSION
from jobmon.core.exceptions import ServerUnavailable, UntrustedFile
from jobmon.core.installing import how_to_install
from jobmon.core.wire.server import AccessFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ACCESS_FILE_NAME: Final = "server.json"
#: Copy of a database that is stored outside the data folder.
COPY_NAME: Final = "jobmon.sqlite.copy"
SERVER_LOG_NAME: Final = "server.log"
START_LOCK_NAME: Final = "start.lock"
#: A server holds this lock, next to its database, for as long as it lives.
SERVER_LOCK_NAME: Final = "server.lock"
LOOK_INTERVAL_SECONDS: Final = 0.01
AWAITED_INTERVAL_SECONDS: Final = 0.1
LOG_LINES_SHOWN_MAX: Final = 15
#: A log that is larger than this when a server starts is rotated.
LOG_BYTES_MAX: Final = 10 * 1024 * 1024
#: Tells an embedded server to exit when it is idle.
RETIRE_SIGNAL: Final = signal.SIGUSR1
#: A server that replaces a dead one has updated the access file by then, seconds.
TAKE_OVER_SECONDS: Final = 0.5
#: Longest wait for a connection to the Unix socket of a live server, seconds.
SOCKET_SECONDS_MAX: Final = 1.0
#: The lock and sockets of a killed server are gone after this long, seconds.
DEATH_SECONDS_MAX: Final = 10.0
DEATH_LOOK_SECONDS: Final = 0.1
#: How long a starting server waits for processes that only check whether its lock is held, seconds.
LOCK_SECONDS_MAX: Final = 0.5
#: Longest wait for a connection to a server on another host, seconds.
REACH_SECONDS_MAX: Final = 5.0
#: An idle server has exited after this long, seconds.
RETIRE_SECONDS_MAX: Final = 5.0

logger = logging.getLogger(__name__)


def access_file_path(data: Path | None = None) -> Path:
    """Return the path of a data folder's access file."""
    return (data or data_directory()) / ACCESS_FILE_NAME


def server_log_path(data: Path | None = None) -> Path:
    """Return the path of the embedded server's log."""
    return (data or data_directory()) / "logs" / SERVER_LOG_NAME


def copy_path(data: Path | None = None) -> Path:
    """Return the path of the copy of a database that is stored outside the data folder."""
    return (data or data_directory()) / COPY_NAME


def copied_at(data: Path | None = None) -> datetime | None:
    """Return when the database was copied into the data folder; None: it is stored there, or was never copied."""
    data = data or data_directory()
    if paths.database_directory(data) == data:
        return None
    try:
        return datetime.fromtimestamp(copy_path(data).stat().st_mtime, UTC)
    except OSError:
        return None


def read_access_file(data: Path | None = None) -> AccessFile | None:
    """Return the content of the access file, or None if there is none or it is incomplete.

    Raises:
        UntrustedFile: another user could have written it, or can read it.
    """
    try:
        with paths.trusting():
            content = trust.read_file(str(access_file_path(data)), is_secret=True)
        return wire.decode(AccessFile, content)
    except UntrustedFile:
        raise
    except (OSError, ValueError):
        return None


def write_access_file(access: AccessFile, data: Path) -> None:
    """Replace the access file atomically, with mode 0600."""
    path = access_file_path(data)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = trust.open_file(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, is_secret=True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(wire.encode(access))
    temporary.replace(path)


def find_server(data: Path | None = None) -> AccessFile | None:
    """Return the access file of the live embedded server, or None if there is none.

    Raises:
        ServerUnavailable: it runs on another host that cannot be reached from here.
        UntrustedFile: another user could have written the access file, or can read it.
    """
    access = read_access_file(data)
    if access is None or not access.running:
        return None
    if lives_here(access):
        return access
    if not _may_live_elsewhere(access, data or data_directory()):
        return None
    if is_here(access) and paths.has_seen_start(access.pid_start_time):
        return _find_after_death(access, data or data_directory())
    try:
        _check_reachable(access)
    except ServerUnavailable:
        if not is_here(access) or not _has_changed(access, data):
            raise
        return find_server(data)
    return access


def is_here(access: AccessFile) -> bool:
    """Return whether a server was started on this machine since its last boot, whatever the machine's name is now."""
    return access.boot_id == paths.boot_id()


def lives_here(access: AccessFile) -> bool:
    """Return whether a server is a live process that this process can see and signal."""
    return is_here(access) and paths.is_process_alive(access.pid, access.pid_start_time)


def _may_live_elsewhere(access: AccessFile, data: Path) -> bool:
    """Return whether a server that is not a process on this host may live on another host, or here in a container.

    Containers share the boot id but cannot see each other's processes. A rebooted machine has another boot id and the
    same machine id, but clones of one image share the machine id; so the database must be here, too. In both cases the
    lock next to the database decides.
    """
    if _was_here(access) and (is_here(access) or _database_is_here(access)):
        return locks.is_held(paths.database_directory(data) / SERVER_LOCK_NAME)
    return True


def _was_here(access: AccessFile) -> bool:
    """Return whether a server ran on this machine, possibly before the last boot."""
    return is_here(access) or (access.machine_id != "" and access.machine_id == paths.machine_id())


def _database_is_here(access: AccessFile) -> bool:
    return os.path.exists(access.database.removeprefix("sqlite:///"))


def _find_after_death(access: AccessFile, data: Path) -> AccessFile | None:
    """Return the successor of a server that was a process of ours and is dead, or None if there is none.

    The server's lock and sockets disappear with its last thread, a moment after the process. If a successor holds the
    lock, it updates the access file at once.
    """
    deadline = time.monotonic() + DEATH_SECONDS_MAX
    lock = paths.database_directory(data) / SERVER_LOCK_NAME
    while locks.is_held(lock):
        if read_access_file(data) != access:
            return find_server(data)
        if time.monotonic() > deadline:
            raise ServerUnavailable(
                f"The Jobmon server of this data folder (process {access.pid}) has exited, but a process still holds"
                f" {lock}. Find that process with 'fuser {lock}' and terminate it."
            )
        time.sleep(DEATH_LOOK_SECONDS)
    return None


def _has_changed(access: AccessFile, data: Path | None) -> bool:
    """Return whether another server replaces it: a server that takes the lock updates the access file at once."""
    time.sleep(TAKE_OVER_SECONDS)
    return read_access_file(data) != access


def usable_socket(access: AccessFile) -> str:
    """Return the Unix socket of a live server, or "" if it has none that can be connected to from here.

    Its file may have been removed by a logout or a cleanup job. On another machine the path refers to a different file,
    and another user may have created a socket with this name.
    """
    if not access.socket or not is_here(access):
        return ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix:
        unix.settimeout(SOCKET_SECONDS_MAX)
        try:
            trust.require_socket(access.socket)
            unix.connect(access.socket)
            if not peers.is_ours(unix):
                return ""
        except (TimeoutError, BlockingIOError):  # it is listening, but busy
            return access.socket
        except OSError:
            return ""
    return access.socket


def _check_reachable(access: AccessFile) -> None:
    try:
        where = addresses.parse(access.address)
        if paths.is_loopback(where.host) and not is_here(access):
            raise ConnectionRefusedError("it accepts connections only from its own host")
        socket.create_connection((where.host, where.port), timeout=REACH_SECONDS_MAX).close()
    except (OSError, ValueError) as error:
        raise ServerUnavailable(
            f"The Jobmon server of this data folder runs on host {access.host} (process {access.pid}) and cannot be "
            f"reached at {access.address} from here ({error}). Work on {access.host}, stop it there with 'jobmon "
            f"server stop', or set JOBMON_DATA_DIR to another folder. If {access.host} is gone for good: jobmon server "
            "start --take-over"
        ) from None


def take_over(data: Path | None = None, config: JobmonConfig | None = None) -> AccessFile:
    """Start a server here although the last one ran on a host that is gone; return its access file.

    If the old server is alive after all, it exits when it sees the new access file.

    Raises:
        ServerUnavailable: the server is alive on another host, there is no copy of its database here, or the new one
            does not start.
        ConfigError: the data folder cannot be used.
    """
    data = data or data_directory()
    try:
        found = find_server(data)
    except ServerUnavailable:
        found = None
    if found is not None and not lives_here(found):
        raise ServerUnavailable(
            f"The Jobmon server is running on host {found.host} ({found.address}). Use it, or stop it there."
        )
    return found or _start(data, config or JobmonConfig(), "--take-over")


def ensure_server(data: Path | None = None, config: JobmonConfig | None = None) -> AccessFile:
    """Return the access file of the embedded server, starting a server if none is alive.

    A server of an older version is asked to exit when it is idle, and is then replaced. Inside an attempt, wait for the
    server that the attempt runs for instead of starting it, because it would be terminated with the attempt.

    Raises:
        ServerUnavailable: it did not start (the message ends with its log), or it is busy and its version is
            incompatible with this one, or, inside an attempt, no other process started it.
        ConfigError: the data folder cannot be used, or a setting is invalid.
    """
    data = data or data_directory()
    if (found := find_server(data)) and (found := _as_new_as_we(found)):
        return found
    return _start(data, config or JobmonConfig())


def _start(data: Path, config: JobmonConfig, *options: str) -> AccessFile:
    config.check()  # the server would not start with invalid ones
    timeout_seconds = config.get_float("server", "start_timeout")
    if _runs_this_attempt(data):
        return _awaited(data, timeout_seconds)
    paths.make_private(data)
    folder = paths.make_private(paths.database_directory(data))
    with _locked(folder / START_LOCK_NAME, timeout_seconds):
        found = None if options else find_server(data)
        return found or _started(data, timeout_seconds, options)


def _runs_this_attempt(data: Path) -> bool:
    """Return whether this process is part of an attempt that the server of this data folder handed out."""
    folder = os.environ.get(processes.DATA_VARIABLE, "")
    return bool(os.environ.get(processes.MARK_VARIABLE) and folder) and os.path.realpath(folder) == os.path.realpath(
        data
    )


def _awaited(data: Path, timeout_seconds: float) -> AccessFile:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if found := find_server(data):
            return found
        time.sleep(AWAITED_INTERVAL_SECONDS)
    raise ServerUnavailable(
        f"The Jobmon server of {data}, to which this attempt belongs, has not been running for {timeout_seconds:g} s."
        " An attempt does not start it, because the server would be terminated together with the attempt. The"
        " workflow's client restarts it; or type 'jobmon server start' in a shell outside the attempt."
    )


def _as_new_as_we(access: AccessFile) -> AccessFile | None:
    """Return the server if it is to be used as it is; None if it was older than this version and has exited.

    Raises:
        ServerUnavailable: its message version is incompatible, and it cannot be replaced now.
    """
    from importlib.metadata import version  # a slow import

    ours = version("jobmon")
    if _release(access.version) >= _release(ours) and access.message_version >= MESSAGE_VERSION:
        if access.message_version > MESSAGE_VERSION:
            raise ServerUnavailable(
                f"The Jobmon server of this data folder has version {access.version}; this program has version {ours}, "
                f"which cannot communicate with it. Upgrade this program, {how_to_install()}"
            )
        return access
    if _has_retired(access):
        return None
    if access.message_version != MESSAGE_VERSION:
        raise ServerUnavailable(
            f"The Jobmon server (process {access.pid} on {access.host}) has version {access.version}, is busy, and "
            f"cannot communicate with this program (version {ours}). It exits when its workflows have finished: retry "
            "then, or stop it now with 'jobmon server stop'."
        )
    logger.warning(
        "The Jobmon server has version %s, is older than this program (%s), and is busy: it stays in use and is "
        "replaced when it is idle.",
        access.version,
        ours,
    )
    return access


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without the suffix of a prerelease: prereleases compare as equal."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(word) for word in found.group().split(".")) if found else ()


def _has_retired(access: AccessFile) -> bool:
    """Ask a server to exit when it is idle; return whether it exited at once."""
    if not lives_here(access) or access.retiring:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(access.pid, RETIRE_SIGNAL)
    deadline = time.monotonic() + RETIRE_SECONDS_MAX
    while paths.is_process_alive(access.pid, access.pid_start_time):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_INTERVAL_SECONDS)
    return True


@contextlib.contextmanager
def _locked(path: Path, timeout_seconds: float) -> Iterator[None]:
    with locks.FileLock(path) as lock:
        if not lock.take(timeout_seconds):
            raise ServerUnavailable(
                f"Another process has been starting a Jobmon server for {timeout_seconds:g} s ({path})."
            )
        yield


def _started(data: Path, timeout_seconds: float, options: Sequence[str]) -> AccessFile:
    log = server_log_path(data)
    paths.make_private(log.parent)
    _rotate(log)
    start = log.stat().st_size if log.exists() else 0
    with paths.trusting():
        output = trust.open_file(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobmon.server", "--embedded", "--data-dir", str(data), *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if found := _found_after_start(data, process):
            if found.pid_start_time < (paths.process_start_time(process.pid) or 0.0):
                process.terminate()  # the found server was there before; ours must not replace it when that one exits
            process.returncode = process.returncode or 0  # it outlives this process; prevents a warning at our exit
            return found
        if process.poll():  # 0: another server holds the lock, and will be in the access file
            reason = f"exited with code {process.returncode}"
            raise ServerUnavailable(f"The Jobmon server {reason}:\n{_tail(log, start)}")
        time.sleep(LOOK_INTERVAL_SECONDS)
    process.kill()
    process.wait()
    raise ServerUnavailable(f"The Jobmon server did not start within {timeout_seconds:g} s:\n{_tail(log, start)}")


def _found_after_start(data: Path, process: subprocess.Popen[bytes]) -> AccessFile | None:
    """Return the server that was started, or the one that already held the lock."""
    access = read_access_file(data)
    if access is not None and access.running and lives_here(access):
        return access
    return find_server(data) if process.poll() == 0 else None


def _rotate(log: Path) -> None:
    """Rotate a log that has grown large."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_name(f"{log.name}.1"))


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES_SHOWN_MAX:]) or f"(nothing in {log})"


def stop_server(timeout: float = 30.0, data: Path | None = None) -> bool:
    """Ask the embedded server to exit (SIGTERM) and wait for it; return False if there was none.

    Raises:
        ServerUnavailable: it runs on another host, or has not exited after `timeout` seconds.
    """
    access = find_server(data)
    if access is None:
        return False
    if not lives_here(access):
        raise ServerUnavailable(f"The Jobmon server runs on host {access.host}; stop it there.")
    with contextlib.suppress(ProcessLookupError):
        os.kill(access.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while paths.is_process_alive(access.pid, access.pid_start_time):
        if time.monotonic() > deadline:
            raise ServerUnavailable(f"The Jobmon server (process {access.pid}) has not exited after {timeout:g} s.")
        time.sleep(LOOK_INTERVAL_SECONDS)
    return True
