"""Reports of an agent until they are settled: select those for the next request, and apply the verdict on its answer.

Pure; `settlement` defines the rule.
"""

from __future__ import annotations

from jobmon.agent import fastjson, settlement

REPORTS_PER_REQUEST_MAX = 1_000
#: Upper bound for a report without its paths, error, log tail and files; host names are short.
PLAIN_BYTES = 800
#: A character may become "\\u0000" in JSON.
BYTES_PER_CHARACTER = 6
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from typing import Any


class Outbox:
    """The unsettled reports. At most one request with reports is in flight.

    Args:
        reports: reports to be sent.
    """

    def __init__(self, reports: Iterable[dict[str, Any]] = ()) -> None:
        self._waiting = list(reports)
        self._in_flight: list[dict[str, Any]] = []
        self._portion = settlement.Portion(REPORTS_PER_REQUEST_MAX)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    @property
    def has_waiting(self) -> bool:
        """Whether there are reports that are not in flight yet."""
        return bool(self._waiting)

    @property
    def all(self) -> list[dict[str, Any]]:
        """All unsettled reports, oldest first."""
        return [*self._in_flight, *self._waiting]

    def add(self, report: dict[str, Any]) -> None:
        """Add a report to be sent."""
        self._waiting.append(report)

    def take(self) -> list[dict[str, Any]]:
        """Return the reports for the next request, which are in flight until `settle` is called."""
        count = self._portion.fitting(_size_of(report) for report in self._waiting)
        self._in_flight, self._waiting = self._waiting[:count], self._waiting[count:]
        return self._in_flight

    def settle(
        self, verdict: str, unknown: Collection[int] = ()
    ) -> tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
        """Apply the verdict on the request in flight.

        Args:
            verdict: as `settlement.judge` returned it.
            unknown: attempts that the server reports as unknown to it.

        Returns:
            The settled reports, and those to set aside.
        """
        reports, self._in_flight = self._in_flight, []
        size = sum(map(_size_of, reports)) if verdict not in (settlement.SETTLED, settlement.KEPT) else 0
        action = self._portion.follow(verdict, len(reports), size)
        if action == settlement.FORGET:
            aside = [report for report in reports if report["task_instance_id"] in unknown]
            return [report for report in reports if report["task_instance_id"] not in unknown], aside
        if action == settlement.SET_ASIDE:
            return (), reports
        if action == settlement.SHORTEN and reports[0].get("log_tail"):
            self._waiting.insert(0, {**reports[0], "log_tail": None})
        elif action in (settlement.SHORTEN, settlement.POSTPONE):  # our server never rejects so little as too large
            self._waiting += reports
        else:
            self._waiting[:0] = reports
        return (), ()


def _size_of(report: dict[str, Any]) -> int:
    """Return an upper bound for the JSON size of a report, in bytes; encode it only if there is no cheap bound."""
    if report.get("log_tail") or report.get("error") or report.get("files"):
        return len(fastjson.dumps(report))
    return PLAIN_BYTES + sum(len(report.get(path) or "") for path in ("stdout", "stderr")) * BYTES_PER_CHARACTER
