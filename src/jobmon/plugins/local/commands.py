"""The commands of a supervisor.

Part of the supervisor's program: it imports nothing but the standard library, and little of that.
"""

from __future__ import annotations

import heapq
import os
import signal
import time
from collections import deque

from jobmon.plugins.local.attempts import (
    JOURNAL_BYTES_MAX,
    Running,
    ending,
    journal_line,
    not_started,
    signal_group,
)
from jobmon.plugins.local.memory import MemoryLimits
from jobmon.plugins.local.starting import EXIT_NOT_STARTED, Starter

INTERRUPT_TIMEOUT_SECONDS = 10.0
FRACTION = 1e-9
TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage
    from typing import Any

    from jobmon.plugins.local.attempts import Journal


class Commands:
    """The commands: waiting, running, ended and not yet acknowledged."""

    def __init__(self, journal: Journal) -> None:
        self.waiting: deque[list[Any]] = deque()
        self.running: dict[int, Running] = {}  # by pid
        self.live: dict[int, Running] = {}  # by id
        self.ended: dict[int, str] = {}  # id -> ending, as JSON
        self.fresh_starts: dict[int, Running] = {}  # by id, not yet told
        self.fresh_endings: list[str] = []
        self._journal = journal
        self._lines: list[str] = []
        self._timers: list[tuple[float, int, int, str]] = []  # when, id, pid, what
        self._starter = Starter()
        self._limits = MemoryLimits(journal.note_folder)
        self._cores = float("inf")
        self._memory = float("inf")
        self._cores_used = 0.0
        self._memory_used = 0.0
        self._interrupt_timeout = INTERRUPT_TIMEOUT_SECONDS

    def set_up(self, setup: dict[str, Any]) -> None:
        """Take the environment of commands and how much may run at once."""
        self._starter.environment = setup["environment"]
        self._cores = setup["cores"] if setup["cores"] is not None else float("inf")
        self._memory = setup["memory"] if setup["memory"] is not None else float("inf")
        self._interrupt_timeout = setup["interrupt_timeout"]
        self._limits.may_use_groups = setup["cgroups"]

    def limit(self, cores: float) -> None:
        """Take how many cores commands may use from now on; what runs goes on."""
        self._cores = cores

    # -- starting ----------------------------------------------------------------------------------------------

    def start_waiting(self) -> None:
        """Start what fits, in order."""
        waiting = self.waiting
        while waiting:
            cores, memory = waiting[0][8], waiting[0][9]
            if self._cores_used + cores > self._cores + FRACTION:
                return
            if self.running and self._memory_used + memory > self._memory + FRACTION:
                return
            self._start(waiting.popleft())

    def _start(self, launch: list[Any]) -> None:
        identity, argv, env, directory, umask, stdout, stderr, runtime, cores, memory = launch
        if identity in self.live or identity in self.ended:
            return  # told twice
        group = self._limits.new_group(identity, memory) if memory else None
        started = self._starter.start(identity, argv, env, (directory, umask, stdout, stderr), group)
        if isinstance(started, str):
            self._note_ending(identity, not_started(identity, started))
            if group is not None:
                self._limits.remove(group)
            return
        attempt = Running(identity, started, cores, memory, group)
        self.running[started] = self.live[identity] = self.fresh_starts[identity] = attempt
        self._cores_used += cores
        self._memory_used += memory
        self._lines.append(attempt.journal_line())
        if runtime is not None:
            self._set_timer(runtime, attempt, "time out")
        if memory:
            self._limits.hold(attempt)

    # -- ending ------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect everything that ended."""
        while self.running:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            attempt = self.running.pop(pid, None)
            if attempt is not None:
                self._end(attempt, status, usage)

    def _end(self, attempt: Running, status: int, usage: struct_rusage) -> None:
        del self.live[attempt.identity]
        self.fresh_starts.pop(attempt.identity, None)
        self._cores_used -= attempt.cores
        self._memory_used -= attempt.memory
        if attempt.memory:
            self._limits.release(attempt, status, usage)
        if attempt.killed or attempt.over_memory:
            attempt.kill()  # what its leader left
        why = None
        if attempt.group is not None:
            self._limits.remove(attempt.group)
            if os.waitstatus_to_exitcode(status) == EXIT_NOT_STARTED:
                why = self._starter.why_not(attempt.identity)
        told = ending(attempt, status, usage) if why is None else not_started(attempt.identity, why)
        self._note_ending(attempt.identity, told)

    def _note_ending(self, identity: int, told: str) -> None:
        self.ended[identity] = told
        self.fresh_endings.append(told)
        self._lines.append(journal_line(told))

    def kill(self, identities: list[int], grace: float) -> None:
        """Interrupt these; what has not ended after `grace` seconds is killed. What waits is not started."""
        wanted = set(identities)
        for launch in [launch for launch in self.waiting if launch[0] in wanted]:
            self.waiting.remove(launch)
            self._note_ending(launch[0], not_started(launch[0], "it was killed before it was started"))
        for identity in identities:
            attempt = self.live.get(identity)
            if attempt is not None and not attempt.killed:
                self._interrupt(attempt, grace)

    def _interrupt(self, attempt: Running, grace: float) -> None:
        attempt.killed = True
        signal_group(attempt.pid, signal.SIGINT)
        self._set_timer(grace, attempt, "kill")

    def recall(self) -> list[int]:
        """Forget what waits; return the ids."""
        identities = [launch[0] for launch in self.waiting]
        self.waiting.clear()
        return identities

    def watch_memory(self) -> None:
        """Kill what uses more memory than it asked for."""
        self._limits.look()

    # -- time --------------------------------------------------------------------------------------------------

    def _set_timer(self, seconds: float, attempt: Running, what: str) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, attempt.identity, attempt.pid, what))

    def next_timer(self) -> float | None:
        """Return when the next timer is due, or None."""
        timers = self._timers
        while timers and timers[0][2] not in self.running:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def next_look(self) -> float | None:
        """Return when there is something to do even if nothing happens, or None."""
        return min((due for due in (self.next_timer(), self._limits.next_look()) if due is not None), default=None)

    def fire_timers(self) -> None:
        """Do what is due."""
        while (due := self.next_timer()) is not None and due <= time.monotonic():
            _, identity, pid, what = heapq.heappop(self._timers)
            attempt = self.running[pid]
            if attempt.identity != identity:
                continue
            if what == "kill":
                attempt.kill()
            elif not attempt.killed:
                attempt.timed_out = True
                self._interrupt(attempt, self._interrupt_timeout)

    # -- record ------------------------------------------------------------------------------------------------

    def has_news(self) -> bool:
        """Say whether something happened that is not on disk yet."""
        return bool(self._lines)

    def record(self) -> None:
        """Write to the journal what happened since the last call."""
        if self._lines:
            self._journal.write(self._lines)
            self._lines = []

    def leave(self) -> None:
        """Record what is left to record, and leave no cgroup behind that is empty."""
        self.record()
        self._limits.leave()

    def acknowledge(self, identities: list[int]) -> None:
        """Forget these endings; begin the journal anew when it grew large or holds nothing any more."""
        for identity in identities:
            self.ended.pop(identity, None)
        quiet = not self.running and not self.ended and self._journal.size > JOURNAL_BYTES_MAX // 64
        if quiet or self._journal.size > JOURNAL_BYTES_MAX + 512 * (len(self.running) + len(self.ended)):
            self.record()
            lines = [attempt.journal_line() for attempt in self.running.values()]
            self._journal.rewrite(lines + [journal_line(told) for told in self.ended.values()])
