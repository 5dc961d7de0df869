"""The command of a worker: started in a process group of its own, waited for, ended."""

from __future__ import annotations

import _signal
import os
import select
import sys
import time

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_BLOCK_BYTES = 512
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Ending:
    """How the command ended. `not_started`: why it was not even started."""

    def __init__(self, pid: int, started_at: float, not_started: str | None = None) -> None:
        self.pid = pid
        self.started_at = started_at
        self.ended_at = time.time()
        self.not_started = not_started
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.cpu_seconds: float | None = None
        self.max_rss_bytes: int | None = None
        self.read_bytes: int | None = None
        self.written_bytes: int | None = None


class Bell:
    """Rings when a child ended or a signal came. One for each process."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)

    def fileno(self) -> int:
        """Return what is readable once it has rung."""
        return self._reader

    def silence(self) -> None:
        """Be ready to ring again."""
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            return


class Child:
    """A command that runs.

    Args:
        words: its command line.
        environment: all of it.
        outputs: paths for stdout and stderr.
        directory: where it works; this process enters it, too.
        umask: likewise.
        bell: of a process with several children; by default one is hung up for this.

    Raises:
        OSError, ValueError: it cannot be started.
    """

    def __init__(
        self,
        words: list[str],
        environment: Mapping[str, str],
        outputs: tuple[str, str],
        directory: str,
        umask: int,
        bell: Bell | None = None,
    ) -> None:
        os.chdir(directory)
        os.umask(umask)
        for path in outputs:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        self._bell = bell or Bell()
        stdout, stderr = outputs
        same = (os.POSIX_SPAWN_DUP2, 1, 2)
        self.started_at = time.time()
        self._started = time.monotonic()
        self.pid = os.posix_spawn(
            words[0],
            words,
            environment,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, stdout, _WRITE, 0o666),
                same if stdout == stderr else (os.POSIX_SPAWN_OPEN, 2, stderr, _WRITE, 0o666),
            ),
            setpgroup=0,
            setsigmask=(),
            setsigdef=(_signal.SIGPIPE,),
        )

    def wait(self, seconds: float) -> Ending | None:
        """Wait until it ended, at most so long; a signal to the worker ends the waiting early, too."""
        if (ending := self.reaped()) is None:
            select.select([self._bell], [], [], max(0.0, seconds))
            self._bell.silence()
            ending = self.reaped()
        return ending

    def reaped(self) -> Ending | None:
        """Return how it ended, or None while it runs."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        ending = Ending(self.pid, self.started_at)
        ending.ended_at = self.started_at + time.monotonic() - self._started  # also when somebody set the clock
        code = os.waitstatus_to_exitcode(status)
        ending.exit_code, ending.signal = (code, None) if code >= 0 else (None, -code)
        ending.cpu_seconds = usage.ru_utime + usage.ru_stime
        ending.max_rss_bytes = usage.ru_maxrss * _RSS_UNIT
        ending.read_bytes = usage.ru_inblock * _BLOCK_BYTES
        ending.written_bytes = usage.ru_oublock * _BLOCK_BYTES
        return ending

    def signal(self, number: int) -> None:
        """Send a signal to its whole group."""
        try:
            os.killpg(self.pid, number)
        except OSError:
            return


def tail(outputs: tuple[str, str], length_max: int) -> bytes:
    """Return the last bytes of the output; of two files the errors, unless there are none."""
    return _last_bytes(outputs[1], length_max) or _last_bytes(outputs[0], length_max)


def _last_bytes(path: str, length_max: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - length_max))
            return file.read(length_max)
    except OSError:
        return b""
