"""Finding the embedded server of a data folder, and starting it where there is none.

One server per user and data folder. Whoever needs it (client, distributor, any command) calls `ensure_server`: under a
file lock it looks for a living one and else starts `python -m jobmon.server`. The server itself holds another lock for
as long as it lives, so that even two starters that do not see each other's lock get one server.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from jobmon.core import places, wire
from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.core.constants import MESSAGE_VERSION
from jobmon.core.exceptions import ConfigError, ServerUnavailable
from jobmon.core.wire.server import AccessFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCESS_FILE_NAME: Final = "server.json"
SERVER_LOG_NAME: Final = "server.log"
START_LOCK_NAME: Final = "start.lock"
LOOK_INTERVAL_SECONDS: Final = 0.01
LOG_LINES_SHOWN_MAX: Final = 15
#: A log that is larger when a server starts becomes the older one of two.
LOG_BYTES_MAX: Final = 10 * 1024 * 1024
#: Tells an embedded server to end when it is idle.
RETIRE_SIGNAL: Final = signal.SIGUSR1
#: An idle server has ended after this long.
RETIRE_SECONDS_MAX: Final = 5.0

logger = logging.getLogger(__name__)


def access_file_path(data: Path | None = None) -> Path:
    """Return where the access file of a data folder is."""
    return (data or data_directory()) / ACCESS_FILE_NAME


def server_log_path(data: Path | None = None) -> Path:
    """Return where the embedded server writes its log."""
    return (data or data_directory()) / "logs" / SERVER_LOG_NAME


def read_access_file(data: Path | None = None) -> AccessFile | None:
    """Return what the access file says, or None if there is none or it is torn."""
    try:
        return wire.decode(AccessFile, access_file_path(data).read_bytes())
    except (OSError, ValueError):
        return None


def write_access_file(access: AccessFile, data: Path) -> None:
    """Replace the access file as a whole, mode 0600."""
    path = access_file_path(data)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(wire.encode(access))
    temporary.replace(path)


def page_key(token: str) -> str:
    """Return what the web page shows instead of the token: whoever has it may read, and nothing else.

    It is the same for as long as the token is, so that an open page outlives the server's restarts.
    """
    import hmac

    return hmac.new(token.encode(), b"web page", "sha256").hexdigest()


def find_server(data: Path | None = None) -> AccessFile | None:
    """Return the access file of the living embedded server, or None if there is none.

    Raises:
        ServerUnavailable: it lives on another host that cannot be reached from here.
    """
    access = read_access_file(data)
    if access is None or not access.running:
        return None
    if access.host != socket.gethostname():
        _check_reachable(access)
        return access
    if access.boot_id != places.boot_id() or not places.is_process_alive(access.pid, access.pid_start_time):
        return None
    return access


def _check_reachable(access: AccessFile) -> None:
    host, _, port = access.address.removeprefix("http://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ServerUnavailable(
            f"The Jobmon server of this data folder runs on host {access.host} (process {access.pid}) and cannot be "
            f"reached at {access.address} from here ({error}). Work on {access.host}, stop it there with "
            "'jobmon server stop', or set JOBMON_DATA_DIR to another folder."
        ) from None


def ensure_server(data: Path | None = None, config: JobmonConfig | None = None) -> AccessFile:
    """Return the access file of the embedded server, starting one if none lives.

    One of an older version is asked to end when it is idle, and is then replaced.

    Raises:
        ServerUnavailable: it did not start; the message ends with its log. Or it is busy, and of a version that this
            one cannot speak with.
        ConfigError: the data folder cannot be used.
    """
    data = data or data_directory()
    if (found := find_server(data)) and (found := _as_new_as_we(found)):
        return found
    config = config or JobmonConfig()
    timeout_seconds = config.get_float("server", "start_timeout")
    places.make_private(data)
    folder = places.make_private(places.database_directory(data))
    with _locked(folder / START_LOCK_NAME, timeout_seconds):
        return find_server(data) or _started(data, timeout_seconds)


def _as_new_as_we(access: AccessFile) -> AccessFile | None:
    """Return the server if it is to be used as it is, None if it was older than we and has ended.

    Raises:
        ServerUnavailable: it speaks otherwise, and cannot be replaced now.
    """
    from importlib.metadata import version  # takes a while

    ours = version("jobmon")
    if _release(access.version) >= _release(ours) and access.message_version >= MESSAGE_VERSION:
        if access.message_version > MESSAGE_VERSION:
            raise ServerUnavailable(
                f"The Jobmon server of this data folder is of version {access.version}, this is {ours}, which does not "
                "understand it. Upgrade this one: pip install --upgrade jobmon."
            )
        return access
    if _has_retired(access):
        return None
    if access.message_version != MESSAGE_VERSION:
        raise ServerUnavailable(
            f"The Jobmon server (process {access.pid} on {access.host}) is of version {access.version}, which this one "
            f"({ours}) cannot speak with, and it is busy. It ends with its workflows; try again then, or end it now "
            "with 'jobmon server stop'."
        )
    logger.warning(
        "The Jobmon server is of version %s, older than this one (%s), and busy: it is used as it is, and replaced "
        "when it is idle.",
        access.version,
        ours,
    )
    return access


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without what marks it as unfinished: those count as equal."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(word) for word in found.group().split(".")) if found else ()


def _has_retired(access: AccessFile) -> bool:
    """Ask a server to end when it is idle; return whether that was at once."""
    if access.host != socket.gethostname() or access.retiring:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(access.pid, RETIRE_SIGNAL)
    deadline = time.monotonic() + RETIRE_SECONDS_MAX
    while places.is_process_alive(access.pid, access.pid_start_time):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_INTERVAL_SECONDS)
    return True


@contextlib.contextmanager
def _locked(path: Path, timeout_seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + timeout_seconds
    with _opened_lock(path) as descriptor:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServerUnavailable(
                        f"Another process has been starting a Jobmon server for {timeout_seconds:g} s ({path})."
                    ) from None
                time.sleep(LOOK_INTERVAL_SECONDS)
        yield


@contextlib.contextmanager
def _opened_lock(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}. Set JOBMON_DATA_DIR to a folder that you may write to."
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _started(data: Path, timeout_seconds: float) -> AccessFile:
    log = server_log_path(data)
    log.parent.mkdir(parents=True, exist_ok=True)
    _rotate(log)
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        # close_fds=False and vfork: a large client must not be copied to start a server.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobmon.server", "--embedded", "--data-dir", str(data)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            close_fds=False,
        )
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if found := find_server(data):
            process.returncode = process.returncode or 0  # it lives on without us; no warning when we end
            return found
        if process.poll() is not None:
            reason = f"ended with exit code {process.returncode}"
            raise ServerUnavailable(f"The Jobmon server {reason}:\n{_tail(log, start)}")
        time.sleep(LOOK_INTERVAL_SECONDS)
    process.kill()
    process.wait()
    raise ServerUnavailable(f"The Jobmon server did not start within {timeout_seconds:g} s:\n{_tail(log, start)}")


def _rotate(log: Path) -> None:
    """Begin a log anew that has grown large, and keep it as the older one."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_name(f"{log.name}.1"))


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES_SHOWN_MAX:]) or f"(nothing in {log})"


def stop_server(timeout: float = 30.0, data: Path | None = None) -> bool:
    """Ask the embedded server to end (SIGTERM) and wait; return False if there was none.

    Raises:
        ServerUnavailable: it runs on another host, or has not ended after `timeout` seconds.
    """
    access = find_server(data)
    if access is None:
        return False
    if access.host != socket.gethostname():
        raise ServerUnavailable(f"The Jobmon server runs on host {access.host}; stop it there.")
    with contextlib.suppress(ProcessLookupError):
        os.kill(access.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while places.is_process_alive(access.pid, access.pid_start_time):
        if time.monotonic() > deadline:
            raise ServerUnavailable(f"The Jobmon server (process {access.pid}) has not ended after {timeout:g} s.")
        time.sleep(LOOK_INTERVAL_SECONDS)
    return True
