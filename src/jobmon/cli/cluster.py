"""`jobmon cluster`: the clusters on which workflows can run, with the queues and limits that requests must meet."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import click

from jobmon.cli.groups import Group
from jobmon.cli.rendering import OUTPUT
from jobmon.cli.steering import YES, make_sure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.core.requester import Requester
    from jobmon.core.wire.definition import Cluster, QueueSpec

NAME_CHARACTERS_MAX: Final = 255
_LIMITED: Final = ("cores", "memory", "runtime")


@click.group(cls=Group)
def cluster() -> None:
    """List, add and remove clusters."""


@cluster.command("list", epilog="Example: jobmon cluster list")
@OUTPUT
def list_(output: str) -> None:
    """List clusters with plug-in, queues and limits. The first queue is the default."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester

    found = _recorded(Requester.from_defaults())
    if output == "json":
        rendering.show_json(found)
        return
    if not found:
        click.echo(f"No clusters are recorded yet. Recorded when first used: {', '.join(_self_made())}.")
        return
    rows = [row for one in found for row in _rows(one)]
    rendering.show_table(("NAME", "PLUG-IN", "QUEUE", "LIMITS AND SETTINGS"), rows)


def _rows(one: Cluster) -> Sequence[tuple[str, ...]]:
    settings = [_text_of(one.connection)] if one.connection else []
    rows = [
        (one.name, one.plugin, queue.queue_name, "\n".join([*_limits(queue.parameters), *settings]) or "-")
        for queue in one.queues
    ]
    return rows or [(one.name, one.plugin, "-", "\n".join(settings) or "-")]


def _limits(parameters: Mapping[str, Any]) -> list[str]:
    """Return the range and the default of each limited resource, one line each."""
    lines = []
    for what in _LIMITED:
        least, most, usual = (parameters.get(f"{word}_{what}") for word in ("min", "max", "default"))
        parts = [
            f"from {_amount(what, least)}" if least is not None else "",
            f"up to {_amount(what, most)}" if most is not None else "",
            f"(default {_amount(what, usual)})" if usual is not None else "",
        ]
        if any(parts):
            lines.append(" ".join([what, *filter(None, parts)]))
    further = _further(parameters)
    return [*lines, *([further] if further else [])]


def _amount(what: str, value: Any) -> str:
    from jobmon.cli import rendering

    if not isinstance(value, int | float):
        return str(value)
    if what == "runtime":
        return rendering.duration(value)
    return f"{value:g} GiB" if what == "memory" else f"{value:g}"


def _further(parameters: Mapping[str, Any]) -> str:
    known = {f"{word}_{what}" for word in ("min", "max", "default") for what in _LIMITED}
    return _text_of({key: value for key, value in parameters.items() if key not in known})


def _text_of(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())


@cluster.command(epilog="Example: jobmon cluster add big --plugin slurm --queue all.q:max_cores=64,max_memory=512")
@click.argument("name")
@click.option("--plugin", default="", help="Kind of the cluster. Default: the plug-in of the same name.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Setting of the plug-in. Repeatable.")
@click.option(
    "--queue",
    "queues",
    metavar="NAME[:KEY=VALUE,...]",
    multiple=True,
    help="Queue with its limits: min_, max_ and default_ of cores, memory, runtime. Repeatable, the default one first."
    " Default: the queues that the plug-in finds.",
)
@YES
@OUTPUT
def add(name: str, plugin: str, settings: tuple[str, ...], queues: tuple[str, ...], yes: bool, output: str) -> None:
    """Add a cluster, or replace the settings and queues of one."""
    from jobmon.cli import rendering
    from jobmon.core.requester import Requester
    from jobmon.core.wire.definition import Cluster, ClusterRequest

    _check_name(name)
    plugin = plugin or name
    _check_plugin(plugin)
    connection = dict(_pair(text, "--set") for text in settings)
    specs = [_queue(plugin, text) for text in queues] or _found_queues(plugin)
    _check_distinct([spec.queue_name for spec in specs])
    requester = Requester.from_defaults()
    before = next((one for one in _recorded(requester) if one.name == name), None)
    if before is not None:
        make_sure(f"Cluster {name} (plug-in {before.plugin}) already exists and will be changed.", is_sure=yes)
    request = ClusterRequest(name=name, plugin=plugin, queues=specs, connection=connection)
    added = requester.call("/clusters", request, Cluster)
    if output == "json":
        rendering.show_json(added)
    else:
        names = ", ".join(queue.queue_name for queue in added.queues)
        click.echo(f"Added cluster {name}: plug-in {plugin}, queues {names}.")


def _check_name(name: str) -> None:
    if not name.strip() or not name.isprintable() or len(name) > NAME_CHARACTERS_MAX:
        raise click.BadParameter(f"{name!r}: give 1 to {NAME_CHARACTERS_MAX} printable characters.", param_hint="NAME")


def _check_plugin(plugin: str) -> None:
    from jobmon.core.cluster import load_plugin
    from jobmon.core.exceptions import PluginError

    try:
        load_plugin(plugin)
    except PluginError as error:
        raise click.BadParameter(str(error), param_hint="--plugin") from None


def _pair(text: str, option: str) -> tuple[str, Any]:
    """Parse KEY=VALUE. JSON numbers, true and false are converted; everything else is text."""
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise click.BadParameter(f"{text!r}: write KEY=VALUE.", param_hint=option)
    try:
        read = json.loads(value)
    except ValueError:
        read = value
    return key.strip(), read if isinstance(read, bool | int | float) else value


def _queue(plugin: str, text: str) -> QueueSpec:
    """Parse NAME[:KEY=VALUE,...], and have the plug-in validate it."""
    from jobmon.core.cluster import load_plugin
    from jobmon.core.exceptions import JobmonError
    from jobmon.core.wire.definition import QueueSpec

    name, _, rest = text.partition(":")
    if not name.strip():
        raise click.BadParameter(f"{text!r}: the queue has no name.", param_hint="--queue")
    parameters = dict(_parameter(name, part) for part in rest.split(",") if part)
    _check_order(name, parameters)
    try:
        load_plugin(plugin).get_cluster_queue_class()(0, name, parameters).coerce_resources()
    except (JobmonError, ValueError, TypeError) as error:
        raise click.BadParameter(f"queue {name}: {error}", param_hint="--queue") from None
    return QueueSpec(queue_name=name.strip(), parameters=parameters)


def _check_order(queue: str, parameters: Mapping[str, Any]) -> None:
    for what in _LIMITED:
        given = [
            (key, parameters[key]) for key in (f"min_{what}", f"default_{what}", f"max_{what}") if key in parameters
        ]
        for (lower, least), (upper, most) in pairwise(given):
            if least > most:
                raise click.BadParameter(
                    f"queue {queue}: {lower} {least:g} is above {upper} {most:g}.", param_hint="--queue"
                )


def _parameter(queue: str, text: str) -> tuple[str, Any]:
    """Parse a limit or default with the units of requests: max_memory=512G, max_runtime=2d."""
    from jobmon.core.exceptions import JobmonError
    from jobmon.core.resources import normalized

    key, value = _pair(text, "--queue")
    word, _, what = key.partition("_")
    if word not in ("min", "max", "default") or what not in _LIMITED:
        if word in ("min", "max", "default"):
            raise click.BadParameter(
                f"queue {queue}: there is no {key}; {word}_ applies to {', '.join(_LIMITED)}.", param_hint="--queue"
            )
        return key, value
    try:
        return key, normalized({what: value})[what]
    except JobmonError as error:
        raise click.BadParameter(f"queue {queue}, {key}: {error}", param_hint="--queue") from None


def _found_queues(plugin: str) -> list[QueueSpec]:
    from jobmon.core.cluster import default_queues
    from jobmon.core.exceptions import ClusterUnavailable
    from jobmon.core.wire.definition import QueueSpec

    try:
        found = default_queues(plugin)
    except (ClusterUnavailable, OSError) as error:
        raise click.ClickException(f"The queues of plug-in {plugin} cannot be determined from here: {error}") from None
    if not found:
        raise click.UsageError(f"Plug-in {plugin} found no queues here: specify them with --queue.")
    return [QueueSpec(queue_name=name, parameters=dict(parameters)) for name, parameters in found]


def _check_distinct(names: Sequence[str]) -> None:
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise click.BadParameter(f"{twice[0]!r} is specified twice.", param_hint="--queue")


@cluster.command(epilog="Example: jobmon cluster remove big")
@click.argument("name")
@YES
def remove(name: str, yes: bool) -> None:
    """Remove a cluster. Refused while a running workflow needs it; what ran there stays recorded."""
    from urllib.parse import quote

    from jobmon.core.requester import Requester

    requester = Requester.from_defaults()
    known = {one.name: one for one in _recorded(requester)}
    if name not in known:
        _refuse_unknown(name, list(known))
    queues = ", ".join(queue.queue_name for queue in known[name].queues)
    make_sure(f"Cluster {name} (plug-in {known[name].plugin}, queues {queues}) will be removed.", is_sure=yes)
    requester.call(f"/clusters/{quote(name, safe='')}", None, dict, "delete")
    click.echo(f"Removed cluster {name}.")


def _refuse_unknown(name: str, known: Sequence[str]) -> None:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"clusters: {', '.join(known) or 'none'}."
    raise click.BadParameter(f"there is no cluster {name!r}; {hint}", param_hint="NAME")


def _recorded(requester: Requester) -> list[Cluster]:
    from jobmon.core.wire.definition import ClustersResponse

    return requester.call("/clusters", None, ClustersResponse, "get").clusters


def _self_made() -> list[str]:
    """Return the plug-ins that provide default queues."""
    from jobmon.core.cluster import load_plugin, plugin_names

    return [name for name in plugin_names() if hasattr(load_plugin(name), "get_default_queues")]
