"""`jobmon login`: use a shared server instead of your local one."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from jobmon.core.descriptors import is_terminal

if TYPE_CHECKING:
    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.requester import Requester
    from jobmon.core.wire.credentials import TokenResponse
    from jobmon.core.wire.login import DeviceStart
    from jobmon.core.wire.server import Health

ANSWER_SECONDS_MAX: Final = 10.0
#: The server waits that long for its login provider, and for a while more for us, seconds.
LOGIN_ANSWER_SECONDS_MAX: Final = 30.0
#: Bounds of the pause between two questions whether the user has logged in, seconds.
PAUSE_SECONDS_MIN: Final = 0.2
PAUSE_SECONDS_MAX: Final = 60.0
#: How much longer the pauses become when the provider demands it, seconds.
SLOWER_SECONDS: Final = 5.0
#: `Health.login` of a server with a login provider.
OIDC: Final = "oidc"
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")


@click.command(epilog="Example: jobmon login https://jobmon.example.org")
@click.argument("address", required=False)
@click.option("--with-token", is_flag=True, help="Ask for a token even if the server has a login provider.")
@click.option("--forget", is_flag=True, help="Use your local server again.")
@click.option(
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file. Default: ~/.jobmon.yaml.",
)
def login(address: str | None, with_token: bool, forget: bool, config_file: Path | None) -> None:
    """Log in to a shared server, and save its address and your token in ~/.jobmon.yaml, readable only by you.

    If the server has a login provider, log in there with any browser; this command then gets a token. Otherwise the
    token is prompted for; without a terminal, it is read from the first line of standard input. Leave it empty if the
    server needs none.
    """
    if forget == bool(address):
        raise click.UsageError("Give either the ADDRESS of a server, such as https://jobmon.example.org, or --forget.")
    path = config_file or Path.home() / ".jobmon.yaml"
    if forget:
        _keep(path, "", "")
        click.echo(f"Wrote {path}. Your local server is used from now on.")
        return
    address = (address or "").rstrip("/")
    has_provider = _require_server(address).login == OIDC
    token = "" if has_provider and not with_token and is_terminal(sys.stdin) else _token()
    if has_provider and not token and not with_token:
        token = _logged_in(address)
    health = _let_in(address, token)
    _keep(path, address, token)
    click.echo(f"{address} (version {health.version}, {health.database}) is used from now on. Wrote {path}")
    _warn(address, path)


def _require_server(address: str) -> Health:
    """Check that there is a server with which this version can communicate; return what it says.

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
    return health


def _token() -> str:
    if is_terminal(sys.stdin):
        return str(click.prompt("Token", hide_input=True, default="", show_default=False)).strip()
    return "" if sys.stdin is None else sys.stdin.readline().strip()


def _logged_in(address: str) -> str:
    """Let the user log in with a browser; return the token that the server then creates.

    Raises:
        ConfigError: the token would travel unencrypted.
        InvalidRequest: the login failed.
    """
    from jobmon.agent import addresses
    from jobmon.core.exceptions import ConfigError
    from jobmon.core.requester import Requester
    from jobmon.core.wire.login import DeviceStart

    parts = addresses.parse(address)
    if not parts.is_secure and parts.host not in _LOCAL:
        raise ConfigError(f"{address}: use https, because a login sends a token. Or log in with --with-token.")
    requester = Requester(address, request_timeout=LOGIN_ANSWER_SECONDS_MAX)
    try:
        device = requester.call("/login/device", {}, DeviceStart, tenacious=False)
        return _by_device(requester, device) if device.handle else _by_code(requester)
    finally:
        requester.close()


def _by_device(requester: Requester, device: DeviceStart) -> str:
    """Wait until the user has logged in on any device.

    Raises:
        InvalidRequest: the user declined or took too long.
    """
    from jobmon.core.exceptions import InvalidRequest, ServerUnavailable
    from jobmon.core.terminal import plain_line
    from jobmon.core.wire.login import DeviceLogin, DeviceReply

    click.echo("Open this address in a browser, on any machine, and log in:", err=True)
    click.echo(f"  {plain_line(device.verification_uri_complete or device.verification_uri)}", err=True)
    click.echo(f"The code is {plain_line(device.user_code)}. Confirm only this one.", err=True)
    pause = device.interval_seconds
    deadline = time.monotonic() + device.expires_in_seconds
    message = DeviceLogin(handle=device.handle, label=_label())
    while time.monotonic() < deadline:
        time.sleep(min(max(pause, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX))
        try:
            reply = requester.call("/login/device/token", message, DeviceReply, tenacious=False)
        except ServerUnavailable as error:
            click.echo(str(error), err=True)
            pause += SLOWER_SECONDS
            continue
        if reply.token is not None:
            return _welcomed(reply.token)
        pause += SLOWER_SECONDS if reply.slow_down else 0.0
    raise InvalidRequest("Nobody has logged in within the time that the provider allows. Retry: jobmon login ADDRESS")


def _by_code(requester: Requester) -> str:
    """Let the user log in on the web page, which then shows a code to paste here. Every provider supports this."""
    import hashlib

    from jobmon.core.credentials import new_secret
    from jobmon.core.terminal import plain_line
    from jobmon.core.wire.credentials import TokenResponse
    from jobmon.core.wire.login import LoginRequest, LoginStart, Purpose, TokenLogin

    secret = new_secret()
    request = LoginRequest(purpose=Purpose.TOKEN, challenge=hashlib.sha256(secret.encode()).hexdigest())
    start = requester.call("/login/start", request, LoginStart, tenacious=False)
    click.echo("Open this address in a browser, on any machine, and log in:", err=True)
    click.echo(f"  {plain_line(start.url)}", err=True)
    code = str(click.prompt("Code that the page shows then", err=True)).strip()
    message = TokenLogin(state=start.state, code=code, secret=secret, label=_label())
    return _welcomed(requester.call("/login/token", message, TokenResponse, tenacious=False))


def _label() -> str:
    import socket

    return socket.gethostname()


def _welcomed(response: TokenResponse) -> str:
    """Tell who has logged in; return the token."""
    from jobmon.cli import rendering

    token = response.token
    click.echo(f"Logged in as {token.user}, until {rendering.local_time(token.expires_at)}.", err=True)
    return response.secret


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
    from jobmon.agent import trust
    from jobmon.core import paths
    from jobmon.core.configuration import JobmonConfig

    with paths.trusting():
        trust.make_private_file(trust.resolved(str(path)))
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
