"""The processes that run the commands of a run: an agent for each local or direct cluster, a distributor for others."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from jobmon.client import local_agents
from jobmon.client.clusters import Clusters
from jobmon.client.launching import STARTUP_TIMEOUT_SECONDS, DistributorProcess
from jobmon.core.exceptions import InvalidResources
from jobmon.core.requester import Requester
from jobmon.core.wire.run import RunResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobmon.client.local_agents import RunToServe
    from jobmon.core.exceptions import DistributorNotAlive, DistributorStartupTimeout
    from jobmon.core.wire.launching import ClusterInfo

#: Maximum time that `DistributorContext` waits for its processes to exit.
CONTEXT_STOP_SECONDS: Final = 10.0


class Runners:
    """The processes that run the commands of a run.

    Args:
        processes: the distributor, if the run needs one, and one agent for each local cluster.
        further: creates the processes that serve further clusters; None: no others are needed.
    """

    def __init__(self, processes: Sequence[DistributorProcess], further: FurtherProcesses | None = None) -> None:
        self._processes = list(processes)
        self._further = further

    def serve(self, clusters: Sequence[ClusterInfo], is_recorded: bool) -> None:
        """Serve the clusters of tasks that an expansion adds.

        Args:
            clusters: these clusters.
            is_recorded: whether the tasks are recorded; before, it is only checked whether the clusters can be served.

        Raises:
            InvalidResources: the distributor is running and serves other clusters only.
        """
        if self._further is None:
            return
        if not is_recorded:
            self._further.check(clusters)
            return
        for process in self._further.create(clusters):
            self._processes.append(process)
            process.start()

    def start(self) -> None:
        """Start all processes, without waiting until they are up."""
        for process in self._processes:
            process.start()

    def wait_until_up(self) -> None:
        """Wait until all processes report that they are up.

        Raises:
            DistributorStartupTimeout, DistributorNotAlive: one did not start in time, or at all.
        """
        for process in self._processes:
            process.wait_until_up()

    def alive(self) -> bool:
        """Return whether all processes are running, starting or being restarted."""
        alive = [process.alive() for process in self._processes]  # all are called: each checks its own deadline
        return all(alive)

    def note_progress(self) -> None:
        """Reset the count of restarts, because tasks make progress."""
        for process in self._processes:
            process.note_progress()

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Notify all processes that the client is done, and wait for a limited time until they exit."""
        for process in self._processes:
            process.stop(0.0)
        for process in self._processes:
            process.stop(wait_seconds)

    @property
    def pid(self) -> int | None:
        """The ID of the first process."""
        return next((process.pid for process in self._processes), None)

    @property
    def failure(self) -> DistributorStartupTimeout | DistributorNotAlive | None:
        """Why one of the processes was given up, or None."""
        return next((process.failure for process in self._processes if process.failure is not None), None)


class FurtherProcesses:
    """Creates the processes of a run, once for each cluster.

    Args:
        run: the run.
        startup_timeout: maximum time for each process to start, in seconds.
    """

    def __init__(self, run: RunToServe, startup_timeout: float) -> None:
        self._run = run
        self._startup_timeout = startup_timeout
        self._served: set[str] = set()
        self._has_distributor = False

    def check(self, clusters: Iterable[ClusterInfo]) -> None:
        """Check that clusters can be served.

        Raises:
            InvalidResources: the distributor is running and serves other clusters only.
        """
        for info in clusters:
            is_new = info.name not in self._served
            if is_new and self._has_distributor and local_agents.offer_of(info, self._run.workflow_id) is None:
                raise InvalidResources(
                    f"Cluster {info.name!r} is not served in this run: no task used it when the run started."
                    " Name it as a default cluster of the workflow or of a template, and resume."
                )

    def create(self, clusters: Iterable[ClusterInfo], *, needs_distributor: bool = False) -> list[DistributorProcess]:
        """Return new processes that serve clusters, as far as they are not served yet."""
        new = [info for info in clusters if info.name not in self._served]
        self._served |= {info.name for info in new}
        found = {info.name: local_agents.offer_of(info, self._run.workflow_id) for info in new}
        created: list[DistributorProcess] = []
        if not self._has_distributor and (needs_distributor or None in found.values()):
            self._has_distributor = True
            created.append(DistributorProcess(self._run.workflow_run_id, self._startup_timeout))
        created += [
            local_agents.agent_of(self._run, info, offer, self._startup_timeout)
            for info in new
            if (offer := found[info.name]) is not None
        ]
        return created


def runners_of(run: RunToServe, startup_timeout: float) -> Runners:
    """Return the processes that run the commands of a run."""
    processes = FurtherProcesses(run, startup_timeout)
    needs_distributor = run.has_attempts_of_distributors or not run.clusters
    return Runners(processes.create(run.clusters, needs_distributor=needs_distributor), processes)


class DistributorContext:
    """The distributor of a run, for scripts that orchestrate a run themselves with `jobmon.client.swarm.run_workflow`.

    `Workflow.run` starts and stops the distributor automatically. Source: the seeds' example of `run_workflow`.

        with DistributorContext("slurm", workflow_run_id, 180) as distributor:
            result = run_workflow(workflow, workflow_run_id, distributor.alive)

    Args:
        cluster_name: a cluster of the workflow; all clusters of the run are served, local ones by agents.
        workflow_run_id: ID of the run, which must be bound.
        timeout: maximum time for the distributor to start, in seconds.
    """

    def __init__(self, cluster_name: str, workflow_run_id: int, timeout: float = STARTUP_TIMEOUT_SECONDS) -> None:
        self.cluster_name = cluster_name
        self.workflow_run_id = workflow_run_id
        self._timeout = timeout
        self._runners: Runners | None = None

    def __enter__(self) -> Self:
        """Start the distributor and wait until it is ready.

        Returns:
            The context itself.

        Raises:
            DistributorStartupTimeout: it is not ready in time.
            DistributorNotAlive: it cannot be started.
            JobmonError: the server cannot be reached, or the run does not exist.
        """
        requester = Requester.from_defaults()
        try:
            run = requester.call(f"/workflow_runs/{self.workflow_run_id}", None, RunResponse, "get")
            if self.cluster_name not in {info.name for info in run.clusters}:
                with suppress(InvalidResources):  # tasks whose request is not recorded yet may run there
                    run.clusters.append(Clusters(requester).info(self.cluster_name))
            self._runners = runners_of(_Run(run, requester), self._timeout)
        finally:
            requester.close()
        try:
            self._runners.start()
            self._runners.wait_until_up()
        except BaseException:
            self._runners.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Let the distributor finish the running commands and exit; wait for at most 10 s."""
        if self._runners is not None:
            self._runners.stop(CONTEXT_STOP_SECONDS)

    def alive(self) -> bool:
        """Return whether the distributor is running or being restarted."""
        return self._runners is not None and self._runners.alive()


class _Run:
    """A recorded run; see `RunToServe`."""

    def __init__(self, found: RunResponse, requester: Requester) -> None:
        self.workflow_id = found.workflow_id
        self.workflow_run_id = found.workflow_run_id
        self.clusters = found.clusters
        self.has_attempts_of_distributors = found.has_attempts_of_distributors
        self.requester = requester
