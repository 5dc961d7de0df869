"""`python -m jobmon.distributor.direct`: a host agent for a direct cluster, whose plug-in runs the commands.

Everything between taking work and reporting outcomes is that of other agents (`jobmon.agent.host`). Only the commands
are not started by the agent itself, but handed to the plug-in, which starts, limits and terminates them. The client
sends the setup as it does to other agents; `cluster_info` in it describes the cluster.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent import outcome, reports
from jobmon.agent.attempts import AHEAD, ENDED, Attempt
from jobmon.agent.environment import for_command
from jobmon.agent.host import EXIT_CANNOT_WORK, HostAgent
from jobmon.agent.host_access import AgentHost
from jobmon.agent.locations import COMMAND, LOST
from jobmon.agent.main import read_setup
from jobmon.agent.starting import Launch as AgentLaunch
from jobmon.agent.starting import NotStarted
from jobmon.core.cluster import load_plugin
from jobmon.core.cluster_protocol import DirectClusterDistributor, Launch
from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.core.exceptions import ClusterUnavailable, ClusterUnusable, ConfigError, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobmon.agent.command_journal import Journal
    from jobmon.agent.recovery import Leftovers
    from jobmon.agent.requests import PolledConnection
    from jobmon.core.cluster_protocol import Exit

#: Polling interval of a plug-in that provides no descriptor to wait for.
ASK_INTERVAL_SECONDS: Final = 0.05

logger = logging.getLogger(__name__)


class DirectAttempt(Attempt):
    """An attempt whose processes only the plug-in knows."""

    __slots__ = ("distributor_id",)

    def __init__(self, launch: AgentLaunch) -> None:
        super().__init__(launch)
        self.distributor_id = str(launch.identity)

    @property
    def ran(self) -> bool:
        """Whether its command was started."""
        return self.state != AHEAD and self.not_started is None

    def end(self, ending: Exit) -> None:
        """Record the outcome that the plug-in reports."""
        if ending.lost is not None:
            self.fail(NotStarted(ending.lost, LOST), ending.ended_at)
        elif ending.not_started is not None:
            self.fail(NotStarted(ending.not_started), ending.ended_at)
        else:
            self.state, self.stop_at = ENDED, None
            self.exit_code, self.signal, self.cause = ending.exit_code, ending.signal, _cause_of(ending)
            self.started_at, self.ended_at = ending.started_at or self.started_at, ending.ended_at
            self.seconds = max(0.0, self.ended_at - self.started_at)
            self.peak_bytes, self.cpu_seconds = ending.max_rss_bytes or 0, ending.cpu_seconds
            if ending.memory_limit_bytes is not None:
                self.launch.memory = ending.memory_limit_bytes / outcome.GIB
            self.read_bytes, self.written_bytes = ending.read_bytes, ending.written_bytes


def _cause_of(ending: Exit) -> str | None:
    """Return why a command was terminated; None if it exited by itself."""
    if ending.memory_limit_bytes is not None:
        return outcome.OUT_OF_MEMORY
    if not ending.killed:
        return None
    return outcome.OUT_OF_TIME if ending.timed_out else outcome.KILLED


class DirectCommands:
    """The commands of a direct cluster, for `jobmon.agent.running` as those of `jobmon.agent.commands`.

    Args:
        adapter: the cluster's plug-in, started.
    """

    def __init__(self, adapter: DirectClusterDistributor) -> None:
        self.live: dict[int, Attempt] = {}
        self._adapter = adapter
        self._tells_starts = adapter.collect_starts() is not None
        self._stopped: set[int] = set()
        self._folders: set[str] = set()  # those of output files, known to exist
        self._started: list[Attempt] = []
        self._ended: list[Attempt] = []

    def start(self, launch: AgentLaunch) -> None:
        """Hand a command to the plug-in."""
        attempt = self.live[launch.identity] = DirectAttempt(launch)
        self._make_folders({launch.stdout, launch.stderr or launch.stdout})
        try:
            ids = self._adapter.spawn([launch_of(launch)])
        except Exception as error:  # a bug in a plug-in fails the attempt, not the agent
            logger.exception("The plug-in of cluster %s failed.", self._adapter.cluster_name)
            number = errno.EAGAIN if isinstance(error, ClusterUnavailable) else getattr(error, "errno", None)
            attempt.fail(NotStarted(f"{type(error).__name__}: {error}", COMMAND, number), time.time())
            self._end(attempt)
            return
        attempt.distributor_id = ids.get(launch.identity, attempt.distributor_id)
        if not self._tells_starts:
            self._note_start(attempt, time.time())

    def _make_folders(self, paths: Iterable[str]) -> None:
        """Create the folders of output files. If that fails, the plug-in reports the error."""
        for folder in {os.path.dirname(path) for path in paths} - self._folders:
            with contextlib.suppress(OSError):
                os.makedirs(folder, exist_ok=True)
                self._folders.add(folder)

    def _note_start(self, attempt: Attempt, at: float) -> None:
        attempt.start(0, time.monotonic(), at, 0.0)
        attempt.stop_at = None  # the plug-in enforces the limit
        self._started.append(attempt)

    def stop(self, identities: Iterable[int], cause: str, grace_seconds: float) -> None:
        """Ask the plug-in to terminate attempts; it decides how long they are given."""
        stopped = [one for one in identities if one in self.live]
        self._stopped.update(stopped)
        self._terminate(stopped)

    def _terminate(self, identities: Iterable[int]) -> None:
        if ids := [_direct(self.live[one]).distributor_id for one in identities]:
            self._adapter.terminate_task_instances(ids)

    def look(self) -> None:
        """Process starts and exits; reconnect to a cluster whose connection was lost."""
        if not self._adapter.is_connected():
            self._adapter.start()
            self._terminate(self._stopped)  # the request may have been lost with the connection
        endings = self._adapter.collect_exits()
        for identity, at in (self._adapter.collect_starts() or {}).items():
            attempt = self.live.get(identity)
            if attempt is not None and attempt.state == AHEAD:
                self._note_start(attempt, at)
        for ending in endings:
            if (attempt := self.live.get(ending.task_instance_id)) is not None:
                _direct(attempt).end(ending)
                self._end(attempt)

    def _end(self, attempt: Attempt) -> None:
        del self.live[attempt.identity]
        self._stopped.discard(attempt.identity)
        self._ended.append(attempt)

    def next_look(self) -> float | None:
        """Return when `look` is due even if the plug-in's descriptor is not readable, monotonic seconds."""
        return time.monotonic() + ASK_INTERVAL_SECONDS if self.live and self._adapter.fileno() < 0 else None

    def take_started(self) -> list[Attempt]:
        """Return the attempts whose commands have started since the last call."""
        started, self._started = self._started, []
        return started

    def take_ended(self) -> list[Attempt]:
        """Return the attempts that have ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def leave(self) -> None:
        """Disconnect from the cluster."""
        self._adapter.stop()


def _direct(attempt: Attempt) -> DirectAttempt:
    assert isinstance(attempt, DirectAttempt)
    return attempt


def launch_of(launch: AgentLaunch) -> Launch:
    """Return a command as plug-ins receive it."""
    *shell, command = launch.words
    return Launch(
        task_instance_id=launch.identity,
        name=launch.environment["JOBMON_TASK_NAME"],
        command=command,
        shell=tuple(shell),
        env=launch.environment,
        working_directory=launch.directory,
        umask=launch.umask,
        stdout=launch.stdout,
        stderr=launch.stderr or launch.stdout,
        runtime_seconds=launch.runtime,
        requested_resources=launch.requested,
    )


class DirectHost(AgentHost):
    """An agent's access to this host and to a direct cluster.

    Args:
        setup: the setup sent by the client.
        adapter: the cluster's plug-in, started.
    """

    def __init__(self, setup: Mapping[str, Any], adapter: DirectClusterDistributor) -> None:
        super().__init__(setup)
        self._adapter = adapter
        self._descriptor = -1

    def commands(self, journal: Journal, grace_seconds: float) -> DirectCommands:
        """Return the object that runs commands on the cluster."""
        return DirectCommands(self._adapter)

    def wait(self, connections: Sequence[PolledConnection], seconds: float) -> None:
        """Wait as other agents do, or until the plug-in has data; its descriptor changes when it reconnects."""
        descriptor = self._adapter.fileno()
        if descriptor != self._descriptor:
            self._watched = [one for one in self._watched if one != self._descriptor]
            self._watched += [descriptor] if descriptor >= 0 else []
            self._descriptor = descriptor
        super().wait(connections, seconds)

    def end_left(self) -> list[tuple[str, Leftovers]]:
        """Return the journals of dead agents, with the outcomes that the plug-in knows of their commands."""
        found = super().end_left()
        left = {identity: leftovers for _, leftovers in found for identity in leftovers.tasks}
        for ending in self._adapter.collect_exits():
            identity = ending.task_instance_id
            if identity in left:
                left[identity].ended[identity] = [identity, self._report_of(ending)]
        for _, leftovers in found:
            leftovers.tasks.clear()  # commands that are not started here cannot be to blame for the end of an agent
        return found

    def _report_of(self, ending: Exit) -> dict[str, Any]:
        attempt = DirectAttempt(AgentLaunch(ending.task_instance_id, [], {}, "", 0, ""))
        attempt.start(0, 0.0, ending.started_at, 0.0)
        attempt.end(ending)
        return reports.of_end(attempt, b"", str(self._setup["host"]))


class DirectAgent(HostAgent):
    """A host agent for a direct cluster.

    Commands may outlive the agent that handed them to the plug-in. Each heartbeat names all that the plug-in has, and
    the server answers which of them it has closed. These are terminated before anything else is started, because their
    tasks may be retried.

    Args:
        setup: the setup sent by the client.
        access: the agent's access to this host and the server.
        adapter: the cluster's plug-in, started.
    """

    def __init__(self, setup: Mapping[str, Any], access: DirectHost, adapter: DirectClusterDistributor) -> None:
        super().__init__(setup, access)
        self._adapter = adapter
        self._must_take_stock = True
        self._foreign: Mapping[int, str] = {}  # living commands of other agents, as of the last heartbeat
        self._closed: set[int] = set()  # those that are being terminated

    def _succeed(self, left: Sequence[tuple[str, Leftovers]], predecessors: Iterable[Mapping[str, Any]]) -> None:
        super()._succeed(left, predecessors)
        self._adapter.acknowledge([identity for _, leftovers in left for identity in leftovers.ended])

    def _start(self) -> None:
        if self._closed:
            gone = self._closed - self._adapter.adopt().keys()
            self._adapter.acknowledge(sorted(gone))
            self._closed -= gone
        if not self._closed:
            super()._start()

    def _further_due(self, now: float) -> Iterable[float]:
        return (*super()._further_due(now), *((now + ASK_INTERVAL_SECONDS,) if self._closed else ()))

    def _next_message(self, now: float) -> dict[str, Any]:
        message = super()._next_message(now)
        if "running" in message:
            own = {*message["running"], *message["unstarted"]}
            self._foreign = {one: where for one, where in self._adapter.adopt().items() if one not in own}
            message["running"] += self._foreign
        return message

    def _hear(self, message: Mapping[str, Any], content: dict[str, Any]) -> None:
        closed = {one for one in content["kill"] if one in self._foreign and one not in self._running.here}
        if new := closed - self._closed:
            self._say("closed", f"terminating {len(new)} commands that an earlier agent left on the cluster")
            self._adapter.terminate_task_instances([self._foreign[one] for one in sorted(new)])
            self._closed |= new
        super()._hear(message, {**content, "kill": [one for one in content["kill"] if one not in closed]})

    def _settle(self, verdict: str, unknown: Iterable[int], why: str) -> bool:
        before = {report["task_instance_id"] for report in self._outbox.all}
        is_settled = super()._settle(verdict, unknown, why)
        gone = before - {report["task_instance_id"] for report in self._outbox.all} - self._running.commands.live.keys()
        if gone:
            self._adapter.acknowledge(sorted(gone))
        return is_settled


def main() -> int:
    """Run the agent; return its exit code."""
    setup: dict[str, Any] | None = read_setup()
    if setup is None:
        return 0
    os.umask(0o077)  # commands run with the umask of the script
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        adapter = _adapter_of(setup)
        setup |= {"pid": os.getpid(), "cores": adapter.slots()}
        memory = adapter.memory_gib()
        setup["memory_gib"] = float("inf") if memory is None else memory
        return DirectAgent(setup, DirectHost(setup, adapter), adapter).run()
    except (ClusterUnusable, ConfigError, PluginError) as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return EXIT_CANNOT_WORK


def _adapter_of(setup: Mapping[str, Any]) -> DirectClusterDistributor:
    """Return the plug-in of the cluster, started, with the environment that its commands inherit."""
    info, config = setup["cluster_info"], JobmonConfig()
    config.check()
    kind: type[DirectClusterDistributor] = load_plugin(info["plugin"]).get_cluster_distributor_class()
    environment = for_command(os.environ) | setup["command_environment"]
    if kind.is_remote:
        from jobmon.core.requester import Requester
        from jobmon.distributor.process import remote_environment

        environment |= remote_environment(Requester.from_defaults(config), config, int(setup["workflow_run_id"]))
    os.environ.clear()
    os.environ.update(environment)
    adapter = kind(
        info["name"],
        workflow_id=int(setup["workflow_id"]),
        data_folder=data_directory(),
        config=config,
        connection=info["connection"],
    )
    adapter.start()
    return adapter


if __name__ == "__main__":
    sys.exit(main())
