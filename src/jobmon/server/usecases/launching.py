"""A distributor registers, and takes attempts: Q -> I, in batches of one array and one request for resources."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from jobmon.core.exceptions import StaleRun
from jobmon.core.wire.launching import (
    LAUNCHES_PER_RESPONSE_MAX,
    ClusterInfo,
    DistributorRequest,
    DistributorResponse,
    LaunchBatch,
    LiveAttempt,
    SyncRequest,
)
from jobmon.server import limits, transitions
from jobmon.server.standing import has_to_stay, standing
from jobmon.server.transaction import Audience
from jobmon.server.usecases import packing
from jobmon.server.usecases.runs import require_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions import RunRow

from jobmon.core.constants import TaskInstanceStatus

#: Hosts are judged by so many of the newest attempts that failed, and that did not.
HOSTS_JUDGED_BY_MAX: Final = 200
EXCLUDED_HOSTS_MAX: Final = 50
_ATTEMPTS: Final = """
SELECT ti.id, ti.task_id, t.array_id, ti.task_resources_id, t.name, t.command, ti.number
FROM task_instance ti JOIN task t ON t.id = ti.task_id
"""
_TAKEN: Final = _ATTEMPTS + "WHERE ti.batch_id = :batch ORDER BY ti.array_step_id"
_QUEUED: Final = _ATTEMPTS + "WHERE ti.workflow_run_id = :run AND ti.status = :queued AND ti.cluster_id = :cluster"
_OLDEST: Final = " ORDER BY ti.id LIMIT :capacity"
_NOT_FULL: Final = " AND t.array_id NOT IN (:full...)"
_GROUP: Final = itemgetter(2, 3)


def register(tx: Transaction, run_id: int, request: DistributorRequest) -> DistributorResponse:
    """Register a distributor under the next epoch of its workflow; the same key finds the same registration.

    Raises:
        StaleRun: another distributor has taken over.
    """
    run = require_run(tx, run_id)
    epoch = tx.value("SELECT epoch FROM distributor WHERE request_key = :key", key=request.key)
    if epoch is None:
        epoch = _register(tx, run, request)
    is_retired = standing(tx, run_id, epoch).is_retired
    folder = tx.row("SELECT working_directory, umask FROM workflow WHERE id = :id", id=run.workflow_id)
    assert folder is not None
    return DistributorResponse(
        epoch=epoch,
        workflow_id=run.workflow_id,
        workflow_run_status=run.status,
        working_directory=folder[0],
        umask=folder[1],
        clusters=_clusters(tx, run.workflow_id),
        attempts=_live_attempts(tx, run.workflow_id, request.host, leads=not is_retired),
        attempt_heartbeat_interval=tx.settings.task_instance_interval_seconds,
        report_by_buffer=tx.settings.report_by_buffer,
        packed=[] if is_retired else packing.packed_batches(tx, run.workflow_id),
        retired=is_retired,
        server_identity=tx.value("SELECT word FROM server_identity WHERE id = 1"),
        stamp=tx.known_until,
    )


def _register(tx: Transaction, run: RunRow, request: DistributorRequest) -> int:
    row = tx.row("SELECT MAX(epoch), MAX(workflow_run_id) FROM distributor WHERE workflow_id = :id", id=run.workflow_id)
    last, newest_run = row if row is not None else (None, None)
    if newest_run is not None and (newest_run > run.id or request.epoch not in (0, last)):
        if request.epoch and has_to_stay(tx, run.workflow_id, run.id, request.epoch, request.host):
            return request.epoch
        raise StaleRun(f"Another distributor of workflow {run.workflow_id} has registered, for run {newest_run}.")
    epoch = (last or 0) + 1
    tx.insert(
        "distributor",
        workflow_id=run.workflow_id,
        workflow_run_id=run.id,
        epoch=epoch,
        request_key=request.key,
        host=request.host,
        pid=request.pid,
        pid_start_time=request.pid_start_time,
        registered_at=tx.now,
        seen_at=tx.now,
    )
    tx.wake(Audience.DISTRIBUTOR, run.workflow_id)  # the one before learns that it is fenced
    return epoch


def _clusters(tx: Transaction, workflow_id: int) -> list[ClusterInfo]:
    """Return the clusters that tasks or live attempts of the workflow ask for."""
    rows = tx.rows(
        """
        SELECT c.id, c.name, c.plugin, c.connection FROM cluster c WHERE c.id IN (
            SELECT q.cluster_id FROM queue q JOIN task_resources r ON r.queue_id = q.id
            WHERE r.id IN (SELECT DISTINCT task_resources_id FROM task WHERE workflow_id = :id)
            UNION
            SELECT ti.cluster_id FROM workflow_run w JOIN task_instance ti ON ti.workflow_run_id = w.id
            WHERE w.workflow_id = :id AND ti.status IN (:live...)
        ) ORDER BY c.id
        """,
        id=workflow_id,
        live=transitions.LIVE,
    )
    return [
        ClusterInfo(cluster_id=cluster_id, name=name, plugin=plugin, connection=json.loads(connection))
        for cluster_id, name, plugin, connection in rows
    ]


def _live_attempts(tx: Transaction, workflow_id: int, host: str, *, leads: bool) -> list[LiveAttempt]:
    """Return what a distributor is to adopt: not what runs on other machines, where only their own can see it."""
    rows = tx.rows(
        """
        SELECT ti.id, ti.task_id, ti.status, c.name, ti.distributor_id, b.array_id, b.number, ti.array_step_id,
               r.requested, t.name, p.batch_id, ti.launched_at
        FROM workflow_run w JOIN task_instance ti ON ti.workflow_run_id = w.id JOIN cluster c ON c.id = ti.cluster_id
        JOIN batch b ON b.id = ti.batch_id JOIN task_resources r ON r.id = ti.task_resources_id
        JOIN task t ON t.id = ti.task_id LEFT JOIN packed_batch p ON p.batch_id = b.id
        WHERE w.workflow_id = :id AND ti.status IN (:taken...)
        AND (b.host = :host OR b.host IS NULL AND :leads = 1) ORDER BY ti.id
        """,
        id=workflow_id,
        taken=transitions.TAKEN,
        host=host,
        leads=int(leads),
    )
    return [
        LiveAttempt(
            task_instance_id=row[0],
            task_id=row[1],
            status=row[2],
            cluster_name=row[3],
            distributor_id=row[4],
            array_id=row[5],
            batch_number=row[6],
            array_step_id=row[7],
            requested_resources=json.loads(row[8]),
            name=row[9],
            packed=row[10] is not None,
            launched_at=(row[11] or 0) / 1e6,
        )
        for row in rows
    ]


def launch(tx: Transaction, workflow_id: int, run_id: int, request: SyncRequest, host: str | None) -> list[LaunchBatch]:
    """Hand out the oldest queued attempts of a run, at most so many for each cluster; the same key gets the same.

    Args:
        tx: the transaction.
        workflow_id: of the run.
        run_id: the run.
        request: whose capacity is to be filled.
        host: of the distributor that asks.
    """
    key, has_workers = request.key, request.ended_since is not None
    again = _handed_out(tx, workflow_id, key) if key else []
    if again:
        return again
    batches: list[LaunchBatch] = []
    left = limits.room(tx, run_id)
    for cluster_name, wanted in request.capacity.items():
        cluster_id = tx.value("SELECT id FROM cluster WHERE name = :name", name=cluster_name)
        if cluster_id is None or wanted <= 0:
            continue
        rows = _queued(tx, run_id, cluster_id, min(wanted, LAUNCHES_PER_RESPONSE_MAX), left)
        rows.sort(key=_GROUP)
        hosts = excluded_hosts(tx, run_id, cluster_id) if has_workers and rows else []
        for _, group in groupby(rows, _GROUP):
            where = host if cluster_name in request.local else None
            batch_id, batch = _launch(tx, workflow_id, key, where, list(group))
            if cluster_name in request.packing:
                plan = packing.plan_batch(tx, workflow_id, batch_id, len(batch.task_ids), run_id, cluster_id)
                batch = replace(batch, plan=plan)
            if hosts:
                batch = replace(batch, excluded_hosts=hosts)
            batches.append(batch)
    return batches


def _queued(
    tx: Transaction, run_id: int, cluster_id: int, capacity: int, left: limits.Room | None
) -> list[tuple[Any, ...]]:
    """Return the oldest queued attempts for which there is room."""
    values = {"run": run_id, "queued": TaskInstanceStatus.QUEUED.value, "cluster": cluster_id, "capacity": capacity}
    if left is None:
        return tx.rows(_QUEUED + _OLDEST, **values)
    rows = tx.rows(_QUEUED + _NOT_FULL + _OLDEST, **values, full=left.full)
    return [row for row in rows if left.admit(row[2])]


def excluded_hosts(tx: Transaction, run_id: int, cluster_id: int) -> list[str]:
    """Return the hosts on which the newest worker that was tried failed before its command, if others do better."""
    rows = tx.rows(
        """
        SELECT host, ended_at, started_at, status FROM task_instance
        WHERE workflow_run_id = :run AND status = :failed AND cluster_id = :cluster ORDER BY id DESC LIMIT :most
        """,
        run=run_id,
        cluster=cluster_id,
        failed=TaskInstanceStatus.ERROR.value,
        most=HOSTS_JUDGED_BY_MAX,
    )
    failed: dict[str, int] = {}
    for host, ended_at, started_at, _ in rows:
        if host is not None and started_at is None and ended_at is not None:
            failed[host] = max(ended_at, failed.get(host, 0))
    if not failed:
        return []
    good = dict(
        tx.rows(
            """
            SELECT host, MAX(started_at) FROM (
                SELECT host, started_at FROM task_instance
                WHERE workflow_run_id = :run AND status IN (:good...) AND cluster_id = :cluster
                ORDER BY id DESC LIMIT :most
            ) AS newest WHERE host IS NOT NULL AND started_at IS NOT NULL GROUP BY host
            """,
            run=run_id,
            cluster=cluster_id,
            good=(TaskInstanceStatus.DONE, TaskInstanceStatus.RUNNING),
            most=HOSTS_JUDGED_BY_MAX,
        )
    )
    bad = sorted(host for host, at in failed.items() if good.get(host, 0) < at)
    return bad[:EXCLUDED_HOSTS_MAX] if good.keys() - set(bad) else []


def _handed_out(tx: Transaction, workflow_id: int, key: str) -> list[LaunchBatch]:
    """Return what an earlier request of this key took; its answer may have been lost."""
    batches = tx.rows(
        "SELECT id, number FROM batch WHERE request_key = :key AND workflow_id = :workflow ORDER BY number",
        key=key,
        workflow=workflow_id,
    )
    return [
        replace(_batch(tx, number, tx.rows(_TAKEN, batch=batch_id)), plan=packing.recorded_plan(tx, batch_id))
        for batch_id, number in batches
    ]


def _launch(
    tx: Transaction, workflow_id: int, key: str, host: str | None, rows: Sequence[tuple[Any, ...]]
) -> tuple[int, LaunchBatch]:
    array_id, resources_id = _GROUP(rows[0])
    batch_number = _next_batch_number(tx, workflow_id)
    batch_id = tx.insert(
        "batch",
        workflow_id=workflow_id,
        number=batch_number,
        array_id=array_id,
        task_resources_id=resources_id,
        request_key=key or None,
        host=host,
        launched_at=tx.now,
    )
    transitions.launch(tx, batch_id, [row[0] for row in rows], [row[1] for row in rows])
    return batch_id, _batch(tx, batch_number, rows)


def _batch(tx: Transaction, number: int, rows: Sequence[tuple[Any, ...]]) -> LaunchBatch:
    array_id, resources_id = _GROUP(rows[0])
    ids, task_ids, _, _, names, commands, attempts = (list(column) for column in zip(*rows, strict=True))
    place = tx.row(
        """
        SELECT a.name, c.name, q.name, r.requested
        FROM task_array a, task_resources r JOIN queue q ON q.id = r.queue_id JOIN cluster c ON c.id = q.cluster_id
        WHERE a.id = :array AND r.id = :resources
        """,
        array=array_id,
        resources=resources_id,
    )
    assert place is not None
    return LaunchBatch(
        batch_number=number,
        array_id=array_id,
        array_name=place[0],
        cluster_name=place[1],
        queue_name=place[2],
        requested_resources=json.loads(place[3]),
        task_instance_ids=ids,
        task_ids=task_ids,
        names=names,
        commands=commands,
        attempts=attempts,
    )


def _next_batch_number(tx: Transaction, workflow_id: int) -> int:
    tx.run("UPDATE workflow SET batch_count = batch_count + 1 WHERE id = :id", id=workflow_id)
    return int(tx.value("SELECT batch_count FROM workflow WHERE id = :id", id=workflow_id))
