"""`jobmon doctor`: check everything a run needs; each line is ok, or says what to fix."""

from __future__ import annotations

import os
import shutil
import stat
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from jobmon.cli.main import EXIT_FAILED
from jobmon.cli.rendering import OUTPUT
from jobmon.core.descriptors import is_terminal
from jobmon.core.terminal import unguarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.requester import Requester

FREE_BYTES_MIN: Final = 1024**3
LATENCY_REQUESTS: Final = 10
LATENCY_SECONDS_MAX: Final = 0.25
CLOCK_SECONDS_MAX: Final = 5.0
WORKER_SECONDS_MAX: Final = 1.0
#: How many starts are measured if the earlier ones were slow: a busy machine is not a slow file system.
WORKER_STARTS_MAX: Final = 5
WORKER_TIMEOUT_SECONDS: Final = 30.0
SERVER_TRIES: Final = 2
LOGIND_FILE: Final = Path("/etc/systemd/logind.conf")
_IMPORT_WORKER: Final = "import sys; sys.path.append(sys.argv[1]); import jobmon.worker_node.process"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked, what was found, and what to do about it; no advice means that it is fine."""

    what: str
    found: str
    advice: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether nothing needs to be done."""
        return not self.advice


@click.command(epilog="Example: jobmon doctor")
@OUTPUT
def doctor(output: str) -> None:
    """Check settings, data folder, server, clusters, the start of workers, and clocks.

    Exit code 1 if something needs fixing.
    """
    from jobmon.cli import rendering

    findings = list(examined())
    if output == "json":
        rendering.show_json(
            [{"what": one.what, "fine": one.is_fine, "found": one.found, "advice": one.advice} for one in findings]
        )
    else:
        for one in findings:
            mark = click.style("ok ", fg="green") if one.is_fine else click.style("FIX", fg="red")
            colour = is_terminal(sys.stdout) and "NO_COLOR" not in os.environ
            click.echo(f"{mark}  ", file=unguarded(sys.stdout), nl=False, color=colour)
            click.echo(f"{one.what}: {one.found}")
            if one.advice:
                click.echo(f"      {one.advice}")
    if not all(one.is_fine for one in findings):
        raise click.exceptions.Exit(EXIT_FAILED)


def examined() -> Iterator[Finding]:
    """Yield one finding after another; skip checks that depend on something broken."""
    from jobmon.core.configuration import JobmonConfig, data_directory
    from jobmon.core.exceptions import ConfigError

    try:
        config = JobmonConfig()
        yield settings(config)
    except ConfigError as error:
        yield Finding("settings", str(error), "All settings: jobmon config show")
        return
    yield shell(config)
    yield from data_folder(data_directory())
    yield runtime_folder()
    yield worker()
    yield memory(config)
    yield logout()
    yield from notifications(config)
    yield from _server(config)


def settings(config: JobmonConfig) -> Finding:
    """Read every setting once.

    Raises:
        ConfigError: a setting cannot be read.
    """
    from jobmon.core.configuration import SETTINGS

    config.check()
    changed = sum(
        config.origin(section, key)[1] != "default" for section, entries in SETTINGS.items() for key in entries
    )
    file = config.filepath or "no file"
    return Finding("settings", f"{changed} differ from their defaults ({file})")


def shell(config: JobmonConfig) -> Finding:
    """Check whether the shell of the settings can run commands."""
    from jobmon.agent.shells import DEFAULT_SHELL, shell_problem

    text = str(config.get("worker_node", "shell"))
    if not (problem := shell_problem(text)):
        return Finding("shell", text)
    advice = f"Set worker_node.shell: jobmon config set worker_node.shell {DEFAULT_SHELL}"
    return Finding("shell", f"{text} cannot run commands: {problem}", advice)


def data_folder(folder: Path) -> Iterator[Finding]:
    """Check permissions, file system and space of the data folder."""
    from jobmon.core import paths
    from jobmon.core.exceptions import ConfigError

    try:
        paths.make_private(folder)
    except ConfigError as error:
        yield Finding(
            "data folder", str(error), "Make it writable for yourself, or set JOBMON_DATA_DIR to another folder."
        )
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    yield Finding("data folder", f"{folder}, permissions {mode:o}")
    mounted = paths.mounts()
    kind = paths.file_system_type(folder, mounted) or "unknown"
    home = paths.database_directory(folder, mounted)
    where = (
        ""
        if home == folder
        else f"; the database is in {home}, because this is a network file system{_instead()}{_copy(folder)}"
    )
    yield Finding("file system", f"{kind}{where}")
    yield _space(home if home.exists() else folder)


def _instead() -> str:
    from jobmon.core import paths

    taken = paths.taken_local_folder()
    return "" if taken is None else f" and {taken} belongs to another user"


def _copy(folder: Path) -> str:
    from jobmon.cli import rendering
    from jobmon.core import access

    copied_at = access.copied_at(folder)
    return "" if copied_at is None else f"; it was last copied at {rendering.local_time(copied_at)}"


def runtime_folder() -> Finding:
    """Report where sockets and journals are, and why they are not in the usual folder."""
    from jobmon.core import paths
    from jobmon.core.configuration import data_directory
    from jobmon.core.exceptions import ConfigError

    try:
        folder, problems = paths.chosen_runtime_directory()
    except ConfigError as error:
        return Finding("runtime folder", str(error), "Set XDG_RUNTIME_DIR to a private folder of yours.")
    instead = f", because {'; '.join(problems)}" if problems else ""
    if paths.socket_path(data_directory(), "server") is None:
        instead += "; its path is too long for sockets, so the server is reached at 127.0.0.1"
    return Finding("runtime folder", f"{folder}{instead}")


def _space(folder: Path) -> Finding:
    from jobmon.cli import rendering

    free = shutil.disk_usage(folder).free
    found = f"{rendering.size(free)} free in {folder}"
    return Finding(
        "space",
        found,
        "" if free >= FREE_BYTES_MIN else "Free some space: the database and all output are stored there.",
    )


def worker() -> Finding:
    """Start a process the way a cluster's workers are started."""
    import jobmon.worker_node

    source = str(Path(jobmon.worker_node.__file__ or "").parents[2])
    seconds = WORKER_TIMEOUT_SECONDS
    try:
        for _ in range(WORKER_STARTS_MAX):
            began = time.monotonic()
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", _IMPORT_WORKER, source],
                check=True,
                capture_output=True,
                timeout=WORKER_TIMEOUT_SECONDS,
            )
            seconds = min(seconds, time.monotonic() - began)
            if seconds <= WORKER_SECONDS_MAX:
                break
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("worker", f"does not start: {error}", f"Reinstall Jobmon for {sys.executable}.")
    advice = "" if seconds <= WORKER_SECONDS_MAX else "Slow; install Python and Jobmon on a faster file system."
    return Finding("worker", f"starts in {seconds * 1000:.0f} ms", advice)


def memory(config: JobmonConfig) -> Finding:
    """Report how the memory requests of local commands are enforced, by trying it the way a run does."""
    from jobmon.agent import cgroups

    what = "memory of local commands"
    if not config.get_boolean("supervisor", "cgroups"):
        return Finding(what, "enforced by measuring; supervisor.cgroups is off")
    groups = cgroups.found()
    if groups is None:
        return Finding(what, "enforced by measuring; no cgroup that limits memory can be created from here")
    groups.close()
    return Finding(what, f"limited by cgroups below {groups.base}")


def logout(file: Path = LOGIND_FILE) -> Finding:
    """Check whether a logout terminates the processes of the user."""
    try:
        lines = [line.strip().replace(" ", "").lower() for line in file.read_text(errors="replace").splitlines()]
    except OSError:
        lines = []
    if "killuserprocesses=yes" in lines:
        advice = "To let runs survive it: loginctl enable-linger, and start them with systemd-run --user --scope."
        return Finding("logout", "terminates the processes of users here", advice)
    return Finding("logout", "leaves your processes running")


def notifications(config: JobmonConfig) -> Iterator[Finding]:
    """Check the addresses in `notify.urls`, without sending anything."""
    from jobmon.core.texts import number_of

    urls = config.parsed("notify", "urls")
    if not urls:
        return
    from jobmon.server.notifier import check

    wrong = check(urls)
    for sentence in wrong:
        yield Finding("notifications", sentence, "Test them: jobmon server test-notifications")
    if not wrong:
        yield Finding("notifications", f"{number_of(len(urls), 'receiver')} configured")


def _server(config: JobmonConfig) -> Iterator[Finding]:
    from jobmon.core.configuration import JobmonConfig as Config
    from jobmon.core.exceptions import JobmonError
    from jobmon.core.requester import Requester

    try:
        found = Config(config.filepath or "", {"http": {"retries_attempts": SERVER_TRIES, "retries_timeout": 10}})
        requester = Requester.from_defaults(found)
        checks: tuple[Callable[[Requester], Iterator[Finding]], ...] = (_about_server, _clusters)
        for check in checks:
            yield from check(requester)
    except JobmonError as error:
        log = "" if config.get("http", "service_url") else " See: jobmon server logs"
        yield Finding("server", str(error), f"Start it, or correct http.service_url.{log}")


def _about_server(requester: Requester) -> Iterator[Finding]:
    from jobmon.core.constants import MESSAGE_VERSION
    from jobmon.core.wire.server import Health, Metrics

    times = []
    for _ in range(LATENCY_REQUESTS):
        began = time.monotonic()
        health = requester.call("/health", {}, Health, "get")
        times.append(time.monotonic() - began)
    latency = statistics.median(times)
    slow = "" if latency <= LATENCY_SECONDS_MAX else "Slow; check the load of the network and the server."
    socket = requester.target.socket
    where = f"{requester.url} (through socket {socket})" if socket else requester.url
    yield Finding("server", f"{where}, {health.database}, responds in {latency * 1000:.1f} ms", slow)
    yield _version(health.version, health.message_version == MESSAGE_VERSION)
    before = datetime.now(UTC)
    metrics = requester.call("/metrics", {}, Metrics, "get")
    middle = before + (datetime.now(UTC) - before) / 2
    if metrics.migration:
        yield Finding("database", f"schema {metrics.migration}")
    if metrics.now:
        yield clock((datetime.fromisoformat(metrics.now) - middle).total_seconds())


def _version(version: str, is_understood: bool) -> Finding:
    from importlib import metadata

    mine = metadata.version("jobmon")
    if version == mine:
        return Finding("version", f"server and command line are {mine}")
    found = f"the server is {version}, the command line is {mine}"
    if is_understood:
        return Finding("version", f"{found}; they are compatible")
    return Finding("version", found, "Install the server's version here, or ask for an upgrade of the server.")


def clock(seconds: float) -> Finding:
    """Return a finding about how far the server's clock is ahead of ours."""
    found = f"differs from the server's by {abs(seconds):.1f} s"
    return Finding(
        "clock", found, "" if abs(seconds) <= CLOCK_SECONDS_MAX else "Synchronize it with a time server (NTP)."
    )


def _clusters(requester: Requester) -> Iterator[Finding]:
    from jobmon.core import cluster as plugins
    from jobmon.core.exceptions import PluginError
    from jobmon.core.wire.definition import ClustersResponse

    found = requester.call("/clusters", {}, ClustersResponse, "get").clusters
    for cluster in found:
        what = f"cluster {cluster.name}"
        try:
            plugins.load_plugin(cluster.plugin)
        except PluginError as error:
            yield Finding(what, str(error), f"Install the plug-in, or: jobmon cluster remove {cluster.name}")
            continue
        queues = ", ".join(queue.queue_name for queue in cluster.queues)
        if queues:
            yield Finding(what, f"plug-in {cluster.plugin}, queues {queues}")
        else:
            yield Finding(what, f"plug-in {cluster.plugin}, no queues", "Add it again with a queue: jobmon cluster add")
    if not found:
        names = ", ".join(plugins.plugin_names())
        yield Finding("clusters", f"none recorded yet; installed plug-ins: {names}")
