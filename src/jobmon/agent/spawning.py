"""Start a program without holding the interpreter lock.

`posix_spawn` returns when the new process executes its program, which takes longer than everything else an agent does
for a command. `os.posix_spawn` keeps the interpreter lock meanwhile, so no other thread runs. The same function of the
C library called through `_ctypes` releases the lock. Without `_ctypes`, `os.posix_spawnp` is used.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import _signal
import os

#: Signals that Python or our programs ignore or handle; a command starts with their default actions.
RESET = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGHUP, _signal.SIGTERM, _signal.SIGQUIT)
#: More than any system needs for the structures that the C library fills: attributes, actions, a set of signals.
_STRUCTURE_BYTES = 1_024
#: POSIX_SPAWN_SETPGROUP, POSIX_SPAWN_SETSIGDEF and POSIX_SPAWN_SETSIGMASK, the same on all systems.
_FLAGS = 0x02 | 0x04 | 0x08
#: Maximum number of pairs of descriptors whose actions are kept.
_ACTIONS_MAX = 64
_NULL = b"/dev/null"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    Spawn = Callable[[Sequence[str], Mapping[str, bytes], int, int], int]


def spawner() -> Spawn:
    """Return the function that starts a program.

    It takes the command line, the environment as `variables` returns it, and the descriptors for standard output and
    standard error, and returns the PID. The program leads a process group, reads `/dev/null`, and has no signal blocked
    or ignored. It raises OSError if the program cannot be executed, and ValueError if a string contains NUL.
    """
    try:
        return _Library().spawn
    except (ImportError, AttributeError, OSError):
        return _spawn_with_lock


def variables(environment: Mapping[str, str]) -> dict[str, bytes]:
    """Return an environment in the form in which programs get it: name -> `name=value`.

    Raises:
        ValueError: a string contains NUL.
    """
    return {name: _encoded(f"{name}={value}") for name, value in environment.items()}


def values_of(environment: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return name -> value of what `variables` returned."""
    return {name: variable.partition(b"=")[2] for name, variable in environment.items()}


def _encoded(text: str) -> bytes:
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def _spawn_with_lock(words: Sequence[str], environment: Mapping[str, bytes], stdout: int, stderr: int) -> int:
    return os.posix_spawnp(
        words[0],
        list(words),
        values_of(environment),
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, _NULL, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ),
        setpgroup=0,
        setsigmask=(),
        setsigdef=RESET,
    )


class _Library:
    """The functions of the C library, and the structures that they need."""

    def __init__(self) -> None:
        import _ctypes  # half the cost of `ctypes`

        class Text(_ctypes._SimpleCData):  # type: ignore[type-arg]
            _type_ = "z"

        class Number(_ctypes._SimpleCData):  # type: ignore[type-arg]
            _type_ = "i"

        class Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
            _type_ = "c"

        self._call = _ctypes.call_function
        self._text, self._number_box, self._structure = Text, Number * 1, Byte * _STRUCTURE_BYTES
        handle = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None: this program

        def named(name: str) -> int:
            return _ctypes.dlsym(handle, name)

        self._posix_spawnp = named("posix_spawnp")
        self._actions_init = named("posix_spawn_file_actions_init")
        self._add_open = named("posix_spawn_file_actions_addopen")
        self._add_dup2 = named("posix_spawn_file_actions_adddup2")
        self._attributes = self._structure()
        self._check(named("posix_spawnattr_init"), self._attributes)
        self._check(named("posix_spawnattr_setflags"), self._attributes, _FLAGS)
        self._check(named("posix_spawnattr_setpgroup"), self._attributes, 0)
        signals = self._structure()
        self._check(named("sigemptyset"), signals)
        self._check(named("posix_spawnattr_setsigmask"), self._attributes, signals)
        for number in RESET:
            self._check(named("sigaddset"), signals, int(number))
        self._check(named("posix_spawnattr_setsigdefault"), self._attributes, signals)
        self._actions: dict[tuple[int, int], Any] = {}

    def _check(self, function: int, *arguments: Any) -> None:
        if error := self._call(function, arguments):
            raise OSError(error, os.strerror(error))

    def spawn(self, words: Sequence[str], environment: Mapping[str, bytes], stdout: int, stderr: int) -> int:
        """See `spawner`."""
        line = self._array([_encoded(word) for word in words])
        pid = self._number_box()
        actions = self._actions_for(stdout, stderr)
        given = (pid, line[0], actions, self._attributes, line, self._array(environment.values()))
        if error := self._call(self._posix_spawnp, given):
            raise OSError(error, os.strerror(error))
        return int(pid[0])

    def _array(self, texts: Collection[bytes]) -> Any:
        """Return a null-terminated array of strings."""
        return (self._text * (len(texts) + 1))(*texts)

    def _actions_for(self, stdout: int, stderr: int) -> Any:
        """Return the actions that connect a program to its files; descriptors repeat, so they are kept."""
        found = self._actions.get((stdout, stderr))
        if found is None:
            if len(self._actions) >= _ACTIONS_MAX:
                self._actions.clear()
            found = self._structure()
            self._check(self._actions_init, found)
            self._check(self._add_open, found, 0, _NULL, os.O_RDONLY, 0)
            self._check(self._add_dup2, found, stdout, 1)
            self._check(self._add_dup2, found, stderr, 2)
            self._actions[stdout, stderr] = found
        return found
