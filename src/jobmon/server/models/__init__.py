"""The tables in SQLAlchemy Core, recorded until a statement is evaluated (`server.recording`).

The modules of this package define them; `tables.metadata` has all of them; `types.py` defines how times and IDs are
stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy import Table

    from jobmon.server.models.tables import (
        agent,
        argument,
        attempt_file,
        audit,
        batch,
        cluster,
        cluster_watch,
        dag,
        dag_node,
        distributor,
        expansion,
        launch_problem,
        lease,
        log_tail,
        logical_clock,
        node,
        node_arg,
        packed_batch,
        packed_job,
        personal_token,
        queue,
        server_identity,
        signing_key,
        slot_lease,
        status_count,
        task,
        task_arg,
        task_array,
        task_attribute,
        task_edit,
        task_instance,
        task_resources,
        task_revision,
        task_template,
        task_template_version,
        template_files,
        tool,
        tool_version,
        upstream_set,
        upstream_set_member,
        user_group,
        workflow,
        workflow_attribute,
        workflow_change,
        workflow_run,
        workflow_version,
    )
    from jobmon.server.models.types import IS_EXPANSION
else:
    from jobmon.server.recording import RecordedTable, named

    agent = RecordedTable("agent")
    argument = RecordedTable("argument")
    attempt_file = RecordedTable("attempt_file")
    audit = RecordedTable("audit")
    batch = RecordedTable("batch")
    cluster = RecordedTable("cluster")
    cluster_watch = RecordedTable("cluster_watch")
    dag = RecordedTable("dag")
    dag_node = RecordedTable("dag_node")
    distributor = RecordedTable("distributor")
    expansion = RecordedTable("expansion")
    launch_problem = RecordedTable("launch_problem")
    lease = RecordedTable("lease")
    log_tail = RecordedTable("log_tail")
    logical_clock = RecordedTable("logical_clock")
    node = RecordedTable("node")
    node_arg = RecordedTable("node_arg")
    packed_batch = RecordedTable("packed_batch")
    packed_job = RecordedTable("packed_job")
    personal_token = RecordedTable("personal_token")
    queue = RecordedTable("queue")
    server_identity = RecordedTable("server_identity")
    signing_key = RecordedTable("signing_key")
    slot_lease = RecordedTable("slot_lease")
    status_count = RecordedTable("status_count")
    task = RecordedTable("task")
    task_arg = RecordedTable("task_arg")
    task_array = RecordedTable("task_array")
    task_attribute = RecordedTable("task_attribute")
    task_edit = RecordedTable("task_edit")
    task_instance = RecordedTable("task_instance")
    task_resources = RecordedTable("task_resources")
    task_revision = RecordedTable("task_revision")
    task_template = RecordedTable("task_template")
    task_template_version = RecordedTable("task_template_version")
    template_files = RecordedTable("template_files")
    tool = RecordedTable("tool")
    tool_version = RecordedTable("tool_version")
    upstream_set = RecordedTable("upstream_set")
    upstream_set_member = RecordedTable("upstream_set_member")
    user_group = RecordedTable("user_group")
    workflow = RecordedTable("workflow")
    workflow_attribute = RecordedTable("workflow_attribute")
    workflow_change = RecordedTable("workflow_change")
    workflow_run = RecordedTable("workflow_run")
    workflow_version = RecordedTable("workflow_version")
    IS_EXPANSION = named("jobmon.server.models.types", "IS_EXPANSION")

__all__ = [
    "IS_EXPANSION",
    "TABLES",
    "agent",
    "argument",
    "attempt_file",
    "audit",
    "batch",
    "cluster",
    "cluster_watch",
    "dag",
    "dag_node",
    "distributor",
    "expansion",
    "launch_problem",
    "lease",
    "log_tail",
    "logical_clock",
    "node",
    "node_arg",
    "packed_batch",
    "packed_job",
    "personal_token",
    "queue",
    "server_identity",
    "signing_key",
    "slot_lease",
    "status_count",
    "task",
    "task_arg",
    "task_array",
    "task_attribute",
    "task_edit",
    "task_instance",
    "task_resources",
    "task_revision",
    "task_template",
    "task_template_version",
    "template_files",
    "tool",
    "tool_version",
    "upstream_set",
    "upstream_set_member",
    "user_group",
    "workflow",
    "workflow_attribute",
    "workflow_change",
    "workflow_run",
    "workflow_version",
]

#: All tables by name.
TABLES: Final[dict[str, Table]] = {name: globals()[name] for name in __all__ if name.islower()}
