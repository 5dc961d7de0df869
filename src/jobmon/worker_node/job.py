"""A job of a cluster: how it takes its first answer, heeds its cluster's signals, and gives up on its server.

An unreachable server does not affect running commands. Reports stay here, and on disk, until an answer settles them.
"""

from __future__ import annotations

import _signal
import os
from abc import abstractmethod

from jobmon.agent import locations, outcome, settlement
from jobmon.agent.environment import for_command
from jobmon.agent.processes import DATA_VARIABLE
from jobmon.agent.program import Program
from jobmon.agent.servers import InvalidServer, data_folder, own_server_folder
from jobmon.agent.shells import DEFAULT_SHELL
from jobmon.agent.work import Work, ahead_expiry
from jobmon.worker_node import guarding
from jobmon.worker_node.answers import HTTP_UNAUTHORIZED, is_last_word

#: How long the server may be unreachable when only reports are left, if they are on disk and if they are not.
REPORT_TRIED_SECONDS = 120.0
UNWRITTEN_TRIED_SECONDS = 3600.0
#: A cluster that terminates a job signals its processes one by one: how long the signal for this one may take.
SIGNAL_SECONDS = 0.2
#: How long a server that does not answer the first request is unreachable before this job says so.
SAY_AWAY_SECONDS = 30.0
#: Maximum number of attempts for which the server is notified why they wait.
PENDING_MAX = 1_000
#: The assumed runtime of commands before any has completed: long enough that all jobs of a batch get some work.
SECONDS_ASSUMED = 0.25
RETURNED = "It was prefetched by a job but not started in time."
UNLIMITED = float("inf")
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from jobmon.agent.attempts import Attempt
    from jobmon.agent.launches import Surroundings
    from jobmon.agent.starting import Launch
    from jobmon.worker_node.host import JobHost


class Job(Program):
    """A job of a cluster.

    Args:
        request: the first request, as `process.start_request` returns it.
        environment: environment of this process.
        access: the job's access to its machine and the server.
    """

    #: How long the server may be unreachable before the first answer.
    START_TRIED_SECONDS = 600.0
    #: Outcomes that the server has not settled after this time are written to disk.
    KEEP_SECONDS = 2.0

    _access: JobHost

    def __init__(self, request: Mapping[str, Any], environment: Mapping[str, str], access: JobHost) -> None:
        super().__init__(access, Work(1.0, UNLIMITED, 1.0, SECONDS_ASSUMED))
        self._request = request
        self._environment = environment
        self._host = str(request["host"])
        self._data_folder = data_folder(environment)
        self._width = 1  # how many tasks run concurrently
        #: What the server cannot know about the failure of this job.
        self.start_error = ""
        self._failure = ""
        self._signalled = 0
        self._is_passed_on = self._is_leaving = self._has_said = False
        self._has_unexplained = False  # whether commands failed because the cluster terminated this job
        self._told_problem = ""
        self._told_pending: dict[str, str] = {}  # attempt -> why it was last reported to wait
        self._began_at = self._busy_at = access.monotonic()
        self._keep_at = 0.0
        self._must_guard = guarding.must_guard(environment)
        self._start_tried = self._seconds("JOBMON_WORKER_START_SECONDS", self.START_TRIED_SECONDS)
        self._report_tried = self._seconds("JOBMON_WORKER_REPORT_SECONDS", REPORT_TRIED_SECONDS)
        self._unwritten_tried = self._seconds("JOBMON_WORKER_UNWRITTEN_SECONDS", UNWRITTEN_TRIED_SECONDS)

    def _seconds(self, name: str, default: float) -> float:
        return float(self._environment.get(name, default))

    def work(self) -> int:
        """Run until nothing is left to do; return the exit code: 0 if all outcomes are reported or on disk."""
        self._access.heed_signals(self._note_signal)
        self._send()
        self._prepare()
        self._loop()
        if not self._failure and self._is_cut_short():
            self._failure = "the job was terminated from outside; see the cluster for the reason"
        if not self._failure:
            return 1 if self.start_error else 0
        self._access.say(self._failure)
        return guarding.EXIT_NOTIFIED if self._signalled and self._must_guard else 1

    def _prepare(self) -> None:
        """Load what the first answer requires while the server prepares it."""
        from jobmon.agent import devices, launches, running, trouble, undelivered  # noqa: F401
        from jobmon.agent.commands import INTERRUPT_TIMEOUT_SECONDS

        self._interrupt_timeout = self._seconds(
            "JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT", INTERRUPT_TIMEOUT_SECONDS
        )
        self._commands = self._access.commands(self._interrupt_timeout)
        own_server = own_server_folder(self._environment)
        self._commands.set_environment(
            {**for_command(self._environment), **({DATA_VARIABLE: own_server} if own_server else {})}
        )

    def _is_cut_short(self) -> bool:
        """Return whether the cluster terminated this job before all was done."""
        return bool(self._signalled)

    def _is_finished(self) -> bool:
        if self._failure or self._has_left:
            return True
        if not self._is_begun:
            return bool(self._signalled)
        is_busy = self._commands.live or self._work.waiting or self._running.unexplained
        return not is_busy and self._has_told()

    def _has_told(self) -> bool:
        """Return whether this job, which has no attempts left, may exit without telling the server more."""
        return bool(self._signalled) and not (self._message or self._outbox.has_waiting)

    # -- signals -----------------------------------------------------------------------------------------------

    def _note_signal(self, number: int) -> None:
        self._signalled = number

    def _pass_on(self) -> None:
        """Pass the cluster's signal on to all commands, and start nothing more."""
        if self._is_passed_on or not self._signalled:
            return
        self._is_passed_on = self._running.is_ended_from_outside = True
        self._has_unexplained = bool(self._work.drop_all())  # the server settles these by the job's outcome
        self._leave()
        self._commands.pass_on(self._signalled)  # once: the cluster terminates this job even if it is leaving
        if self._must_guard:
            self._commands.stop(list(self._commands.live), outcome.KILLED, self._interrupt_timeout)

    def _await_signal(self, attempt: Attempt) -> None:
        """Wait for the cluster's signal if a command may have received it before this process."""
        until = self._access.monotonic() + SIGNAL_SECONDS
        is_doubtful = attempt.signal == _signal.SIGTERM and attempt.cause is None
        while is_doubtful and not self._signalled and self._access.monotonic() < until:
            self._access.wait((), until - self._access.monotonic())
        self._pass_on()

    def _leave(self) -> None:
        """Start nothing more, and return the waiting attempts."""
        self._is_leaving = True
        self._running.close()

    # -- the server --------------------------------------------------------------------------------------------

    def _begin(self, content: dict[str, Any]) -> None:
        from jobmon.agent.devices import of_job
        from jobmon.agent.running import Running
        from jobmon.agent.trouble import LocationTrouble
        from jobmon.agent.undelivered import Undelivered

        job = self._job_in(content)
        self._identity = str(content.get("server_identity") or "")
        self._heartbeat = float(job["heartbeat_interval"])
        self._beat_at = self._access.monotonic() + self._heartbeat
        self._ahead_expiry = ahead_expiry(self._heartbeat, float(job["report_by_buffer"]))
        self._log_folder = os.path.join(self._data_folder, "logs", str(job["workflow_id"]))
        devices, self._width = of_job(self._environment, job["requested_resources"], int(job.get("width", 1)))
        self._commands.memory.job_width = int(job.get("width", 1))
        self._running = Running(
            self._commands,
            self._work,
            self._outbox,
            LocationTrouble(self._seconds(locations.RETRIED_VARIABLE, locations.RETRIED_SECONDS)),
            self._access.monotonic,
            self._host,
            self._log_folder,
            self._interrupt_timeout,
            RETURNED,
            {"distributor_id": self._request["distributor_id"]},
            devices=devices,
        )
        self._running.doubt = self._await_signal
        launches = self._launches_in(content)
        self._undelivered = Undelivered(
            self._data_folder,
            int(job["workflow_id"]),
            self._identity,
            str(content.get("server_incarnation") or ""),
            self._access.say,
            self._access.monotonic,
            os.path.dirname(launches[0].stderr or launches[0].stdout) if launches else "",
        )
        for _, report in self._undelivered.found():
            self._outbox.add(report)

    def _surroundings(self, job: Mapping[str, Any]) -> Surroundings:
        """Return the settings that the tasks of an answer share; a pilot's answers may come from several runs."""
        from jobmon.agent.launches import Surroundings

        return Surroundings(
            job["workflow_id"],
            job["workflow_run_id"],
            job["working_directory"],
            job["umask"],
            self._log_folder,
            self._environment.get("JOBMON__WORKER_NODE__SHELL", DEFAULT_SHELL),
            UNLIMITED,
            False,
            self._identity,
        )

    def _is_report_due(self, now: float) -> bool:
        if not self._is_begun:
            return True
        if self._signalled:
            return self._outbox.has_waiting or bool(self._running.unexplained)
        if now >= self._beat_at or self._told_problem != self._running.trouble.text:
            return True
        return self._is_work_due() or (self._outbox.has_waiting and now >= self._gathered_at)

    def _report(self, now: float) -> dict[str, Any]:
        """Return reports and heartbeats of all attempts."""
        self._beat_at = now + self._heartbeat
        if not self._is_begun:
            return {"reports": [], "alive": [], "pending": {}}
        waiting = (launch.identity for launch in self._work.waiting)
        return {
            "reports": self._outbox.take(),
            "alive": [*self._commands.live, *waiting, *self._running.unexplained],
            "pending": self._pending(),
        }

    def _pending(self) -> dict[str, str]:
        """Return, if it has changed, why attempts wait for their location; "": they no longer wait."""
        text = self._running.trouble.text
        if text == self._told_problem:
            return {}
        self._told_problem = text
        if text:
            why = f"cannot be started on {self._host} yet, and is not charged: {text}"
            waiting = [launch.identity for launch in self._work.waiting]
            self._told_pending = {str(identity): why for identity in waiting[:PENDING_MAX]}
        else:
            self._told_pending = dict.fromkeys(self._told_pending, "")
        return self._told_pending

    def _hear_kill(self, content: Mapping[str, Any]) -> None:
        """Kill attempts. Unexplained failures of those that were not to be killed are left to the cluster."""
        asked = self._running.unexplained
        self._running.kill(content.get("kill", ()))
        if asked:
            self._has_unexplained = self._has_unexplained or bool(self._running.unexplained)
            self._running.unexplained.clear()

    def _heed_refusal(self, status: int, content: Any) -> str:
        if self._is_begun:
            return super()._heed_refusal(status, content)
        if is_last_word(status, content):
            self._failure = content["message"] or f"the server responded with status {status}"
        why = f"it responded with status {status}, which is not a response of Jobmon"
        if status == HTTP_UNAUTHORIZED:
            why = "it does not admit this host: the token is wrong or has expired"
            if not self._has_said:
                self._access.say(f"the server at {self._reporting.where}: {why}; waiting")
            self._has_said = True
        return why

    def _note_away(self, error: Exception) -> None:
        """Give up if the server has been unreachable for too long; meanwhile, write what it must learn to disk."""
        if not self._is_begun:
            self._put_off_start(error)
        elif not (self._commands.live or self._work.waiting):
            is_kept = self._undelivered.keep_all(self._outbox.all)
            tried = self._report_tried if is_kept else max(self._report_tried, self._unwritten_tried)
            began_at = max(self._busy_at, self._away_since or 0.0)
            if is_kept and self._signalled:
                self._has_left = True  # the cluster is about to kill this process
            elif not self._may_try_until(began_at + tried):
                self._has_left = is_kept
                if not is_kept:
                    self._failure = "reports are lost: the server does not respond, and nothing can be written"

    def _put_off_start(self, error: Exception) -> None:
        if self._failure:
            return
        if isinstance(error, InvalidServer):
            self._failure = self.start_error = str(error)
        elif not self._may_try_until(self._began_at + self._start_tried):
            tried = f"tried for {self._start_tried:.0f} s at {self._reporting.where}: {error}"
            self._failure = self.start_error = f"the server cannot be reached from {self._host} ({tried})"
        elif not self._has_said and self._access.monotonic() - self._began_at >= SAY_AWAY_SECONDS:
            self._has_said = True
            self._access.say(f"the server at {self._reporting.where} does not answer yet: {error}; waiting")

    def _may_try_until(self, deadline: float) -> bool:
        """Return whether there is another try; the last one is at the deadline."""
        left = deadline - self._access.monotonic()
        self._retry_at = min(self._retry_at, deadline)
        return left > 0 and settlement.asked_pause(self._reporting.retry_after) < left

    # -- time --------------------------------------------------------------------------------------------------

    def _keep_time(self, now: float) -> None:
        super()._keep_time(now)
        self._pass_on()
        if self._work.waiting or self._commands.live:
            self._busy_at = now
        is_unheard = self._message is not None and now >= self._reported_at + self.KEEP_SECONDS
        if is_unheard and now >= self._keep_at and len(self._outbox):
            self._keep_at = now + self.KEEP_SECONDS
            self._undelivered.keep_all(self._outbox.all)

    def _further_due(self, now: float) -> Iterable[float]:
        keep_at = max(self._reported_at + self.KEEP_SECONDS, self._keep_at)
        if self._message is not None and len(self._outbox) and keep_at > now:
            yield keep_at

    # -- what differs ------------------------------------------------------------------------------------------

    @abstractmethod
    def _job_in(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return what the tasks in an answer have in common."""

    @abstractmethod
    def _launches_in(self, content: dict[str, Any]) -> list[Launch]:
        """Return the commands in an answer."""

    def _is_work_due(self) -> bool:
        """Return whether the need for work justifies a message now."""
        return False

    def _launches_of(self, columns: dict[str, Any], job: Mapping[str, Any]) -> list[Launch]:
        from jobmon.agent.launches import launches_of

        return launches_of(columns, self._surroundings(job))
