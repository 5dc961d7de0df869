"""The host agent: claims attempts from the server, runs them on this host, and reports them.

A request with reports is answered at once, with work for the cores that became free. The server holds the poll until
there is work, an attempt to kill, or a new grant of cores. `program.py` contains the loop.

When the client has exited or its run has ended, the agent *drains*: it returns attempts that have not started, lets
running commands finish, and exits.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

from jobmon.agent import outcome, reports, settlement, suspects
from jobmon.agent.command_journal import JOURNAL_BYTES_MAX
from jobmon.agent.devices import Devices
from jobmon.agent.launches import Surroundings, launches_of
from jobmon.agent.outbox import Outbox
from jobmon.agent.program import REQUEST_TIMEOUT_SECONDS, Program
from jobmon.agent.running import Running
from jobmon.agent.servers import ServerAway
from jobmon.agent.suspects import Suspects
from jobmon.agent.trouble import LocationTrouble
from jobmon.agent.undelivered import Undelivered
from jobmon.agent.work import FRACTION, Work, ahead_expiry

#: How long an agent whose client has exited tries to register.
ABANDONED_SECONDS = 30.0
#: How long an agent that only has reports left tries to reach the server; its journal stays for the next agent.
UNHEARD_SECONDS_MAX = 600.0
#: How long an agent with nothing left to report tries to tell the server that it exits.
FAREWELL_SECONDS_MAX = 5.0
#: Interval between two attempts to start the embedded server.
SERVER_START_SECONDS = 5.0
#: The exit code of an agent that would fail again if restarted; its last line on stderr gives the reason.
EXIT_CANNOT_WORK = 4
RETURNED = "It was prefetched by this machine but never started."
HTTP_OK = 200
HTTP_CLIENT_FAULT = 400
HTTP_FORBIDDEN = 403
HTTP_NOT_FOUND = 404
HTTP_SERVER_FAULT = 500
STALE_RUN = "StaleRun"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from jobmon.agent.host_access import AgentHost
    from jobmon.agent.recovery import Leftovers
    from jobmon.agent.requests import PolledConnection


def is_sync_answer(content: Mapping[str, Any]) -> bool:
    """Return whether decoded content is an answer to a sync request (`AgentSyncResponse`)."""
    return isinstance(content.get("kill"), list) and isinstance(content.get("over"), bool)


class HostAgent(Program):
    """One host agent.

    Args:
        setup: the setup sent by the client; see `client.local_agents`.
        access: the agent's access to this host and the server.
    """

    _access: AgentHost

    def __init__(self, setup: Mapping[str, Any], access: AgentHost) -> None:
        cores = float(setup.get("cores", 0.0))
        self._pool = str(setup.get("pool", ""))
        super().__init__(access, Work(cores, float(setup.get("memory_gib", 0.0)), 0.0 if self._pool else cores))
        self._setup = setup
        self._suspects = Suspects()
        self._trouble = LocationTrouble(float(setup["patience_seconds"]))
        self._said = settlement.Said()
        self._key = 0
        self._asked = 0.0  # cores that the open poll requests
        self._version = 0
        self._told_slots: dict[str, Any] | None = None
        self._told_problem: str = ""
        self._server_at = 0.0
        self._must_sync = True
        self._must_take_stock = False
        self._is_draining = False

    # -- life cycle --------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until nothing is left to do; return the exit code."""
        left = self._access.end_left()
        content = self._register()
        if content is None:
            return 0
        if "agent_id" not in content:
            self._access.say(str(content.get("message")))
            return 0 if content.get("kind") == STALE_RUN else EXIT_CANNOT_WORK
        self._begin(content)
        self._is_begun = True
        self._succeed(left, content["predecessors"])
        self._running.suspects = self._suspects
        if self._suspects.tasks:
            self._journal.note_suspects(self._suspects.tasks)
        self._access.say_alive()
        self._loop()
        if self._has_left or self._has_nothing_to_tell:
            self._journal.remove()
        return 0

    def settle(self) -> int:
        """Only report on behalf of dead agents, without claiming work; return the exit code."""
        left = self._access.end_left()
        self._open_undelivered(int(self._setup["workflow_id"]), "")
        self._access.say_alive()
        self._succeed(left, self._setup["dead_agents"])
        return 0

    def _register(self) -> dict[str, Any] | None:
        """Register with the server and return its answer; None: it was not reached, and the client has exited."""
        message = {
            name: self._setup[name]
            for name in ("workflow_run_id", "cluster", "host", "boot_id", "pid", "pid_start_time", "key")
        }
        abandoned_at = None
        while True:
            try:
                status, content = self._ask("/agents", message)
                if isinstance(content, dict) and (
                    status == HTTP_OK
                    or (HTTP_CLIENT_FAULT <= status < HTTP_SERVER_FAULT and settlement.is_problem(content))
                ):
                    return content
                self._say("registration", f"the server responded to the registration with status {status}; retrying")
            except ServerAway as error:
                self._say("registration", f"the server cannot be reached to register: {error}; retrying")
                self._start_server()
            now = self._access.monotonic()
            if self._access.is_client_gone():
                abandoned_at = abandoned_at or now + ABANDONED_SECONDS
                if now >= abandoned_at:
                    return None
            self._access.wait((), self._pauses.next())

    def _ask(self, route: str, message: Mapping[str, Any]) -> tuple[int, Any]:
        """Send a request and wait for its answer; must not be called during a turn of the loop."""
        connection = self._reporting
        connection.send(route, message, REQUEST_TIMEOUT_SECONDS)
        while (found := connection.answer()) is None:
            self._access.wait((connection,), connection.deadline - self._access.monotonic())
        return found

    def _begin(self, content: dict[str, Any]) -> None:
        setup = self._setup
        self._agent_id = int(content["agent_id"])
        self._access.use_credential(str(content.get("token") or ""))
        self._reporting.close()  # the next connection uses the agent's own credential
        self._identity = str(content.get("server_identity") or "")
        self._route = f"/agents/{self._agent_id}/sync"
        workflow_id = int(content["workflow_id"])
        self._open_undelivered(workflow_id, str(content.get("server_incarnation") or ""))
        self._around = Surroundings(
            workflow_id,
            int(setup["workflow_run_id"]),
            content["working_directory"],
            int(content["umask"]),
            f"{setup['data_folder']}/logs/{workflow_id}",
            str(setup["shell"]),
            float(setup["cores"]),
            bool(setup["is_whole"]),
            self._identity,
        )
        self._heartbeat = float(content["heartbeat_interval"])
        self._ahead_expiry = ahead_expiry(self._heartbeat, float(content["report_by_buffer"]))
        now = self._access.monotonic()
        self._answered_at, self._beat_at = now, now + self._heartbeat
        self._pauses.reset()
        self._journal = self._access.journal()
        self._journal.note_agent(self._agent_id)
        interrupt_seconds = float(setup["interrupt_seconds"])
        self._running = Running(
            self._access.commands(self._journal, interrupt_seconds),
            self._work,
            self._outbox,
            self._trouble,
            self._access.monotonic,
            str(setup["host"]),
            self._around.log_folder,
            interrupt_seconds,
            RETURNED,
            write=self._journal.write,
            devices=Devices(setup.get("devices") or {}, str(setup.get("device_folder") or "")),
        )

    def _open_undelivered(self, workflow_id: int, incarnation: str) -> None:
        self._undelivered = Undelivered(
            str(self._setup["data_folder"]),
            workflow_id,
            self._identity,
            incarnation,
            self._access.say,
            self._access.monotonic,
        )

    def _succeed(self, left: Sequence[tuple[str, Leftovers]], predecessors: Iterable[Mapping[str, Any]]) -> None:
        """Report on behalf of dead agents: send the outcomes in their journals, and that they have exited."""
        for path, leftovers in left:
            ended = [one[1] for one in leftovers.ended.values()]
            if (culprit := self._find_culprit(leftovers)) is not None:
                ended.append(reports.of_unstarted(culprit, outcome.ERROR, outcome.KILLED_ITS_PARENT, suspects.ERROR))
            if not leftovers.agent_id or self._speak_for(leftovers.agent_id, ended):
                self._access.remove_journal(path)
        known = {leftovers.agent_id for _, leftovers in left}
        for one in predecessors:
            if one["agent_id"] not in known and self._access.end_process(one):
                self._speak_for(one["agent_id"], [])

    def _find_culprit(self, leftovers: Leftovers) -> int | None:
        """Return the attempt that killed a dead agent, if known; record which tasks may have killed it."""
        if leftovers.boot_id != self._setup["boot_id"]:
            return None  # the host was rebooted
        ran = {task_id: identity for identity, task_id in leftovers.tasks.items()}
        self._suspects.add(leftovers.suspects)
        task_id = self._suspects.lost(ran)
        return None if task_id is None else ran[task_id]

    def _speak_for(self, agent_id: int, ended: list[dict[str, Any]]) -> bool:
        """Send the reports of a dead agent; return whether its journal is no longer needed."""
        outbox = Outbox(ended)
        pauses = settlement.Pauses()
        is_complete = True
        while True:
            message = {"key": 0, "reports": outbox.take(), "leaving": not outbox.has_waiting}
            try:
                status, content = self._ask(f"/agents/{agent_id}/sync", message)
            except ServerAway:
                status, content = 0, None
            if status in (HTTP_FORBIDDEN, HTTP_NOT_FOUND) and settlement.is_from(content, self._identity):
                # forbidden: its host had another name; declaring it lost will settle its attempts
                return status == HTTP_NOT_FOUND
            verdict = settlement.judge(status, content, self._identity, is_sync_answer)
            is_settled = verdict == settlement.SETTLED
            _, aside = outbox.settle(verdict, content.get("unknown", ()) if is_settled else ())
            why = settlement.UNKNOWN if is_settled else verdict
            for report in aside:
                is_complete &= self._undelivered.set_aside(report, why, why)
            if is_settled and message["leaving"]:
                return is_complete
            if verdict == settlement.KEPT and self._access.is_client_gone():
                return False
            if not is_settled:
                self._access.wait((), pauses.next())

    def _is_finished(self) -> bool:
        if self._has_left:
            return True
        now = self._access.monotonic()
        if self._has_nothing_to_tell:
            return self._away_since is not None and now - self._away_since >= FAREWELL_SECONDS_MAX
        return self._is_leaving and now - self._answered_at > UNHEARD_SECONDS_MAX

    # -- one turn ----------------------------------------------------------------------------------------------

    def _keep_time(self, now: float) -> None:
        if not self._is_draining and self._access.is_client_gone():
            self._drain("the client has exited")
        super()._keep_time(now)
        self._journal.retry(now)

    def _note_silence(self) -> None:
        self._say("silence", "the server has not responded for too long; no longer starting prefetched commands")
        self._must_take_stock = True

    def _drain(self, why: str) -> None:
        self._say("drain", f"claiming no more attempts: {why}")
        self._is_draining = self._must_sync = True
        self._running.close()

    def _start(self) -> None:
        self._running.start()
        if self._trouble.text:
            self._say("location", f"commands cannot be started: {self._trouble.text}")

    # -- reports -----------------------------------------------------------------------------------------------

    def _is_answer(self, content: Mapping[str, Any]) -> bool:
        return is_sync_answer(content)

    def _settle(self, verdict: str, unknown: Iterable[int], why: str) -> bool:
        is_settled = super()._settle(verdict, unknown, why)
        if self._journal.size > JOURNAL_BYTES_MAX // 16 and verdict == settlement.SETTLED:
            self._running.write_lines()
            self._journal.rewrite(self._running.unsettled_lines())
        return is_settled

    def _note_away(self, error: Exception) -> None:
        self._say("server", f"the server does not respond: {error}; retrying")
        if not self._has_nothing_to_tell:
            self._start_server()

    def _start_server(self) -> None:
        """Restart the embedded server if a restart is due; a new server itself detects whether another is running."""
        now = self._access.monotonic()
        if self._setup["server_command"] and now >= self._server_at:
            self._server_at = now + SERVER_START_SECONDS
            self._access.start_server(self._setup["server_command"])

    def _is_report_due(self, now: float) -> bool:
        if self._must_sync or self._must_take_stock or now >= self._beat_at or self._is_leaving:
            return True
        if self._slots_are_news() or self._trouble.text != self._told_problem:
            return True
        return self._outbox.has_waiting and now >= self._gathered_at

    @property
    def _has_enough(self) -> bool:
        """Whether enough work waits here to keep the cores busy."""
        return len(self._work.waiting) > self._work.running_count

    @property
    def _is_leaving(self) -> bool:
        """Whether the agent is draining and has no attempts left."""
        return self._is_draining and not (self._running.commands.live or self._work.waiting)

    @property
    def _has_nothing_to_tell(self) -> bool:
        """Whether the agent only has to report its exit, which an unreachable server need not receive."""
        return self._is_leaving and not len(self._outbox)

    def _next_message(self, now: float) -> dict[str, Any]:
        sent = self._outbox.take()
        is_stock_due = self._must_take_stock or now >= self._beat_at
        free, ahead = (0.0, 0.0) if self._is_draining else self._unasked()
        message = {
            "key": self._next_key(),
            "reports": sent,
            "cores_free": free,
            "cores_ahead": ahead,
            "slots": self._slots(),
            "known_to_kill": sorted(self._running.ordered),
            "drain": self._is_draining,
            "leaving": self._is_leaving and not self._outbox.has_waiting,
        }
        if is_stock_due:
            self._beat_at = now + self._heartbeat
            ended = {report["task_instance_id"] for report in self._outbox.all}
            message["running"] = sorted(ended | self._running.commands.live.keys())
            message["unstarted"] = [launch.identity for launch in self._work.waiting]
        if self._trouble.text != self._told_problem:
            self._told_problem = self._trouble.text
            message["launch_problem"] = self._trouble.told(len(self._work.waiting), now)
            message["has_problem"] = True
        self._must_sync = self._must_take_stock = False
        return message

    def _next_key(self) -> int:
        self._key += 1
        return self._key

    def _unasked(self) -> tuple[float, float]:
        """Return the cores that the open poll does not request: free cores, and cores' worth of work to prefetch."""
        free, ahead = self._work.wanted()
        asked = self._asked if self._listening.is_busy else 0.0
        return max(0.0, free - asked), max(0.0, ahead - max(0.0, asked - free))

    # -- answers of the server ---------------------------------------------------------------------------------

    def _hear(self, message: Mapping[str, Any], content: dict[str, Any]) -> None:
        given = 0.0
        if (columns := content.get("launches")) is not None:
            given = self._take(columns)
        asked = message.get("cores_free", 0.0) + message.get("cores_ahead", 0.0)
        if asked > 0:
            self._is_dry = given + FRACTION < asked
        if (granted := content.get("slots")) is not None and granted["version"] > self._version:
            self._version = granted["version"]
            self._work.granted = min(float(granted["cores"]), self._work.cores)
        if content["over"] and not self._is_draining:
            self._drain("the run is over")
        self._running.kill(content["kill"])

    def _take(self, columns: dict[str, Any]) -> float:
        """Take claimed attempts unless they are here already; return the cores that they count as."""
        here = self._running.here
        launches = [launch for launch in launches_of(columns, self._around) if launch.identity not in here]
        cores = sum(launch.cores for launch in launches)
        self._running.take(launches)
        return cores

    # -- shared cores ------------------------------------------------------------------------------------------

    def _slots(self) -> dict[str, Any] | None:
        if self._pool:
            self._told_slots = self._slots_now()
        return self._told_slots

    def _slots_now(self) -> dict[str, Any]:
        used, wanted, head = self._work.demand()  # nothing waits in a draining agent
        return {
            "pool": self._pool,
            "total": self._work.cores,
            "version": self._version,
            "held": used if self._is_draining else min(max(used, self._work.granted), self._work.cores),
            "wanted": wanted,
            "head": head,
        }

    def _slots_are_news(self) -> bool:
        """Return whether to notify the server: cores are scarce, and this agent can release or needs some."""
        told = self._told_slots
        if told is None or self._work.granted + FRACTION >= self._work.cores:
            return False
        now = self._slots_now()
        return bool(
            now["version"] != told["version"]
            or now["held"] < told["held"] - FRACTION
            or now["wanted"] > told["wanted"] + FRACTION
            or now["head"] > told["head"] + FRACTION
        )

    # -- the poll ----------------------------------------------------------------------------------------------

    def _is_news(self, content: Mapping[str, Any]) -> bool:
        return is_sync_answer(content)

    def _hear_news(self, content: dict[str, Any]) -> None:
        self._note_answer(content)
        self._hear({}, content)

    def _mishear(self) -> None:
        super()._mishear()
        self._must_take_stock = True  # the lost answer may have contained work

    def _is_poll_outdated(self) -> bool:
        return self._asked == 0 and self._is_dry and sum(self._wanted()) > FRACTION

    def _wanted(self) -> tuple[float, float]:
        return (0.0, 0.0) if self._is_draining else self._work.wanted()

    def _next_poll(self) -> dict[str, Any] | None:
        if self._reported_at == 0.0 or self._is_leaving:
            return None
        free, ahead = self._wanted()
        self._asked = free + ahead
        return {
            "key": self._next_key(),
            "cores_free": free,
            "cores_ahead": ahead,
            "slots": self._slots(),
            "drain": self._is_draining,
        }

    # -- waiting -----------------------------------------------------------------------------------------------

    def _further_due(self, now: float) -> Iterable[float]:
        return () if (retry := self._journal.retry_at) is None else (retry,)

    def _say(self, kind: str, text: str) -> None:
        if self._said.is_due(kind, self._access.monotonic()):
            self._access.say(text)


def descriptors_of(connections: Sequence[PolledConnection]) -> Iterable[tuple[int, int]]:
    """Return the descriptors and events (as for `poll`) that these connections wait for."""
    return [found for connection in connections if (found := connection.watched()) is not None]
