"""A job that runs many tasks: it takes some at a time from the server until there are none left or its time is up.

It runs `width` commands concurrently, each with its own attempt, log, usage and time limit. Up to two requests are in
flight. One carries reports and heartbeats, and returns work. The server holds the other until there is an attempt to
kill, or work after there was none. Short tasks are prefetched, and outcomes are sent with the next request for work, so
that a task costs only a fraction of a request.

An unreachable server does not affect running commands. Reports stay here, and on disk, until an answer settles them.
When no answer has come for too long (`work.ahead_expiry`), the job no longer starts prefetched attempts, because the
server may have handed them out again by then.
"""

from __future__ import annotations

import os
import sys

from jobmon.agent import journal, locations, outcome, settlement
from jobmon.agent.commands import INTERRUPT_TIMEOUT_SECONDS
from jobmon.agent.devices import of_job
from jobmon.agent.environment import for_command
from jobmon.agent.gateway import ServerAway, data_folder, own_server_folder
from jobmon.agent.launches import Surroundings, launches_of
from jobmon.agent.outbox import Outbox
from jobmon.agent.outputs import LOG_SHARD_SIZE
from jobmon.agent.processes import DATA_VARIABLE
from jobmon.agent.reports import RUNNING
from jobmon.agent.running import Running
from jobmon.agent.shells import DEFAULT_SHELL
from jobmon.agent.trouble import LocationTrouble
from jobmon.agent.work import Work, ahead_expiry
from jobmon.worker_node import guarding
from jobmon.worker_node.host import JobHost
from jobmon.worker_node.run import HTTP_OK, is_last_word
from jobmon.worker_node.taking import columns_of, is_held_answer, is_take_answer
from jobmon.worker_node.undelivered import Undelivered

REQUEST_TIMEOUT_SECONDS = 20.0
LONG_POLL_SECONDS = 30.0
LISTEN_PAUSE_SECONDS = 4.5
#: How long the server may be unreachable before the first answer, and when only reports are left.
START_TRIED_SECONDS = 3600.0
REPORT_TRIED_SECONDS = 120.0
#: The same if the reports cannot be written to disk either.
UNWRITTEN_TRIED_SECONDS = 3600.0
#: A pilot that has had no work for this long exits.
IDLE_SECONDS = 30.0
#: Maximum number of tasks that one request asks for; the server returns no more.
TASKS_PER_REQUEST_MAX = 1_000
#: Maximum number of attempts for which the server is notified why they wait.
PENDING_MAX = 1_000
#: How long reports are collected into one request while enough work waits here.
GATHER_SECONDS = 0.05
#: The assumed runtime of commands before any has completed: long enough that all jobs of a batch get some work.
SECONDS_ASSUMED = 0.25
RETURNED = "It was prefetched by a job but not started in time."
#: Outcomes that the server has not settled after this time are written to disk.
KEEP_SECONDS = 5.0
#: The time left in the job that starting a task requires at least if tasks have no runtime limit.
RESERVE_SECONDS = 10.0
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


class Pilot:
    """A packed job.

    Args:
        request: array_id, batch_number, distributor_id.
        environment: environment of this process.
        host: name of this host.
        access: the job's access to its machine and the server.
    """

    def __init__(self, request: Mapping[str, Any], environment: Mapping[str, str], host: str, access: JobHost) -> None:
        self._access = access
        self._request = {
            "array_id": request["array_id"],
            "batch_number": request["batch_number"],
            "distributor_id": request["distributor_id"] or "",
            "host": host,
        }
        self._environment = environment
        self._host = host
        self._data_folder = data_folder(environment)
        self._work = Work(1.0, float("inf"), 1.0, SECONDS_ASSUMED)
        self._outbox = Outbox()
        self._is_over = self._is_leaving = False
        self._is_dry = False  # the server had less work than requested
        self._reporting = access.connection()
        self._listening = access.connection()
        now = access.monotonic()
        self._began_at = self._answered_at = self._busy_at = now
        self._message: dict[str, Any] | None = None  # in flight; resent until it is answered
        self._asked = (0, 0)
        self._count = 0
        self._has_more = False  # reports that did not fit into the last request
        self._retry_at = self._listen_at = self._beat_at = self._reported_at = self._keep_at = 0.0
        self._pauses = settlement.Pauses()
        self._identity = ""
        self._undelivered: Undelivered | None = None
        self._is_first = True
        self._awaits_work = False
        self._has_left = False
        self._failure = ""
        self._signalled = 0
        self._is_passed_on = False
        self._must_guard = guarding.must_guard(environment)
        self._width = 1  # how many tasks run concurrently
        self._ends_at: float | None = None
        self._runtime: float | None = None
        self._told_problem = ""
        self._kept: dict[int, str] = {}
        self._heartbeat = 0.0
        self._interrupt_timeout = float(
            environment.get("JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT", INTERRUPT_TIMEOUT_SECONDS)
        )
        self._report_tried = float(environment.get("JOBMON_WORKER_REPORT_SECONDS", REPORT_TRIED_SECONDS))
        self._unwritten_tried = float(environment.get("JOBMON_WORKER_UNWRITTEN_SECONDS", UNWRITTEN_TRIED_SECONDS))
        self._location_tried = float(environment.get(locations.RETRIED_VARIABLE, locations.RETRIED_SECONDS))
        self._idle = float(environment.get("JOBMON_PILOT_IDLE_SECONDS", IDLE_SECONDS))
        self._shell = environment.get("JOBMON__WORKER_NODE__SHELL", DEFAULT_SHELL)
        self._commands = access.commands(self._interrupt_timeout)
        self._commands.environment = for_command(environment)
        if own_server := own_server_folder(environment):
            self._commands.environment[DATA_VARIABLE] = own_server
        self._running: Running  # set by the first answer

    def work(self) -> int:
        """Run tasks until there are none left; return the exit code: 0 if all outcomes are reported or on disk."""
        self._access.heed_signals(self._note_signal)
        while not self._is_finished():
            if not self._is_first:
                self._commands.look()
                self._running.take_in()
            self._take_answer()
            if not self._is_first:
                self._keep_time()
                self._start()
            self._send()
            self._listen()
            self._wait()
        self._commands.leave()
        self._reporting.close()
        self._listening.close()
        return self._outcome()

    def _note_signal(self, number: int, _: object) -> None:
        self._signalled = number

    def _is_finished(self) -> bool:
        if self._failure or self._has_left:
            return True
        is_told = self._is_first or not (self._commands.live or self._outbox.has_waiting or self._message)
        return bool(self._signalled) and is_told

    def _outcome(self) -> int:
        if self._failure:
            sys.stderr.write(f"jobmon worker: {self._failure}\n")
            return 1
        if not self._signalled:
            return 0
        return guarding.EXIT_NOTIFIED if self._must_guard else 1

    # -- commands ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._signalled or not self._work.waiting:
            return
        if self._has_time():
            self._running.start()
        else:
            self._leave()

    def _has_time(self) -> bool:
        """Return whether to start another task: always until one has ended, then if enough time is left in the job."""
        if self._ends_at is None or not self._running.ended_count:
            return True
        needed = self._runtime if self._runtime is not None else max(RESERVE_SECONDS, 2 * self._work.mean_seconds)
        return self._access.monotonic() + needed <= self._ends_at

    def _leave(self) -> None:
        """Start nothing more, and return the waiting attempts."""
        self._is_leaving = True
        self._running.close()

    def _keep_time(self) -> None:
        """Do what is due: report running commands, return attempts, leave, write reports to disk."""
        now = self._access.monotonic()
        self._running.report_running(now)
        if self._signalled and not self._is_passed_on:
            self._is_passed_on = self._running.is_ended_from_outside = True
            self._work.drop_all()  # the server settles these by the job's outcome: it may have been cancelled
            self._leave()
            self._commands.pass_on(self._signalled)  # once: the cluster terminates this job even if it is leaving
            if self._must_guard:
                self._commands.stop(list(self._commands.live), outcome.KILLED, self._interrupt_timeout)
        if self._work.waiting and now - self._answered_at > self._ahead_expiry:
            self._running.give_back(self._work.drop_all())
        if self._work.waiting or self._commands.live:
            self._busy_at = now
        elif self._is_dry and not self._is_over and now - self._busy_at >= self._idle:
            self._leave()
        is_unheard = len(self._outbox) > 0 and now - self._answered_at > KEEP_SECONDS
        if is_unheard and now >= self._keep_at:
            self._keep_at = now + KEEP_SECONDS
            self._keep_reports()

    @property
    def _has_ended(self) -> bool:
        """Whether no more work will come and no attempts are left."""
        return (self._is_over or self._is_leaving) and not (self._work.waiting or self._commands.live)

    def _wanted(self) -> tuple[int, int]:
        """Return how many tasks to request now, to start at once and to prefetch."""
        if self._is_over or self._is_dry or self._is_leaving:
            return 0, 0
        free, ahead = self._work.wanted()
        return int(free), min(int(ahead), max(0, TASKS_PER_REQUEST_MAX - int(free)))

    def _is_hungry(self) -> bool:
        """Return whether the need for work alone justifies a request."""
        free, ahead = self._wanted()
        return free > 0 or ahead * 2 > min(int(self._work.ahead), TASKS_PER_REQUEST_MAX)

    # -- the server --------------------------------------------------------------------------------------------

    def _take_answer(self) -> None:
        try:
            found = self._reporting.answer()
        except ServerAway as error:
            self._put_off(error)
        else:
            if found is not None:
                self._heed(*found)

    def _send(self) -> None:
        """Send the next request if it is due, or resend one that was not answered."""
        if self._reporting.is_busy or self._failure or self._has_left:
            return
        now = self._access.monotonic()
        if self._message is None and self._is_report_due(now):
            self._message = self._next_message(now)
        if self._message is not None and now >= self._retry_at:
            try:
                self._reporting.send("/worker/take", self._message, REQUEST_TIMEOUT_SECONDS)
            except ServerAway as error:
                self._put_off(error)

    def _is_report_due(self, now: float) -> bool:
        if self._is_first:
            return True
        if self._signalled:
            return self._outbox.has_waiting
        if self._has_more or self._has_ended or self._is_hungry() or now >= self._beat_at:
            return True
        if self._told_problem != self._running.trouble.text:
            return True
        return self._outbox.has_waiting and (not self._work.waiting or now >= self._reported_at + GATHER_SECONDS)

    def _next_message(self, now: float) -> dict[str, Any]:
        """Return the next request. It announces that the job leaves only if it carries all remaining reports."""
        carried = self._outbox.take()
        self._has_more = self._outbox.has_waiting
        is_last = self._has_ended and not self._signalled and not self._outbox.has_waiting
        self._asked = (0, 0) if self._has_ended else self._wanted()
        self._reported_at = now
        self._beat_at = now + (self._heartbeat or REQUEST_TIMEOUT_SECONDS)
        return {
            **self._request,
            "reports": carried,
            "alive": [*self._commands.live, *(launch.identity for launch in self._work.waiting)],
            "pending": {} if self._is_first else self._pending(),
            "capacity": self._asked[0],
            "ahead": self._asked[1],
            "key": self._next_key() if sum(self._asked) else "",
            "leaving": is_last,
        }

    def _pending(self) -> dict[str, str]:
        """Return, if it has changed, why attempts wait for their location; "": they no longer wait."""
        text = self._running.trouble.text
        if text == self._told_problem:
            return {}
        self._told_problem = text
        why = f"cannot be started on {self._host} yet, and is not charged: {text}" if text else ""
        waiting = [launch.identity for launch in self._work.waiting] if text else [*self._commands.live]
        return {str(identity): why for identity in waiting[:PENDING_MAX]}

    def _next_key(self) -> str:
        self._count += 1
        return f"{self._count}:{self._access.random_bytes(8).hex()}"

    def _put_off(self, error: Exception) -> None:
        """Schedule a retry because the server is unreachable, or give up if it has been for too long."""
        now = self._access.monotonic()
        pause = self._pauses.next() * (0.5 + self._access.random_bytes(1)[0] / 512)
        self._retry_at = now + max(pause, settlement.asked_pause(self._reporting.retry_after))
        silence = now - self._answered_at
        if self._is_first and silence > START_TRIED_SECONDS:
            self._failure = f"the server does not respond: {error}"
        elif not self._is_first and not self._commands.live and silence > self._report_tried:
            self._give_up(silence)

    def _give_up(self, silence: float) -> None:
        """Leave once all reports are on disk, because nothing runs and the server is unreachable."""
        self._running.give_back(self._work.drop_all())
        self._has_left = self._keep_reports()
        if not self._has_left and silence > self._unwritten_tried:
            self._failure = "reports are lost: the server does not respond, and nothing can be written"

    def _heed(self, status: int, content: Any) -> None:
        """Process an answer. Reports are forgotten only if the answer settles them."""
        message = self._message
        assert message is not None
        verdict = settlement.judge(status, content, self._identity, is_take_answer)
        if self._is_first and is_last_word(status, content):
            self._failure = content["message"] or f"the server responded with status {status}"
        elif verdict == settlement.SETTLED:
            self._message = None
            self._answered_at = self._access.monotonic()
            self._pauses.reset()
            self._take_in(message, content)
        elif verdict == settlement.KEPT or not message["reports"]:
            self._reporting.close()  # look up the server again before the next try
            self._put_off(ServerAway(f"it responded with status {status}, so reports are kept"))
        else:
            self._message = None
            why = str(content.get("message") or status) if content else str(status)
            is_postponed = verdict in (settlement.DOUBTED, settlement.TOO_LARGE) and len(message["reports"]) == 1
            if not self._settle(verdict, (), why) or is_postponed:
                self._put_off(ServerAway(why))

    def _take_in(self, message: dict[str, Any], content: dict[str, Any]) -> None:
        self._set_up(content)
        self._settle(settlement.SETTLED, content.get("unknown", ()), "it has no such attempt")
        for identity, why in content.get("refused", {}).items():
            self._access.log_error(f"the report of attempt {identity} was rejected: {why}")
        if message["leaving"]:
            self._has_left = True
            return
        self._take(content)
        self._running.kill(content["kill"])

    def _take(self, content: Mapping[str, Any]) -> None:
        """Take the requested tasks; those to start at once come first."""
        job, tasks = content["job"], content["tasks"]
        self._work.cores = self._work.granted = float(self._width)
        asked, here = self._asked, self._running.here
        taken = launches_of(columns_of(job, tasks), self._around(job)) if tasks["task_instance_ids"] else []
        counted = {launch.identity for launch in taken[: asked[0]]}
        self._running.take([launch for launch in taken if launch.identity not in here], counted - here)
        self._is_over = self._is_over or bool(content.get("over"))
        if sum(asked) > len(taken):
            self._is_dry = True

    def _around(self, job: Mapping[str, Any]) -> Surroundings:
        """Return the settings that the tasks of an answer share; a pilot's answers may come from several runs."""
        run_id, directory, umask = job["workflow_run_id"], job["working_directory"], job["umask"]
        workflow_id = job["workflow_id"]
        folder, shell = self._log_folder, self._shell
        return Surroundings(workflow_id, run_id, directory, umask, folder, shell, float("inf"), False, self._identity)

    def _settle(self, verdict: str, unknown: Iterable[int], why: str) -> bool:
        """Apply the verdict on a request to its reports; return False if one should be set aside but could not be.

        Unsettled reports are resent.
        """
        settled, aside = self._running.settle(verdict, unknown)
        self._forget_kept(settled)
        verdict = settlement.UNKNOWN if verdict == settlement.SETTLED else verdict
        kept = [report for report in aside if not self._set_aside(report, verdict, why)]
        for report in kept:
            self._outbox.add(report)
        self._has_more = self._outbox.has_waiting
        return not kept

    def _set_aside(self, report: dict[str, Any], verdict: str, why: str) -> bool:
        """Set aside on disk a report that the server does not accept; return whether that succeeded."""
        assert self._undelivered is not None
        identity = report["task_instance_id"]
        if report["status"] == RUNNING:
            return True  # the report of its outcome will follow
        path = self._kept.get(identity) or self._undelivered.keep(report)
        if path is None:
            return False
        self._kept.pop(identity, None)
        return self._undelivered.set_aside(path, verdict, why)

    def _set_up(self, content: dict[str, Any]) -> None:
        job = content["job"]
        self._heartbeat = float(job["heartbeat_interval"])
        self._ahead_expiry = ahead_expiry(self._heartbeat, float(job["report_by_buffer"]))
        if not self._is_first:
            return
        self._is_first = False
        self._identity = str(content.get("server_identity") or "")
        self._log_folder = os.path.join(self._data_folder, "logs", str(job["workflow_id"]))
        devices, self._width = of_job(self._environment, job["requested_resources"], int(job["width"]))
        self._running = Running(
            self._commands,
            self._work,
            self._outbox,
            LocationTrouble(self._location_tried),
            self._access.monotonic,
            self._host,
            self._log_folder,
            self._interrupt_timeout,
            RETURNED,
            {"distributor_id": self._request["distributor_id"]},
            devices=devices,
        )
        self._open_undelivered(content)
        self._beat_at = self._access.monotonic() + self._heartbeat
        runtime = job["requested_resources"].get("runtime")
        self._runtime = float(runtime) if isinstance(runtime, int | float) else None
        self._commands.memory.job_width = int(job["width"])
        if end := self._environment.get("JOBMON_JOB_END_TIME"):
            self._ends_at = self._access.monotonic() + float(end) - self._access.time()
        elif job.get("runtime_seconds") is not None:
            self._ends_at = self._began_at + float(job["runtime_seconds"])

    def _listen(self) -> None:
        """Keep a long poll open at the server, which returns kills and new work at once."""
        try:
            found = self._listening.answer()
        except ServerAway:
            self._listen_at = self._access.monotonic() + LISTEN_PAUSE_SECONDS
            return
        if found is not None:
            self._take_news(*found)
        if self._listening.is_busy and self._is_dry and not self._awaits_work:
            self._listening.close()  # the open request does not ask for work
        if self._is_first or self._signalled or self._has_ended or not (self._commands.live or self._is_dry):
            return
        if self._listening.is_busy or self._access.monotonic() < self._listen_at:
            return
        self._awaits_work = self._is_dry
        message = {
            **self._request,
            "wait_seconds": LONG_POLL_SECONDS,
            "wants_work": self._is_dry,
            "known_to_kill": sorted(self._running.ordered),
        }
        try:
            self._listening.send("/worker/take", message, LONG_POLL_SECONDS + REQUEST_TIMEOUT_SECONDS)
        except ServerAway:
            self._listen_at = self._access.monotonic() + LISTEN_PAUSE_SECONDS

    def _take_news(self, status: int, content: Any) -> None:
        if status == HTTP_OK and settlement.is_from(content, self._identity) and is_held_answer(content):
            self._hear(content)
        else:
            self._listening.close()  # look up the server again before the next try
            pause = max(LISTEN_PAUSE_SECONDS, settlement.asked_pause(self._listening.retry_after))
            self._listen_at = self._access.monotonic() + pause

    def _hear(self, content: dict[str, Any]) -> None:
        self._running.kill(content["kill"])
        if content.get("has_work"):
            self._is_dry = False
        if content.get("over") and not self._is_over:
            self._is_over = True
            self._beat_at = 0.0  # a heartbeat tells whether running attempts are over as well
        elif content.get("over"):
            self._listen_at = self._access.monotonic() + LISTEN_PAUSE_SECONDS  # from now on the server answers at once

    # -- undelivered reports -----------------------------------------------------------------------------------

    def _open_undelivered(self, content: dict[str, Any]) -> None:
        """Open the store of undelivered reports, and queue those that earlier jobs left."""
        workflow_id = int(content["job"]["workflow_id"])
        first = min(content["tasks"]["task_instance_ids"], default=0)
        self._undelivered = Undelivered(
            self._data_folder,
            workflow_id,
            self._identity,
            str(content.get("server_incarnation") or ""),
            self._access.log_error,
            self._access.monotonic,
            os.path.join(self._data_folder, "logs", str(workflow_id), str(first // LOG_SHARD_SIZE)),
        )
        for path, report in self._undelivered.found():
            self._kept[report["task_instance_id"]] = path
            self._outbox.add(report)

    def _keep_reports(self) -> bool:
        """Write unsettled outcomes to disk; return whether all of them are there."""
        is_kept = True
        for report in self._outbox.all:
            identity = report["task_instance_id"]
            if identity in self._kept or report["status"] == RUNNING or self._undelivered is None:
                continue
            path = self._undelivered.keep(report)
            if path is None:
                is_kept = False
            else:
                self._kept[identity] = path
        return is_kept

    def _forget_kept(self, reports: Iterable[dict[str, Any]]) -> None:
        for report in reports if self._kept else ():
            path = None if report["status"] == RUNNING else self._kept.pop(report["task_instance_id"], None)
            if path is not None:
                journal.remove(path)

    # -- waiting -----------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        if self._is_finished():
            return
        self._access.wait((self._reporting, self._listening), self._due() - self._access.monotonic())

    def _due(self) -> float:
        """Return when the next action is due even if no event occurs, monotonic seconds."""
        now = self._access.monotonic()
        due = [now + LONG_POLL_SECONDS, self._due_to_report(now)]
        if not self._is_first:
            due += self._running.due()
        if self._listening.is_busy:
            due.append(self._listening.deadline)
        elif self._listen_at > now:
            due.append(self._listen_at)
        if self._is_dry and not (self._commands.live or self._is_over or self._is_leaving):
            due.append(self._busy_at + self._idle)
        if self._work.waiting:
            due.append(self._answered_at + self._ahead_expiry)
        return min(due)

    def _due_to_report(self, now: float) -> float:
        keep_at = max(self._answered_at + KEEP_SECONDS, self._keep_at)
        if self._reporting.is_busy:
            due = self._reporting.deadline
        elif self._message is not None:
            due = self._retry_at
        elif self._is_report_due(now):
            return now
        else:
            due = min(self._beat_at, self._reported_at + GATHER_SECONDS if self._outbox.has_waiting else self._beat_at)
        return min(due, keep_at) if keep_at > now and self._outbox.has_waiting else due


def main(request: Mapping[str, Any], environment: Mapping[str, str], host: str) -> int:
    """Run a packed job."""
    if not request.get("distributor_id"):
        sys.stderr.write("jobmon worker: the cluster's plug-in does not provide the ID of this job\n")
        return 1
    return Pilot(request, environment, host, JobHost(environment)).work()
