"""`jobmon completion`, and what a shell is told about ids: what can be had at once; no server is started for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from jobmon.core.requester import Requester

ANSWER_SECONDS_MAX: Final = 0.5
WORKFLOWS_MAX: Final = 25
_PLACES: Final = {
    "bash": "jobmon completion bash > ~/.local/share/bash-completion/completions/jobmon",
    "zsh": "jobmon completion zsh > ~/.zfunc/_jobmon  (in ~/.zshrc: fpath+=~/.zfunc; autoload -Uz compinit; compinit)",
    "fish": "jobmon completion fish > ~/.config/fish/completions/jobmon.fish",
}


@click.command(epilog="Example: jobmon completion bash > ~/.local/share/bash-completion/completions/jobmon")
@click.argument("shell", type=click.Choice(list(_PLACES)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options, statuses and the ids of your newest workflows."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    click.echo(kind(context.find_root().command, {}, "jobmon", "_JOBMON_COMPLETE").source())
    click.echo(f"Keep it where the shell looks, then open a new one:\n  {_PLACES[shell]}", err=True)


def workflow_ids(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the newest workflows of the user, with their names; nothing where that would take long."""
    from click.shell_completion import CompletionItem

    from jobmon.core.exceptions import JobmonError

    try:
        requester = _requester()
        if requester is None:
            return []
        newest = _newest(requester)
    except (JobmonError, OSError):
        return []
    return [CompletionItem(str(number), help=name) for number, name in newest if str(number).startswith(incomplete)]


def _requester() -> Requester | None:
    """Return one for a server that is there; None: one would have to be started."""
    from jobmon.core.access import find_server
    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.requester import Requester

    config = JobmonConfig()
    url = str(config.get("http", "service_url") or "")
    if url:
        return Requester(url, request_timeout=ANSWER_SECONDS_MAX, token=str(config.get("http", "token") or ""))
    return Requester("", request_timeout=ANSWER_SECONDS_MAX, embedded=True) if find_server() is not None else None


def _newest(requester: Requester) -> list[tuple[int, str]]:
    from jobmon.client.binding import user_name
    from jobmon.core.wire.monitoring import WorkflowsResponse

    query = {"user": user_name(), "limit": WORKFLOWS_MAX, "counts": "false"}
    found = requester.call("/workflows", query, WorkflowsResponse, "get", tenacious=False).workflows
    return [(one.workflow_id, one.name or one.tool_name) for one in found]
