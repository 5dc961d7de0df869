"""The commands of a supervisor: those waiting until they fit, those running, and those that exited unacknowledged.

Part of the supervisor's program: besides `jobmon.agent` it imports only a few modules of the standard library.
"""

from __future__ import annotations

import json
import time
from collections import deque

from jobmon.agent import outcome, processes, trust
from jobmon.agent.attempts import Attempt
from jobmon.agent.command_journal import (
    JOURNAL_BYTES_MAX,
    ending,
    journal_line,
    start_line,
    start_told,
)
from jobmon.agent.commands import Commands
from jobmon.agent.memory import Memory
from jobmon.agent.starting import CANCELLED, Launch, NotStarted

FRACTION = 1e-9
ACCESS_FILE_BYTES_MAX = 65_536
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jobmon.agent.command_journal import Journal


class WaitingCommands:
    """Start commands in order as they fit, and record their outcomes.

    Args:
        journal: where starts and exits are recorded.
        marks: the marks that identify their processes.
    """

    def __init__(self, journal: Journal, marks: processes.Marks | None = None) -> None:
        self.waiting: deque[list[Any]] = deque()
        self.ended: dict[int, str] = {}  # id -> exit, as JSON
        self.commands = Commands(Memory(note_folder=journal.note_folder), marks, spared=self._server)
        self._journal = journal
        self._lines: list[str] = []
        self._fresh_starts: dict[int, Attempt] = {}  # by id, not yet reported
        self._fresh_endings: list[str] = []
        self._cores = float("inf")
        self._memory = float("inf")
        self._cores_used = 0.0
        self._memory_used = 0.0
        self._access_file = ""

    def set_up(self, setup: dict[str, Any]) -> None:
        """Set the environment of commands and how much may run in parallel."""
        self.commands.environment = setup["environment"]
        self.commands.grace_seconds = setup["interrupt_timeout"]
        self.commands.memory.may_use_groups = setup["cgroups"]
        self._cores = setup["cores"] if setup["cores"] is not None else float("inf")
        self._memory = setup["memory"] if setup["memory"] is not None else float("inf")
        self._access_file = setup.get("access_file") or ""

    def limit(self, cores: float) -> None:
        """Set how many cores commands may use from now on; running commands continue."""
        self._cores = cores

    @property
    def running(self) -> dict[int, Attempt]:
        """The commands that were started and have not exited, by id."""
        return self.commands.live

    # -- starting ----------------------------------------------------------------------------------------------

    def start_waiting(self) -> None:
        """Start waiting commands that fit, in order."""
        waiting = self.waiting
        while waiting:
            cores, memory = waiting[0][8], waiting[0][9]
            if self._cores_used + cores > self._cores + FRACTION:
                break
            if self.running and self._memory_used + memory > self._memory + FRACTION:
                break
            identity = waiting[0][0]
            launch = Launch(*waiting.popleft())
            if identity in self.running or identity in self.ended:
                continue  # received twice
            self._cores_used += cores
            self._memory_used += memory
            self.commands.start(launch)
            self._take_in()

    def _take_in(self) -> None:
        """Record which commands started and which exited."""
        for attempt in self.commands.take_started():
            self._fresh_starts[attempt.identity] = attempt
            self._lines.append(start_line(attempt))
        for attempt in self.commands.take_ended():
            self._cores_used -= attempt.launch.cores
            self._memory_used -= attempt.launch.memory
            self._fresh_starts.pop(attempt.identity, None)
            self._note_ending(attempt.identity, ending(attempt))

    # -- completion --------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Perform all checks of running commands that are due, and record the results."""
        self.commands.look()
        self._take_in()

    def next_look(self) -> float | None:
        """Return the time of the next check if nothing happens before, monotonic seconds, or None."""
        looks = (self.commands.next_look(), self._journal.retry_at)
        return min((due for due in looks if due is not None), default=None)

    def _note_ending(self, identity: int, told: str) -> None:
        self.ended[identity] = told
        self._fresh_endings.append(told)
        self._lines.append(journal_line(told))

    def kill(self, identities: list[int], grace_seconds: float) -> None:
        """Terminate these commands; those that wait are not started."""
        wanted = set(identities)
        unstarted = [row for row in self.waiting if row[0] in wanted]
        if unstarted:
            self.waiting = deque(row for row in self.waiting if row[0] not in wanted)
        for row in unstarted:
            attempt = Attempt(Launch(*row))
            attempt.fail(NotStarted(CANCELLED), time.time())
            self._note_ending(attempt.identity, ending(attempt))
        self.commands.stop(identities, outcome.KILLED, grace_seconds)
        self._take_in()

    def recall(self) -> list[int]:
        """Remove waiting commands; return their ids."""
        identities = [row[0] for row in self.waiting]
        self.waiting.clear()
        return identities

    def _server(self) -> list[int]:
        """Return the pid of the server for which commands run: it outlives the supervisor, whatever started it."""
        try:
            return [int(json.loads(trust.read_file(self._access_file, ACCESS_FILE_BYTES_MAX, is_secret=True))["pid"])]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    # -- record ------------------------------------------------------------------------------------------------

    def has_news(self) -> bool:
        """Return whether there are changes that are not on disk yet."""
        return bool(self._lines)

    def record(self) -> tuple[str, str]:
        """Write changes to the journal; return starts and exits since the last call as JSON, for the distributor."""
        self._write_lines()
        starts = ",".join([start_told(one) for one in self._fresh_starts.values()])
        endings = ",".join(self._fresh_endings)
        self._fresh_starts.clear()
        self._fresh_endings.clear()
        return starts, endings

    def _write_lines(self) -> None:
        if self._lines:
            self._journal.write(self._lines)
            self._lines = []

    def known(self) -> tuple[str, str]:
        """Return all running and all exited commands as JSON, for a new connection."""
        self.record()
        running = [start_told(one) for one in self.running.values() if one.ran]
        return ",".join(running), ",".join(self.ended.values())

    def record_again(self) -> None:
        """Retry writing to the journal what could not be written, if the retry is due."""
        self._journal.retry(time.monotonic())

    def leave(self) -> None:
        """Record remaining changes; leave neither processes nor empty cgroups behind."""
        self._write_lines()
        self.commands.leave()

    def acknowledge(self, identities: list[int]) -> None:
        """Remove these exits; rewrite the journal if it has become large or contains nothing of use."""
        for identity in identities:
            self.ended.pop(identity, None)
        quiet = not self.running and not self.ended and self._journal.size > JOURNAL_BYTES_MAX // 64
        if quiet or self._journal.size > JOURNAL_BYTES_MAX + 512 * (len(self.running) + len(self.ended)):
            self._record_anew()

    def move_journal(self, path: str) -> None:
        """Write the complete state to a journal at this path."""
        self._journal.move(path)
        self._record_anew()

    def _record_anew(self) -> None:
        self._write_lines()
        lines = [start_line(attempt) for attempt in self.running.values() if attempt.ran]
        self._journal.rewrite(lines + [journal_line(told) for told in self.ended.values()])
