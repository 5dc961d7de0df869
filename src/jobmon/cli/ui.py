"""`jobmon ui`: the web page of the server, opened in a browser and let in without a password to be typed.

The address ends with a key that lets read and nothing else. It stands behind `#`, which browsers send to nobody. A
browser is not given it on its command line, which everybody on this host can see, but a private file that leads there.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

import click

from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import workflow_option

if TYPE_CHECKING:
    from pathlib import Path

    from jobmon.core.requester import Requester

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
@click.option("--no-browser", is_flag=True, help="Print the address only.")
@OUTPUT
def ui(workflow_id: int | None, no_browser: bool, output: str) -> None:
    """Open the web page: workflows, what they are at, what went wrong.

    The address that is printed lets whoever has it read everything there; it changes nothing.
    """
    from jobmon.cli import rendering
    from jobmon.cli.steering import workflow_summary
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import ServerTime

    requester = Requester.from_defaults()
    if workflow_id is None:
        requester.call("/time", None, ServerTime, "get")  # a page without a server would be blank
    else:
        workflow_summary(requester, workflow_id)
    base = _base(requester)
    address = _address(requester, base, workflow_id)
    is_opened = not no_browser and _open(address)
    tunnel = _tunnel(base)
    if output == "json":
        rendering.show_json({"address": address, "opened": is_opened, "tunnel": tunnel})
        return
    click.echo(address)
    if is_opened:
        click.echo("A browser is shown it.", err=True)
    elif not no_browser:
        click.echo("There is no browser here; open this address in one.", err=True)
    if tunnel:
        click.echo(f"From another machine: {tunnel}, and open the same address there.", err=True)


def _base(requester: Requester) -> str:
    """Return where browsers find the server. One of one's own that other hosts reach, too, answers on the loopback."""
    from jobmon.core import access, places
    from jobmon.core.configuration import JobmonConfig

    own = None if JobmonConfig().get("http", "service_url") else access.find_server()
    parts = urlsplit(requester.url)
    if own is None or places.is_loopback(parts.hostname or ""):
        return requester.url
    loopback = f"http://127.0.0.1:{parts.port}"
    return loopback if _process_at(loopback) == own.pid else requester.url


def _process_at(address: str) -> int | None:
    """Return the process of the server at an address; None: there is none."""
    from jobmon.core.exceptions import JobmonError
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import Health

    requester = Requester(address, request_timeout=PROBE_SECONDS_MAX)
    try:
        return requester.call("/health", None, Health, "get", tenacious=False).pid
    except JobmonError:
        return None
    finally:
        requester.close()


def _address(requester: Requester, base: str, workflow_id: int | None) -> str:
    """Return the address with the key and with what is to be shown."""
    from jobmon.client.binding import user_name
    from jobmon.core.access import page_key

    place = "/" if workflow_id is None else f"/workflows/{workflow_id}"
    token = requester.target.token
    words = {"key": page_key(token) if token else "", "user": user_name(), "go": place}
    return f"{base}/#{urlencode(words)}"


def _tunnel(base: str) -> str:
    """Return the command that makes an address of this host's loopback one of another machine's."""
    import socket

    from jobmon.core import places

    parts = urlsplit(base)
    if not places.is_loopback(parts.hostname or ""):
        return ""
    return f"ssh -L {parts.port}:127.0.0.1:{parts.port} {socket.gethostname()}"


def _open(address: str) -> bool:
    """Show the address in a browser; tell whether there is one. One that would take over this terminal does not count.

    BROWSER names another one than that of the desktop.
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
    """Write the file that leads to the address; only we can read it."""
    import html

    from jobmon.core.configuration import data_directory
    from jobmon.core.places import make_private

    path = make_private(data_directory()) / START_FILE_NAME
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_START_FILE.format(url=html.escape(address)))
    return path
