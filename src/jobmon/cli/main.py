"""The command `jobmon`: groups loaded when needed, errors in one line, exit codes.

0 fine, 1 work failed, 2 wrong use (arguments, settings, unknown ids, malformed files), 3 no server, 130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.core.exceptions import (
    DistributorInterruptedError,
    InvalidRequest,
    InvalidResponse,
    JobmonError,
    ServerUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click.shell_completion import CompletionItem

EXIT_FAILED: Final = 1
EXIT_WRONG_USE: Final = 2
EXIT_NO_SERVER: Final = 3
EXIT_INTERRUPTED: Final = 130
#: How a server ends its answer to what it does not know.
_NO_ROUTE: Final = (": Not Found.", ": Method Not Allowed.")

#: Command or group -> module, name in it, one line for the list of commands.
COMMANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "cluster": ("jobmon.cli.cluster", "cluster", "Clusters: which there are; add one, remove one."),
    "completion": ("jobmon.cli.completion", "completion", "What makes a shell complete commands and ids."),
    "config": ("jobmon.cli.config", "config", "Settings: what is in force and where it comes from."),
    "db": ("jobmon.cli.db", "db", "The database: its revision, upgrade, purge, export."),
    "doctor": ("jobmon.cli.doctor", "doctor", "Check everything that a run needs; say what to do."),
    "login": ("jobmon.cli.login", "login", "Use the server of an institute, or your own again."),
    "server": ("jobmon.cli.server", "server", "The server of one's own: start, stop, status, logs."),
    "task": ("jobmon.cli.task", "task", "One task: status, output, why it does not run."),
    "ui": ("jobmon.cli.ui", "ui", "Open the web page of the server."),
    "version": ("jobmon.cli.version", "version", "Print the version."),
    "workflow": ("jobmon.cli.workflow", "workflow", "Workflows: status, errors, why they do not go on, steering."),
}


def exit_code(error: JobmonError) -> int:
    """Tell with which code a command ends that met this error; errors in values are wrong use."""
    if isinstance(error, ServerUnavailable):
        return EXIT_NO_SERVER
    if isinstance(error, DistributorInterruptedError):
        return EXIT_INTERRUPTED
    return EXIT_WRONG_USE if isinstance(error, InvalidRequest | ValueError) else EXIT_FAILED


class Commands(click.Group):
    """The top group: knows its commands by name and imports them when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names for the list of commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands without importing them."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=COMMANDS[name][2]) for name in COMMANDS if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of Jobmon becomes one line and an exit code, never a traceback."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names are in any script, terminals are not
                stream.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except JobmonError as error:
            click.echo(f"Error: {error}{_hint(error)}", err=True)
            raise click.exceptions.Exit(exit_code(error)) from error


def _hint(error: JobmonError) -> str:
    """Say what a route that the server does not have, or an answer that nobody understands, most likely means."""
    is_strange = isinstance(error, InvalidResponse) or str(error).endswith(_NO_ROUTE)
    return " The server may be of another version than these commands: jobmon doctor." if is_strange else ""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run and watch workflows of many commands, on a laptop or on a cluster.

    Exit codes: 0 fine, 1 work failed, 2 wrong use, 3 no server, 130 interrupted.
    """
