"""The commands of one program: start them, enforce their limits, and terminate them with all their processes.

This module decides neither what runs nor when. A program calls `start` and `stop`, waits until the bell rings or
`next_look` is due, calls `look`, and gets the attempts that have started and ended from `take_started` and
`take_ended`. An attempt has ended when its command has exited *and* has no leftovers *and* its declared outputs were
searched for; until then it counts as running.

Without a subreaper (on systems other than Linux) an attempt consists of its process group.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import _signal
import os
import time
from _heapq import heapify, heappop, heappush

from jobmon.agent import outcome, processes
from jobmon.agent.attempts import AHEAD, CHECKING, CLEARING, Attempt
from jobmon.agent.files import FileSearches, Found
from jobmon.agent.locations import INPUT
from jobmon.agent.memory import Memory
from jobmon.agent.starting import CANCELLED, EXIT_NOT_STARTED, THREADS, NotStarted, Started, Starter

INTERRUPT_TIMEOUT_SECONDS = 10.0
#: Stale timers are dropped once there are this many, and more of them than of attempts.
STALE_TIMERS_MAX = 64
#: The pause between two scans of all processes, as a multiple of a scan's CPU time: at most 5 % of a CPU.
WALK_PAUSE_FACTOR = 20
WALK_PAUSE_SECONDS_MAX = 1.0
#: How long an orphan whose attempt is unknown keeps all attempts from counting as ended.
NAMELESS_SECONDS = 0.1
#: The same for an orphan in the middle of an exec, which has neither a command line nor an environment yet.
EXECUTING_SECONDS_MAX = 5.0
#: Maximum number of consecutive scans of all processes while orphans come and go.
WALKS_MAX = 5
#: Interval between two checks of process groups, because no event shows that they have become empty.
GROUP_LOOK_SECONDS = 0.1
#: How long to wait for the result of a start when a process has exited that may be the command.
CLAIM_SECONDS_MAX = 0.01
_clock_boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from resource import struct_rusage

    from jobmon.agent.starting import Launch


class Commands:
    """The attempts of this program, from `start` until `take_ended`.

    Args:
        memory: enforces their memory limits; default: a `Memory()`.
        marks: marks their processes; default: marks that no other program uses.
        grace_seconds: time between SIGINT and SIGKILL for a command that exceeds its runtime.
        spared: returns the PIDs of descendants that belong to no attempt; None: there are none.
    """

    def __init__(
        self,
        memory: Memory | None = None,
        marks: processes.Marks | None = None,
        grace_seconds: float = INTERRUPT_TIMEOUT_SECONDS,
        spared: Callable[[], Iterable[int]] | None = None,
    ) -> None:
        self.memory = memory or Memory()
        self.marks = marks or processes.Marks()
        self.grace_seconds = grace_seconds
        #: All attempts that have not ended, by ID.
        self.live: dict[int, Attempt] = {}
        self._spared = spared
        self.searches = FileSearches()
        self._outer = ""
        self._starter = Starter(lambda attempt: self.marks.of(attempt, self._outer))
        self._is_subreaper = processes.become_subreaper()
        self._leaders: dict[int, Attempt] = {}  # by PID: the command has not exited
        self._clearing: dict[int, Attempt] = {}  # by ID
        self._known: dict[tuple[int, int], int] = {}  # processes known to belong to an attempt
        self._nameless: dict[tuple[int, int], float] = {}  # orphans whose attempt is unknown -> since when
        self._timers: list[tuple[float, int]] = []  # time (monotonic), attempt
        self._unclaimed: dict[int, tuple[int, struct_rusage]] = {}  # exits of commands whose start is not collected yet
        self._walk_at = 0.0
        self._to_stop: dict[int, tuple[str, float]] = {}  # attempts to stop once they are known to be started
        self._passed_on = 0  # the last signal that was forwarded; 0: none
        self._started: list[Attempt] = []
        self._ended: list[Attempt] = []

    def set_environment(self, values: Mapping[str, str]) -> None:
        """Set the environment of all commands."""
        self._starter.set_environment(values)
        self._outer = values.get(processes.MARK_VARIABLE, "")

    # -- starting ----------------------------------------------------------------------------------------------

    def start(self, launch: Launch) -> Attempt:
        """Start a command; the returned record shows whether it runs, waits for its files, or has ended."""
        attempt = Attempt(launch, self.memory.new_group(launch.identity, launch.memory))
        self.live[attempt.identity] = attempt
        if launch.inputs:
            self.searches.start(attempt.identity, launch.inputs)
        else:
            self._start(attempt)
        return attempt

    def _start(self, attempt: Attempt) -> None:
        started = self._starter.start(attempt.launch, attempt.group)
        if started is not None:
            self._note_start(attempt, started)

    def _note_start(self, attempt: Attempt, started: Started | NotStarted) -> None:
        if isinstance(started, NotStarted):
            self._fail(attempt, started)
            return
        attempt.start(started.pid, started.monotonic, started.wall, started.boot)
        self._leaders[started.pid] = attempt
        self._started.append(attempt)
        if self._passed_on:
            processes.signal_group(started.pid, self._passed_on)
        self.memory.hold(attempt)
        self._set_timer(attempt)
        if exited := self._unclaimed.pop(started.pid, None):
            self._note_exit(started.pid, *exited)
        elif attempt.identity in self._to_stop:
            self.stop([attempt.identity], *self._to_stop[attempt.identity])

    def _fail(self, attempt: Attempt, why: NotStarted) -> None:
        attempt.fail(why, time.time())
        self._end(attempt)

    # -- stopping ----------------------------------------------------------------------------------------------

    def stop(self, identities: Iterable[int], cause: str, grace_seconds: float) -> None:
        """Stop attempts; ignore those that have already ended or are unknown.

        Args:
            identities: IDs of the attempts.
            cause: a constant of `outcome`.
            grace_seconds: time between SIGINT and SIGKILL.
        """
        now = time.monotonic()
        stopped = []
        for attempt in [self.live[one] for one in identities if one in self.live]:
            if attempt.state == AHEAD and self._cancel(attempt):
                self._fail(attempt, NotStarted(CANCELLED))
            elif attempt.state == AHEAD:
                self._to_stop[attempt.identity] = cause, grace_seconds
            elif attempt.stop(cause, grace_seconds, now):
                stopped.append(attempt)
            self._set_timer(attempt)
        if stopped and self._is_subreaper:
            self._owned()  # records the descendants of their commands before these exit and orphan them
        self.fire_timers()

    def _cancel(self, attempt: Attempt) -> bool:
        """Cancel a pending start; return False if it is too late for that."""
        return self.searches.cancel(attempt.identity) or self._starter.cancel(attempt.launch)

    def pass_on(self, number: int) -> None:
        """Forward a signal that this program received to all process groups, and to those that are being started."""
        self._passed_on = number
        for pid in self._leaders:
            processes.signal_group(pid, number)

    # -- polling -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Process everything that has happened or is due."""
        self.collect_searches()
        self.collect_starts()
        self.reap()
        self.fire_timers()
        self.watch_memory()

    def next_look(self) -> float | None:
        """Return when `look` is due even if the bell does not ring, monotonic seconds; None: never."""
        due = [self._next_timer(), self.memory.next_look(), self._starter.due]
        if self._clearing:
            due.append(self._walk_at)
        return min((at for at in due if at is not None), default=None)

    def collect_searches(self) -> None:
        """Start the commands whose inputs were found, and end the attempts whose outputs were searched for."""
        for identity, found in self.searches.collect():
            attempt = self.live[identity]
            if attempt.state == CHECKING:
                attempt.check_outputs(found)
                self._end(attempt)
            else:
                self._note_inputs(attempt, found)

    def _note_inputs(self, attempt: Attempt, found: Found) -> None:
        attempt.check_inputs(found)
        if found.missing:
            self._fail(attempt, NotStarted(outcome.of_missing_input(found.missing)[2], INPUT, None, found.missing))
        else:
            self._start(attempt)

    def collect_starts(self, wait_seconds: float = 0.0) -> None:
        """Record the results of starts.

        Args:
            wait_seconds: how long to wait for the first result if the kernel is starting the command.
        """
        for launch, started in self._starter.collect(wait_seconds):
            attempt = self.live.get(launch.identity)
            if attempt is not None and attempt.launch is launch:  # else it was cancelled
                self._note_start(attempt, started)

    def reap(self) -> None:
        """Record all exits, and end attempts without remaining processes."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._note_exit(pid, status, usage)
        for _ in range(THREADS):
            if self._unclaimed:
                self.collect_starts(CLAIM_SECONDS_MAX)
        if not self._starter.is_waiting:
            self._unclaimed.clear()
        self._clear()

    def _note_exit(self, pid: int, status: int, usage: struct_rusage) -> None:
        attempt = self._leaders.pop(pid, None)
        if attempt is None:
            if self._starter.is_waiting:
                self._unclaimed[pid] = status, usage
            return
        if attempt.group is not None and os.waitstatus_to_exitcode(status) == EXIT_NOT_STARTED:
            why = self._starter.why_not(pid, attempt.launch.words[0])
            if why is not None:
                self.memory.forget(attempt)
                self._fail(attempt, why)
                return
        attempt.exit(status, usage, time.clock_gettime(_clock_boot) - attempt.started_boot)
        self.memory.release(attempt)
        self._clearing[attempt.identity] = attempt

    def watch_memory(self) -> None:
        """Kill attempts that use more memory than they requested."""
        if over := self.memory.look():
            self.stop([attempt.identity for attempt in over], outcome.OUT_OF_MEMORY, 0.0)

    # -- leftovers ---------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        """End attempts whose command has exited and has no leftovers; terminate the leftovers of the others."""
        if not self._clearing:
            return
        now = time.monotonic()
        has_orphans = self._is_subreaper and processes.reap_orphans()[1]
        if (has_orphans or not self._is_subreaper) and now < self._walk_at:
            return
        if not has_orphans:
            self._nameless.clear()
        left = self._left(has_orphans=has_orphans)
        if any(self._may_be_named(pid, now - since) for (pid, _), since in self._nameless.items()):
            self._walk_at = max(self._walk_at, now + NAMELESS_SECONDS)
            return
        for attempt in list(self._clearing.values()):
            if attempt.identity not in left or attempt.is_unkillable(now):
                self._end(attempt)
            else:
                attempt.leave_behind(now)
                self._set_timer(attempt)

    @staticmethod
    def _may_be_named(pid: int, seconds: float) -> bool:
        """Return whether the attempt of an orphan, unknown for so many seconds, may become known soon."""
        return seconds < NAMELESS_SECONDS or (seconds < EXECUTING_SECONDS_MAX and processes.is_executing(pid))

    def _left(self, *, has_orphans: bool) -> set[int]:
        """Return the attempts whose command has exited but has leftovers.

        Without orphans, only cgroups and process groups are checked; no scan of all processes is needed.
        """
        if not self._is_subreaper:
            self._walk_at = time.monotonic() + GROUP_LOOK_SECONDS
            return {one.identity for one in self._clearing.values() if processes.signal_group(one.pid, 0)}
        found = self._settled() if has_orphans else set()
        groups = ((identity, one.group) for identity, one in self._clearing.items() if one.group is not None)
        in_groups = {identity for identity, group in groups if group.processes()}
        if in_groups:
            self._walk_at = max(self._walk_at, time.monotonic() + GROUP_LOOK_SECONDS)
        return found | in_groups

    def _settled(self) -> set[int]:
        """Return all attempts that have living processes.

        An orphan that exits during a scan may have started a process that the scan missed. In that case, scan again.
        """
        for _ in range(WALKS_MAX):
            found = self._owned()
            if not processes.reap_orphans()[0]:
                return set(found)
        return set(self.live)

    def _owned(self) -> dict[int, list[int]]:
        """Return attempt -> PIDs of its living processes, and remember their owners."""
        begun = time.thread_time()
        found = processes.owners(
            processes.table(),
            os.getpid(),
            {pid: attempt.identity for pid, attempt in self._leaders.items()},
            {attempt.pid: identity for identity, attempt in self.live.items() if attempt.ran},
            self._known,
            self.marks.attempt_of,
            frozenset(self._spared()) if self._spared is not None else (),
            is_complete=not self._starter.is_waiting,
        )
        now = time.monotonic()
        self._nameless = {one.key: self._nameless.get(one.key, now) for one in found.get(None, ())}
        owned = {identity: some for identity, some in found.items() if identity is not None}
        self._known = {one.key: identity for identity, some in owned.items() for one in some}
        pause = min(WALK_PAUSE_FACTOR * (time.thread_time() - begun), WALK_PAUSE_SECONDS_MAX)
        self._walk_at = now + pause
        return {identity: [one.pid for one in some] for identity, some in owned.items()}

    def _end(self, attempt: Attempt) -> None:
        if attempt.state == CLEARING:
            attempt.clear()
            del self._clearing[attempt.identity]
            if attempt.state == CHECKING:
                self.searches.start(attempt.identity, attempt.launch.outputs)
                return
        del self.live[attempt.identity]
        self._to_stop.pop(attempt.identity, None)
        if attempt.group is not None:
            self.memory.remove(attempt.group)
        self._ended.append(attempt)

    # -- time --------------------------------------------------------------------------------------------------

    def _set_timer(self, attempt: Attempt) -> None:
        if attempt.due is None:
            return
        heappush(self._timers, (attempt.due, attempt.identity))
        if len(self._timers) > 2 * len(self.live) + STALE_TIMERS_MAX:
            self._timers = [timer for timer in set(self._timers) if self._is_current(timer)]
            heapify(self._timers)

    def _is_current(self, timer: tuple[float, int]) -> bool:
        attempt = self.live.get(timer[1])
        return attempt is not None and attempt.due == timer[0]

    def _next_timer(self) -> float | None:
        while self._timers and not self._is_current(self._timers[0]):
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def fire_timers(self) -> None:
        """Stop attempts that exceed their runtime, and send the signals that are due."""
        now = time.monotonic()
        signals: dict[int, list[Attempt]] = {}
        while (due := self._next_timer()) is not None and due <= now:
            attempt = self.live[heappop(self._timers)[1]]
            number = attempt.next_signal(now)
            if number is None:
                self.stop([attempt.identity], outcome.OUT_OF_TIME, self.grace_seconds)
            else:
                signals.setdefault(number, []).append(attempt)
                self._set_timer(attempt)
        for number, attempts in signals.items():
            self._signal(attempts, number)

    def _signal(self, attempts: list[Attempt], number: int) -> None:
        """Send a signal: SIGINT to the process group, as a terminal does; any other signal to all processes."""
        if number == _signal.SIGINT or not self._is_subreaper:
            for attempt in attempts:
                processes.signal_group(attempt.pid, number)
            return

        def pids() -> list[int]:
            owned = self._owned()
            return [pid for attempt in attempts for pid in owned.get(attempt.identity, ())]

        if number == _signal.SIGKILL:
            for attempt in attempts:
                if attempt.group is not None:
                    attempt.group.kill()
            processes.kill_all(pids)
        else:
            for pid in pids():
                processes.signal(pid, number)

    # -- results -----------------------------------------------------------------------------------------------

    def take_started(self) -> list[Attempt]:
        """Return the attempts whose commands have started since the last call."""
        started, self._started = self._started, []
        return started

    def take_ended(self) -> list[Attempt]:
        """Return the attempts that have ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def leave(self) -> None:
        """Kill orphans that could not be assigned to an attempt, and remove empty cgroups."""
        if self._is_subreaper and processes.reap_orphans()[1]:
            spared = frozenset(self._spared()) if self._spared is not None else frozenset()
            processes.kill_all(lambda: (one.pid for one in _strays(spared)))
        self.memory.leave()


def _strays(spared: frozenset[int]) -> Iterable[processes.Process]:
    found = processes.table()
    roots = [one.pid for one in found.values() if one.parent == os.getpid()]
    return processes.below(found, roots, spared)
