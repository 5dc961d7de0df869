"""The worker's entry point: `python -I -S <this file> --cluster-name NAME --task-instance-id N`, or for one step of an
array `--array-id N --batch-number N --array-step-id N`. With `--packed yes` the process is a job of that batch that
takes its tasks from the server (`pilot.py`).

If a cluster sets the job's ID and the array step in environment variables, `--distributor-id-variable` and
`--array-step-variable` name these variables. With `--plugin NAME` the plug-in's `ClusterWorkerNode` supplies both. That
imports Jobmon's core, so the worker must then be started without `-S`.
"""

from __future__ import annotations

import _signal
import os
import select
import sys
import time
from _socket import gethostname

if __name__ == "__main__":  # started by its path: our package is not on the path yet; append it
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from jobmon.agent import journal, locations, outcome, outputs, settlement
from jobmon.agent.addresses import InvalidAddress
from jobmon.agent.attempts import ENDED, Attempt
from jobmon.agent.commands import INTERRUPT_TIMEOUT_SECONDS, Commands
from jobmon.agent.files import latency_wait_seconds
from jobmon.agent.gateway import Gateway, ServerAway, data_folder, own_server_folder
from jobmon.agent.memory import Memory
from jobmon.agent.processes import Bell
from jobmon.agent.reports import iso_time
from jobmon.agent.shells import DEFAULT_SHELL
from jobmon.agent.starting import Launch
from jobmon.worker_node import guarding
from jobmon.worker_node.run import HTTP_UNAUTHORIZED, Run, is_last_word, is_report_answer
from jobmon.worker_node.undelivered import Undelivered

REQUEST_TIMEOUT_SECONDS = 20.0
#: A report not answered by then is written to disk before it is resent, because the node may be shut down.
REPORT_TIMEOUT_SECONDS = 2.0
BEAT_TIMEOUT_SECONDS = 5.0
START_TRIED_SECONDS = 600.0
#: How long an undelivered report is resent if it is on disk, and if it cannot be written anywhere.
REPORT_TRIED_SECONDS = 120.0
UNWRITTEN_TRIED_SECONDS = 3600.0
SIGNAL_SECONDS = 0.2
#: Folder in the data folder that `jobmon.distributor.undelivered` reads; a test compares both.
START_ERRORS_FOLDER = ("logs", "start_errors")
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


def options_of(argv: Sequence[str]) -> dict[str, str]:
    """Read `--name value` pairs (`argparse` imports a lot)."""
    if len(argv) % 2 or not all(name.startswith("--") for name in argv[::2]):
        raise SystemExit(f"Options come as '--name value': {' '.join(argv)}")
    return {name[2:]: value for name, value in zip(argv[::2], argv[1::2], strict=True)}


def start_request(options: Mapping[str, str], environment: Mapping[str, str], host: str, pid: int) -> dict[str, Any]:
    """Return the body of the start request."""
    distributor_id = environment.get(options.get("distributor-id-variable", ""))
    step = options.get("array-step-id") or environment.get(options.get("array-step-variable", ""))
    if "plugin" in options:
        distributor_id, step = _ask_plugin(options["plugin"])
    numbers = {
        "task_instance_id": options.get("task-instance-id"),
        "array_id": options.get("array-id"),
        "batch_number": options.get("batch-number"),
        "array_step_id": step if "array-id" in options else None,
    }
    request: dict[str, Any] = {key: None if value is None else int(value) for key, value in numbers.items()}
    return {
        **request,
        "distributor_id": distributor_id,
        "host": host,
        "pid": pid,
        "started_at": iso_time(time.time()),
    }


def _ask_plugin(name: str) -> tuple[str | None, str | None]:
    from jobmon.core.cluster import load_plugin

    node = load_plugin(name).get_cluster_worker_node_class()()
    step = node.array_step_id
    return node.distributor_id, None if step is None else str(step)


class WorkerHost:
    """The worker's access to its machine: time, commands, signals. Simulations replace it.

    Args:
        name: the cluster's ID of this job, which identifies its messages in a file that several jobs share.
    """

    def __init__(self, name: str = "") -> None:
        self._heading = f"jobmon worker {name}" if name else "jobmon worker"

    def time(self) -> float:
        """Return the time of day, seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the monotonic time, seconds."""
        return time.monotonic()

    def pause(self, seconds: float, at_least: float = 0.0) -> None:
        """Wait for a random time of up to `seconds`, so that waiting workers do not retry at the same time.

        Args:
            seconds: the longest pause, unless `at_least` is longer.
            at_least: the shortest pause.
        """
        time.sleep(max(at_least, seconds * (0.5 + os.urandom(1)[0] / 512)))

    def commands(self, grace_seconds: float) -> Commands:
        """Return the object that runs commands here; the cluster enforces the job's memory limit.

        Args:
            grace_seconds: time between SIGINT and SIGKILL for a command that exceeds its runtime.
        """
        self._bell = Bell()
        commands = Commands(Memory(job_width=1), grace_seconds=grace_seconds)
        commands.searches.latency_wait_seconds = latency_wait_seconds(os.environ)
        return commands

    def wait(self, seconds: float) -> None:
        """Wait until a command exits or a signal arrives, at most `seconds`."""
        select.select([self._bell], [], [], max(0.0, seconds))
        self._bell.silence()

    def heed_signals(self, pass_on: Callable[[int], None]) -> None:
        """Call `pass_on` for each signal that asks this process to exit."""
        for number in guarding.signals(os.environ):
            _signal.signal(number, lambda received, _: pass_on(guarding.passed_on(received)))

    def log_error(self, why: str) -> int:
        """Print why this job failed to the output that the cluster keeps for its jobs; return the exit code."""
        sys.stderr.write(f"{self._heading}: {why}\n")
        return 1


class Worker:
    """Run one attempt by the logic in `Run`.

    Args:
        request: body of the start request.
        environment: environment of this process.
        host: name of this host.
        gateway: the connection to the server; default: to the server named by the environment.
        machine: access to this machine; default: the real one.
    """

    def __init__(
        self,
        request: dict[str, Any],
        environment: Mapping[str, str],
        host: str,
        gateway: Gateway | None = None,
        machine: WorkerHost | None = None,
    ) -> None:
        self._run = Run(request)
        self._environment = environment
        self._host = host
        self._gateway = gateway or Gateway(environment)
        self._access = machine or WorkerHost()
        #: What could not be reported to the server.
        self.start_error = ""
        self._was_signalled = self._was_refused = False
        self._must_guard = guarding.must_guard(environment)
        self._undelivered: Undelivered
        self._start_tried = float(environment.get("JOBMON_WORKER_START_SECONDS", START_TRIED_SECONDS))
        self._report_tried = float(environment.get("JOBMON_WORKER_REPORT_SECONDS", REPORT_TRIED_SECONDS))
        self._unwritten_tried = float(environment.get("JOBMON_WORKER_UNWRITTEN_SECONDS", UNWRITTEN_TRIED_SECONDS))
        self._location_tried = float(environment.get(locations.RETRIED_VARIABLE, locations.RETRIED_SECONDS))
        self._interrupt_timeout = float(
            environment.get("JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT", INTERRUPT_TIMEOUT_SECONDS)
        )

    def work(self) -> int:
        """Run the attempt; return the exit code: 0 if the server has the outcome or it is on disk."""
        refusal = self._start()
        if refusal is not None:
            return self._access.log_error(refusal)
        files = self._run.output_files(data_folder(self._environment))
        self._undelivered = self._open_undelivered(os.path.dirname(files[1]))
        self._replay()
        attempt = self._run_command(files)
        if self._is_ended_from_outside(attempt):
            code = self._access.log_error("the job was terminated from outside; see the cluster for the reason")
            return guarding.EXIT_NOTIFIED if self._must_guard else code
        return self._tell(self._run.ended(attempt, outputs.tail(*files), self._host))

    # -- the command -------------------------------------------------------------------------------------------

    def _start(self) -> str | None:
        """Request the job until our server answers; return why there is nothing to run, or None."""
        deadline = self._access.monotonic() + self._start_tried
        pauses = settlement.Pauses()
        while True:
            try:
                status, content = self._gateway.post("/worker/start", self._run.request, REQUEST_TIMEOUT_SECONDS)
            except InvalidAddress as error:
                self.start_error = str(error)
                return self.start_error
            except ServerAway:
                self._gateway.close()
            else:
                refusal = self._run.answered(status, content)
                if refusal is None or is_last_word(status, content):
                    return refusal
                self._note_refusal(status)
            if not self._pause(pauses, deadline):
                tried = f"tried for {self._start_tried:.0f} s at {self._gateway.where}: {self._gateway.failure}"
                self.start_error = f"the server cannot be reached from {self._host} ({tried})"
                return self.start_error

    def _pause(self, pauses: settlement.Pauses, deadline: float) -> bool:
        """Wait before the next try, the last of which is at the deadline; return False if there is none."""
        pause, asked = pauses.next(), settlement.asked_pause(self._gateway.retry_after)
        left = deadline - self._access.monotonic()
        if left <= 0 or asked >= left:
            return False
        if max(pause, asked) >= left:
            self._access.pause(left, left)
        else:
            self._access.pause(pause, asked)
        return True

    def _note_refusal(self, status: int) -> None:
        """Look up server and token again before the next retry; report once that the token is rejected."""
        self._gateway.close()
        self._gateway.failure = f"it responded with status {status}, which is not a response of Jobmon"
        if status == HTTP_UNAUTHORIZED:
            self._gateway.failure = "it does not admit this host: the token is wrong or has expired"
            if not self._was_refused:
                self._access.log_error(f"the server at {self._gateway.where}: {self._gateway.failure}; waiting")
            self._was_refused = True

    def _run_command(self, files: tuple[str, str]) -> Attempt:
        """Run the command, waiting for its location if necessary; return the attempt with its outcome."""
        run = self._run
        words = run.shell_words(self._environment.get("JOBMON__WORKER_NODE__SHELL", DEFAULT_SHELL))
        commands = self._access.commands(self._interrupt_timeout)
        commands.environment = run.command_environment(self._environment, own_server_folder(self._environment))
        runtime = guarding.runtime(self._environment, run.job["requested_resources"], self._interrupt_timeout)
        place = run.job["working_directory"], run.job["umask"]
        declared = run.declared_files
        launch = Launch(
            run.identity, words, {}, *place, *files, runtime=runtime, inputs=declared[0], outputs=declared[1]
        )
        deadline = self._access.monotonic() + self._location_tried
        pause = locations.PAUSE_SECONDS_FIRST
        while True:
            attempt = commands.start(launch)
            self._watch(commands, attempt, is_waited_for=pause > locations.PAUSE_SECONDS_FIRST)
            if attempt.not_started is None or not self._is_of_location(attempt):
                break
            why = f"cannot be started on {self._host} yet, and is not charged: {attempt.not_started.why}"
            if self._access.monotonic() + pause > deadline or self._beat(why):
                break
            self._access.pause(pause)
            pause = min(pause * 2, locations.PAUSE_SECONDS_MAX)
        commands.leave()
        if attempt.ran and attempt.exit_code != 0 and not run.is_killed:
            self._find_out_why(attempt)
        return attempt

    def _is_of_location(self, attempt: Attempt) -> bool:
        why = attempt.not_started
        logs = os.path.join(data_folder(self._environment), "logs", str(self._run.job["workflow_id"]))
        return why is not None and locations.is_of_location(why.step, why.number, why.path, logs)

    def _find_out_why(self, attempt: Attempt) -> None:
        if attempt.signal == _signal.SIGTERM and not self._was_signalled:
            self._access.pause(SIGNAL_SECONDS)  # a cluster that terminates a job signals its processes one by one
        if self._was_signalled:
            self._beat()  # the answer shows whether the server wanted the attempt killed

    def _is_ended_from_outside(self, attempt: Attempt) -> bool:
        """Return whether the command failed because its cluster, which knows why, terminated the whole job."""
        is_known = self._run.is_killed or attempt.cause == outcome.OUT_OF_MEMORY
        return self._was_signalled and attempt.exit_code != 0 and not is_known

    def _pass_on(self, commands: Commands, number: int) -> None:
        self._was_signalled = True
        commands.pass_on(number)

    def _watch(self, commands: Commands, attempt: Attempt, *, is_waited_for: bool) -> None:
        """Wait until an attempt has ended, sending heartbeats meanwhile.

        Args:
            commands: the object that runs the attempt.
            attempt: the record of the attempt.
            is_waited_for: whether the server was notified that the command cannot be started yet.
        """
        beat_at = self._access.monotonic() + self._run.heartbeat_interval
        is_heeding = False
        while attempt.state != ENDED:
            if attempt.ran and not is_heeding:
                is_heeding = True
                self._access.heed_signals(lambda received: self._pass_on(commands, received))
                if is_waited_for:
                    self._beat("")
            due = commands.next_look()
            self._access.wait((beat_at if due is None else min(beat_at, due)) - self._access.monotonic())
            commands.look()
            if self._was_signalled and self._must_guard:
                commands.stop([attempt.identity], outcome.KILLED, self._interrupt_timeout)
            now = self._access.monotonic()
            if now >= beat_at:
                beat_at = now + self._run.heartbeat_interval
                if self._beat():
                    commands.stop([attempt.identity], outcome.KILLED, self._interrupt_timeout)

    def _beat(self, pending: str | None = None) -> bool:
        """Send a heartbeat; return True if the command must be killed now, and False if the server is unreachable.

        Args:
            pending: why the command does not run yet; "": it is running now; None: omit this information.
        """
        verdict, content = self._ask(self._run.beat(pending), BEAT_TIMEOUT_SECONDS)
        return verdict == settlement.SETTLED and self._run.told(content)

    # -- reports -----------------------------------------------------------------------------------------------

    def _open_undelivered(self, beside_logs: str) -> Undelivered:
        run = self._run
        return Undelivered(
            data_folder(self._environment),
            int(run.job["workflow_id"]),
            run.server_identity,
            str(run.job.get("server_incarnation") or ""),
            self._access.log_error,
            self._access.monotonic,
            beside_logs,
        )

    def _ask(self, message: Mapping[str, Any], timeout: float) -> tuple[str, dict[str, Any]]:
        """Send reports or a heartbeat once; return the verdict on the answer, and its content."""
        try:
            status, content = self._gateway.post("/worker/report", message, timeout)
        except (ServerAway, InvalidAddress):
            self._gateway.close()
            return settlement.KEPT, {}
        verdict = settlement.judge(status, content, self._run.server_identity, is_report_answer)
        if verdict == settlement.KEPT:
            self._gateway.close()  # look up the server again before the next try
        return verdict, content if isinstance(content, dict) else {}

    def _send(self, report: dict[str, Any], timeout: float) -> tuple[str, str]:
        """Send one report, without its log tail if it is too large; return the verdict and the server's message."""
        verdict, content = self._ask({"reports": [report], "alive": []}, timeout)
        if verdict == settlement.TOO_LARGE and report.get("log_tail"):
            verdict, content = self._ask({"reports": [{**report, "log_tail": None}], "alive": []}, timeout)
        identity = report["task_instance_id"]
        if verdict == settlement.SETTLED and identity in content.get("unknown", ()):
            return settlement.UNKNOWN, f"it has no attempt {identity}"
        return verdict, str(content.get("message") or verdict)

    def _replay(self) -> None:
        """Deliver the reports that earlier workers left, until an answer does not settle one."""
        for path, report in self._undelivered.found():
            verdict, why = self._send(report, BEAT_TIMEOUT_SECONDS)
            if verdict in (settlement.SETTLED, settlement.OVER):
                journal.remove(path)
            elif verdict in (settlement.UNKNOWN, settlement.FAULTY):
                self._undelivered.set_aside(path, verdict, why)
            elif verdict == settlement.KEPT:
                return

    def _tell(self, report: dict[str, Any]) -> int:
        """Send the outcome until it is settled or set aside, or the retries time out; return the exit code."""
        began_at = self._access.monotonic()
        pauses = settlement.Pauses()
        path: str | None = None
        while True:
            verdict, why = self._send(report, REPORT_TIMEOUT_SECONDS)
            if verdict in (settlement.SETTLED, settlement.OVER):
                if path is not None:
                    journal.remove(path)
                return 0
            path = path or self._undelivered.keep(report)
            is_refused = path is not None and verdict in (settlement.UNKNOWN, settlement.FAULTY)
            if is_refused and self._undelivered.set_aside(str(path), verdict, why):
                return self._set_aside(verdict, why)
            tried = self._report_tried if path is not None else max(self._report_tried, self._unwritten_tried)
            if not self._pause(pauses, began_at + tried):
                return (
                    0
                    if path is not None
                    else self._access.log_error(
                        "the report is lost: the server cannot be reached, and nothing can be written"
                    )
                )

    def _set_aside(self, verdict: str, why: str) -> int:
        """Return the exit code for a report that was set aside; unless the attempt is unknown, record the reason."""
        if verdict == settlement.UNKNOWN:
            return 0
        self.start_error = f"the server does not accept the report of the command: {why}"
        return 1


def main(argv: Sequence[str]) -> int:
    """Run one attempt."""
    host = gethostname()
    options = options_of(argv)
    request = start_request(options, os.environ, host, os.getpid())
    if "packed" in options:
        from jobmon.worker_node import pilot

        return pilot.main(request, dict(os.environ), host)
    worker = Worker(request, dict(os.environ), host, machine=WorkerHost(request["distributor_id"] or ""))
    code = worker.work()
    if worker.start_error and request["distributor_id"]:
        folder = os.path.join(data_folder(os.environ), *START_ERRORS_FOLDER, options.get("cluster-name", ""))
        _keep_start_error(folder, request["distributor_id"], worker.start_error)
    return code


def _keep_start_error(folder: str, name: str, why: str) -> None:
    """Write why a job failed to a file that the distributor reads after the failure, if it shares this folder."""
    try:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(why)
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
