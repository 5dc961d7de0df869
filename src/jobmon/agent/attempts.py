"""One attempt to run a command: its record, its states and transitions. Pure: the caller passes all times.

| state | started | stop: killed, out of time or memory | command exited | no process remains |
| --- | --- | --- | --- | --- |
| AHEAD: waits for its input and output files | RUNNING, or ENDED: not started | ENDED: not started | - | - |
| RUNNING | - | STOPPING, with the cause | CLEARING, or ENDED: exec of the command failed | - |
| STOPPING | - | keeps the first cause; SIGKILL at once if requested | as for RUNNING; same deadline | - |
| CLEARING: the command has exited, leftovers may be running | - | keeps its deadline | - | CHECKING, or ENDED |
| CHECKING: it succeeded, its declared outputs are searched for | - | - | - | - |
| ENDED | - | - | - | - |

A stopped attempt gets SIGINT (its process group, as from a terminal), SIGTERM after half of the grace period and
SIGKILL at its end (both to all its processes). Leftovers of a command that exited by itself get SIGTERM and, 2 s later,
SIGKILL: shells make background processes ignore SIGINT.

An attempt whose command exited with code 0 is CHECKING if outputs are declared, and ENDED once they were searched for.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import _signal
import os
import sys

from jobmon.agent import outcome

AHEAD, RUNNING, STOPPING, CLEARING = "ahead", "running", "stopping", "clearing"
CHECKING, ENDED = "checking", "ended"
#: Time between SIGTERM and SIGKILL for leftovers of a command that exited by itself.
LEFT_GRACE_SECONDS = 2.0
#: Interval at which SIGKILL is repeated while processes remain: new ones may have been started meanwhile.
KILL_PAUSE_SECONDS = 0.1
#: A process that survives SIGKILL for this long sleeps in the kernel, where it does no harm, or is not ours to kill.
UNKILLABLE_SECONDS = 10.0
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_BLOCK_BYTES = 512
TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage

    from jobmon.agent.cgroups import Group
    from jobmon.agent.files import Found
    from jobmon.agent.starting import Launch, NotStarted


class InvalidAttempt(AssertionError):
    """A record is in an impossible state."""


class Attempt:
    """One attempt to run a command.

    Args:
        launch: the command to run.
        group: the attempt's cgroup; None: it has none.
    """

    __slots__ = (
        *("_kill_at", "_signals", "cause", "cpu_seconds", "ended_at", "exit_code", "group", "inputs", "launch"),
        *("not_started", "oom_kills", "outputs", "peak_bytes", "pid", "read_bytes", "seconds", "signal", "started_at"),
        *("started_boot", "state", "stop_at", "written_bytes"),
    )

    def __init__(self, launch: Launch, group: Group | None = None) -> None:
        self.launch = launch
        self.group = group
        self.state = AHEAD
        self.pid = 0
        #: Seconds since the epoch.
        self.started_at = self.ended_at = 0.0
        #: Start time in seconds since boot.
        self.started_boot = 0.0
        self.seconds = 0.0
        #: When its runtime limit expires, monotonic seconds; None: it has no limit or is already being stopped.
        self.stop_at: float | None = None
        #: Why it is being stopped: a constant of `outcome`.
        self.cause: str | None = None
        self.not_started: NotStarted | None = None
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.peak_bytes = 0
        self.cpu_seconds: float | None = None
        self.read_bytes: int | None = None
        self.written_bytes: int | None = None
        #: What was found of its declared files; None: not searched for.
        self.inputs: Found | None = None
        self.outputs: Found | None = None
        #: The count of OOM kills in this job's control groups when the command started.
        self.oom_kills = 0
        self._signals: list[tuple[float, int]] = []  # time (monotonic) and signal, soonest first
        self._kill_at: float | None = None  # when SIGKILL was first sent

    @property
    def identity(self) -> int:
        """The attempt's ID."""
        return self.launch.identity

    @property
    def ran(self) -> bool:
        """Whether its command was started."""
        return self.pid > 0

    # -- transitions -------------------------------------------------------------------------------------------

    def start(self, pid: int, now: float, wall: float, boot: float) -> None:
        """Record that the command was started.

        Args:
            pid: PID of the command, which leads a process group.
            now: monotonic time, seconds.
            wall: the time of day, seconds since the epoch.
            boot: the time since boot, seconds.
        """
        self._require(AHEAD)
        self.state, self.pid, self.started_at, self.started_boot = RUNNING, pid, wall, boot
        self.stop_at = None if self.launch.runtime is None else now + self.launch.runtime

    def fail(self, why: NotStarted, wall: float) -> None:
        """Record that the command was not and will not be started; its process may have exited before the exec."""
        self._require(AHEAD, RUNNING, STOPPING)
        self.state, self.not_started, self.pid = ENDED, why, 0
        self.cause, self.stop_at, self._signals = None, None, []
        self.started_at = self.ended_at = wall

    def stop(self, cause: str, grace_seconds: float, now: float) -> bool:
        """Begin to stop the command; return False if it was already being stopped or is not running.

        Args:
            cause: a constant of `outcome`; the first one counts.
            grace_seconds: time between SIGINT and SIGKILL; 0: SIGKILL at once, even if it is already being stopped.
            now: monotonic time, seconds.
        """
        if self.state not in (RUNNING, STOPPING):
            return False
        if self.state == STOPPING:
            if grace_seconds <= 0.0:
                self._signals = [(now, _signal.SIGKILL)]
            return False
        self.state, self.cause, self.stop_at = STOPPING, cause, None
        kill = (now + max(0.0, grace_seconds), _signal.SIGKILL)
        gently = [(now, _signal.SIGINT), (now + grace_seconds / 2, _signal.SIGTERM)]
        self._signals = [*(gently if grace_seconds > 0.0 else ()), kill]
        return True

    def exit(self, status: int, usage: struct_rusage, seconds: float) -> None:
        """Record that the command exited; processes that it started may still be running.

        Args:
            status: the exit status as returned by `wait4`.
            usage: the resource usage as returned by `wait4`.
            seconds: how long the command ran.
        """
        self._require(RUNNING, STOPPING)
        self.state, self.stop_at = CLEARING, None
        code = os.waitstatus_to_exitcode(status)
        self.exit_code, self.signal = (code, None) if code >= 0 else (None, -code)
        self.seconds, self.ended_at = seconds, self.started_at + seconds
        self.peak_bytes = max(self.peak_bytes, usage.ru_maxrss * RSS_UNIT)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.read_bytes, self.written_bytes = usage.ru_inblock * _BLOCK_BYTES, usage.ru_oublock * _BLOCK_BYTES

    def starve(self) -> None:
        """Record that it ran out of memory; an earlier cause takes precedence."""
        self.cause = self.cause or outcome.OUT_OF_MEMORY

    def pardon(self) -> None:
        """Clear the cause "out of memory": the command completed before it could be killed for its memory use."""
        self._require(CLEARING)
        if self.cause == outcome.OUT_OF_MEMORY:
            self.cause = None

    def leave_behind(self, now: float) -> None:
        """Begin to terminate the leftovers of a command that has exited."""
        self._require(CLEARING)
        if not self._signals:
            self._signals = [(now, _signal.SIGTERM), (now + LEFT_GRACE_SECONDS, _signal.SIGKILL)]

    def clear(self) -> None:
        """Record that none of its processes remain."""
        self._require(CLEARING)
        is_done = self.exit_code == 0 and self.cause is None
        self.state, self._signals = CHECKING if is_done and self.launch.outputs else ENDED, []

    def check_inputs(self, found: Found) -> None:
        """Record what was found of its declared inputs."""
        self._require(AHEAD)
        self.inputs = found

    def check_outputs(self, found: Found) -> None:
        """Record what was found of its declared outputs."""
        self._require(CHECKING)
        self.state, self.outputs = ENDED, found

    @property
    def missing_file(self) -> str:
        """The declared path of a missing file; "": none is missing."""
        return (self.inputs.missing if self.inputs else "") or (self.outputs.missing if self.outputs else "")

    # -- due signals -------------------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When the next signal or the runtime limit is due, monotonic seconds; None: nothing is scheduled."""
        return self._signals[0][0] if self._signals else self.stop_at

    def next_signal(self, now: float) -> int | None:
        """Return the signal that is due and count it as sent; None: none is due. SIGKILL is repeated."""
        if not self._signals or now < self._signals[0][0]:
            return None
        _, number = self._signals.pop(0)
        if number == _signal.SIGKILL:
            self._kill_at = self._kill_at or now
            self._signals = [(now + KILL_PAUSE_SECONDS, _signal.SIGKILL)]
        return int(number)

    def is_unkillable(self, now: float) -> bool:
        """Return whether its processes have survived SIGKILL for so long that waiting for them is pointless."""
        return self._kill_at is not None and now - self._kill_at > UNKILLABLE_SECONDS

    # -- invariants --------------------------------------------------------------------------------------------

    def _require(self, *states: str) -> None:
        if self.state not in states:
            raise InvalidAttempt(f"attempt {self.identity} is {self.state}, not {' or '.join(states)}")

    def validate(self) -> None:
        """Check the invariants of the current state.

        Raises:
            InvalidAttempt: an invariant does not hold.
        """
        has_exited = self.exit_code is not None or self.signal is not None
        holds = {
            AHEAD: not (self.ran or self.cause or self._signals or self.not_started or has_exited),
            RUNNING: self.ran and not (self.cause or self._signals or has_exited),
            STOPPING: self.ran and bool(self.cause and self._signals) and not has_exited and self.stop_at is None,
            CLEARING: self.ran and has_exited and self.stop_at is None,
            CHECKING: self.ran and self.exit_code == 0 and not self.cause and self.due is None,
            ENDED: self.ran == has_exited != (self.not_started is not None) and self.due is None,
        }[self.state]
        if not holds:
            raise InvalidAttempt(f"attempt {self.identity} is {self.state}: {self.describe()}")

    def describe(self) -> str:
        """Return the contents of the record as text."""
        values = (f"{name}={getattr(self, name)!r}" for name in sorted(self.__slots__) if name != "launch")
        return ", ".join(values)
