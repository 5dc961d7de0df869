"""What the administrator may choose. All values arrive here once; nothing below reads a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobmon.core.wire.binding import REQUEST_BYTES_MAX
from jobmon.core.wire.swarm import LONG_POLL_SECONDS_MAX

if TYPE_CHECKING:
    from jobmon.core.configuration import JobmonConfig

#: The embedded server's database, in its data folder.
DATABASE_NAME: Final = "jobmon.sqlite"
#: How much later than its long poll's end a living distributor may be heard of.
POLL_SLACK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times are seconds and may be fractions. `liveness.md` explains each timer."""

    database_uri: str
    long_poll_seconds_max: float = LONG_POLL_SECONDS_MAX
    workflow_run_interval_seconds: float = 30.0
    task_instance_interval_seconds: float = 90.0
    report_by_buffer: float = 3.1
    reaper_interval_seconds: float = 300.0
    request_bytes_max: int = REQUEST_BYTES_MAX
    readers_max: int = 4
    #: Use cases that may wait for the writer; more are answered 503.
    writes_waiting_max: int = 10_000

    @classmethod
    def from_config(cls, config: JobmonConfig, *, database_uri: str) -> Settings:
        """Read what the configuration says."""
        return cls(
            database_uri=database_uri,
            long_poll_seconds_max=config.get_float("server", "long_poll"),
            workflow_run_interval_seconds=config.get_float("heartbeat", "workflow_run_interval"),
            task_instance_interval_seconds=config.get_float("heartbeat", "task_instance_interval"),
            report_by_buffer=config.get_float("heartbeat", "report_by_buffer"),
            reaper_interval_seconds=config.get_float("reaper", "poll_interval_minutes") * 60,
        )

    @property
    def attempt_deadline_seconds(self) -> float:
        """After this long without a sign of life an attempt is overdue."""
        return self.task_instance_interval_seconds * self.report_by_buffer

    @property
    def run_deadline_seconds(self) -> float:
        """The grace that runs get after a start of the server."""
        return self.workflow_run_interval_seconds * self.report_by_buffer

    @property
    def silence_seconds(self) -> float:
        """A distributor that was not heard of for so long is gone; it speaks at least once in a long poll."""
        return max(self.attempt_deadline_seconds, self.long_poll_seconds_max + POLL_SLACK_SECONDS)
