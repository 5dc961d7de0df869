"""What a dead supervisor left: its journal, and perhaps commands that lost their parent.

A process is known again by pid, start time (seconds since boot) and boot id. All commands share the supervisor's
session, so that even those of which the journal does not know are found.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import places
from jobmon.plugins.local import cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Between the kernel's start time of a process and the supervisor's note of it lie the spawn and a late scheduler.
NOTED_LATE_SECONDS_MAX: Final = 60.0
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_STAT_GROUP, _STAT_SESSION, _STAT_START = 2, 3, 19


@dataclass(slots=True)
class Remains:
    """What a journal says. `live`: attempt -> (pid, start time since boot); `ended`: attempt -> ending as told.

    `groups_folder`: where the cgroups of attempts are, if there were any.
    """

    supervisor_pid: int = 0
    boot_id: str = ""
    groups_folder: str = ""
    live: dict[int, tuple[int, float]] = field(default_factory=dict)
    ended: dict[int, list[Any]] = field(default_factory=dict)


def read_journal(path: Path) -> Remains:
    """Read a journal; none, or torn lines in it, are no error."""
    remains = Remains()
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, IndexError, TypeError):
                _apply(remains, json.loads(line))
    return remains


def _apply(remains: Remains, entry: list[Any]) -> None:
    if entry[0] == "b":
        remains.supervisor_pid, remains.boot_id = int(entry[1]), str(entry[2])
    elif entry[0] == "g":
        remains.groups_folder = str(entry[1])
    elif entry[0] == "s":
        remains.live[int(entry[1])] = int(entry[2]), float(entry[4])
    elif entry[0] == "e":
        remains.live.pop(int(entry[1]), None)
        remains.ended[int(entry[1])] = entry[1:]


def end_remains(remains: Remains) -> int:
    """Kill what is left of the commands of a dead supervisor; return how many processes were found."""
    if not remains.supervisor_pid or remains.boot_id != places.boot_id():
        return 0
    leaders = {pid for pid, noted in remains.live.values() if _is_same(pid, noted)}
    orphans = [pid for pid, group, session in _processes() if session == remains.supervisor_pid or group in leaders]
    for pid in orphans:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    if remains.groups_folder:
        cgroups.kill_left(remains.groups_folder, remains.live)
    return len(orphans)


def _is_same(pid: int, noted: float) -> bool:
    """Say whether this is the process that was started just before `noted`, and not a later one with its pid."""
    fields = _stat(pid)
    if fields is None:
        return False
    return 0 <= noted - int(fields[_STAT_START]) / _TICKS_PER_SECOND + 1 / _TICKS_PER_SECOND <= NOTED_LATE_SECONDS_MAX


def _processes() -> Iterator[tuple[int, int, int]]:
    """Yield pid, process group and session of every process but our own."""
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit() and int(name) != os.getpid() and (fields := _stat(int(name))) is not None:
            yield int(name), int(fields[_STAT_GROUP]), int(fields[_STAT_SESSION])


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
    except OSError:
        return None
