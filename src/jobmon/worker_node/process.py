"""The worker as a program: `python -I -S <this file> --cluster-name NAME --task-instance-id N`, or for one step of an
array `--array-id N --batch-number N --array-step-id N`. With `--packed yes` it is a job of that batch that takes its
tasks from the server, one after another (`pilot.py`).

A cluster that says its own id and the step in environment variables names them with `--distributor-id-variable` and
`--array-step-variable`. With `--plugin NAME` the plug-in's `ClusterWorkerNode` is asked instead; that imports
Jobmon's core and so needs to be started without `-S`.
"""

from __future__ import annotations

import _signal
import os
import sys
import time
from _socket import gethostname

if __name__ == "__main__":  # started by its path: our package is not on the path yet, and goes to its end
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from jobmon.worker_node import spool
from jobmon.worker_node.child import Child, Ending, tail
from jobmon.worker_node.gateway import Gateway, ServerAway, data_folder
from jobmon.worker_node.oom import OomKills
from jobmon.worker_node.run import HTTP_SERVER_FAULT, LOG_TAIL_BYTES_MAX, Run, iso_time

REQUEST_TIMEOUT_SECONDS = 20.0
BEAT_TIMEOUT_SECONDS = 5.0
PAUSE_SECONDS_FIRST = 0.1
PAUSE_SECONDS_MAX = 4.5
START_TRIED_SECONDS = 600.0
REPORT_TRIED_SECONDS = 120.0
INTERRUPT_TIMEOUT_SECONDS = 10.0
SIGNAL_SECONDS = 0.2
HTTP_UNAUTHORIZED = 401
#: Below the data folder; `jobmon.distributor.spools` reads there, a test compares.
COMPLAINTS_FOLDER = ("logs", "complaints")
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
    """Return the body of the request for the command."""
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


class Machine:
    """Time, and commands that are started: what a simulation has others of.

    Args:
        name: the cluster's id of this job; where many jobs print to one file it says whose complaint it is.
    """

    def __init__(self, name: str = "") -> None:
        self._heading = f"jobmon worker {name}" if name else "jobmon worker"

    def time(self) -> float:
        """Return the time of day, seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Wait for so long, or somewhat less: workers that wait for the same server shall not come all at once."""
        time.sleep(seconds * (0.5 + os.urandom(1)[0] / 512))

    def start(
        self,
        words: list[str],
        environment: Mapping[str, str],
        outputs: tuple[str, str],
        directory: str,
        umask: int,
    ) -> Child:
        """Start a command; raises OSError or ValueError where that cannot be."""
        return Child(words, environment, outputs, directory, umask)

    def heed_signals(self, pass_on: Callable[[int], None]) -> None:
        """Have signals that ask this process to end passed on."""
        for number in (_signal.SIGTERM, _signal.SIGINT):
            _signal.signal(number, lambda received, _: pass_on(received))

    def counter_of_oom_kills(self) -> Callable[[], int]:
        """Return what counts the kills for want of memory around this process."""
        return OomKills().count

    def complain(self, why: str) -> int:
        """Say why this failed, where the cluster keeps what its jobs print; return the exit code."""
        sys.stderr.write(f"{self._heading}: {why}\n")
        return 1


class Worker:
    """Does what `Run` says.

    Args:
        request: body of the start request.
        environment: of this process.
        host: name of this host.
        gateway: the door to the server; by default the one that the environment names.
        machine: where it runs.
    """

    def __init__(
        self,
        request: dict[str, Any],
        environment: Mapping[str, str],
        host: str,
        gateway: Gateway | None = None,
        machine: Machine | None = None,
    ) -> None:
        self._run = Run(request)
        self._environment = environment
        self._host = host
        self._gateway = gateway or Gateway(environment)
        self._machine = machine or Machine()
        #: What the server could not be told, because it could not be spoken to.
        self.complaint = ""
        self._was_signalled = False
        self._start_tried = float(environment.get("JOBMON_WORKER_START_SECONDS", START_TRIED_SECONDS))
        self._report_tried = float(environment.get("JOBMON_WORKER_REPORT_SECONDS", REPORT_TRIED_SECONDS))
        self._interrupt_timeout = float(
            environment.get("JOBMON__WORKER_NODE__COMMAND_INTERRUPT_TIMEOUT", INTERRUPT_TIMEOUT_SECONDS)
        )

    def work(self) -> int:
        """Run the attempt; return the exit code: 0 as soon as the ending is known to the server or on disk."""
        answer = self._post("/worker/start", self._run.request, self._start_tried)
        if answer is None:
            tried = f"tried for {self._start_tried:.0f} s at {self._gateway.where}: {self._gateway.failure}"
            return self._give_up(f"the server cannot be reached from {self._host} ({tried})")
        if answer[0] == HTTP_UNAUTHORIZED:
            where = f"the server at {self._gateway.where} does not let {self._host} in"
            return self._give_up(f"{where}: the token is wrong or has expired")
        refusal = self._run.answered(*answer)
        if refusal is not None:
            return self._machine.complain(refusal)
        outputs = self._run.output_files(data_folder(self._environment))
        folder = os.path.dirname(outputs[1])
        spool.replay(folder, self._deliver)
        ending = self._run_command(outputs)
        if self._is_ended_from_outside(ending):
            return self._machine.complain("the job was ended from outside; why is told by the cluster")
        message = self._run.ended(ending, tail(outputs, LOG_TAIL_BYTES_MAX), self._host)
        if self._post("/worker/report", message, self._report_tried) is None:
            return (
                0 if spool.keep(folder, self._run.identity, message) else self._machine.complain("the report is lost")
            )
        return 0

    def _give_up(self, why: str) -> int:
        self.complaint = why
        return self._machine.complain(why)

    def _run_command(self, outputs: tuple[str, str]) -> Ending:
        job = self._run.job
        words = self._run.shell_words(self._environment.get("JOBMON__WORKER_NODE__SHELL", "/bin/sh"))
        environment = self._run.command_environment(self._environment)
        count_oom_kills = self._machine.counter_of_oom_kills()
        oom_kills = count_oom_kills()
        try:
            child = self._machine.start(words, environment, outputs, job["working_directory"], job["umask"])
        except (OSError, ValueError) as error:
            return Ending(0, self._machine.time(), str(error))
        self._machine.heed_signals(lambda received: self._pass_on(child, received))
        ending = self._watch(child)
        if ending.exit_code != 0 and not self._run.is_killed:
            self._find_out_why(ending, count_oom_kills() > oom_kills)
        return ending

    def _find_out_why(self, ending: Ending, was_starved: bool) -> None:
        self._run.is_starved = was_starved
        if ending.signal == _signal.SIGTERM and not self._was_signalled:
            self._machine.pause(SIGNAL_SECONDS)  # a cluster that ends a job signals its processes one after the other
        if self._was_signalled:
            self._beat()  # by whom? the server knows whether it was to be killed

    def _is_ended_from_outside(self, ending: Ending) -> bool:
        """Whether it failed because its cluster, or somebody there, ended the whole job: the cluster knows why."""
        run = self._run
        return self._was_signalled and ending.exit_code != 0 and not (run.is_killed or run.is_starved)

    def _pass_on(self, child: Child, number: int) -> None:
        self._was_signalled = True
        child.signal(number)

    def _watch(self, child: Child) -> Ending:
        beat_at = self._machine.monotonic() + self._run.heartbeat_interval
        kill_at: float | None = None
        while True:
            due = beat_at if kill_at is None else min(beat_at, kill_at)
            if (ending := child.wait(due - self._machine.monotonic())) is not None:
                if self._run.is_killed:
                    child.signal(_signal.SIGKILL)  # what its leader left
                return ending
            now = self._machine.monotonic()
            if kill_at is not None and now >= kill_at:
                child.signal(_signal.SIGKILL)
                kill_at = None
            if now >= beat_at:
                beat_at = now + self._run.heartbeat_interval
                if self._beat():
                    child.signal(_signal.SIGINT)
                    kill_at = self._machine.monotonic() + self._interrupt_timeout

    def _beat(self) -> bool:
        """Send a heartbeat; return True when the command is to be ended now. A server that is away changes nothing."""
        try:
            _, content = self._gateway.post("/worker/report", self._run.beat(), BEAT_TIMEOUT_SECONDS)
        except ServerAway:
            return False
        return self._run.told(content)

    def _deliver(self, message: Mapping[str, Any]) -> bool:
        try:
            status, _ = self._gateway.post("/worker/report", message, BEAT_TIMEOUT_SECONDS)
        except ServerAway:
            return False
        return status < HTTP_SERVER_FAULT

    def _post(self, route: str, message: Mapping[str, Any], seconds: float) -> tuple[int, dict[str, Any]] | None:
        """Send until there is an answer that is not the server's own fault; None: there was none in this time."""
        deadline = self._machine.monotonic() + seconds
        pause = PAUSE_SECONDS_FIRST
        while True:
            try:
                status, content = self._gateway.post(route, message, REQUEST_TIMEOUT_SECONDS)
                if status < HTTP_SERVER_FAULT:
                    return status, content
            except ServerAway:
                self._gateway.close()
            if self._machine.monotonic() + pause >= deadline:
                return None
            self._machine.pause(pause)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)


def main(argv: Sequence[str]) -> int:
    """Run one attempt."""
    host = gethostname()
    options = options_of(argv)
    request = start_request(options, os.environ, host, os.getpid())
    if "packed" in options:
        from jobmon.worker_node import pilot

        return pilot.main(request, dict(os.environ), host)
    worker = Worker(request, dict(os.environ), host, machine=Machine(request["distributor_id"] or ""))
    code = worker.work()
    if worker.complaint and request["distributor_id"]:
        folder = os.path.join(data_folder(os.environ), *COMPLAINTS_FOLDER, options.get("cluster-name", ""))
        _keep_complaint(folder, request["distributor_id"], worker.complaint)
    return code


def _keep_complaint(folder: str, name: str, why: str) -> None:
    """Let the distributor say it, which looks here when the job has failed, if this folder is its own as well."""
    try:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(why)
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
