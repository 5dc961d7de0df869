"""A run of a workflow: its registration, and the takeover from an earlier run."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING, Final, Protocol

from jobmon.client import watched
from jobmon.client.interrupts import RECORD_STOP_SECONDS_MAX
from jobmon.core.constants import WorkflowRunStatus, WorkflowStatus
from jobmon.core.exceptions import JobmonError, ResumeSet, WorkflowAlreadyComplete, WorkflowNotResumable
from jobmon.core.fsm import Machine, is_terminal
from jobmon.core.paths import is_process_alive, process_start_time, user_name
from jobmon.core.texts import number_of
from jobmon.core.wire.run import (
    ActiveRun,
    ActiveRunsResponse,
    Distributor,
    ForceCleanupResponse,
    LeadRequest,
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
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jobmon.core.requester import Requester
    from jobmon.core.wire.agents import AgentProcess
    from jobmon.core.wire.launching import ClusterInfo

logger = logging.getLogger(__name__)

PAUSE_SECONDS_FIRST: Final = 0.05
PAUSE_SECONDS_MAX: Final = 1.0
#: A distributor on another host that has been silent for longer is assumed not to carry out kills.
DISTRIBUTOR_SILENT_SECONDS: Final = 90.0


class Ended(Protocol):
    """A process that was started only to settle what an earlier one left behind."""

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Release it: it exits when nothing of its run is running any more."""


class _Process(Protocol):
    """The host and process ID of a process, running or not."""

    @property
    def host(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def pid_start_time(self) -> float: ...


def host_name() -> str:
    """Return the name of this host, as recorded with runs."""
    return socket.gethostname()


def own_start_time() -> float:
    """Return the start time of this process, as returned by `paths.process_start_time`."""
    return process_start_time(os.getpid()) or 0.0


def is_gone(process: _Process) -> bool:
    """Return whether a process has provably exited; only its own host can prove that."""
    return process.host == host_name() and not is_process_alive(process.pid, process.pid_start_time)


class Host(Protocol):
    """The host of a client: its identity, and what it can tell about other processes."""

    @property
    def name(self) -> str:
        """The name of the host, as recorded with runs."""

    @property
    def pid(self) -> int:
        """The ID of this process."""

    @property
    def pid_start_time(self) -> float:
        """The start time of this process, as returned by `paths.process_start_time`."""

    def is_gone(self, process: _Process) -> bool:
        """Return whether a process has provably exited."""


class ThisHost:
    """The host and process in which this code runs."""

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
    """Start a distributor for an old run: it adopts, kills, reports, and exits by itself."""
    from jobmon.client.launching import DistributorProcess

    process = DistributorProcess(workflow_run_id, restarts_max=0)
    process.start()
    return process


def start_settling_agents(agents: Sequence[AgentProcess], workflow_id: int, run_id: int, requester: Requester) -> Ended:
    """Start a process that terminates what dead agents of this host left behind, and records that."""
    from jobmon.client.local_agents import settle

    return settle(agents, workflow_id, run_id, requester)


class WorkflowRunFactory:
    """Makes room for a run and creates it.

    Args:
        workflow_id: ID of the workflow.
        requester: sends the requests; None creates one from the settings.
        settle: starts a distributor for an old run that has none.
        settle_agents: terminates and records what dead agents of this host left behind; None starts a process for it.
        sleep: waits for a number of seconds.
        monotonic: returns the time in seconds since an arbitrary moment.
        host: host of the client; None means this process.
        any_owner: also take over a workflow that another user recorded.
        gone_run_ids: runs that nobody leads any more, although the recorded process may be alive.
    """

    def __init__(
        self,
        workflow_id: int,
        requester: Requester | None = None,
        *,
        settle: Callable[[int], Ended] = start_settling_distributor,
        settle_agents: Callable[[Sequence[AgentProcess], int, int, Requester], Ended] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        host: Host | None = None,
        any_owner: bool = False,
        gone_run_ids: Iterable[int] = (),
    ) -> None:
        self.workflow_id = workflow_id
        self._gone_run_ids = frozenset(gone_run_ids)
        self.requester = requester if requester is not None else _default_requester()
        self.workflow_is_resumable = False
        self._any_owner = any_owner
        self._settle = settle
        self._settle_gone = settle_agents or start_settling_agents
        self._is_settling_agents = False
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
            reset_running_jobs: also terminate running attempts (cold); False lets them finish (hot).
            resume_timeout: maximum wait, in seconds.
            force_cleanup: close attempts that were told to stop but no longer report.

        Raises:
            WorkflowNotResumable: the timeout expired; the message says what blocks the resume.
        """
        self._reset_running_jobs = reset_running_jobs
        response = self._ask_for_room()
        self.workflow_is_resumable = response.is_resumable
        if not response.is_resumable:
            self.wait_for_workflow_resume(resume_timeout, force_cleanup)

    def wait_for_workflow_resume(self, resume_timeout: int = 300, force_cleanup: bool = False) -> None:
        """Wait until a new run may start.

        Args:
            resume_timeout: maximum wait, in seconds.
            force_cleanup: close attempts in KILL_SELF at once instead of waiting until they have been terminated.

        Raises:
            WorkflowNotResumable: the timeout expired; the message says what blocks the resume.
            WorkflowAlreadyComplete: the workflow was completed in the meantime.
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
        """Do what this client can do to remove the obstacles."""
        if any(run.workflow_run_id not in self._told_gone and self._host.is_gone(run) for run in response.active_runs):
            self._ask_for_room()
        elif response.kill_self and force_cleanup:
            self.force_cleanup_kill_self()
        elif response.kill_self:
            self._settle_agents(response)
            is_of_distributors = response.kill_self > response.kill_self_of_agents
            if is_of_distributors and not any(map(self._may_settle, response.distributors)):
                self._settle_run(response.newest_run_id)
                self._judge_orphans(response.newest_run_id)

    def _settle_agents(self, response: ResumeResponse) -> None:
        """Terminate and record what dead agents of this host left behind."""
        gone = [one for one in response.agents if self._host.is_gone(one)]
        run_id = response.newest_run_id
        if gone and run_id is not None and not self._is_settling_agents:
            logger.info(
                "%s of workflow %d exited: terminating what was left behind.",
                number_of(len(gone), "agent"),
                self.workflow_id,
            )
            self._is_settling_agents = True
            self._settling[-1] = self._settle_gone(gone, self.workflow_id, run_id, self.requester)

    def _settle_run(self, run_id: int | None) -> None:
        """Start a distributor to terminate what any run left behind; for the newest run, as older ones are fenced."""
        if run_id is not None and run_id not in self._settling:
            logger.info(
                "No distributor monitors the attempts that run %d left: starting one to terminate them.", run_id
            )
            self._settling[run_id] = self._settle(run_id)

    def _judge_orphans(self, run_id: int | None) -> None:
        """Ask the server to end attempts that were left on another machine and are overdue."""
        if run_id is not None:
            self.requester.call(f"/workflow_runs/{run_id}/triage", None, TriageResponse)

    def are_active_runs_gone(self) -> bool:
        """Return whether the clients of all active runs have provably exited."""
        return all(map(self._host.is_gone, self._active_runs()))

    def _active_runs(self) -> list[ActiveRun]:
        return self.requester.call(self._route("active_runs"), None, ActiveRunsResponse, "get").runs

    def _ask_for_room(self) -> ResumeResponse:
        gone = [
            run.workflow_run_id
            for run in self._active_runs()
            if run.workflow_run_id in self._gone_run_ids or self._host.is_gone(run)
        ]
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
                f"{number_of(response.kill_self, 'attempt')} told to terminate (KILL_SELF), but not reported as ended"
                + _where(response.distributors)
                + "; if they are gone, force_cleanup closes them"
            )
        text = "; ".join(reasons) or f"its status is {response.workflow_status}"
        return f"Workflow {self.workflow_id} could not be resumed within {waited_seconds:g} s: {text}."

    def force_cleanup_kill_self(self) -> int:
        """Close attempts that were told to stop but no longer report; return how many.

        If such an attempt is still running, its executor finds out when it reports: the report no longer affects the
        task. Attempts that reported recently are named in a warning.
        """
        answer = self.requester.call(self._route("force_cleanup"), {}, ForceCleanupResponse)
        if answer.perhaps_alive:
            logger.warning(
                "Closed although they may still be running; terminate them by hand, or their tasks may run twice: %s.",
                "; ".join(answer.perhaps_alive),
            )
        return answer.cleaned

    def reset_task_statuses(
        self, reset_if_running: bool = True, force_cleanup: bool = False, *, keep_resources: bool = True
    ) -> None:
        """Reset tasks that are not done, with a fresh retry budget.

        Args:
            reset_if_running: also reset tasks with a live attempt.
            force_cleanup: if stuck attempts make the workflow not resumable, close them.
            keep_resources: keep requests that were raised after a failure.

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
        """Create a run and move it to BOUND; requires that tasks are recorded and an earlier run has made room.

        Args:
            workflow_run_heartbeat_interval: seconds between heartbeats; None means the setting.
            heartbeat_report_by_buffer: number of intervals after which the run is overdue; None means the setting.

        Returns:
            The run.

        Raises:
            WorkflowNotResumable: another run is active.
            WorkflowAlreadyComplete: the workflow is done.
            ResumeSet: another client took the workflow over at the same time.
        """
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

    def _may_settle(self, process: Distributor) -> bool:
        """Return whether this distributor may still carry out the pending kills."""
        if process.host == self._host.name:
            return not self._host.is_gone(process)
        return process.seen_seconds_ago < DISTRIBUTOR_SILENT_SECONDS


def _where(distributors: Iterable[Distributor]) -> str:
    listed = ", ".join(
        f"run {each.workflow_run_id} on {each.host} (pid {each.pid}, last seen {each.seen_seconds_ago:.0f} s ago)"
        for each in distributors
    )
    return f" (distributors: {listed})" if listed else ""


class WorkflowRun:
    """One start or resume of a workflow.

    Args:
        workflow_id: ID of the workflow.
        requester: sends the requests; None creates one from the settings.
        workflow_run_heartbeat_interval: seconds between heartbeats; None means the setting.
        heartbeat_report_by_buffer: number of intervals after which the run is overdue; None means the setting.
        host: host of the client; None means this process.
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
        #: All clusters that tasks and live attempts of the workflow request.
        self.clusters: list[ClusterInfo] = []
        #: Whether attempts of earlier runs are alive that only a distributor can monitor.
        self.has_attempts_of_distributors = False

    @property
    def workflow_run_id(self) -> int:
        """The ID of the run.

        Raises:
            ValueError: the run is not created yet.
        """
        if self._workflow_run_id is None:
            raise ValueError("This workflow run has no ID yet: bind() creates it.")
        return self._workflow_run_id

    @property
    def status(self) -> str | None:
        """The status last reported by the server; None before the run is created."""
        return self._status

    def bind(self) -> None:
        """Create the run and move it to BOUND. A second call changes nothing.

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
            raise ResumeSet(f"Another client took over workflow {self.workflow_id} at the same time; this one stops.")

    def lead(self, workflow_run_id: int, former_pid: int, former_pid_start_time: float) -> None:
        """Lead a bound run that another process of this host created.

        Args:
            workflow_run_id: ID of the run.
            former_pid: ID of the process that created it.
            former_pid_start_time: start time of that process.

        Raises:
            StaleRun: the run is no longer waiting to be led.
        """
        request = LeadRequest(
            host=self._host.name,
            pid=self._host.pid,
            pid_start_time=self._host.pid_start_time,
            former_pid=former_pid,
            former_pid_start_time=former_pid_start_time,
            next_report_increment=self.heartbeat_interval * self.heartbeat_report_by_buffer,
        )
        self._learn(self.requester.call(f"/workflow_runs/{workflow_run_id}/lead", request, RunResponse))

    def _learn(self, response: RunResponse) -> None:
        self._workflow_run_id, self._status = response.workflow_run_id, response.status
        self.clusters = response.clusters
        self.has_attempts_of_distributors = response.has_attempts_of_distributors
        watched.note_run(self.workflow_id, self._workflow_run_id)

    def end(self, status: WorkflowRunStatus, seconds_max: float = RECORD_STOP_SECONDS_MAX) -> JobmonError | None:
        """End the run with a status, or with TERMINATED if it was told to make room, so that it is not left behind.

        Args:
            status: the final status.
            seconds_max: maximum time to try to reach the server, in seconds.

        Returns:
            Why the outcome could not be recorded; None if it was. The next client or the reaper closes an unrecorded
            run.
        """
        requester = self.requester.within(seconds_max)
        try:
            for each in (status, WorkflowRunStatus.TERMINATED):
                if is_terminal(Machine.WORKFLOW_RUN, self._set_status(requester, each)):
                    break
        except JobmonError as refused:
            logger.warning("The server did not accept %s as the status of the run: %s", status.name, refused)
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
            parent_task_instance_id=_parent(os.environ),
            parent_server_identity=os.environ.get("JOBMON_SERVER_IDENTITY", ""),
        )
        self._learn(self.requester.call(f"/workflows/{self.workflow_id}/runs", request, RunResponse))

    def update_status(self, status: WorkflowRunStatus) -> str:
        """Request a status; return the current one."""
        return self._set_status(self.requester, status)

    def _set_status(self, requester: Requester, status: WorkflowRunStatus) -> str:
        route = f"/workflow_runs/{self.workflow_run_id}/status"
        self._status = requester.call(route, RunStatusRequest(status=status), RunStatusResponse).status
        return self._status


def _parent(environment: Mapping[str, str]) -> int | None:
    """Return the ID of the attempt whose command this process belongs to; None if there is none."""
    text = environment.get("JOBMON_TASK_INSTANCE_ID", "")
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 2**63 else None


def _default_requester() -> Requester:
    from jobmon.core.requester import Requester

    return Requester.from_defaults()
