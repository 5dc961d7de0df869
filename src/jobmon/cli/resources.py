"""`jobmon workflow resources` and `jobmon workflow efficiency`: usage, waste, and better requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.exporting import write_file
from jobmon.cli.groups import Group
from jobmon.cli.references import WORKFLOW, Id, option, template_version_id, workflow_option
from jobmon.cli.rendering import OUTPUT
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.texts import number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobmon.core.wire.monitoring import UsageResponse
    from jobmon.core.wire.sizing import Figures, SizingResponse, TemplateSizing, Waste

PERCENTILES: Final = (5, 25, 50, 75, 90, 95, 99)
PERCENTILES_UNKNOWN: Final = (None,) * len(PERCENTILES)
_STRATEGY: Final = "Statistic: avg, min, max, or a quantile such as q95."


@click.group(cls=Group)
def resources() -> None:
    """Show resource usage, and write requests based on it."""


@resources.command(epilog='Example: jobmon workflow resources usage align -w 5 --node-args \'{"location": "7"}\'')
@click.argument("template", metavar="[TEMPLATE]", required=False)
@option(
    "--template-version", "template_version", quiet=("-t",), help="ID of a template version, or name of a template."
)
@workflow_option(
    "workflow_ids", multiple=True, help="Only tasks of this workflow. Repeatable. A name is looked up there."
)
@option("--node-args", quiet=("-a",), default="", help='Only tasks with these values: \'{"name": ["value", ...]}\'.')
@OUTPUT
def usage(
    *,
    template: str | None,
    template_version: str | None,
    workflow_ids: tuple[int, ...],
    node_args: str,
    output: str,
) -> None:
    """Show what finished tasks of a template used: memory in GiB, time in seconds.

    TEMPLATE is the name of a template in the first given workflow (default: your newest), or the ID of a
    template version.
    """
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import UsageRequest, UsageResponse

    request = UsageRequest(
        workflow_ids=list(workflow_ids) or None, node_args=_node_args(node_args), percentiles=list(PERCENTILES)
    )
    requester = Requester.from_defaults()
    words = [word for word in (template, template_version) if word]
    if len(words) != 1:
        raise click.UsageError("Name one template: jobmon workflow resources usage TEMPLATE.")
    version = template_version_id(requester, words[0], workflow_ids[0] if workflow_ids else None)
    route = f"/task_template_versions/{version}/resource_usage"
    found = requester.call(route, request, UsageResponse)
    if output == "json":
        rendering.show_json(found)
    elif not found.num_tasks:
        click.echo(f"No task of template version {version} has finished there.")
    else:
        click.echo(f"{number_of(found.num_tasks, 'finished task')} of template version {version}")
        rendering.show_table(("", "MEMORY, GiB", "TIME, s"), _usage_rows(found), right=("MEMORY, GiB", "TIME, s"))


def _node_args(text: str) -> dict[str, list[str]]:
    """Parse the option: a JSON object whose values are single values or lists."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}.", param_hint="--node-args") from None
    if not isinstance(found, dict):
        raise click.BadParameter('must be a mapping such as {"name": ["value"]}.', param_hint="--node-args")
    return {
        name: [str(value) for value in (values if isinstance(values, list) else [values])]
        for name, values in found.items()
    }


def _usage_rows(found: UsageResponse) -> list[tuple[str, ...]]:
    memory = (found.min_mem, found.mean_mem, *(found.percentiles_mem or PERCENTILES_UNKNOWN), found.max_mem)
    time = (
        found.min_runtime,
        found.mean_runtime,
        *(found.percentiles_runtime or PERCENTILES_UNKNOWN),
        found.max_runtime,
    )
    names = ("minimum", "mean", *(f"{each} % used at most" for each in PERCENTILES), "maximum")
    return [(name, _memory(one), _number(other)) for name, one, other in zip(names, memory, time, strict=True)]


@resources.command(epilog="Example: jobmon workflow resources yaml 5 --file requests.yaml")
@click.argument("given", metavar="[WORKFLOW]", type=Id(), required=False)
@workflow_option(help="ID of the workflow whose usage is used.")
@click.option("-t", "--task-id", type=Id(), help="ID of a single task whose usage is used.")
@click.option("--mem-strategy", default="max", show_default=True, help=_STRATEGY)
@click.option("--core-strategy", default="max", show_default=True, help=_STRATEGY)
@click.option("--runtime-strategy", default="max", show_default=True, help=_STRATEGY)
@click.option("-c", "--cluster", "clusters", multiple=True, help="Repeatable. Default: where the tasks ran.")
@option(
    "--file",
    "path",
    quiet=("-f",),
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to FILE instead of stdout.",
)
@click.option("--stdout", is_flag=True, help="Also print it.")
def yaml(
    *,
    given: int | None,
    workflow_id: int | None,
    task_id: int | None,
    mem_strategy: str,
    core_strategy: str,
    runtime_strategy: str,
    clusters: tuple[str, ...],
    path: Path | None,
    stdout: bool,
) -> None:
    """Write requests for the next run, based on what this one used.

    `set_default_compute_resources_from_yaml` reads the file. Requests are the chosen statistic plus a margin (memory
    20 %, time 50 % and at least 10 s).
    """
    from jobmon.core.wire.sizing import SizingRequest

    if sum(each is not None for each in (given, workflow_id, task_id)) != 1:
        raise click.UsageError("Name one workflow, or one task with -t: jobmon workflow resources yaml 5.")
    workflow_id = given if workflow_id is None else workflow_id
    request = SizingRequest(
        memory_strategy=mem_strategy,
        cores_strategy=core_strategy,
        runtime_strategy=runtime_strategy,
        task_id=task_id,
    )
    text = _as_yaml(_sizing(workflow_id, request), clusters)
    if path is not None:
        write_file(path, lambda file: file.write(text))
    if stdout or path is None:
        click.echo(text, nl=False)


def _sizing(workflow_id: int | None, request: Any) -> SizingResponse:
    from jobmon.core.requester import Requester
    from jobmon.core.wire.monitoring import TaskDetail
    from jobmon.core.wire.sizing import SizingResponse

    requester = Requester.from_defaults()
    if workflow_id is None:
        workflow_id = requester.call(f"/tasks/{request.task_id}", {}, TaskDetail, "get").workflow_id
    return requester.call(f"/workflows/{workflow_id}/sizing", request, SizingResponse)


def _as_yaml(found: SizingResponse, clusters: Sequence[str]) -> str:
    """Return the file: a request for each template, and the largest of them for each tool."""
    import yaml as pyyaml

    templates: dict[str, Any] = {}
    tools: dict[str, dict[str, dict[str, Any]]] = {}
    for template in found.templates:
        if not template.proposed:
            continue
        requests = {name: _for_cluster(template, name) for name in clusters or sorted(template.queues)}
        templates[template.template_name] = requests
        for name, request in requests.items():
            by_cluster = tools.setdefault(template.tool_name, {})
            by_cluster[name] = _largest(by_cluster.get(name, {}), request)
    if not templates:
        raise InvalidRequest(f"Workflow {found.workflow_id} has no finished task whose usage was measured.")
    head = f"# Requests based on what workflow {found.workflow_id} used (jobmon workflow resources yaml).\n"
    content = {"tool_resources": tools, "task_template_resources": templates}
    return head + pyyaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _for_cluster(template: TemplateSizing, cluster: str) -> dict[str, Any]:
    """Return the proposed request; the queue is known only for clusters on which the tasks ran."""
    queue = template.queues.get(cluster)
    return {**template.proposed, **({"queue": queue} if queue else {})}


def _largest(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    from jobmon.core.resources import normalized

    left, right = normalized(one), normalized(other)
    stays = {key: key in ("cores", "memory", "runtime") and key in left and left[key] >= right[key] for key in other}
    return {**one, **{key: one[key] if stays[key] else value for key, value in other.items()}}


@click.command(epilog="Example: jobmon workflow efficiency 5")
@WORKFLOW
@click.option("--mem-strategy", default="max", show_default=True, help=_STRATEGY)
@click.option("--core-strategy", default="max", show_default=True, help=_STRATEGY)
@click.option("--runtime-strategy", default="max", show_default=True, help=_STRATEGY)
@OUTPUT
def efficiency(workflow_id: int, mem_strategy: str, core_strategy: str, runtime_strategy: str, output: str) -> None:
    """Show requests, usage and waste of each template, and what a better request would save."""
    from jobmon.cli import rendering
    from jobmon.core.wire.sizing import SizingRequest

    request = SizingRequest(
        memory_strategy=mem_strategy, cores_strategy=core_strategy, runtime_strategy=runtime_strategy
    )
    found = _sizing(workflow_id, request)
    if output == "json":
        rendering.show_json(found)
    elif not found.templates:
        click.echo(f"No task of workflow {workflow_id} has run yet.")
    else:
        _show(found.templates)


def _show(templates: Iterable[TemplateSizing]) -> None:
    from jobmon.cli import rendering

    for template in templates:
        attempts = number_of(template.attempts, "attempt")
        click.echo(f"{template.template_name}: {attempts}, usage of {template.measured:,} measured")
        rendering.show_table(
            ("", "REQUESTED", "USED: MEDIAN", "P95", "MAX"),
            [
                _figures_row("cores", template.cores_requested, template.cores_used),
                _figures_row("memory, GiB", template.memory_requested, template.memory_used),
                _figures_row("time, s", template.runtime_requested, template.runtime_used),
            ],
            right=("REQUESTED", "USED: MEDIAN", "P95", "MAX"),
        )
        heads = ("WASTED", "HELD", "OVER-REQUEST", "FAILED", "KILLED", "TOTAL")
        rows = [_waste_row("core-hours", template.core_hours), _waste_row("GiB-hours", template.gib_hours)]
        rendering.show_table(heads, rows, right=heads[1:])
        click.echo(_advice(template))


def _figures_row(what: str, asked: Figures | None, used: Figures | None) -> tuple[str, ...]:
    if asked is None:
        request = "-"
    elif asked.minimum == asked.maximum:
        request = _number(asked.maximum)
    else:
        request = f"{_number(asked.minimum)} to {_number(asked.maximum)}"
    figures = (None, None, None) if used is None else (used.median, used.p95, used.maximum)
    return (what, request, *map(_memory if what.startswith("memory") else _number, figures))


def _waste_row(what: str, waste: Waste) -> tuple[str, ...]:
    wasted = waste.over_request + waste.failed + waste.killed
    share = f" ({wasted / waste.held:.0%})" if waste.held else ""
    parts = (waste.held, waste.over_request, waste.failed, waste.killed)
    return (what, *map(_number, parts), f"{_number(wasted)}{share}")


def _advice(template: TemplateSizing) -> str:
    if not template.proposed:
        return "No task has finished yet, so there is no proposal.\n"
    request = ", ".join(f"{key} {value}" for key, value in template.proposed.items())
    hours = ((template.saved_core_hours, "core-hours"), (template.saved_gib_hours, "GiB-hours"))
    saved = " and ".join(f"{'save' if saved >= 0 else 'cost'} {_number(abs(saved))} {what}" for saved, what in hours)
    killed = f"{template.would_kill:,} of {number_of(template.measured, 'task')}"
    return f"Request {request}: that would {saved}, and would have killed {killed}.\n"


def _memory(gib: float | None) -> str:
    from jobmon.cli import rendering

    return rendering.bounded(_number(gib), None if gib is None else gib * 1024**3)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
