"""What Prometheus reads at `/metrics`. Everything is counted anyway; it is read only when it is asked for.

The number of time series is bounded: labels are statuses and outcomes, never workflows, users or texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.constants import TaskStatus, WorkflowRunStatus
from jobmon.core.wire.server import Metrics
from jobmon.server.queries.activity import Load
from jobmon.server.writer import WriterCounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

#: Media type of the text.
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is exposed. `load`: None while the database does not respond. `notifications`: number by outcome."""

    version: str
    dialect: str
    metrics: Metrics
    writer: WriterCounts
    load: Load | None
    notifications: Mapping[str, int] = field(default_factory=dict)


def exposition(measured: Measured) -> str:
    """Return the metrics in Prometheus' text format, with those of the process: CPU time, memory, open files."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(measured))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()


class _Collector:
    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def describe(self) -> list[Metric]:
        """Return nothing: the metrics are never registered one by one."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        yield from _process_metrics(self._measured)
        if self._measured.load is not None:
            yield from _database_metrics(self._measured.load)


def _process_metrics(measured: Measured) -> Iterator[Metric]:
    from prometheus_client.core import InfoMetricFamily

    metrics, writer = measured.metrics, measured.writer
    about = {"version": measured.version, "database": measured.dialect, "schema": metrics.migration}
    yield InfoMetricFamily("jobmon_server", "The server and its database.", value=about)
    yield _counter("jobmon_requests", "Authenticated requests.", metrics.requests)
    yield _counter("jobmon_transactions", "Committed transactions (group commits).", metrics.transactions)
    yield _counter("jobmon_transaction_seconds", "Seconds spent in committed transactions.", writer.seconds)
    yield _counter("jobmon_writes", "Use cases that were committed.", writer.use_cases)
    yield _counter("jobmon_writes_refused", "Use cases refused because too many were waiting.", writer.refused)
    yield _counter("jobmon_transaction_retries", "Transactions rerun after a conflict.", writer.retries)
    yield _counter("jobmon_database_reconnections", "Reconnections to the database.", writer.reconnections)
    yield _gauge("jobmon_writes_waiting", "Use cases that wait for the writer.", metrics.writes_waiting)
    yield _gauge("jobmon_open_polls", "Long polls that wait for a change.", metrics.open_polls)
    yield _gauge("jobmon_database_up", "1 if the database responds, else 0.", 0 if measured.load is None else 1)
    ignored = {(one.machine, one.source, one.target): one.count for one in metrics.ignored}
    names = ("machine", "source", "target")
    yield _counters("jobmon_ignored_changes", "Changes ignored because they were late or repeated.", names, ignored)
    sent = {(outcome,): count for outcome, count in measured.notifications.items()}
    yield _counters("jobmon_notifications", "Notifications by outcome.", ("outcome",), sent)


def _database_metrics(load: Load) -> Iterator[Metric]:
    runs = {(WorkflowRunStatus(letter).name,): count for letter, count in load.runs.items()}
    yield _gauges("jobmon_active_runs", "Active workflow runs by status.", ("status",), runs)
    tasks = {(TaskStatus(letter).name,): count for letter, count in load.tasks.items()}
    yield _gauges("jobmon_tasks", "Tasks of workflows with an active run, by status.", ("status",), tasks)
    yield _gauge("jobmon_active_attempts", "Attempts that are launched or running.", load.attempts)
    yield _gauge("jobmon_database_bytes", "Size of the database.", load.database_bytes)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, meaning, value=value)


def _gauges(name: str, meaning: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(name, meaning, labels=labels), values)


def _counters(name: str, meaning: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(name, meaning, labels=labels), values)


def _filled(family: Any, values: Mapping[Any, float]) -> Metric:
    for label_values, value in sorted(values.items()):
        family.add_metric(label_values, value)
    return family  # type: ignore[no-any-return]
