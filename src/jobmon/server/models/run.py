"""What happens when a workflow runs: runs, distributors, attempts; and the server's own few rows."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from jobmon.server.models.types import Base, BigId, Key, Letter, LongText, Name, Time


class WorkflowRun(Base):
    """One start or resume. `bound_at`: when everything was recorded, None if that never happened."""

    __tablename__ = "workflow_run"
    id: Mapped[Key]
    workflow_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflow.id"), index=True)
    request_key: Mapped[Name] = mapped_column(unique=True)
    user_name: Mapped[Name]
    host: Mapped[Name]
    pid: Mapped[int] = mapped_column(BigId)
    pid_start_time: Mapped[float]
    version: Mapped[Name]
    created_at: Mapped[Time]
    bound_at: Mapped[Time | None]
    report_by: Mapped[Time]
    status: Mapped[Letter] = mapped_column(index=True)
    status_at: Mapped[Time]


class Distributor(Base):
    """A distributor that registered. The highest epoch of a workflow is the one that may launch."""

    __tablename__ = "distributor"
    __table_args__ = (UniqueConstraint("workflow_id", "epoch"),)
    id: Mapped[Key]
    workflow_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflow.id"))
    workflow_run_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflow_run.id"))
    epoch: Mapped[int]
    request_key: Mapped[Name] = mapped_column(unique=True)
    host: Mapped[Name]
    pid: Mapped[int] = mapped_column(BigId)
    pid_start_time: Mapped[float]
    registered_at: Mapped[Time]
    seen_at: Mapped[Time]


class Batch(Base):
    """Attempts of one array with one request, launched together. `number` is unique in the workflow.

    `request_key` is that of the request that took it, so that its answer can be given again. `host`: the machine of
    the distributor that took it, where its commands run on that very machine; None: whoever comes next may see to it.
    """

    __tablename__ = "batch"
    __table_args__ = (UniqueConstraint("workflow_id", "number"),)
    id: Mapped[Key]
    workflow_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflow.id"))
    number: Mapped[int]
    array_id: Mapped[int] = mapped_column(BigId, ForeignKey("task_array.id"))
    task_resources_id: Mapped[int] = mapped_column(BigId, ForeignKey("task_resources.id"))
    request_key: Mapped[Name | None] = mapped_column(index=True)
    launched_at: Mapped[Time]
    host: Mapped[Name | None]


class PackedBatch(Base):
    """A batch whose jobs take its attempts from the server, in the order of their steps: those before `taken` are.

    `mode`: a `core.packing.Mode`. `size` grows when pilots add to it what became ready later. `submitted`: its
    distributor told of that.
    """

    __tablename__ = "packed_batch"
    batch_id: Mapped[int] = mapped_column(BigId, ForeignKey("batch.id"), primary_key=True, autoincrement=False)
    workflow_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflow.id"), index=True)
    mode: Mapped[Name]
    jobs: Mapped[int]
    width: Mapped[int]
    runtime_seconds: Mapped[float | None]
    size: Mapped[int]
    taken: Mapped[int]
    submitted: Mapped[bool]


class PackedJob(Base):
    """A job of a packed batch. `handed_out`: what it took last (JSON, ids), with `request_key`."""

    __tablename__ = "packed_job"
    __table_args__ = (UniqueConstraint("batch_id", "distributor_id"),)
    id: Mapped[Key]
    batch_id: Mapped[int] = mapped_column(BigId, ForeignKey("batch.id"))
    distributor_id: Mapped[Name]
    host: Mapped[Name | None]
    started_at: Mapped[Time | None]
    ended_at: Mapped[Time | None]
    request_key: Mapped[Name | None]
    handed_out: Mapped[LongText | None]


class TaskInstance(Base):
    """One attempt: who ran it where and when, how it ended, what it used. `number` counts from 1 within its task."""

    __tablename__ = "task_instance"
    __table_args__ = (
        UniqueConstraint("task_id", "number"),
        Index("ix_task_instance_launch", "workflow_run_id", "status", "cluster_id", "id"),
        Index("ix_task_instance_batch", "batch_id", "array_step_id"),
    )
    id: Mapped[Key]
    task_id: Mapped[int] = mapped_column(BigId, ForeignKey("task.id"))
    number: Mapped[int]
    workflow_run_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflow_run.id"))
    cluster_id: Mapped[int] = mapped_column(BigId, ForeignKey("cluster.id"))
    task_resources_id: Mapped[int] = mapped_column(BigId, ForeignKey("task_resources.id"))
    batch_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("batch.id"))
    array_step_id: Mapped[int | None]
    distributor_id: Mapped[Name | None]
    status: Mapped[Letter]
    queued_at: Mapped[Time]
    launched_at: Mapped[Time | None]
    started_at: Mapped[Time | None]
    ended_at: Mapped[Time | None]
    report_by: Mapped[Time | None]
    cause: Mapped[Name | None]
    charged: Mapped[bool]
    host: Mapped[Name | None]
    pid: Mapped[int | None] = mapped_column(BigId)
    exit_code: Mapped[int | None]
    exit_signal: Mapped[int | None]
    error: Mapped[LongText | None]
    stdout: Mapped[LongText | None]
    stderr: Mapped[LongText | None]
    wallclock_seconds: Mapped[float | None]
    cpu_seconds: Mapped[float | None]
    max_rss_bytes: Mapped[int | None] = mapped_column(BigId)
    read_bytes: Mapped[int | None] = mapped_column(BigId)
    written_bytes: Mapped[int | None] = mapped_column(BigId)
    pending_reason: Mapped[LongText | None]


class LogTail(Base):
    """The end of an attempt's output, where there was any."""

    __tablename__ = "log_tail"
    task_instance_id: Mapped[int] = mapped_column(BigId, ForeignKey("task_instance.id"), primary_key=True)
    text: Mapped[LongText]


class Audit(Base):
    """What people and the reaper did. `details` is JSON."""

    __tablename__ = "audit"
    id: Mapped[Key]
    at: Mapped[Time] = mapped_column(index=True)
    actor: Mapped[Name]
    action: Mapped[Name]
    workflow_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("workflow.id"), index=True)
    details: Mapped[LongText]


class Lease(Base):
    """Who may do what only one server process may do, and until when."""

    __tablename__ = "lease"
    name: Mapped[Name] = mapped_column(primary_key=True)
    holder: Mapped[Name]
    expires_at: Mapped[Time]


class SlotLease(Base):
    """Cores of a shared pool that a workflow may use; see `server.slots`. A row changes only when its share does.

    `version` counts the grants; `held` is what the workflow may be using until it confirms a smaller grant. `wanted`
    and `head` are what it asked for last, `since` is when it was last given enough, or began to wait for it.
    """

    __tablename__ = "slot_lease"
    pool: Mapped[Name] = mapped_column(primary_key=True)
    workflow_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("workflow.id"), primary_key=True, autoincrement=False, index=True
    )
    total: Mapped[float]
    granted: Mapped[float]
    version: Mapped[int]
    held: Mapped[float]
    wanted: Mapped[float]
    head: Mapped[float]
    since: Mapped[Time]


class ClusterWatch(Base):
    """Who looks at a cluster for all distributors of this server, and what was seen last; see `usecases.watching`.

    One row for each `scope`: whose jobs those who look can see, e.g. a user's.

    `holder` looks now, since `began_at`, until `expires_at` at most. `view` (None: nobody else wanted it) was begun at
    `looked_at` and has the endings from `view_since` (seconds) on. `problem`: why there was none at the last look;
    since `problem_at`. `participants` is JSON: who wants to know, from when on, and until when that holds.
    """

    __tablename__ = "cluster_watch"
    cluster_id: Mapped[int] = mapped_column(BigId, ForeignKey("cluster.id"), primary_key=True, autoincrement=False)
    scope: Mapped[Name] = mapped_column(primary_key=True)
    holder: Mapped[Name | None]
    began_at: Mapped[Time]
    expires_at: Mapped[Time]
    number: Mapped[int] = mapped_column(BigId)
    looked_at: Mapped[Time]
    view: Mapped[LongText | None]
    view_since: Mapped[float]
    problem: Mapped[LongText]
    problem_at: Mapped[Time | None]
    participants: Mapped[LongText]


class ServerIdentity(Base):
    """One row: a random word by which submissions for this server are told from those for others."""

    __tablename__ = "server_identity"
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    word: Mapped[Name]


class LogicalClock(Base):
    """One row: the last stamp that was given to a change."""

    __tablename__ = "logical_clock"
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    stamp: Mapped[Time]
