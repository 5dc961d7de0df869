"""A run of a workflow: its registration, and taking over from an earlier run."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING, Final, Protocol

from jobmon.client.binding import user_name
from jobmon.client.interrupts import RECORD_STOP_SECONDS_MAX
from jobmon.core.constants import WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import JobmonError, ResumeSet, WorkflowAlreadyComplete, WorkflowNotResumable
from jobmon.core.fsm import Machine, is_terminal
from jobmon.core.places import is_process_alive, process_start_time
from jobmon.core.wire.run import (
    ActiveRun,
    ActiveRunsResponse,
    ForceCleanupResponse,
    ResetRequest,
    ResumeRequest,
    ResumeResponse,
    RunRequest,
    RunResponse,
    RunStatusRequest,
    RunStatusResponse,
    TriageResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobmon.core.requester import Requester

logger = logging.getLogger(__name__)

PAUSE_SECONDS_FIRST: Final = 0.05
PAUSE_SECONDS_MAX: Final = 1.0
#: A distributor on another host that was not heard of for so long is not counted on.
DISTRIBUTOR_SILENT_SECONDS: Final = 90.0


class Ended(Protocol):
    """A distributor that was started only to settle what an earlier one left."""

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Let go of it: it ends when nothing of its run runs any more."""


class _Process(Protocol):
    """Where a process runs or ran."""

    @property
    def workflow_run_id(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def pid_start_time(self) -> float: ...


def host_name() -> str:
    """Return this host's name, as runs record it."""
    return socket.gethostname()


def own_start_time() -> float:
    """Return when this process started, as `places.process_start_time` tells it."""
    return process_start_time(os.getpid()) or 0.0


def is_gone(process: _Process) -> bool:
    """Say whether a process is proven to be gone: only its own host can tell."""
    return process.host == host_name() and not is_process_alive(process.pid, process.pid_start_time)


class Host(Protocol):
    """Where a client runs: who it is, and what it can tell about other processes."""

    @property
    def name(self) -> str:
        """The host's name, as runs record it."""

    @property
    def pid(self) -> int:
        """This process."""

    @property
    def pid_start_time(self) -> float:
        """When this process started, as `places.process_start_time` tells it."""

    def is_gone(self, process: _Process) -> bool:
        """Say whether a process is proven to be gone."""


class ThisHost:
    """The host and process in which this runs."""

    @property
    def name(self) -> str:
        """See `Host`."""
        return host_name()

    @property
    def pid(self) -> int:
        """See `Host`."""
        return os.getpid()

    @property
    def pid_start_time(self) -> float:
        """See `Host`."""
        return own_start_time()

    def is_gone(self, process: _Process) -> bool:
        """See `Host`."""
        return is_gone(process)


def start_settling_distributor(workflow_run_id: int) -> Ended:
    """Start a distributor for an old run: it adopts, kills, reports, and ends by itself."""
    from jobmon.client.launching import DistributorProcess

    process = DistributorProcess(workflow_run_id, restarts_max=0)
    process.start()
    return process


class WorkflowRunFactory:
    """Makes room for a run and creates it.

    Args:
        workflow_id: of which workflow.
        requester: sends the requests; by default made from the settings.
        settle: starts a distributor for an old run that nobody looks after any more.
        sleep: waits.
        monotonic: seconds since some moment.
        host: where the client runs; by default this process.
        any_owner: take over a workflow that somebody else recorded, too.
    """

    def __init__(
        self,
        workflow_id: int,
        requester: Requester | None = None,
        *,
        settle: Callable[[int], Ended] = start_settling_distributor,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        host: Host | None = None,
        any_owner: bool = False,
    ) -> None:
        self.workflow_id = workflow_id
        self.requester = requester if requester is not None else _default_requester()
        self.workflow_is_resumable = False
        self._any_owner = any_owner
        self._settle = settle
        self._sleep = sleep
        self._monotonic = monotonic
        self._host = host or ThisHost()
        self._reset_running_jobs = True
        self._told_gone: set[int] = set()
        self._settling: dict[int, Ended] = {}

    def set_workflow_resume(
        self, reset_running_jobs: bool = True, resume_timeout: int = 300, force_cleanup: bool = False
    ) -> None:
        """Ask active runs to make room, and wait until they have.

        Args:
            reset_running_jobs: also end what runs (cold); else let it finish (hot).
            resume_timeout: longest wait, seconds.
            force_cleanup: close attempts that should end but of which nobody hears any more.

        Raises:
            WorkflowNotResumable: it took too long; says who is in the way.
        """
        self._reset_running_jobs = reset_running_jobs
        response = self._ask_for_room()
        self.workflow_is_resumable = response.is_resumable
        if not response.is_resumable:
            self.wait_for_workflow_resume(resume_timeout, force_cleanup)

    def wait_for_workflow_resume(self, resume_timeout: int = 300, force_cleanup: bool = False) -> None:
        """Wait until a new run may start.

        Args:
            resume_timeout: longest wait, seconds.
            force_cleanup: close attempts in KILL_SELF at once instead of waiting for those who carry it out.

        Raises:
            WorkflowNotResumable: it took too long; says who is in the way.
            WorkflowAlreadyComplete: it was completed meanwhile.
        """
        deadline = self._monotonic() + resume_timeout
        pause = PAUSE_SECONDS_FIRST
        try:
            while True:
                response = self.requester.call(self._route("resume"), None, ResumeResponse, "get")
                self.workflow_is_resumable = response.is_resumable
                if response.is_resumable:
                    return
                if response.workflow_status == WorkflowStatus.DONE:
                    raise WorkflowAlreadyComplete
                if self._monotonic() >= deadline:
                    raise WorkflowNotResumable(self._obstacles(response, resume_timeout))
                self._help_along(response, force_cleanup)
                self._sleep(pause)
                pause = min(pause * 2, PAUSE_SECONDS_MAX)
        finally:
            for settling in self._settling.values():
                settling.stop()
            self._settling.clear()

    def _help_along(self, response: ResumeResponse, force_cleanup: bool) -> None:
        """Do what this client can do about what is in the way."""
        if any(run.workflow_run_id not in self._told_gone and self._host.is_gone(run) for run in response.active_runs):
            self._ask_for_room()
        elif response.kill_self and force_cleanup:
            self.force_cleanup_kill_self()
        elif response.kill_self and not any(map(self._may_settle, response.distributors)):
            self._settle_run(response.newest_run_id)
            self._judge_orphans(response.newest_run_id)

    def _settle_run(self, run_id: int | None) -> None:
        """Have what any run left ended by a distributor of the newest: one of an older run would be fenced."""
        if run_id is not None and run_id not in self._settling:
            logger.info("Nobody looks after what run %d left: a distributor is started to end it.", run_id)
            self._settling[run_id] = self._settle(run_id)

    def _judge_orphans(self, run_id: int | None) -> None:
        """Have those ended that were left on another machine, of which nobody was heard for longer than they may be."""
        if run_id is not None:
            self.requester.call(f"/workflow_runs/{run_id}/triage", None, TriageResponse)

    def are_active_runs_gone(self) -> bool:
        """Say whether the clients of all active runs are proven to be gone."""
        return all(map(self._host.is_gone, self._active_runs()))

    def _active_runs(self) -> list[ActiveRun]:
        return self.requester.call(self._route("active_runs"), None, ActiveRunsResponse, "get").runs

    def _ask_for_room(self) -> ResumeResponse:
        gone = [run.workflow_run_id for run in self._active_runs() if self._host.is_gone(run)]
        self._told_gone.update(gone)
        request = ResumeRequest(
            reset_running_jobs=self._reset_running_jobs,
            gone_run_ids=gone,
            user=user_name(),
            any_owner=self._any_owner,
        )
        return self.requester.call(self._route("resume"), request, ResumeResponse)

    def _obstacles(self, response: ResumeResponse, waited_seconds: float) -> str:
        reasons = [
            f"run {run.workflow_run_id} of {run.user} on {run.host} (pid {run.pid}) is still active ({run.status})"
            for run in response.active_runs
        ]
        if response.kill_self:
            reasons.append(
                f"{response.kill_self} attempts were told to end (KILL_SELF) and nobody has reported that they did"
                + _where(response.distributors)
                + "; if they are gone, force_cleanup closes them"
            )
        text = "; ".join(reasons) or f"its status is {response.workflow_status}"
        return f"Workflow {self.workflow_id} could not be resumed within {waited_seconds:g} s: {text}."

    def force_cleanup_kill_self(self) -> int:
        """Close attempts that were told to end and of which nobody hears any more; return how many.

        Whoever runs them all the same finds out when it reports: their tasks do not follow it any more. Those of which
        there was a sign of life not long ago are named in a warning.
        """
        answer = self.requester.call(self._route("force_cleanup"), {}, ForceCleanupResponse)
        if answer.perhaps_alive:
            logger.warning(
                "Closed though they may still run; end them by hand, or their tasks may run twice: %s.",
                "; ".join(answer.perhaps_alive),
            )
        return answer.cleaned

    def reset_task_statuses(
        self, reset_if_running: bool = True, force_cleanup: bool = False, *, keep_resources: bool = True
    ) -> None:
        """Bring tasks that are not done back to the start, with all their attempts.

        Args:
            reset_if_running: also those with a live attempt.
            force_cleanup: when the workflow is not resumable because of stuck attempts, close those.
            keep_resources: leave requests raised that were raised after a failure.

        Raises:
            WorkflowNotResumable: the workflow is not resumable.
        """
        if not self.workflow_is_resumable:
            self.wait_for_workflow_resume(force_cleanup=force_cleanup)
        request = ResetRequest(reset_if_running=reset_if_running, keep_resources=keep_resources)
        self.requester.call(self._route("reset_tasks"), request, dict)

    def create_workflow_run(
        self,
        workflow_run_heartbeat_interval: int | None = None,
        heartbeat_report_by_buffer: float | None = None,
    ) -> WorkflowRun:
        """Create a run and bring it to BOUND; tasks are recorded, and an earlier run has made room."""
        run = WorkflowRun(
            self.workflow_id,
            self.requester,
            workflow_run_heartbeat_interval,
            heartbeat_report_by_buffer,
            host=self._host,
        )
        run.bind()
        return run

    def _route(self, what: str) -> str:
        return f"/workflows/{self.workflow_id}/{what}"

    def _may_settle(self, distributor: _SeenProcess) -> bool:
        """Say whether a distributor may still carry out what attempts were told."""
        if distributor.host == self._host.name:
            return not self._host.is_gone(distributor)
        return distributor.seen_seconds_ago < DISTRIBUTOR_SILENT_SECONDS


class _SeenProcess(_Process, Protocol):
    @property
    def seen_seconds_ago(self) -> float: ...


def _where(distributors: Iterable[_SeenProcess]) -> str:
    listed = ", ".join(
        f"run {each.workflow_run_id} on {each.host} (pid {each.pid}, heard of {each.seen_seconds_ago:.0f} s ago)"
        for each in distributors
    )
    return f" (distributors: {listed})" if listed else ""


class WorkflowRun:
    """One start or resume of a workflow.

    Args:
        workflow_id: of which workflow.
        requester: sends the requests; by default made from the settings.
        workflow_run_heartbeat_interval: seconds between heartbeats; None: the setting.
        heartbeat_report_by_buffer: overdue after this many intervals; None: the setting.
        host: where the client runs; by default this process.
    """

    def __init__(
        self,
        workflow_id: int,
        requester: Requester | None = None,
        workflow_run_heartbeat_interval: int | None = None,
        heartbeat_report_by_buffer: float | None = None,
        *,
        host: Host | None = None,
    ) -> None:
        from jobmon.core.configuration import JobmonConfig

        config = JobmonConfig()
        self.workflow_id = workflow_id
        self.user = user_name()
        self.requester = requester if requester is not None else _default_requester()
        self.heartbeat_interval: float = (
            config.get_float("heartbeat", "workflow_run_interval")
            if workflow_run_heartbeat_interval is None
            else workflow_run_heartbeat_interval
        )
        self.heartbeat_report_by_buffer: float = (
            config.get_float("heartbeat", "report_by_buffer")
            if heartbeat_report_by_buffer is None
            else heartbeat_report_by_buffer
        )
        self._host = host or ThisHost()
        self._key = uuid.uuid4().hex
        self._workflow_run_id: int | None = None
        self._status: str | None = None

    @property
    def workflow_run_id(self) -> int:
        """Its id.

        Raises:
            ValueError: it is not created yet.
        """
        if self._workflow_run_id is None:
            raise ValueError("This workflow run has no id yet: bind() creates it.")
        return self._workflow_run_id

    @property
    def status(self) -> str | None:
        """Its status as last told by the server; None before it is created."""
        return self._status

    def bind(self) -> None:
        """Create the run and bring it to BOUND. Again: changes nothing.

        Raises:
            WorkflowNotResumable: another run is active.
            WorkflowAlreadyComplete: the workflow is done.
            ResumeSet: another client took the workflow over at the same time.
        """
        if self._status == WorkflowRunStatus.BOUND:
            return
        if self._workflow_run_id is None:
            self._register()
        try:
            for status in (WorkflowRunStatus.LINKING, WorkflowRunStatus.BOUND):
                self.update_status(status)
        except BaseException:
            self.end(WorkflowRunStatus.ABORTED)
            raise
        if self._status != WorkflowRunStatus.BOUND:
            self.end(WorkflowRunStatus.TERMINATED)
            raise ResumeSet(f"Another client took workflow {self.workflow_id} over at the same time; this one ends.")

    def end(self, status: WorkflowRunStatus, seconds_max: float = RECORD_STOP_SECONDS_MAX) -> JobmonError | None:
        """Leave no run behind that nobody leads on: end it so, or as one that was told to make room.

        Args:
            status: how.
            seconds_max: how long the server is tried.

        Returns:
            why the server could not be told; None if it was. Such a run is closed by the next client, or the reaper.
        """
        requester = self.requester.within(seconds_max)
        try:
            for each in (status, WorkflowRunStatus.TERMINATED):
                if is_terminal(Machine.WORKFLOW_RUN, self._set_status(requester, each)):
                    break
        except JobmonError as refused:
            logger.warning("The server did not take %s as the status of the run: %s", status.name, refused)
            return refused
        return None

    def _register(self) -> None:
        from importlib.metadata import version

        request = RunRequest(
            user=self.user,
            host=self._host.name,
            pid=self._host.pid,
            pid_start_time=self._host.pid_start_time,
            version=version("jobmon"),
            next_report_increment=self.heartbeat_interval * self.heartbeat_report_by_buffer,
            key=self._key,
        )
        response = self.requester.call(f"/workflows/{self.workflow_id}/runs", request, RunResponse)
        self._workflow_run_id, self._status = response.workflow_run_id, response.status

    def update_status(self, status: WorkflowRunStatus) -> str:
        """Ask for a status; return the one that stands now."""
        return self._set_status(self.requester, status)

    def _set_status(self, requester: Requester, status: WorkflowRunStatus) -> str:
        route = f"/workflow_runs/{self.workflow_run_id}/status"
        self._status = requester.call(route, RunStatusRequest(status=status), RunStatusResponse).status
        return self._status


def _default_requester() -> Requester:
    from jobmon.core.requester import Requester

    return Requester.from_defaults()
