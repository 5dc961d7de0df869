"""`jobmon workflow errors`: failures, grouped by what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from jobmon.cli.output import JSON, LIMIT, ROWS, TABLE, named, note_limit, paged, rows_max, show_rows
from jobmon.cli.references import WORKFLOW
from jobmon.core.texts import number_of, shortened

if TYPE_CHECKING:
    from jobmon.core.requester import Requester
    from jobmon.core.wire.failures import FailureConcentration, FailureGroup, FailuresResponse

#: Maximum number of groups, or of attempts, in one response.
GROUPS_MAX: Final = 1_000
ERRORS_MAX: Final = 10_000
EXAMPLE_CHARACTERS_MAX: Final = 2_000
HOSTS_SHOWN_MAX: Final = 3
VALUE_CHARACTERS_MAX: Final = 60


@click.command(epilog="Example: jobmon workflow errors 5")
@WORKFLOW
@click.option("--list", "as_list", is_flag=True, help="List failures one by one, newest first.")
@LIMIT
@ROWS
def errors(workflow_id: int, as_list: bool, limit: int | None, output: str) -> None:
    """Show failed attempts, grouped by what they have in common, the largest group first.

    Messages that differ only in numbers and paths are one group. If failures concentrate on a host, or on a value of
    an argument, more than chance explains, this is pointed out. Attempts that were cancelled, stopped or lost are
    counted separately. CSV has a row for each group, or with --list for each attempt.
    """
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.failures import FailuresResponse

    requester = Requester.from_defaults()
    most = rows_max(limit, output)
    if as_list:
        _show_list(requester, workflow_id, min(most or ERRORS_MAX, ERRORS_MAX), output)
        return
    query = {"limit": min(most or GROUPS_MAX, GROUPS_MAX)}
    found = requester.call(f"/workflows/{workflow_id}/failures", query, FailuresResponse, "get")
    if output != TABLE:
        if output == JSON:
            rendering.show_json(found)
        else:
            show_rows(named(found.groups, {}), output)
        note_limit(len(found.groups), found.group_count, "group", rows_max=GROUPS_MAX)
    else:
        calls = _failed_calls(requester, workflow_id)
        if not found.failures and not calls:
            click.echo(f"Workflow {workflow_id} has no errors.{_uncharged(found)}")
            return
        with paged():
            for text in calls:
                click.echo(text)
            if found.failures:
                _show(found)


def _failed_calls(requester: Requester, workflow_id: int) -> list[str]:
    """Return a text about each expansion whose function failed."""
    from jobmon.core.wire.expanding import ExpansionsPage

    found: list[str] = []
    after = 0
    while True:
        page = requester.call(f"/workflows/{workflow_id}/expansions", {"after": after}, ExpansionsPage, "get")
        if not page.task_ids:
            return found
        for at, error in page.errors.items():
            text = error.rstrip()[-EXAMPLE_CHARACTERS_MAX:].replace("\n", "\n  ")
            found.append(f"Expansion {page.names[at]} (task {page.task_ids[at]}) failed:\n  {text}\n")
        after = page.task_ids[-1]


def _show(found: FailuresResponse) -> None:
    cut = "the newest " if found.is_cut else ""
    count = number_of(found.failures, "failed attempt")
    click.echo(f"Workflow {found.workflow_id}: {cut}{count} in {number_of(found.group_count, 'group')}")
    for concentration in found.concentrations:
        click.echo(f"  {concentration_text(concentration)}")
    for number, group in enumerate(found.groups, 1):
        _show_group(number, group)
    if found.group_count > len(found.groups):
        shown = f"{len(found.groups)} of {number_of(found.group_count, 'group')}"
        remedy = "" if len(found.groups) >= GROUPS_MAX else "; use -l 0 for all"
        click.echo(f"\n{shown} shown{remedy}.")
    if found.uncharged:
        click.echo(f"\n{_uncharged(found).strip()}")


def _uncharged(found: FailuresResponse) -> str:
    """Return a sentence about attempts that ended without counting as failures."""
    if not found.uncharged:
        return ""
    parts = ", ".join(f"{count:,} {how}" for how, count in found.uncharged.items())
    return f" {number_of(sum(found.uncharged.values()), 'attempt')} ended without counting as failures: {parts}."


def concentration_text(found: FailureConcentration) -> str:
    """Return a concentration as a sentence: 31 of 33 failures on host n217, ..."""
    value = shortened(found.value, VALUE_CHARACTERS_MAX)
    where = f"on {value}" if found.what == "host" else f"with {found.what} = {value}"
    had, of = ("attempts ran there", "failures") if found.what == "host" else ("tasks have it", "failed tasks")
    return (
        f"{found.failed} of {found.failures} {of} {where}; {found.count} of {found.total} {had}"
        f" (by chance: {found.chance:.0e})"
    )


def _show_group(number: int, group: FailureGroup) -> None:
    from jobmon.cli import rendering

    cause = f" ({group.cause})" if group.cause and not group.ending.startswith(group.cause) else ""
    cause = "" if group.cause in ("exit code", "signal") else cause
    hosts = list(group.hosts.items())[:HOSTS_SHOWN_MAX]
    on = f", on {', '.join(f'{host} ({count})' for host, count in hosts)}" if hosts else ""
    times = rendering.local_time(group.first_at)
    if group.last_at != group.first_at:
        times += f" to {rendering.local_time(group.last_at)}"
    click.echo(f"\n{number}. {group.count} ({group.share:.0%})  {group.template}  {group.ending}{cause}{on}, {times}")
    example = group.example.rstrip()[:EXAMPLE_CHARACTERS_MAX].replace("\n", "\n   ")
    click.echo(f"   {example or group.message or 'no message'}")
    name = shortened(group.task_name, VALUE_CHARACTERS_MAX)
    click.echo(f"   Example: task {group.task_id} {name}; its output: jobmon task logs {group.task_id}")


def _show_list(requester: Requester, workflow_id: int, limit: int, output: str) -> None:
    from jobmon.cli import rendering
    from jobmon.client.api_calls import workflow_summary
    from jobmon.core.constants import TaskInstanceStatus
    from jobmon.core.wire.swarm import ErrorsResponse

    route = f"/workflows/{workflow_id}/errors"
    every = requester.call(route, {"limit": min(limit + 1, ERRORS_MAX)}, ErrorsResponse, "get").errors
    found = every[:limit]
    if not found:
        workflow_summary(requester, workflow_id)  # raises an error if there is no such workflow
    if len(every) > limit:
        every = requester.call(route, {"limit": ERRORS_MAX}, ErrorsResponse, "get").errors
    note_limit(len(found), len(every), "failure", at_least=len(every) == ERRORS_MAX, rows_max=ERRORS_MAX)
    if output != TABLE:
        show_rows(named(found, {"status": TaskInstanceStatus}), output)
        return
    for error in found:
        click.echo(f"{rendering.local_time(error.time)}  task {error.task_id}  {error.task_name}")
        click.echo("  " + error.error.rstrip().replace("\n", "\n  "))
    if not found:
        click.echo(f"Workflow {workflow_id} has no errors.")
