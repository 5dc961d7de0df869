"""`jobmon ui`: open the server's web page in a browser, without typing a password.

The address ends with a code that the page exchanges once for a session: it reads and steers workflows, and expires with
the server's process. With `--share` the address ends with a key instead, which grants only read access, for a limited
time, until all such keys are revoked. Both are after `#`, which browsers do not send. The browser does not get them on
its command line, which all users of this host can see, but in a private file that redirects.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import click

from jobmon.cli.references import Number, workflow_option
from jobmon.cli.rendering import OUTPUT
from jobmon.core.credentials import LINK_DAYS, LINK_DAYS_MAX

if TYPE_CHECKING:
    from pathlib import Path

    from jobmon.core.requester import Requester
    from jobmon.core.wire.credentials import LinkResponse

START_FILE_NAME: Final = "open-page.html"
PROBE_SECONDS_MAX: Final = 2.0
_START_FILE: Final = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url={url}">
<title>Jobmon</title>
<a href="{url}">Jobmon</a>
"""


@click.command(epilog="Example: jobmon ui -w 5")
@workflow_option(help="Show this workflow first.")
@click.option(
    "--share", is_flag=True, help="Print an address to hand on: it is read-only and can be opened repeatedly."
)
@click.option("--only", is_flag=True, help="Restrict a shared address to that workflow.")
@click.option(
    "--days",
    type=Number(0, LINK_DAYS_MAX, min_open=True),
    help=f"How long a shared address is valid, days. Default: {LINK_DAYS:g}.",
)
@click.option("--revoke", is_flag=True, help="Invalidate all addresses printed so far.")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
@OUTPUT
def ui(
    *,
    workflow_id: int | None,
    share: bool,
    only: bool,
    days: float | None,
    revoke: bool,
    no_browser: bool,
    output: str,
) -> None:
    """Open the web page: workflows, their progress, failures, and buttons to steer them.

    The printed address can be opened once, within an hour. To let others read along, use --share: anyone who has that
    address can read everything there, except values of env, and change nothing. --only and --days imply --share.
    """
    if only and workflow_id is None:
        raise click.UsageError("--only needs a workflow: -w ID.")
    from jobmon.cli import rendering
    from jobmon.client.api_calls import workflow_summary
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import ServerTime

    requester = Requester.from_defaults()
    if revoke:
        requester.call("/page/links", None, dict, "delete")
        click.echo("All addresses of the web page are now invalid, and open pages are closed.", err=True)
        return
    if workflow_id is None:
        requester.call("/time", None, ServerTime, "get")  # a page without a server would be blank
    else:
        workflow_summary(requester, workflow_id)
    base = _base(requester)
    link = _link(requester, workflow_id if only else None, days, is_shared=share or only or days is not None)
    address = _address(base, link.key, workflow_id)
    is_opened = not no_browser and _open(address)
    tunnel = _tunnel(base)
    if output == "json":
        shown = {"address": address, "expires_at": link.expires_at, "opened": is_opened, "tunnel": tunnel}
        rendering.show_json(shown)
        return
    click.echo(address)
    if is_opened:
        click.echo("Opened in a browser.", err=True)
    elif not no_browser:
        click.echo("No browser is available here; open this address in one.", err=True)
    if tunnel:
        click.echo(f"From another machine: {tunnel}, and open the same address there.", err=True)


def _link(requester: Requester, workflow_id: int | None, days: float | None, *, is_shared: bool) -> LinkResponse:
    """Return the key of a shared address, or a code for one page of our own."""
    from jobmon.core.wire.credentials import LinkRequest, LinkResponse

    if not is_shared:
        return requester.call("/page/codes", {}, LinkResponse)
    request = LinkRequest(workflow_id=workflow_id, days=LINK_DAYS if days is None else days)
    return requester.call("/page/links", request, LinkResponse)


def _base(requester: Requester) -> str:
    """Return the address for browsers. A local server that other hosts can reach, too, is addressed by the loopback."""
    from jobmon.agent import addresses
    from jobmon.core import access, paths
    from jobmon.core.configuration import JobmonConfig

    own = None if JobmonConfig().get("http", "service_url") else access.find_server()
    parts = addresses.parse(requester.url)
    if own is None or paths.is_loopback(parts.host):
        return requester.url
    loopback = f"http://127.0.0.1:{parts.port}"
    return loopback if _process_at(loopback, own.token) == own.pid else requester.url


def _process_at(address: str, token: str) -> int | None:
    """Return the process ID of the server with this token at an address; None: there is none."""
    from jobmon.core.exceptions import JobmonError
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import Health

    requester = Requester(address, request_timeout=PROBE_SECONDS_MAX, token=token)
    try:
        return requester.call("/health", None, Health, "get", tenacious=False).pid
    except JobmonError:
        return None
    finally:
        requester.close()


def _address(base: str, key: str, workflow_id: int | None) -> str:
    """Return the address with the key and with what to show."""
    from jobmon.core.paths import user_name

    place = "/" if workflow_id is None else f"/workflows/{workflow_id}"
    words = {"key": key, "user": user_name(), "go": place}
    return f"{base}/#{urlencode(words)}"


def _tunnel(base: str) -> str:
    """Return the command that makes this host's loopback address available on another machine."""
    import socket

    from jobmon.agent import addresses
    from jobmon.core import paths

    parts = addresses.parse(base)
    if not paths.is_loopback(parts.host):
        return ""
    return f"ssh -L {parts.port}:127.0.0.1:{parts.port} {socket.gethostname()}"


def _open(address: str) -> bool:
    """Show the address in a browser; return whether there is one. A browser that runs in this terminal does not count.

    BROWSER overrides the browser of the desktop.
    """
    import webbrowser

    has_screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not (has_screen or os.environ.get("BROWSER")):
        return False
    try:
        return webbrowser.open(_start_file(address).as_uri())
    except webbrowser.Error:
        return False


def _start_file(address: str) -> Path:
    """Write the file that redirects to the address; only we can read it."""
    import html

    from jobmon.core.configuration import data_directory
    from jobmon.core.paths import make_private

    path = make_private(data_directory()) / START_FILE_NAME
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_START_FILE.format(url=html.escape(address)))
    return path
