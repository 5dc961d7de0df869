"""`jobmon workflow plan`: what a script, or a resume by id, would run, and why."""

from __future__ import annotations

import os
import runpy
import traceback
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.output import ROWS_MAX, note_limit
from jobmon.cli.references import workflow_option
from jobmon.cli.rendering import OUTPUT, show_json, show_table
from jobmon.core.exceptions import JobmonError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobmon.client.plan import Plan, PlannedTask

#: Exit code with `--exit-code` if something would run.
EXIT_WOULD_RUN: Final = 4
TASKS_DEFAULT: Final = 100


class _Script(click.Path):
    """A script. An ID, which other commands take as an argument, is an option here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.isdecimal() and not os.path.lexists(value):
            self.fail(f"There is no script {value}. To plan a resume of workflow {value}: -w {value}", param, ctx)
        return super().convert(value, param, ctx)


@click.command(
    "plan",
    context_settings={"ignore_unknown_options": True},
    epilog="Example: jobmon workflow plan words.py 2026-10 --tasks",
)
@workflow_option(help="Plan a resume by ID instead of a script.")
@click.option("--on-change", metavar="MODE", help="What to do with changed tasks: rerun, rerun-only, keep; or as JSON.")
@click.option("--allow-removal", is_flag=True, help="Allow recorded tasks to be missing from the script.")
@click.option(
    "--check-files", type=click.Choice(["none", "outputs", "all"]), help="Look for the declared files of done tasks."
)
@click.option("--tasks", "show_tasks", is_flag=True, help="Show single tasks with their reasons.")
@click.option("--template", default="", help="Show only tasks of this template; implies --tasks.")
@click.option(
    "-l",
    "--limit",
    type=click.IntRange(min=0, max=ROWS_MAX),
    default=TASKS_DEFAULT,
    show_default=True,
    metavar="N",
    help="Show at most N tasks; 0 for all.",
)
@OUTPUT
@click.option("--exit-code", "use_exit_code", is_flag=True, help="Exit with code 4 if something would run.")
@click.argument("script", required=False, type=_Script(path_type=Path, dir_okay=False, exists=True))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def plan(
    *,
    workflow_id: int | None,
    on_change: str | None,
    allow_removal: bool,
    check_files: str | None,
    show_tasks: bool,
    template: str,
    limit: int,
    output: str,
    use_exit_code: bool,
    script: Path | None,
    args: tuple[str, ...],
) -> None:
    """Show what SCRIPT (with its ARGS) or a resume of a workflow would run, and why. Nothing is changed.

    The script runs up to the first `workflow.run()`, and stops there. The `on_change`, `allow_removal` and
    `check_files` that it passes itself take precedence over the options. Put -- before arguments of the script that
    have the names of options here.
    """
    if (script is None) == (workflow_id is None):
        raise click.UsageError("Give either a script or a workflow: jobmon workflow plan words.py, or -w ID.")
    if workflow_id is not None and check_files is not None:
        raise click.UsageError("--check-files requires a script: a resume by ID looks for no files.")
    settings = {
        "JOBMON__RUN__PLAN": "table",
        **({"JOBMON__RUN__ON_CHANGE": on_change} if on_change is not None else {}),
        **({"JOBMON__RUN__ALLOW_REMOVAL": "true"} if allow_removal else {}),
        **({"JOBMON__RUN__CHECK_FILES": check_files} if check_files is not None else {}),
    }
    found = _plan_of_workflow(workflow_id) if script is None else _plan_of_script(script, args, settings)
    if template and template not in found.counts:
        known = ", ".join(map(repr, found.counts))
        raise click.BadParameter(f"the workflow has no template {template!r}; it has {known}.", param_hint="--template")
    if output == "json":
        tasks = [task.to_dict() for task in _shown(found, template, limit)]
        show_json(found.to_dict(tasks=False) | {"tasks": tasks})
        note_limit(len(tasks), _count(found, template), "task")
    else:
        click.echo(str(found))
        if show_tasks or template:
            _show_tasks(found, template, limit)
    if use_exit_code and found.run_count:
        raise click.exceptions.Exit(EXIT_WOULD_RUN)


def _plan_of_workflow(workflow_id: int | None) -> Plan:
    from jobmon.client.planning import plan_recorded
    from jobmon.core.requester import Requester

    assert workflow_id is not None
    return plan_recorded(Requester.from_defaults(), workflow_id)


def _plan_of_script(script: Path, args: tuple[str, ...], settings: dict[str, str]) -> Plan:
    """Run a script up to its first `run()`.

    Raises:
        click.ClickException: the script failed or exited before that.
    """
    from jobmon.client.planning import shown_by
    from jobmon.client.script import as_main, own_frames
    from jobmon.client.tracebacks import is_deliberate, message

    found: list[Plan] = []
    with shown_by(found.append), _environment(settings), as_main(script, args):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as error:
            if not found and error.code not in (None, 0):
                raise click.ClickException(f"{script} exited with {error.code!r} before it ran a workflow.") from error
        except JobmonError:
            raise
        except Exception as error:
            frames = own_frames(error, __file__)
            if is_deliberate(error, frames):
                raise click.ClickException(message(error, frames)) from error
            traceback.print_exception(error.with_traceback(frames))
            raise click.ClickException(f"{script} failed before it ran a workflow; nothing was planned.") from error
    if not found:
        raise click.ClickException(f"{script} exited without running a workflow: there is nothing to plan.")
    return found[0]


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _shown(found: Plan, template: str, limit: int) -> Iterator[PlannedTask]:
    """Yield tasks; tasks whose results are kept come last."""
    chosen = (
        task
        for is_kept in (False, True)
        for task in found.iterate()
        if (task.action == "keep") is is_kept and (not template or task.template == template)
    )
    return islice(chosen, limit or None)


def _show_tasks(found: Plan, template: str, limit: int) -> None:
    rows = [(task.task_id, task.name, task.action, "\n".join(_why(task))) for task in _shown(found, template, limit)]
    show_table(["ID", "TASK", "ACTION", "WHY"], rows, right=["ID"])
    note_limit(len(rows), _count(found, template), "task")


def _count(found: Plan, template: str) -> int:
    """Return how many tasks of a template the plan has; "" means all tasks."""
    counted = [found.counts.get(template, {})] if template else list(found.counts.values())
    return sum(number for each in counted for reasons in each.values() for number in reasons.values())


def _why(task: PlannedTask) -> Iterator[str]:
    for reason, detail in task.reasons:
        if not detail:
            yield f"{reason}: {', '.join(task.because)}" if reason == "upstream reruns" and task.because else reason
        elif "\n" in detail or detail[:2] in ("- ", "+ "):
            yield reason
            yield detail
        else:
            yield f"{reason}: {detail}"
