"""Start commands in dedicated threads.

A log folder may hang for minutes (when its file server is unreachable), and so does any thread that opens a file there.
The threads do everything that may hang: they enter the working directory, open the output files and start the command.
The loop waits until these files are open, which hardly ever takes long, and continues while the kernel starts the
program (`spawning.py`). `collect` returns the result. While one thread waits for the kernel, or for the processor that
the new command occupies, another one starts the next command.

A command with a cgroup is forked, because the child has to enter the cgroup before it executes the command (ADR 13).

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import _signal
import _thread
import errno
import os
import time
from _queue import Empty, SimpleQueue

from jobmon.agent import outputs, spawning
from jobmon.agent.locations import COMMAND, DIRECTORY, OUTPUT
from jobmon.agent.processes import MARK_VARIABLE

#: The maximum number of threads that start commands.
THREADS = 2
#: How long the loop waits until the files of a command are open.
START_SECONDS_MAX = 0.05
#: When the loop asks for the result of a start, unless an exit wakes it up before. Later results ring the bell.
COLLECT_SECONDS = 0.01
#: Maximum number of starts passed to the threads and not completed.
STARTS_MAX = 10_000
#: Exit code of a forked child that could not execute its command.
EXIT_NOT_STARTED = 127
CANCELLED = "it was cancelled before it started"
FAILURE_BYTES_MAX = 600  # so that a line is written to a pipe atomically
READ_BYTES = 65_536
_clock_boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from jobmon.agent.cgroups import Group
    from jobmon.agent.spawning import Spawn


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

    Attributes:
        written: identities of the opened files for stdout and stderr; None: not opened by this process.
    """

    __slots__ = (
        *("cores", "devices", "directory", "environment", "identity", "inputs", "memory", "outputs", "requested"),
        *("runtime", "stderr", "stdout", "task_id", "umask", "words", "written"),
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
        self.written: tuple[tuple[int, int] | None, tuple[int, int] | None] = (None, None)


class NotStarted:
    """Why a command was not started.

    Args:
        why: the reason, for messages.
        step: the step that failed: DIRECTORY, INPUT, OUTPUT or COMMAND; "": unknown.
        number: the error number of the system; None: there is none.
        path: path of the folder, file or program.
        files: descriptors to close.
    """

    __slots__ = ("files", "number", "path", "step", "why")

    def __init__(
        self, why: str, step: str = "", number: int | None = None, path: str = "", files: Iterable[int] = ()
    ) -> None:
        self.why = why
        self.files = files
        self.step = step
        self.number = number
        self.path = path


class Started:
    """A command that was started.

    Args:
        pid: PID of the command, which leads a process group.
        monotonic: when it was started, monotonic seconds.
        wall: the time of day then, seconds since the epoch.
        boot: the time since boot then, seconds.
        files: descriptors to close.
    """

    __slots__ = ("boot", "files", "monotonic", "pid", "wall")

    def __init__(self, pid: int, monotonic: float, wall: float, boot: float, files: Iterable[int]) -> None:
        self.pid = pid
        self.files = files
        self.monotonic = monotonic
        self.wall = wall
        self.boot = boot


class Starter:
    """The threads that start commands, and the queue of starts.

    Args:
        mark: returns the mark of an attempt.
    """

    def __init__(self, mark: Callable[[int], str]) -> None:
        self._variables: dict[str, bytes] = {}
        self._mark = mark
        self._asked: SimpleQueue[tuple[Launch, Group | None]] = SimpleQueue()
        #: None announces that the kernel is about to start the command.
        self._answers: SimpleQueue[tuple[Launch, Started | NotStarted | None]] = SimpleQueue()
        self._open_count = 0  # starts requested whose threads have not answered
        self._in_kernel: set[int] = set()  # `id()` of those of them that were announced
        self._results: list[tuple[Launch, Started | NotStarted]] = []  # to be handed over by `collect`
        self._collect_at = 0.0
        self._is_late = False
        self._deciding = _thread.allocate_lock()  # held while a start begins, and while one is cancelled
        self._cancelled: set[int] = set()  # `id()` of launches that must not be started
        self._begun: set[int] = set()  # `id()` of launches that may have been started
        self._thread_count = 0
        self._directory: tuple[str, int, int] | None = None
        self._umask: int | None = None
        #: One for each thread, which holds it while it relies on directory and umask; who changes these holds all.
        self._relying = [_thread.allocate_lock() for _ in range(THREADS)]
        self._reader, self._failures = os.pipe()  # a forked child writes here why its exec failed
        os.set_blocking(self._reader, False)
        self._why: dict[int, tuple[int, str]] = {}  # by PID

    def set_environment(self, values: Mapping[str, str]) -> None:
        """Set the environment of all commands."""
        self._variables = spawning.variables(values)

    @property
    def is_waiting(self) -> bool:
        """Whether starts are pending that `collect` has not returned yet."""
        return self._open_count > 0 or bool(self._results)

    @property
    def due(self) -> float | None:
        """When to call `collect` even if the bell does not ring, monotonic seconds; None: it will ring."""
        if self._results:
            return 0.0
        return self._collect_at if self._open_count and not self._is_late else None

    def start(self, launch: Launch, group: Group | None) -> Started | NotStarted | None:
        """Start a command; return the result if it is known already; None: `collect` returns it later.

        Args:
            launch: the command.
            group: the command's cgroup; None: it has none.
        """
        if self._open_count >= STARTS_MAX:
            return NotStarted(f"{STARTS_MAX} earlier commands are waiting for their output files", OUTPUT, errno.EAGAIN)
        self._asked.put((launch, group))
        self._open_count += 1
        if self._thread_count < min(self._open_count, THREADS):  # most jobs of a cluster need only one
            _thread.start_new_thread(self._serve, (self._relying[self._thread_count],))
            self._thread_count += 1
        while self._open_count <= THREADS:  # else no thread is free
            try:
                one, started = self._answers.get(timeout=START_SECONDS_MAX)
            except Empty:
                self._is_late = True
                break
            self._note_answer(one, started)
            if one is launch:
                return self._handed_over(*self._results.pop()) if started is not None else None
        return None

    def cancel(self, launch: Launch) -> bool:
        """Cancel a pending start; return False if it is too late for that."""
        with self._deciding:
            if id(launch) in self._begun:
                return False
            self._cancelled.add(id(launch))
            return True

    def collect(self, wait_seconds: float = 0.0) -> list[tuple[Launch, Started | NotStarted]]:
        """Return the results of starts.

        Args:
            wait_seconds: how long to wait for the first result if the kernel is starting a command.
        """
        while self._open_count:
            try:
                if wait_seconds and self._in_kernel and not self._results:
                    self._note_answer(*self._answers.get(timeout=wait_seconds))
                else:
                    self._note_answer(*self._answers.get_nowait())
            except Empty:
                if self._is_late or time.monotonic() < self._collect_at:
                    break
                self._is_late = True  # from now on the bell rings; a result may have arrived just before
        found, self._results = self._results, []
        for launch, started in found:
            self._handed_over(launch, started)
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

    def _note_answer(self, launch: Launch, started: Started | NotStarted | None) -> None:
        if started is None:
            self._in_kernel.add(id(launch))
            self._collect_at = time.monotonic() + COLLECT_SECONDS
            return
        for file in started.files:  # closed here, because a thread that closes a file waits for the interpreter lock
            os.close(file)
        self._results.append((launch, started))
        self._in_kernel.discard(id(launch))
        self._open_count -= 1
        self._is_late = self._is_late and self._open_count > 0

    def _handed_over(self, launch: Launch, started: Started | NotStarted) -> Started | NotStarted:
        """Return the result of a start, which can no longer be cancelled."""
        self._begun.discard(id(launch))
        self._cancelled.discard(id(launch))
        return started

    # -- in a thread -------------------------------------------------------------------------------------------

    def _serve(self, own: LockType) -> None:
        spawn = spawning.spawner()
        while True:
            launch, group = self._asked.get()
            self._answers.put((launch, self._started(launch, group, spawn, own)))
            if self._is_late:
                os.kill(os.getpid(), _signal.SIGCHLD)  # rings the bell

    def _started(self, launch: Launch, group: Group | None, spawn: Spawn, own: LockType) -> Started | NotStarted:
        """Start a command in its working directory, which belongs to the whole process, as does the umask."""
        try:
            place = _place(launch.directory)
            own.acquire()
            if place != self._directory or launch.umask != self._umask:
                own.release()
                self._enter(launch, place, own)
            try:
                return self._started_here(launch, group, spawn)
            finally:
                own.release()
        except (OSError, ValueError) as error:
            why = f"its working directory {launch.directory!r} cannot be entered: {_text(error)}"
            return NotStarted(why, DIRECTORY, _number(error), launch.directory)

    def _enter(self, launch: Launch, place: tuple[str, int, int], own: LockType) -> None:
        """Set directory and umask while no other thread relies on them, and keep the thread's own lock."""
        for lock in self._relying:
            lock.acquire()
        is_entered = False
        try:
            if place != self._directory:
                self._directory = None
                os.chdir(launch.directory)
                self._directory = place
            os.umask(launch.umask)
            self._umask = launch.umask
            is_entered = True
        finally:
            for lock in self._relying:
                if lock is not own or not is_entered:
                    lock.release()

    def _started_here(self, launch: Launch, group: Group | None, spawn: Spawn) -> Started | NotStarted:
        try:
            stdout, stderr = outputs.opened(launch.stdout, launch.stderr)
        except (OSError, ValueError) as error:
            path = str(getattr(error, "filename", None) or getattr(error, "path", None) or launch.stdout)
            return NotStarted(
                f"its output file {path!r} cannot be written: {_text(error)}", OUTPUT, _number(error), path
            )
        files = {stdout, stderr}
        try:
            written = outputs.identity(stdout)
            launch.written = written, written if stderr == stdout else outputs.identity(stderr)
            own = {**launch.environment, MARK_VARIABLE: self._mark(launch.identity)}
            environment = {**self._variables, **spawning.variables(own)}
            with self._deciding:
                if id(launch) in self._cancelled:
                    self._cancelled.remove(id(launch))
                    return NotStarted(CANCELLED, files=files)
                self._begun.add(id(launch))
            times = time.monotonic(), time.time(), time.clock_gettime(_clock_boot)
            if group is not None:
                pid = _forked(launch.words, environment, stdout, stderr, group, self._failures)
            else:
                self._answers.put((launch, None))
                pid = spawn(launch.words, environment, stdout, stderr)
            return Started(pid, *times, files)
        except (OSError, ValueError) as error:
            found = _not_started(launch.words[0], error)
            found.files = files
            return found


def _place(directory: str) -> tuple[str, int, int]:
    """Return what identifies a folder: one that was removed and recreated is another one under the same path."""
    found = os.stat(directory)
    return directory, found.st_dev, found.st_ino


def _forked(
    words: list[str], environment: Mapping[str, bytes], stdout: int, stderr: int, group: Group, failures: int
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
        for number in spawning.RESET:
            _signal.signal(number, _signal.SIG_DFL)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        _enter(group)
        os.execvpe(words[0], words, spawning.values_of(environment))
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
