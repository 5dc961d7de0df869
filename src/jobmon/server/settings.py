"""Settings that the administrator may choose. They are read here once; nothing else reads the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobmon.core.wire.binding import REQUEST_BYTES_MAX
from jobmon.core.wire.swarm import LONG_POLL_SECONDS_MAX
from jobmon.server.notifications import Event, Notifying
from jobmon.server.oidc import OidcSettings
from jobmon.server.roles import Members, Proxy, Roles, Sharing

if TYPE_CHECKING:
    from jobmon.core.configuration import JobmonConfig

#: File name of the embedded server's database, in its data folder.
DATABASE_NAME: Final = "jobmon.sqlite"
#: How long after the end of its long poll a live distributor may send its next request.
POLL_SLACK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times are in seconds and may be fractions. `docs/explanation/reliability.md` explains each timer."""

    database_uri: str
    long_poll_seconds_max: float = LONG_POLL_SECONDS_MAX
    #: A stream ends after this long; its reader reconnects, and is authenticated again.
    stream_seconds_max: float = 300.0
    workflow_run_interval_seconds: float = 30.0
    task_instance_interval_seconds: float = 90.0
    report_by_buffer: float = 3.1
    reaper_interval_seconds: float = 300.0
    request_bytes_max: int = REQUEST_BYTES_MAX
    readers_max: int = 4
    #: How long a server waits at startup for a database that does not respond, or that another server uses.
    database_startup_seconds: float = 10.0
    #: Maximum number of use cases that wait for the writer; further ones are answered with 503.
    writes_waiting_max: int = 10_000
    notifying: Notifying = field(default_factory=Notifying)
    roles: Roles = field(default_factory=Roles)
    proxy: Proxy = field(default_factory=Proxy)
    sharing: Sharing = field(default_factory=Sharing)
    oidc: OidcSettings = field(default_factory=OidcSettings)
    #: How long workflows are kept after their last change of status, days; 0: for ever.
    retention_days: float = 0.0

    @classmethod
    def from_config(cls, config: JobmonConfig, *, database_uri: str) -> Settings:
        """Read the settings from the configuration."""
        return cls(
            database_uri=database_uri,
            readers_max=max(1, config.get_int("db", "pool.size") - 1),
            database_startup_seconds=config.get_float("db", "startup_timeout"),
            long_poll_seconds_max=config.get_float("server", "long_poll"),
            workflow_run_interval_seconds=config.get_float("heartbeat", "workflow_run_interval"),
            task_instance_interval_seconds=config.get_float("heartbeat", "task_instance_interval"),
            report_by_buffer=config.get_float("heartbeat", "report_by_buffer"),
            reaper_interval_seconds=config.get_float("reaper", "poll_interval_minutes") * 60,
            roles=Roles(
                administrators=Members.of(config.parsed("auth", "administrators")),
                users=Members.of(config.parsed("auth", "users")),
                readers=Members.of(config.parsed("auth", "readers")),
            ),
            sharing=Sharing.of(config.parsed("auth", "visibility"), config.parsed("auth", "sharing_groups")),
            retention_days=config.get_float("server", "retention_days"),
            notifying=Notifying(
                urls=config.parsed("notify", "urls"),
                events=frozenset(map(Event, config.parsed("notify", "events"))),
                stalled_seconds=config.get_float("notify", "stalled_after"),
                public_url=str(config.get("server", "public_url") or ""),
            ),
        )

    @property
    def attempt_deadline_seconds(self) -> float:
        """Time without contact after which an attempt is overdue."""
        return self.task_instance_interval_seconds * self.report_by_buffer

    @property
    def run_deadline_seconds(self) -> float:
        """Grace period of runs after a server start."""
        return self.workflow_run_interval_seconds * self.report_by_buffer

    @property
    def silence_seconds(self) -> float:
        """Time without contact after which a distributor is gone; it sends a request at least once per long poll."""
        return max(self.attempt_deadline_seconds, self.long_poll_seconds_max + POLL_SLACK_SECONDS)
