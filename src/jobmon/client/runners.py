"""The processes that run the commands of a run: an agent for each local cluster, and a distributor for all others."""

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
    from collections.abc import Sequence

    from jobmon.client.local_agents import RunToServe
    from jobmon.core.exceptions import DistributorNotAlive, DistributorStartupTimeout

#: Maximum time that `DistributorContext` waits for its processes to exit.
CONTEXT_STOP_SECONDS: Final = 10.0


class Runners:
    """The processes that run the commands of a run.

    Args:
        processes: the distributor, if the run needs one, and one agent for each local cluster.
    """

    def __init__(self, processes: Sequence[DistributorProcess]) -> None:
        self._processes = list(processes)

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


def runners_of(run: RunToServe, startup_timeout: float) -> Runners:
    """Return the processes that run the commands of a run."""
    found = {info.name: local_agents.offer_of(info, run.workflow_id) for info in run.clusters}
    offers = {name: offer for name, offer in found.items() if offer is not None}
    agents = [local_agents.agent_of(run, name, offer, startup_timeout) for name, offer in offers.items()]
    if agents and len(offers) == len(found) and not run.has_attempts_of_distributors:
        return Runners(agents)
    return Runners([DistributorProcess(run.workflow_run_id, startup_timeout), *agents])


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
            JobmonError: the server cannot be reached, or there is no such run.
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
