"""Workers whose cluster kills them but not their command: they terminate it themselves, in time.

Imports only the standard library (`python -I -S`).
"""

from __future__ import annotations

import _signal

#: Variable set by the job script; see `jobmon.plugins.batch.submission`.
VARIABLE = "JOBMON_WORKER_GUARDS"
#: Exit code of a worker that was notified; a test compares it with the plug-ins' `EXIT_NOTIFIED`.
EXIT_NOTIFIED = 143
#: Part of the job's runtime reserved for terminating the command, in addition to the grace period.
MARGIN_SECONDS = 2.0
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def must_guard(environment: Mapping[str, str]) -> bool:
    """Return whether this worker has to terminate its command itself."""
    return environment.get(VARIABLE) == "1"


def signals(environment: Mapping[str, str]) -> tuple[int, ...]:
    """Return the signals that ask a worker to exit."""
    asked = (_signal.SIGTERM, _signal.SIGINT)
    return (*asked, _signal.SIGUSR1, _signal.SIGUSR2) if must_guard(environment) else asked


def passed_on(number: int) -> int:
    """Return the signal to send to a command when the worker receives the given one."""
    return _signal.SIGTERM if number in (_signal.SIGUSR1, _signal.SIGUSR2) else number


def runtime(environment: Mapping[str, str], requested: Mapping[str, Any], grace_seconds: float) -> float | None:
    """Return how long the command may run, seconds; None: the cluster enforces the limit.

    Args:
        environment: environment of the worker.
        requested: `compute_resources`, with `runtime` in seconds.
        grace_seconds: the grace period of a command. It is subtracted from the runtime; at least half of that remains.
    """
    asked = requested.get("runtime")
    if not must_guard(environment) or not isinstance(asked, int | float):
        return None
    return max(asked / 2, asked - grace_seconds - MARGIN_SECONDS)
