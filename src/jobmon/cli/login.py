"""`jobmon login`: use the server of an institute instead of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.wire.server import Health

ANSWER_SECONDS_MAX: Final = 10.0
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")


@click.command(epilog="Example: jobmon login https://jobmon.example.org")
@click.argument("address", required=False)
@click.option("--forget", is_flag=True, help="Use a server of your own again.")
@click.option("--config-file", type=click.Path(path_type=Path, dir_okay=False), help="This file, not ~/.jobmon.yaml.")
def login(address: str | None, forget: bool, config_file: Path | None) -> None:
    """Try address and token of a server, and keep them in ~/.jobmon.yaml (only you can read it then).

    The token is asked for; without a terminal it is the first line of standard input. Empty: the server wants none.
    """
    if forget == bool(address):
        raise click.UsageError("Give either the ADDRESS of a server, such as https://jobmon.example.org, or --forget.")
    path = config_file or Path.home() / ".jobmon.yaml"
    if forget:
        _keep(path, "", "")
        click.echo(f"Written: {path}. From here on a server of your own is used.")
        return
    address = (address or "").rstrip("/")
    health = _health(address)
    token = _token()
    _try(address, token)
    _keep(path, address, token)
    click.echo(f"{address} (version {health.version}, {health.database}) is used from here on. Written: {path}")
    _warn(address, path)


def _health(address: str) -> Health:
    """Ask whether a server is there with which we can speak.

    Raises:
        ConfigError: this is no address.
        ServerUnavailable: nobody answers there, or not as a Jobmon server would.
    """
    from jobmon.core.constants import MESSAGE_VERSION
    from jobmon.core.exceptions import InvalidResponse, ServerUnavailable
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import Health

    requester = Requester(address, request_timeout=ANSWER_SECONDS_MAX)
    try:
        health = requester.call("/health", None, Health, "get", tenacious=False)
    except InvalidResponse as error:
        raise ServerUnavailable(f"What answers at {address} is no Jobmon server: {error}") from error
    finally:
        requester.close()
    if health.message_version != MESSAGE_VERSION:
        raise ServerUnavailable(
            f"The server at {address} is of version {health.version}, which this Jobmon cannot speak with. Install that"
            " version here, or have the server upgraded."
        )
    return health


def _token() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True, default="", show_default=False)).strip()
    return sys.stdin.readline().strip()


def _try(address: str, token: str) -> None:
    """Ask something for which the token is needed.

    Raises:
        InvalidRequest: the server does not take it.
    """
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import ServerTime

    requester = Requester(address, request_timeout=ANSWER_SECONDS_MAX, token=token)
    try:
        requester.call("/time", None, ServerTime, "get", tenacious=False)
    finally:
        requester.close()


def _keep(path: Path, address: str, token: str) -> None:
    from jobmon.core.configuration import JobmonConfig

    if not path.exists():
        path.touch(mode=0o600)
    path.chmod(0o600)
    config: JobmonConfig = JobmonConfig(path)
    config.set("http", "service_url", address)
    config.set("http", "token", token)
    config.write(path)


def _warn(address: str, path: Path) -> None:
    """Say what keeps this from having effect, or the token from being secret."""
    import os
    from urllib.parse import urlsplit

    from jobmon.core.configuration import config_file, environment_variable

    for key in ("service_url", "token"):
        variable = environment_variable("http", key)
        if variable in os.environ:
            click.echo(f"It has no effect now: {variable} in the environment is stronger.", err=True)
    in_force = config_file()
    if in_force is not None and in_force.resolve() != path.resolve():
        click.echo(f"It has no effect here: {in_force} is in force instead.", err=True)
    parts = urlsplit(address)
    if parts.scheme == "http" and parts.hostname not in _LOCAL:
        click.echo("The token goes over the network as it is: ask for an https:// address.", err=True)
