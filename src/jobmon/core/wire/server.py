"""Information about the server itself, and the form of its error responses."""

from __future__ import annotations

from typing import Any

from msgspec import field

from jobmon.core.wire import Message
from jobmon.core.wire.fields import Id


class Problem(Message, frozen=True, kw_only=True):
    """Body of every response that is not 2xx.

    `kind` is the name of a class in `jobmon.core.exceptions` (or "ValidationError", "NotFound", "Unauthorized",
    "InternalError"), `message` a sentence for people, `details` values for programs.

    Statuses: 400 malformed, 401 no or wrong token, 404 unknown id, 409 rejected because of the current state
    (`StaleRun`, `WorkflowAlreadyExists`, ...), 413 too large, 422 wrong value, 500 server error, 503 stopping.
    `server_identity` as in `launching.FromServer`; "" if the request was rejected before it is known.
    """

    kind: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    server_identity: str = ""


class Health(Message, frozen=True, kw_only=True):
    """GET /health: identifies the server. Without a credential, only its `message_version` and `login`.

    GET /ready gives the same answer while the database responds, else 503.
    """

    message_version: int
    version: str = ""
    pid: int = 0
    started_at: str = ""
    database: str = ""  # "sqlite" or "postgresql"
    login: str = ""  # "oidc": people log in through a provider; see `wire.login`


class IgnoredChanges(Message, frozen=True, kw_only=True):
    """How many changes of this kind were ignored because they were late or repeated. Statuses are letters."""

    machine: str
    source: str
    target: str
    count: int


class Metrics(Message, frozen=True, kw_only=True):
    """GET /metrics: what this server process did since it started, and its current state.

    `active_runs` and `active_attempts` are not final and show signs of life.
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


class User(Message, frozen=True, kw_only=True):
    """A client or distributor. `part`: which of the two; `is_silent`: no recent sign of life."""

    part: str
    workflow_id: int
    workflow_run_id: int
    host: str
    pid: int
    pid_start_time: float
    is_silent: bool


class UsersResponse(Message, frozen=True, kw_only=True):
    """GET /server/users: processes that may still need the server, newest first. Only their hosts know if they live."""

    users: list[User]


class AccessFile(Message, frozen=True, kw_only=True):
    """`server.json` in the data folder, mode 0600: the address of the embedded server and its credentials.

    The file is kept when the server exits, so that the next one takes the same socket, port and token; `running` is
    then false. `socket` is a path or "" (no Unix socket); `address` is "http://127.0.0.1:PORT".
    """

    host: str
    pid: int
    pid_start_time: float  # as returned by `paths.process_start_time`
    boot_id: str
    socket: str
    address: str
    token: str
    version: str
    message_version: int
    running: bool
    started_at: str
    database: str  # the database's URI
    retiring: bool = False  # it was asked to exit as soon as it is idle
    machine_id: str = ""  # survives a reboot; clones of one image share it
    incarnation: str = ""  # changes when a server on another host takes over; a server with another value exits
    is_copied: bool = False  # it has exited, and the copy in the data folder holds its whole database
    addresses: list[str] = field(default_factory=list)  # where other hosts may reach it, the most likely first


class OpenRequest(Message, frozen=True, kw_only=True):
    """POST /server/open_to_other_hosts: have the embedded server listen on its host's address. -> `ServerAddress`

    `workflow_run_id`: the run that starts jobs on other hosts; None: not given. The server stops listening there when
    no such run is active and no attempt is alive on another host.
    """

    workflow_run_id: Id | None = None


class CompactRequest(Message, frozen=True, kw_only=True):
    """POST /database/compact: give the space of deleted rows back to the file system. -> `CompactResponse`

    409 `InvalidRequest` while anything is running, if there is no space for the copy, or if it takes too long.
    """

    only_if_useful: bool = False


class CompactResponse(Message, frozen=True, kw_only=True):
    """The kind of database, and its size before and after; None unless it is an SQLite database."""

    database: str
    bytes_before: int | None = None
    bytes_after: int | None = None


class ServerAddress(Message, frozen=True, kw_only=True):
    """The addresses at which other hosts reach the embedded server; `address` is the most likely one."""

    address: str
    addresses: list[str] = field(default_factory=list)


class ServerTime(Message, frozen=True, kw_only=True):
    """GET /time: the server's current time, ISO 8601. Not a cursor of the change feed."""

    time: str
