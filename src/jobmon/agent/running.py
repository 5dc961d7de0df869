"""Run the attempts that a program has taken: start those that fit, and report the outcome of each.

All programs that run commands share this implementation of everything between taking work and sending reports. An
attempt is in `work.waiting` or in `commands.live`, or its report is in the outbox.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

from jobmon.agent import locations, outcome, outputs, reports
from jobmon.agent.devices import RETRY_SECONDS
from jobmon.agent.fastjson import dumps
from jobmon.agent.suspects import Suspects

#: A command that exits sooner is never reported as running.
RUNNING_DELAY_SECONDS = 0.1
KILLED_UNSTARTED = f"{outcome.KILLED}: cancelled before it started"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol

    from jobmon.agent.attempts import Attempt
    from jobmon.agent.devices import Devices
    from jobmon.agent.outbox import Outbox
    from jobmon.agent.starting import Launch
    from jobmon.agent.trouble import LocationTrouble
    from jobmon.agent.work import Work

    class Executor(Protocol):
        """Runs commands: `commands.Commands`, or the plug-in of a direct cluster."""

        @property
        def live(self) -> Mapping[int, Attempt]: ...

        def start(self, launch: Launch) -> object: ...

        def stop(self, identities: Iterable[int], cause: str, grace_seconds: float) -> None: ...

        def look(self) -> None: ...

        def next_look(self) -> float | None: ...

        def take_started(self) -> list[Attempt]: ...

        def take_ended(self) -> list[Attempt]: ...

        def leave(self) -> None: ...


class Running:
    """The attempts of one program.

    Args:
        commands: starts, limits and terminates the commands.
        work: the waiting attempts, and the cores and memory that running ones use.
        outbox: receives the reports.
        trouble: a problem of the location that keeps commands from being started.
        monotonic: returns the monotonic time, seconds.
        host: name of this host.
        log_folder: the log folder of the workflow.
        interrupt_seconds: time between SIGINT and SIGKILL for attempts to kill.
        returned: the error text of attempts that are returned without having started.
        fields: additional fields of all reports; None: there are none.
        write: writes lines to the journal; None: there is no journal.
        devices: assigns exclusive resources such as GPUs to commands; None: there are none.
    """

    def __init__(
        self,
        commands: Executor,
        work: Work,
        outbox: Outbox,
        trouble: LocationTrouble,
        monotonic: Callable[[], float],
        host: str,
        log_folder: str,
        interrupt_seconds: float,
        returned: str,
        fields: Mapping[str, Any] | None = None,
        write: Callable[[Iterable[str]], None] | None = None,
        devices: Devices | None = None,
    ) -> None:
        self.commands = commands
        self.work = work
        self.outbox = outbox
        self.trouble = trouble
        #: Attempts to kill whose outcome is not settled.
        self.ordered: set[int] = set()
        #: Whether attempts that cannot be started are returned instead of retried.
        self.is_closing = False
        #: Whether the cluster told this program to exit; then the cluster reports why a command failed.
        self.is_ended_from_outside = False
        #: Attempts that failed then for no reason known here, and may have been to be killed.
        self.unexplained: dict[int, Attempt] = {}
        #: Called with each command that failed, before it is judged; None: nothing is called.
        self.doubt: Callable[[Attempt], None] | None = None
        self._ended_count = 0  # attempts that have ended here and were judged
        self._monotonic = monotonic
        self._host = host
        self._log_folder = log_folder
        self._interrupt_seconds = interrupt_seconds
        self._returned = returned
        self._fields = fields
        #: Tasks that may have killed an earlier program; they run alone.
        self.suspects = Suspects()
        self._write = write
        self._lines: list[str] = []
        self._unsaid: dict[int, float] = {}  # running attempt -> when to report it as running, monotonic
        self._devices = devices
        self._unreported: list[Attempt] = []  # attempts that have ended in this turn with exit code 0
        self._blocked: set[int] = set()  # attempts whose devices are in use
        self._counted: set[int] = set()  # attempts that the server already counts as running

    # -- taking ------------------------------------------------------------------------------------------------

    @property
    def here(self) -> set[int]:
        """All attempts of this program, including those that have ended but are not settled."""
        here = {*self.commands.live, *(launch.identity for launch in self.work.waiting)}
        here.update(attempt.identity for attempt in self._unreported)
        here.update(report["task_instance_id"] for report in self.outbox.all)
        return here

    @property
    def ended_count(self) -> int:
        """The number of attempts that have ended here."""
        return self._ended_count + len(self._unreported)

    def take(self, launches: Iterable[Launch], counted_as_running: Iterable[int] = ()) -> None:
        """Add assigned attempts to the waiting ones, or return them if this program is closing."""
        if self.is_closing:
            self.give_back(launches)
        else:
            self._counted.update(counted_as_running)
            launches = [launch for launch in launches if not self._is_impossible(launch)]
            for launch in launches:
                if launch.task_id in self.suspects:
                    launch.cores = self.work.cores
            self.work.take(launches)

    def _is_impossible(self, launch: Launch) -> bool:
        """Return whether this machine lacks devices that an attempt requests; if so, report it."""
        problem = "" if self._devices is None else self._devices.problem_with(launch.devices)
        if problem:
            self._forget(launch.identity)
            words = f"not started: {problem}"
            self._report(reports.of_unstarted(launch.identity, reports.ERROR_FATAL, outcome.NOT_STARTED, words))
        return bool(problem)

    def give_back(self, launches: Iterable[Launch]) -> None:
        """Report that attempts were not started; the server queues them again without charging them."""
        for launch in launches:
            self._forget(launch.identity)
            self._report(
                reports.of_unstarted(launch.identity, outcome.UNKNOWN_ERROR, outcome.WORKER_LOST, self._returned)
            )

    def close(self) -> None:
        """Start nothing more, and return the waiting attempts."""
        self.is_closing = True
        self.give_back(self.work.drop_all())

    # -- starting and ending -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the waiting attempts that fit next to running ones, oldest first."""
        now = self._monotonic()
        self._blocked.clear()
        while self.work.waiting and self.trouble.may_start(now):
            launch = self.work.next(self._blocked)
            if launch is None:
                return
            if not self._has_devices(launch):
                self._blocked.add(launch.identity)
                continue
            self.work.begin(launch)
            self.trouble.probe()
            self._note_task(launch)
            self.commands.start(launch)
            self._note_events()

    def _has_devices(self, launch: Launch) -> bool:
        """Take the devices that a command needs; return False if they are in use."""
        added = {} if self._devices is None else self._devices.take(launch.identity, launch.devices)
        if added:
            launch.environment = {**launch.environment, **added}
        return added is not None

    def _note_task(self, launch: Launch) -> None:
        """Record in the journal that a command is about to be started, because it may kill this program at once."""
        if self._write is not None:
            self._lines.append(self._task_line(launch))
            self.write_lines()

    def _task_line(self, launch: Launch) -> str:
        """Return the journal line of a command that is about to be started."""
        return f'["t",{launch.identity},{launch.task_id},{int(launch.task_id in self.suspects)}]\n'

    def look(self) -> None:
        """Process everything that has happened. Successes free what they used, but are not reported yet."""
        self.commands.look()
        self._note_events()

    def _note_events(self) -> None:
        """Record which commands have started, and free what ended attempts used."""
        for attempt in self.commands.take_started():
            self.trouble.started(attempt.identity)
            if self._write is not None:
                self._lines.append(self._start_line(attempt))
            if attempt.identity not in self._counted:
                self._unsaid[attempt.identity] = self._monotonic() + RUNNING_DELAY_SECONDS
        for attempt in self.commands.take_ended():
            self._unsaid.pop(attempt.identity, None)
            if self._devices is not None:
                self._devices.release(attempt.identity)
            self.work.end(attempt.identity, attempt.seconds if attempt.ran else None)
            if attempt.exit_code == 0:
                self._unreported.append(attempt)
            else:
                self._end(attempt)  # the cause may keep others from being started

    def report_ends(self) -> None:
        """Report the commands that have succeeded since the last call."""
        ended, self._unreported = self._unreported, []
        for attempt in ended:
            self._end(attempt)

    def _end(self, attempt: Attempt) -> None:
        why, identity = attempt.not_started, attempt.identity
        if attempt.ran:
            self.suspects.ended(attempt.launch.task_id)
        is_killed = identity in self.ordered
        has_failed = attempt.ran and attempt.exit_code != 0 and not is_killed
        if has_failed and self.doubt is not None:
            self.doubt(attempt)
        if why is not None and not is_killed and self._is_of_location(attempt):
            if self.trouble.failed(identity, f"not started: {why.why}", self._monotonic()):
                self._retry(attempt.launch)
                return
            report = reports.of_unstarted(identity, reports.ERROR_FATAL, outcome.NOT_STARTED, f"not started: {why.why}")
        elif why is not None and is_killed:
            report = reports.of_unstarted(identity, outcome.ERROR, outcome.KILLED, KILLED_UNSTARTED)
        else:
            report = self._report_of_end(attempt, is_killed=is_killed)
        self._forget(identity)
        self._ended_count += 1
        if has_failed and self.is_ended_from_outside and attempt.cause in (None, outcome.KILLED):
            self.unexplained[identity] = attempt
            return
        if self._write is not None:
            self._lines.append(self._end_line(report))
        self._report(report)

    def _report_of_end(self, attempt: Attempt, *, is_killed: bool) -> dict[str, Any]:
        tail = outputs.tail(*reports.paths(attempt), written=attempt.launch.written) if attempt.ran else b""
        return reports.of_end(attempt, tail, self._host, is_killed=is_killed)

    def _is_of_location(self, attempt: Attempt) -> bool:
        why = attempt.not_started
        assert why is not None
        return bool(why.step) and locations.is_of_location(why.step, why.number, why.path, self._log_folder)

    def _retry(self, launch: Launch) -> None:
        if self.is_closing:
            self.give_back([launch])
        else:
            self.work.put_back(launch)

    def _forget(self, identity: int) -> None:
        self.trouble.forget(identity)
        self._counted.discard(identity)

    def kill(self, identities: Iterable[int]) -> None:
        """Kill attempts; report at once those that have not started, or that are unexpectedly not here."""
        wanted = set(identities) - self.ordered
        if not wanted:
            return
        self.report_ends()
        self.ordered |= wanted
        waiting = {launch.identity for launch in self.work.remove(wanted)}
        here = wanted & self.commands.live.keys()
        for identity in wanted & self.unexplained.keys():
            self._report(self._report_of_end(self.unexplained.pop(identity), is_killed=True))
        ended = {report["task_instance_id"] for report in self.outbox.all}
        for identity in sorted(waiting | (wanted - here - ended)):
            self._forget(identity)
            self._report(reports.of_unstarted(identity, outcome.ERROR, outcome.KILLED, KILLED_UNSTARTED))
        self.commands.stop(here, outcome.KILLED, self._interrupt_seconds)
        self._note_events()
        self.report_ends()

    # -- reports -----------------------------------------------------------------------------------------------

    def report_running(self, now: float) -> None:
        """Report the commands that have run for long enough."""
        while self._unsaid:
            identity, due = next(iter(self._unsaid.items()))
            if due > now:
                return
            del self._unsaid[identity]
            self._report(reports.of_start(self.commands.live[identity], self._host))

    def settle(self, verdict: str, unknown: Iterable[int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Apply the verdict on the reports in flight; return the settled reports, and those to set aside."""
        settled, aside = self.outbox.settle(verdict, set(unknown))
        for report in settled:
            if report["status"] != reports.RUNNING:
                self.ordered.discard(report["task_instance_id"])
        return list(settled), list(aside)

    def _report(self, report: dict[str, Any]) -> None:
        self.outbox.add({**report, **self._fields} if self._fields else report)

    # -- the journal -------------------------------------------------------------------------------------------

    def write_lines(self) -> None:
        """Write to the journal what happened since the last call. Must precede the sending of reports."""
        if self._write is not None and self._lines:
            lines, self._lines = self._lines, []
            self._write(lines)

    @staticmethod
    def _start_line(attempt: Attempt) -> str:
        return f'["s",{attempt.identity},{attempt.pid},{attempt.started_at},{attempt.started_boot}]\n'

    @staticmethod
    def _end_line(report: Mapping[str, Any]) -> str:
        return f'["e",{report["task_instance_id"]},{dumps(report)}]\n'

    def unsettled_lines(self) -> list[str]:
        """Return all unsettled attempts as journal lines."""
        live = self.commands.live.values()
        lines = [self._task_line(attempt.launch) for attempt in live]
        lines += [self._start_line(attempt) for attempt in live if attempt.ran]
        ended = (report for report in self.outbox.all if report["status"] != reports.RUNNING)
        return lines + [self._end_line(one) for one in ended]

    # -- waiting -----------------------------------------------------------------------------------------------

    def due(self) -> list[float]:
        """Return the times of the next actions that are due even if no event occurs, monotonic seconds."""
        due = [] if (look := self.commands.next_look()) is None else [look]
        if self._unsaid:
            due.append(next(iter(self._unsaid.values())))
        if self._blocked:
            due.append(self._monotonic() + RETRY_SECONDS)
        trouble = self.trouble.due if self.work.waiting else None
        if trouble is not None and trouble > self._monotonic():
            due.append(trouble)
        return due
