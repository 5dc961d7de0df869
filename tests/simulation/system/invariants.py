"""Invariants of the server, checked after every commit, before anything else happens.

Two guards in the code protect some of these invariants, so one could hide that the other is missing. Here, each counts.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from jobmon.core import fsm
from jobmon.core.constants import AgentStatus, TaskInstanceStatus, TaskStatus, WorkflowRunStatus
from jobmon.distributor.watching import unpacked
from jobmon.server.transaction import acting_for
from jobmon.server.usecases import (
    agents,
    editing,
    expanding,
    launching,
    packed_jobs,
    prioritizing,
    queueing,
    reaping,
    reporting,
    resuming,
    steering,
    versions,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.simulation.system.checks import Record

    from jobmon.core.wire.agents import AgentSyncRequest, AgentSyncResponse
    from jobmon.core.wire.launching import (
        DistributorRequest,
        SyncRequest,
        SyncResponse,
        WorkerTakeRequest,
        WorkerTakeResponse,
    )
    from jobmon.core.wire.watching import ViewRequest, ViewResponse, WatchRequest, WatchResponse
    from jobmon.server.writer import Job

TI, T, RUN = TaskInstanceStatus, TaskStatus, WorkflowRunStatus
_MAY_QUEUE: Final = frozenset({RUN.BOUND, RUN.INSTANTIATED, RUN.LAUNCHED, RUN.RUNNING})
_AFTER_FAILURE: Final = frozenset({T.REGISTERING, T.ADJUSTING_RESOURCES, T.ERROR_FATAL})
_UNDER_WAY: Final = frozenset({T.QUEUED, T.INSTANTIATING, T.LAUNCHED, T.RUNNING})
#: Status of the newest attempt -> possible statuses of its task.
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
#: New attempts whose tasks have upstream tasks that are neither done nor skipped.
_TOO_EARLY: Final = """
SELECT n.id, u.id, u.status FROM task_instance n JOIN task t ON t.id = n.task_id JOIN workflow w ON w.id = t.workflow_id
JOIN dag_node d ON d.node_id = t.node_id JOIN upstream_set s ON s.id = d.upstream_set_id AND s.dag_id = w.dag_id
JOIN upstream_set_member m ON m.upstream_set_id = s.id
JOIN task u ON u.workflow_id = w.id AND u.node_id = m.node_id
WHERE n.id > ? AND u.status NOT IN ('D', 'S', 'X')
"""
#: New attempts of held tasks.
_OF_HELD: Final = """
SELECT n.id, t.id FROM task_instance n JOIN task t ON t.id = n.task_id WHERE n.id > ? AND n.status = 'Q' AND t.held
"""
#: New attempts of tasks that are not queued, such as skipped, removed and done ones.
_OF_OTHERS: Final = """
SELECT n.id, t.id, t.status FROM task_instance n JOIN task t ON t.id = n.task_id
WHERE n.id > ? AND n.status = 'Q' AND t.status != 'Q'
"""
#: Skipped and removed tasks with an attempt that has not ended.
_LEFT_RUNNING: Final = """
SELECT t.id, t.status, n.id FROM task t JOIN task_instance n ON n.task_id = t.id
WHERE t.status IN ('S', 'X') AND n.ended_at IS NULL
"""
#: Tasks that an expansion has not finished to add although it is done.
_ADDED_PARTLY: Final = """
SELECT e.id, COUNT(*) FROM task e JOIN task t ON t.origin_id = e.id
WHERE e.status = 'D' AND t.status = 'X' GROUP BY e.id
"""
#: Versions that are not applied, of workflows that have several of them.
_OPEN_VERSIONS: Final = """
SELECT workflow_id, COUNT(*) FROM workflow_version WHERE state != 'applied' GROUP BY workflow_id HAVING COUNT(*) > 1
"""
_REQUESTED: Final = "SELECT id, requested_at FROM task WHERE requested_at IS NOT NULL"
_COMMANDS: Final = "SELECT id, command FROM task WHERE id IN (SELECT task_id FROM task_edit)"
#: Queued attempts whose priority is not that of their task and its array.
_OUT_OF_ORDER: Final = """
SELECT n.id, n.priority, t.priority + a.priority FROM task_instance n JOIN task t ON t.id = n.task_id
JOIN task_array a ON a.id = t.array_id WHERE n.status = 'Q' AND n.priority != t.priority + a.priority
"""
#: Tasks with a new attempt although another attempt has not ended.
_DOUBLE: Final = """
SELECT task_id FROM task_instance WHERE ended_at IS NULL
AND task_id IN (SELECT task_id FROM task_instance WHERE id > ?) GROUP BY task_id HAVING COUNT(*) > 1
"""
#: Concurrency limits of a run's workflow and its arrays, and the number of their tasks in flight.
_IN_FLIGHT: Final = """
SELECT 'the workflow', w.max_concurrently_running,
    (SELECT COUNT(*) FROM task t WHERE t.workflow_id = w.id AND t.status IN ('Q', 'I', 'O', 'R')
        AND t.kind = 'C')
FROM workflow w JOIN workflow_run r ON r.workflow_id = w.id WHERE r.id = ?1
UNION ALL SELECT a.name, a.max_concurrently_running,
    (SELECT COUNT(*) FROM task t WHERE t.array_id = a.id AND t.status IN ('Q', 'I', 'O', 'R'))
FROM task_array a JOIN workflow_run r ON r.workflow_id = a.workflow_id WHERE r.id = ?1
"""
_FAILED: Final = """
SELECT t.id FROM task t JOIN workflow_run r ON r.workflow_id = t.workflow_id WHERE r.id = ? AND t.status = 'F' LIMIT 1
"""
_NEWEST: Final = """
SELECT t.id, t.status, n.id, n.status
FROM task t JOIN task_instance n ON n.task_id = t.id AND n.number = t.attempt_count
WHERE t.id IN (SELECT task_id FROM task_instance WHERE id IN ({marks}))
"""
#: Attempts that wait for a job to take them although all jobs that could take them have ended.
_ABANDONED: Final = """
SELECT ti.id FROM packed_batch p JOIN batch b ON b.id = p.batch_id JOIN task_instance ti ON ti.batch_id = b.id
WHERE p.submitted AND p.taken < p.size AND ti.array_step_id >= p.taken AND ti.status IN ('I', 'O')
AND NOT EXISTS (
    SELECT 1 FROM packed_job j JOIN packed_batch jp ON jp.batch_id = j.batch_id JOIN batch jb ON jb.id = jp.batch_id
    WHERE j.ended_at IS NULL AND (jb.id = b.id OR p.mode = 'pilot' AND jp.mode = 'pilot'
        AND jb.array_id = b.array_id AND jb.task_resources_id = b.task_resources_id))
"""
#: Stored counts that differ from a recount of the tasks.
_MISCOUNTED: Final = """
SELECT array_id, status, SUM(kept), SUM(number) FROM (
    SELECT array_id, status, number AS kept, 0 AS number FROM status_count
    UNION ALL SELECT array_id, status, 0, COUNT(*) FROM task GROUP BY array_id, status)
GROUP BY array_id, status HAVING SUM(kept) <> SUM(number)
"""
#: Rounding error of the reported age of a view.
ROUNDING_SECONDS: Final = 0.001


class Invariants:
    """Check invariants after commits.

    Args:
        record: the database.
        violated: called with a description of each violation.
        time: returns the virtual time, seconds.
        on_force: called with a workflow when a user has closed its attempts without waiting for them.
        fail_fast: whether runs queue nothing more once a task has failed permanently.
    """

    def __init__(
        self,
        record: Record,
        violated: Callable[[str], None],
        time: Callable[[], float],
        on_force: Callable[[int], None],
        *,
        fail_fast: bool = False,
    ) -> None:
        self._record = record
        self._fail_fast = fail_fast
        self._time = time
        #: Attempt -> the packed job that took it, and the key of its request.
        self._taken: dict[int, tuple[str, str]] = {}
        #: Job and key -> the attempts that the request returned.
        self._given: dict[tuple[str, str], list[int]] = {}
        self._newest_key: dict[str, str] = {}
        #: Attempt -> the agent that claimed it.
        self._owners: dict[int, int] = {}
        #: Cluster -> the distributor last told to poll, and the deadline of that poll.
        self._looking: dict[str, tuple[str, float]] = {}
        self._violated = violated
        self._last_attempt = 0
        self._handed: dict[str, list[int]] = {}
        self._keys: dict[str, int] = {}
        self._ended: dict[int, str] = {}
        #: Attempts that the reaper ended.
        self.reaped: set[int] = set()
        #: Task -> the logical times at which its rerun was requested.
        self.reopened: dict[int, set[int]] = defaultdict(set)
        #: Task -> its command after the last edit by a user.
        self.edited: dict[int, str] = {}
        self._watched: dict[Any, Callable[..., None]] = {
            reporting.sync: self._synced,
            agents.sync: self._agent_synced,
            agents.report: lambda asked, answer: self._agent_synced(asked[0], asked[1], answer),
            queueing.queue: self._queued,
            launching.register: self._registered,
            reporting.worker_reports: self._worker_reported,
            packed_jobs.take: self._took,
            watching.watch: self._watched_grid,
            watching.view: self._viewed,
            reaping.reap: self._reaped,
            resuming.force_cleanup: lambda workflow_id, *_: on_force(workflow_id),
            steering.update_tasks: self._altered,
            editing.edit: self._edited,
            expanding.call: self._called,
            versions.start_version: self._versioned,
            versions.seal: self._versioned,
            versions.apply_part: self._versioned,
        }

    def observe(self, job: Job) -> None:
        """Check the invariants after a use case was committed or failed."""
        for array_id, status, kept, number in self._record.rows(_MISCOUNTED):
            self._violated(f"array {array_id} has {number} tasks in status {status}, {kept} are counted")
        use_case, arguments = job.use_case, job.arguments
        if use_case is acting_for:
            _, use_case, *arguments = arguments
        if use_case in (prioritizing.set_priority, queueing.queue):
            for attempt, priority, wanted in self._record.rows(_OUT_OF_ORDER):
                self._violated(f"attempt {attempt} is queued with priority {priority}, its task has {wanted}")
        watch = self._watched.get(use_case)
        if watch is not None and job.error is None:
            watch(*arguments, job.answer)

    def _reaped(self, *values: Any) -> None:
        """Record the attempts that the reaper ended, of which no report gave the outcome."""
        if values[-1].attempts:
            ended = self._record.rows("SELECT id FROM task_instance WHERE ended_at IS NOT NULL")
            self.reaped.update(identity for (identity,) in ended if identity not in self._ended)

    def _altered(self, *_: Any) -> None:
        """Note requests for reruns and edits; check that nothing that was skipped runs."""
        for task_id, at in self._record.rows(_REQUESTED):
            self.reopened[task_id].add(at)
        for task_id, status, attempt in self._record.rows(_LEFT_RUNNING):
            self._violated(f"task {task_id} is {status} while its attempt {attempt} has not ended")

    def _edited(self, *values: Any) -> None:
        """Note the commands that users want."""
        self._altered(*values)
        self.edited = dict(self._record.rows(_COMMANDS))

    def check_edits(self) -> None:
        """Check that nothing but a further edit has changed an edited command."""
        for task_id, command in self._record.rows(_COMMANDS):
            if self.edited.get(task_id, command) != command:
                self._violated(f"the edit of task {task_id} is lost: it runs {command!r}")

    def _called(self, run_id: int, task_id: int, request: Any, answer: Any) -> None:
        """Check that only the newest active run calls the function of an expansion."""
        if answer.status == TaskStatus.RUNNING:
            status, newest_run, *_ = self._record.rows(_STANDING, run_id)[0]
            if status not in _MAY_QUEUE or newest_run != run_id:
                self._violated(
                    f"run {run_id}, which is {status}, calls expansion {task_id}; the newest is {newest_run}"
                )

    def _versioned(self, *_: Any) -> None:
        """Check that only one version is open, and that an expansion is done only with all that it adds."""
        for workflow_id, count in self._record.rows(_OPEN_VERSIONS):
            self._violated(f"{count} versions of workflow {workflow_id} are open")
        for task_id, count in self._record.rows(_ADDED_PARTLY):
            self._violated(f"expansion {task_id} is done, and {count} tasks that it adds are not in the workflow")
        self.check_edits()

    def _registered(self, run_id: int, request: DistributorRequest, answer: Any) -> None:
        if self._keys.setdefault(request.key, answer.epoch) != answer.epoch:
            self._violated(f"one registration got the epochs {self._keys[request.key]} and {answer.epoch}")
        _, _, newest_epoch, newest = self._record.rows(_STANDING, run_id)[0]
        if newest > run_id and answer.epoch == newest_epoch:
            self._violated(f"a distributor of run {run_id} registered after one of run {newest}")

    def _queued(self, run_id: int, request: Any, answer: Any) -> None:
        self._check_new_attempts(run_id)

    def _check_new_attempts(self, run_id: int) -> bool:
        """Check the attempts that a request queued; return whether there are any."""
        before = self._last_attempt
        self._last_attempt = self._record.rows("SELECT COALESCE(MAX(id), 0) FROM task_instance")[0][0]
        if self._last_attempt <= before:
            return False
        status, newest_run, *_ = self._record.rows(_STANDING, run_id)[0]
        if status not in _MAY_QUEUE or newest_run != run_id:
            self._violated(f"run {run_id}, which is {status}, queued attempts; the newest run is {newest_run}")
        for attempt, upstream, letter in self._record.rows(_TOO_EARLY, before):
            self._violated(f"attempt {attempt} was queued while its upstream task {upstream} was {letter}")
        for attempt, task_id in self._record.rows(_OF_HELD, before):
            self._violated(f"attempt {attempt} was queued although task {task_id} is held")
        for attempt, task_id, letter in self._record.rows(_OF_OTHERS, before):
            self._violated(f"attempt {attempt} was queued although task {task_id} is {letter}")
        for (task_id,) in self._record.rows(_DOUBLE, before):
            self._violated(f"task {task_id} was queued while another attempt of it lives")
        return True

    def _check_fired(self, run_id: int, request: SyncRequest) -> None:
        """Check that the server itself obeys the limits that no orchestrator enforces for the tasks it queues."""
        if not any(count > 0 for count in request.capacity.values()):
            self._violated(f"a distributor of run {run_id} that takes no work had attempts queued")
        for what, limit, count in self._record.rows(_IN_FLIGHT, run_id):
            if count > limit:
                self._violated(f"{count} tasks of {what} are in flight after the server queued some, {limit} may be")
        if self._fail_fast and (failed := self._record.rows(_FAILED, run_id)):
            self._violated(f"attempts of run {run_id}, which fails fast, were queued after task {failed[0][0]} failed")

    def _synced(self, run_id: int, request: SyncRequest, answer: SyncResponse) -> None:
        if self._check_new_attempts(run_id):
            self._check_fired(run_id, request)
        handed = sorted(identity for batch in answer.launches for identity in batch.task_instance_ids)
        before = self._handed.get(request.key) if request.key else None
        if handed:
            self._check_epoch(run_id, request.epoch)
            if handed != before:  # a repeated answer hands out nothing that was not handed out before a pause
                self._check_run(run_id)
            self._handed[request.key] = handed
        may_launch = request.capacity and not answer.fenced and answer.workflow_run_status in _MAY_QUEUE
        if before is not None and may_launch and handed != before:
            self._violated(f"one request was handed attempts {before}, and its repetition {handed}")
        self._check_reported(report.task_instance_id for report in request.reports)
        if request.submitted or request.ended_jobs:
            self._check_abandoned()

    def _agent_synced(self, agent_id: int, request: AgentSyncRequest, answer: AgentSyncResponse) -> None:
        """Check that claimed attempts stay with their agent, and that only agents of the newest active run claim."""
        run_id, status = self._record.rows("SELECT workflow_run_id, status FROM agent WHERE id = ?", agent_id)[0]
        if self._check_new_attempts(run_id) and (request.drain or request.cores_free + request.cores_ahead <= 0):
            self._violated(f"agent {agent_id}, which takes no work, had attempts queued")
        self._check_reported(report.task_instance_id for report in request.reports)
        given = [] if answer.launches is None else answer.launches.task_instance_ids
        if given and status != AgentStatus.ACTIVE:
            self._violated(f"agent {agent_id}, which is {status}, was given attempts {given}")
        if any(identity not in self._owners for identity in given):
            self._check_run(run_id)
        for identity in given:
            if self._owners.setdefault(identity, agent_id) != agent_id:
                self._violated(f"attempt {identity} of agent {self._owners[identity]} was given to agent {agent_id}")

    def _check_epoch(self, run_id: int, epoch: int) -> None:
        newest_epoch = self._record.rows(_STANDING, run_id)[0][2]
        if newest_epoch != epoch:
            self._violated(f"distributor {epoch} was handed attempts though {newest_epoch} has registered")

    def _check_run(self, run_id: int) -> None:
        """Check that attempts are assigned only for the newest run, and only while it may queue and is not paused."""
        status, newest_run, *_ = self._record.rows(_STANDING, run_id)[0]
        if newest_run != run_id or status not in _MAY_QUEUE:
            self._violated(f"attempts were handed out for run {run_id}, which is {status}; the newest is {newest_run}")
        if self._record.rows(_PAUSED, run_id):
            self._violated(f"attempts were handed out for run {run_id}, whose workflow is paused")

    def _worker_reported(self, request: Any, answer: Any) -> None:
        self._check_reported(report.task_instance_id for report in request.reports)

    def _check_reported(self, reported: Iterable[int]) -> None:
        """Check that tasks match their newest attempts, whatever older ones report, and that outcomes never change."""
        ids = list(reported)
        if not ids:
            return
        marks = ",".join("?" * len(ids))
        for task_id, status, newest, newest_status in self._record.rows(_NEWEST.format(marks=marks), *ids):
            is_reopened = newest_status == TI.DONE and status == T.REGISTERING and task_id in self.reopened
            if status not in _TASK_OF_NEWEST[TI(newest_status)] and not is_reopened:
                self._violated(f"task {task_id} is {status} while its newest attempt {newest} is {newest_status}")
        for identity, status in self._record.rows(f"SELECT id, status FROM task_instance WHERE id IN ({marks})", *ids):
            if fsm.is_terminal(fsm.Machine.TASK_INSTANCE, status):
                if self._ended.setdefault(identity, status) != status:
                    self._violated(f"attempt {identity} ended as {self._ended[identity]}, then as {status}")
            elif identity in self._ended:
                self._violated(f"attempt {identity} ended as {self._ended[identity]} and is {status} again")

    # -- packed jobs -------------------------------------------------------------------------------------------

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
                self._violated(f"attempt {identity} was given to job {before[0]}, then to {job}")
        if request.leaving:
            self._check_abandoned()

    def _check_taker(self, request: WorkerTakeRequest, given: list[int]) -> None:
        if len(given) > request.capacity + request.ahead:
            self._violated(f"job {request.distributor_id} asked for {request.capacity} tasks and got {given}")
        ended = "SELECT 1 FROM packed_job WHERE distributor_id = ? AND ended_at IS NOT NULL"
        if self._record.rows(ended, request.distributor_id):
            self._violated(f"job {request.distributor_id}, which was found gone, was given attempts {given}")

    def _check_again(self, request: WorkerTakeRequest, given: list[int]) -> None:
        """Check that a repeated request returns the same attempts as before, unless the attempt or the job has ended.

        A delayed duplicate must return nothing, because its job has already sent a newer request.
        """
        job, key = request.distributor_id, request.key
        if (job, key) in self._given and self._newest_key[job] != key:
            if given:
                self._violated(f"an old request of job {job} came again and was given attempts {given}")
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
            self._violated(f"job {request.distributor_id} asked again with the same key and did not get {found} again")

    def _check_abandoned(self) -> None:
        found = [identity for (identity,) in self._record.rows(_ABANDONED)]
        if found:
            self._violated(f"attempts {found} wait for a job to take them, and none is left")

    # -- shared polling ----------------------------------------------------------------------------------------

    def _watched_grid(self, cluster: str, request: WatchRequest, answer: WatchResponse) -> None:
        now = self._time()
        if answer.look:
            holder, until = self._looking.get(cluster, ("", 0.0))
            if holder not in ("", request.holder) and now < until:
                self._violated(f"{request.holder} was told to look at {cluster} while {holder} does")
            self._looking[cluster] = request.holder, now + request.silence - ROUNDING_SECONDS
        if answer.view is not None:
            at = float(unpacked(answer.view)["at"])
            if at < now - answer.age - ROUNDING_SECONDS:
                self._violated(f"a view of {cluster} of {now - at:.3f} s ago was said to be {answer.age:.3f} s old")

    def _viewed(self, cluster: str, request: ViewRequest, answer: ViewResponse) -> None:
        if self._looking.get(cluster, ("", 0.0))[0] == request.holder:
            self._looking[cluster] = "", 0.0
