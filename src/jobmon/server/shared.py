"""Run a shared server: sockets, TLS, the proxy in front of it, and what systemd expects of a service.

It has no lock file, access file or idle timeout. Once another server has become the active one of its database, it
restarts, so that nothing in its memory is outdated; with `server.standby` it then waits. On its Unix socket nobody
is recognized by user ID, because a proxy there may pass on anybody's requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import signal
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobmon.agent import loopback
from jobmon.agent.addresses import Address
from jobmon.core import loops
from jobmon.core.exceptions import ConfigError
from jobmon.server.app import create_app, open_database
from jobmon.server.authority import TOKEN_CHARACTERS_MIN
from jobmon.server.database import is_lost
from jobmon.server.embedded import Server, tcp_socket, unix_socket, uvicorn_config
from jobmon.server.oidc import OidcSettings
from jobmon.server.roles import Proxy
from jobmon.server.settings import Settings
from jobmon.server.standby import Standby
from jobmon.server.transaction import Deposed

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn
    from starlette.applications import Starlette

    from jobmon.core.configuration import JobmonConfig
    from jobmon.server.database import Database


LOCALHOST: Final = ("127.0.0.1", "localhost", "::1")
#: Owner and group may connect to the Unix socket, nobody else.
SOCKET_MODE: Final = 0o660
#: Where systemd waits for the message that a service is ready.
NOTIFY_VARIABLE: Final = "NOTIFY_SOCKET"

logger = logging.getLogger("jobmon.server")


def run(config: JobmonConfig, *, uri: str = "", host: str = "", port: int = 0) -> int:
    """Run a shared server until it is told to exit; restart whenever another server has become active.

    Args:
        config: its settings.
        uri: its database; "": the one of the settings.
        host: the address on which it listens; "": the one of the settings.
        port: its port; 0: one of those in the settings.

    Raises:
        ConfigError: the settings are invalid or not safe, the database cannot be used, or no socket can be opened.
    """
    uri = uri or _text(config, "db", "sqlalchemy_database_uri")
    host = host or _text(config, "server", "host")
    path, token = _text(config, "server", "socket"), _text(config, "http", "token")
    _require_safe(uri, host, path, token)
    tls = tls_files(_text(config, "server", "tls_certificate"), _text(config, "server", "tls_key"))
    settings = _settings(config, uri, has_socket=bool(path))
    may_wait = config.get_boolean("server", "standby")
    if may_wait and not uri.startswith("postgresql"):
        raise ConfigError("Setting server.standby: only a PostgreSQL database can have a standby.")
    is_deposed = True
    while is_deposed:
        sockets = [tcp_socket(host, port, () if port else config.parsed("server", "ports"))]
        life = _Life(settings, open_database(settings, stand_by=may_wait), token)
        try:
            if path:
                sockets.append(_group_socket(Path(path), _text(config, "server", "socket_group")))
            _warn_of_token(token)
            for line in sockets:
                logger.info("listening on %s", path if line.family == socket.AF_UNIX else _address_of(tls, line))
            is_deposed = life.run(sockets, tls, may_wait=may_wait)
        finally:
            life.database.close()
            with contextlib.suppress(OSError):
                if path:
                    Path(path).unlink()
    return 0


def _settings(config: JobmonConfig, uri: str, *, has_socket: bool) -> Settings:
    proxy = Proxy.of(
        *(_text(config, "auth", key) for key in ("proxy_header", "proxy_groups_header", "proxy_secret")),
        has_socket=has_socket,
    )
    return replace(Settings.from_config(config, database_uri=uri), proxy=proxy, oidc=OidcSettings.of(config))


class _Life:
    """A server until it is told to exit, or another one has become active."""

    def __init__(self, settings: Settings, database: Database, token: str) -> None:
        self.database = database
        self._settings = settings
        self._token = token
        self._is_deposed = False
        self._failure: Exception | None = None

    def run(self, sockets: list[socket.socket], tls: tuple[str, str] | None, *, may_wait: bool) -> bool:
        """Serve; return whether another server has become active.

        Raises:
            Exception: this server can never become active.
        """
        app = Standby(self.database, self._open_app, self._end) if may_wait else self._open_app()
        options: dict[str, Any] = {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]} if tls else {}
        uvicorn_options = uvicorn_config(app, knows_own_user=False, **options)
        self._server = Server(uvicorn_options, app, notify_ready)
        loops.run_process(_serve(self._server, sockets, uvicorn_options, tls))
        if self._failure is not None:
            raise self._failure
        return self._is_deposed

    def _open_app(self) -> Starlette:
        app = create_app(self._settings, database=self.database, token=self._token or None)
        app.state.on_deposed = self._end
        return app

    def _end(self, failure: Exception | None = None) -> None:
        """Exit because another server has become active, or because this one could not: it may be able to later."""
        if failure is None or isinstance(failure, Deposed) or is_lost(failure):
            logger.warning("no longer active: restarting (%s)", failure or "another server has become active")
            self._is_deposed = True
        else:
            self._failure = failure
        self._server.exit()


async def _serve(
    server: Server, sockets: list[socket.socket], options: uvicorn.Config, tls: tuple[str, str] | None
) -> None:
    if tls is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _renewing(options, tls))
    await server.serve(sockets)


def _renewing(options: uvicorn.Config, tls: tuple[str, str]) -> Callable[[], None]:
    def renew() -> None:
        """Use the certificate that is in the files now; open connections keep the old one."""
        try:
            assert options.ssl is not None, "it is set while the server runs"
            options.ssl.load_cert_chain(*tls)
        except (OSError, ssl.SSLError) as error:
            logger.error("the certificate in %s cannot be loaded, the old one stays in use: %s", tls[0], error)
        else:
            logger.info("loaded the certificate in %s", tls[0])

    return renew


def _text(config: JobmonConfig, section: str, key: str) -> str:
    return str(config.get(section, key) or "")


def _address_of(tls: tuple[str, str] | None, line: socket.socket) -> str:
    host, port = line.getsockname()[:2]
    return Address("https" if tls else "http", host, port).url


def _require_safe(uri: str, host: str, path: str, token: str) -> None:
    """Check that there is a database, and that a server that others can reach has a token.

    Raises:
        ConfigError: it is not so.
    """
    if not uri:
        raise ConfigError("Specify the database: set db.sqlalchemy_database_uri (or pass --db URI).")
    if token:
        return
    if path or host not in LOCALHOST:
        raise ConfigError("A server that others can reach needs a token: set http.token, or JOBMON__HTTP__TOKEN.")
    if not loopback.is_known():
        raise ConfigError(
            "This system does not identify the users that connect, so a server needs a token: set JOBMON__HTTP__TOKEN."
        )


def _warn_of_token(token: str) -> None:
    if not token:
        logger.warning("no token is set: only programs of this user on this host are admitted")
    elif len(token) < TOKEN_CHARACTERS_MIN:
        logger.warning("the token has fewer than %d characters and can be guessed", TOKEN_CHARACTERS_MIN)


def tls_files(certificate: str, key: str) -> tuple[str, str] | None:
    """Return certificate and key, or None if the server does not encrypt by itself.

    Raises:
        ConfigError: only one of the two is given, or they cannot be loaded.
    """
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise ConfigError("Set both server.tls_certificate and server.tls_key, or neither.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"The certificate {certificate} with key {key} cannot be loaded: {error}.") from error
    return certificate, key


def _group_socket(path: Path, group: str) -> socket.socket:
    """Listen on a Unix socket that a group may open.

    Raises:
        ConfigError: there is no such group, or the socket cannot be created.
    """
    try:
        gid = grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        raise ConfigError(f"Setting server.socket_group: there is no group {group!r}.") from None
    try:
        line = unix_socket(path)
        os.chown(path, -1, gid)
        path.chmod(SOCKET_MODE)
    except OSError as error:
        raise ConfigError(f"Setting server.socket: {path} cannot be created: {error.strerror}.") from error
    return line


def notify_ready() -> None:
    """Report to systemd, if it started this process, that the server answers now."""
    logger.info("ready")
    address = os.environ.get(NOTIFY_VARIABLE, "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line, contextlib.suppress(OSError):
        line.sendto(b"READY=1", address)
