"""Every field of a request fits into its column, and every column is accounted for.

A new field or column without an entry in these tables fails the test: add one that says where its value goes.
"""

from __future__ import annotations

import types
import typing
from datetime import datetime

import pytest
from sqlalchemy import BigInteger, Boolean, Double, Float, Integer, String, Text

from jobmon.core import wire
from jobmon.core.wire import fields
from jobmon.server.models.tables import metadata
from jobmon.server.models.types import Time
from jobmon.server.routes.table import ENDPOINTS

#: Only compared, looked up or acted on.
QUESTION = None
#: Field -> the columns that take its values (those of ids that only refer to rows are QUESTION).
COLUMNS = {
    "AgentRequest": {
        "workflow_run_id": "agent.workflow_run_id",
        "cluster": "cluster.name",
        "scope": "agent.scope",
        "host": "agent.host",
        "boot_id": "agent.boot_id",
        "pid": "agent.pid",
        "pid_start_time": "agent.pid_start_time",
        "key": "agent.request_key",
    },
    "AgentSyncRequest": {
        "key": "task_instance.claim_key",
        "running": QUESTION,
        "unstarted": QUESTION,
        "cores_free": QUESTION,
        "cores_ahead": QUESTION,
        "known_to_kill": QUESTION,
        "has_problem": QUESTION,
        "wait_seconds": QUESTION,
        "drain": QUESTION,
        "leaving": QUESTION,
    },
    "ArraySpec": {
        "task_template_version_id": "task_array.task_template_version_id",
        "name": "task_array.name",
        "max_concurrently_running": "task_array.max_concurrently_running",
        "priority": "task_array.defined_priority",
    },
    "FilePattern": {"name": "template_files.content", "pattern": "template_files.content"},
    "FoundFile": {
        "is_output": "attempt_file.is_output",
        "path": "attempt_file.path",
        "matches": "attempt_file.matches",
        "size_bytes": "attempt_file.size_bytes",
        "modified": "attempt_file.modified",
    },
    "ClusterRequest": {"name": "cluster.name", "plugin": "cluster.plugin", "connection": "cluster.connection"},
    "CompactRequest": {"only_if_useful": QUESTION},
    "ConcurrencyRequest": {
        "max_concurrently_running": "workflow.max_concurrently_running",
        "user": "audit.details",
        "expected": QUESTION,
    },
    "DistributorRequest": {
        "host": "distributor.host",
        "pid": "distributor.pid",
        "pid_start_time": "distributor.pid_start_time",
        "key": "distributor.request_key",
        "epoch": QUESTION,
    },
    "DownstreamRequest": {"task_ids": QUESTION, "dag_id": QUESTION},
    "DropRequest": {"user": QUESTION, "any_owner": QUESTION},
    "EdgesRequest": {
        "set_numbers": "upstream_set.number",
        "upstream_nodes": "upstream_set_member.node_id",
        "node_ids": "dag_node.node_id",
        "node_sets": "upstream_set.number",
        "last": "dag.complete",
        "key": "upstream_set.caller",
    },
    "EndedJob": {
        "distributor_id": "packed_job.distributor_id",
        "status": QUESTION,
        "cause": "task_instance.cause",
        "error": "task_instance.error",
        "exit_code": QUESTION,
        "host": "task_instance.host",
    },
    "HeartbeatRequest": {"status": QUESTION, "next_report_increment": "workflow_run.report_by"},
    "LaunchProblem": {
        "text": "launch_problem.text",
        "since_seconds": "launch_problem.since",
        "tried_seconds": "launch_problem.tried_at",
        "next_seconds": "launch_problem.next_at",
        "waiting": "launch_problem.waiting",
    },
    "LinkRequest": {"workflow_id": QUESTION, "days": QUESTION},
    "OpenRequest": {"workflow_run_id": QUESTION},
    "PurgeRequest": {"user": "audit.details", "any_owner": QUESTION},
    "QueueBatch": {
        "array_id": "batch.array_id",
        "task_ids": "task_instance.task_id",
        "task_resources_id": "task_instance.task_resources_id",
        "cluster_id": "task_instance.cluster_id",
    },
    "QueueRequest": {"seen": QUESTION, "disarm": QUESTION, "fail_fast": QUESTION, "may_overtake": QUESTION},
    "QueueSpec": {"queue_name": "queue.name", "parameters": "queue.parameters"},
    "RedefineRequest": {
        "array_id": "task.array_id",
        "task_ids": QUESTION,
        "names": "task.name",
        "commands": "task.command",
        "task_hashes": "task.hash",
        "max_attempts": "task.max_attempts",
        "task_resources_ids": "task.task_resources_id",
        "scales": "task.scales",
        "scales_index": QUESTION,
        "fallback_queues": "task.fallback_queues",
        "fallback_index": QUESTION,
        "priorities": "task.defined_priority",
        "attributes": "task_attribute.value",
    },
    "Report": {
        "task_instance_id": QUESTION,
        "status": QUESTION,
        "distributor_id": "task_instance.distributor_id",
        "host": "task_instance.host",
        "pid": "task_instance.pid",
        "started_at": "task_instance.started_at",
        "ended_at": "task_instance.ended_at",
        "exit_code": "task_instance.exit_code",
        "signal": "task_instance.exit_signal",
        "cause": "task_instance.cause",
        "error": "task_instance.error",
        "log_tail": "log_tail.text",
        "stdout": "task_instance.stdout",
        "stderr": "task_instance.stderr",
        "wallclock_seconds": "task_instance.wallclock_seconds",
        "cpu_seconds": "task_instance.cpu_seconds",
        "max_rss_bytes": "task_instance.max_rss_bytes",
        "read_bytes": "task_instance.read_bytes",
        "written_bytes": "task_instance.written_bytes",
        "missing_file": "task_instance.error",
        "of_job": QUESTION,
    },
    "ArraysRequest": {"keep_limits": QUESTION},
    "ResetRequest": {
        "reset_if_running": QUESTION,
        "keep_resources": QUESTION,
        "keep_done": QUESTION,
        "user": "audit.details",
        "any_owner": QUESTION,
    },
    "ResourcesSpec": {
        "cluster_name": QUESTION,
        "queue_name": QUESTION,
        "requested": "task_resources.requested",
        "kind": "task_resources.kind",
        "original": "task_resources.original",
    },
    "ResumeRequest": {
        "reset_running_jobs": QUESTION,
        "gone_run_ids": QUESTION,
        "user": "audit.details",
        "any_owner": QUESTION,
    },
    "LeadRequest": {
        "host": "workflow_run.host",
        "pid": "workflow_run.pid",
        "pid_start_time": "workflow_run.pid_start_time",
        "former_pid": QUESTION,
        "former_pid_start_time": QUESTION,
        "next_report_increment": "workflow_run.report_by",
    },
    "RunRequest": {
        "user": "workflow_run.user_name",
        "host": "workflow_run.host",
        "pid": "workflow_run.pid",
        "pid_start_time": "workflow_run.pid_start_time",
        "version": "workflow_run.version",
        "next_report_increment": "workflow_run.report_by",
        "key": "workflow_run.request_key",
        "parent_task_instance_id": "workflow_run.parent_task_instance_id",
        "parent_server_identity": QUESTION,
    },
    "RunStatusRequest": {"status": QUESTION, "reason": "workflow_run.end_reason"},
    "SealRequest": {"key": "workflow_version.request_key", "parts": "workflow_version.changes"},
    "SizingRequest": {
        "memory_strategy": QUESTION,
        "cores_strategy": QUESTION,
        "runtime_strategy": QUESTION,
        "task_id": QUESTION,
        "partial": QUESTION,
    },
    "SlotsWanted": {
        "pool": "slot_lease.pool",
        "total": "slot_lease.total",
        "version": "slot_lease.version",
        "held": "slot_lease.held",
        "wanted": "slot_lease.wanted",
        "head": "slot_lease.head",
    },
    "StagedDefinitions": {
        "key": "workflow_version.request_key",
        "position": "workflow_change.position",
        "task_args": "task_arg.value",
        "upstreams": "task_revision.upstreams",
        "array_id": "task.array_id",
        "task_ids": QUESTION,
        "names": "task.name",
        "commands": "task.command",
        "task_hashes": "task.hash",
        "max_attempts": "task.max_attempts",
        "task_resources_ids": "task.task_resources_id",
        "scales": "task.scales",
        "scales_index": QUESTION,
        "fallback_queues": "task.fallback_queues",
        "fallback_index": QUESTION,
        "priorities": "task.defined_priority",
        "attributes": "task_attribute.value",
    },
    "StagedStatuses": {
        "key": "workflow_version.request_key",
        "position": "workflow_change.position",
        "change": "workflow_change.kind",
        "task_ids": QUESTION,
        "accepted": "task.accepted",
    },
    "StagedTasks": {
        "key": "workflow_version.request_key",
        "position": "workflow_change.position",
        "array_id": "task.array_id",
        "task_template_version_id": "node.task_template_version_id",
        "names": "task.name",
        "commands": "task.command",
        "node_hashes": "node.hash",
        "task_hashes": "task.hash",
        "node_args": "node_arg.value",
        "task_args": "task_arg.value",
        "max_attempts": "task.max_attempts",
        "task_resources_ids": "task.task_resources_id",
        "scales": "task.scales",
        "scales_index": QUESTION,
        "fallback_queues": "task.fallback_queues",
        "fallback_index": QUESTION,
        "priorities": "task.defined_priority",
        "attributes": "task_attribute.value",
        "are_expansions": QUESTION,
    },
    "StagedUpstreams": {
        "key": "workflow_version.request_key",
        "position": "workflow_change.position",
        "set_numbers": "upstream_set.number",
        "members": QUESTION,
        "task_ids": QUESTION,
        "task_sets": "upstream_set.number",
        "edited": "upstream_set_member.upstream_set_id",
        "gained": QUESTION,
        "lost": QUESTION,
    },
    "StopRequest": {"user": "audit.details", "kill": QUESTION, "any_owner": QUESTION, "workflow_run_id": QUESTION},
    "SubmittedBatch": {"batch_number": QUESTION, "distributor_ids": "packed_job.distributor_id"},
    "SyncRequest": {
        "epoch": QUESTION,
        "capacity": QUESTION,
        "alive": QUESTION,
        "known_to_kill": QUESTION,
        "known_to_triage": QUESTION,
        "known_status": QUESTION,
        "wait_seconds": QUESTION,
        "key": "batch.request_key",
        "ended_since": QUESTION,
        "pending": "task_instance.pending_reason",
        "packing": QUESTION,
        "packed": QUESTION,
        "live_jobs": QUESTION,
        "local": QUESTION,
        "retired": QUESTION,
        "unheard": QUESTION,
        "unheard_jobs": QUESTION,
    },
    "TaskToArm": {
        "task_id": "task_instance.task_id",
        "task_resources_id": "task_instance.task_resources_id",
        "cluster_id": "task_instance.cluster_id",
        "missing": QUESTION,
    },
    "TaskUpdatePlanRequest": {"task_ids": QUESTION, "status": QUESTION, "recursive": QUESTION},
    "HoldRequest": {
        "task_ids": QUESTION,
        "template": QUESTION,
        "held": "task.held",
        "preview": QUESTION,
        "user": "audit.details",
        "any_owner": QUESTION,
        "unchanged_since": QUESTION,
    },
    "TaskSetRequest": {
        "action": QUESTION,
        "task_ids": QUESTION,
        "status": QUESTION,
        "array": QUESTION,
        "name": QUESTION,
        "host": QUESTION,
        "priority": QUESTION,
    },
    "BackgroundResumeRequest": {"user": "audit.details", "any_owner": QUESTION},
    "AdjustRequest": {
        "task_ids": QUESTION,
        "memory": QUESTION,
        "runtime": QUESTION,
        "cores": QUESTION,
        "max_attempts": "task.max_attempts",
        "reset": QUESTION,
        "user": "task_edit.user_name",
        "any_owner": QUESTION,
        "unchanged_since": QUESTION,
    },
    "PriorityRequest": {
        "priority": "task.priority",
        "task_ids": QUESTION,
        "template": QUESTION,
        "preview": QUESTION,
        "user": "audit.details",
        "any_owner": QUESTION,
        "unchanged_since": QUESTION,
        "expected": QUESTION,
    },
    "EditPlanRequest": {"task_ids": QUESTION},
    "EditRequest": {
        "task_ids": QUESTION,
        "revisions": QUESTION,
        "command": "task.command",
        "max_attempts": "task.max_attempts",
        "task_resources_ids": "task.task_resources_id",
        "reset": QUESTION,
        "rerun": QUESTION,
        "user": "task_edit.user_name",
        "any_owner": QUESTION,
    },
    "TaskUpdateRequest": {
        "task_ids": QUESTION,
        "status": QUESTION,
        "user": "audit.details",
        "force": QUESTION,
        "any_owner": QUESTION,
        "accepted_ids": QUESTION,
        "accepted": "task.accepted",
        "unchanged_since": QUESTION,
    },
    "TaskAttributesRequest": {"attributes": "task_attribute.value"},
    "TasksRequest": {
        "array_id": "task.array_id",
        "task_template_version_id": "node.task_template_version_id",
        "names": "task.name",
        "commands": "task.command",
        "node_hashes": "node.hash",
        "task_hashes": "task.hash",
        "node_args": "node_arg.value",
        "task_args": "task_arg.value",
        "max_attempts": "task.max_attempts",
        "task_resources_ids": "task.task_resources_id",
        "scales": "task.scales",
        "scales_index": QUESTION,
        "fallback_queues": "task.fallback_queues",
        "fallback_index": QUESTION,
        "priorities": "task.defined_priority",
        "attributes": "task_attribute.value",
        "are_expansions": QUESTION,
    },
    "TemplateSpec": {
        "name": "task_template.name",
        "command_template": "task_template_version.command_template",
        "node_args": "argument.name",
        "task_args": "argument.name",
        "op_args": "argument.name",
    },
    "ToolRequest": {"name": "tool.name"},
    "UpstreamsRequest": {"set_ids": QUESTION, "after_task": QUESTION},
    "UsageRequest": {"workflow_ids": QUESTION, "node_args": QUESTION, "confidence": QUESTION, "percentiles": QUESTION},
    "VersionRequest": {
        "key": "workflow_version.request_key",
        "base": "workflow.version",
        "dag_hash": "workflow.defined_dag_hash",
        "task_hash": "workflow.task_hash",
        "task_count": "workflow.task_count",
        "task_counts": "workflow.task_counts",
        "user": "workflow_version.user_name",
        "host": "workflow_version.host",
        "summary": "workflow_version.summary",
        "expansion_id": "workflow_version.expansion_id",
        "workflow_run_id": "workflow_version.workflow_run_id",
    },
    "CallRequest": {"seen": QUESTION},
    "CallFailedRequest": {"error": "expansion.error", "is_final": QUESTION},
    "ViewRequest": {
        "holder": QUESTION,
        "since": "cluster_watch.view_since",
        "view": "cluster_watch.view",
        "problem": "cluster_watch.problem",
        "scope": "cluster_watch.scope",
        "after": QUESTION,
    },
    "WatchRequest": {
        "holder": "cluster_watch.holder",
        "interval": "cluster_watch.expires_at",
        "silence": "cluster_watch.expires_at",
        "since": "cluster_watch.view_since",
        "known": QUESTION,
        "scope": "cluster_watch.scope",
    },
    "WorkerReportRequest": {"alive": QUESTION, "pending": "task_instance.pending_reason"},
    "WorkerStartRequest": {
        "task_instance_id": QUESTION,
        "array_id": QUESTION,
        "batch_number": QUESTION,
        "array_step_id": QUESTION,
        "distributor_id": "task_instance.distributor_id",
        "host": "task_instance.host",
        "pid": "task_instance.pid",
        "started_at": "task_instance.started_at",
    },
    "WorkerTakeRequest": {
        "array_id": QUESTION,
        "batch_number": QUESTION,
        "distributor_id": "packed_job.distributor_id",
        "host": "packed_job.host",
        "alive": QUESTION,
        "pending": "task_instance.pending_reason",
        "capacity": QUESTION,
        "ahead": QUESTION,
        "key": "packed_job.request_key",
        "wait_seconds": QUESTION,
        "wants_work": QUESTION,
        "known_to_kill": QUESTION,
        "leaving": QUESTION,
    },
    "LoginRequest": dict.fromkeys(("purpose", "challenge"), QUESTION),
    "PageLogin": dict.fromkeys(("state", "code", "secret"), QUESTION),
    "TokenLogin": {**dict.fromkeys(("state", "code", "secret"), QUESTION), "label": "personal_token.label"},
    "DeviceLogin": {"handle": QUESTION, "label": "personal_token.label"},
    "TokenRequest": {
        "user": "personal_token.user_name",
        "label": "personal_token.label",
        "days": QUESTION,
        "groups": "user_group.group_name",
    },
    "WorkflowRequest": {
        "tool_version_id": "workflow.tool_version_id",
        "workflow_args": "workflow.workflow_args",
        "workflow_args_hash": "workflow.workflow_args_hash",
        "dag_hash": "dag.hash",
        "task_hash": "workflow.task_hash",
        "task_count": "workflow.task_count",
        "edge_set_count": QUESTION,
        "name": "workflow.name",
        "description": "workflow.description",
        "max_concurrently_running": "workflow.max_concurrently_running",
        "task_counts": "workflow.task_counts",
        "user": "workflow.user_name",
        "working_directory": "workflow.working_directory",
        "umask": "workflow.umask",
        "workflow_attributes": "workflow_attribute.value",
        "priority": "workflow.defined_priority",
    },
}
#: Written by the server from its own counters, clock, constants and the ids of rows; ids and foreign keys are, too.
SERVERS_OWN = {
    "status_count": {"status", "number"},
    "attempt_file": {"position"},
    "template_files": {"hash"},
    "agent": {"status", "registered_at", "seen_at", "report_by", "last_key"},
    "audit": {"at", "actor", "action", "principal"},
    "batch": {"reason", "number", "launched_at", "host"},
    "cluster": {"removed"},
    "cluster_watch": {"began_at", "number", "looked_at", "problem_at", "participants"},
    "distributor": {"epoch", "registered_at", "seen_at"},
    "launch_problem": {"stamp"},
    "lease": {"name", "holder", "expires_at"},
    "logical_clock": {"stamp", "epoch"},
    "packed_batch": {"mode", "jobs", "width", "runtime_seconds", "size", "taken", "submitted"},
    "packed_job": {"started_at", "ended_at", "handed_out"},
    "personal_token": {"stored_key", "server_key", "created_at", "expires_at", "revoked_at"},
    "queue": {"position"},
    "server_identity": {"word"},
    "signing_key": {"name", "key"},
    "slot_lease": {"agent_id", "granted", "since"},
    "task": {
        *("num_attempts", "attempt_count", "uncharged_in_a_row", "status", "status_at", "revision", "accepted_at"),
        *("requested_at", "kind", "origin_id"),
    },
    "expansion": {"calls", "called_at", "done_at", "revision"},
    "upstream_set": {"origin_id"},
    "task_array": {"limit_at", "priority", "files_id"},
    "task_edit": {"command", "max_attempts", "edited_at"},
    "task_instance": {
        *("number", "array_step_id", "status", "queued_at", "launched_at", "report_by", "charged", "revision"),
        *("queued_stamp", "ended_stamp", "agent_id", "priority"),
    },
    "task_resources": {"hash"},
    "task_revision": {"revision", "command", "task_args"},
    "task_template_version": {"hash", "node_args", "task_args", "op_args"},
    "user_group": {"user_name"},
    "workflow": {"bound", "limit_at", "steered_at", "batch_count", "created_at", "status", "status_at", "priority"},
    "workflow_change": {"number", "content"},
    "workflow_run": {"created_at", "bound_at", "status", "status_at"},
    "workflow_version": {
        *("number", "state", "created_at", "applied_at", "dag_hash", "task_hash", "task_count", "task_counts"),
        "applied",
    },
}


def parts(hint):
    """Return the message classes in the type of a field."""
    if isinstance(hint, type) and issubclass(hint, wire.Message):
        return [hint]
    if typing.get_origin(hint) is typing.Annotated:
        return []
    return [found for argument in typing.get_args(hint) for found in parts(argument)]


def requests():
    """Return every message that a route takes, with those within, by name."""
    found = {}
    waiting = [endpoint.body for endpoint in ENDPOINTS if endpoint.body is not None]
    while waiting:
        kind = waiting.pop()
        if kind.__name__ not in found:
            found[kind.__name__] = kind
            waiting += [part for hint in hints(kind).values() for part in parts(hint)]
    return found


def hints(kind):
    return typing.get_type_hints(kind, include_extras=True)


REQUESTS = requests()
FIELDS = [
    (name, field) for name, kind in sorted(REQUESTS.items()) for field, hint in hints(kind).items() if not parts(hint)
]


def leaves(hint):
    """Return the plain types that values of a field are made of, each with its limits; not the keys of mappings."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return [arguments]
    if origin in (list, types.UnionType, typing.Union):
        return [found for argument in arguments for found in leaves(argument)]
    if origin is dict:
        return leaves(arguments[1])
    return [] if hint is type(None) else [(hint, None)]


def column_of(name):
    table, _, column = name.partition(".")
    return metadata.tables[table].columns[column]


def is_within(kind, meta, column):
    """Whether every value of a field of this type and limits can be stored in the column."""
    stored = column.type
    if isinstance(stored, Text) or kind is typing.Any:
        return isinstance(stored, Text)
    if isinstance(stored, String):
        return kind is str and meta.max_length is not None and meta.max_length <= stored.length
    if stored is Time:
        if kind is datetime:
            return meta.tz is True
        return kind is float
    if isinstance(stored, Boolean):
        return kind is bool
    if isinstance(stored, Integer):
        most = fields.INT64_MAX if isinstance(stored, BigInteger) else fields.INT32_MAX
        return kind is int and meta.le <= most and meta.ge >= -most - 1
    assert isinstance(stored, Double | Float), stored
    return kind is float  # JSON has no infinite numbers


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_what_a_request_may_hold_fits_into_its_column(kind, field):
    assert kind in COLUMNS, f"say where the fields of {kind} go"
    assert field in COLUMNS[kind], f"say where {kind}.{field} goes"
    place = COLUMNS[kind][field]
    if place is QUESTION:
        return
    for leaf, meta in leaves(hints(REQUESTS[kind])[field]):
        assert is_within(leaf, meta, column_of(place)), (leaf, meta, place)


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_number_and_name_of_a_request_has_limits(kind, field):
    """Also those that are only compared: databases refuse parameters, too."""
    for leaf, meta in leaves(hints(REQUESTS[kind])[field]):
        if leaf is int:
            assert meta is not None, "an integer without limits"
            assert meta.le <= fields.INT64_MAX
        if leaf is str:
            assert meta is not None, "a text of no declared length: Name, Hash or Text"


def test_the_tables_name_nothing_that_does_not_exist():
    assert {(kind, field) for kind, found in COLUMNS.items() for field in found} == set(FIELDS)
    for table, columns in SERVERS_OWN.items():
        assert columns <= set(metadata.tables[table].columns.keys()), table


def test_every_column_is_accounted_for():
    taken = {place for found in COLUMNS.values() for place in found.values() if place is not QUESTION}
    unexplained = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if column.name != "id" and not column.foreign_keys
    }
    unexplained -= taken | {f"{table}.{column}" for table, columns in SERVERS_OWN.items() for column in columns}
    assert unexplained == set(), "say which request fills these columns, or that the server does"
