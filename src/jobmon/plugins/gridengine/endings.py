"""The outcome of a job, derived from the output of `qacct`. Pure."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.plugins.batch.submission import EXIT_NOTIFIED
from jobmon.plugins.batch.view import CANCELLED

if TYPE_CHECKING:
    from jobmon.plugins.batch.endings import Ending, Verdict

#: A deleted job ends by the first if it does not end by the second, the notice that precedes it.
DELETION_SIGNALS: Final = frozenset({signal.SIGKILL, signal.SIGUSR2})
_TI = TaskInstanceStatus
#: Codes of `failed`: the job's process ran; the master killed it because of a limit.
RAN: Final = frozenset({"0", "100"})
LIMIT: Final = "37"
#: Other codes of `failed`: cause and text, to which Grid Engine's detail is added.
_MEANINGS: Final = {
    **dict.fromkeys(("19", "21"), (Cause.NODE_FAILURE, "its host failed")),
    **dict.fromkeys(("24", "25", "30"), (Cause.REQUEUED, "put back into the queue")),
    **dict.fromkeys(
        map(str, (*range(1, 16), *range(26, 30), *range(31, 37), 38)), (Cause.COMMAND_NOT_STARTED, "not started")
    ),
}


def verdict(ending: Ending) -> Verdict:
    """Return what an outcome means."""
    if ending.state == CANCELLED:
        return _TI.ERROR, Cause.KILLED, "deleted before it started"
    is_killed = ending.state == LIMIT or (ending.state in RAN and ending.signal == signal.SIGKILL)
    if is_killed and (found := _limit(ending)) is not None:
        return found
    if ending.state in RAN:
        return _own(ending)
    if ending.state in _MEANINGS:
        cause, words = _MEANINGS[ending.state]
        return _TI.ERROR, cause, f"{words}: {ending.detail}"
    return _TI.UNKNOWN_ERROR, Cause.WORKER_LOST, f"failed {ending.state}: {ending.detail}"


def _limit(ending: Ending) -> Verdict | None:
    """Return the limit that a job was killed for; None if it may have been killed for another reason."""
    if ending.requested_bytes and (ending.max_rss_bytes or 0) >= ending.requested_bytes:
        return _TI.RESOURCE_ERROR, Cause.OUT_OF_MEMORY, "out of memory"
    if ending.requested_seconds and (ending.elapsed_seconds or 0) >= ending.requested_seconds:
        return _TI.RESOURCE_ERROR, Cause.OUT_OF_TIME, "out of time"
    if ending.state == LIMIT:
        return _TI.RESOURCE_ERROR, None, "killed for exceeding a limit of its queue (h_rt, h_cpu or h_vmem)"
    return None


def _own(ending: Ending) -> Verdict:
    if ending.signal:
        hint = ": deleted by 'qdel', or killed on its host" if ending.signal in DELETION_SIGNALS else ""
        return _TI.ERROR, Cause.SIGNAL, f"killed by signal {ending.signal}{hint}"
    if ending.exit_code == EXIT_NOTIFIED:
        return _TI.ERROR, Cause.KILLED, "deleted by 'qdel'"
    if ending.exit_code:
        return _TI.ERROR, Cause.EXIT_CODE, f"exit code {ending.exit_code}"
    return _TI.DONE, None, ""
