"""The plug-in of the simulated grid in one distributor. Its methods take time, like the commands of a real cluster."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.system.bridge import Bridge
from tests.simulation.system.grid import JOB_VARIABLE, STEP_VARIABLE

from jobmon.core.cluster_protocol import (
    FIRST_STEP,
    SUBMISSION_TOKEN,
    ArraySubmission,
    ClusterDistributor,
    RemoteExit,
)
from jobmon.core.constants import Cause, TaskInstanceStatus
from jobmon.core.exceptions import ClusterFull, ClusterUnavailable, RemoteExitInfoNotAvailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from tests.simulation.system.grid import Grid
    from tests.simulation.system.network import Part

#: Usual maximum duration of a command of the cluster.
CALL_SECONDS_MAX: Final = 1.0
CALL_SECONDS_SLOW: Final = 60.0
#: The bridge that currently runs the plug-in's code.
BRIDGE: Final[contextvars.ContextVar[Bridge]] = contextvars.ContextVar("BRIDGE")


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function like `asyncio.to_thread`, but on virtual time."""
    bridge = Bridge()
    BRIDGE.set(bridge)
    return await bridge.carry(lambda: function(*arguments))


class GridDistributor(ClusterDistributor):
    """The plug-in that polls each job separately.

    Args:
        cluster_name: the name of the cluster.
        grid: the grid.
        part: the process to which the plug-in belongs.
    """

    def __init__(self, cluster_name: str, grid: Grid, part: Part) -> None:
        super().__init__(cluster_name)
        self.has_arrays = grid.lies.has_arrays
        self.continues_arrays = grid.lies.continues_arrays
        self._grid = grid
        self._part = part

    @property
    def worker_node_entry_point(self) -> str:
        """See `ClusterDistributor`."""
        return f"worker --distributor-id-variable {JOB_VARIABLE} --array-step-variable {STEP_VARIABLE}"

    def submit_to_batch_distributor(self, command: str, name: str, requested_resources: dict[str, Any]) -> str:
        """See `ClusterDistributor`."""
        return self._submit(command, requested_resources, 1).get(0, "")

    def submit_array_to_batch_distributor(
        self, command: str, name: str, requested_resources: dict[str, Any], array_length: int
    ) -> ArraySubmission:
        """See `ClusterDistributor`."""
        return self._submit(command, requested_resources, array_length)

    def _submit(self, command: str, requested: dict[str, Any], length: int) -> ArraySubmission:
        grid = self._grid
        self._call()
        first = int(requested.get(FIRST_STEP, 0))
        fits = grid.room(length)
        full = ClusterFull("The grid takes no more jobs now.") if fits < length else None
        if full is not None and not fits:
            raise full
        token = requested.get(SUBMISSION_TOKEN)
        ids = grid.submit(command, token, range(first, first + fits), requested.get("runtime"))
        self._take_time(CALL_SECONDS_MAX)
        if grid.errs("refuses_what_it_took"):
            raise RuntimeError("the answer to the submission was lost")
        for step in list(ids):
            if grid.errs("gives_no_id"):
                del ids[step]
        return ArraySubmission(ids, full)

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """See `ClusterDistributor`."""
        self._call()
        asked = list(self._grid.jobs) if distributor_ids is None else distributor_ids
        return {identity for identity in asked if self._grid.lists(identity)}

    def get_queueing_errors(self, distributor_ids: list[str]) -> dict[str, str]:
        """See `ClusterDistributor`."""
        reasons = {identity: self._grid.stuck(identity) for identity in distributor_ids}
        return {identity: reason for identity, reason in reasons.items() if reason is not None}

    def terminate_task_instances(self, distributor_ids: list[str]) -> None:
        """See `ClusterDistributor`."""
        self._call()
        for identity in distributor_ids:
            self._grid.terminate(identity)

    def get_remote_exits(self, distributor_ids: Sequence[str]) -> dict[str, RemoteExit]:
        """See `ClusterDistributor`."""
        exits = {identity: self._grid.exit_info(identity) for identity in distributor_ids}
        return {identity: ending for identity, ending in exits.items() if ending is not None}

    def get_remote_exit_info(self, distributor_id: str) -> tuple[TaskInstanceStatus, str]:
        """See `ClusterDistributor`."""
        found = self.get_remote_exits([distributor_id]).get(distributor_id)
        if found is None:
            raise RemoteExitInfoNotAvailable(distributor_id)
        return found.status, found.message

    def find_submitted(self, tokens: Collection[str]) -> dict[str, dict[int, str]]:
        """See `ClusterDistributor`."""
        self._call()
        return self._grid.find(tokens)

    def _call(self) -> None:
        """Wait for the duration of one command of the cluster, which may fail."""
        slow = self._grid.errs("slow_call")
        self._take_time(CALL_SECONDS_SLOW if slow else CALL_SECONDS_MAX)
        if self._grid.now < self._grid.silent_until or self._grid.errs("silent"):
            raise ClusterUnavailable("The grid does not answer.")

    def _take_time(self, most: float) -> None:
        BRIDGE.get().wait_for(asyncio.sleep(self._grid.ground.dice.uniform(0.01, most)))
        if self._part.is_dead:
            raise asyncio.CancelledError


class WatchingGridDistributor(GridDistributor):
    """The plug-in that polls all jobs at once for all distributors, and answers from that view."""

    shares_watch = True

    def __init__(self, cluster_name: str, grid: Grid, part: Part) -> None:
        super().__init__(cluster_name, grid, part)
        self._held: set[str] = set()
        self._stuck: dict[str, str] = {}
        self._ended: dict[str, RemoteExit] = {}

    def look(self, since: float) -> dict[str, Any]:
        """See `ClusterDistributor`."""
        grid = self._grid
        grid.watcher = self._part
        self._call()
        at = grid.now
        view: dict[str, Any] = {"at": at, "held": [], "stuck": {}, "ended": {}}
        for identity in sorted(grid.jobs):
            if grid.lists(identity):
                view["held"].append(identity)
                if why := grid.stuck(identity):
                    view["stuck"][identity] = why
            elif (ending := grid.exit_info_since(identity, since)) is not None:
                view["ended"][identity] = asdict(ending)
        grid.looked_at = at
        self._take_time(CALL_SECONDS_MAX)
        return view

    def show(self, view: Mapping[str, Any]) -> None:
        """See `ClusterDistributor`."""
        self._held = set(view["held"])
        self._stuck = dict(view["stuck"])
        self._ended |= {identity: _exit(**ending) for identity, ending in view["ended"].items()}

    def get_submitted_or_running(self, distributor_ids: list[str] | None = None) -> set[str]:
        """See `ClusterDistributor`."""
        return self._held if distributor_ids is None else self._held.intersection(distributor_ids)

    def get_queueing_errors(self, distributor_ids: list[str]) -> dict[str, str]:
        """See `ClusterDistributor`."""
        return {identity: self._stuck[identity] for identity in distributor_ids if identity in self._stuck}

    def get_remote_exits(self, distributor_ids: Sequence[str]) -> dict[str, RemoteExit]:
        """See `ClusterDistributor`."""
        return {identity: self._ended[identity] for identity in distributor_ids if identity in self._ended}


def _exit(status: str, cause: str | None, **rest: Any) -> RemoteExit:
    return RemoteExit(status=TaskInstanceStatus(status), cause=None if cause is None else Cause(cause), **rest)
