"""Locks that processes hold through an open file: they are released when the holder exits, however it exits."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from jobmon.agent import trust
from jobmon.core import paths
from jobmon.core.exceptions import ConfigError, UntrustedFile

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

LOOK_INTERVAL_SECONDS: Final = 0.01


class FileLock:
    """The lock of one file, which is created for our user only if it is missing.

    Args:
        path: path of the file.
        remedy: what to do if it cannot be written, for the error message.

    Raises:
        UntrustedFile: another user could have planted the file.
        ConfigError: it cannot be written.
    """

    def __init__(self, path: Path, remedy: str = paths.OTHER_DATA_FOLDER) -> None:
        try:
            with paths.trusting():
                self._file = trust.open_file(str(path), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}. {remedy}.") from error

    def take(self, wait_seconds: float = 0.0) -> bool:
        """Take the lock; return whether we hold it.

        Args:
            wait_seconds: how long to wait for the current holder, seconds. `is_held` also holds the lock for a moment.
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(LOOK_INTERVAL_SECONDS)
            else:
                return True

    def close(self) -> None:
        """Release the lock if it is held."""
        os.close(self._file)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of a file; true if the file cannot be opened.

    Raises:
        UntrustedFile: another user could have planted the file.
    """
    if not path.exists():
        return False
    try:
        with FileLock(path) as lock:
            return not lock.take()
    except UntrustedFile:
        raise
    except ConfigError:
        return True
