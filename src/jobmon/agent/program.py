"""The loop of all programs that run commands for the server: host agents and the jobs of clusters.

A program has up to two requests in flight. One carries reports and heartbeats; it is repeated until an answer settles
it. The server holds the other, the *poll*, until there is news. Host agents and jobs differ in what they ask for.

An unreachable server does not affect running commands. When no answer has come for too long (`work.ahead_expiry`),
prefetched attempts are not started any more, because the server may have handed them out again by then.

Uses only a small part of the standard library (`python -I -S`).
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod

from jobmon.agent import settlement
from jobmon.agent.outbox import Outbox
from jobmon.agent.servers import ServerAway

REQUEST_TIMEOUT_SECONDS = 20.0
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from jobmon.agent.requests import PolledConnection
    from jobmon.agent.running import Running
    from jobmon.agent.undelivered import Undelivered
    from jobmon.agent.work import Work

    class Access(Protocol):
        """A program's access to its machine and the server. Simulations replace it."""

        def monotonic(self) -> float: ...

        def jitter(self) -> float: ...

        def say(self, text: str) -> None: ...

        def connection(self) -> PolledConnection: ...

        def wait(self, connections: Sequence[PolledConnection], seconds: float) -> None: ...


class Program(metaclass=ABCMeta):
    """A program that runs commands.

    Subclasses define what is asked for and what an answer means: the abstract methods and, in programs that
    poll, `_is_news` and `_hear_news`.

    Args:
        access: the access to this machine and the server.
        work: the waiting attempts, and the cores and memory that running ones use.
    """

    #: Interval after which a poll whose answer was lost is repeated.
    LISTEN_PAUSE_SECONDS = 1.0
    #: How long the server may hold a poll.
    LONG_POLL_SECONDS = 18.0
    #: How long reports are collected into one request while enough attempts wait here.
    GATHER_SECONDS = 0.025

    #: The route of the messages.
    _route = ""
    _running: Running
    _undelivered: Undelivered

    def __init__(self, access: Access, work: Work) -> None:
        self._access = access
        self._work = work
        self._outbox = Outbox()
        self._reporting, self._listening = access.connection(), access.connection()
        self._pauses = settlement.Pauses()
        self._message: dict[str, Any] | None = None  # in flight; resent until it is answered
        self._is_begun = False  # the server has answered for the first time
        self._is_dry = False  # the server had less work than requested
        self._has_left = False
        self._identity = ""
        self._answered_at = access.monotonic()
        self._away_since: float | None = None  # since when the server is unreachable, monotonic; None: it answers
        self._retry_at = self._listen_at = self._beat_at = self._reported_at = 0.0
        self._heartbeat = 0.0
        self._ahead_expiry = 0.0

    # -- the loop ----------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        """Run until nothing is left to do."""
        while not self._is_finished():
            self._turn()
            if not self._is_finished():
                self._access.wait((self._reporting, self._listening), self._due() - self._access.monotonic())
        if self._is_begun:
            self._running.commands.leave()
            self._running.write_lines()
        self._reporting.close()
        self._listening.close()

    def _turn(self) -> None:
        """Process what has happened, act on it, and request more work."""
        if self._is_begun:
            self._running.look()
            self._take_news()  # before the next start: it may recall what waits
            self._keep_time(self._access.monotonic())
            self._start()  # before the ends are reported, so that no core waits for that
            self._running.report_ends()
        self._take_answer()
        if self._is_begun:
            self._start()
            self._running.write_lines()
        self._send()
        self._listen()

    def _keep_time(self, now: float) -> None:
        """Do what is due."""
        if self._work.waiting and self._is_silent(now):
            self._running.give_back(self._work.drop_all())
            self._note_silence()
        self._running.report_running(now)

    def _is_silent(self, now: float) -> bool:
        return now - self._answered_at >= self._ahead_expiry

    def _start(self) -> None:
        """Start the waiting attempts that fit."""
        self._running.start()

    # -- reports -----------------------------------------------------------------------------------------------

    def _take_answer(self) -> None:
        """Process the answer to the request that carries reports, which are forgotten only if it settles them."""
        try:
            found = self._reporting.answer()
        except ServerAway as error:
            self._put_off(error)
            return
        if found is None:
            return
        status, content = found
        message = self._message
        assert message is not None
        verdict = settlement.judge(status, content, self._identity, self._is_answer)
        if verdict == settlement.SETTLED:
            self._message = None
            self._note_answer(content)
            self._take_settled(message, content)
        elif verdict == settlement.KEPT or not message.get("reports"):
            self._reporting.close()  # look up the server again before the next try
            self._put_off(ServerAway(self._heed_refusal(status, content)))
        else:
            self._message = None
            why = str(content.get("message") or status) if isinstance(content, dict) else str(status)
            is_postponed = verdict in (settlement.DOUBTED, settlement.TOO_LARGE) and len(message["reports"]) == 1
            if not self._settle(verdict, (), why) or is_postponed:
                self._put_off(ServerAway(why))

    def _take_settled(self, message: Mapping[str, Any], content: dict[str, Any]) -> None:
        if not self._is_begun:
            self._begin(content)
            self._is_begun = True
        self._settle(settlement.SETTLED, content.get("unknown", ()), "it has no such attempt")
        for identity, why in content.get("refused", {}).items():
            self._access.say(f"the report of attempt {identity} was rejected: {why}")
        self._has_left = bool(message.get("leaving"))
        if not self._has_left:
            self._hear(message, content)

    def _settle(self, verdict: str, unknown: Iterable[int], why: str) -> bool:
        """Apply the verdict on a request to its reports; return False if one should be set aside but could not be.

        Unsettled reports are resent.
        """
        settled, aside = self._running.settle(verdict, unknown)
        self._undelivered.forget(settled)
        verdict = settlement.UNKNOWN if verdict == settlement.SETTLED else verdict
        is_complete = True
        for report in aside:
            if self._undelivered.set_aside(report, verdict, why):
                self._note_aside(report, verdict, why)
            else:
                self._outbox.add(report)
                is_complete = False
        return is_complete

    def _note_answer(self, content: Mapping[str, Any]) -> None:
        self._answered_at = self._access.monotonic()
        self._away_since = None
        self._pauses.reset()
        if self._is_begun and (incarnation := content.get("server_incarnation")):
            self._undelivered.incarnation = str(incarnation)

    def _put_off(self, error: Exception) -> None:
        """Schedule a retry: the server is unreachable, or did not accept a request."""
        now = self._access.monotonic()
        if self._away_since is None:
            self._away_since = now
        pause = self._pauses.next() * self._access.jitter()
        self._retry_at = now + max(pause, settlement.asked_pause(self._reporting.retry_after))
        self._note_away(error)

    def _send(self) -> None:
        """Send the next request if it is due, or resend one that was not answered."""
        now = self._access.monotonic()
        if self._reporting.is_busy or now < self._retry_at or self._is_finished():
            return
        if self._message is None and self._is_report_due(now):
            self._message = self._next_message(now)
            self._reported_at = now
        if self._message is not None:
            try:
                self._reporting.send(self._route, self._message, REQUEST_TIMEOUT_SECONDS)
            except ServerAway as error:
                self._put_off(error)

    @property
    def _gathered_at(self) -> float:
        """When waiting reports are sent."""
        return self._reported_at + self.GATHER_SECONDS if self._has_enough else 0.0

    # -- the poll ----------------------------------------------------------------------------------------------

    def _take_news(self) -> None:
        """Process the answer to the poll."""
        try:
            found = self._listening.answer()
        except ServerAway:
            self._mishear()
            return
        if found is None:
            return
        status, content = found
        if settlement.judge(status, content, self._identity, self._is_news) == settlement.SETTLED:
            self._hear_news(content)
        else:
            self._listening.close()  # look up the server again before the next try
            self._mishear()

    def _mishear(self) -> None:
        """Schedule the next poll, because an answer was lost."""
        pause = self.LISTEN_PAUSE_SECONDS * self._access.jitter()
        self._listen_at = self._access.monotonic() + max(pause, settlement.asked_pause(self._listening.retry_after))

    def _listen(self) -> None:
        """Keep a poll open."""
        if self._listening.is_busy and self._is_poll_outdated():
            self._listening.close()
        if self._listening.is_busy or self._access.monotonic() < self._listen_at:
            return
        message = self._next_poll()
        if message is None:
            return
        message["wait_seconds"] = self.LONG_POLL_SECONDS
        message["known_to_kill"] = sorted(self._running.ordered)
        try:
            self._listening.send(self._route, message, self.LONG_POLL_SECONDS + REQUEST_TIMEOUT_SECONDS)
        except ServerAway:
            self._mishear()

    # -- waiting -----------------------------------------------------------------------------------------------

    def _due(self) -> float:
        """Return when the next action is due even if no event occurs, monotonic seconds."""
        now = self._access.monotonic()
        due = [self._due_to_send(now), *self._further_due(now)]
        if self._is_begun:
            due += self._running.due()
        if self._work.waiting:
            due.append(self._answered_at + self._ahead_expiry)
        if self._listening.is_busy:
            due.append(self._listening.deadline)
        elif self._listen_at > now:
            due.append(self._listen_at)
        return min(due)

    def _due_to_send(self, now: float) -> float:
        if self._reporting.is_busy:
            return self._reporting.deadline
        if self._message is not None or self._is_report_due(now):
            return max(now, self._retry_at)
        return max(self._gathered_at, self._retry_at) if self._outbox.has_waiting else self._beat_at

    # -- what differs ------------------------------------------------------------------------------------------

    @abstractmethod
    def _is_finished(self) -> bool:
        """Return whether nothing is left to do."""

    @abstractmethod
    def _is_answer(self, content: Mapping[str, Any]) -> bool:
        """Return whether decoded content is an answer to the last message."""

    @abstractmethod
    def _is_report_due(self, now: float) -> bool:
        """Return whether to send a message now."""

    @property
    @abstractmethod
    def _has_enough(self) -> bool:
        """Whether enough attempts wait here, so that reports need not be sent at once."""

    @abstractmethod
    def _next_message(self, now: float) -> dict[str, Any]:
        """Return the next message, and set `_route`."""

    @abstractmethod
    def _begin(self, content: dict[str, Any]) -> None:
        """Process the first answer: create `_running` and `_undelivered`."""

    @abstractmethod
    def _hear(self, message: Mapping[str, Any], content: dict[str, Any]) -> None:
        """Process what the answer to a message contains."""

    @abstractmethod
    def _next_poll(self) -> dict[str, Any] | None:
        """Return the next poll; None: there is nothing to wait for."""

    def _is_news(self, content: Mapping[str, Any]) -> bool:
        """Return whether decoded content is an answer to a poll."""
        return False

    def _hear_news(self, content: dict[str, Any]) -> None:
        """Process what the answer to a poll contains."""

    def _is_poll_outdated(self) -> bool:
        """Return whether the open poll asks for too little."""
        return False

    def _heed_refusal(self, status: int, content: Any) -> str:
        """Return why an answer settles nothing."""
        return f"it responded with status {status}, so reports are kept"

    def _note_away(self, error: Exception) -> None:
        """React to an unreachable server."""

    def _note_aside(self, report: Mapping[str, Any], verdict: str, why: str) -> None:
        """React to a report that was set aside."""

    def _note_silence(self) -> None:
        """React to the return of the waiting attempts."""

    def _further_due(self, now: float) -> Iterable[float]:
        """Return further times of next actions, monotonic seconds."""
        return ()
