"""Recover from a dead program: read its journal and kill its orphaned commands.

A process is identified by PID, start time (seconds since boot) and boot ID. All commands share the program's session,
and all their processes carry its mark, so that even processes missing from the journal are found.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import json
import os

from jobmon.agent import cgroups, processes
from jobmon.agent.machine import boot_id

#: Maximum difference between the kernel's start time of a process and the recorded one, which is taken just before the
#: start; earlier versions took it afterwards.
NOTED_EARLY_SECONDS_MAX = 5.0
NOTED_LATE_SECONDS_MAX = 60.0
NO_SESSION = -1
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any


class Leftovers:
    """The content of a journal.

    `pid`: PID of the program that wrote it; `started`: its start time in ticks since boot, 0: unknown. `live`: attempt
    -> (PID, start time since boot); `ended`: attempt -> its outcome as reported. `mark_root`: root of the marks of its
    processes. `tasks`: attempt -> task, for commands that an agent had started or was about to start. `suspects`: tasks
    that may have killed an earlier agent. `groups_folder`: folder of the attempts' cgroups, if there were any.
    `agent_id`: ID of the agent, 0: the program was no agent.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.started = 0
        self.boot_id = ""
        self.mark_root = ""
        self.groups_folder = ""
        self.agent_id = 0
        self.live: dict[int, tuple[int, float]] = {}
        self.ended: dict[int, list[Any]] = {}
        self.tasks: dict[int, int] = {}
        self.suspects: dict[int, None] = {}

    def is_writer_alive(self) -> bool:
        """Return whether the program that wrote the journal is alive."""
        if self.boot_id != boot_id():
            return False
        found = processes.read(self.pid)
        return found is not None and self.started in (0, found.started)


def read_journal(path: str | os.PathLike[str]) -> Leftovers:
    """Read a journal; a missing journal or torn lines are no error."""
    try:
        with open(path, "rb") as file:
            return parsed(file.read().splitlines())
    except FileNotFoundError:
        return Leftovers()


def parsed(lines: Iterable[bytes | str]) -> Leftovers:
    """Parse lines of a journal, skipping torn ones."""
    leftovers = Leftovers()
    for line in lines:
        try:
            _apply(leftovers, json.loads(line))
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            continue
    return leftovers


def _apply(leftovers: Leftovers, entry: list[Any]) -> None:
    if entry[0] == "b":
        leftovers.pid, leftovers.boot_id = int(entry[1]), str(entry[2])
        leftovers.mark_root = str(entry[3]) if len(entry) > 3 else ""
        leftovers.started = int(entry[4]) if len(entry) > 4 else 0
    elif entry[0] == "a":
        leftovers.agent_id = int(entry[1])
    elif entry[0] == "g":
        leftovers.groups_folder = str(entry[1])
    elif entry[0] == "x":
        leftovers.suspects = dict.fromkeys(map(int, entry[1:]))
    else:
        _apply_of_attempt(leftovers, entry[0], int(entry[1]), entry)


def _apply_of_attempt(leftovers: Leftovers, kind: str, identity: int, entry: list[Any]) -> None:
    if kind == "t":
        leftovers.tasks[identity] = int(entry[2])
        if not entry[3]:
            leftovers.suspects.pop(int(entry[2]), None)  # it had been cleared before
    elif kind == "s":
        leftovers.ended.pop(identity, None)  # an earlier start failed and was reported
        leftovers.live[identity] = int(entry[2]), float(entry[4])
    elif kind == "e":
        leftovers.live.pop(identity, None)
        leftovers.suspects.pop(leftovers.tasks.pop(identity, 0), None)
        leftovers.ended[identity] = entry[1:]


def kill_leftovers(leftovers: Leftovers, spared: Collection[int] = ()) -> int:
    """Kill the leftovers of a dead program's commands; return the number of processes found.

    Args:
        leftovers: the content of its journal.
        spared: PIDs to leave alone.
    """
    if not leftovers.pid or leftovers.boot_id != boot_id():
        return 0
    session = leftovers.pid if processes.read(leftovers.pid) is None else NO_SESSION  # another process has that PID
    leaders = {pid for pid, noted in leftovers.live.values() if _is_same(pid, noted)}
    count = processes.end_left(session, leftovers.mark_root, leaders, spared)
    if leftovers.groups_folder:
        cgroups.kill_left(leftovers.groups_folder, leftovers.live)
    return count


def _is_same(pid: int, noted: float) -> bool:
    """Return whether a PID still belongs to the process started at about `noted`, not to a later one."""
    found = processes.read(pid)
    if found is None:
        return False
    return -NOTED_EARLY_SECONDS_MAX <= noted - found.started / _TICKS_PER_SECOND <= NOTED_LATE_SECONDS_MAX
