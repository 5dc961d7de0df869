"""`jobmon completion`, and the completion of IDs and names. It never starts a server, and gives up after 0.5 s."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import click

from jobmon.cli.lookups import newest_workflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskSummary

ANSWER_SECONDS_MAX: Final = 0.5
ROWS_MAX: Final = 25
_PLACES: Final = {
    "bash": "jobmon completion bash > ~/.local/share/bash-completion/completions/jobmon",
    "zsh": "jobmon completion zsh > ~/.zfunc/_jobmon  (in ~/.zshrc: fpath+=~/.zfunc; autoload -Uz compinit; compinit)",
    "fish": "jobmon completion fish > ~/.config/fish/completions/jobmon.fish",
}


@click.command(epilog="Example: jobmon completion bash > ~/.local/share/bash-completion/completions/jobmon")
@click.argument("shell", type=click.Choice(list(_PLACES)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a shell completion script: for commands, options, statuses, workflows, tasks and templates."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click supports these shells"
    click.echo(kind(context.find_root().command, {}, "jobmon", "_JOBMON_COMPLETE").source())
    click.echo(f"Save it where the shell looks for it, then open a new shell:\n  {_PLACES[shell]}", err=True)


def workflow_ids(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the user's newest workflows, with their names."""
    return _items(_newest, incomplete)


def tasks(context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return tasks of the given workflow, or of the newest: by ID, or by name once a letter is typed."""
    is_name = incomplete != "" and not incomplete.isdigit()

    def fetch(requester: Requester) -> list[tuple[str, str]]:
        found = _tasks(requester, context.params.get("workflow_id"), f"{incomplete}*" if is_name else "")
        return [(task.name, str(task.task_id)) if is_name else (str(task.task_id), task.name) for task in found]

    return _items(fetch, incomplete)


def templates(context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of templates of the given workflow, or of the newest."""
    from jobmon.core.wire.monitoring import ProgressResponse

    def fetch(requester: Requester) -> list[tuple[str, str]]:
        number = context.params.get("workflow_id") or newest_workflow(requester)
        found = requester.call(f"/workflows/{number}/progress", None, ProgressResponse, "get", tenacious=False)
        return [(one.name, "") for one in found.templates]

    return _items(fetch, incomplete)


def _items(fetch: Callable[[Requester], list[tuple[str, str]]], incomplete: str) -> list[CompletionItem]:
    """Return the items that begin with the incomplete word; none if no server responds at once."""
    from click.shell_completion import CompletionItem

    from jobmon.core.exceptions import JobmonError

    try:
        requester = _requester()
        found = [] if requester is None else fetch(requester)
    except (JobmonError, OSError):
        return []
    return [CompletionItem(word, help=text) for word, text in found if word.startswith(incomplete)]


def _tasks(requester: Requester, workflow_id: int | None, name: str) -> list[TaskSummary]:
    from jobmon.core.wire.monitoring import TaskSummariesResponse

    route = f"/workflows/{workflow_id or newest_workflow(requester)}/task_summaries"
    query = {"limit": ROWS_MAX, "name": name}
    return requester.call(route, query, TaskSummariesResponse, "get", tenacious=False).tasks


def _requester() -> Requester | None:
    """Return a requester for a running server; None if one would have to be started."""
    from jobmon.core.access import find_server
    from jobmon.core.configuration import JobmonConfig
    from jobmon.core.requester import Requester

    logging.getLogger("jobmon").setLevel(logging.ERROR)  # a warning would be printed into the line being completed
    config = JobmonConfig()
    url = str(config.get("http", "service_url") or "")
    if url:
        return Requester(url, request_timeout=ANSWER_SECONDS_MAX, token=config.token())
    return Requester("", request_timeout=ANSWER_SECONDS_MAX, embedded=True) if find_server() is not None else None


def _newest(requester: Requester) -> list[tuple[str, str]]:
    from jobmon.core.paths import user_name
    from jobmon.core.wire.monitoring import WorkflowsResponse

    query = {"user": user_name(), "limit": ROWS_MAX, "counts": "false"}
    found = requester.call("/workflows", query, WorkflowsResponse, "get", tenacious=False).workflows
    return [(str(one.workflow_id), one.name or one.tool_name) for one in found]
