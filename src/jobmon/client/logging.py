"""Logging for scripts: `configure_client_logging()`."""

from __future__ import annotations

from jobmon.client.displays import configure_logging


def configure_client_logging() -> None:
    """Send Jobmon's log to standard error, from level INFO up. A second call changes nothing."""
    configure_logging()
