"""The command `jobmon`: loads groups when needed, prints errors in one line, and sets exit codes.

0 success, 1 failure, 2 usage error (arguments, settings, unknown IDs, malformed files), 3 no server, 130 interrupted.
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
    UntrustedFile,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click.shell_completion import CompletionItem
from jobmon.core.terminal import guarded
from jobmon.core.texts import SHOWN_CHARACTERS_MAX

EXIT_FAILED: Final = 1
EXIT_WRONG_USE: Final = 2
EXIT_NO_SERVER: Final = 3
EXIT_INTERRUPTED: Final = 130
#: How the server's error message for an unknown route or method ends.
_NO_ROUTE: Final = (": Not Found.", ": Method Not Allowed.")

#: What people type first, and names from older versions -> what to use.
_INSTEAD: Final[Mapping[str, str]] = {
    "run": "python my_workflow.py; to replay a recording: jobmon workflow run FILE",
    "list": "jobmon workflow status",
    "ls": "jobmon workflow status",
    "status": "jobmon workflow status, jobmon task status TASK or jobmon server status",
    "tasks": "jobmon workflow tasks WORKFLOW",
    "errors": "jobmon workflow errors WORKFLOW",
    "explain": "jobmon workflow explain WORKFLOW or jobmon task explain TASK",
    "logs": "jobmon task logs TASK, jobmon workflow logs WORKFLOW or jobmon server logs",
    "resume": "jobmon workflow resume WORKFLOW",
    "stop": "jobmon workflow stop WORKFLOW or jobmon server stop",
    "start": "jobmon workflow start SCRIPT or jobmon server start",
    "attach": "jobmon workflow attach WORKFLOW",
    "wait": "jobmon workflow wait WORKFLOW",
    "help": "jobmon --help, or jobmon COMMAND --help",
    "workflow_status": "jobmon workflow status -w ID",
    "workflow_tasks": "jobmon workflow tasks -w ID",
    "workflow_reset": "jobmon workflow reset -w ID",
    "workflow_resume": "jobmon workflow resume -w ID",
    "task_status": "jobmon task status -t ID",
    "update_task_status": "jobmon task update -t ID -s DONE",
    "task_dependencies": "jobmon task dependencies -t ID",
    "concurrency_limit": "jobmon workflow concurrency -w ID -m N",
    "get_filepaths": "jobmon workflow logs -w ID",
    "task_template_resources": "jobmon workflow resources usage TEMPLATE -w ID",
    "create_resource_yaml": "jobmon workflow resources yaml -w ID --file FILE",
    "update_config": "jobmon config set SECTION.KEY VALUE",
}

#: Command or group -> module, name in it, one line for the list of commands.
COMMANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "cluster": ("jobmon.cli.cluster", "cluster", "List, add and remove clusters."),
    "completion": ("jobmon.cli.completion", "completion", "Print a shell completion script."),
    "config": ("jobmon.cli.config", "config", "Show and change settings."),
    "db": ("jobmon.cli.db", "db", "Manage the database: upgrade, back up, purge, compact, export."),
    "doctor": ("jobmon.cli.doctor", "doctor", "Check settings, server, clusters and workers."),
    "login": ("jobmon.cli.login", "login", "Use a shared server, or your local one again."),
    "server": ("jobmon.cli.server", "server", "Manage your local server; run a shared one."),
    "task": ("jobmon.cli.task", "task", "Inspect tasks: status, output, why they do not run."),
    "token": ("jobmon.cli.token", "token", "Manage personal tokens of a shared server."),
    "ui": ("jobmon.cli.ui", "ui", "Open the web page."),
    "version": ("jobmon.cli.version", "version", "Print the version."),
    "workflow": ("jobmon.cli.workflow", "workflow", "Inspect and control workflows."),
}


def exit_code(error: JobmonError) -> int:
    """Return the exit code of a command that raised an error; invalid values are usage errors."""
    if isinstance(error, ServerUnavailable | UntrustedFile):
        return EXIT_NO_SERVER
    if isinstance(error, DistributorInterruptedError):
        return EXIT_INTERRUPTED
    return EXIT_WRONG_USE if isinstance(error, InvalidRequest | ValueError) else EXIT_FAILED


class CommandGroup(click.Group):
    """The top-level group: knows its commands by name and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names for the list of commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is no command of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, suggest the nearest name or its replacement."""
        name = args[0]
        if name.startswith("-") or name in COMMANDS:
            return super().resolve_command(ctx, args)
        from jobmon.cli.groups import unknown_command

        raise unknown_command(ctx, name, COMMANDS, _INSTEAD)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands without importing them."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=COMMANDS[name][2]) for name in COMMANDS if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; text from other sources reaches the terminal as plain text."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names may be in any script, which a terminal may not support
                stream.reconfigure(errors="replace")
        with guarded():
            return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of Jobmon or Ctrl-C becomes one line and an exit code, never a traceback."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort) as error:
            if isinstance(error, click.Abort) and not isinstance(error.__context__, KeyboardInterrupt):
                raise  # the answer to a question was no
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except UnicodeEncodeError as error:
            text = error.object[:SHOWN_CHARACTERS_MAX]
            raise click.UsageError(f"{text!r} contains bytes that are not UTF-8.") from None
        except JobmonError as error:
            click.echo(f"Error: {error}{_hint(error)}", err=True)
            raise click.exceptions.Exit(exit_code(error)) from error


def _hint(error: JobmonError) -> str:
    """Return the likely reason for an unknown route or for a response that cannot be parsed."""
    is_strange = isinstance(error, InvalidResponse) or str(error).endswith(_NO_ROUTE)
    return " The server may have a different version than this command: jobmon doctor." if is_strange else ""


def _print_version(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:
    if is_asked and not context.resilient_parsing:
        from importlib import metadata

        click.echo(f"jobmon {metadata.version('jobmon')}")
        context.exit()


# color: text from other sources is shown completely, and `guarded` makes it plain; click removes nothing from it
@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "color": True})
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def main() -> None:
    """Inspect and control workflows, on a laptop or on a cluster. Workflows run from Python scripts.

    Exit codes: 0 success, 1 failure, 2 usage error, 3 no server or a file that is not yours, 130 interrupted.
    """
