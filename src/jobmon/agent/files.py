"""Look for the files that an attempt reads or writes, on the host where its command runs.

A file may be written on another host, and a network file system may not show it for a while. Waiting alone does not
help, because missing files are cached, too; listing the folder refreshes that cache. So while a file is missing, its
folder is listed at growing intervals.

A file system may hang, and so does any thread that looks at it. All looks are made in a thread of their own, which
starts with the first attempt that has declared files.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import _signal
import _thread
import os
import stat
import time
from _queue import Empty, SimpleQueue

from jobmon.agent.patterns import WILDCARD, matches

#: How long a missing file is waited for, unless the settings say otherwise.
LATENCY_WAIT_SECONDS = 10.0
LATENCY_WAIT_VARIABLE = "JOBMON__FILES__LATENCY_WAIT"
#: Intervals at which a missing file is looked for.
PAUSE_SECONDS_FIRST = 0.05
PAUSE_SECONDS_MAX = 1.0
_MICROSECONDS = 1_000
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def latency_wait_seconds(environment: Mapping[str, str]) -> float:
    """Return how long a worker with this environment waits for a missing file."""
    return float(environment.get(LATENCY_WAIT_VARIABLE, LATENCY_WAIT_SECONDS))


class Found:
    """What was found.

    Args:
        seen: for each file that exists: its declared path, the number of files that match it, their size in bytes, and
            the newest time of modification, in microseconds since the epoch.
        missing: the first declared path that nothing matches; "": there is none.
    """

    __slots__ = ("missing", "seen")

    def __init__(self, seen: list[tuple[str, int, int, int]], missing: str) -> None:
        self.seen = seen
        self.missing = missing


def find(paths: Sequence[str], *, refreshes: bool = True) -> Found:
    """Look for declared files once.

    Args:
        paths: absolute paths; `*` stands for any number of characters of a name, a trailing "/" means a folder.
        refreshes: whether to list the folder of each missing file.
    """
    seen, missing = [], ""
    for path in paths:
        found = [one for one in (_status(each) for each in _expanded(path)) if one is not None]
        if found:
            size = sum(one.st_size for one in found if not stat.S_ISDIR(one.st_mode))
            seen.append((path, len(found), size, max(one.st_mtime_ns for one in found) // _MICROSECONDS))
        else:
            missing = missing or path
            if refreshes:
                refresh(os.path.dirname(path.rstrip("/")))
    return Found(seen, missing)


def refresh(folder: str) -> None:
    """List a folder, so that its file system shows new files in it."""
    _names(folder)


def _expanded(path: str) -> Iterator[str]:
    """Yield the paths that may match a declared path, one step of the path after another."""
    if WILDCARD not in path:
        yield path
        return
    first, *steps = path.rstrip("/").split("/")
    found = [first]
    for step in steps:
        if WILDCARD not in step:
            found = [f"{folder}/{step}" for folder in found]
        else:
            found = [f"{folder}/{name}" for folder in found for name in _names(folder) if matches(name, step)]
    yield from (f"{one}/" if path.endswith("/") else one for one in found)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or "/")
    except (OSError, ValueError):
        return []


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


class _Search:
    """A search for the files of an attempt."""

    __slots__ = ("deadline", "next_at", "number", "paths", "pause")

    def __init__(self, number: int, paths: Sequence[str], deadline: float) -> None:
        self.number = number
        self.paths = paths
        self.deadline = deadline
        self.next_at = 0.0
        self.pause = PAUSE_SECONDS_FIRST


class FileSearches:
    """The searches of one program, and the thread that makes them."""

    def __init__(self) -> None:
        #: How long a missing file is waited for.
        self.latency_wait_seconds = LATENCY_WAIT_SECONDS
        self._asked: SimpleQueue[_Search] = SimpleQueue()
        self._answers: SimpleQueue[tuple[int, Found]] = SimpleQueue()
        self._open: dict[int, int] = {}  # number of a search -> attempt
        self._count = 0
        self._is_running = False

    def start(self, identity: int, paths: Sequence[str]) -> None:
        """Search for the files of an attempt; `collect` returns the result later."""
        if not self._is_running:
            self._is_running = True
            _thread.start_new_thread(self._serve, ())
        self._count += 1
        self._open[self._count] = identity
        self._asked.put(_Search(self._count, paths, time.monotonic() + self.latency_wait_seconds))

    def cancel(self, identity: int) -> bool:
        """Drop the search for an attempt; return False if there is none."""
        numbers = [number for number, one in self._open.items() if one == identity]
        for number in numbers:
            del self._open[number]
        return bool(numbers)

    def collect(self) -> list[tuple[int, Found]]:
        """Return the attempts whose search has ended, with what was found."""
        found = []
        while self._open:
            try:
                number, result = self._answers.get_nowait()
            except Empty:
                break
            if (identity := self._open.pop(number, None)) is not None:
                found.append((identity, result))
        return found

    # -- in the thread -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        searches: list[_Search] = []
        while True:
            searches += self._received(searches)
            now = time.monotonic()
            for search in [one for one in searches if now >= one.next_at]:
                found = find(search.paths)
                if found.missing and time.monotonic() < search.deadline:
                    search.next_at = min(time.monotonic() + search.pause, search.deadline)
                    search.pause = min(2 * search.pause, PAUSE_SECONDS_MAX)
                else:
                    searches.remove(search)
                    self._answers.put((search.number, found))
                    os.kill(os.getpid(), _signal.SIGCHLD)  # rings the bell

    def _received(self, searches: list[_Search]) -> list[_Search]:
        """Return new searches; wait for them until one of the known ones is due."""
        try:
            if not searches:
                return [self._asked.get()]
            due = min(one.next_at for one in searches)
            return [self._asked.get(timeout=max(0.0, due - time.monotonic()))]
        except Empty:
            return []
