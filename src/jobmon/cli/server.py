"""`jobmon server`: the embedded server of the data folder, and a shared server; `status` describes the one in use."""

from __future__ import annotations

import collections
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from jobmon.cli.groups import Group
from jobmon.cli.main import EXIT_FAILED, EXIT_NO_SERVER
from jobmon.cli.references import Number
from jobmon.cli.rendering import OUTPUT
from jobmon.core.exceptions import ConfigError

if TYPE_CHECKING:
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import AccessFile, Metrics, User

FOLLOW_INTERVAL_SECONDS: Final = 0.25
#: How long to wait for the server to report who uses it before it is stopped, seconds.
USERS_SECONDS_MAX: Final = 3.0


@click.group(cls=Group)
def server() -> None:
    """Manage your local server. It starts automatically, and stops when it is no longer used."""


@server.command(epilog="Example: jobmon server run --config /etc/jobmon/jobmon.yaml")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Configuration file of the server. Default: the file in use.",
)
def run(config_file: Path | None) -> None:
    """Run a shared server in the foreground, as a service does; `docs/howto/shared-server.md` explains it.

    Its settings are `db.sqlalchemy_database_uri`, `http.token` and those of the sections `server`, `auth` and `notify`.
    """
    import gc
    import os

    from jobmon.core.configuration import FILE_VARIABLES

    if config_file is not None:
        os.environ[FILE_VARIABLES[0]] = str(config_file.absolute())
    gc.disable()  # until everything is loaded (`loops.run_process`), because none of it becomes garbage
    from jobmon.server.process import main

    sys.exit(main([]))


@server.command(epilog="Example: jobmon server start")
@click.option(
    "--take-over",
    is_flag=True,
    help="Start it here even though it last ran on another host, which is gone for good.",
)
def start(take_over: bool) -> None:
    """Start the server, or show where it runs."""
    from jobmon.core import access

    if take_over:
        _take_over()
        return
    found = access.find_server()
    if found is not None:
        click.echo(f"The server is already running: {_described(found)}")
        return
    click.echo(f"Started: {_described(access.ensure_server())}")


def _take_over() -> None:
    from datetime import UTC, datetime

    from jobmon.cli import rendering
    from jobmon.core import access

    copied_at = access.copied_at()
    before = access.read_access_file()
    found = access.take_over()
    if before is not None and found.incarnation == before.incarnation:
        click.echo(f"The server is already running here: {_described(found)}")
        return
    click.echo(f"Started: {_described(found)}")
    if copied_at is not None:
        age = rendering.duration((datetime.now(UTC) - copied_at).total_seconds())
        click.echo(
            f"It starts from the copy of the database made at {rendering.local_time(copied_at)}, {age} ago: anything"
            " recorded since then is lost."
        )


@server.command(epilog="Example: jobmon server stop")
@click.option(
    "-t",
    "--timeout",
    type=Number(min=0),
    default=30.0,
    show_default=True,
    help="Longest wait for it to stop, in seconds.",
)
def stop(timeout: float) -> None:
    """Stop the server. Lists the scripts that still use it; they start it again."""
    from jobmon.core import access

    found = access.find_server()
    users = [] if found is None else _living_users(found)
    if not access.stop_server(timeout):
        click.echo("No server is running.")
        return
    click.echo("Stopped.")
    if users:
        click.echo("These processes still use it and will restart it:")
        for user in users:
            click.echo(
                f"  {user.part} of workflow {user.workflow_id} (run {user.workflow_run_id}):"
                f" process {user.pid} on {user.host}"
            )
        click.echo("They exit with their workflows; to stop one: jobmon workflow stop ID")


def _living_users(found: AccessFile) -> list[User]:
    """Return the server's known users, except those that are certainly gone; none if it does not respond."""
    import contextlib

    from jobmon.core import paths
    from jobmon.core.exceptions import JobmonError
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import UsersResponse

    def lives(user: User) -> bool:
        if not paths.has_seen_start(user.pid_start_time):
            return not user.is_silent
        return paths.is_process_alive(user.pid, user.pid_start_time)

    requester = Requester(found.address, token=found.token, request_timeout=USERS_SECONDS_MAX)
    with contextlib.suppress(JobmonError), contextlib.closing(requester):
        answer = requester.call("/server/users", None, UsersResponse, "get", tenacious=False)
        return [user for user in answer.users if lives(user)]
    return []


@server.command(epilog="Example: jobmon server status -o json")
@OUTPUT
@click.pass_context
def status(context: click.Context, output: str) -> None:
    """Show whether the server is running, and where. Exit code 3 if it is not.

    With http.service_url set, this is the shared server.
    """
    from jobmon.cli import rendering

    shown, why = _state()
    if output == "json":
        rendering.show_json(shown)
    elif shown["running"]:
        rendering.show_pairs(shown)
    else:
        click.echo(why)
    if not shown["running"]:
        context.exit(EXIT_NO_SERVER)


def _state() -> tuple[dict[str, Any], str]:
    """Return what is known about the server in use and, if it is not running, a sentence that says so."""
    from jobmon.cli.lookups import shared_server
    from jobmon.core import access

    if (shared := shared_server()) is not None:
        return _state_of_shared(shared)
    found = access.find_server()
    if found is None:
        return {"running": False}, "No server is running. The next workflow or 'jobmon server start' starts one."
    return {**_shown(found), **_activity()}, ""


def _state_of_shared(server: Requester) -> tuple[dict[str, Any], str]:
    import contextlib

    from jobmon.cli.lookups import about
    from jobmon.core.exceptions import ServerUnavailable

    try:
        with contextlib.closing(server):
            health, metrics = about(server)
    except ServerUnavailable as error:
        return {"running": False, "address": server.url}, str(error)
    known = {
        "running": True,
        "address": server.url,
        "version": health.version,
        "started_at": health.started_at,
        "database": health.database,
    }
    return known | _activity_of(metrics), ""


@server.command(epilog="Example: jobmon server logs -n 100")
@click.option(
    "-n", "--lines", type=click.IntRange(min=1), default=50, show_default=True, help="Print the last N lines."
)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines, until Ctrl-C.")
def logs(lines: int, follow: bool) -> None:
    """Print the end of the server's log."""
    from jobmon.core import access

    path = access.server_log_path()
    if not path.is_file():
        raise click.ClickException(f"There is no log at {path}: no server has run with this data folder.")
    _print_log(path, lines, follow)


@server.command("test-notifications", epilog="Example: jobmon server test-notifications")
def test_notifications() -> None:
    """Send a test message to each address in notify.urls, from here. Exit code 1 if one was not accepted."""
    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.paths import user_name
    from jobmon.server.notifications import Message, place_of, url_for
    from jobmon.server.notifier import require_apprise, send

    config = JobmonConfig()
    urls = config.parsed("notify", "urls")
    config.parsed("notify", "events")  # with invalid ones, the server would not start
    if not urls:
        raise ConfigError("Nobody is notified: set notify.urls.")
    require_apprise()
    user = user_name()
    message = Message(user=user, title="Jobmon: test", body="Notifications from Jobmon arrive here.")
    failed = 0
    for number, url in enumerate(urls):
        full = url_for(url, user)
        reason = f"there is no address for user {user!r}" if full is None else send(full, message)
        failed += bool(reason)
        click.echo(f"{'FAIL' if reason else 'ok  '} {place_of(number, url)}{reason and ': '}{reason}")
    if failed:
        raise click.exceptions.Exit(EXIT_FAILED)


def _print_log(path: Path, lines: int, follow: bool) -> None:
    with path.open("rb") as stream:
        for line in collections.deque(stream, maxlen=lines):
            click.echo(line.decode(errors="replace"), nl=False)
        while follow:
            _print_new(stream)


def _print_new(stream: BinaryIO) -> None:
    added = stream.read()
    if added:
        click.echo(added.decode(errors="replace"), nl=False)
    else:
        time.sleep(FOLLOW_INTERVAL_SECONDS)


def _described(found: AccessFile) -> str:
    return f"process {found.pid} on {found.host}, {found.address}"


def _activity() -> dict[str, Any]:
    """Return what the server is doing; unknown values if it does not respond."""
    import contextlib

    from jobmon.core.exceptions import JobmonError
    from jobmon.core.requester import Requester
    from jobmon.core.wire.server import Metrics

    with contextlib.suppress(JobmonError):
        requester = Requester("", embedded=True)
        metrics = requester.call("/metrics", None, Metrics, "get", tenacious=False)
        requester.close()
        return _activity_of(metrics)
    return {"active_runs": None, "active_attempts": None, "database_bytes": None}


def _activity_of(metrics: Metrics) -> dict[str, Any]:
    return {
        "active_runs": metrics.active_runs,
        "active_attempts": metrics.active_attempts,
        "database_bytes": metrics.database_bytes,
    }


def _shown(found: AccessFile) -> dict[str, Any]:
    """Return everything except the token and the database's password."""
    from jobmon.cli import rendering
    from jobmon.core.configuration import data_directory

    return {
        "running": True,
        "host": found.host,
        "pid": found.pid,
        "address": found.address,
        "socket": found.socket,
        "version": found.version,
        "started_at": found.started_at,
        "database": rendering.without_password(found.database),
        "data_directory": str(data_directory()),
    }
