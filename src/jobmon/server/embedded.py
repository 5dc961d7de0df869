"""The server as a process: sockets, lock, access file, and its end when nobody needs it any more.

An embedded server belongs to one data folder. It holds `server.lock` for as long as it lives, takes socket, port and
token of its predecessor from the access file, and ends by itself after `server.idle_timeout` seconds without work.
A server of an institute is the same program with `--db` and `--host`, without lock, access file and idle end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import signal
import socket
import stat
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn

from jobmon.core import access, loops, places
from jobmon.core.configuration import JobmonConfig, data_directory
from jobmon.core.constants import MESSAGE_VERSION
from jobmon.core.exceptions import ConfigError, JobmonError
from jobmon.core.wire.server import AccessFile
from jobmon.server.app import create_app
from jobmon.server.gathering import GatheringProtocol
from jobmon.server.settings import DATABASE_NAME, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

LOCK_NAME: Final = "server.lock"
IDLE_LOOK_SECONDS: Final = 5.0
RETIRE_LOOK_SECONDS: Final = 0.05
SHUTDOWN_SECONDS_MAX: Final = 5
KEEP_ALIVE_SECONDS: Final = 75
BACKLOG: Final = 2048
ALL_ADDRESSES: Final = "0.0.0.0"

logger = logging.getLogger("jobmon.server")


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets a server has, and how it is reached."""

    sockets: list[socket.socket]
    socket_path: str
    address: str


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready and answers open polls before it waits for connections to end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, on_ready: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._app = app
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in order when told to; uvicorn's own way raises the signal again, which would skip what follows."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def listen(self, tcp: socket.socket) -> None:
        """Listen on a further socket."""
        kind: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        make = partial(kind, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(make, sock=tcp, backlog=BACKLOG))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.begin_stop()
        await super().shutdown(sockets)


class _Embedded:
    """What an embedded server says of itself in the access file, and the door to other hosts when one is asked for."""

    def __init__(self, server: _Server, record: AccessFile, data: Path) -> None:
        self._server = server
        self._record = record
        self._data = data

    def write(self, *, running: bool = True, retiring: bool = False) -> None:
        """Write the access file."""
        self._record = replace(self._record, running=running, retiring=retiring or self._record.retiring)
        access.write_access_file(self._record, self._data)

    async def open_to_other_hosts(self) -> str:
        """Listen on this host's address, too, if not done yet; return where other hosts find this server."""
        host, _, port = self._record.address.removeprefix("http://").rpartition(":")
        if places.is_loopback(host):
            tcp = _tcp_socket(places.host_address(), int(port))
            await self._server.listen(tcp)
            self._record = replace(self._record, address=_address_of(tcp))
            self.write()
            logger.info("listening for other hosts at %s", self._record.address)
        return self._record.address


def main(arguments: list[str] | None = None) -> int:
    """Run a server until it is told to end or, embedded, until nobody needs it."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        if options.embedded:
            return _run_embedded(Path(options.data_dir) if options.data_dir else data_directory())
        return _run_institute(options)
    except JobmonError as error:
        sys.stderr.write(f"jobmon server: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobmon.server", description=__doc__)
    parser.add_argument("--embedded", action="store_true", help="serve one user's data folder; end when unused")
    parser.add_argument("--data-dir", default="", help="data folder of an embedded server")
    parser.add_argument("--db", default="", help="SQLAlchemy URI of the database, for an institute's server")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: any")
    return parser


def _run_embedded(data: Path) -> int:
    config = JobmonConfig()
    places.make_private(data)
    folder = places.make_private(places.database_directory(data))
    if folder != data:
        logger.warning("data folder %s is on a network file system; the database lives in %s", data, folder)
    with held(folder / LOCK_NAME) as is_ours:
        if not is_ours:
            logger.warning("another server holds %s; this one ends", folder / LOCK_NAME)
            return 0
        return _serve_data_folder(data, folder, config)


def _serve_data_folder(data: Path, folder: Path, config: JobmonConfig) -> int:
    former = access.read_access_file(data)
    uri = str(config.get("db", "sqlalchemy_database_uri") or "") or f"sqlite:///{folder / DATABASE_NAME}"
    listening = _listen(data, former, str(config.get("server", "host")))
    token = former.token if former is not None and former.token else secrets.token_urlsafe(32)
    app = create_app(Settings.from_config(config, database_uri=uri), token=token)
    record = _record(listening, token, uri)
    try:
        loops.run_process(_serve_embedded(app, listening, data, record, config.get_float("server", "idle_timeout")))
    finally:
        if listening.socket_path:
            Path(listening.socket_path).unlink(missing_ok=True)
    return 0


async def _serve_embedded(
    app: FastAPI, listening: Listening, data: Path, record: AccessFile, idle_timeout: float
) -> None:
    def ready() -> None:
        embedded.write()
        logger.info("ready at %s %s", record.address, record.socket)

    retire = asyncio.Event()

    def ask_to_retire() -> None:
        logger.info("asked to end when idle: a newer version wants to take over")
        with contextlib.suppress(OSError):
            embedded.write(retiring=True)
        retire.set()

    server = _Server(_uvicorn_config(app), app, ready)
    embedded = _Embedded(server, record, data)
    app.state.open_to_other_hosts = embedded.open_to_other_hosts
    asyncio.get_running_loop().add_signal_handler(access.RETIRE_SIGNAL, ask_to_retire)
    watching = asyncio.create_task(_end_when_unused(server, app, idle_timeout, retire))
    try:
        await server.serve(listening.sockets)
    finally:
        watching.cancel()
        with contextlib.suppress(OSError):
            embedded.write(running=False)


async def _end_when_unused(server: uvicorn.Server, app: FastAPI, idle_timeout: float, retire: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    used_at = loop.time()
    while not server.should_exit:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(IDLE_LOOK_SECONDS, idle_timeout / 4)):
                await retire.wait()
        if retire.is_set():
            idle_timeout = 0.0
            await asyncio.sleep(RETIRE_LOOK_SECONDS)
        if not await app.state.is_idle():
            used_at = loop.time()
        elif loop.time() - used_at >= idle_timeout:
            logger.info("unused for %g s: ending", idle_timeout)
            server.should_exit = True


def _uvicorn_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=GatheringProtocol,
        lifespan="on",
        access_log=False,
        log_config=None,
        ws="none",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
    )


def _record(listening: Listening, token: str, uri: str) -> AccessFile:
    from jobmon.server.app import VERSION

    start_time = places.process_start_time(os.getpid())
    return AccessFile(
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_start_time=start_time or 0.0,
        boot_id=places.boot_id(),
        socket=listening.socket_path,
        address=listening.address,
        token=token,
        version=VERSION,
        message_version=MESSAGE_VERSION,
        running=True,
        started_at=datetime.now(UTC).isoformat(),
        database=uri,
    )


def _listen(data: Path, former: AccessFile | None, host: str) -> Listening:
    """Listen where the former server did. What was opened to other hosts stays so: jobs may be running there."""
    former_host, _, port = former.address.removeprefix("http://").rpartition(":") if former is not None else ("", "", 0)
    sockets = [_tcp_socket(host, int(port))]
    if places.is_loopback(host) and former_host and not places.is_loopback(former_host):
        try:
            sockets.append(_tcp_socket(places.host_address(), int(port)))
        except ConfigError as error:
            logger.warning("other hosts cannot reach this server any more: %s", error)
    address = _address_of(sockets[-1])
    path = places.socket_path(data, "server")
    if path is None:
        return Listening(sockets, "", address)
    return Listening([_unix_socket(path), *sockets], str(path), address)


def _address_of(tcp: socket.socket) -> str:
    """Return where a socket is found; one that listens on all addresses is found at this host's."""
    host, port = tcp.getsockname()[:2]
    return f"http://{places.host_address() if host == ALL_ADDRESSES else host}:{port}"


def _tcp_socket(host: str, port: int) -> socket.socket:
    """Bind to the former port where it is still free, else to any."""
    for candidate in (port, 0):
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tcp.bind((host, candidate))
            tcp.listen(BACKLOG)
        except OSError as error:
            tcp.close()
            if candidate == 0:
                raise ConfigError(f"Cannot listen on {host}: {error.strerror}.") from error
        else:
            tcp.set_inheritable(False)
            return tcp
    raise AssertionError("port 0 either binds or raises")


def _unix_socket(path: Path) -> socket.socket:
    """Bind to the path; whatever lies there belonged to a dead server, for we hold the lock."""
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise ConfigError(f"{path} is in the way of the server's socket; remove it.")
    path.unlink(missing_ok=True)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(str(path))
    path.chmod(0o600)
    unix.listen(BACKLOG)
    return unix


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold the lock of a data folder's server; yields whether nobody else does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _run_institute(options: argparse.Namespace) -> int:
    config = JobmonConfig()
    uri = options.db or str(config.get("db", "sqlalchemy_database_uri") or "")
    token = str(config.get("http", "token") or "")
    if not uri:
        raise ConfigError("Say which database: --db URI (or the setting db.sqlalchemy_database_uri).")
    if not token and options.host not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError("A server that others can reach needs a token: set JOBMON__HTTP__TOKEN.")
    app = create_app(Settings.from_config(config, database_uri=uri), token=token or None)
    tcp = _tcp_socket(options.host, options.port)
    logger.info("listening on http://%s:%d", options.host, tcp.getsockname()[1])
    loops.run_process(_Server(_uvicorn_config(app), app).serve([tcp]))
    return 0
