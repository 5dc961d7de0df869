"""End what an earlier version of Jobmon left running: its supervisor, which no program can reach any more.

Earlier versions ran local commands under a supervisor that outlived the distributor. After an upgrade, such commands
are terminated when their workflow is resumed, and are run again.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobmon.agent.recovery import kill_leftovers, read_journal
from jobmon.core import paths

if TYPE_CHECKING:
    from collections.abc import Collection

#: Maximum time for a killed supervisor to disappear.
GONE_SECONDS_MAX: Final = 5.0
_LOOK_SECONDS: Final = 0.01


def journals(workflow_id: int, data_folder: Path, cluster_name: str) -> list[Path]:
    """Return the journals that supervisors of a workflow's cluster left on this host."""
    key = hashlib.sha256(f"{data_folder}\0{workflow_id}\0{cluster_name}".encode()).hexdigest()[:16]
    folders = dict.fromkeys((paths.runtime_directory(), paths.temporary_runtime_directory()))
    return [path for folder in folders if (path := folder / f"supervisor-{key}.journal").exists()]


def end_supervisor(journal: Path, spared: Collection[int]) -> int:
    """Kill a supervisor and all that its commands started; return how many processes that were.

    Args:
        journal: path of its journal.
        spared: PIDs that its commands may have started and that must keep running.
    """
    remains = read_journal(journal)
    count = 0
    if _is_alive(remains.pid, journal):
        os.kill(remains.pid, signal.SIGKILL)
        count += 1
        deadline = time.monotonic() + GONE_SECONDS_MAX
        while _is_alive(remains.pid, journal) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    count += kill_leftovers(remains, spared)
    for suffix in (".journal", ".left", ".sock", ".lock"):
        journal.with_suffix(suffix).unlink(missing_ok=True)
    return count


def _is_alive(pid: int, journal: Path) -> bool:
    """Return whether a process is the supervisor with this journal: another one may have its PID by now."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(journal) in words
