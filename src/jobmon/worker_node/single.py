"""A job that runs one command: a single worker, or one step of an array."""

from __future__ import annotations

from jobmon.agent import settlement
from jobmon.worker_node import guarding
from jobmon.worker_node.answers import columns_of_start, is_report_answer, is_start_answer
from jobmon.worker_node.job import UNLIMITED, Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jobmon.agent.starting import Launch


class SingleJob(Job):
    """A job that runs one command. It has no poll: its cluster terminates it if it is to be killed."""

    _route = "/worker/start"

    def _has_told(self) -> bool:
        """Return whether the outcome is settled; what earlier jobs left stays on disk for the next one."""
        return all(report["task_instance_id"] != self._attempt for report in self._outbox.all)

    def _is_cut_short(self) -> bool:
        if not self._is_begun:
            return bool(self._signalled)
        return self._has_unexplained or bool(self._running.unexplained)

    def _is_answer(self, content: Mapping[str, Any]) -> bool:
        return is_report_answer(content) if self._is_begun else is_start_answer(content)

    def _next_message(self, now: float) -> dict[str, Any]:
        if not self._is_begun:
            return dict(self._request)
        self._route = "/worker/report"
        return self._report(now)

    def _job_in(self, content: dict[str, Any]) -> dict[str, Any]:
        return content

    def _launches_in(self, content: dict[str, Any]) -> list[Launch]:
        (launch,) = self._launches_of(columns_of_start(content), content)
        launch.runtime = guarding.runtime(self._environment, content["requested_resources"], self._interrupt_timeout)
        return [launch]

    def _begin(self, content: dict[str, Any]) -> None:
        super()._begin(content)
        self._ahead_expiry = UNLIMITED  # nobody else gets this attempt while it sends heartbeats
        self._attempt = int(content["task_instance_id"])

    def _hear(self, message: Mapping[str, Any], content: dict[str, Any]) -> None:
        if "reports" not in message:
            self._running.take(self._launches_in(content), (self._attempt,))
        elif self._commands.live or self._work.waiting or self._running.unexplained:
            self._hear_kill(content)

    def _note_aside(self, report: Mapping[str, Any], verdict: str, why: str) -> None:
        if report["task_instance_id"] == self._attempt and verdict != settlement.UNKNOWN:
            self.start_error = f"the server does not accept the report of the command: {why}"

    def _note_away(self, error: Exception) -> None:
        super()._note_away(error)
        if not self._is_begun:
            return
        message = self._message
        is_busy = self._commands.live or self._work.waiting
        if is_busy and message and not (message.get("reports") or message.get("pending")):
            self._message = None  # the next heartbeat suffices: thousands of jobs must not try more often

    def _next_poll(self) -> None:
        return None

    @property
    def _has_enough(self) -> bool:
        return False
