"""Test processes share one cluster: the first one starts it, the last one stops it, and some tests need it alone.

Everything here is a lock on a file beside the cluster's folder, so it ends with the process that holds it.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Shared:
    """What test processes agree on about one cluster.

    Args:
        base: folder of the cluster; the files are beside it.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._is_inside = False
        self._files: dict[str, IO[str]] = {}

    def _lock(self, name: str, how: int) -> None:
        if name not in self._files:
            self._base.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = self._base.with_name(f"{self._base.name}.{name}").open("w")
        fcntl.flock(self._files[name], how)

    @contextmanager
    def running(
        self,
        start: Callable[[], None],
        stop: Callable[[], None],
        *,
        is_up: Callable[[], bool],
        is_there: Callable[[], bool],
    ) -> Iterator[None]:
        """Start the cluster if it is not up. The last process that leaves stops it, unless it was there before.

        Args:
            start: starts all parts that are not running.
            stop: stops it.
            is_up: whether all parts are running.
            is_there: whether somebody has started it.
        """
        is_ours = self._base.with_name(f"{self._base.name}.ours")
        with self.together(), self._locked():  # a test that is alone may have stopped a part
            self._lock("users", fcntl.LOCK_SH)
            if not is_there():
                is_ours.touch()
            if not is_up():
                start()
        yield
        with self._locked(), suppress(BlockingIOError):  # raised if others still use it
            self._lock("users", fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_ours.exists():
                is_ours.unlink()
                stop()
        for file in self._files.values():  # which unlocks them
            file.close()
        self._files.clear()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time start or stop the cluster."""
        self._lock("lock", fcntl.LOCK_EX)
        try:
            yield
        finally:
            self._lock("lock", fcntl.LOCK_UN)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Use the cluster beside others, but not while one is alone with it."""
        self._enter(fcntl.LOCK_SH)
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Use the cluster alone. It is left and entered again within `together`, so that two who ask do not block."""
        was_inside = self._is_inside
        self._leave()
        self._enter(fcntl.LOCK_EX)
        try:
            yield
        finally:
            self._leave()
            if was_inside:
                self._enter(fcntl.LOCK_SH)

    def _enter(self, how: int) -> None:
        self._lock("door", fcntl.LOCK_EX)  # held by who waits to be alone: nobody else begins in the meantime
        try:
            self._lock("room", how)
        finally:
            self._lock("door", fcntl.LOCK_UN)
        self._is_inside = True

    def _leave(self) -> None:
        self._lock("room", fcntl.LOCK_UN)
        self._is_inside = False
