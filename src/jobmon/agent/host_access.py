"""A host agent's access to its host: time, client, connections to the server, commands, files. Simulations replace it.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time

from jobmon.agent import processes, recovery
from jobmon.agent.command_journal import Journal, unlink
from jobmon.agent.commands import Commands
from jobmon.agent.environment import SECRETS, for_command
from jobmon.agent.files import LATENCY_WAIT_SECONDS
from jobmon.agent.host import descriptors_of
from jobmon.agent.machine import boot_id
from jobmon.agent.memory import Memory
from jobmon.agent.requests import PolledConnection

ACCESS_FILE_BYTES_MAX = 65_536
#: Tolerance for equal start times of processes, seconds.
START_TIME_SLACK_SECONDS = 0.05
SUFFIX = ".journal"
ALIVE = "ALIVE"
TOKEN_VARIABLE = "JOBMON_TOKEN"
_LIFELINE = 0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from jobmon.agent.recovery import Leftovers
    from jobmon.agent.running import Executor


class AgentHost:
    """This process on this host.

    Args:
        setup: the setup sent by the client; see `client.local_agents`.
    """

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._setup = setup
        self._bell = processes.Bell()
        self._marks = processes.Marks()
        self._is_client_gone = False
        self._is_asked_to_end = False
        self._watched = [self._bell.fileno(), _LIFELINE]
        self._client = _open_pid(int(setup["client_pid"]))
        if self._client >= 0:
            self._watched.append(self._client)
        os.set_blocking(_LIFELINE, False)
        own = processes.read(os.getpid())
        self._started = own.started if own is not None else 0
        #: Difference between a start time as given by the client and the kernel's time since boot, seconds.
        self._offset = float(setup["pid_start_time"]) - self._started / _TICKS_PER_SECOND
        self._heed_signals()

    def _heed_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # meant for the client, which decides what to do
        signal.signal(signal.SIGTERM, self._note_signal)

    def _note_signal(self, number: int, _: object) -> None:
        self._is_asked_to_end = True

    # -- time and logging --------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """Return the monotonic time, seconds."""
        return time.monotonic()

    def jitter(self) -> float:
        """Return a random factor from 0.5 to 1, so that agents do not retry at the same time."""
        return 0.5 + os.urandom(1)[0] / 512

    def say(self, text: str) -> None:
        """Write a line to the log."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        sys.stderr.write(f"{stamp} agent {os.getpid()}: {text}\n")
        sys.stderr.flush()

    def say_alive(self) -> None:
        """Notify the client that the server knows this agent; nothing else is ever written to the client."""
        try:
            os.write(1, f"{ALIVE} {json.dumps({'pid': os.getpid()})}\n".encode())
        except OSError:
            self.say("the standard output is closed")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)

    # -- the client and the server -----------------------------------------------------------------------------

    def is_client_gone(self) -> bool:
        """Return whether the client has exited, or this agent was asked to exit (SIGTERM)."""
        return self._is_client_gone or self._is_asked_to_end

    def connection(self) -> PolledConnection:
        """Return a new connection to the server."""
        return PolledConnection(self._setup["server_environment"])

    def use_credential(self, token: str) -> None:
        """Use a token instead of the client's for all further connections; "": keep the client's."""
        if token:
            self._setup["server_environment"][TOKEN_VARIABLE] = token

    def start_server(self, command: Sequence[str]) -> None:
        """Start the embedded server, which outlives this agent and belongs to no attempt."""
        log = str(self._setup["server_log"])
        try:
            os.posix_spawn(
                command[0],
                list(command),
                {key: value for key, value in os.environ.items() if key not in SECRETS},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE),
            )
        except OSError as error:
            self.say(f"the server cannot be started: {error}")

    def _server(self) -> list[int]:
        """Return the PID of the embedded server, if known; it outlives us, even if we started it."""
        try:
            descriptor = os.open(
                str(self._setup["access_file"]), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except OSError:
            return []
        try:
            return [int(json.loads(os.read(descriptor, ACCESS_FILE_BYTES_MAX))["pid"])]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        finally:
            os.close(descriptor)

    # -- commands ----------------------------------------------------------------------------------------------

    def commands(self, journal: Journal, grace_seconds: float) -> Executor:
        """Return the object that runs commands here.

        Args:
            journal: records where cgroups are created.
            grace_seconds: time between SIGINT and SIGKILL for a command that exceeds its runtime.
        """
        memory = Memory(note_folder=journal.note_folder)
        memory.may_use_groups = bool(self._setup["cgroups"])
        commands = Commands(memory, self._marks, grace_seconds, self._server)
        commands.searches.latency_wait_seconds = float(self._setup.get("latency_wait_seconds", LATENCY_WAIT_SECONDS))
        environment = for_command(os.environ)
        environment.pop(processes.DATA_VARIABLE, None)
        commands.set_environment(environment | dict(self._setup["command_environment"]))
        return commands

    def journal(self) -> Journal:
        """Return this agent's journal."""
        return Journal(f"{self._prefix}{os.getpid()}{SUFFIX}", self._marks.root, self._started)

    @property
    def _prefix(self) -> str:
        return str(self._setup["journal_prefix"])

    def end_left(self) -> list[tuple[str, Leftovers]]:
        """Kill the leftovers of the workflow's dead agents on this host; return path and content of their journals."""
        folder, _, name = self._prefix.rpartition("/")
        found = []
        for entry in sorted(os.listdir(folder)):
            if not (entry.startswith(name) and entry.endswith(SUFFIX)):
                continue
            path = f"{folder}/{entry}"
            leftovers = recovery.read_journal(path)
            if not leftovers.is_writer_alive():
                if count := recovery.kill_leftovers(leftovers, self._server()):
                    self.say(f"terminated {count} processes that agent {leftovers.agent_id} left behind")
                found.append((path, leftovers))
        return found

    def remove_journal(self, path: str) -> None:
        """Remove the journal of a dead agent, whose content the server has settled."""
        unlink(path)

    def end_process(self, agent: Mapping[str, Any]) -> bool:
        """Return whether an agent of this host is dead; if it is, kill its leftovers."""
        if agent["boot_id"] == boot_id():
            found = processes.read(int(agent["pid"]))
            if found is not None:
                started = self._offset + found.started / _TICKS_PER_SECOND
                return abs(started - float(agent["pid_start_time"])) >= START_TIME_SLACK_SECONDS
            processes.end_left(int(agent["pid"]), "", (), self._server())
        return True

    # -- waiting -----------------------------------------------------------------------------------------------

    def wait(self, connections: Sequence[PolledConnection], seconds: float) -> None:
        """Wait until a command or the client exits, or a signal or an answer arrives, at most `seconds`."""
        if seconds <= 0:
            seconds = 0.0
        poll = select.poll()
        for descriptor in self._watched:
            poll.register(descriptor, select.POLLIN)
        for descriptor, events in descriptors_of(connections):
            poll.register(descriptor, events)
        ready = poll.poll(seconds * 1000 + 1 if seconds else 0)
        self._bell.silence()
        self._look_at_client(descriptor for descriptor, _ in ready)

    def _look_at_client(self, ready: Iterable[int]) -> None:
        for descriptor in ready:
            if descriptor == self._client or (descriptor == _LIFELINE and not _read_lifeline()):
                self._is_client_gone = True
                self._watched.remove(descriptor)


def _read_lifeline() -> bool:
    """Return whether the other end of the lifeline is still open."""
    try:
        return bool(os.read(_LIFELINE, 4096))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _open_pid(pid: int) -> int:
    """Return a descriptor that becomes readable when a process exits; -1: not supported, or no such process."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1
