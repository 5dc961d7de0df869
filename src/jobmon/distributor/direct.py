"""Direct clusters, whose commands run on this machine: their reports, their commands, and their share of the cores."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from jobmon.distributor import batch
from jobmon.distributor.leases import Leases
from jobmon.distributor.locations import LocationTroubles, is_of_location
from jobmon.distributor.submissions import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.core.clock import Clock
    from jobmon.core.cluster_protocol import DirectClusterDistributor, Exit, Launch
    from jobmon.core.wire.launching import LaunchProblem, SlotsGranted, SlotsWanted
    from jobmon.distributor.files import OutputFiles
    from jobmon.distributor.state import DistributorState

logger = logging.getLogger(__name__)


class DirectClusters:
    """Manage all direct clusters of a distributor. Adapters start without any granted share of shared cores.

    Args:
        adapters: cluster name -> adapter.
        host: name of this machine.
        clock: source of time.
        wake: event that is set when a cluster has something to report.
        patience: how long a command with an unusable location is retried, seconds.
    """

    def __init__(
        self,
        adapters: Mapping[str, DirectClusterDistributor],
        host: str,
        clock: Clock,
        wake: asyncio.Event,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._adapters = dict(adapters)
        self._host = host
        self._clock = clock
        self._wake = wake
        self._leases = Leases(host)
        self._locations = LocationTroubles(patience)
        self._watched: dict[str, int] = {}
        self._tells_starts: set[str] = set()
        for adapter in self._adapters.values():
            self._leases.open(adapter)
            adapter.start()

    def serve(self, state: DistributorState, files: OutputFiles) -> None:
        """Set the state and output files of the distributor's workflow."""
        self._state = state
        self._files = files

    @property
    def names(self) -> list[str]:
        """The names of the clusters."""
        return list(self._adapters)

    # -- input from the clusters -------------------------------------------------------------------------------

    def collect(self) -> bool:
        """Collect starts and exits from all clusters; return whether all of them are connected."""
        for name, adapter in self._adapters.items():
            endings = adapter.collect_exits()
            starts = adapter.collect_starts()
            if starts is not None:
                self._state.started(starts)
                self._tells_starts.add(name)
            begun = [*(starts or {}).values(), *(one.started_at for one in endings if one.not_started is None)]
            if self._locations.started(name, begun):
                logger.warning("Commands can be started on cluster %s again.", name)
            self._say_endings(self._retried(name, endings))
            self._watch(name, adapter.fileno())
            self._state.limit_launches(name, self._locations.launches_max(name, self._clock.monotonic()))
        return all(adapter.is_connected() for adapter in self._adapters.values())

    def _retried(self, name: str, endings: Sequence[Exit]) -> list[Exit]:
        """Requeue attempts that could not start because of the location; return the other exits."""
        now, others, retried = self._clock.monotonic(), [], []
        for ending in endings:
            identity = ending.task_instance_id
            if not is_of_location(ending.start_fault, self._files.log_folder):
                self._locations.ended(name, identity)
                others.append(ending)
            elif not self._locations.failed(name, ending, now) or not self._state.put_back(identity):
                others.append(ending)
            else:
                retried.append(identity)
        if retried:
            logger.warning("Commands cannot be started on cluster %s now: %s", name, endings[-1].not_started)
            self._files.forget()
            self._adapters[name].acknowledge(retried)
        return others

    def _say_endings(self, endings: Sequence[Exit]) -> None:
        for ended in self._state.ended(endings):
            ending = ended.ending
            tail = self._files.tail(ended.launch, ending.task_instance_id)
            report = batch.report_of(
                ending, host=self._host, launch=ended.launch, tail=tail, kill_cause=ended.kill_cause
            )
            if ended.has_killed_parent and ended.kill_cause is None:
                report = batch.of_culprit(report)
            if ended.kill_cause is None and is_of_location(ending.start_fault, self._files.log_folder):
                report = batch.of_location(report, is_known=ended.launch is not None)
            self._state.say(report)

    def problems(self) -> dict[str, LaunchProblem]:
        """Return why commands cannot be started, by cluster name."""
        waiting = {name: self._state.waiting_count(name) for name in self._adapters}
        return self._locations.problems(self._clock.monotonic(), waiting)

    @property
    def retry_at(self) -> float | None:
        """When to retry commands that could not be started (monotonic seconds); None if there are none."""
        return self._locations.due()

    def _watch(self, name: str, descriptor: int) -> None:
        """Wake the loop when the cluster has data; its descriptor changes when the cluster reconnects."""
        loop = asyncio.get_running_loop()
        known = self._watched.get(name, -1)
        if descriptor != known:
            if known >= 0:
                loop.remove_reader(known)
                del self._watched[name]
            if descriptor >= 0:
                loop.add_reader(descriptor, self._wake.set)
                self._watched[name] = descriptor

    @property
    def must_be_asked(self) -> bool:
        """Whether a connected cluster has no descriptor and must be polled."""
        return any(adapter.fileno() < 0 for adapter in self._adapters.values() if adapter.is_connected())

    def connect(self) -> None:
        """Reconnect the clusters whose connection was lost."""
        for adapter in self._adapters.values():
            if not adapter.is_connected():
                adapter.start()

    def living(self) -> dict[str, Mapping[int, str]]:
        """Return cluster name -> {attempt: distributor id} of what is actually running."""
        return {name: adapter.adopt() for name, adapter in self._adapters.items()}

    # -- requests to the clusters ------------------------------------------------------------------------------

    def launch(self, launches: Mapping[str, Sequence[Launch]]) -> None:
        """Hand launches to their clusters."""
        for name, some in launches.items():
            self._files.prepare(some)
            self._locations.launched(name)
            self._state.spawned(self._adapters[name].spawn(some))
            if name not in self._tells_starts:
                now = self._clock.now().timestamp()
                self._state.started({launch.task_instance_id: now for launch in some})

    def terminate(self, name: str, distributor_ids: list[str]) -> bool:
        """Terminate attempts if the cluster is direct; return whether it is."""
        adapter = self._adapters.get(name)
        if adapter is not None:
            adapter.terminate_task_instances(distributor_ids)
        return adapter is not None

    def recall(self) -> None:
        """Ask all clusters to return what they have not started yet."""
        for adapter in self._adapters.values():
            adapter.recall()

    def acknowledge(self, ended: Sequence[int]) -> None:
        """Tell the clusters that the server has recorded the outcomes of these attempts."""
        for adapter in self._adapters.values():
            adapter.acknowledge(ended)

    def leave(self) -> None:
        """Disconnect from all clusters; running commands continue."""
        loop = asyncio.get_running_loop()
        for descriptor in self._watched.values():
            loop.remove_reader(descriptor)
        for adapter in self._adapters.values():
            adapter.stop()

    # -- shared cores ------------------------------------------------------------------------------------------

    def slots_wanted(self) -> dict[str, SlotsWanted]:
        """Return the cores held and wanted, for the next request."""
        return self._leases.wanted(self._state)

    def slots_returned(self) -> dict[str, SlotsWanted]:
        """Return the cores still held, for the last request."""
        return self._leases.farewell(self._state)

    def hear_slots(self, granted: Mapping[str, SlotsGranted]) -> None:
        """Apply the cores granted by the server."""
        self._leases.hear(granted, self._state)

    @property
    def must_tell_slots(self) -> bool:
        """Whether a request about cores is due even if there is nothing else to send."""
        return self._leases.must_tell(self._state)
