"""Watch a detached process: start it, restart it if a signal kills it, and pass its first report on to its starter.

The starter writes the setup as JSON to standard input and closes it. The process is the leader of a run, or a user's
script. It reports through a pipe, in lines of JSON: `{"workflow": 5, "run": 7, "log": "..."}` when it leads a run, and
`{}` when tasks have completed. The starter reads one line from standard output: the first such report, or
`{"exit": 1}` if there was none. Standard error is the log.

A process that exits by itself has recorded how its run ended, so it is not restarted. A process that is killed is: at
most three times in a row without progress. Then another command records that nobody leads its runs any more. If the
watcher dies, the process continues unwatched.

Runs as a script with the standard library only (`python -I -S`), because it lives as long as the run.
"""

from __future__ import annotations

import _signal
import contextlib
import json
import os
import select
import time

#: Describes the watcher to the watched process; see `jobmon.client.watched`.
VARIABLE = "JOBMON_WATCHER"
#: Maximum number of consecutive restarts without progress of any task.
RESTARTS_MAX = 3
RESTART_PAUSE_SECONDS = 1.0
SETUP_BYTES_MAX = 4 * 1024 * 1024
#: Maximum length of a line of the process.
LINE_BYTES_MAX = 65_536
#: Maximum number of runs of a script that are remembered for its successor; the oldest are forgotten.
RUNS_MAX = 1_000
EXIT_GIVEN_UP = 1
_INPUT, _OUTPUT, _LOG = 0, 1, 2
_READ_BYTES = 65_536
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def _nothing(_number: int, _frame: object) -> None:
    """Handle a signal by doing nothing. Unlike SIG_IGN, child processes do not inherit this."""


class Watcher:
    """The watcher of one process.

    Args:
        setup: `command` and `give_up`, command lines; `log`, the path of the log; `token`, a random text;
            `restart_pause_seconds`, RESTART_PAUSE_SECONDS if absent.
    """

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._setup = setup
        self._log: str = setup["log"]
        self._restart_pause_seconds: float = setup.get("restart_pause_seconds", RESTART_PAUSE_SECONDS)
        #: Workflow -> the newest run of it that the process led.
        self._runs: dict[int, int] = {}
        self._is_told = False
        self._has_progressed = False
        self._pid = 0
        self._unread = b""
        self._woken, waking = os.pipe()
        for end in (self._woken, waking):
            os.set_blocking(end, False)
        _signal.signal(_signal.SIGHUP, _nothing)
        _signal.signal(_signal.SIGCHLD, _nothing)
        _signal.set_wakeup_fd(waking)

    def watch(self) -> int:
        """Run the process until it exits by itself or is given up; return the exit code."""
        restarts, is_restart = 0, False
        while True:
            self._has_progressed = False
            code = self._run(is_restart=is_restart)
            if code >= 0:
                self._say(f"Process {self._pid} exited with code {code}.")
                self._tell({"exit": code})
                return code
            restarts = 0 if self._has_progressed else restarts
            killed = f"Process {self._pid} was killed by signal {-code}"
            if restarts == RESTARTS_MAX:
                self._say(f"{killed}; {restarts} restarts in a row made no progress, so it is not restarted.")
                self._give_up()
                self._tell({"exit": code})
                return EXIT_GIVEN_UP
            restarts, is_restart = restarts + 1, True
            self._say(f"{killed}; restarting it ({restarts} of {RESTARTS_MAX} without progress).")
            time.sleep(self._restart_pause_seconds)

    # -- the process --------------------------------------------------------------------------------------------

    def _run(self, *, is_restart: bool) -> int:
        """Start the process and wait until it exits; return its exit code, or minus the signal that killed it."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_inheritable(writer, True)
        about = {
            "pid": os.getpid(),
            "report": writer,
            "log": self._log,
            "token": self._setup["token"],
            "is_restart": is_restart,
            "runs": self._runs,
        }
        self._pid = _spawn(self._setup["command"], {**os.environ, VARIABLE: json.dumps(about)})
        os.close(writer)
        self._unread = b""
        try:
            return self._follow(reader)
        finally:
            os.close(reader)

    def _follow(self, reader: int) -> int:
        """Read reports until the process exits. Its own child processes may keep the pipe open for longer."""
        open_ends = [reader, self._woken]
        while True:
            select.select(open_ends, [], [])
            _drain(self._woken)
            pid, status = os.waitpid(self._pid, os.WNOHANG)  # before the pipe is read: nothing is written afterwards
            if not self._read(reader) and reader in open_ends:
                open_ends.remove(reader)
            if pid:
                return os.waitstatus_to_exitcode(status)

    def _read(self, reader: int) -> bool:
        """Take in what the process has reported; return whether it may report more."""
        while True:
            try:
                piece = os.read(reader, _READ_BYTES)
            except BlockingIOError:
                return True
            *lines, rest = (self._unread + piece).split(b"\n")
            self._unread = rest[:LINE_BYTES_MAX]
            for line in lines:
                self._take_in(line)
            if not piece:
                return False

    def _take_in(self, line: bytes) -> None:
        try:
            report = json.loads(line)
        except ValueError:
            return
        if "run" not in report:
            self._has_progressed = True
            return
        self._log = report["log"]
        self._runs.pop(report["workflow"], None)
        self._runs[report["workflow"]] = report["run"]
        if len(self._runs) > RUNS_MAX:
            del self._runs[next(iter(self._runs))]
        self._tell(report)

    def _give_up(self) -> None:
        """Record that nobody leads the runs of the process any more."""
        if self._runs:
            runs = [f"{workflow}:{run}" for workflow, run in self._runs.items()]
            os.waitpid(_spawn([*self._setup["give_up"], *runs], os.environ), 0)

    # -- messages -----------------------------------------------------------------------------------------------

    def _tell(self, report: Mapping[str, Any]) -> None:
        """Write one line to the starter, who may have exited."""
        if self._is_told:
            return
        self._is_told = True
        with contextlib.suppress(OSError):
            os.write(_OUTPUT, json.dumps(report).encode() + b"\n")
        _open_null(_OUTPUT)

    @staticmethod
    def _say(text: str) -> None:
        with contextlib.suppress(OSError):  # the disk is full
            os.write(_LOG, f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}\n".encode())


def _spawn(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start a process in its own session, with the log as its output and no input; return its ID."""
    actions = [
        (os.POSIX_SPAWN_OPEN, _INPUT, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, _LOG, _OUTPUT),
    ]
    defaults = (_signal.SIGPIPE, _signal.SIGXFSZ)  # Python ignores them
    words = list(command)
    try:
        return os.posix_spawn(words[0], words, environment, file_actions=actions, setsid=True, setsigdef=defaults)
    except NotImplementedError:  # this system starts sessions only with fork
        return os.posix_spawn(words[0], words, environment, file_actions=actions, setpgroup=0, setsigdef=defaults)


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, _READ_BYTES):
            pass
    except BlockingIOError:
        pass


def _open_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)


def _read_setup() -> dict[str, Any] | None:
    """Return the setup; None: the starter has exited before it was complete."""
    received = b""
    while piece := os.read(_INPUT, _READ_BYTES):
        received += piece
        if len(received) > SETUP_BYTES_MAX:
            return None
    _open_null(_INPUT)
    try:
        found: dict[str, Any] = json.loads(received)
    except ValueError:
        return None
    return found


def main() -> int:
    """Run the watcher; return its exit code."""
    setup = _read_setup()
    return EXIT_GIVEN_UP if setup is None else Watcher(setup).watch()


if __name__ == "__main__":
    raise SystemExit(main())
