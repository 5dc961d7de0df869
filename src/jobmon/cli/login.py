"""`jobmon login`: use a shared server instead of your local one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from jobmon.core.descriptors import is_terminal

if TYPE_CHECKING:
    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.wire.server import Health

ANSWER_SECONDS_MAX: Final = 10.0
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")


@click.command(epilog="Example: jobmon login https://jobmon.example.org")
@click.argument("address", required=False)
@click.option("--forget", is_flag=True, help="Use your local server again.")
@click.option(
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file. Default: ~/.jobmon.yaml.",
)
def login(address: str | None, forget: bool, config_file: Path | None) -> None:
    """Test address and token of a shared server, and save them in ~/.jobmon.yaml, readable only by you.

    The token is prompted for; without a terminal, it is read from the first line of standard input. Leave it empty if
    the server needs none.
    """
    if forget == bool(address):
        raise click.UsageError("Give either the ADDRESS of a server, such as https://jobmon.example.org, or --forget.")
    path = config_file or Path.home() / ".jobmon.yaml"
    if forget:
        _keep(path, "", "")
        click.echo(f"Wrote {path}. Your local server is used from now on.")
        return
    address = (address or "").rstrip("/")
    _require_server(address)
    token = _token()
    health = _let_in(address, token)
    _keep(path, address, token)
    click.echo(f"{address} (version {health.version}, {health.database}) is used from now on. Wrote {path}")
    _warn(address, path)


def _require_server(address: str) -> None:
    """Check that there is a server with which this version can communicate.

    Raises:
        ConfigError: the address is invalid.
        ServerUnavailable: nothing responds there, or not the way a Jobmon server would.
    """
    from jobmon.core.constants import MESSAGE_VERSION
    from jobmon.core.exceptions import InvalidResponse, ServerUnavailable
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import Health

    requester = Requester(address, request_timeout=ANSWER_SECONDS_MAX)
    try:
        health = requester.call("/health", None, Health, "get", tenacious=False)
    except InvalidResponse as error:
        raise ServerUnavailable(f"The program at {address} is not a Jobmon server: {error}") from error
    finally:
        requester.close()
    if health.message_version != MESSAGE_VERSION:
        raise ServerUnavailable(
            f"The server at {address} uses message version {health.message_version}, this Jobmon uses"
            f" {MESSAGE_VERSION}. Install the server's version of Jobmon here, or ask for an upgrade of the server."
        )


def _token() -> str:
    if is_terminal(sys.stdin):
        return str(click.prompt("Token", hide_input=True, default="", show_default=False)).strip()
    return "" if sys.stdin is None else sys.stdin.readline().strip()


def _let_in(address: str, token: str) -> Health:
    """Send a request that requires the token; return which server responded.

    Raises:
        InvalidRequest: the server does not accept it.
    """
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import Health, ServerTime

    requester = Requester(address, request_timeout=ANSWER_SECONDS_MAX, token=token)
    try:
        requester.call("/time", None, ServerTime, "get", tenacious=False)
        return requester.call("/health", None, Health, "get", tenacious=False)
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
    """Warn about settings that override the saved ones, and about an unencrypted connection."""
    import os

    from jobmon.agent import addresses
    from jobmon.core.configuration import config_file, environment_variable

    for key in ("service_url", "token"):
        variable = environment_variable("http", key)
        if variable in os.environ:
            click.echo(f"It has no effect now: {variable} in the environment takes precedence.", err=True)
    in_force = config_file()
    if in_force is not None and in_force.resolve() != path.resolve():
        click.echo(f"It has no effect here: {in_force} takes precedence.", err=True)
    every = [addresses.parse(one) for one in addresses.split(address)]
    if any(not one.is_secure and one.host not in _LOCAL for one in every):
        click.echo(
            "The connection is not encrypted: everything except the token can be read on the network. Use https.",
            err=True,
        )
