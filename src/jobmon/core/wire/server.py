"""The server about itself, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Body of every answer that is not 2xx.

    `kind` is the name of a class in `jobmon.core.exceptions` (or "ValidationError", "NotFound", "Unauthorized",
    "InternalError"), `message` a sentence for people, `details` values for programs.

    Statuses: 400 malformed, 401 no or wrong token, 404 unknown id, 409 refused by the state of things
    (`StaleRun`, `WorkflowAlreadyExists`, ...), 413 too large, 422 wrong value, 500 our fault, 503 stopping.
    """

    kind: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """GET /health (no token needed): alive and which."""

    version: str
    message_version: int
    pid: int
    started_at: str
    database: str  # "sqlite", "postgresql", "mysql"


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoredChanges:
    """So many changes of this kind came too late, or once more, and were ignored. Statuses are letters."""

    machine: str
    source: str
    target: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """GET /metrics: what this server process did since it started, and what is there now.

    `active_runs` and `active_attempts` are those that are not final and show signs of life.
    """

    started_at: str
    requests: int
    transactions: int
    writes_waiting: int
    open_polls: int
    ignored: list[IgnoredChanges]
    now: str = ""
    migration: str = ""
    active_runs: int = 0
    active_attempts: int = 0
    database_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A client or distributor. `part`: which of them; `is_silent`: it was not heard of lately."""

    part: str
    workflow_id: int
    workflow_run_id: int
    host: str
    pid: int
    pid_start_time: float
    is_silent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersResponse:
    """GET /server/users: who may still need the server, the newest first; whether they live their hosts can tell."""

    users: list[User]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFile:
    """`server.json` in the data folder, mode 0600: where the embedded server is and how to be let in.

    It stays when the server ends, so that the next one takes the same socket, port and token; `running` is then
    false. `socket` is a path or "" (no Unix socket); `address` is "http://127.0.0.1:PORT".
    """

    host: str
    pid: int
    pid_start_time: float  # as `places.process_start_time` tells it
    boot_id: str
    socket: str
    address: str
    token: str
    version: str
    message_version: int
    running: bool
    started_at: str
    database: str  # the database's URI
    retiring: bool = False  # it was asked to end as soon as it is idle


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """POST /server/open_to_other_hosts: the embedded server listens on its host's address, which is told."""

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTime:
    """GET /time: the last committed stamp of the server's logical clock, ISO 8601."""

    time: str
