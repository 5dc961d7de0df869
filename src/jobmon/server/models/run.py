"""Tables of running workflows: runs, distributors, attempts; and the few rows of the server itself."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Double, ForeignKey, Index, Integer, Table, UniqueConstraint, text

from jobmon.core.constants import TaskInstanceStatus
from jobmon.server.models.types import IS_PRIORITIZED, BigId, Letter, LongText, Name, Time, metadata

#: The rows that the index of failed attempts contains; `joins.IS_FAILURE` is the condition of a query that uses it.
_IS_FAILED: Final = text(f"charged AND status <> '{TaskInstanceStatus.DONE.value}'")

#: A start or resume. `bound_at`: when everything was recorded, None if that never happened.
#: `end_reason`: an `EndReason`, if the status does not tell why the run ended.
#: `parent_task_instance_id`: the attempt whose command started the run; its cores are lent to the run while it is
#: active.
workflow_run: Final = Table(
    "workflow_run",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("workflow_id", BigId, ForeignKey("workflow.id"), index=True, nullable=False),
    Column("request_key", Name, unique=True, nullable=False),
    Column("user_name", Name, nullable=False),
    Column("host", Name, nullable=False),
    Column("pid", BigId, nullable=False),
    Column("pid_start_time", Double, nullable=False),
    Column("version", Name, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("bound_at", Time, nullable=True),
    Column("report_by", Time, nullable=False),
    Column("status", Letter, index=True, nullable=False),
    Column("status_at", Time, nullable=False),
    Column("end_reason", Name, nullable=True),
    Column("parent_task_instance_id", BigId, nullable=True),
    Index(
        "ix_workflow_run_parent",
        "parent_task_instance_id",
        sqlite_where=text("parent_task_instance_id IS NOT NULL"),
        postgresql_where=text("parent_task_instance_id IS NOT NULL"),
    ),
)

#: A registered distributor. The one with the highest epoch of a workflow may launch.
distributor: Final = Table(
    "distributor",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("workflow_id", BigId, ForeignKey("workflow.id"), nullable=False),
    Column("workflow_run_id", BigId, ForeignKey("workflow_run.id"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("request_key", Name, unique=True, nullable=False),
    Column("host", Name, nullable=False),
    Column("pid", BigId, nullable=False),
    Column("pid_start_time", Double, nullable=False),
    Column("registered_at", Time, nullable=False),
    Column("seen_at", Time, nullable=False),
    UniqueConstraint("workflow_id", "epoch"),
)

#: Attempts of one array with one request, launched together. `number` is unique in the workflow.
#:
#: `request_key` is that of the request that took it, so that the response can be repeated. `host`: the machine of the
#: distributor that took it, if the commands run on that machine; None: any later distributor may adopt it. `reason`:
#: why its tasks share jobs, or do not; None: they cannot, or it was recorded by an earlier version.
batch: Final = Table(
    "batch",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("workflow_id", BigId, ForeignKey("workflow.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("array_id", BigId, ForeignKey("task_array.id"), nullable=False),
    Column("task_resources_id", BigId, ForeignKey("task_resources.id"), nullable=False),
    Column("request_key", Name, index=True, nullable=True),
    Column("launched_at", Time, nullable=False),
    Column("host", Name, nullable=True),
    Column("reason", LongText, nullable=True),
    UniqueConstraint("workflow_id", "number"),
)

#: A batch whose jobs take its attempts from the server in the order of their steps: those before `taken` are taken.
#:
#: `mode`: a `core.packing.Mode`. `size` grows when pilots add attempts that became ready later. `submitted`: its
#: distributor has reported the submission.
packed_batch: Final = Table(
    "packed_batch",
    metadata,
    Column("batch_id", BigId, ForeignKey("batch.id"), primary_key=True, autoincrement=False),
    Column("workflow_id", BigId, ForeignKey("workflow.id"), index=True, nullable=False),
    Column("mode", Name, nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("runtime_seconds", Double, nullable=True),
    Column("size", Integer, nullable=False),
    Column("taken", Integer, nullable=False),
    Column("submitted", Boolean, nullable=False),
)

#: A job of a packed batch. `handed_out`: the attempts of its last request (JSON, IDs), with `request_key`.
packed_job: Final = Table(
    "packed_job",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("batch_id", BigId, ForeignKey("batch.id"), nullable=False),
    Column("distributor_id", Name, nullable=False),
    Column("host", Name, nullable=True),
    Column("started_at", Time, nullable=True),
    Column("ended_at", Time, nullable=True),
    Column("request_key", Name, nullable=True),
    Column("handed_out", LongText, nullable=True),
    UniqueConstraint("batch_id", "distributor_id"),
)

#: A process that runs commands on its host. The attempts that it claimed belong to it (`task_instance.agent_id`).
#:
#: `status`: an `AgentStatus`. It is lost after `report_by`. `last_key`: of its newest request that claimed attempts.
agent: Final = Table(
    "agent",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("workflow_id", BigId, ForeignKey("workflow.id"), index=True, nullable=False),
    Column("workflow_run_id", BigId, ForeignKey("workflow_run.id"), nullable=False),
    Column("cluster_id", BigId, ForeignKey("cluster.id"), nullable=False),
    Column("scope", Name, nullable=False),
    Column("host", Name, nullable=False),
    Column("boot_id", Name, nullable=False),
    Column("pid", BigId, nullable=False),
    Column("pid_start_time", Double, nullable=False),
    Column("request_key", Name, unique=True, nullable=False),
    Column("status", Letter, index=True, nullable=False),
    Column("registered_at", Time, nullable=False),
    Column("seen_at", Time, nullable=False),
    Column("report_by", Time, nullable=False),
    Column("last_key", Integer, nullable=False),
)

#: An attempt: where and when it ran, how it ended, what it used. `number` counts from 1 within its task.
#:
#: `agent_id`: the agent that claimed it, by its request `claim_key`; None: it belongs to a distributor, or is not
#: claimed yet. An agent's attempts have no `report_by`: that of the agent counts.
#: `revision`: that of the task when it was queued. `queued_stamp`, `ended_stamp`: the logical times at which it was
#: queued and succeeded; None in attempts that are older than these columns. `priority`: the sum of those of task and
#: array when it was queued, and as long as it is queued.
task_instance: Final = Table(
    "task_instance",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("task_id", BigId, ForeignKey("task.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("workflow_run_id", BigId, ForeignKey("workflow_run.id"), nullable=False),
    Column("cluster_id", BigId, ForeignKey("cluster.id"), nullable=False),
    Column("task_resources_id", BigId, ForeignKey("task_resources.id"), nullable=False),
    Column("batch_id", BigId, ForeignKey("batch.id"), nullable=True),
    Column("array_step_id", Integer, nullable=True),
    Column("distributor_id", Name, nullable=True),
    Column("status", Letter, nullable=False),
    Column("queued_at", Time, nullable=False),
    Column("launched_at", Time, nullable=True),
    Column("started_at", Time, nullable=True),
    Column("ended_at", Time, nullable=True),
    Column("report_by", Time, nullable=True),
    Column("cause", Name, nullable=True),
    Column("charged", Boolean, nullable=False),
    Column("host", Name, nullable=True),
    Column("pid", BigId, nullable=True),
    Column("exit_code", Integer, nullable=True),
    Column("exit_signal", Integer, nullable=True),
    Column("error", LongText, nullable=True),
    Column("stdout", LongText, nullable=True),
    Column("stderr", LongText, nullable=True),
    Column("wallclock_seconds", Double, nullable=True),
    Column("cpu_seconds", Double, nullable=True),
    Column("max_rss_bytes", BigId, nullable=True),
    Column("read_bytes", BigId, nullable=True),
    Column("written_bytes", BigId, nullable=True),
    Column("pending_reason", LongText, nullable=True),
    Column("agent_id", BigId, nullable=True),
    Column("claim_key", Integer, nullable=True),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("queued_stamp", Time, nullable=True),
    Column("ended_stamp", Time, nullable=True),
    Column("priority", Integer, nullable=False, server_default="0"),
    UniqueConstraint("task_id", "number"),
    Index("ix_task_instance_launch", "workflow_run_id", "status", "cluster_id", "id"),
    Index(
        "ix_task_instance_priority",
        *("workflow_run_id", "status", "cluster_id", "priority", "id"),
        sqlite_where=IS_PRIORITIZED,
        postgresql_where=IS_PRIORITIZED,
    ),
    Index("ix_task_instance_batch", "batch_id", "array_step_id"),
    Index(
        "ix_task_instance_failed",
        *("workflow_run_id", "id", "status"),
        sqlite_where=_IS_FAILED,
        postgresql_where=_IS_FAILED,
    ),
)

#: The end of an attempt's output, if there was any.
log_tail: Final = Table(
    "log_tail",
    metadata,
    Column("task_instance_id", BigId, ForeignKey("task_instance.id"), primary_key=True),
    Column("text", LongText, nullable=False),
)

#: A declared file as an attempt found it; see `core.wire.launching.FoundFile`. `position`: inputs first.
attempt_file: Final = Table(
    "attempt_file",
    metadata,
    Column("task_instance_id", BigId, ForeignKey("task_instance.id"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("is_output", Boolean, nullable=False),
    Column("path", LongText, nullable=False),
    Column("matches", Integer, nullable=False),
    Column("size_bytes", BigId, nullable=False),
    Column("modified", BigId, nullable=False),
    sqlite_with_rowid=False,
)

#: Actions of users and the reaper. `principal`: whose credential was used (None: in old entries). `details` is JSON.
audit: Final = Table(
    "audit",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("at", Time, index=True, nullable=False),
    Column("actor", Name, nullable=False),
    Column("action", Name, nullable=False),
    Column("workflow_id", BigId, ForeignKey("workflow.id"), index=True, nullable=True),
    Column("details", LongText, nullable=False),
    Column("principal", Name, nullable=True),
)

#: The holder of a role that only one server process may have, and until when.
lease: Final = Table(
    "lease",
    metadata,
    Column("name", Name, primary_key=True),
    Column("holder", Name, nullable=False),
    Column("expires_at", Time, nullable=False),
)

#: Cores of a shared pool that one holder may use; see `server.fair_share`. A row changes only when the share does.
#:
#: The holder is an agent of the workflow.
#: `version` counts the grants; `held` is what the holder may be using until it confirms a smaller grant. `wanted` and
#: `head` are its latest request; `since` is when it last received enough, or began to wait for it.
slot_lease: Final = Table(
    "slot_lease",
    metadata,
    Column("pool", Name, primary_key=True),
    Column("workflow_id", BigId, ForeignKey("workflow.id"), primary_key=True, autoincrement=False, index=True),
    Column("agent_id", BigId, primary_key=True, autoincrement=False),
    Column("total", Double, nullable=False),
    Column("granted", Double, nullable=False),
    Column("version", Integer, nullable=False),
    Column("held", Double, nullable=False),
    Column("wanted", Double, nullable=False),
    Column("head", Double, nullable=False),
    Column("since", Time, nullable=False),
)

#: Which distributor polls a cluster for all distributors of this server, and the last view; see `usecases.watching`.
#:
#: One row per `scope`: whose jobs its distributors can see, e.g. a user's.
#:
#: `holder` is polling, since `began_at`, until `expires_at` at most. The poll for `view` (None: no other distributor
#: wanted it) began at `looked_at` and covers completed jobs from `view_since` (seconds) on. `problem`: why the last
#: poll failed; since `problem_at`. `participants` is JSON: which distributors want views, from when on, and until when
#: they count.
cluster_watch: Final = Table(
    "cluster_watch",
    metadata,
    Column("cluster_id", BigId, ForeignKey("cluster.id"), primary_key=True, autoincrement=False),
    Column("scope", Name, primary_key=True),
    Column("holder", Name, nullable=True),
    Column("began_at", Time, nullable=False),
    Column("expires_at", Time, nullable=False),
    Column("number", BigId, nullable=False),
    Column("looked_at", Time, nullable=False),
    Column("view", LongText, nullable=True),
    Column("view_since", Double, nullable=False),
    Column("problem", LongText, nullable=False),
    Column("problem_at", Time, nullable=True),
    Column("participants", LongText, nullable=False),
)

#: Why the distributor of a workflow cannot launch on a cluster now, as reported by the distributor.
#:
#: `text` has been the case since `since`; the last try was at `tried_at`, the next is at `next_at`; `waiting` attempts
#: wait. The problem arose at the logical time `stamp`.
launch_problem: Final = Table(
    "launch_problem",
    metadata,
    Column("workflow_id", BigId, ForeignKey("workflow.id"), primary_key=True, autoincrement=False),
    Column("cluster_id", BigId, ForeignKey("cluster.id"), primary_key=True, autoincrement=False),
    Column("text", LongText, nullable=False),
    Column("since", Time, nullable=False),
    Column("tried_at", Time, nullable=False),
    Column("next_at", Time, nullable=False),
    Column("waiting", Integer, nullable=False),
    Column("stamp", Time, nullable=False),
)

#: One row: a random word that distinguishes submissions of this server from those of others.
server_identity: Final = Table(
    "server_identity",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=False),
    Column("word", Name, nullable=False),
)

#: One row: the last stamp that was assigned to a change, and how many times a server process has become the active one
#: of this database (PostgreSQL only). They share a row, so that a process that assigns a stamp also checks the epoch.
logical_clock: Final = Table(
    "logical_clock",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=False),
    Column("stamp", Time, nullable=False),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
)
