"""What must hold in the server after every single commit, looked at before anything else happens.

Some of these laws have two guards in the code, of which one hides that the other is missing; here each is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import TaskInstanceStatus, TaskStatus, WorkflowRunStatus
from jobmon.distributor.watching import unpacked
from jobmon.server.usecases import launching, packing, queueing, reaping, reporting, resuming, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobmon.core.wire.launching import (
        DistributorRequest,
        SyncRequest,
        SyncResponse,
        WorkerTakeRequest,
        WorkerTakeResponse,
    )
    from jobmon.core.wire.watching import ViewRequest, ViewResponse, WatchRequest, WatchResponse
    from jobmon.server.writer import Job
    from jobmon.testing.simulation.checks import Record

TI, T, RUN = TaskInstanceStatus, TaskStatus, WorkflowRunStatus
_MAY_QUEUE: Final = frozenset({RUN.BOUND, RUN.INSTANTIATED, RUN.LAUNCHED, RUN.RUNNING})
_AFTER_FAILURE: Final = frozenset({T.REGISTERING, T.ADJUSTING_RESOURCES, T.ERROR_FATAL})
_UNDER_WAY: Final = frozenset({T.QUEUED, T.INSTANTIATING, T.LAUNCHED, T.RUNNING})
#: Where a task may be while its newest attempt is there.
_TASK_OF_NEWEST: Final = {
    TI.QUEUED: frozenset({T.QUEUED}),
    TI.INSTANTIATED: frozenset({T.INSTANTIATING}),
    TI.LAUNCHED: frozenset({T.LAUNCHED}),
    TI.RUNNING: frozenset({T.RUNNING}),
    TI.TRIAGING: _UNDER_WAY,
    TI.KILL_SELF: _UNDER_WAY,
    TI.DONE: frozenset({T.DONE}),
    TI.ERROR_FATAL: frozenset({T.ERROR_FATAL}),
    **dict.fromkeys(
        (TI.ERROR, TI.UNKNOWN_ERROR, TI.NO_DISTRIBUTOR_ID, TI.NO_HEARTBEAT, TI.RESOURCE_ERROR), _AFTER_FAILURE
    ),
}
_STANDING: Final = """
SELECT r.status, (SELECT MAX(id) FROM workflow_run newest WHERE newest.workflow_id = r.workflow_id),
    (SELECT MAX(epoch) FROM distributor d WHERE d.workflow_id = r.workflow_id),
    (SELECT MAX(workflow_run_id) FROM distributor d WHERE d.workflow_id = r.workflow_id)
FROM workflow_run r WHERE r.id = ?
"""
_PAUSED: Final = """
SELECT 1 FROM workflow_run r JOIN workflow w ON w.id = r.workflow_id
WHERE r.id = ? AND w.max_concurrently_running = 0 AND w.limit_at > r.bound_at
"""
_NEWEST: Final = """
SELECT t.id, t.status, n.id, n.status
FROM task t JOIN task_instance n ON n.task_id = t.id AND n.number = t.attempt_count
WHERE t.id IN (SELECT task_id FROM task_instance WHERE id IN ({marks}))
"""
#: Attempts that wait for a job to take them, though all jobs that could have ended.
_ABANDONED: Final = """
SELECT ti.id FROM packed_batch p JOIN batch b ON b.id = p.batch_id JOIN task_instance ti ON ti.batch_id = b.id
WHERE p.submitted AND p.taken < p.size AND ti.array_step_id >= p.taken AND ti.status IN ('I', 'O')
AND NOT EXISTS (
    SELECT 1 FROM packed_job j JOIN packed_batch jp ON jp.batch_id = j.batch_id JOIN batch jb ON jb.id = jp.batch_id
    WHERE j.ended_at IS NULL AND (jb.id = b.id OR p.mode = 'pilot' AND jp.mode = 'pilot'
        AND jb.array_id = b.array_id AND jb.task_resources_id = b.task_resources_id))
"""
#: Of the time that a view's age is told in.
ROUNDING_SECONDS: Final = 0.001


class Laws:
    """Watches commits.

    Args:
        record: the database.
        complain: told of what does not hold.
        time: virtual seconds.
        on_force: told of a workflow when a person closed attempts of it without waiting for them.
    """

    def __init__(
        self,
        record: Record,
        complain: Callable[[str], None],
        time: Callable[[], float],
        on_force: Callable[[int], None],
    ) -> None:
        self._record = record
        self._time = time
        #: Attempt -> the packed job that took it, and its request's key.
        self._taken: dict[int, tuple[str, str]] = {}
        #: Job and key -> what such a request was given.
        self._given: dict[tuple[str, str], list[int]] = {}
        self._newest_key: dict[str, str] = {}
        #: Cluster -> who was told last to look, and when that begins to be too long ago.
        self._looking: dict[str, tuple[str, float]] = {}
        self._complain = complain
        self._last_attempt = 0
        self._handed: dict[str, list[int]] = {}
        self._keys: dict[str, int] = {}
        self._ended: dict[int, str] = {}
        #: Attempts that the reaper ended.
        self.reaped: set[int] = set()
        #: Distributor process -> the epoch under which it registered last.
        self.epochs: dict[int, int] = {}
        self._watched: dict[Any, Callable[..., None]] = {
            reporting.sync: self._synced,
            queueing.queue: self._queued,
            launching.register: self._registered,
            reporting.worker_report: self._worker_reported,
            packing.take: self._took,
            watching.watch: self._watched_grid,
            watching.view: self._viewed,
            reaping.reap: self._reaped,
            resuming.force_cleanup: lambda workflow_id, *_: on_force(workflow_id),
        }

    def observe(self, job: Job) -> None:
        """Take a use case that was committed, or failed."""
        watch = self._watched.get(job.use_case)
        if watch is not None and job.error is None:
            watch(*job.arguments, job.answer)

    def _reaped(self, *values: Any) -> None:
        """Note what it ended: attempts of which no report told how they ended."""
        if values[-1].attempts:
            ended = self._record.rows("SELECT id FROM task_instance WHERE ended_at IS NOT NULL")
            self.reaped.update(identity for (identity,) in ended if identity not in self._ended)

    def _registered(self, run_id: int, request: DistributorRequest, answer: Any) -> None:
        self.epochs[request.pid] = max(answer.epoch, self.epochs.get(request.pid, 0))
        if self._keys.setdefault(request.key, answer.epoch) != answer.epoch:
            self._complain(f"one registration got the epochs {self._keys[request.key]} and {answer.epoch}")
        _, _, newest_epoch, newest = self._record.rows(_STANDING, run_id)[0]
        if newest > run_id and answer.epoch == newest_epoch:
            self._complain(f"a distributor of run {run_id} registered after one of run {newest}")

    def _queued(self, run_id: int, request: Any, answer: Any) -> None:
        new = self._record.rows("SELECT id FROM task_instance WHERE id > ?", self._last_attempt)
        if not new:
            return
        self._last_attempt = max(row[0] for row in new)
        status, newest_run, *_ = self._record.rows(_STANDING, run_id)[0]
        if status not in _MAY_QUEUE or newest_run != run_id:
            self._complain(f"run {run_id}, which is {status}, queued attempts; the newest run is {newest_run}")

    def _synced(self, run_id: int, request: SyncRequest, answer: SyncResponse) -> None:
        handed = sorted(identity for batch in answer.launches for identity in batch.task_instance_ids)
        before = self._handed.get(request.key) if request.key else None
        if handed:
            self._check_launching(run_id, request.epoch)
            self._handed[request.key] = handed
        may_launch = request.capacity and not answer.fenced and answer.workflow_run_status in _MAY_QUEUE
        if before is not None and may_launch and handed != before:
            self._complain(f"one request was handed attempts {before}, and when it came again {handed}")
        self._check_reported(report.task_instance_id for report in request.reports)
        if request.submitted or request.ended_jobs:
            self._check_abandoned()

    def _check_launching(self, run_id: int, epoch: int) -> None:
        status, newest_run, newest_epoch, _ = self._record.rows(_STANDING, run_id)[0]
        if newest_epoch != epoch:
            self._complain(f"distributor {epoch} was handed attempts though {newest_epoch} has registered")
        if newest_run != run_id or status not in _MAY_QUEUE:
            self._complain(f"attempts were handed out for run {run_id}, which is {status}; the newest is {newest_run}")
        if self._record.rows(_PAUSED, run_id):
            self._complain(f"attempts were handed out for run {run_id}, whose workflow is paused")

    def _worker_reported(self, request: Any, answer: Any) -> None:
        self._check_reported(report.task_instance_id for report in request.reports)

    def _check_reported(self, reported: Iterable[int]) -> None:
        """A task is where its newest attempt is, whatever is told of older ones; what ended stays as it ended."""
        ids = list(reported)
        if not ids:
            return
        marks = ",".join("?" * len(ids))
        for task_id, status, newest, newest_status in self._record.rows(_NEWEST.format(marks=marks), *ids):
            if status not in _TASK_OF_NEWEST[TI(newest_status)]:
                self._complain(f"task {task_id} is {status} while its newest attempt {newest} is {newest_status}")
        for identity, status in self._record.rows(f"SELECT id, status FROM task_instance WHERE id IN ({marks})", *ids):
            if fsm.is_terminal(fsm.Machine.TASK_INSTANCE, status):
                if self._ended.setdefault(identity, status) != status:
                    self._complain(f"attempt {identity} ended as {self._ended[identity]}, then as {status}")
            elif identity in self._ended:
                self._complain(f"attempt {identity} ended as {self._ended[identity]} and is {status} again")

    # -- jobs that take many tasks -----------------------------------------------------------------------------

    def _took(self, request: WorkerTakeRequest, answer: WorkerTakeResponse) -> None:
        self._check_reported(report.task_instance_id for report in request.reports)
        job = request.distributor_id
        given = answer.tasks.task_instance_ids if answer.tasks is not None else []
        if given:
            self._check_taker(request, given)
        if request.key:
            self._check_again(request, given)
        for identity in given:
            before = self._taken.setdefault(identity, (job, request.key))
            if before != (job, request.key):
                self._complain(f"attempt {identity} was given to job {before[0]}, then to {job}")
        if request.leaving:
            self._check_abandoned()

    def _check_taker(self, request: WorkerTakeRequest, given: list[int]) -> None:
        if len(given) > request.capacity + request.ahead:
            self._complain(f"job {request.distributor_id} asked for {request.capacity} tasks and got {given}")
        ended = "SELECT 1 FROM packed_job WHERE distributor_id = ? AND ended_at IS NOT NULL"
        if self._record.rows(ended, request.distributor_id):
            self._complain(f"job {request.distributor_id}, which was found gone, was given attempts {given}")

    def _check_again(self, request: WorkerTakeRequest, given: list[int]) -> None:
        """What was given before in answer to the same request is given again, unless it ended or the job did.

        A request that comes again when its job has made others is given nothing: nobody would hear of it.
        """
        job, key = request.distributor_id, request.key
        if (job, key) in self._given and self._newest_key[job] != key:
            if given:
                self._complain(f"an old request of job {job} came again and was given attempts {given}")
            return
        self._newest_key[job] = key
        before = self._given.setdefault((job, key), given)
        missing = set(before) - set(given)
        marks = ",".join("?" * len(missing))
        live = (
            f"SELECT id FROM task_instance WHERE status IN ('I', 'O', 'R') AND distributor_id = ? AND id IN ({marks})"
        )
        found = [identity for (identity,) in self._record.rows(live, request.distributor_id, *missing)]
        if found:
            self._complain(f"job {request.distributor_id} asked again with the same key and did not get {found} again")

    def _check_abandoned(self) -> None:
        found = [identity for (identity,) in self._record.rows(_ABANDONED)]
        if found:
            self._complain(f"attempts {found} wait for a job to take them, and none is left")

    # -- looking at the grid -----------------------------------------------------------------------------------

    def _watched_grid(self, cluster: str, request: WatchRequest, answer: WatchResponse) -> None:
        now = self._time()
        if answer.look:
            holder, until = self._looking.get(cluster, ("", 0.0))
            if holder not in ("", request.holder) and now < until:
                self._complain(f"{request.holder} was told to look at {cluster} while {holder} does")
            self._looking[cluster] = request.holder, now + request.silence - ROUNDING_SECONDS
        if answer.view is not None:
            at = float(unpacked(answer.view)["at"])
            if at < now - answer.age - ROUNDING_SECONDS:
                self._complain(f"a view of {cluster} of {now - at:.3f} s ago was said to be {answer.age:.3f} s old")

    def _viewed(self, cluster: str, request: ViewRequest, answer: ViewResponse) -> None:
        if self._looking.get(cluster, ("", 0.0))[0] == request.holder:
            self._looking[cluster] = "", 0.0
