"""Run real commands in a process of their own, since whoever runs commands becomes the parent of all orphans below."""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import traceback
from typing import TYPE_CHECKING

from jobmon.agent.commands import Commands
from jobmon.agent.processes import Bell
from jobmon.agent.starting import Launch

if TYPE_CHECKING:
    from pathlib import Path

    from jobmon.agent.memory import Memory

GRACE_SECONDS = 0.3
SHELL = ("/bin/sh", "-c")


class Driver:
    """Runs commands until all have ended."""

    def __init__(self, folder: Path, memory: Memory | None = None) -> None:
        self.folder = folder
        self.bell = Bell()
        self.commands = Commands(memory, grace_seconds=GRACE_SECONDS)
        self.commands.set_environment({"PATH": os.environ["PATH"]})
        self.ended = {}

    def start(self, identity, command, **values):
        given = {
            "directory": str(self.folder),
            "umask": 0o022,
            "stdout": str(self.folder / f"{identity}.log"),
            **values,
        }
        attempt = self.commands.start(Launch(identity, [*given.pop("shell", SHELL), command], {}, **given))
        attempt.validate()
        return attempt

    def look(self):
        due = self.commands.next_look()
        seconds = 1.0 if due is None else min(1.0, max(0.0, due - time.monotonic()))
        select.select([self.bell], [], [], seconds)
        self.bell.silence()
        self.commands.look()
        self._take()

    def _take(self):
        for attempt in self.commands.live.values():
            attempt.validate()
        for attempt in self.commands.take_ended():
            attempt.validate()
            self.ended[attempt.identity] = attempt

    def until(self, is_so):
        deadline = time.monotonic() + 30.0
        while not is_so():
            assert time.monotonic() < deadline
            self.look()

    def finish(self):
        self.until(lambda: not self.commands.live)
        self._take()
        return self.ended


def run_apart(function, folder, *arguments, memory=None):
    """Call a function with a driver in another process; return its value."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            try:
                result = (True, function(Driver(folder, memory), *arguments))
            except BaseException:
                result = (False, traceback.format_exc())
            with os.fdopen(writer, "wb") as file:
                pickle.dump(result, file)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        is_well, value = pickle.load(file)
    os.waitpid(pid, 0)
    assert is_well, value
    return value
