"""The journal of a program's commands that are running or have ended.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import errno
import os
import sys
import time

from jobmon.agent.fastjson import dumps
from jobmon.agent.machine import boot_id

JOURNAL_BYTES_MAX = 4 * 1024 * 1024
#: Intervals at which a failed write is retried, and at which the failure is logged.
RETRY_SECONDS = 1.0
SAID_SECONDS = 60.0
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class Journal:
    """A log of starts and outcomes on disk. A full disk does not stop the program: failed writes are retried.

    Args:
        path: path of the file.
        root: the root of our commands' marks.
        started: when this program started, in ticks since boot; 0: unknown.
    """

    def __init__(self, path: str, root: str = "", started: int = 0) -> None:
        self._path = path
        self._head = dumps(["b", os.getpid(), boot_id(), root, started]) + "\n"
        self._unwritten = ""
        self._descriptor = -1
        self._retry_at: float | None = None
        self._say_at = 0.0
        #: Why the last `rewrite` failed; "": it did not.
        self.failure = ""
        self.size = 0
        self.rewrite([])

    def write(self, lines: Iterable[str]) -> None:
        """Append lines in one write; keep what cannot be written now for `retry`."""
        self._unwritten += "".join(lines)
        if self._descriptor < 0:  # the file could not even be created yet
            self.rewrite([self._unwritten])
            self._note_failure(self.failure)
            return
        data = self._unwritten.encode()
        failure = ""
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            written, failure = 0, error.strerror or str(error)
        self.size += written
        if written == len(data):
            self._unwritten = ""
        else:  # the torn line is terminated and repeated
            torn = data.rfind(b"\n", 0, written) + 1
            self._unwritten = ("\n" if written else "") + data[torn:].decode()
            self._unwritten = self._unwritten[-JOURNAL_BYTES_MAX:]
            failure = failure or "only a part was written"
        self._note_failure(failure)

    def retry(self, now: float) -> None:
        """Write what could not be written before, if the retry is due.

        Args:
            now: monotonic time, seconds.
        """
        if self._retry_at is not None and now >= self._retry_at:
            self.write(())

    @property
    def retry_at(self) -> float | None:
        """When the next retry is due, monotonic seconds; None: everything is written."""
        return self._retry_at

    def _note_failure(self, failure: str) -> None:
        now = time.monotonic()
        self._retry_at = now + RETRY_SECONDS if failure and self._unwritten else None
        if failure and now >= self._say_at:
            self._say_at = now + SAID_SECONDS
            sys.stderr.write(f"jobmon agent: the journal {self._path} cannot be written: {failure}. Retrying.\n")

    def note_folder(self, folder: str) -> None:
        """Record the folder in which cgroups are created."""
        self._note(["g", folder])

    def note_agent(self, agent_id: int) -> None:
        """Record the server's ID of this agent."""
        self._note(["a", agent_id])

    def note_suspects(self, task_ids: Iterable[int]) -> None:
        """Record which tasks may have killed an earlier agent."""
        self._note(["x", *task_ids])

    def _note(self, entry: list[Any]) -> None:
        line = dumps(entry) + "\n"
        self._head += line
        self.write([line])

    def rewrite(self, lines: Iterable[str]) -> None:
        """Replace the journal with these lines; if they cannot be written now, the old journal stays."""
        temporary = f"{self._path}.new"
        data = (self._head + "".join(lines)).encode()
        descriptor = -1
        self.failure = ""
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "torn")
            os.rename(temporary, self._path)
        except OSError as error:
            self.failure = error.strerror or str(error)
            if descriptor >= 0:
                os.close(descriptor)
                unlink(temporary)
            return
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self.size, self._unwritten = descriptor, len(data), ""

    def remove(self) -> None:
        """Remove the journal because nothing in it is needed any longer."""
        unlink(self._path)


def unlink(path: str) -> None:
    """Remove a file if it exists."""
    try:
        os.unlink(path)
    except OSError:
        return
