"""Send a distributor's reports to the server: how many per request, and what each response settles.

`jobmon.agent.settlement` defines the rule. A report leaves the distributor's memory only if the server has recorded it,
or if it is on disk because the server does not accept it. No response terminates the distributor's loop.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent import settlement
from jobmon.core import wire
from jobmon.core.exceptions import InvalidRequest, JobmonError, StaleRun
from jobmon.core.wire.launching import REPORTS_PER_REQUEST_MAX
from jobmon.distributor.outbox import is_ending

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator, Sequence

    from jobmon.core.clock import Clock
    from jobmon.core.wire.launching import DistributorResponse, FromServer, Report, SyncResponse
    from jobmon.distributor.state import DistributorState
    from jobmon.distributor.undelivered import UndeliveredReports

logger = logging.getLogger(__name__)
HTTP_OK: Final = 200
HTTP_NOT_FOUND: Final = 404


class Server:
    """The server with which the distributor registered; responses of other servers are ignored."""

    def __init__(self) -> None:
        self.identity = self.incarnation = ""

    def begin(self, response: DistributorResponse) -> None:
        """Store the server's identity from the first registration. For an older server, no identity is compared."""
        self.identity = response.server_identity if response.server_incarnation else ""

    def note(self, response: FromServer) -> bool:
        """Record a valid response; return whether the server has a new incarnation."""
        before, self.incarnation = self.incarnation, response.server_incarnation
        return self.incarnation != before

    def objection_to(self, response: FromServer) -> str:
        """Return why a response is ignored; "" if it is valid."""
        if self.identity in ("", response.server_identity):
            return ""
        return f"a different server responded ({response.server_identity or 'no identity'})"

    def says(self, error: JobmonError) -> bool:
        """Return whether the error came from our server, as far as this is known."""
        return error.answer is None or settlement.is_from(error.answer[1], self.identity)

    def has_no_run(self, error: Exception) -> bool:
        """Return whether our server reports that the run no longer exists."""
        if not isinstance(error, JobmonError) or error.answer is None:
            return False
        status, content = error.answer
        return status == HTTP_NOT_FOUND and settlement.is_from(content, self.identity)

    def verdict_on(self, task: asyncio.Task[SyncResponse]) -> tuple[str, str]:
        """Return the verdict of a response on the reports of its request, and the reason."""
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or isinstance(error, StaleRun):
            return settlement.KEPT, ""
        if error is None:
            named = {"server_identity": task.result().server_identity}
            return settlement.judge(HTTP_OK, named, self.identity, _is_expected), ""
        if isinstance(error, JobmonError) and error.answer is not None:
            return settlement.judge(*error.answer, self.identity, _is_expected), str(error)
        return settlement.DOUBTED if isinstance(error, InvalidRequest) else settlement.KEPT, str(error)


def _is_expected(_: dict[str, Any]) -> bool:
    return True  # the response has been decoded


class Outgoing:
    """Send reports from the distributor's state, and settle them.

    Args:
        state: the distributor's state.
        undelivered: keeps reports that the server does not accept.
        server: the server whose responses are valid.
        clock: source of time.
    """

    def __init__(self, state: DistributorState, undelivered: UndeliveredReports, server: Server, clock: Clock) -> None:
        self._state = state
        self._undelivered = undelivered
        self._server = server
        self._clock = clock
        self._portion = settlement.Portion(REPORTS_PER_REQUEST_MAX)
        self._pauses = settlement.Pauses()
        self._said = settlement.Said()
        self._sent_bytes = 0
        self._taken_back: set[int] = set()
        #: No reports are sent before this time, monotonic seconds.
        self.due_at = 0.0

    @property
    def is_narrowed(self) -> bool:
        """Whether a rejected request is sent in parts, with nothing else that could have caused the rejection."""
        return self._portion.is_narrowed

    def take(self) -> Sequence[Report]:
        """Return as many reports as fit into one request; they stay unconfirmed until `settle`."""
        sizes: list[int] = []

        def measured() -> Iterator[int]:
            for report in self._state.outbox:
                sizes.append(len(wire.encode(report)))
                yield sizes[-1]

        count = self._portion.fitting(measured())
        self._sent_bytes = sum(sizes[:count])
        return self._state.take_reports(count)

    def take_back(self) -> None:
        """Queue kept reports again that an earlier incarnation of the server did not know."""
        for report in self._undelivered.take_back(self._server.incarnation):
            self._taken_back.add(report.task_instance_id)
            self._state.say(report)

    def settle(self, verdict: str, why: str, unknown: Iterable[int] = ()) -> list[int]:
        """Apply the verdict on a request to its reports.

        Args:
            verdict: a verdict of `settlement`.
            why: the server's reason.
            unknown: attempts that the server does not have, although it accepted the request.

        Returns:
            The attempts whose outcome is now stored by the server or on disk.
        """
        ended = self._settle(verdict, why, set(unknown))
        if gone := self._taken_back.intersection(ended):
            self._undelivered.remove(gone)
            self._taken_back -= gone
        return ended

    def _settle(self, verdict: str, why: str, unknown: set[int]) -> list[int]:
        reports = self._state.outbox.in_flight
        action = self._portion.follow(verdict, len(reports), self._sent_bytes)
        if action == settlement.REPEAT:
            self._state.restore_reports()
            return []
        if action == settlement.SHORTEN and reports[0].log_tail:
            self._state.outbox.shorten()
            self._state.restore_reports()
            return []
        if action == settlement.FORGET:
            for report in reports:
                if report.task_instance_id in unknown:
                    self._set_aside(report, settlement.UNKNOWN, "it has no such attempt")
            self._pauses.reset()
            return self._state.confirm_reports()
        if action == settlement.SET_ASIDE and self._set_aside(reports[0], verdict, why):
            return self._state.confirm_reports()
        self.say("postponed", f"A report was rejected ({why}). It will be sent again.")
        self._state.restore_reports()
        self._state.outbox.postpone()
        self.due_at = self._clock.monotonic() + self._pauses.next()
        return []

    def _set_aside(self, report: Report, verdict: str, why: str) -> bool:
        """Keep a report that the server does not accept on disk; return whether that succeeded."""
        if not is_ending(report):
            return True  # nothing is lost: the attempt's outcome will be reported as well
        path = self._undelivered.set_aside(report, verdict, self._server.incarnation)
        if path is None:
            return False
        identity = report.task_instance_id
        logger.error("The server does not accept the report of attempt %d: %s. It is kept in %s.", identity, why, path)
        return True

    def say(self, kind: str, text: str) -> None:
        """Log a lasting problem, at most once per kind and minute."""
        if self._said.is_due(kind, self._clock.monotonic()):
            logger.warning("%s", text)
