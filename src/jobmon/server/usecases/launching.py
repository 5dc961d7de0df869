"""A distributor registers, and takes attempts: Q -> I, in batches of one array and one resource request."""

from __future__ import annotations

import json
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import PRIORITY_MAX, Actor, TaskInstanceStatus
from jobmon.core.exceptions import StaleRun
from jobmon.core.wire import replace
from jobmon.core.wire.launching import (
    LAUNCHES_PER_RESPONSE_MAX,
    DistributorRequest,
    DistributorResponse,
    LaunchBatch,
    LiveAttempt,
    SyncRequest,
)
from jobmon.server import limits, transitions
from jobmon.server.command_room import CommandRoom
from jobmon.server.constructs import Boolean, and_, func, literal_column, or_, select, update
from jobmon.server.joins import ATTEMPTS_OF_WORKFLOW, ATTEMPTS_WITH_TASKS
from jobmon.server.leadership import has_to_stay, role_of
from jobmon.server.lookups import find_cluster, folder_of
from jobmon.server.models import (
    batch,
    cluster,
    distributor,
    packed_batch,
    queue,
    task,
    task_array,
    task_instance,
    task_resources,
    workflow,
    workflow_run,
)
from jobmon.server.sql import any_of, none_of, param, statement, statements
from jobmon.server.transaction import Audience
from jobmon.server.usecases import launch_problems, packing
from jobmon.server.usecases.runs import clusters_of, require_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Select
    from sqlalchemy.sql.dml import ReturningUpdate

    from jobmon.server.sql import Statement
    from jobmon.server.transaction import Transaction
    from jobmon.server.transitions import RunRow

#: Number of the newest failed and of the newest other attempts by which hosts are judged.
HOSTS_JUDGED_BY_MAX: Final = 200
EXCLUDED_HOSTS_MAX: Final = 50
_GROUP: Final = itemgetter(2, 3)
#: Greater than the sum of the priorities of a task and its array.
_ABOVE_ALL: Final = 2 * PRIORITY_MAX + 1


def handed_out_attempts() -> Select[Any]:
    """Select attempts with the columns that are needed to launch them.

    These are the IDs of attempt, task, array and resource request, the name and command of the task, and the number of
    the attempt.
    """
    ti, t = task_instance.c, task.c
    return select(ti.id, ti.task_id, t.array_id, ti.task_resources_id, t.name, t.command, ti.number).select_from(
        ATTEMPTS_WITH_TASKS
    )


@statement
def _attempts_by_id() -> Select[Any]:
    return handed_out_attempts().where(any_of(task_instance.c.id, "ids")).order_by(task_instance.c.id)


def attempts_to_hand_out(tx: Transaction, ids: Sequence[int]) -> list[tuple[Any, ...]]:
    """Return attempts with the columns of `handed_out_attempts`."""
    return tx.rows(_attempts_by_id, ids=ids) if ids else []


def columns_of(rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Return attempts with the columns of `handed_out_attempts` as the columns of a message."""
    return {
        "task_instance_ids": [row[0] for row in rows],
        "task_ids": [row[1] for row in rows],
        "names": [row[4] for row in rows],
        "commands": [row[5] for row in rows],
        "attempts": [row[6] for row in rows],
    }


@statement
def _attempts_of_batch() -> Select[Any]:
    ti = task_instance.c
    return handed_out_attempts().where(ti.batch_id == param("batch")).order_by(ti.array_step_id)


def _queued_attempts(is_limited: bool) -> Select[Any]:
    """Select queued attempts of a run; with changed limits, without those of full arrays."""
    ti = task_instance.c
    found = handed_out_attempts().where(
        ti.workflow_run_id == param("run"),
        ti.status == param("queued"),
        ti.cluster_id == param("cluster"),
    )
    return (found.where(none_of(task.c.array_id, "full")) if is_limited else found).limit(param("capacity"))


@statements
def _oldest_queued(is_limited: bool) -> Select[Any]:
    """Select the oldest queued attempts of priority 0."""
    ti = task_instance.c
    found = _queued_attempts(is_limited).where(ti.id > param("after"), ti.priority == literal_column("0"))
    return found.order_by(ti.id)


@statements
def _prioritized(is_limited: bool) -> Select[Any]:
    """Select the queued attempts of another priority than 0 after one of them, with their priorities."""
    ti = task_instance.c
    is_after = or_(
        ti.priority < param("priority"),
        and_(ti.priority == param("priority"), ti.id > param("after")),
    )
    found = _queued_attempts(is_limited).where(ti.priority != literal_column("0"), is_after)
    return found.add_columns(ti.priority).order_by(ti.priority.desc(), ti.id)


@statement
def _epoch_of_request() -> Select[Any]:
    return select(distributor.c.epoch).where(distributor.c.request_key == param("key"))


@statement
def _newest_registration() -> Select[Any]:
    d = distributor.c
    return select(func.max(d.epoch), func.max(d.workflow_run_id)).where(d.workflow_id == param("workflow"))


@statement
def _attempts_to_adopt() -> Select[Any]:
    ti, t, b, p, r = task_instance.c, task.c, batch.c, packed_batch.c, task_resources.c
    return (
        select(
            *(ti.id, ti.task_id, ti.status, cluster.c.name, ti.distributor_id, b.array_id, b.number),
            *(ti.array_step_id, r.requested, t.name, p.batch_id, ti.launched_at),
        )
        .select_from(
            ATTEMPTS_OF_WORKFLOW.join(cluster, cluster.c.id == ti.cluster_id)
            .join(batch, b.id == ti.batch_id)
            .join(task_resources, r.id == ti.task_resources_id)
            .join(task, t.id == ti.task_id)
            .outerjoin(packed_batch, p.batch_id == b.id)
        )
        .where(
            workflow_run.c.workflow_id == param("id"),
            any_of(ti.status, "taken"),
            or_(b.host == param("host"), and_(b.host.is_(None), param("leads", Boolean))),
        )
        .order_by(ti.id)
    )


@statement
def _newest_failed() -> Select[Any]:
    ti = task_instance.c
    return (
        select(ti.host, ti.ended_at, ti.started_at)
        .where(ti.workflow_run_id == param("run"), ti.status == param("failed"), ti.cluster_id == param("cluster"))
        .order_by(ti.id.desc())
        .limit(param("most"))
    )


@statement
def _hosts_that_started() -> Select[Any]:
    """Select, by host, when the newest attempts that reached their command last did so."""
    ti = task_instance.c
    newest = (
        select(ti.host, ti.started_at)
        .where(ti.workflow_run_id == param("run"), any_of(ti.status, "good"), ti.cluster_id == param("cluster"))
        .order_by(ti.id.desc())
        .limit(param("most"))
        .subquery("newest")
    )
    return (
        select(newest.c.host, func.max(newest.c.started_at))
        .where(newest.c.host.is_not(None), newest.c.started_at.is_not(None))
        .group_by(newest.c.host)
    )


@statement
def _batches_of_request() -> Select[Any]:
    b = batch.c
    return (
        select(b.id, b.number)
        .where(b.request_key == param("key"), b.workflow_id == param("workflow"))
        .order_by(b.number)
    )


@statement
def _place() -> Select[Any]:
    a, r, q, c = task_array.c, task_resources.c, queue.c, cluster.c
    asked = task_resources.join(queue, q.id == r.queue_id).join(cluster, c.id == q.cluster_id)
    return (
        select(a.name, c.name, q.name, r.requested)
        .select_from(task_array.join(asked, r.id == param("resources")))
        .where(a.id == param("array"))
    )


@statement
def _count_batch() -> ReturningUpdate[Any]:
    count = workflow.c.batch_count
    return update(workflow).values(batch_count=count + 1).where(workflow.c.id == param("id")).returning(count)


def register(tx: Transaction, run_id: int, request: DistributorRequest) -> DistributorResponse:
    """Register a distributor under the next epoch of its workflow; the same key returns the same registration.

    Raises:
        StaleRun: another distributor has taken over.
    """
    run = require_run(tx, run_id)
    epoch = tx.value(_epoch_of_request, key=request.key)
    if epoch is None:
        epoch = _register(tx, run, request)
    is_retired = role_of(tx, run_id, epoch).is_retired
    folder = folder_of(tx, run.workflow_id)
    return DistributorResponse(
        epoch=epoch,
        workflow_id=run.workflow_id,
        workflow_run_status=run.status,
        working_directory=folder[0],
        umask=folder[1],
        clusters=clusters_of(tx, run.workflow_id),
        attempts=_live_attempts(tx, run.workflow_id, request.host, leads=not is_retired),
        attempt_heartbeat_interval=tx.settings.task_instance_interval_seconds,
        report_by_buffer=tx.settings.report_by_buffer,
        packed=[] if is_retired else packing.live_batches(tx, run.workflow_id),
        retired=is_retired,
        stamp=tx.known_until,
    )


def _register(tx: Transaction, run: RunRow, request: DistributorRequest) -> int:
    row = tx.row(_newest_registration, workflow=run.workflow_id)
    last, newest_run = row if row is not None else (None, None)
    if newest_run is not None and (newest_run > run.id or request.epoch not in (0, last)):
        if request.epoch and has_to_stay(tx, run.workflow_id, run.id, request.epoch, request.host):
            return request.epoch
        raise StaleRun(f"Another distributor of workflow {run.workflow_id} has registered, for run {newest_run}.")
    epoch = (last or 0) + 1
    tx.audit(Actor.CLIENT, "register distributor", run.workflow_id, run=run.id, host=request.host)
    tx.add(
        distributor,
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
    launch_problems.forget(tx, run.workflow_id)
    tx.wake(Audience.DISTRIBUTOR, run.workflow_id)  # the previous one learns that it is fenced
    return epoch


def _live_attempts(tx: Transaction, workflow_id: int, host: str, *, leads: bool) -> list[LiveAttempt]:
    """Return the attempts that a distributor adopts: not those on other machines, which only local ones can see."""
    rows = tx.rows(_attempts_to_adopt, id=workflow_id, taken=transitions.TAKEN, host=host, leads=leads)
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
    """Launch the oldest queued attempts of a run, up to each cluster's capacity; a repeated key repeats the answer.

    Args:
        tx: the transaction.
        workflow_id: ID of the run's workflow.
        run_id: ID of the run.
        request: the request whose capacity is to be filled.
        host: host of the distributor that sent it.
    """
    key, has_workers = request.key, request.ended_since is not None
    again = _handed_out(tx, workflow_id, key) if key else []
    if again:
        return again
    batches: list[LaunchBatch] = []
    left, room = limits.room(tx, run_id), CommandRoom()
    for cluster_name, wanted in request.capacity.items():
        cluster_id = find_cluster(tx, cluster_name)
        if cluster_id is None or wanted <= 0:
            continue
        rows = _queued(tx, run_id, cluster_id, min(wanted, LAUNCHES_PER_RESPONSE_MAX), left)
        rows = room.admit(rows, _command_length)
        rows.sort(key=_GROUP)
        hosts = excluded_hosts(tx, run_id, cluster_id) if has_workers and rows else []
        for _, group in groupby(rows, _GROUP):
            where = host if cluster_name in request.local else None
            batch_id, launched = _launch(tx, workflow_id, key, where, list(group))
            if cluster_name in request.packing:
                plan = packing.plan_batch(tx, workflow_id, batch_id, len(launched.task_ids), run_id, cluster_id)
                launched = replace(launched, plan=plan)
            if hosts:
                launched = replace(launched, excluded_hosts=hosts)
            batches.append(launched)
    return batches


def _command_length(row: tuple[Any, ...]) -> int:
    return len(row[5])


def _queued(
    tx: Transaction, run_id: int, cluster_id: int, capacity: int, left: limits.Room | None
) -> list[tuple[Any, ...]]:
    """Return the next queued attempts that the limits allow."""
    rows = Waiting(tx, run_id, cluster_id, left).next(capacity)
    return rows if left is None else [row for row in rows if left.admit(row[2])]


class Waiting:
    """The queued attempts of a run on a cluster, in the order in which they are to be launched.

    The highest priority comes first, then the oldest. Attempts of another priority than 0 have an index of their own;
    without any, only one look-up there is added.

    Args:
        tx: the transaction.
        run_id: ID of the run.
        cluster_id: ID of the cluster.
        left: what the limits allow, if they were changed; arrays whose limit is reached are left out.
    """

    def __init__(self, tx: Transaction, run_id: int, cluster_id: int, left: limits.Room | None) -> None:
        self._tx = tx
        self._values = {"run": run_id, "queued": TaskInstanceStatus.QUEUED.value, "cluster": cluster_id}
        self._left = left
        #: Priority and ID of the last prioritized attempt.
        self._last = (_ABOVE_ALL, 0)
        self._after = 0
        self._has_lower = True
        self._is_in_middle = False

    def next(self, most: int) -> list[tuple[Any, ...]]:
        """Return the next attempts, at most `most`; fewer only if there are no more."""
        found: list[tuple[Any, ...]] = []
        if not self._is_in_middle:
            found = self._prioritized(most, above=0)
        if len(found) < most:
            self._is_in_middle = True
            rows = self._run(_oldest_queued, most - len(found), after=self._after)
            self._after = rows[-1][0] if rows else self._after
            found += rows
        if len(found) < most and self._has_lower:
            found += self._prioritized(most - len(found), above=-_ABOVE_ALL)
        return found

    def _prioritized(self, most: int, above: int) -> list[tuple[Any, ...]]:
        rows = self._run(_prioritized, most, priority=self._last[0], after=self._last[1])
        self._has_lower = len(rows) == most or any(row[-1] <= above for row in rows)
        chosen = [row for row in rows if row[-1] > above]
        if chosen:
            self._last = (chosen[-1][-1], chosen[-1][0])
        return [row[:-1] for row in chosen]

    def _run(self, choose: Callable[[bool], Statement], most: int, **values: Any) -> list[tuple[Any, ...]]:
        if self._left is None:
            return self._tx.rows(choose(False), **self._values, **values, capacity=most)
        return self._tx.rows(choose(True), **self._values, **values, capacity=most, full=self._left.full)


def excluded_hosts(tx: Transaction, run_id: int, cluster_id: int) -> list[str]:
    """Return the hosts where the newest worker failed before it started its command, if other hosts do better."""
    where = {"run": run_id, "cluster": cluster_id, "most": HOSTS_JUDGED_BY_MAX}
    rows = tx.rows(_newest_failed, **where, failed=TaskInstanceStatus.ERROR.value)
    failed: dict[str, int] = {}
    for host, ended_at, started_at in rows:
        if host is not None and started_at is None and ended_at is not None:
            failed[host] = max(ended_at, failed.get(host, 0))
    if not failed:
        return []
    good = dict(tx.rows(_hosts_that_started, **where, good=fsm.STARTED))
    bad = sorted(host for host, at in failed.items() if good.get(host, 0) < at)
    return bad[:EXCLUDED_HOSTS_MAX] if good.keys() - set(bad) else []


def _handed_out(tx: Transaction, workflow_id: int, key: str) -> list[LaunchBatch]:
    """Return what an earlier request with this key took; its response may have been lost."""
    batches = tx.rows(_batches_of_request, key=key, workflow=workflow_id)
    return [
        replace(
            _batch(tx, number, tx.rows(_attempts_of_batch, batch=batch_id)), plan=packing.recorded_plan(tx, batch_id)
        )
        for batch_id, number in batches
    ]


def _launch(
    tx: Transaction, workflow_id: int, key: str, host: str | None, rows: Sequence[tuple[Any, ...]]
) -> tuple[int, LaunchBatch]:
    """Claim queued attempts for a new batch; return its ID, and the message to launch it."""
    array_id, resources_id = _GROUP(rows[0])
    batch_number = _next_batch_number(tx, workflow_id)
    batch_id = tx.insert(
        batch,
        workflow_id=workflow_id,
        number=batch_number,
        array_id=array_id,
        task_resources_id=resources_id,
        request_key=key or None,
        host=host,
        launched_at=tx.now,
    )
    transitions.launch(tx, batch_id, [row[0] for row in rows])
    return batch_id, _batch(tx, batch_number, rows)


def _batch(tx: Transaction, number: int, rows: Sequence[tuple[Any, ...]]) -> LaunchBatch:
    array_id, resources_id = _GROUP(rows[0])
    place = tx.row(_place, array=array_id, resources=resources_id)
    assert place is not None
    return LaunchBatch(
        batch_number=number,
        array_id=array_id,
        array_name=place[0],
        cluster_name=place[1],
        queue_name=place[2],
        requested_resources=json.loads(place[3]),
        **columns_of(rows),
    )


def _next_batch_number(tx: Transaction, workflow_id: int) -> int:
    return int(tx.value(_count_batch, id=workflow_id))
