"""What a detached process knows about its watcher, and what it reports to it. See `jobmon.agent.watcher`.

All functions do nothing useful, and cost nothing, in a process that is not watched.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from jobmon.agent.watcher import VARIABLE
from jobmon.core.exceptions import JobmonError

#: Folder of the logs of scripts that have not started a workflow yet, below the folder of all logs.
SCRIPTS_FOLDER: Final = "scripts"


@dataclass(slots=True)
class _Watcher:
    """The watcher of this process.

    Args:
        report: the descriptor to which reports are written.
        log: path of the log.
        token: random text, the same for all successors of a process.
        is_restart: whether this process succeeds one that was killed.
        runs: workflow -> the newest run of it that a predecessor led.
    """

    report: int
    log: Path
    token: str
    is_restart: bool
    runs: dict[int, int] = field(default_factory=dict)
    unnamed: int = 0


@cache
def _of(pid: int) -> _Watcher | None:
    """Return the watcher of the process with this ID, which is the current one; child processes have none."""
    text = os.environ.pop(VARIABLE, "")  # not for the commands that this process starts
    try:
        found: dict[str, Any] = json.loads(text)
        if found["pid"] != os.getppid():  # inherited from a watched process
            return None
        os.set_inheritable(found["report"], False)
        os.set_blocking(found["report"], False)
        runs = {int(workflow): int(run) for workflow, run in found["runs"].items()}
        return _Watcher(found["report"], Path(found["log"]), found["token"], found["is_restart"], runs)
    except (ValueError, TypeError, KeyError, AttributeError, OSError):  # there is none
        return None


def _watcher() -> _Watcher | None:
    return _of(os.getpid())


def is_restart() -> bool:
    """Return whether this process succeeds one that was killed."""
    watcher = _watcher()
    return watcher is not None and watcher.is_restart


def run_before(workflow_id: int) -> int | None:
    """Return the newest run of a workflow that a killed predecessor of this process led; None: it led none."""
    watcher = _watcher()
    return watcher.runs.get(workflow_id) if watcher is not None and watcher.is_restart else None


def random_args() -> str:
    """Return `workflow_args` for a workflow without any: random, but a restarted script gets the same ones again."""
    watcher = _watcher()
    if watcher is None:
        return str(uuid.uuid4())
    watcher.unnamed += 1
    return str(uuid.uuid5(uuid.UUID(watcher.token), str(watcher.unnamed)))


def log_path(workflow_id: int, run_id: int) -> Path:
    """Return the path of the log of a detached run; a run that is not detached has none."""
    from jobmon.core.configuration import data_directory

    return data_directory() / "logs" / str(workflow_id) / f"run-{run_id}.log"


def note_run(workflow_id: int, run_id: int) -> None:
    """Report that this process leads a run, and make the log available under the name of the run."""
    watcher = _watcher()
    if watcher is None:
        return
    _name_log(watcher, log_path(workflow_id, run_id))
    _report(watcher, {"workflow": workflow_id, "run": run_id, "log": str(watcher.log)})


def _name_log(watcher: _Watcher, path: Path) -> None:
    """Move the log of a script to its first run; later runs, and those of a restarted process, share it."""
    from jobmon.core import paths

    if path == watcher.log:
        return
    with suppress(OSError, JobmonError):  # the log stays where it is
        paths.make_private(path.parent)
        if watcher.log.parent.name == SCRIPTS_FOLDER:
            watcher.log.rename(path)
            watcher.log = path
        else:
            path.hardlink_to(watcher.log)


def note_progress() -> None:
    """Report that tasks have completed."""
    watcher = _watcher()
    if watcher is not None:
        _report(watcher, {})


def _report(watcher: _Watcher, report: dict[str, Any]) -> None:
    with suppress(OSError):  # the watcher is dead, or too busy to be interested in yet another report
        os.write(watcher.report, json.dumps(report).encode() + b"\n")
