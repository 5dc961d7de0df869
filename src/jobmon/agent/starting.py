"""Start commands, one after another, in a dedicated thread.

A log folder may hang for minutes (when its file server is unreachable), and so does any thread that opens a file there.
The thread does everything that may hang: it enters the working directory, opens the output files and starts the
command. The loop waits for it for a moment, which is nearly always enough. Otherwise the loop continues, and `collect`
returns the late result.

Output files are opened here and passed as descriptors: if `posix_spawn` opened them, it would block every thread.

A command with a cgroup is forked, because the child has to enter the cgroup before it executes the command (ADR 13).

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import _signal
import _thread
import errno
import os
from _queue import Empty, SimpleQueue

from jobmon.agent import outputs
from jobmon.agent.locations import COMMAND, DIRECTORY, OUTPUT
from jobmon.agent.processes import MARK_VARIABLE

#: How long the loop waits for a start.
START_SECONDS_MAX = 0.05
#: Maximum number of starts passed to the thread and not completed.
STARTS_MAX = 10_000
#: Exit code of a forked child that could not execute its command.
EXIT_NOT_STARTED = 127
CANCELLED = "it was cancelled before it started"
FAILURE_BYTES_MAX = 600  # so that a line is written to a pipe atomically
READ_BYTES = 65_536
_READ_NULL = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
#: Signals that Python or our programs ignore or handle; a command starts with their default actions.
_RESET = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGHUP, _signal.SIGTERM, _signal.SIGQUIT)
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from jobmon.agent.cgroups import Group


class Launch:
    """A command to run.

    Args:
        identity: ID of the attempt.
        words: the command line.
        environment: variables added to the environment of all commands.
        directory: its working directory.
        umask: its file mode mask.
        stdout: path of the file for standard output.
        stderr: path of the file for standard error; None: as `stdout`.
        runtime: runtime limit, seconds; None: no limit.
        cores: the number of cores that it counts as.
        memory: memory limit, GiB; 0: no limit was requested.
        devices: resource -> number of tokens that the command needs exclusively.
        task_id: ID of its task; 0: not known here.
        inputs: paths of the files that must exist before it is started.
        outputs: paths of the files that must exist after it has succeeded.
        requested: all resources that it requests.
    """

    __slots__ = (
        *("cores", "devices", "directory", "environment", "identity", "inputs", "memory", "outputs", "requested"),
        "runtime",
        *("stderr", "stdout", "task_id", "umask", "words"),
    )

    def __init__(
        self,
        identity: int,
        words: list[str],
        environment: Mapping[str, str],
        directory: str,
        umask: int,
        stdout: str,
        stderr: str | None = None,
        runtime: float | None = None,
        cores: float = 1.0,
        memory: float = 0.0,
        devices: Mapping[str, int] | None = None,
        task_id: int = 0,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        requested: Mapping[str, Any] | None = None,
    ) -> None:
        self.identity = identity
        self.words = words
        self.environment = environment
        self.directory = directory
        self.umask = umask
        self.stdout = stdout
        self.stderr = stderr
        self.runtime = runtime
        self.cores = cores
        self.memory = memory
        self.devices = devices or {}
        self.task_id = task_id
        self.inputs = inputs
        self.outputs = outputs
        self.requested = requested or {}


class NotStarted:
    """Why a command was not started.

    Args:
        why: the reason, for messages.
        step: the step that failed: DIRECTORY, INPUT, OUTPUT or COMMAND; "": unknown.
        number: the error number of the system; None: there is none.
        path: path of the folder, file or program.
    """

    __slots__ = ("number", "path", "step", "why")

    def __init__(self, why: str, step: str = "", number: int | None = None, path: str = "") -> None:
        self.why = why
        self.step = step
        self.number = number
        self.path = path


class Starter:
    """The thread that starts commands, and the queue of starts.

    Args:
        mark: returns the mark of an attempt.
    """

    def __init__(self, mark: Callable[[int], str]) -> None:
        #: The environment of all commands.
        self.environment: dict[str, str] = {}
        self._mark = mark
        self._asked: SimpleQueue[tuple[Launch, Group | None]] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Launch, int | NotStarted]] = SimpleQueue()
        self._open_count = 0  # starts requested and not collected
        self._is_late = False
        self._spawning = _thread.allocate_lock()  # held while a command is started, and while a start is cancelled
        self._cancelled: set[int] = set()  # `id()` of launches that must not be started
        self._begun: set[int] = set()  # `id()` of launches that may have been started
        self._is_running = False
        self._directory: tuple[str, int, int] | None = None
        self._umask: int | None = None
        self._reader, self._failures = os.pipe()  # a forked child writes here why its exec failed
        os.set_blocking(self._reader, False)
        self._why: dict[int, tuple[int, str]] = {}  # by PID

    @property
    def is_waiting(self) -> bool:
        """Whether starts are pending that `collect` has not returned yet."""
        return self._open_count > 0

    def start(self, launch: Launch, group: Group | None) -> int | NotStarted | None:
        """Start a command; return its PID, or why it was not started; None: `collect` returns the result later.

        Args:
            launch: the command.
            group: the command's cgroup; None: it has none.
        """
        if self._open_count >= STARTS_MAX:
            return NotStarted(f"{STARTS_MAX} earlier commands are waiting for their output files", OUTPUT, errno.EAGAIN)
        if not self._is_running:
            self._is_running = True
            _thread.start_new_thread(self._serve, ())
        self._asked.put((launch, group))
        self._open_count += 1
        if self._open_count > 1:
            return None
        try:
            answer = self._answers.get(timeout=START_SECONDS_MAX)
        except Empty:
            self._is_late = True
            try:
                answer = self._answers.get_nowait()  # it may have arrived before the thread saw `_is_late`
            except Empty:
                return None
        self._collected(launch)
        return answer[1]

    def cancel(self, launch: Launch) -> bool:
        """Cancel a pending start; return False if it is too late for that."""
        with self._spawning:
            if id(launch) in self._begun:
                return False
            self._cancelled.add(id(launch))
            return True

    def collect(self) -> list[tuple[Launch, int | NotStarted]]:
        """Return the results of slow starts, in the form that `start` returns."""
        found = []
        while self._open_count:
            try:
                launch, started = self._answers.get_nowait()
            except Empty:
                break
            self._collected(launch)
            found.append((launch, started))
        return found

    def why_not(self, pid: int, program: str) -> NotStarted | None:
        """Return why a forked child, which has exited, could not execute its command; None: it did."""
        try:
            while data := os.read(self._reader, READ_BYTES):
                for line in data.decode(errors="replace").splitlines():
                    child, error, words = line.split(" ", 2)
                    self._why[int(child)] = int(error), words
        except BlockingIOError:
            pass
        if pid not in self._why:
            return None
        number, text = self._why.pop(pid)
        return _not_started(program, OSError(number, text) if number else ValueError(text))

    def _collected(self, launch: Launch) -> None:
        self._begun.discard(id(launch))
        self._cancelled.discard(id(launch))
        self._open_count -= 1
        self._is_late = self._open_count > 0

    # -- in the thread -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            launch, group = self._asked.get()
            self._answers.put((launch, self._started(launch, group)))
            if self._is_late:
                os.kill(os.getpid(), _signal.SIGCHLD)  # rings the bell

    def _started(self, launch: Launch, group: Group | None) -> int | NotStarted:
        try:
            self._enter(launch.directory, launch.umask)
        except (OSError, ValueError) as error:
            why = f"its working directory {launch.directory!r} cannot be entered: {_text(error)}"
            return NotStarted(why, DIRECTORY, _number(error), launch.directory)
        try:
            stdout, stderr = outputs.opened(launch.stdout, launch.stderr)
        except (OSError, ValueError) as error:
            path = str(getattr(error, "filename", None) or getattr(error, "path", None) or launch.stdout)
            return NotStarted(
                f"its output file {path!r} cannot be written: {_text(error)}", OUTPUT, _number(error), path
            )
        try:
            environment = {**self.environment, **launch.environment}
            environment[MARK_VARIABLE] = self._mark(launch.identity)
            with self._spawning:
                if id(launch) in self._cancelled:
                    self._cancelled.remove(id(launch))
                    return NotStarted(CANCELLED)
                self._begun.add(id(launch))
                if group is None:
                    return _spawned(launch.words, environment, stdout, stderr)
                return _forked(launch.words, environment, stdout, stderr, group, self._failures)
        except (OSError, ValueError) as error:
            return _not_started(launch.words[0], error)
        finally:
            os.close(stdout)
            if stderr != stdout:
                os.close(stderr)

    def _enter(self, directory: str, umask: int) -> None:
        """Set working directory and umask. They belong to the process, so change them only if they differ.

        A folder that was removed and recreated is a different folder under the same path.
        """
        found = os.stat(directory)
        entered = (directory, found.st_dev, found.st_ino)
        if entered != self._directory:
            os.chdir(directory)
            self._directory = entered
        if umask != self._umask:
            os.umask(umask)
            self._umask = umask


def _spawned(words: list[str], environment: Mapping[str, str], stdout: int, stderr: int) -> int:
    return os.posix_spawnp(
        words[0],
        words,
        environment,
        file_actions=(_READ_NULL, (os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)),
        setpgroup=0,
        setsigmask=(),
        setsigdef=_RESET,
    )


def _forked(
    words: list[str], environment: Mapping[str, str], stdout: int, stderr: int, group: Group, failures: int
) -> int:
    """Start a command through a forked child that enters a cgroup before it executes the command.

    Entering may take long, so the caller does not wait for it. A child that fails exits with `EXIT_NOT_STARTED`, and
    `why_not` returns the reason.
    """
    if pid := os.fork():
        try:
            os.setpgid(pid, pid)  # parent and child both do this, so that each can rely on it afterwards
        except OSError:
            return pid  # the child has already executed the command
        return pid
    try:
        os.setpgid(0, 0)
        _signal.set_wakeup_fd(-1)
        for number in _RESET:
            _signal.signal(number, _signal.SIG_DFL)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        _enter(group)
        os.execvpe(words[0], words, environment)
    except BaseException as error:
        text = _text(error).replace("\n", " ")
        line = f"{os.getpid()} {_number(error) or 0} {text}".encode(errors="replace")[:FAILURE_BYTES_MAX]
        os.write(failures, line + b"\n")
    finally:
        os._exit(EXIT_NOT_STARTED)


def _enter(group: Group) -> None:
    try:
        group.enter()
    except OSError as error:
        raise ValueError(f"its cgroup {group.path} cannot be entered: {error.strerror}") from error


def _not_started(program: str, error: Exception) -> NotStarted:
    if not isinstance(error, OSError):
        return NotStarted(f"the command cannot be started: {error}")
    if error.errno == errno.E2BIG:
        return NotStarted("the command is longer than the system allows (argument list too long)")
    return NotStarted(f"{program!r} cannot be started: {_text(error)}", COMMAND, error.errno, program)


def _number(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _text(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
