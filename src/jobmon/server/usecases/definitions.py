"""Find or create tools, templates, clusters and resource requests."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from jobmon.core import fsm
from jobmon.core.constants import Actor
from jobmon.core.exceptions import InvalidRequest
from jobmon.core.wire.binding import RESOURCES_PER_CHUNK_MAX, IdsResponse, ResourcesRequest, ResourcesSpec
from jobmon.core.wire.definition import (
    Cluster,
    ClusterRequest,
    Queue,
    TemplatesRequest,
    TemplatesResponse,
    ToolRequest,
    ToolResponse,
)
from jobmon.server.constructs import and_, false, null, select, true, update
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, IS_ACTIVE_RUN
from jobmon.server.lookups import find_cluster
from jobmon.server.models import (
    argument,
    cluster,
    queue,
    task,
    task_instance,
    task_resources,
    task_template,
    task_template_version,
    tool,
    tool_version,
    workflow_run,
)
from jobmon.server.problems import Forbidden, InvalidValue, NotFound
from jobmon.server.sql import any_of, param, statement
from jobmon.server.transaction import to_json
from jobmon.server.transitions import LIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Select, Update

    from jobmon.core.wire.definition import QueueSpec, TemplateSpec
    from jobmon.server.transaction import Transaction


def content_hash(*values: Any) -> str:
    """Return the content hash of JSON-serializable values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@statement
def _arguments() -> Select[Any]:
    return select(argument.c.name, argument.c.id).where(any_of(argument.c.name, "names"))


def argument_ids(tx: Transaction, names: Iterable[str]) -> dict[str, int]:
    """Find or create the IDs of argument or attribute names."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    found = dict(tx.rows(_arguments, names=wanted))
    missing = [(name,) for name in wanted if name not in found]
    if missing:
        tx.insert_many(argument, ("name",), missing, ignore=True)
        found = dict(tx.rows(_arguments, names=wanted))
    return found


_TOOL = statement(lambda: select(tool.c.id).where(tool.c.name == param("name")))
_TOOL_NAME = statement(lambda: select(tool.c.name).where(tool.c.id == param("id")))
_TOOL_VERSION = statement(lambda: select(tool_version.c.id).where(tool_version.c.id == param("id")))


@statement
def _versions_of_tool() -> Select[Any]:
    v = tool_version.c
    return select(v.id).where(v.tool_id == param("id")).order_by(v.id)


def find_tool(tx: Transaction, request: ToolRequest) -> ToolResponse:
    """Find or create a tool; a new one gets a first version."""
    tool_id = tx.value(_TOOL, name=request.name)
    if tool_id is None:
        tool_id = tx.insert(tool, name=request.name)
        tx.add(tool_version, tool_id=tool_id)
        tx.audit(Actor.CLIENT, "create tool", None, tool=tool_id, name=request.name)
    return _tool(tx, tool_id, request.name)


def new_tool_version(tx: Transaction, tool_id: int) -> ToolResponse:
    """Add a version to a tool."""
    name = tx.value(_TOOL_NAME, id=tool_id)
    if name is None:
        raise NotFound.of("tool", tool_id)
    version_id = tx.insert(tool_version, tool_id=tool_id)
    tx.audit(Actor.CLIENT, "create tool version", None, tool=tool_id, version=version_id)
    return _tool(tx, tool_id, name)


def _tool(tx: Transaction, tool_id: int, name: str) -> ToolResponse:
    return ToolResponse(tool_id=tool_id, name=name, tool_version_ids=tx.column(_versions_of_tool, id=tool_id))


def require_tool_version(tx: Transaction, tool_version_id: int) -> None:
    """Check that a tool version exists.

    Raises:
        NotFound: there is no version with this ID.
    """
    if tx.value(_TOOL_VERSION, id=tool_version_id) is None:
        raise NotFound.of("tool version", tool_version_id)


def find_templates(tx: Transaction, tool_version_id: int, request: TemplatesRequest) -> TemplatesResponse:
    """Find or create templates of a tool version, and the versions with exactly these patterns and arguments."""
    require_tool_version(tx, tool_version_id)
    template_ids = [_template(tx, tool_version_id, spec.name) for spec in request.templates]
    version_ids = [
        _template_version(tx, template_id, spec)
        for template_id, spec in zip(template_ids, request.templates, strict=True)
    ]
    return TemplatesResponse(task_template_ids=template_ids, task_template_version_ids=version_ids)


@statement
def _find_template() -> Select[Any]:
    t = task_template.c
    return select(t.id).where(t.tool_version_id == param("version"), t.name == param("name"))


def _template(tx: Transaction, tool_version_id: int, name: str) -> int:
    found = tx.value(_find_template, version=tool_version_id, name=name)
    return int(found) if found is not None else tx.insert(task_template, tool_version_id=tool_version_id, name=name)


@statement
def _find_template_version() -> Select[Any]:
    v = task_template_version.c
    return select(v.id).where(v.task_template_id == param("template"), v.hash == param("hash"))


def _template_version(tx: Transaction, template_id: int, spec: TemplateSpec) -> int:
    identity = content_hash(spec.command_template, spec.node_args, spec.task_args, spec.op_args)
    found = tx.value(_find_template_version, template=template_id, hash=identity)
    if found is not None:
        return int(found)
    version_id = tx.insert(
        task_template_version,
        task_template_id=template_id,
        hash=identity,
        command_template=spec.command_template,
        node_args=to_json(spec.node_args),
        task_args=to_json(spec.task_args),
        op_args=to_json(spec.op_args),
    )
    tx.audit(Actor.CLIENT, "create template version", None, template=template_id, name=spec.name, version=version_id)
    return version_id


@statement
def _update_cluster() -> Update:
    changes = {"plugin": param("plugin"), "connection": param("connection"), "removed": false()}
    return update(cluster).values(changes).where(cluster.c.id == param("id"))


@statement
def _withdraw_queues() -> Update:
    return update(queue).values(position=null()).where(queue.c.cluster_id == param("id"))


def set_cluster(tx: Transaction, request: ClusterRequest) -> Cluster:
    """Create or update a cluster; queues that are not named are no longer offered."""
    cluster_id = find_cluster(tx, request.name)
    connection = to_json(request.connection)
    if cluster_id is None:
        cluster_id = tx.insert(cluster, name=request.name, plugin=request.plugin, connection=connection, removed=False)
    else:
        tx.run(_update_cluster, plugin=request.plugin, connection=connection, id=cluster_id)
    tx.run(_withdraw_queues, id=cluster_id)
    queues = [_set_queue(tx, cluster_id, position, spec) for position, spec in enumerate(request.queues)]
    tx.audit(Actor.USER, "set cluster", None, cluster=request.name, plugin=request.plugin)
    return Cluster(
        cluster_id=cluster_id,
        name=request.name,
        plugin=request.plugin,
        connection=request.connection,
        queues=queues,
    )


@statement
def _cluster_as_recorded() -> Select[Any]:
    c = cluster.c
    offered = and_(queue.c.cluster_id == c.id, queue.c.position.is_not(None))
    return (
        select(c.plugin, c.connection, queue.c.name, queue.c.parameters)
        .join_from(cluster, queue, offered, isouter=True)
        .where(c.id == param("id"))
    )


def add_to_cluster(tx: Transaction, request: ClusterRequest) -> Cluster:
    """Record a plug-in's cluster with its defaults, or add queues to it.

    Raises:
        Forbidden: it would change what the jobs of other users start.
    """
    cluster_id = find_cluster(tx, request.name)
    recorded = [] if cluster_id is None else tx.rows(_cluster_as_recorded, id=cluster_id)
    queues = {spec.queue_name: to_json(spec.parameters) for spec in request.queues}
    plugin, connection = (recorded[0][0], recorded[0][1]) if recorded else (request.name, to_json({}))
    is_kept = all(row[2] is None or queues.get(row[2]) == row[3] for row in recorded)
    if (plugin, connection) != (request.plugin, to_json(request.connection)) or not is_kept:
        raise Forbidden(
            f"Only the administrator of this server may set up or change cluster {request.name!r}: jobmon cluster add."
        )
    return set_cluster(tx, request)


@statement
def _find_queue() -> Select[Any]:
    return select(queue.c.id).where(queue.c.cluster_id == param("cluster_id"), queue.c.name == param("name"))


@statement
def _update_queue() -> Update:
    changes = {"position": param("position"), "parameters": param("parameters")}
    return update(queue).values(changes).where(queue.c.id == param("id"))


def _set_queue(tx: Transaction, cluster_id: int, position: int, spec: QueueSpec) -> Queue:
    values = {"cluster_id": cluster_id, "name": spec.queue_name}
    queue_id = tx.value(_find_queue, **values)
    changed = {"position": position, "parameters": to_json(spec.parameters)}
    if queue_id is None:
        queue_id = tx.insert(queue, **values, **changed)
    else:
        tx.run(_update_queue, id=queue_id, **changed)
    return Queue(queue_id=queue_id, queue_name=spec.queue_name, parameters=spec.parameters)


_REMOVE_CLUSTER = statement(lambda: update(cluster).values(removed=true()).where(cluster.c.id == param("id")))


def remove_cluster(tx: Transaction, name: str) -> None:
    """Stop offering a cluster; everything recorded with it is kept.

    Raises:
        NotFound: there is no cluster with this name.
        InvalidRequest: an active workflow needs it.
    """
    cluster_id = find_cluster(tx, name, offered=True)
    if cluster_id is None:
        raise NotFound.of("cluster", repr(name))
    workflow_id = _user_of(tx, cluster_id)
    if workflow_id is not None:
        raise InvalidRequest(
            f"Cluster {name!r} is in use by workflow {workflow_id}. Stop it first: jobmon workflow stop -w"
            f" {workflow_id}."
        )
    tx.run(_REMOVE_CLUSTER, id=cluster_id)
    tx.audit(Actor.USER, "remove cluster", None, cluster=name)


@statement
def _workflow_with_live_attempt() -> Select[Any]:
    ti = task_instance.c
    return (
        select(workflow_run.c.workflow_id)
        .select_from(ATTEMPTS_OF_WORKFLOW)
        .where(any_of(ti.status, "live"), ti.cluster_id == param("cluster"))
        .limit(1)
    )


@statement
def _active_workflow_with_work_left() -> Select[Any]:
    t = task.c
    requests = (
        select(task_resources.c.id)
        .join_from(queue, task_resources, task_resources.c.queue_id == queue.c.id)
        .where(queue.c.cluster_id == param("cluster"))
    )
    return (
        select(t.workflow_id)
        .join_from(workflow_run, task, t.workflow_id == workflow_run.c.workflow_id)
        .where(IS_ACTIVE_RUN, t.status.not_in(fsm.FINAL_TASKS), t.task_resources_id.in_(requests))
        .limit(1)
    )


def _user_of(tx: Transaction, cluster_id: int) -> int | None:
    """Return a workflow with a live attempt on a cluster, or with an active run and tasks left to run there."""
    found = tx.value(_workflow_with_live_attempt, live=LIVE, cluster=cluster_id)
    if found is None:
        found = tx.value(_active_workflow_with_work_left, cluster=cluster_id)
    return None if found is None else int(found)


def find_resources(tx: Transaction, request: ResourcesRequest) -> IdsResponse:
    """Find or create resource requests by content."""
    if len(request.resources) > RESOURCES_PER_CHUNK_MAX:
        raise InvalidValue(f"resources: at most {RESOURCES_PER_CHUNK_MAX} in one request.")
    queues: dict[tuple[str, str], int] = {}
    return IdsResponse(ids=[_resources(tx, spec, queues) for spec in request.resources])


_RESOURCES = statement(lambda: select(task_resources.c.id).where(task_resources.c.hash == param("hash")))


def _resources(tx: Transaction, spec: ResourcesSpec, queues: dict[tuple[str, str], int]) -> int:
    place = (spec.cluster_name, spec.queue_name)
    if place not in queues:
        queues[place] = _queue(tx, *place)
    source = () if spec.original is None else (spec.original,)
    identity = content_hash(queues[place], spec.kind, spec.requested, *source)
    found = tx.value(_RESOURCES, hash=identity)
    if found is not None:
        return int(found)
    resources_id = tx.insert(
        task_resources,
        hash=identity,
        queue_id=queues[place],
        kind=spec.kind,
        requested=to_json(spec.requested),
        original=None if spec.original is None else to_json(spec.original),
    )
    tx.audit(Actor.CLIENT, "create resources", None, resources=resources_id, cluster=spec.cluster_name)
    return resources_id


@statement
def _offered_queues() -> Select[Any]:
    q = queue.c
    return select(q.name, q.id).where(q.cluster_id == param("id"), q.position.is_not(None))


def _queue(tx: Transaction, cluster_name: str, queue_name: str) -> int:
    cluster_id = find_cluster(tx, cluster_name, offered=True)
    if cluster_id is None:
        raise InvalidValue(f"cluster_name: there is no cluster {cluster_name!r}; add it with `jobmon cluster add`.")
    names = dict(tx.rows(_offered_queues, id=cluster_id))
    if queue_name not in names:
        raise InvalidValue(
            f"queue_name: cluster {cluster_name!r} has no queue {queue_name!r}; it has {', '.join(sorted(names))}."
        )
    return int(names[queue_name])
