"""Direct clusters, which run commands in this distributor: third-party ones, and `dummy`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jobmon.distributor import batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobmon.core.clock import Clock
    from jobmon.core.cluster_protocol import DirectClusterDistributor, Exit, Launch
    from jobmon.distributor.files import OutputFiles
    from jobmon.distributor.state import DistributorState


class DirectClusters:
    """Manage all direct clusters of a distributor.

    Args:
        adapters: cluster name -> adapter, started.
        state: the distributor's state.
        files: output files of the attempts.
        host: name of this machine.
        clock: source of time.
        wake: event that is set when a cluster has something to report.
    """

    def __init__(
        self,
        adapters: Mapping[str, DirectClusterDistributor],
        state: DistributorState,
        files: OutputFiles,
        host: str,
        clock: Clock,
        wake: asyncio.Event,
    ) -> None:
        self._adapters = dict(adapters)
        self._state = state
        self._files = files
        self._host = host
        self._clock = clock
        self._wake = wake
        self._watched: dict[str, int] = {}
        self._tells_starts: set[str] = set()

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
            self._say_endings(endings)
            self._watch(name, adapter.fileno())
        return all(adapter.is_connected() for adapter in self._adapters.values())

    def _say_endings(self, endings: Sequence[Exit]) -> None:
        for ending, record in zip(endings, self._state.ended(endings), strict=True):
            launch, cause = record.launch, record.kill_cause
            tail = self._files.tail(launch, record.identity)
            self._state.say(batch.report_of(ending, host=self._host, launch=launch, tail=tail, kill_cause=cause))

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
