"""Start, watch, restart and stop the distributor: a process of its own, one per run.

It is told that its client lives by its standard input, which stays open; it says that it is up by one line on its
standard output; its standard error is its log. A thread waits for its end and starts another, which adopts what runs.
A large Python process must not fork: `subprocess` starts children with vfork as long as nothing is to be run in the
child before the program (no preexec_fn, no change of user), so nothing of the kind is asked for here.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Final

from jobmon.core.constants import LOG_TAIL_BYTES_MAX
from jobmon.core.exceptions import DistributorNotAlive, DistributorStartupTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

#: How often in a row a distributor is started again while no task moves.
RESTARTS_MAX: Final = 3
RESTART_PAUSE_SECONDS: Final = 0.2
STARTUP_TIMEOUT_SECONDS: Final = 180.0
#: How long the thread that watches a distributor may take to notice that it ended.
_JOIN_SECONDS: Final = 5.0


def distributor_command(workflow_run_id: int) -> list[str]:
    """Return the command line of a distributor."""
    return [sys.executable, "-m", "jobmon.distributor", "--workflow-run-id", str(workflow_run_id)]


class DistributorProcess:
    """The distributor of one run, kept alive.

    Args:
        workflow_run_id: of which run.
        startup_timeout: longest wait until it says that it is up, seconds.
        command: its command line.
        log_directory: where its log goes; by default below the data folder.
        restarts_max: how often in a row it is started again while no task moves.
        monotonic: seconds since some moment.
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
    ) -> None:
        self.workflow_run_id = workflow_run_id
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
        #: Why it is given up; None while it is not.
        self.failure: DistributorStartupTimeout | DistributorNotAlive | None = None

    # -- for the client -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it without waiting until it is up; `alive` turns false if that takes too long.

        Raises:
            DistributorNotAlive: it cannot be started at all.
        """
        self._deadline = self._monotonic() + self._startup_timeout
        self._spawn()
        self._watcher = threading.Thread(
            target=self._watch, name=f"jobmon-distributor-{self.workflow_run_id}", daemon=True
        )
        self._watcher.start()

    def wait_until_up(self) -> None:
        """Wait until it says that it is up.

        Raises:
            DistributorStartupTimeout, DistributorNotAlive: it does not.
        """
        while not self._is_up.wait(RESTART_PAUSE_SECONDS):
            self.alive()
            if self.failure is not None:
                raise self.failure

    def alive(self) -> bool:
        """Say whether it runs, or is being started (again)."""
        if self.failure is None and not self._is_up.is_set() and self._monotonic() > self._deadline:
            self._give_up_startup()
        return self._process is not None and self.failure is None

    def note_progress(self) -> None:
        """Say that tasks move: restarts are counted anew."""
        self._restarts = 0

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Tell it that the client is done, and wait a while for its end.

        It ends by itself: at once if nothing of its run runs any more, else when that is done and reported.
        """
        self._stopping.set()
        process = self._process
        if process is None or self._watcher is None:
            return
        _close(process.stdin)
        self._watcher.join(wait_seconds)

    @property
    def pid(self) -> int | None:
        """Id of the process that runs now."""
        return self._process.pid if self._process is not None else None

    @property
    def log_path(self) -> Path:
        """Where its log is."""
        if self._log_directory is None:
            from jobmon.core.configuration import data_directory

            self._log_directory = data_directory() / "logs" / "distributors"
        return self._log_directory / f"run-{self.workflow_run_id}.log"

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
            self.log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C at the terminal is the client's to judge
                )
        except OSError as error:
            raise DistributorNotAlive(f"The distributor cannot be started: {error}.") from error

    def _watch(self) -> None:
        while self._process is not None:
            self._follow(self._process)
            if self._stopping.is_set() or self.failure is not None:
                return
            self._is_up.clear()
            if not self._start_again():
                return

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a process; make sure that nothing of it is left."""
        assert process.stdout is not None, "it was started with a pipe"
        with process.stdout as output:
            if output.readline():
                self._is_up.set()
            # not until the pipe ends: a cluster's own processes may hold it longer than the distributor lives
            process.wait()
        _close(process.stdin)

    def _start_again(self) -> bool:
        """Start another one after the old one's end; False: it was given up."""
        assert self._process is not None
        code = self._process.returncode
        if self._restarts >= self._restarts_max:
            self.failure = DistributorNotAlive(
                f"The distributor of run {self.workflow_run_id} ended (exit code {code}) and {self._restarts} restarts"
                f" in a row brought nothing. The end of its log, {self.log_path}:\n{self.log_tail()}"
            )
            return False
        self._restarts += 1
        logger.warning(
            "The distributor of run %d ended (exit code %s); another one is started.", self.workflow_run_id, code
        )
        if self._stopping.wait(RESTART_PAUSE_SECONDS * self._restarts):
            return False
        self._deadline = self._monotonic() + self._startup_timeout
        try:
            self._spawn()
        except DistributorNotAlive as error:
            self.failure = error
            return False
        return True

    def _give_up_startup(self) -> None:
        self.failure = DistributorStartupTimeout(
            f"The distributor of run {self.workflow_run_id} was not up after {self._startup_timeout:g} s. The end of"
            f" its log, {self.log_path}:\n{self.log_tail()}"
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
        pass  # its reader is gone: just what closing was to tell
