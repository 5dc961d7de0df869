"""Starts commands.

Part of the supervisor's program: it imports nothing but the standard library, and little of that.
"""

from __future__ import annotations

import errno
import json
import os
import signal

from jobmon.plugins.local.attempts import encode

#: With which a forked child ends that could not become its command; as shells do.
EXIT_NOT_STARTED = 127
WHY_CHARACTERS_MAX = 600  # so that a line fits a pipe as a whole
_READ_BYTES = 65_536
_READ_NULL = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
_ERRORS_TO_OUTPUT = (os.POSIX_SPAWN_DUP2, 1, 2)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Python and we ignore these; a command shall find them as every other program does.
_RESET = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)
TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobmon.plugins.local.cgroups import Group


class Starter:
    """Starts commands one after the other."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self._directory: str | None = None
        self._umask: int | None = None
        self._reader, self._writer = os.pipe()  # by which a forked child tells why it did not start
        os.set_blocking(self._reader, False)
        self._why: dict[int, str] = {}

    def start(
        self,
        identity: int,
        argv: list[str],
        env: dict[str, str],
        place: tuple[str, int, str, str | None],
        group: Group | None,
    ) -> int | str:
        """Return the pid of a command, or why it was not started. `place`: folder, umask, output and error output."""
        directory, umask, stdout, stderr = place
        environment = {**self.environment, **env}
        try:
            self._enter(directory, umask)
            if group is None:
                return _spawned(argv, environment, stdout, stderr)
            return self._forked(identity, argv, environment, place, group)
        except (OSError, ValueError) as error:
            return _reason(error, argv, place)

    def _enter(self, directory: str, umask: int) -> None:
        """Both belong to the process, so they are changed only between commands that differ."""
        if directory != self._directory:
            os.chdir(directory)
            self._directory = directory
        if umask != self._umask:
            os.umask(umask)
            self._umask = umask

    def _forked(
        self,
        identity: int,
        argv: list[str],
        environment: dict[str, str],
        place: tuple[str, int, str, str | None],
        group: Group,
    ) -> int:
        """Start a command by way of a child that enters a cgroup before it becomes the command."""
        pid = os.fork()
        if pid:
            _make_group_leader(pid)
            return pid
        try:
            _set_up_child(place[2], place[3])
            _enter_group(group)
            os.execve(argv[0], argv, environment)
        except BaseException as error:
            line = encode([identity, _reason(error, argv, place)[:WHY_CHARACTERS_MAX]])
            os.write(self._writer, f"{line}\n".encode())
        finally:
            os._exit(EXIT_NOT_STARTED)

    def why_not(self, identity: int) -> str | None:
        """Return why a forked child did not become its command; None: it did."""
        try:
            while data := os.read(self._reader, _READ_BYTES):
                self._why.update(json.loads(line) for line in data.decode().splitlines())
        except BlockingIOError:
            return self._why.pop(identity, None)
        return None


def _spawned(argv: list[str], environment: dict[str, str], stdout: str, stderr: str | None) -> int:
    errors = (os.POSIX_SPAWN_OPEN, 2, stderr, _WRITE, 0o666) if stderr else _ERRORS_TO_OUTPUT
    return os.posix_spawn(
        argv[0],
        argv,
        environment,
        file_actions=(_READ_NULL, (os.POSIX_SPAWN_OPEN, 1, stdout, _WRITE, 0o666), errors),
        setpgroup=0,
        setsigmask=(),
        setsigdef=_RESET,
    )


def _make_group_leader(pid: int) -> None:
    """Parent and child both do it, so that it is done for either by what comes next."""
    try:
        os.setpgid(pid, pid)
    except OSError:
        return  # it has become the command already


def _set_up_child(stdout: str, stderr: str | None) -> None:
    """Make a forked child what `posix_spawn` makes of one."""
    _make_group_leader(0)
    signal.set_wakeup_fd(-1)
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(os.open(stdout, _WRITE, 0o666), 1)
    os.dup2(os.open(stderr, _WRITE, 0o666) if stderr else 1, 2)


def _enter_group(group: Group) -> None:
    try:
        group.enter()
    except OSError as error:
        raise ValueError(f"its cgroup {group.path} cannot be entered: {error.strerror}") from error


def _reason(error: BaseException, argv: list[str], place: tuple[str, int, str, str | None]) -> str:
    """Say in words why a command could not be started: the kernel's error does not tell which step failed."""
    directory, _, stdout, stderr = place
    if not isinstance(error, OSError):
        return f"the command cannot be started: {error}"
    if error.errno == errno.E2BIG:
        return "the command is longer than the system allows (argument list too long)"
    if not os.path.isdir(directory) or not os.access(directory, os.X_OK):
        return f"its working directory {directory!r} cannot be entered: {error.strerror}"
    for path in filter(None, (stdout, stderr)):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666))
        except OSError as problem:
            return f"its output file {path!r} cannot be written: {problem.strerror}"
    return f"{argv[0]!r} cannot be started: {error.strerror}"
