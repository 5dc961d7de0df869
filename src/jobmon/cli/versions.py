"""`jobmon workflow versions`: what changed in a workflow, when, by whom, and in which run."""

from __future__ import annotations

import click

from jobmon.cli import steering
from jobmon.cli.references import WORKFLOW
from jobmon.cli.rendering import OUTPUT, local_time, show_json, show_table
from jobmon.core.terminal import plain
from jobmon.core.texts import number_of


@click.command("versions", epilog="Example: jobmon workflow versions 5 --diff 2")
@WORKFLOW
@click.option("--diff", "number", type=click.IntRange(min=2), help="Show everything that this version changed.")
@click.option("--drop", is_flag=True, help="Drop a version that has not been applied, not even in part.")
@steering.YES
@steering.ANY_OWNER
@OUTPUT
def versions(*, workflow_id: int, number: int | None, drop: bool, yes: bool, any_owner: bool, output: str) -> None:
    """List the versions of a workflow: what changed, when, by whom, and which runs used it."""
    from jobmon.core.paths import user_name
    from jobmon.core.requester import Requester
    from jobmon.core.wire.changes import DropRequest, VersionsResponse

    requester = Requester.from_defaults()
    if drop:
        steering.make_sure(f"The version of workflow {workflow_id} that is not applied will be dropped.", is_sure=yes)
        requester.call(
            f"/workflows/{workflow_id}/drop_version", DropRequest(user=user_name(), any_owner=any_owner), dict
        )
        click.echo(f"Workflow {workflow_id} is unchanged.")
        return
    found = requester.call(f"/workflows/{workflow_id}/versions", None, VersionsResponse, "get").versions
    if number is not None:
        chosen = next((version for version in found if version.number == number), None)
        if chosen is None:
            raise click.BadParameter(
                f"workflow {workflow_id} has {number_of(len(found), 'version')}.", param_hint="--diff"
            )
        if output == "json":
            show_json(chosen)
        else:
            click.echo("\n".join(map(plain, chosen.summary)))
        return
    if output == "json":
        show_json(found)
        return
    show_table(
        ["VERSION", "AT", "BY", "RUNS", "CHANGED"],
        [
            (
                f"{version.number}{'' if version.state == 'applied' else f' ({version.state})'}",
                local_time(version.created_at),
                f"{version.user} on {version.host}" if version.host else version.user,
                ", ".join(map(str, version.workflow_run_ids)) or "-",
                "; ".join(" ".join(line.split()) for line in version.summary) or "-",
            )
            for version in found
        ],
        right=["VERSION"],
    )
