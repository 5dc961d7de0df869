"""`jobmon workflow errors`: what went wrong, brought together by what failures have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import WORKFLOW, workflow_summary

if TYPE_CHECKING:
    from jobmon.core.requester import Requester
    from jobmon.core.wire.failures import FailureConcentration, FailureGroup, FailuresResponse

GROUPS_DEFAULT: Final = 25
EXAMPLE_CHARACTERS_MAX: Final = 2_000
HOSTS_SHOWN_MAX: Final = 3
VALUE_CHARACTERS_MAX: Final = 60


@click.command(epilog="Example: jobmon workflow errors -w 5")
@WORKFLOW
@click.option("--list", "as_list", is_flag=True, help="One by one, newest first, instead of in groups.")
@click.option("-l", "--limit", type=click.IntRange(1, 1_000), default=GROUPS_DEFAULT, show_default=True)
@OUTPUT
def errors(workflow_id: int, as_list: bool, limit: int, output: str) -> None:
    """Show what went wrong: failures grouped by what they have in common, the largest group first.

    Numbers and paths in messages do not count. Says so if failures concentrate on a host or on a value of an argument
    beyond chance.
    """
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.failures import FailuresResponse

    requester = Requester.from_defaults()
    if as_list:
        _show_list(requester, workflow_id, limit, output)
        return
    found = requester.call(f"/workflows/{workflow_id}/failures", {"limit": limit}, FailuresResponse, "get")
    if output == "json":
        rendering.show_json(found)
    elif not found.failures:
        click.echo(f"Workflow {workflow_id} has no errors.")
    else:
        _show(found)


def _show(found: FailuresResponse) -> None:
    from jobmon.cli.words import number_of

    cut = "the newest " if found.is_cut else ""
    count = number_of(found.failures, "failed attempt")
    click.echo(f"Workflow {found.workflow_id}: {cut}{count} in {number_of(found.group_count, 'group')}")
    for concentration in found.concentrations:
        click.echo(f"  {concentration_text(concentration)}")
    for number, group in enumerate(found.groups, 1):
        _show_group(number, group)
    if found.group_count > len(found.groups):
        click.echo(f"\n{found.group_count - len(found.groups)} smaller groups are not shown (--limit).")


def concentration_text(found: FailureConcentration) -> str:
    """Return a concentration as a sentence: 31 of 33 failures on host n217, ..."""
    value = found.value if len(found.value) <= VALUE_CHARACTERS_MAX else f"{found.value[: VALUE_CHARACTERS_MAX - 1]}…"
    where = f"on {value}" if found.what == "host" else f"with {found.what} = {value}"
    had, of = ("attempts ran there", "failures") if found.what == "host" else ("tasks have it", "failed tasks")
    return (
        f"{found.failed} of {found.failures} {of} {where}; {found.count} of {found.total} {had}"
        f" (by chance: {found.chance:.0e})"
    )


def _show_group(number: int, group: FailureGroup) -> None:
    from jobmon.cli import rendering

    cause = f" ({group.cause})" if group.cause and group.cause != group.ending.split(" ", 1)[0] else ""
    cause = "" if group.cause in ("exit code", "signal") else cause
    hosts = list(group.hosts.items())[:HOSTS_SHOWN_MAX]
    on = f", on {', '.join(f'{host} ({count})' for host, count in hosts)}" if hosts else ""
    times = rendering.local_time(group.first_at)
    if group.last_at != group.first_at:
        times += f" to {rendering.local_time(group.last_at)}"
    click.echo(f"\n{number}. {group.count} ({group.share:.0%})  {group.template}  {group.ending}{cause}{on}, {times}")
    click.echo(f"   {rendering.plain(group.message) or 'no message'}")
    example = rendering.plain(group.example.rstrip()[:EXAMPLE_CHARACTERS_MAX]).replace("\n", "\n     ")
    name = rendering.plain(group.task_name)
    click.echo(f"   such as task {group.task_id} {name}: jobmon task logs {group.task_id}")
    if example and example != group.message:
        click.echo(f"     {example}")


def _show_list(requester: Requester, workflow_id: int, limit: int, output: str) -> None:
    from jobmon.cli import rendering
    from jobmon.core.wire.swarm import ErrorsResponse

    found = requester.call(f"/workflows/{workflow_id}/errors", {"limit": limit}, ErrorsResponse, "get").errors
    if not found:
        workflow_summary(requester, workflow_id)  # perhaps there is no such workflow
    if output == "json":
        rendering.show_json(found)
        return
    for error in found:
        click.echo(f"{rendering.local_time(error.time)}  task {error.task_id}  {rendering.plain(error.task_name)}")
        click.echo("  " + rendering.plain(error.error.rstrip()).replace("\n", "\n  "))
    if not found:
        click.echo(f"Workflow {workflow_id} has no errors.")
