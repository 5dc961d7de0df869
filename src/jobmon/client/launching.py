"""Start, monitor, restart and stop the processes that run commands: the distributor of a run, or its host agents.

Each is a separate process. Its standard input stays open as long as its client is alive; it prints one line to standard
output when it is up; its standard error is its log. A thread waits for it to exit and starts another one.
A large Python process must not fork. `subprocess` starts children with vfork as long as nothing has to run in the child
before the program (no preexec_fn, no change of user), so such options are not used here.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Final

from jobmon.core import paths
from jobmon.core.constants import LOG_TAIL_BYTES_MAX
from jobmon.core.exceptions import DistributorNotAlive, DistributorStartupTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

#: Maximum number of consecutive restarts without progress of any task.
RESTARTS_MAX: Final = 3
RESTART_PAUSE_SECONDS: Final = 0.2
#: The exit code of a distributor for which a restart is useless (`distributor/process.py`; a test compares them).
EXIT_CANNOT_WORK: Final = 4
STARTUP_TIMEOUT_SECONDS: Final = 180.0
#: Maximum time for the monitoring thread to notice that a distributor has exited.
_JOIN_SECONDS: Final = 5.0


def distributor_command(workflow_run_id: int) -> list[str]:
    """Return the command line of a distributor."""
    return [sys.executable, "-P", "-m", "jobmon.distributor", "--workflow-run-id", str(workflow_run_id)]


class DistributorProcess:
    """The distributor of one run, or one of its agents, kept alive.

    Args:
        workflow_run_id: ID of the run.
        startup_timeout: maximum time until the process reports that it is up, in seconds.
        command: its command line; None starts a distributor.
        log_directory: directory of its log; None means a directory in the data folder.
        restarts_max: maximum number of consecutive restarts without progress of any task.
        monotonic: returns the time in seconds since an arbitrary moment.
        setup: returns what to write to its standard input first, given its PID; None writes nothing.
        kind: what the process is, for messages and names: "distributor" or "agent".
        suffix: suffix of the name of its log, to distinguish it from other processes of the run.
    """

    def __init__(
        self,
        workflow_run_id: int,
        startup_timeout: float = STARTUP_TIMEOUT_SECONDS,
        *,
        command: Sequence[str] | None = None,
        log_directory: Path | None = None,
        restarts_max: int = RESTARTS_MAX,
        monotonic: Callable[[], float] = time.monotonic,
        setup: Callable[[int], bytes] | None = None,
        kind: str = "distributor",
        suffix: str = "",
    ) -> None:
        self.workflow_run_id = workflow_run_id
        self._setup = setup
        self._kind = kind
        self._suffix = suffix
        self._startup_timeout = startup_timeout
        self._command = list(command or distributor_command(workflow_run_id))
        self._log_directory = log_directory
        self._restarts_max = restarts_max
        self._monotonic = monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()
        self._is_up = threading.Event()
        self._deadline = 0.0
        self._restarts = 0
        #: Why the process is no longer restarted; None while it is.
        self.failure: DistributorStartupTimeout | DistributorNotAlive | None = None

    # -- for the client -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process without waiting until it is up; `alive` becomes false if that takes too long.

        Raises:
            DistributorNotAlive: it cannot be started at all.
        """
        self._deadline = self._monotonic() + self._startup_timeout
        self._spawn()
        self._watcher = threading.Thread(
            target=self._watch, name=f"jobmon-{self._kind}-{self.workflow_run_id}", daemon=True
        )
        self._watcher.start()

    def wait_until_up(self) -> None:
        """Wait until the process reports that it is up.

        Raises:
            DistributorStartupTimeout, DistributorNotAlive: it did not start in time, or at all.
        """
        while not self._is_up.wait(RESTART_PAUSE_SECONDS):
            self.alive()
            if self.failure is not None:
                raise self.failure

    def alive(self) -> bool:
        """Return whether the process is running, starting or being restarted."""
        if self.failure is None and not self._is_up.is_set() and self._monotonic() > self._deadline:
            self._give_up_startup()
        return self._process is not None and self.failure is None

    def note_progress(self) -> None:
        """Reset the count of restarts, because tasks make progress."""
        self._restarts = 0

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Notify the process that the client is done, and wait for a limited time until it exits.

        It exits by itself: at once if nothing of its run is running any more, otherwise when everything is done and
        reported.
        """
        self._stopping.set()
        process = self._process
        if process is None or self._watcher is None:
            return
        _close(process.stdin)
        self._watcher.join(wait_seconds)

    @property
    def pid(self) -> int | None:
        """The ID of the current process, or None."""
        return self._process.pid if self._process is not None else None

    @property
    def log_path(self) -> Path:
        """The path of its log."""
        if self._log_directory is None:
            from jobmon.core.configuration import data_directory

            self._log_directory = data_directory() / "logs" / f"{self._kind}s"
        return self._log_directory / f"run-{self.workflow_run_id}{self._suffix}.log"

    def log_tail(self) -> str:
        """Return the end of its log."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(0, 2)
                log.seek(max(0, log.tell() - LOG_TAIL_BYTES_MAX))
                return log.read().decode(errors="replace").strip()
        except OSError:
            return ""

    # -- the process --------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        try:
            paths.make_private(self.log_path.parent)
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # the client decides what Ctrl-C at the terminal means
                )
        except OSError as error:
            raise DistributorNotAlive(f"The {self._kind} cannot be started: {error}.") from error
        if self._setup is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # the monitoring thread notices that the process is gone
                self._process.stdin.write(self._setup(self._process.pid))
                self._process.stdin.flush()

    def _watch(self) -> None:
        while self._process is not None:
            self._follow(self._process)
            if self._stopping.is_set() or self.failure is not None:
                return
            if self._process.returncode == EXIT_CANNOT_WORK and not self._is_up.is_set():
                self._give_up_at_once()
                return
            self._is_up.clear()
            if not self._start_again():
                return

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a process exits, and close its pipes."""
        assert process.stdout is not None, "it was started with a pipe"
        with process.stdout as output:
            if output.readline():
                self._is_up.set()
            # do not wait for the end of the pipe: a cluster's own processes may keep it open after the distributor has
            # exited
            process.wait()
        _close(process.stdin)

    def _start_again(self) -> bool:
        """Start another process after one has exited; return False if it is no longer restarted."""
        assert self._process is not None
        code = self._process.returncode
        if self._restarts >= self._restarts_max:
            self.failure = DistributorNotAlive(
                f"The {self._kind} of run {self.workflow_run_id} exited with code {code}; {self._restarts} restarts"
                f" in a row made no progress. The end of its log, {self.log_path}:\n{self.log_tail()}"
            )
            return False
        self._restarts += 1
        logger.warning("The %s of run %d exited with code %s; restarting it.", self._kind, self.workflow_run_id, code)
        if self._stopping.wait(RESTART_PAUSE_SECONDS * self._restarts):
            return False
        self._deadline = self._monotonic() + self._startup_timeout
        try:
            self._spawn()
        except DistributorNotAlive as error:
            self.failure = error
            return False
        return True

    def _give_up_at_once(self) -> None:
        why = self.log_tail().rpartition("\n")[2]
        self.failure = DistributorNotAlive(
            f"The {self._kind} of run {self.workflow_run_id} cannot run: {why} The {self._kind}'s log: {self.log_path}"
        )

    def _give_up_startup(self) -> None:
        self.failure = DistributorStartupTimeout(
            f"The {self._kind} of run {self.workflow_run_id} did not start within {self._startup_timeout:g} s. The end"
            f" of its log, {self.log_path}:\n{self.log_tail()}"
        )
        if self._process is not None:
            self._process.kill()
        if self._watcher is not None:
            self._watcher.join(_JOIN_SECONDS)


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass  # its reader is gone already
