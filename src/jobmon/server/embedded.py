"""Run an embedded server as a process: sockets, lock, access file, and exit when idle.

An embedded server belongs to one data folder. It holds `server.lock` as long as it runs, listens at the port of its
predecessor if that is free, and exits after `server.idle_timeout` seconds without work. Its token is new.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn

from jobmon.agent import addresses
from jobmon.agent.addresses import Address
from jobmon.core import access, credentials, locks, loops, paths
from jobmon.core.configuration import JobmonConfig
from jobmon.core.constants import MESSAGE_VERSION
from jobmon.core.exceptions import ConfigError, JobmonError, UntrustedFile
from jobmon.core.wire import replace
from jobmon.core.wire.server import AccessFile
from jobmon.server import database_copy
from jobmon.server.app import create_app, open_database
from jobmon.server.connections import process_limits
from jobmon.server.database_copy import DatabaseCopy
from jobmon.server.door import UNNEEDED_SECONDS, Door
from jobmon.server.gathering import BoundedProtocol
from jobmon.server.settings import DATABASE_NAME, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from types import FrameType

    from starlette.applications import Starlette

    from jobmon.server.standby import Standby

IDLE_LOOK_SECONDS: Final = 5.0
#: How often to check that socket and access file still exist.
FILES_LOOK_SECONDS: Final = 2.0
RETIRE_LOOK_SECONDS: Final = 0.05
SHUTDOWN_SECONDS_MAX: Final = 5
KEEP_ALIVE_SECONDS: Final = 75
BACKLOG: Final = 2048
ALL_ADDRESSES: Final = ("0.0.0.0", "::")
#: Lower ports are reserved for the system.

logger = logging.getLogger("jobmon.server")


@dataclass(frozen=True, slots=True)
class Listening:
    """The sockets of a server and its addresses. `first_address`: without the socket that is open to other hosts."""

    first_address: str
    sockets: list[socket.socket]
    socket_path: str
    address: str
    addresses: list[str]


class Server(uvicorn.Server):
    """uvicorn's server, which also reports when it is ready and answers open polls before it waits for connections."""

    def __init__(
        self, config: uvicorn.Config, app: Starlette | Standby, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(config)
        self._app = app
        self._on_ready = on_ready
        self._is_told_to_exit = asyncio.Event()

    def exit(self) -> None:
        """Shut down in order, soon."""
        self.should_exit = True
        self._is_told_to_exit.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down because of a signal; at once on a second one."""
        super().handle_exit(sig, frame)
        self._is_told_to_exit.set()

    async def main_loop(self) -> None:
        """Wait until told to exit; uvicorn's own loop would look ten times a second."""
        await self.on_tick(0)
        await self._is_told_to_exit.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Shut down in order on a signal; uvicorn would raise the signal again, which would skip the cleanup."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def listen(self, tcp: socket.socket) -> None:
        """Listen on an additional socket."""
        kind: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        make = partial(kind, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(make, sock=tcp, backlog=BACKLOG))

    def stop_listening(self, host: str) -> None:
        """Close the sockets that listen on an address, and the connections accepted there."""
        for former in [one for one in self.servers if any(_host_of(each) == host for each in one.sockets)]:
            former.close()
            self.servers.remove(former)
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            name = None if transport is None else transport.get_extra_info("sockname")
            if isinstance(name, tuple) and name[0] == host:
                connection.shutdown()

    async def listen_instead(self, path: str, unix: socket.socket) -> None:
        """Listen on another Unix socket instead of the one at `path`; open connections stay."""
        for former in [one for one in self.servers if any(_path_of(each) == path for each in one.sockets)]:
            former.close()
            self.servers.remove(former)
        await self.listen(unix)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.begin_stop()
        await super().shutdown(sockets)


class _Embedded:
    """An embedded server's entry in the access file, and its listening for other hosts on request."""

    def __init__(
        self, server: Server, record: AccessFile, data: Path, door: Door, own_address: str, database: str | None
    ) -> None:
        self._server = server
        self._database = database
        self._database_identity: tuple[int, int] | None = None
        self._record = record
        self._data = data
        self._door = door
        self._own_address = own_address
        self._socket_identity = _identity(record.socket)
        self._last_error = ""
        self._is_started = False

    def write(self, *, running: bool = True, retiring: bool = False, is_copied: bool = False) -> None:
        """Write the access file, unless it belongs to another server: the previous one, or a successor."""
        retiring = retiring or self._record.retiring
        self._record = replace(self._record, running=running, retiring=retiring, is_copied=is_copied)
        if self._is_started and not self._is_replaced():
            access.write_access_file(self._record, self._data)

    def start(self) -> None:
        """Replace the former server's access file."""
        access.write_access_file(self._record, self._data)
        self._database_identity = _identity(self._database) if self._database else None
        self._is_started = True

    def _is_replaced(self) -> bool:
        found = access.read_access_file(self._data)
        return found is not None and found.incarnation != self._record.incarnation

    async def keep_reachable(self, retire: asyncio.Event) -> None:
        """Recreate socket and access file if they were removed, until cancelled. Retire if the database was removed.

        A logout removes the runtime folder, and cleanup jobs clear temporary folders, while the server is running. An
        SQLite file that was removed, for instance with the whole data folder, is different: runs that are active may
        still finish on open connections, but nobody else may find this server, because new connections would read
        an empty file.

        Args:
            retire: is set so that the server exits as soon as it is idle.
        """
        while True:
            await asyncio.sleep(FILES_LOOK_SECONDS)
            if not self._is_started:
                continue
            try:
                if self._is_replaced():
                    logger.warning("a server on another host has taken over; exiting")
                    self._server.exit()
                    return
                if self._has_lost_database():
                    logger.error("the database %s was removed or replaced; exiting when idle", self._database)
                    self._is_started = False  # the folder belongs to the next server: leave no access file in it
                    retire.set()
                    continue
                await self._restore()
                self._last_error = ""
            except (OSError, JobmonError) as error:
                if str(error) != self._last_error:
                    logger.warning("socket or access file cannot be recreated: %s", error)
                self._last_error = str(error)

    def _has_lost_database(self) -> bool:
        return bool(self._database) and _identity(str(self._database)) != self._database_identity

    async def _restore(self) -> None:
        if self._record.socket and _identity(self._record.socket) != self._socket_identity:
            path = paths.socket_path(self._data, "server")
            if path is not None:
                await self._server.listen_instead(self._record.socket, unix_socket(path))
                logger.warning("socket %s was removed; now listening at %s", self._record.socket, path)
                self._record = replace(self._record, socket=str(path))
                self._socket_identity = _identity(str(path))
                self.write()
        if not access.access_file_path(self._data).exists():
            logger.warning("the access file was removed; rewriting it")
            self.write()

    def remove_socket(self) -> None:
        """Remove the socket's file, unless another file has replaced it."""
        if self._record.socket and _identity(self._record.socket) == self._socket_identity:
            Path(self._record.socket).unlink(missing_ok=True)

    async def open_to_other_hosts(self, run_id: int | None) -> list[str]:
        """Also listen on this host's addresses, if not done yet; return the server's addresses for other hosts."""
        self._door.ask(run_id)
        host, port = _place_of(self._record.address)
        if paths.is_loopback(host):
            sockets = _host_sockets(port)
            for tcp in sockets:
                await self._server.listen(tcp)
            found = [_address_of(tcp) for tcp in sockets]
            self._record = replace(self._record, address=found[0], addresses=found)
            self.write()
            logger.info("listening for other hosts at %s", ", ".join(found))
        return self._record.addresses

    async def close_to_other_hosts(self, is_needed: Callable[[set[int] | None], Awaitable[bool]]) -> None:
        """Stop listening for other hosts whenever nothing there needs this server, until cancelled."""
        loop = asyncio.get_running_loop()
        while paths.is_loopback(_place_of(self._own_address)[0]):
            await asyncio.sleep(FILES_LOOK_SECONDS)
            host = _place_of(self._record.address)[0]
            if paths.is_loopback(host) or not self._is_started:
                continue
            if self._door.is_to_be_closed(await is_needed(self._door.runs), loop.time()):
                hosts = [_place_of(one)[0] for one in self._record.addresses]
                for one in hosts:
                    self._server.stop_listening(one)
                self._door.closed()
                self._record = replace(self._record, address=self._own_address, addresses=[self._own_address])
                with contextlib.suppress(OSError, UntrustedFile):
                    self.write()
                logger.info("no other host needs this server any more: no longer listening at %s", ", ".join(hosts))


def run(data: Path, *, take_over: bool) -> int:
    """Run the server of a data folder until it is told to exit, or idle."""
    config = JobmonConfig()
    paths.make_private(data)
    folder = paths.make_private(paths.database_directory(data))
    if folder != data:
        logger.warning("data folder %s is on a network file system; the database is in %s", data, folder)
        if (taken := paths.taken_local_folder()) is not None:
            logger.warning("the database is not in %s, because that folder belongs to another user", taken)
    with locks.FileLock(folder / access.SERVER_LOCK_NAME) as lock:
        if not lock.take(access.LOCK_SECONDS_MAX):
            logger.warning("another server holds %s; exiting", folder / access.SERVER_LOCK_NAME)
            return 0
        return _serve_data_folder(data, folder, config, take_over=take_over)


def _serve_data_folder(data: Path, folder: Path, config: JobmonConfig, *, take_over: bool) -> int:
    former = access.read_access_file(data)
    chosen = str(config.get("db", "sqlalchemy_database_uri") or "")
    uri = chosen or f"sqlite:///{folder / DATABASE_NAME}"
    incarnation = database_copy.claim(data, data if chosen else folder, former, take_over=take_over)
    if former is not None and former.running:  # we hold its lock, so it is dead: no program needs to look for it
        access.write_access_file(replace(former, running=False), data)
    ports = config.parsed("server", "ports")
    listening = _listen(data, former, str(config.get("server", "host")), ports)
    token = credentials.new_secret()  # each process has its own; tokens of former processes are invalid
    settings = Settings.from_config(config, database_uri=uri)
    database = open_database(settings)
    app = create_app(settings, database=database, token=token, is_embedded=True)
    record = replace(_record(listening, token, uri), incarnation=incarnation)
    copy = None
    if folder != data and not chosen:
        copy = DatabaseCopy(folder / DATABASE_NAME, data, lambda: app.state.services.requests.count)
    idle_timeout = config.get_float("server", "idle_timeout")
    loops.run_process(_serve_embedded(app, listening, data, record, idle_timeout, copy, database.path))
    return 0


async def _serve_embedded(
    app: Starlette,
    listening: Listening,
    data: Path,
    record: AccessFile,
    idle_timeout: float,
    copy: DatabaseCopy | None,
    database: str | None,
) -> None:
    def ready() -> None:
        embedded.start()
        logger.info("ready at %s %s", record.address, record.socket)

    retire = asyncio.Event()

    def ask_to_retire() -> None:
        logger.info("asked to exit when idle: a newer version is waiting to take over")
        with contextlib.suppress(OSError):
            embedded.write(retiring=True)
        retire.set()

    server = Server(uvicorn_config(app), app, ready)
    is_closed = record.address == listening.first_address
    door = Door(min(UNNEEDED_SECONDS, idle_timeout), is_inherited=not is_closed)
    embedded = _Embedded(server, record, data, door, listening.first_address, database)
    app.state.open_to_other_hosts = embedded.open_to_other_hosts
    app.state.on_deposed = server.exit  # the next program that needs a server starts one
    asyncio.get_running_loop().add_signal_handler(access.RETIRE_SIGNAL, ask_to_retire)
    beside = [
        asyncio.create_task(_end_when_unused(server, app, idle_timeout, retire)),
        asyncio.create_task(embedded.keep_reachable(retire)),
        asyncio.create_task(embedded.close_to_other_hosts(app.state.is_needed_elsewhere)),
        *([asyncio.create_task(copy.keep())] if copy is not None else ()),
    ]
    try:
        await server.serve(listening.sockets)
    finally:
        for task in beside:
            task.cancel()
        with contextlib.suppress(OSError, UntrustedFile):
            embedded.write(running=False, is_copied=copy is not None and server.started and copy.update())
        with contextlib.suppress(OSError):
            embedded.remove_socket()


async def _end_when_unused(server: Server, app: Starlette, idle_timeout: float, retire: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    used_at = loop.time()
    while not server.should_exit:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(IDLE_LOOK_SECONDS, idle_timeout / 4)):
                await retire.wait()
        if retire.is_set():
            idle_timeout = 0.0
            await asyncio.sleep(RETIRE_LOOK_SECONDS)
        try:
            is_idle = await app.state.is_idle()
        except Exception as error:  # the database does not respond, or is gone
            logger.warning("the server cannot tell whether it is in use: %s", error)
            is_idle = retire.is_set()
        if not is_idle:
            used_at = loop.time()
        elif loop.time() - used_at >= idle_timeout:
            logger.info("unused for %g s: exiting", idle_timeout)
            server.exit()


def uvicorn_config(app: Starlette | Standby, *, knows_own_user: bool = True, **more: Any) -> uvicorn.Config:
    """Return how uvicorn serves the app.

    Args:
        app: the application.
        knows_own_user: whether our own user needs no credential on the Unix socket.
        more: further options of uvicorn.
    """
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(BoundedProtocol, process_limits(knows_own_user=knows_own_user))),
        lifespan="on",
        access_log=False,
        log_config=None,
        ws="none",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
        **more,
    )


def _record(listening: Listening, token: str, uri: str) -> AccessFile:
    from jobmon.server.app import VERSION

    start_time = paths.process_start_time(os.getpid())
    return AccessFile(
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_start_time=start_time or 0.0,
        boot_id=paths.boot_id(),
        machine_id=paths.machine_id(),
        socket=listening.socket_path,
        address=listening.address,
        addresses=listening.addresses,
        token=token,
        version=VERSION,
        message_version=MESSAGE_VERSION,
        running=True,
        started_at=datetime.now(UTC).isoformat(),
        database=uri,
    )


def _listen(data: Path, former: AccessFile | None, host: str, ports: Sequence[int] = ()) -> Listening:
    """Listen where the former server did. What was open to other hosts stays open: jobs may be running there."""
    former_host, port = _place_of(former.address) if former is not None else ("", 0)
    sockets = [tcp_socket(host, port, ports)]
    port = sockets[0].getsockname()[1] if ports else port
    if paths.is_loopback(host) and former_host and not paths.is_loopback(former_host):
        try:
            sockets += _host_sockets(port)
        except ConfigError as error:
            logger.warning("other hosts can no longer reach this server: %s", error)
    found = _addresses_of(sockets[0]) if len(sockets) == 1 else [_address_of(one) for one in sockets[1:]]
    address = found[0]
    try:
        path = paths.socket_path(data, "server")
    except ConfigError as error:
        logger.warning("no Unix socket could be created, listening only at %s: %s", address, error)
        path = None
    if path is None:
        return Listening(_address_of(sockets[0]), sockets, "", address, found)
    return Listening(_address_of(sockets[0]), [unix_socket(path), *sockets], str(path), address, found)


def _place_of(address: str) -> tuple[str, int]:
    found = addresses.parse(address)
    return found.host, found.port


def _address_of(tcp: socket.socket) -> str:
    """Return the address of a socket; one that listens on all addresses has this host's address."""
    host, port = tcp.getsockname()[:2]
    return Address("http", paths.host_address() if host in ALL_ADDRESSES else host, port).url


def _addresses_of(tcp: socket.socket) -> list[str]:
    """Return the addresses of a socket; one that listens on all addresses has all of this host's."""
    host, port = tcp.getsockname()[:2]
    hosts = paths.host_addresses() if host in ALL_ADDRESSES else [host]
    return [Address("http", one, port).url for one in hosts]


def _host_sockets(port: int) -> list[socket.socket]:
    """Listen on the addresses of this host, the likeliest first, all on one port; skip addresses that cannot be used.

    Raises:
        ConfigError: the likeliest address cannot be used.
    """
    likeliest, *others = paths.host_addresses()
    sockets = [tcp_socket(likeliest, port)]
    port = int(sockets[0].getsockname()[1])
    for host in others:
        try:
            sockets.append(tcp_socket(host, port))
        except ConfigError as error:
            logger.warning("other hosts cannot reach this server at %s: %s", host, error)
    return sockets


def tcp_socket(host: str, port: int, ports: Sequence[int] = ()) -> socket.socket:
    """Bind to the former port if it is still free, otherwise to any allowed port.

    Args:
        host: the address to bind to.
        port: the former port; 0: there is none.
        ports: the allowed ports; empty: all.

    Raises:
        ConfigError: no port can be used.
    """
    candidates = sorted(ports, key=lambda one: one != port) or [port, 0]
    for candidate in candidates:
        try:
            tcp = _bound(host, candidate)
        except OSError as error:
            if candidate == candidates[-1]:
                where = f"{host}, ports {ports[0]} to {ports[-1]}" if ports else host
                raise ConfigError(f"Cannot listen on {where}: {error.strerror}.") from error
        else:
            tcp.set_inheritable(False)
            return tcp
    raise AssertionError("the last port either binds or raises")


def _bound(host: str, port: int) -> socket.socket:
    """Listen on an IPv4 or IPv6 address, or on that of a name; "::" is for IPv4, too. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    tcp = socket.socket(family, kind, protocol)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            tcp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host not in ALL_ADDRESSES)
        tcp.bind(address)
        tcp.listen(BACKLOG)
    except OSError:
        tcp.close()
        raise
    return tcp


def unix_socket(path: Path) -> socket.socket:
    """Bind to the path; an existing file there belonged to a dead server, because we hold the lock."""
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise ConfigError(f"{path} exists and is not the server's socket; remove it.")
    path.unlink(missing_ok=True)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(str(path))
    path.chmod(0o600)
    unix.listen(BACKLOG)
    return unix


def _identity(path: str) -> tuple[int, int] | None:
    """Return what distinguishes a file from a later one at the same path, or None if there is none."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _host_of(listening: socket.socket) -> str:
    """Return the address on which a TCP socket listens, "" for other sockets."""
    return str(listening.getsockname()[0]) if listening.family in (socket.AF_INET, socket.AF_INET6) else ""


def _path_of(listening: socket.socket) -> str:
    """Return the path of a Unix socket, "" for other sockets."""
    return str(listening.getsockname()) if listening.family == socket.AF_UNIX else ""
