"""`jobmon workflow start`, `attach` and `wait`: runs that continue without a terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.main import EXIT_FAILED, EXIT_INTERRUPTED
from jobmon.cli.references import WORKFLOW
from jobmon.cli.rendering import OUTPUT, show_json

if TYPE_CHECKING:
    from jobmon.client.waiting import Outcome
    from jobmon.core.requester import Requester

#: Exit code of `wait` if the workflow is still running when the timeout expires, as for timeout(1).
EXIT_STILL_RUNNING: Final = 124
START_SECONDS: Final = 60
#: What to do after a workflow that is not done, and the command for it.
_NEXT: Final = {"see why": "explain", "resume it": "resume"}


@click.command(
    context_settings={"ignore_unknown_options": True}, epilog="Example: jobmon workflow start words.py 2026-10"
)
@click.option(
    "--timeout",
    type=click.IntRange(min=0),
    default=START_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait until the script starts a workflow. The script continues in any case.",
)
@OUTPUT
@click.argument("script", type=click.Path(path_type=Path, dir_okay=False, exists=True, readable=True))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def start(*, timeout: int, output: str, script: Path, args: tuple[str, ...]) -> None:
    """Run SCRIPT (with its ARGS) in the background, and return once it has started a workflow.

    The script continues when the terminal is closed. If it is killed by a signal, it is run again and resumes its
    workflow without stopping running tasks; it is given up after three restarts in a row without progress. What it
    prints goes to a log. Put -- before arguments of the script that have the names of options here.
    """
    from jobmon.client.detached import start_script

    try:
        report, log = start_script(script, args, timeout)
    except KeyboardInterrupt:
        click.echo(f"{script} continues in the background.", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    if report is not None and "run" not in report:
        raise click.ClickException(_not_started(script, report, log))
    found = report or {}
    if output == "json":
        show_json({"workflow_id": found.get("workflow"), "workflow_run_id": found.get("run"), "log_path": str(log)})
    elif report is None:
        click.echo(f"{script} runs in the background; it has not started a workflow yet. Its output: {log}")
    else:
        number = report["workflow"]
        click.echo(
            f"Workflow {number} runs in the background (run {report['run']}). Output of the script: {log}\n"
            f"To follow it: jobmon workflow attach {number}"
        )


def _not_started(script: Path, report: dict[str, Any], log: Path) -> str:
    from jobmon.client.detached import log_tail

    code = report.get("exit")
    how = "was killed" if code is None or code < 0 else f"exited with code {code}"
    return f"{script} {how} without starting a workflow. The end of its output, {log}:\n{log_tail(log)}"


@click.command(epilog="Example: jobmon workflow attach 5")
@WORKFLOW
def attach(workflow_id: int) -> None:
    """Show the progress of a running workflow until it is over, whichever process leads it. Ctrl-C detaches.

    Neither Ctrl-C nor closing the terminal affects the workflow.

    Exit codes: 0 done, 1 failed, stopped, timed out or interrupted, 130 detached.
    """
    from jobmon.cli import listing
    from jobmon.client.waiting import Waiter
    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    waiter = Waiter(requester, workflow_id)
    outcome = waiter.look()
    if outcome is None:
        click.echo(_about_leader(requester, workflow_id), err=True)
    display = listing.watching_display()
    view = listing.View(requester)
    try:
        while True:
            began = time.monotonic()
            found, _ = listing.summaries(requester, [workflow_id], {}, 1)
            display.show([view.snapshot(found[0])])
            if outcome is not None:
                break
            time.sleep(listing.pause_seconds(time.monotonic() - began))
            outcome = waiter.look()
    except KeyboardInterrupt:
        click.echo(f"Detached; workflow {workflow_id} continues.", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    finally:
        display.end()
    click.echo(_about_outcome(workflow_id, outcome), err=True)
    raise click.exceptions.Exit(_exit_code(outcome))


def _about_leader(requester: Requester, workflow_id: int) -> str:
    """Say which process leads a running workflow, and where its output is if it is detached."""
    from jobmon.client import watched
    from jobmon.client.waiting import active_runs

    runs = active_runs(requester, workflow_id).runs
    if not runs:
        return f"Workflow {workflow_id} is about to be resumed."
    run = runs[-1]
    log = watched.log_path(workflow_id, run.workflow_run_id)
    output = f" Its output: {log}" if log.exists() else ""
    return (
        f"Workflow {workflow_id} is led by process {run.pid} on {run.host} (run {run.workflow_run_id}).{output}\n"
        "Ctrl-C detaches; the workflow continues."
    )


@click.command(epilog="Example: jobmon workflow wait 5 && python report.py")
@WORKFLOW
@click.option(
    "--timeout", type=click.IntRange(min=0), metavar="SECONDS", help="Longest wait. Default: until it is over."
)
@OUTPUT
def wait(workflow_id: int, timeout: int | None, output: str) -> None:
    """Wait until a workflow is over, whichever process leads it.

    Exit codes: 0 done, 1 failed, stopped, timed out or interrupted, 124 still running after --timeout, 130 Ctrl-C.
    """
    from jobmon.client.waiting import wait_for
    from jobmon.core.requester import Requester

    try:
        outcome = wait_for(Requester.from_defaults(), workflow_id, timeout)
    except TimeoutError as error:
        click.echo(f"Error: {error}", err=True)
        raise click.exceptions.Exit(EXIT_STILL_RUNNING) from None
    except KeyboardInterrupt:
        click.echo(f"Workflow {workflow_id} continues.", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    if output == "json":
        show_json({"workflow_id": workflow_id, "status": outcome.status, "status_name": outcome.name})
    else:
        click.echo(_about_outcome(workflow_id, outcome))
    raise click.exceptions.Exit(_exit_code(outcome))


def _about_outcome(workflow_id: int, outcome: Outcome) -> str:
    from jobmon.core.constants import WorkflowRunStatus

    text = f"Workflow {workflow_id} is {outcome.name}."
    if outcome.status is WorkflowRunStatus.DONE:
        return text
    commands = (f"To {what}: jobmon workflow {verb} {workflow_id}" for what, verb in _NEXT.items())
    return f"{text} {'. '.join(commands)}"


def _exit_code(outcome: Outcome) -> int:
    from jobmon.core.constants import WorkflowRunStatus

    return 0 if outcome.status is WorkflowRunStatus.DONE else EXIT_FAILED
