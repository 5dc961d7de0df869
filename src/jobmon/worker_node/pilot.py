"""A job that runs many tasks: it takes them from the server, some at a time, until there are none or its time is over.

It runs `width` commands at once, each with its own attempt, log, usage and time limit. Two requests may be open at the
server: one carries reports, beats, and brings work; the other is held there until there is something to kill, or
work after there was none. Where tasks are short some are taken ahead, and what ended is told with the next request for
work, so that a task costs a share of a request only.

A server that is away changes nothing for what runs. What ended is kept on disk beside the logs until it is told.
What was taken ahead is not started any more after `AHEAD_EXPIRY_SECONDS` of silence, since others may have it by then.
"""

from __future__ import annotations

import os
import signal
import sys

from jobmon.worker_node import spool
from jobmon.worker_node.child import Ending, tail
from jobmon.worker_node.gateway import ServerAway, data_folder
from jobmon.worker_node.run import (
    HTTP_OK,
    HTTP_SERVER_FAULT,
    LOG_TAIL_BYTES_MAX,
    RUNNING,
    iso_time,
)
from jobmon.worker_node.site import Site
from jobmon.worker_node.work import Task, Work

REQUEST_TIMEOUT_SECONDS = 20.0
LONG_POLL_SECONDS = 30.0
PAUSE_SECONDS_FIRST = 0.1
PAUSE_SECONDS_MAX = 4.5
#: So long the server may be away before the first answer, and when nothing but reports is left.
START_TRIED_SECONDS = 3600.0
REPORT_TRIED_SECONDS = 120.0
INTERRUPT_TIMEOUT_SECONDS = 10.0
#: A pilot without work for so long ends.
IDLE_SECONDS = 30.0
AHEAD_EXPIRY_SECONDS = 30.0
#: How long reports gather while there is enough to do.
GATHER_SECONDS = 0.05
#: A command that ends sooner is never reported as running.
RUNNING_DELAY_SECONDS = 0.1
#: Endings that the server has not heard of for so long are put on disk.
SPOOL_SECONDS = 5.0
#: Where a job's end is known but not how long tasks may take, so much time is left to one.
RESERVE_SECONDS = 10.0
KILLED_EXIT_CODE = 137
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Pilot:
    """The job.

    Args:
        request: array_id, batch_number, distributor_id.
        environment: of this process.
        host: name of this host.
        site: where it runs.
    """

    def __init__(self, request: Mapping[str, Any], environment: Mapping[str, str], host: str, site: Site) -> None:
        self._site = site
        self._request = {
            "array_id": request["array_id"],
            "batch_number": request["batch_number"],
            "distributor_id": request["distributor_id"] or "",
            "host": host,
        }
        self._environment = environment
        self._host = host
        self._data_folder = data_folder(environment)
        self._work = Work()
        self._reporting = site.lane()
        self._listening = site.lane()
        now = site.monotonic()
        self._began_at = self._answered_at = self._busy_at = now
        self._message: dict[str, Any] | None = None  # on its way, and sent again until it is answered
        self._asked = (0, 0)
        self._count = 0
        self._retry_at = self._listen_at = self._beat_at = self._reported_at = 0.0
        self._pause = PAUSE_SECONDS_FIRST
        self._is_first = True
        self._awaits_work = False
        self._workflow_id = 0
        self._has_left = False
        self._failure = ""
        self._signalled = 0
        self._ends_at: float | None = None
        self._runtime: float | None = None
        self._has_begun = False
        self._spooled: dict[int, str] = {}
        self._heartbeat = 0.0
        self._interrupt_timeout = float(
            environment.get("JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT", INTERRUPT_TIMEOUT_SECONDS)
        )
        self._report_tried = float(environment.get("JOBMON_WORKER_REPORT_SECONDS", REPORT_TRIED_SECONDS))
        self._idle = float(environment.get("JOBMON_PILOT_IDLE_SECONDS", IDLE_SECONDS))
        self._shell = environment.get("JOBMON__WORKER_NODE__SHELL", "/bin/sh")

    def work(self) -> int:
        """Run tasks until there are none; return the exit code: 0 when all endings are told or on disk."""
        self._site.heed_signals(self._note_signal)
        while not self._is_finished():
            self._reap()
            self._keep_time()
            self._start()
            self._converse()
            self._listen()
            self._wait()
        self._reporting.close()
        self._listening.close()
        return self._outcome()

    def _note_signal(self, number: int, _: object) -> None:
        self._signalled = number

    def _is_finished(self) -> bool:
        if self._failure or self._has_left:
            return True
        is_told = not (self._work.running or self._work.reports or self._message) or self._is_first
        return bool(self._signalled) and is_told

    def _outcome(self) -> int:
        if self._failure:
            sys.stderr.write(f"jobmon worker: {self._failure}\n")
            return 1
        return 1 if self._signalled else 0

    # -- commands ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        work = self._work
        while work.queue and len(work.running) < work.width and not self._signalled:
            if not self._has_time():
                work.is_leaving = True
                work.give_back()
                return
            self._start_one(work.queue.popleft())

    def _has_time(self) -> bool:
        """Whether a task may be begun: the first ones always, later ones if what they may need is left."""
        if self._ends_at is None or not self._has_begun:
            return True
        needed = self._runtime if self._runtime is not None else max(RESERVE_SECONDS, 2 * self._work.mean_seconds)
        return self._site.monotonic() + needed <= self._ends_at

    def _start_one(self, task: Task) -> None:
        job = task.run.job
        task.outputs = task.run.output_files(self._data_folder)
        task.oom_kills = self._site.oom_kills()
        words = task.run.shell_words(self._shell)
        environment = task.run.command_environment(self._environment)
        task.started_at = self._site.monotonic()
        try:
            task.child = self._site.start(words, environment, task.outputs, job["working_directory"], job["umask"])
        except (OSError, ValueError) as error:
            self._end(task, self._unbegun(str(error)))
            return
        if self._runtime is not None:
            task.end_at = task.started_at + self._runtime
        self._work.running[task.identity] = task

    def _reap(self) -> None:
        work = self._work
        for task in list(work.running.values()):
            assert task.child is not None
            ending = task.child.reaped()
            if ending is None:
                continue
            del work.running[task.identity]
            if task.run.is_killed or task.run.is_timed_out:
                task.child.signal(signal.SIGKILL)  # what its leader left
            work.learn(ending.ended_at - ending.started_at)
            was_told = task.run.is_killed or task.run.is_timed_out
            if self._signalled and ending.exit_code != 0 and not was_told:
                continue  # it ended with this job; why the job ended is told by the cluster
            task.run.is_starved = self._was_starved(task, ending)
            self._end(task, ending)

    def _was_starved(self, task: Task, ending: Ending) -> bool:
        """Whether the kernel killed it for want of memory. Of several at once only what was killed itself counts."""
        if ending.exit_code == 0 or task.run.is_killed or self._site.oom_kills() <= task.oom_kills:
            return False
        return self._work.width == 1 or ending.signal == signal.SIGKILL or ending.exit_code == KILLED_EXIT_CODE

    def _end(self, task: Task, ending: Ending) -> None:
        self._has_begun = True
        task.run.request["distributor_id"] = self._request["distributor_id"]
        message = task.run.ended(ending, tail(task.outputs, LOG_TAIL_BYTES_MAX), self._host)
        self._work.reports += message["reports"]

    def _keep_time(self) -> None:
        """Do what is due: kill, report what runs, expire, leave, put on disk."""
        now = self._site.monotonic()
        work = self._work
        for task in work.running.values():
            self._keep_to_time(task, now)
        if self._signalled:
            self._pass_on_signal()
        if work.queue and now - self._answered_at > AHEAD_EXPIRY_SECONDS:
            work.give_back()
        if work.queue or work.running:
            self._busy_at = now
        elif work.is_dry and not work.is_over and now - self._busy_at >= self._idle:
            work.is_leaving = True
        if work.reports and now - self._answered_at > SPOOL_SECONDS:
            self._spool()

    def _keep_to_time(self, task: Task, now: float) -> None:
        assert task.child is not None
        if task.kill_at is not None and now >= task.kill_at:
            task.child.signal(signal.SIGKILL)
            task.kill_at, task.end_at = None, None
        elif task.end_at is not None and now >= task.end_at:
            task.run.is_timed_out = not task.run.is_killed
            self._interrupt(task, now)
        if not task.told_running and now >= task.started_at + RUNNING_DELAY_SECONDS:
            task.told_running = True
            self._work.reports.append(self._running_report(task))

    def _running_report(self, task: Task) -> dict[str, Any]:
        assert task.child is not None
        return {
            "task_instance_id": task.identity,
            "status": RUNNING,
            "distributor_id": self._request["distributor_id"],
            "host": self._host,
            "pid": task.child.pid,
            "started_at": iso_time(task.child.started_at),
            "stdout": task.outputs[0],
            "stderr": task.outputs[1],
        }

    def _interrupt(self, task: Task, now: float) -> None:
        assert task.child is not None
        task.child.signal(signal.SIGINT)
        task.kill_at, task.end_at = now + self._interrupt_timeout, None

    def _pass_on_signal(self) -> None:
        """This job is ended by its cluster: so is what it runs."""
        work = self._work
        if not work.is_leaving:
            work.is_leaving = True
            work.give_back()
            for task in work.running.values():
                assert task.child is not None
                task.child.signal(self._signalled)

    def _kill(self, identities: list[int]) -> None:
        work = self._work
        wanted = set(identities)
        now = self._site.monotonic()
        for identity in wanted.intersection(work.running):
            task = work.running[identity]
            if not task.run.is_killed:
                task.run.is_killed = True
                self._interrupt(task, now)
        for task in [task for task in work.queue if task.identity in wanted]:
            work.queue.remove(task)
            task.run.is_killed = True
            self._end(task, self._unbegun("it was killed before it was started"))

    def _unbegun(self, why: str) -> Ending:
        ending = Ending(0, self._site.time(), why)
        ending.ended_at = ending.started_at
        return ending

    # -- the server --------------------------------------------------------------------------------------------

    def _converse(self) -> None:
        """Take the answer to the report under way; send the next if there is cause."""
        try:
            found = self._reporting.answer()
        except ServerAway as error:
            self._put_off(error)
            return
        if found is not None:
            self._heed(*found)
        if self._reporting.is_busy or self._failure or self._has_left:
            return
        now = self._site.monotonic()
        if self._message is None and self._is_report_due(now):
            self._message = self._next_message(now)
        if self._message is not None and now >= self._retry_at:
            self._send()

    def _is_report_due(self, now: float) -> bool:
        work = self._work
        if self._signalled and not self._is_first:
            return bool(work.reports)
        if self._is_first or work.has_ended or work.is_hungry() or now >= self._beat_at:
            return True
        return bool(work.reports) and (len(work.queue) == 0 or now >= self._reported_at + GATHER_SECONDS)

    def _next_message(self, now: float) -> dict[str, Any]:
        work = self._work
        reports, work.reports = work.reports, []
        is_last = work.has_ended and not self._signalled
        self._asked = (0, 0) if is_last else work.wanted()
        self._reported_at = now
        self._beat_at = now + (self._heartbeat or REQUEST_TIMEOUT_SECONDS)
        return {
            **self._request,
            "reports": reports,
            "alive": work.identities,
            "capacity": self._asked[0],
            "ahead": self._asked[1],
            "key": self._next_key() if sum(self._asked) else "",
            "leaving": is_last,
        }

    def _next_key(self) -> str:
        self._count += 1
        return f"{self._count}:{self._site.random_bytes(8).hex()}"

    def _send(self) -> None:
        assert self._message is not None
        try:
            self._reporting.send("/worker/take", self._message, REQUEST_TIMEOUT_SECONDS)
        except ServerAway as error:
            self._put_off(error)

    def _put_off(self, error: Exception) -> None:
        """The server is away: try again a little later, as long as there is a point in it."""
        now = self._site.monotonic()
        self._retry_at = now + self._pause * (0.5 + self._site.random_bytes(1)[0] / 512)
        self._pause = min(self._pause * 2, PAUSE_SECONDS_MAX)
        silence = now - self._answered_at
        if self._is_first and silence > START_TRIED_SECONDS:
            self._failure = f"the server does not answer: {error}"
        elif not self._is_first and not self._work.running and silence > self._report_tried:
            self._give_up()

    def _give_up(self) -> None:
        """Nothing runs and nobody listens: what is to be said lies on disk."""
        self._work.give_back()
        if not self._spool():
            self._failure = "reports are lost: the server does not answer, and nothing can be written"
        self._has_left = True

    def _heed(self, status: int, content: dict[str, Any]) -> None:
        if status >= HTTP_SERVER_FAULT:
            self._put_off(ServerAway(f"it answered {status}"))
            return
        message, self._message = self._message, None
        assert message is not None
        self._answered_at = self._site.monotonic()
        self._pause = PAUSE_SECONDS_FIRST
        if status != HTTP_OK:
            self._refused(status, content)
            return
        self._forget_spooled(message["reports"])
        if message["leaving"]:
            self._has_left = True
            return
        self._set_up(content["job"])
        self._work.take(content, self._asked)
        self._kill(content["kill"])

    def _refused(self, status: int, content: dict[str, Any]) -> None:
        why = str(content.get("message") or f"the server answered {status}")
        if self._is_first or not self._work.running:
            self._failure = why
        self._work.is_over = True
        self._work.give_back()

    def _set_up(self, job: dict[str, Any]) -> None:
        self._heartbeat = float(job["heartbeat_interval"])
        if not self._is_first:
            return
        self._is_first = False
        self._workflow_id = int(job["workflow_id"])
        self._beat_at = self._site.monotonic() + self._heartbeat
        runtime = job["requested_resources"].get("runtime")
        self._runtime = float(runtime) if isinstance(runtime, int | float) else None
        if end := self._environment.get("JOBMON_JOB_END_TIME"):
            self._ends_at = self._site.monotonic() + float(end) - self._site.time()
        elif job["runtime_seconds"] is not None:
            self._ends_at = self._began_at + float(job["runtime_seconds"])

    def _listen(self) -> None:
        """Keep a request open at the server, so that what is to be killed, and new work, is heard of at once."""
        work = self._work
        try:
            found = self._listening.answer()
        except ServerAway:
            self._listen_at = self._site.monotonic() + PAUSE_SECONDS_MAX
            return
        if found is not None and found[0] == HTTP_OK:
            self._hear(found[1])
        elif found is not None:
            self._listen_at = self._site.monotonic() + PAUSE_SECONDS_MAX
        if self._listening.is_busy and work.is_dry and not self._awaits_work:
            self._listening.close()  # the open request asked about what runs only
        is_wanted = not self._is_first and not self._signalled and (work.running or work.is_dry) and not work.has_ended
        if not is_wanted or self._listening.is_busy or self._site.monotonic() < self._listen_at:
            return
        self._awaits_work = work.is_dry
        message = {
            **self._request,
            "wait_seconds": LONG_POLL_SECONDS,
            "wants_work": work.is_dry,
            "known_to_kill": [one for one, task in work.running.items() if task.run.is_killed],
        }
        try:
            self._listening.send("/worker/take", message, LONG_POLL_SECONDS + REQUEST_TIMEOUT_SECONDS)
        except ServerAway:
            self._listen_at = self._site.monotonic() + PAUSE_SECONDS_MAX

    def _hear(self, content: dict[str, Any]) -> None:
        work = self._work
        self._kill(content["kill"])
        if content["has_work"]:
            work.is_dry = False
        if content["over"] and not work.is_over:
            work.is_over = True
            self._beat_at = 0.0  # is it over for what runs here, too?
        elif content["over"]:
            self._listen_at = self._site.monotonic() + PAUSE_SECONDS_MAX  # it is answered at once from here on

    # -- what could not be delivered ---------------------------------------------------------------------------

    def _folder(self, workflow_id: int, identity: int) -> str:
        return os.path.join(self._data_folder, "logs", str(workflow_id), str(identity // 1000))

    def _spool(self) -> bool:
        """Put on disk what the server has not heard; return whether all of it is there."""
        unheard = [*(self._message["reports"] if self._message else ()), *self._work.reports]
        is_kept = True
        for report in unheard:
            identity = report["task_instance_id"]
            if identity in self._spooled or report["status"] == RUNNING:
                continue
            folder = self._folder(self._workflow_id, identity)
            path = spool.keep(folder, identity, {"reports": [report], "alive": []})
            if path is None:
                is_kept = False
            else:
                self._spooled[identity] = path
        return is_kept

    def _forget_spooled(self, reports: list[dict[str, Any]]) -> None:
        for report in reports if self._spooled else ():
            path = self._spooled.pop(report["task_instance_id"], None)
            if path is not None:
                spool.remove(path)

    # -- waiting -----------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        if self._is_finished():
            return
        self._site.wait((self._reporting, self._listening), self._due() - self._site.monotonic())

    def _due(self) -> float:
        """Return when there is something to do even if nothing happens."""
        now = self._site.monotonic()
        work = self._work
        if work.queue and len(work.running) < work.width:
            return now
        due = [now + LONG_POLL_SECONDS, self._due_to_report(now)]
        for task in work.running.values():
            due += task.due(RUNNING_DELAY_SECONDS)
        if self._listening.is_busy:
            due.append(self._listening.deadline)
        elif self._listen_at > now:
            due.append(self._listen_at)
        if work.is_dry and not (work.running or work.is_over or work.is_leaving):
            due.append(self._busy_at + self._idle)
        if work.queue:
            due.append(self._answered_at + AHEAD_EXPIRY_SECONDS)
        return min(due)

    def _due_to_report(self, now: float) -> float:
        spool_at = self._answered_at + SPOOL_SECONDS
        if self._reporting.is_busy:
            due = self._reporting.deadline
        elif self._message is not None:
            due = self._retry_at
        elif self._is_report_due(now):
            return now
        else:
            due = min(self._beat_at, self._reported_at + GATHER_SECONDS if self._work.reports else self._beat_at)
        return min(due, spool_at) if spool_at > now and self._work.reports else due


def main(request: Mapping[str, Any], environment: Mapping[str, str], host: str) -> int:
    """Run a packed job."""
    if not request.get("distributor_id"):
        sys.stderr.write("jobmon worker: the cluster's plug-in does not say the id of this job\n")
        return 1
    return Pilot(request, environment, host, Site(environment)).work()
