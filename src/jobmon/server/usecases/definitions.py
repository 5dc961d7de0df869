"""Find or create tools, templates, clusters and requests for resources."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from jobmon.core.constants import TaskStatus
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
from jobmon.server.problems import InvalidValue, NotFound
from jobmon.server.transaction import to_json
from jobmon.server.transitions import FINAL_RUNS, LIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobmon.core.wire.definition import QueueSpec, TemplateSpec
    from jobmon.server.transaction import Transaction


def content_hash(*values: Any) -> str:
    """Return the identity of some JSON-able values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def argument_ids(tx: Transaction, names: Iterable[str]) -> dict[str, int]:
    """Find or create the ids of argument or attribute names."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    found = dict(tx.rows("SELECT name, id FROM argument WHERE name IN (:names...)", names=wanted))
    missing = [(name,) for name in wanted if name not in found]
    if missing:
        tx.run_many("INSERT INTO argument (name) VALUES (?) ON CONFLICT DO NOTHING", missing)
        found = dict(tx.rows("SELECT name, id FROM argument WHERE name IN (:names...)", names=wanted))
    return found


def find_tool(tx: Transaction, request: ToolRequest) -> ToolResponse:
    """Find or create a tool; a new one gets a first version."""
    tool_id = tx.value("SELECT id FROM tool WHERE name = :name", name=request.name)
    if tool_id is None:
        tool_id = tx.insert("tool", name=request.name)
        tx.insert("tool_version", tool_id=tool_id)
    return _tool(tx, tool_id)


def new_tool_version(tx: Transaction, tool_id: int) -> ToolResponse:
    """Give a tool one more version."""
    if tx.value("SELECT id FROM tool WHERE id = :id", id=tool_id) is None:
        raise NotFound.of("tool", tool_id)
    tx.insert("tool_version", tool_id=tool_id)
    return _tool(tx, tool_id)


def _tool(tx: Transaction, tool_id: int) -> ToolResponse:
    return ToolResponse(
        tool_id=tool_id,
        name=tx.value("SELECT name FROM tool WHERE id = :id", id=tool_id),
        tool_version_ids=tx.column("SELECT id FROM tool_version WHERE tool_id = :id ORDER BY id", id=tool_id),
    )


def find_templates(tx: Transaction, tool_version_id: int, request: TemplatesRequest) -> TemplatesResponse:
    """Find or create templates of a tool version, and the versions with exactly these patterns and arguments."""
    if tx.value("SELECT id FROM tool_version WHERE id = :id", id=tool_version_id) is None:
        raise NotFound.of("tool version", tool_version_id)
    template_ids = [_template(tx, tool_version_id, spec.name) for spec in request.templates]
    version_ids = [
        _template_version(tx, template_id, spec)
        for template_id, spec in zip(template_ids, request.templates, strict=True)
    ]
    return TemplatesResponse(task_template_ids=template_ids, task_template_version_ids=version_ids)


def _template(tx: Transaction, tool_version_id: int, name: str) -> int:
    found = tx.value(
        "SELECT id FROM task_template WHERE tool_version_id = :version AND name = :name",
        version=tool_version_id,
        name=name,
    )
    return int(found) if found is not None else tx.insert("task_template", tool_version_id=tool_version_id, name=name)


def _template_version(tx: Transaction, template_id: int, spec: TemplateSpec) -> int:
    identity = content_hash(spec.command_template, spec.node_args, spec.task_args, spec.op_args)
    found = tx.value(
        "SELECT id FROM task_template_version WHERE task_template_id = :template AND hash = :hash",
        template=template_id,
        hash=identity,
    )
    if found is not None:
        return int(found)
    return tx.insert(
        "task_template_version",
        task_template_id=template_id,
        hash=identity,
        command_template=spec.command_template,
        node_args=to_json(spec.node_args),
        task_args=to_json(spec.task_args),
        op_args=to_json(spec.op_args),
    )


def set_cluster(tx: Transaction, request: ClusterRequest) -> Cluster:
    """Create a cluster or bring it up to date; queues that are not named are no longer offered."""
    cluster_id = tx.value("SELECT id FROM cluster WHERE name = :name", name=request.name)
    connection = to_json(request.connection)
    if cluster_id is None:
        cluster_id = tx.insert(
            "cluster", name=request.name, plugin=request.plugin, connection=connection, removed=False
        )
    else:
        tx.run(
            "UPDATE cluster SET plugin = :plugin, connection = :connection, removed = FALSE WHERE id = :id",
            plugin=request.plugin,
            connection=connection,
            id=cluster_id,
        )
    tx.run("UPDATE queue SET position = NULL WHERE cluster_id = :id", id=cluster_id)
    queues = [_set_queue(tx, cluster_id, position, spec) for position, spec in enumerate(request.queues)]
    return Cluster(
        cluster_id=cluster_id,
        name=request.name,
        plugin=request.plugin,
        connection=request.connection,
        queues=queues,
    )


def _set_queue(tx: Transaction, cluster_id: int, position: int, spec: QueueSpec) -> Queue:
    values = {"cluster_id": cluster_id, "name": spec.queue_name}
    queue_id = tx.value("SELECT id FROM queue WHERE cluster_id = :cluster_id AND name = :name", **values)
    changed = {"position": position, "parameters": to_json(spec.parameters)}
    if queue_id is None:
        queue_id = tx.insert("queue", **values, **changed)
    else:
        tx.run("UPDATE queue SET position = :position, parameters = :parameters WHERE id = :id", id=queue_id, **changed)
    return Queue(queue_id=queue_id, queue_name=spec.queue_name, parameters=spec.parameters)


def remove_cluster(tx: Transaction, name: str) -> None:
    """Offer a cluster no longer; what was recorded with it stays.

    Raises:
        NotFound: there is none of this name.
        InvalidRequest: a workflow that is being run needs it.
    """
    cluster_id = tx.value("SELECT id FROM cluster WHERE name = :name AND NOT removed", name=name)
    if cluster_id is None:
        raise NotFound.of("cluster", repr(name))
    workflow_id = _user_of(tx, cluster_id)
    if workflow_id is not None:
        raise InvalidRequest(
            f"Cluster {name!r} is in use by workflow {workflow_id}. Stop that first: jobmon workflow stop -w"
            f" {workflow_id}."
        )
    tx.run("UPDATE cluster SET removed = TRUE WHERE id = :id", id=cluster_id)


def _user_of(tx: Transaction, cluster_id: int) -> int | None:
    """Return a workflow that has something alive on a cluster, or is being run and has still to run something there."""
    found = tx.value(
        """
        SELECT r.workflow_id FROM workflow_run r JOIN task_instance ti ON ti.workflow_run_id = r.id
        WHERE ti.status IN (:live...) AND ti.cluster_id = :cluster LIMIT 1
        """,
        live=list(LIVE),
        cluster=cluster_id,
    )
    if found is None:
        found = tx.value(
            """
            SELECT t.workflow_id FROM workflow_run r JOIN task t ON t.workflow_id = r.workflow_id
            WHERE r.status NOT IN (:final...) AND t.status NOT IN (:ended...) AND t.task_resources_id IN (
                SELECT s.id FROM queue q JOIN task_resources s ON s.queue_id = q.id WHERE q.cluster_id = :cluster)
            LIMIT 1
            """,
            final=FINAL_RUNS,
            ended=[TaskStatus.DONE.value, TaskStatus.ERROR_FATAL.value],
            cluster=cluster_id,
        )
    return None if found is None else int(found)


def find_resources(tx: Transaction, request: ResourcesRequest) -> IdsResponse:
    """Find or create requests for queues, by content."""
    if len(request.resources) > RESOURCES_PER_CHUNK_MAX:
        raise InvalidValue(f"resources: at most {RESOURCES_PER_CHUNK_MAX} in one request.")
    queues: dict[tuple[str, str], int] = {}
    return IdsResponse(ids=[_resources(tx, spec, queues) for spec in request.resources])


def _resources(tx: Transaction, spec: ResourcesSpec, queues: dict[tuple[str, str], int]) -> int:
    place = (spec.cluster_name, spec.queue_name)
    if place not in queues:
        queues[place] = _queue(tx, *place)
    source = () if spec.original is None else (spec.original,)
    identity = content_hash(queues[place], spec.kind, spec.requested, *source)
    found = tx.value("SELECT id FROM task_resources WHERE hash = :hash", hash=identity)
    if found is not None:
        return int(found)
    return tx.insert(
        "task_resources",
        hash=identity,
        queue_id=queues[place],
        kind=spec.kind,
        requested=to_json(spec.requested),
        original=None if spec.original is None else to_json(spec.original),
    )


def _queue(tx: Transaction, cluster_name: str, queue_name: str) -> int:
    cluster_id = tx.value("SELECT id FROM cluster WHERE name = :name AND NOT removed", name=cluster_name)
    if cluster_id is None:
        raise InvalidValue(f"cluster_name: there is no cluster {cluster_name!r}; add it with `jobmon cluster add`.")
    names = dict(tx.rows("SELECT name, id FROM queue WHERE cluster_id = :id AND position IS NOT NULL", id=cluster_id))
    if queue_name not in names:
        raise InvalidValue(
            f"queue_name: cluster {cluster_name!r} has no queue {queue_name!r}; it has {', '.join(sorted(names))}."
        )
    return int(names[queue_name])
